# SPDX-License-Identifier: Apache-2.0
"""Pictures: right size and type, bad parameters refused, labels never in thumbnails."""

import io

import imagecodecs
import pytest
from PIL import Image

from archive.values import Fit, Rendering
from dicomweb.errors import BadRequest
from dicomweb.rendering import parse_rendering
from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, LABEL, LEVEL, WEB, parts_of, store
from tests.dicomweb.test_wado import SERIES, STUDY

JPEG = {"Accept": "image/jpeg"}


def picture(response):
    assert response.status_code == 200, response.get_data()
    image = Image.open(io.BytesIO(response.get_data()))
    image.load()
    return image


@pytest.mark.parametrize(
    ("accept", "form"), [("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/gif", "GIF")]
)
def test_a_frame_is_rendered_in_the_type_asked_for(reader, accept, form):
    response = reader.get(f"{LEVEL}/frames/2/rendered", headers={"Accept": accept})
    image = picture(response)
    assert (image.format, image.size) == (form, (samples.TILE, samples.TILE))
    assert response.headers["Content-Type"] == accept
    red, _, blue = image.convert("RGB").getpixel((8, 8))
    assert abs(red - 80) < 12
    assert abs(blue - 215) < 12


def test_a_rendered_frame_has_an_etag_that_depends_on_the_parameters(reader):
    url = f"{LEVEL}/frames/1/rendered"
    first = reader.get(url, headers=JPEG)
    known = {**JPEG, "If-None-Match": first.headers["ETag"]}
    assert reader.get(url, headers=known).status_code == 304
    assert reader.get(f"{url}?quality=10", headers=known).status_code == 200
    assert reader.get(f"{LEVEL}/frames/99/rendered", headers=known).status_code == 404


def test_several_rendered_frames_are_multipart_only(reader):
    assert reader.get(f"{LEVEL}/frames/1,2/rendered", headers=JPEG).status_code == 406
    parts = parts_of(
        reader.get(f"{LEVEL}/frames/1,2/rendered", headers={"Accept": 'multipart/related; type="image/png"'})
    )
    assert [Image.open(io.BytesIO(part.data)).format for part in parts] == ["PNG", "PNG"]


def test_the_whole_matrix_of_a_small_level_is_one_picture(reader):
    image = picture(reader.get(f"{LEVEL}/rendered", headers=JPEG))
    assert image.size == (3 * samples.TILE, 2 * samples.TILE)
    small = picture(reader.get(f"{LEVEL}/rendered?viewport=24%2C24", headers=JPEG))
    assert small.size == (24, 16)


def test_slims_request_for_the_label_is_answered(reader):
    image = picture(reader.get(f"{LABEL}/rendered?viewport=8%2C8", headers={"Accept": "image/png"}))
    assert image.size == (8, 8)


def test_a_large_matrix_without_a_viewport_is_413(client):
    store(client, samples.volume(columns=300, rows=1))
    response = client.get(f"{LEVEL}/rendered", headers=JPEG)
    assert response.status_code == 413
    assert response.get_json()["error"]["kind"] == "TooLarge"
    assert picture(client.get(f"{LEVEL}/rendered?viewport=600,600", headers=JPEG)).size == (600, 2)


@pytest.mark.parametrize("url", [STUDY, SERIES, LEVEL, f"{LEVEL}/frames/2"])
def test_thumbnails_exist_at_every_level(reader, url):
    image = picture(reader.get(f"{url}/thumbnail", headers={"Accept": "image/avif,image/*,*/*;q=0.8"}))
    assert image.format == "JPEG"
    assert max(image.size) <= 256


def test_a_label_has_no_thumbnail(reader):
    assert reader.get(f"{LABEL}/thumbnail", headers=JPEG).status_code == 404
    assert reader.get(f"{LABEL}/frames/1/thumbnail", headers=JPEG).status_code == 404


def test_a_study_of_labels_alone_has_no_thumbnail(client):
    store(client, samples.label(), samples.label(4, kind="OVERVIEW"))
    assert client.get(f"{STUDY}/thumbnail", headers=JPEG).status_code == 404


def test_a_thumbnail_can_be_smaller_and_answers_304(reader):
    response = reader.get(f"{SERIES}/thumbnail?viewport=12,12", headers={"Accept": "image/png"})
    assert max(picture(response).size) == 12
    again = {"Accept": "image/png", "If-None-Match": response.headers["ETag"]}
    assert reader.get(f"{SERIES}/thumbnail?viewport=12,12", headers=again).status_code == 304


@pytest.mark.parametrize(
    "query",
    [
        "viewport=0,10", "viewport=10", "viewport=a,b", "viewport=10,10,1,1,5", "viewport=9999999,1",
        "viewport=10,10,16,0,5,5", "viewport=10,10,0,0,0,5", "viewport=10,10,-1,0,5,5", "viewport=-5,5",
        "viewport=10,10,a,0,5,5", "viewport=10,10,nan,0,5,5", "viewport=10,10,1e3,0,5,5",
        "opticalpath=", "opticalpath=nine", "focalplane=0", "focalplane=2", "focalplane=x",
        "window=1,0.5,linear",
        "viewport=5000,5000", "quality=0", "quality=101", "quality=x", "iccprofile=maybe",
        "window=1,0,linear", "window=1,2,3,4", "window=a,b,linear", "window=1,nan,linear", "window=1,2,cubic",
    ],
)  # fmt: skip
def test_bad_values_of_known_parameters_are_400(reader, query):
    assert reader.get(f"{LEVEL}/frames/1/rendered?{query}", headers=JPEG).status_code == 400


def test_unknown_parameters_are_ignored(reader):
    assert reader.get(f"{LEVEL}/frames/1/rendered?x=y&Viewport=0", headers=JPEG).status_code == 200


def test_annotations_are_not_drawn_and_that_is_said(reader):
    response = reader.get(f"{LEVEL}/frames/1/rendered?annotation=patient,technique", headers=JPEG)
    plain = reader.get(f"{LEVEL}/frames/1/rendered", headers=JPEG)
    assert response.get_data() == plain.get_data()
    assert response.headers["Warning"].endswith("annotation values are not supported: patient,technique")
    assert "Warning" not in plain.headers


def test_gif_cannot_carry_a_profile(reader):
    response = reader.get(f"{LEVEL}/frames/1/rendered?iccprofile=yes", headers={"Accept": "image/gif"})
    assert response.status_code == 400


def test_a_profile_is_in_the_picture_when_asked_for(reader):
    image = picture(reader.get(f"{LEVEL}/frames/1/rendered?iccprofile=yes", headers={"Accept": "image/png"}))
    assert image.info.get("icc_profile")


def test_a_study_without_thumbnail_or_with_a_wrong_uid_is_404(reader):
    assert reader.get(f"{WEB}/studies/1.2.3/thumbnail", headers=JPEG).status_code == 404


def test_parameters_become_one_value():
    made = parse_rendering(
        {"viewport": "300,200,,,,", "quality": "40", "window": "128,256,sigmoid", "iccprofile": "srgb"},
        "image/png",
        4096,
        (1000, 2000),
    )
    assert made == Rendering("image/png", 40, 200, 300, "srgb", (128.0, 256.0, "sigmoid"), fit=Fit.CONTAIN)
    with pytest.raises(BadRequest):
        parse_rendering({"viewport": "300,,1,2,3,4"}, "image/png", 4096, (1000, 2000))


def test_a_viewport_has_a_source_region_that_is_cropped_and_flipped():
    def region(text):
        made = parse_rendering({"viewport": text}, "image/png", 4096, (1000, 2000))
        return made.region, made.flip_rows, made.flip_columns

    assert region("100,100,10.5,20,200,100") == ((20, 10.5, 100, 200), False, False)
    assert region("100,100,1900,900,-200,-300") == ((900, 1900, 100, 100), True, True)
    assert region("100,100,500,,,") == ((0, 500, 1000, 1500), False, False)
    assert region("100,100,0,0,2000,1000") == (None, False, False)


def test_a_region_across_tiles_and_levels_is_drawn(reader):
    """Tiles of one colour each: the picture's corners tell which of them it shows."""
    whole = picture(reader.get(f"{LEVEL}/rendered", headers={"Accept": "image/png"})).convert("RGB")
    part = picture(
        reader.get(f"{LEVEL}/rendered?viewport=40,40,4,4,40,24", headers={"Accept": "image/png"})
    ).convert("RGB")
    assert part.size == (40, 24)
    assert part.getpixel((0, 0)) == whole.getpixel((4, 4))
    assert part.getpixel((39, 23)) == whole.getpixel((43, 27))
    flipped = picture(
        reader.get(f"{LEVEL}/rendered?viewport=40,40,4,4,-40,24", headers={"Accept": "image/png"})
    ).convert("RGB")
    assert flipped.getpixel((39, 0)) == part.getpixel((0, 0))


def test_a_small_image_fills_its_viewport(reader):
    assert picture(reader.get(f"{LABEL}/rendered?viewport=64,48", headers=JPEG)).size == (48, 48)


@pytest.mark.parametrize(("accept", "form"), [("image/webp", "WEBP"), ("image/avif", "AVIF")])
def test_newer_types_are_given_to_who_names_them(reader, accept, form):
    url = f"{LEVEL}/rendered?iccprofile=yes"
    image = picture(reader.get(url, headers={"Accept": accept}))
    assert image.format == form
    assert image.info["icc_profile"] == samples.ICC_PROFILE
    preferred = reader.get(url, headers={"Accept": f"{accept}, image/jpeg;q=0.5"})
    assert preferred.headers["Content-Type"] == accept
    listed = reader.get(url, headers={"Accept": f"{accept},image/*,*/*;q=0.8"})
    assert listed.headers["Content-Type"] == "image/jpeg", "a browser's list is no wish"


def test_jpeg_xl_is_given_and_carries_no_profile(reader):
    response = reader.get(f"{LEVEL}/frames/1/rendered", headers={"Accept": "image/jxl"})
    assert response.headers["Content-Type"] == "image/jxl"
    assert imagecodecs.jpegxl_decode(response.get_data()).shape == (samples.TILE, samples.TILE, 3)
    refused = reader.get(f"{LEVEL}/frames/1/rendered?iccprofile=srgb", headers={"Accept": "image/jxl"})
    assert refused.status_code == 400


@pytest.mark.parametrize("url", [STUDY, SERIES])
def test_a_study_and_a_series_are_a_picture_of_each_instance(reader, url):
    several = {"Accept": 'multipart/related; type="image/png"'}
    parts = parts_of(reader.get(f"{url}/rendered?viewport=32,32", headers=several))
    sizes = [Image.open(io.BytesIO(part.data)).size for part in parts]
    assert sizes == [(32, 21), (32, 16), (32, 32)]
    assert parts[0].headers["content-location"].endswith(f"{LEVEL}/rendered")
    assert reader.get(f"{url}/rendered", headers=JPEG).status_code == 406
    known = {**several, "If-None-Match": reader.get(f"{url}/rendered", headers=several).headers["ETag"]}
    assert reader.get(f"{url}/rendered", headers=known).status_code == 304
    assert reader.get(f"{url}/rendered?viewport=0,0", headers=several).status_code == 400


def test_nothing_is_rendered_where_there_are_no_pixels(reader):
    assert reader.get(f"{ANNOTATIONS}/rendered", headers=JPEG).status_code == 404
    series = ANNOTATIONS.partition("/instances")[0]
    assert reader.get(f"{series}/rendered", headers={"Accept": "multipart/related"}).status_code == 404


def test_a_thumbnail_has_no_source_region(reader):
    assert reader.get(f"{SERIES}/thumbnail?viewport=9,9,0,0,5,5", headers=JPEG).status_code == 400


def test_an_etag_changes_once_a_level_comes_that_the_picture_is_drawn_from(client):
    store(client, samples.volume(columns=8, rows=8))
    first = client.get(f"{LEVEL}/rendered?viewport=32,32", headers=JPEG)
    known = {**JPEG, "If-None-Match": first.headers["ETag"]}
    assert client.get(f"{LEVEL}/rendered?viewport=32,32", headers=known).status_code == 304
    store(client, samples.volume(2, columns=2, rows=2, first=50))
    again = client.get(f"{LEVEL}/rendered?viewport=32,32", headers=known)
    assert again.status_code == 200
    assert again.get_data() != first.get_data()
