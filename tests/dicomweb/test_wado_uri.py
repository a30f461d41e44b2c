# SPDX-License-Identifier: Apache-2.0
"""WADO-URI: the same objects by a query."""

import io
from urllib.parse import urlencode

import pytest
from PIL import Image

from tests.dicomweb import samples

NAMES = {"requestType": "WADO", "studyUID": samples.STUDY, "seriesUID": samples.SERIES}


def get(reader, number=1, headers=None, **query):
    arguments = {**NAMES, "objectUID": f"{samples.SERIES}.{number}", **query}
    text = urlencode({name: value for name, value in arguments.items() if value is not None})
    return reader.get(f"/wado?{text}", headers=headers or {})


def picture(response):
    assert response.status_code == 200, response.get_data()
    return Image.open(io.BytesIO(response.get_data()))


@pytest.mark.parametrize("series", [samples.SERIES, None])
def test_the_object_itself_is_what_was_stored(reader, series):
    response = get(reader, contentType="application/dicom", seriesUID=series)
    assert response.headers["Content-Type"] == "application/dicom"
    assert response.get_data() == samples.volume()


def test_no_accept_header_is_needed_and_none_is_looked_at(reader):
    assert get(reader, headers={"Accept": "text/html"}).status_code == 200


def test_without_content_type_frames_and_single_images_are_pictures_and_the_rest_objects(reader):
    assert get(reader).headers["Content-Type"] == "application/dicom"
    assert get(reader, frameNumber=2).headers["Content-Type"] == "image/jpeg"
    assert get(reader, 3).headers["Content-Type"] == "image/jpeg"


def test_a_frame_is_that_frame(reader):
    shown = picture(get(reader, frameNumber=2, contentType="image/png"))
    assert shown.size == (samples.TILE, samples.TILE)
    expected = Image.open(io.BytesIO(samples.tile(2))).convert("RGB").getpixel((8, 8))
    found = shown.convert("RGB").getpixel((8, 8))
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 8


def test_rows_and_columns_bound_the_picture_of_the_whole_matrix(reader):
    assert picture(get(reader, contentType="image/jpeg", columns=24)).size == (24, 16)
    assert picture(get(reader, contentType="image/jpeg", rows=16)).size == (24, 16)


def test_a_region_in_shares_of_the_image_is_cut_out(reader):
    shown = picture(get(reader, contentType="image/png", region="0.333333,0,0.666667,0.5", columns=16))
    expected = Image.open(io.BytesIO(samples.tile(2))).convert("RGB").getpixel((8, 8))
    found = shown.convert("RGB").getpixel((8, 8))
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 12


def test_the_first_type_that_can_be_given_is(reader):
    assert get(reader, 3, contentType="image/tiff,image/png").headers["Content-Type"] == "image/png"


def test_a_window_and_a_quality_are_taken(reader):
    assert get(reader, 3, windowCenter=100, windowWidth=50, imageQuality=20).status_code == 200


def test_an_etag_saves_the_second_time(reader):
    for query in ({"contentType": "application/dicom"}, {"frameNumber": 1}):
        first = get(reader, **query)
        again = get(reader, headers={"If-None-Match": first.headers["ETag"]}, **query)
        assert again.status_code == 304


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"requestType": "OTHER"}, 400),
        ({"requestType": None}, 400),
        ({"studyUID": None}, 400),
        ({"objectUID": None}, 400),
        ({"objectUID": "../x"}, 400),
        ({"objectUID": "1.2.3"}, 404),
        ({"objectUID": "1.2.3", "seriesUID": None}, 404),
        ({"seriesUID": "x"}, 400),
        ({"studyUID": "1.2.3"}, 404),
        ({"frameNumber": "0"}, 400),
        ({"frameNumber": "x"}, 400),
        ({"frameNumber": "7"}, 404),
        ({"contentType": "text/plain"}, 406),
        ({"contentType": "application/dicom", "frameNumber": "1"}, 406),
        ({"contentType": "application/dicom", "transferSyntax": "1.2.3"}, 406),
        ({"contentType": "image/jpeg", "rows": "0"}, 400),
        ({"contentType": "image/jpeg", "region": "0,0,2,1"}, 400),
        ({"contentType": "image/jpeg", "region": "0,0,nan,1"}, 400),
        ({"contentType": "image/jpeg", "region": "0,0,1"}, 400),
        ({"contentType": "image/jpeg", "windowCenter": "5"}, 400),
        ({"contentType": "image/jpeg", "imageQuality": "0"}, 400),
        ({"anonymize": "yes"}, 400),
        ({"presentationUID": "1.2"}, 400),
    ],
)
def test_what_cannot_be_done_is_said(reader, query, status):
    assert get(reader, **query).status_code == status
