# SPDX-License-Identifier: Apache-2.0
"""Retrieve: what comes out is what went in, in the form that was asked for."""

import gzip
import io
import json
from xml.etree import ElementTree

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from archive.access import EVERYTHING, Principal
from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, LABEL, LEVEL, REVERSIBLE, WEB, parts_of, store

JPEG = "1.2.840.10008.1.2.4.50"
J2K_LOSSLESS = "1.2.840.10008.1.2.4.90"
J2K = "1.2.840.10008.1.2.4.91"
ELE = "1.2.840.10008.1.2.1"
STUDY = f"{WEB}/studies/{samples.STUDY}"
SERIES = f"{STUDY}/series/{samples.SERIES}"
SLIM = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
DICOM = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
JSON = {"Accept": "application/dicom+json"}
BASE = "http://localhost:80".removesuffix(":80")


def error_of(response):
    """The one error shape."""
    error = response.get_json()["error"]
    assert error["status"] == response.status_code
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert error["kind"]
    assert error["message"]
    return error


# ---- instances --------------------------------------------------------------------


def test_an_instance_comes_back_byte_for_byte(reader):
    response = reader.get(LEVEL, headers={"Accept": "application/dicom; transfer-syntax=*"})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == f"application/dicom; transfer-syntax={JPEG}"
    assert response.get_data() == samples.volume()


def test_an_instance_is_multipart_unless_the_single_part_is_asked_for(reader):
    for accept in (DICOM["Accept"], "*/*", "multipart/related; type=application/dicom"):
        (part,) = parts_of(reader.get(LEVEL, headers={"Accept": accept}))
        assert part.data == samples.volume()
        assert part.headers["content-type"] == f"application/dicom; transfer-syntax={JPEG}"
        assert part.headers["content-location"] == BASE + LEVEL


@pytest.mark.parametrize(("url", "count"), [(STUDY, 4), (SERIES, 3)])
def test_a_study_and_a_series_hold_every_instance_once(reader, url, count):
    response = reader.get(url, headers=DICOM)
    assert response.content_length is not None
    parts = parts_of(response)
    uids = {str(dcmread(io.BytesIO(part.data)).SOPInstanceUID) for part in parts}
    assert len(parts) == len(uids) == count


@pytest.mark.parametrize("accept", ["application/dicom", f"application/dicom; transfer-syntax={ELE}"])
def test_lossless_instances_are_decoded_for_those_who_name_no_syntax(reader, accept):
    response = reader.get(REVERSIBLE, headers={"Accept": accept})
    assert response.headers["Content-Type"] == f"application/dicom; transfer-syntax={ELE}"
    assert response.content_length == len(response.get_data())
    decoded, original = (dcmread(io.BytesIO(data)) for data in (response.get_data(), samples.lossless()))
    assert decoded.file_meta.TransferSyntaxUID == ELE
    assert decoded.PhotometricInterpretation == "RGB"
    original.decompress()
    assert decoded.PixelData == original.PixelData
    assert decoded.SpecimenDescriptionSequence == original.SpecimenDescriptionSequence


def test_lossy_instances_are_decoded_on_demand_only(reader):
    asked = reader.get(LEVEL, headers={"Accept": f"application/dicom; transfer-syntax={ELE}"})
    decoded = dcmread(io.BytesIO(asked.get_data()))
    assert len(decoded.PixelData) == 6 * samples.TILE**2 * 3
    assert reader.get(LEVEL, headers={"Accept": "application/dicom"}).get_data() == samples.volume()


def test_the_javascript_client_gets_a_whole_study_of_several_syntaxes(reader):
    parts = parts_of(reader.get(STUDY, headers={"Accept": 'multipart/related; type="application/dicom"'}))
    syntaxes = [dcmread(io.BytesIO(part.data)).file_meta.TransferSyntaxUID for part in parts]
    assert sorted(syntaxes) == [ELE, ELE, ELE, JPEG]


def test_a_syntax_that_would_lose_something_is_not_given(reader):
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={JPEG}'
    assert reader.get(REVERSIBLE, headers={"Accept": accept}).status_code == 406


def test_a_corrected_study_has_exact_lengths_everywhere(client, archive):
    store(client, samples.volume(), samples.label(), samples.annotations())
    archive.correct(
        samples.STUDY, {"PatientName": "Somebody^With a Much Longer Name"}, reason="test",
        principal=Principal("tester", "cli"), scope=EVERYTHING,
    )  # fmt: skip
    for part in parts_of(client.get(STUDY, headers=DICOM)):
        assert dcmread(io.BytesIO(part.data)).PatientName == "Somebody^With a Much Longer Name"
    single = {"Accept": "application/dicom; transfer-syntax=*"}
    assert client.get(f"{LEVEL}?original=true", headers=single).get_data() == samples.volume()
    current = client.get(LEVEL, headers=single)
    assert current.content_length == len(current.get_data()) != len(samples.volume())


def test_an_instance_has_an_etag_that_answers_304(reader):
    first = reader.get(LEVEL, headers=DICOM)
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert first.headers["Vary"] == "Accept"
    again = reader.get(LEVEL, headers={**DICOM, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.get_data()) == (304, b"")
    other_form = {"Accept": "application/dicom; transfer-syntax=*", "If-None-Match": first.headers["ETag"]}
    assert reader.get(LEVEL, headers=other_form).status_code == 200


def test_ranges_of_a_single_part_are_given_and_bad_ones_refused(reader):
    whole = samples.volume()
    single = {"Accept": "application/dicom; transfer-syntax=*"}
    part = reader.get(LEVEL, headers={**single, "Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.get_data() == whole[100:200]
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
    beyond = reader.get(LEVEL, headers={**single, "Range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(whole)}"
    several = reader.get(LEVEL, headers={**single, "Range": "bytes=0-1,5-6"})
    assert (several.status_code, several.get_data()) == (200, whole)


# ---- metadata ---------------------------------------------------------------------


@pytest.mark.parametrize(("url", "count"), [(STUDY, 4), (SERIES, 3), (LEVEL, 1)])
def test_metadata_is_one_object_for_each_instance(reader, url, count):
    response = reader.get(f"{url}/metadata", headers=JSON)
    assert response.headers["Content-Type"] == "application/dicom+json"
    objects = response.get_json(force=True)
    assert len(objects) == count
    for item in objects:
        assert "7FE00010" not in item
        assert not [tag for tag in item if tag.startswith("0002")]
        Dataset.from_json(item, bulk_data_uri_handler=lambda uri: b"")


def test_metadata_gives_bulk_values_as_absolute_urls_that_answer(reader):
    (item,) = reader.get(f"{ANNOTATIONS}/metadata", headers={**JSON, "Host": "localhost"}).get_json(
        force=True
    )
    coordinates = item["006A0002"]["Value"][0]["00660022"]
    assert coordinates["vr"] == "OD"
    uri = coordinates["BulkDataURI"]
    assert uri == f"{BASE}{ANNOTATIONS}/bulkdata/006A0002/0/00660022"
    bulk = reader.get(
        uri.removeprefix(BASE), headers={"Accept": "application/octet-stream; transfer-syntax=*"}
    )
    assert bulk.get_data() == samples.COORDINATES


def test_metadata_is_gzipped_for_those_who_take_it_with_another_etag(reader):
    plain = reader.get(f"{SERIES}/metadata", headers=JSON)
    packed = reader.get(f"{SERIES}/metadata", headers={**JSON, "Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert gzip.decompress(packed.get_data()) == plain.get_data()
    assert packed.headers["ETag"] != plain.headers["ETag"]
    again = {**JSON, "Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]}
    assert reader.get(f"{SERIES}/metadata", headers=again).status_code == 304


def test_metadata_is_xml_in_parts_on_request(reader):
    accept = 'multipart/related; type="application/dicom+xml"'
    parts = parts_of(reader.get(f"{SERIES}/metadata", headers={"Accept": accept}))
    assert len(parts) == 3
    for part in parts:
        assert part.headers["content-type"] == "application/dicom+xml"
        root = ElementTree.fromstring(part.data)
        names = {element.get("keyword") for element in root}
        assert {"PatientID", "ContainerIdentifier", "SpecimenDescriptionSequence"} <= names
        family = root.find(".//*[@keyword='PatientName']//*[.='Müller']")
        assert family is not None
        assert family.tag.endswith("FamilyName")


# ---- frames -----------------------------------------------------------------------


@pytest.mark.parametrize("comma", [",", "%2C", "%2c"])
@pytest.mark.parametrize("numbers", [[1], [2, 3], [6, 1, 1], [1, 2, 3, 4, 5, 6]])
def test_frames_come_one_part_each_in_the_order_asked(reader, numbers, comma):
    listed = comma.join(map(str, numbers))
    parts = parts_of(reader.get(f"{LEVEL}/frames/{listed}", headers=SLIM))
    assert [part.data for part in parts] == [samples.tile(number) for number in numbers]
    for number, part in zip(numbers, parts, strict=True):
        assert part.headers["content-type"] == f"application/octet-stream; transfer-syntax={JPEG}"
        assert part.headers["content-location"] == f"{BASE}{LEVEL}/frames/{number}"


def test_one_frame_alone_for_those_who_ask_for_a_single_part(reader):
    response = reader.get(f"{LEVEL}/frames/2", headers={"Accept": f"image/jpeg; transfer-syntax={JPEG}"})
    assert response.headers["Content-Type"] == f"image/jpeg; transfer-syntax={JPEG}"
    assert response.get_data() == samples.tile(2)
    assert response.content_length == len(samples.tile(2))
    part = reader.get(f"{LEVEL}/frames/2", headers={"Accept": "image/jpeg", "Range": "bytes=2-5"})
    assert (part.status_code, part.get_data()) == (206, samples.tile(2)[2:6])


@pytest.mark.parametrize("query", ["", "?x=1"])
def test_frames_may_be_kept_for_ever_but_not_for_another_accept(reader, query):
    url = f"{LEVEL}/frames/4{query}"
    first = reader.get(url, headers=SLIM)
    assert first.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert first.headers["Vary"] == "Accept"
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    again = reader.get(url, headers={**SLIM, "If-None-Match": f'"other", {first.headers["ETag"]}'})
    assert (again.status_code, again.get_data()) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    other = reader.get(url, headers={"Accept": "image/jpeg", "If-None-Match": first.headers["ETag"]})
    assert other.status_code == 200


def test_lossless_frames_are_decoded_for_those_who_name_no_syntax(reader):
    response = reader.get(f"{REVERSIBLE}/frames/1", headers={"Accept": "application/octet-stream"})
    assert response.headers["Content-Type"] == f"application/octet-stream; transfer-syntax={ELE}"
    assert len(response.get_data()) == samples.TILE**2 * 3
    stored = reader.get(f"{REVERSIBLE}/frames/1", headers={"Accept": "image/jp2"})
    assert stored.get_data() == samples.tile(1, "JPEG2000")
    assert response.headers["ETag"] != stored.headers["ETag"]


@pytest.mark.parametrize(
    "accept",
    [
        "image/jpx; transfer-syntax=1.2.840.10008.1.2.4.92",
        f"image/jls; transfer-syntax={J2K}",
        "text/html",
        "nonsense",
        f'multipart/related; type="image/jpeg"; transfer-syntax={J2K_LOSSLESS}',
        'multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.51',
        "image/jpeg;q=0, multipart/related;type=image/jpeg;q=0.0",
        "application/octet-stream; transfer-syntax=1.2.3",
        "*/*;q=0",
    ],
)
def test_what_cannot_be_given_is_406_and_never_500(reader, accept):
    for url in (f"{LEVEL}/frames/1", f"{LEVEL}/frames/1?x=1", f"{LEVEL}/frames/1,2", LEVEL):
        response = reader.get(url, headers={"Accept": accept})
        assert response.status_code == 406, url
        assert error_of(response)["kind"] == "NotAcceptable"


@pytest.mark.parametrize(
    "path", ["", "/metadata", "/frames/1", "/frames/1,2", "/bulkdata/00020010", "/rendered"]
)
def test_no_accept_header_is_406(reader, path):
    assert reader.get(LEVEL + path).status_code == 406


@pytest.mark.parametrize(
    ("numbers", "status"),
    [("7", 404), ("1,7", 404), ("4294967296", 404), ("0", 400), ("1,0", 400), ("a", 400), ("1,,2", 400),
     ("-1", 400), ("1.5", 400), ("1, 2", 400), ("9" * 11, 400)],
)  # fmt: skip
def test_frame_lists_that_name_no_frame_are_refused(reader, numbers, status):
    response = reader.get(f"{LEVEL}/frames/{numbers}", headers=SLIM)
    assert response.status_code == status
    error_of(response)


def test_mixed_dicom_and_rendered_types_are_400(reader):
    response = reader.get(f"{LEVEL}/frames/1", headers={"Accept": "application/octet-stream, image/png"})
    assert response.status_code == 400


def test_400_frames_in_one_request_are_400_parts(reader):
    parts = parts_of(reader.get(f"{LEVEL}/frames/" + ",".join(["1", "2"] * 200), headers=SLIM))
    assert len(parts) == 400


# ---- bulk data and what is absent -------------------------------------------------


def test_an_icc_profile_is_given_alone_and_in_a_part(reader):
    url = f"{LEVEL}/bulkdata/00480105/0/00282000"
    alone = reader.get(url, headers={"Accept": "application/octet-stream; transfer-syntax=*"})
    (part,) = parts_of(
        reader.get(url, headers={"Accept": 'multipart/related; type="application/octet-stream"'})
    )
    assert alone.get_data().startswith(samples.ICC_PROFILE)
    assert alone.get_data() == part.data
    assert part.headers["content-location"] == BASE + url
    assert alone.headers["Cache-Control"] == "private, max-age=31536000, immutable"


@pytest.mark.parametrize(
    "path",
    [
        "/bulkdata/00480105/9/00282000",
        "/bulkdata/00480105/0/00282000%0D%0A",
        "/bulkdata/zzz",
        "/bulkdata/00480105",
        "/bulkdata/../../x",
        "/nothing",
    ],
)
def test_paths_that_lead_nowhere_are_404(reader, path):
    assert reader.get(LEVEL + path, headers={"Accept": "*/*"}).status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        f"{WEB}/studies/1.2.3",
        f"{WEB}/studies/1.2.3/metadata",
        f"{STUDY}/series/1.2.3",
        f"{SERIES}/instances/1.2.3",
        f"{WEB}/studies/1.2.3/series/{samples.SERIES}/instances/{samples.SERIES}.1",
        f"{WEB}/studies/1.2.3/series/{samples.SERIES}/instances/{samples.SERIES}.1/frames/1",
        f"{SERIES}/instances/{samples.SERIES}.1/../../../etc",
        f"{WEB}/studies/not-a-uid",
        f"{WEB}/studies/{'1' * 65}",
    ],
)
def test_what_is_not_there_is_404_in_the_one_shape(reader, url):
    response = reader.get(url, headers={"Accept": "*/*"})
    assert response.status_code == 404
    error_of(response)


def test_an_instance_without_pixels_has_no_frames(reader):
    assert reader.get(f"{ANNOTATIONS}/frames/1", headers={"Accept": "*/*"}).status_code == 404


def test_a_native_frame_is_octets(reader):
    response = reader.get(
        f"{LABEL}/frames/1", headers={"Accept": f"application/octet-stream; transfer-syntax={ELE}"}
    )
    assert response.get_data() == bytes(range(256)) * 3


def test_a_deleted_instance_is_410(client, archive):
    store(client, samples.volume(), samples.label())
    archive.delete(
        samples.STUDY, samples.SERIES, f"{samples.SERIES}.3",
        reason="test", principal=Principal("tester", "cli"), scope=EVERYTHING,
    )  # fmt: skip
    assert client.get(f"{LABEL}/frames/1", headers=SLIM).status_code == 410
    assert client.get(f"{LABEL}/metadata", headers=JSON).status_code == 410
    assert client.get(f"{LEVEL}/frames/1", headers=SLIM).status_code == 200


def test_json_is_the_model_of_pydicom(reader):
    (item,) = json.loads(reader.get(f"{LEVEL}/metadata", headers=JSON).get_data())
    original = dcmread(io.BytesIO(samples.volume()))
    del original.PixelData
    expected = original.to_json_dict(suppress_invalid_tags=True)
    assert {tag: item[tag] for tag in expected if "InlineBinary" not in str(expected[tag])} == {
        tag: value for tag, value in expected.items() if "InlineBinary" not in str(value)
    }
