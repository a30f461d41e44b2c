# SPDX-License-Identifier: Apache-2.0
"""Bulk data and pixel data of a value, an instance, a series, a study."""

import io

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate

from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, LABEL, LEVEL, REVERSIBLE, WEB, parts_of, store

BASE = "http://localhost"
STUDY = f"{WEB}/studies/{samples.STUDY}"
SERIES = f"{STUDY}/series/{samples.SERIES}"
JPEG = "1.2.840.10008.1.2.4.50"
J2K_LOSSLESS = "1.2.840.10008.1.2.4.90"
ELE = "1.2.840.10008.1.2.1"
ANY = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
OCTETS = {"Accept": 'multipart/related; type="application/octet-stream"'}
SINGLE = {"Accept": "application/octet-stream"}
NATIVE_LABEL = bytes(range(256)) * 3


def decoded(data: bytes) -> bytes:
    dataset = dcmread(io.BytesIO(data))
    dataset.decompress()
    return bytes(dataset.PixelData)


def test_encapsulated_pixel_data_are_a_part_for_each_frame(reader):
    for accept in (ANY["Accept"], f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}', "*/*"):
        response = reader.get(f"{LEVEL}/pixeldata", headers={"Accept": accept})
        assert response.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        parts = parts_of(response)
        assert [part.data for part in parts] == [samples.tile(number) for number in range(1, 7)]
        for number, part in enumerate(parts, 1):
            assert part.headers["content-type"].endswith(f"; transfer-syntax={JPEG}")
            assert part.headers["content-location"] == f"{BASE}{LEVEL}/frames/{number}"


def test_native_pixel_data_are_one_value_which_may_stand_alone(reader):
    (part,) = parts_of(reader.get(f"{LABEL}/pixeldata", headers=OCTETS))
    assert part.data == NATIVE_LABEL
    assert part.headers["content-location"] == f"{BASE}{LABEL}/pixeldata"
    alone = reader.get(f"{LABEL}/pixeldata", headers=SINGLE)
    assert alone.headers["Content-Type"] == f"application/octet-stream; transfer-syntax={ELE}"
    assert alone.get_data() == NATIVE_LABEL
    piece = reader.get(f"{LABEL}/pixeldata", headers={**SINGLE, "Range": "bytes=-10"})
    assert (piece.status_code, piece.get_data()) == (206, NATIVE_LABEL[-10:])


def test_lossless_pixel_data_are_decoded_to_one_value_for_those_who_name_no_syntax(reader):
    expected = decoded(samples.lossless())
    (part,) = parts_of(reader.get(f"{REVERSIBLE}/pixeldata", headers=OCTETS))
    assert part.data == expected
    assert part.headers["content-type"] == f"application/octet-stream; transfer-syntax={ELE}"
    alone = reader.get(f"{REVERSIBLE}/pixeldata", headers={**SINGLE, "Range": "bytes=700-799"})
    assert (alone.status_code, alone.get_data()) == (206, expected[700:800])
    assert len(parts_of(reader.get(f"{REVERSIBLE}/pixeldata", headers=ANY))) == 2


@pytest.mark.parametrize(
    "accept", ["application/octet-stream; transfer-syntax=*", "image/jpeg", "image/jpeg; transfer-syntax=*"]
)
def test_several_frames_are_never_a_single_part(reader, accept):
    assert reader.get(f"{LEVEL}/pixeldata", headers={"Accept": accept}).status_code == 406


@pytest.mark.parametrize("url", [STUDY, SERIES])
def test_pixel_data_of_a_level_are_those_of_every_instance_that_has_some(reader, url):
    parts = parts_of(reader.get(f"{url}/pixeldata", headers=ANY))
    assert len(parts) == 6 + 2 + 1
    places = {part.headers["content-location"].removeprefix(BASE).partition("/frames/")[0] for part in parts}
    assert places == {LEVEL, REVERSIBLE, f"{LABEL}/pixeldata"}
    assert reader.get(f"{url}/pixeldata", headers=SINGLE).status_code == 406


def test_what_has_no_pixels_has_no_pixel_data(reader):
    for accept in ("*/*", ANY["Accept"], "application/octet-stream"):
        assert reader.get(f"{ANNOTATIONS}/pixeldata", headers={"Accept": accept}).status_code == 404
    assert reader.get(f"{ANNOTATIONS}/pixeldata").status_code == 406


def test_bulk_data_of_an_instance_are_its_values_and_its_pixels(reader):
    parts = parts_of(reader.get(f"{ANNOTATIONS}/bulkdata", headers=OCTETS))
    assert [part.data for part in parts] == [samples.COORDINATES]
    place = f"{BASE}{ANNOTATIONS}/bulkdata/006A0002/0/00660022"
    assert parts[0].headers["content-location"] == place
    alone = reader.get(f"{ANNOTATIONS}/bulkdata", headers={**SINGLE, "Range": "bytes=8-15"})
    assert (alone.status_code, alone.get_data()) == (206, samples.COORDINATES[8:16])
    pixels = parts_of(reader.get(f"{LEVEL}/bulkdata", headers=ANY))
    assert [part.data for part in pixels] == [samples.tile(number) for number in range(1, 7)]


def test_bulk_data_of_a_study_hold_every_value_that_its_metadata_name(reader):
    metadata = reader.get(f"{STUDY}/metadata", headers={"Accept": "application/dicom+json"}).get_data(
        as_text=True
    )
    named = {uri.partition('"')[0] for uri in metadata.split('"BulkDataURI":"')[1:]}
    given = {
        part.headers["content-location"] for part in parts_of(reader.get(f"{STUDY}/bulkdata", headers=ANY))
    }
    assert named
    assert named <= given
    assert len(given) == len(named) + 6 + 2 + 1


def test_what_cannot_be_given_completely_is_406(reader):
    for url in (ANNOTATIONS, STUDY):
        response = reader.get(
            f"{url}/bulkdata",
            headers={"Accept": f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}'},
        )
        assert response.status_code == 406


@pytest.mark.parametrize("url", [f"{LEVEL}/pixeldata", f"{ANNOTATIONS}/bulkdata", f"{LEVEL}/bulkdata"])
def test_an_instance_that_is_known_already_is_not_sent_again(reader, url):
    first = reader.get(url, headers=ANY)
    again = reader.get(url, headers={**ANY, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.get_data()) == (304, b"")
    other = reader.get(url, headers={"Accept": "*/*", "If-None-Match": first.headers["ETag"]})
    assert other.status_code == (304 if url.startswith(ANNOTATIONS) else 200)


@pytest.mark.parametrize("resource", ["pixeldata", "bulkdata", "bulkdata/00480105/0/00282000"])
def test_what_is_not_there_is_404(reader, resource):
    for url in (f"{SERIES}/instances/1.2.3", f"{STUDY}/series/1.2/instances/1.2"):
        assert reader.get(f"{url}/{resource}", headers=ANY).status_code == 404
    if "/" not in resource:
        assert reader.get(f"{WEB}/studies/1.2.3/{resource}", headers=ANY).status_code == 404
        assert reader.get(f"{STUDY}/series/1.2.3/{resource}", headers=ANY).status_code == 404


# ---- video ------------------------------------------------------------------------

H264 = "1.2.840.10008.1.2.4.102"
STREAM = bytes(range(251)) * 40


def video(syntax):
    """A video of 25 frames in one bit stream of two fragments."""
    made = samples.header(1)
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.2.1"
    made.PhotometricInterpretation = "YBR_PARTIAL_420"
    made.LossyImageCompression = "01"
    samples.size(made, 25, 1)
    del made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows, made.DimensionOrganizationType
    made.PixelData = encapsulate([STREAM], fragments_per_frame=2, has_bot=False)
    made["PixelData"].VR = "OB"
    return samples.written(made, syntax)


@pytest.mark.parametrize(
    ("syntax", "own"),
    [(H264, "video/mp4"), ("1.2.840.10008.1.2.4.100", "video/mpeg"), (f"{H264}.1", "video/mp4")],
)
def test_a_video_is_one_value_in_its_own_type_or_as_octets(client, syntax, own):
    assert store(client, video(syntax)).status_code == 200
    url = f"{LEVEL}/pixeldata"
    for accept, shown in (
        (own, own),
        ("video/*", own),
        (f"{own}; transfer-syntax={syntax}", own),
        (f"{own}; transfer-syntax=*", own),
        ("application/octet-stream", "application/octet-stream"),
        ("application/octet-stream; transfer-syntax=*", "application/octet-stream"),
    ):
        alone = client.get(url, headers={"Accept": accept})
        assert (alone.status_code, alone.get_data()) == (200, STREAM), accept
        assert alone.headers["Content-Type"] == f"{shown}; transfer-syntax={syntax}"
        parameters = accept.partition(";")[2]
        for asked in (f'multipart/related; type="{accept.partition(";")[0]}";{parameters}', "*/*"):
            (part,) = parts_of(client.get(url, headers={"Accept": asked}))
            assert part.data == STREAM
            assert part.headers["content-location"] == f"{BASE}{url}"
    piece = client.get(url, headers={"Accept": own, "Range": "bytes=3995-4004"})
    assert (piece.status_code, piece.get_data()) == (206, STREAM[3995:4005])
    everything = parts_of(client.get(f"{STUDY}/bulkdata", headers={"Accept": "*/*"}))
    assert STREAM in [part.data for part in everything]


@pytest.mark.parametrize(
    "accept",
    [
        f"video/mp4; transfer-syntax={H264[:-1]}3",
        "video/mpeg",
        f"application/octet-stream; transfer-syntax={ELE}",
        "image/jpeg",
        "image/gif",
        "image/png",
    ],
)
def test_a_video_is_given_as_nothing_else(client, accept):
    store(client, video(H264))
    assert client.get(f"{LEVEL}/pixeldata", headers={"Accept": accept}).status_code == 406


@pytest.mark.parametrize("number", ["1", "2", "1,2"])
@pytest.mark.parametrize("accept", ["*/*", "video/mp4", SINGLE["Accept"], ANY["Accept"]])
def test_frames_of_a_video_have_no_address(client, number, accept):
    store(client, video(H264))
    assert client.get(f"{LEVEL}/frames/{number}", headers={"Accept": accept}).status_code == 406
    assert client.get(f"{LEVEL}/frames/1/rendered", headers={"Accept": "image/png"}).status_code == 406
