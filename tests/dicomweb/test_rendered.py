# SPDX-License-Identifier: Apache-2.0
"""Pictures: right size and type, bad parameters refused, labels never in thumbnails."""

import io

import pytest
from PIL import Image

from archive.values import Rendering
from dicomweb.errors import BadRequest
from dicomweb.rendered import parse_rendering
from tests.dicomweb import samples
from tests.dicomweb.conftest import LABEL, LEVEL, WEB, parts_of, store
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


def test_a_large_level_without_its_tiles_being_few_is_413(client):
    store(client, samples.volume(columns=10, rows=10))
    response = client.get(f"{LEVEL}/rendered", headers=JPEG)
    assert response.status_code == 413
    assert response.get_json()["error"]["kind"] == "TooLarge"


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
        "viewport=0,10", "viewport=10", "viewport=a,b", "viewport=10,10,1,1,5,5", "viewport=9999999,1",
        "viewport=5000,5000", "quality=0", "quality=101", "quality=x", "iccprofile=maybe",
        "window=1,0,linear", "window=1,2,3,4", "window=a,b,linear", "window=1,nan,linear", "window=1,2,cubic",
    ],
)  # fmt: skip
def test_bad_values_of_known_parameters_are_400(reader, query):
    assert reader.get(f"{LEVEL}/frames/1/rendered?{query}", headers=JPEG).status_code == 400


def test_unknown_parameters_are_ignored(reader):
    assert reader.get(f"{LEVEL}/frames/1/rendered?annotation=patient&x=y", headers=JPEG).status_code == 200


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
    )
    assert made == Rendering("image/png", 40, 200, 300, "srgb", (128.0, 256.0, "sigmoid"))
    with pytest.raises(BadRequest):
        parse_rendering({"viewport": "300,,1,2,3,4"}, "image/png", 4096)
