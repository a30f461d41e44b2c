# SPDX-License-Identifier: Apache-2.0
"""Search: six resources, the keys and answers that clients count on, honest pages."""

from xml.etree import ElementTree

import pytest

from dicomweb.qido_parameters import BadParameter, MatchKey, parse_search
from tests.dicomweb import samples
from tests.dicomweb.conftest import WEB, parts_of, store

JSON = {"Accept": "application/dicom+json"}
STUDY = f"/studies/{samples.STUDY}"
SERIES = f"{STUDY}/series/{samples.SERIES}"
OTHER = f"{samples.ROOT}.2"


@pytest.fixture(scope="module")
def found(reader):
    """Searches the shared archive: (path with query) -> list of results."""

    def search(path):
        response = reader.get(WEB + path, headers=JSON)
        if response.status_code == 204:
            assert response.get_data() == b""
            return []
        assert response.status_code == 200, response.get_data()
        assert response.headers["Content-Type"] == "application/dicom+json"
        return response.get_json(force=True)

    return search


def values(results, tag):
    return [item[tag].get("Value", [None])[0] for item in results]


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("/studies", 1),
        ("/series", 2),
        ("/instances", 4),
        (f"{STUDY}/series", 2),
        (f"{STUDY}/instances", 4),
        (f"{SERIES}/instances", 3),
    ],
)
def test_the_six_resources_answer(found, path, count):
    results = found(path)
    assert len(results) == count
    for item in results:
        (url,) = item["00081190"]["Value"]
        assert url.startswith(f"http://localhost/dicom-web{STUDY}")


def test_a_study_says_what_the_standard_requires(found):
    (study,) = found("/studies")
    required = (
        "00080020 00080030 00080050 00080056 00080061 00080090 00080201 00081190 00100010 00100020 "
        "00100030 00100040 0020000D 00200010 00201206 00201208"
    )
    assert set(required.split()) <= set(study)
    assert study["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
    assert sorted(study["00080061"]["Value"]) == ["ANN", "SM"]
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [4])


def test_an_instance_names_its_transfer_syntax_so_that_nobody_probes(found):
    query = "00080016=1.2.840.10008.5.1.4.1.1.77.1.6&00080060=SM&includefield=AvailableTransferSyntaxUID"
    results = found(f"{STUDY}/instances?{query}&0020000E={samples.SERIES}")
    syntaxes = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"}
    assert set(values(results, "00083002")) == syntaxes
    assert set(values(results, "00020010")) == syntaxes
    assert values(results, "00280010") == [samples.TILE] * 3


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("PatientID=P1", 1),
        ("00100020=P1", 1),
        ("PatientID=P2", 0),
        ("PatientName=M*", 1),
        ("PatientName=m%C3%BCller*", 1),
        ("PatientName=muller%5EJ%3Frg", 1),
        ("PatientName=*x*&fuzzymatching=true", 0),
        ("StudyDate=20251231-20260102", 1),
        ("StudyDate=-20251231", 0),
        ("StudyDate=20260101-", 1),
        ("AccessionNumber=A1&StudyID=S1", 1),
        ("ModalitiesInStudy=SM", 1),
        ("ModalitiesInStudy=CT", 0),
        ("StudyInstanceUID=1.2.3", 0),
        (f"StudyInstanceUID=1.2.3,{samples.STUDY}", 1),
        (f"0020000D=1.2.3&0020000D={samples.STUDY}", 1),
        (f"StudyInstanceUID=1.2.3%5C{samples.STUDY}", 1),
        ("PatientID=", 1),
        ("NoSuchKeyword=1&x=y", 1),
        ("Modality=ANN", 1),
        ("ContainerIdentifier=C-1", 1),
        ("ContainerIdentifier=C-2", 0),
        ("SpecimenDescriptionSequence.SpecimenIdentifier=SP-1", 1),
        ("00400560.00400551=SP-2", 0),
    ],
)
def test_studies_match_by_keyword_tag_and_path(found, query, count):
    assert len(found(f"/studies?{query}")) == count


@pytest.mark.parametrize(
    ("path", "count"),
    [
        (f"/series?Modality=SM&StudyInstanceUID={samples.STUDY}", 1),
        (f"{STUDY}/instances?Modality=PR", 0),
        (f"/instances?0020000E={samples.SERIES}&0020000E={samples.ROOT}.1.2", 4),
        (f"/instances?SOPInstanceUID={samples.SERIES}.2", 1),
        ("/series?ContainerIdentifier=C-1", 1),
        ("/studies/1.2.3/series", 0),
    ],
)
def test_series_and_instances_match_across_levels(found, path, count):
    assert len(found(path)) == count


def test_include_fields_come_by_keyword_by_tag_repeated_and_listed(found):
    query = "includefield=FrameOfReferenceUID,00480105&includefield=ImageType"
    for item in found(f"{SERIES}/instances?{query}"):
        assert item["00200052"]["Value"] == [f"{samples.STUDY}.9"]
        assert item["00480105"]["Value"][0]["00282000"]["vr"] == "OB"
        assert item["00080008"]["Value"][0] == "ORIGINAL"
    assert "00400560" in found(f"{SERIES}/instances?includefield=all")[0]


def test_bulk_values_asked_for_have_absolute_urls(found):
    (item,) = found("/instances?Modality=ANN&includefield=006A0002")
    uri = item["006A0002"]["Value"][0]["00660022"]["BulkDataURI"]
    assert uri == item["00081190"]["Value"][0] + "/bulkdata/006A0002/0/00660022"


def test_pages_do_not_overlap_and_announce_what_is_left(reader):
    seen = []
    for offset in range(4):
        response = reader.get(f"{WEB}/instances?limit=1&offset={offset}", headers=JSON)
        seen += values(response.get_json(force=True), "00080018")
        left = 3 - offset
        warning = f"299 http://localhost/dicom-web: There are {left} additional results that can be requested"
        assert response.headers.getlist("Warning") == ([warning] if left else [])
    assert len(set(seen)) == 4
    assert reader.get(f"{WEB}/instances?limit=1&offset=4", headers=JSON).status_code == 204
    assert reader.get(f"{WEB}/instances?offset=4", headers=JSON).status_code == 204


def test_a_limit_of_nothing_only_counts(reader):
    response = reader.get(f"{WEB}/instances?limit=0", headers=JSON)
    assert response.status_code == 204
    assert "4 additional results" in response.headers["Warning"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("PatientName=Miller%20Yorg", 0),  # "y" is a vowel, "j" is not
        ("PatientName=Mueller%20J%C3%B6rk", 1),
        ("PatientName=Jorg%20Miler", 1),
        ("PatientName=Mil*", 1),
        ("PatientName=Maria", 0),
        ("PatientName=*x*", 0),
        ("PatientName=*%C3%BCll*", 1),
    ],
)
def test_fuzzy_matching_finds_names_by_their_sound_in_any_order(found, query, count):
    assert len(found(f"/studies?fuzzymatching=true&{query}")) == count
    assert len(found(f"/instances?fuzzymatching=true&{query}")) == count * 4


def test_what_is_done_as_asked_has_no_warning(reader):
    flags = "fuzzymatching=true&emptyvaluematching=true&multiplevaluematching=true"
    assert "Warning" not in reader.get(f"{WEB}/studies?PatientName=m*&{flags}", headers=JSON).headers


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ('emptyvaluematching=true&StudyDescription=""', 1),
        ('emptyvaluematching=true&PatientID=""', 0),
        ('StudyDescription=""', 0),
        ('emptyvaluematching=true&BarcodeValue=""&Modality=SM', 1),
        ('emptyvaluematching=true&multiplevaluematching=true&PatientID=""%5CP1', 1),
        ('emptyvaluematching=true&multiplevaluematching=true&PatientID=""%5CP2', 0),
        ("multiplevaluematching=true&PatientID=P1&PatientID=P2", 1),
        ("multiplevaluematching=true&PatientName=Nobody%5CM%C3%BCller*", 1),
        ("multiplevaluematching=true&StudyDate=20200101-20200102%5C20260101-", 1),
        ("multiplevaluematching=true&StudyDate=20200101-20200102%5C20200103", 0),
        ("multiplevaluematching=true&ContainerIdentifier=C-0%5CC-1", 1),
    ],
)
def test_empty_values_and_lists_match_where_it_is_asked_for(found, query, count):
    assert len(found(f"/studies?{query}")) == count


@pytest.mark.parametrize(
    ("query", "studies", "instances"),
    [
        ("ModalitiesInStudy=SM%5CANN", 1, 4),
        ("ModalitiesInStudy=ANN%5CSM", 1, 4),
        ("ModalitiesInStudy=SM%5CCT", 0, 0),
        ("ModalitiesInStudy=SM&ModalitiesInStudy=CT", 0, 0),
        ("ImageType=VOLUME%5CORIGINAL", 1, 2),
        ("ImageType=VOLUME%5CLABEL", 0, 0),
        ("SOPInstanceUID=1.2%5C" + samples.header(1).SOPInstanceUID, 1, 1),
    ],
)
def test_each_of_several_values_must_be_among_those_of_a_multi_valued_attribute(
    found, query, studies, instances
):
    query = f"multiplevaluematching=true&{query}"
    assert (len(found(f"/studies?{query}")), len(found(f"/instances?{query}"))) == (studies, instances)


@pytest.mark.parametrize("value", ["SM%5CA*", '""%5CSM'])
def test_several_values_that_must_all_match_are_no_patterns_and_not_empty(reader, value):
    flags = "multiplevaluematching=true&emptyvaluematching=true"
    response = reader.get(f"{WEB}/studies?ModalitiesInStudy={value}&{flags}", headers=JSON)
    assert response.status_code == 400


def test_a_field_within_a_sequence_comes_alone(found):
    path = "SpecimenDescriptionSequence.SpecimenIdentifier"
    for item in found(f"{SERIES}/instances?includefield={path}"):
        assert item["00400560"]["Value"] == [{"00400551": {"vr": "LO", "Value": ["SP-1"]}}]


def test_studies_and_series_include_fields_of_theirs_that_have_no_column(found):
    (study,) = found("/studies?includefield=IssuerOfPatientID,00104000,ImageType,PatientSize")
    assert "00080008" not in study, "an attribute of instances"
    series = found(f"{STUDY}/series?Modality=SM&includefield=ContainerIdentifier,FrameOfReferenceUID")
    assert [item["00400512"]["Value"] for item in series] == [["C-1"]]
    assert [item["00200052"]["Value"] for item in series] == [[f"{samples.STUDY}.9"]]


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=-1", "limit=1.5", "offset=-1", "offset=x", "fuzzymatching=perhaps",
     "StudyDate=yesterday", "PatientID=a&PatientID=b", "StudyInstanceUID=abc"],
)  # fmt: skip
def test_bad_values_are_400(reader, query):
    response = reader.get(f"{WEB}/studies?{query}", headers=JSON)
    assert response.status_code == 400
    assert response.get_json()["error"]["status"] == 400


def test_results_are_xml_on_request(reader):
    response = reader.get(
        f"{WEB}/series", headers={"Accept": 'multipart/related; type="application/dicom+xml"'}
    )
    roots = [ElementTree.fromstring(part.data) for part in parts_of(response)]
    assert len(roots) == 2
    assert all(root.find("./*[@keyword='SeriesInstanceUID']") is not None for root in roots)


@pytest.mark.parametrize("accept", [None, "application/dicom", "application/dicom+xml", "image/png"])
def test_other_types_are_406(reader, accept):
    headers = {"Accept": accept} if accept else {}
    assert reader.get(f"{WEB}/studies", headers=headers).status_code == 406


def test_a_limit_above_the_servers_own_is_cut_and_said(client):
    store(client, samples.label(), samples.label(study=OTHER, series=f"{OTHER}.1"))
    from dicomweb.app import WebSettings, create_app

    small = create_app(
        client.application.extensions["coverslip"].archive, WebSettings(results_limit=1)
    ).test_client()
    response = small.get(f"{WEB}/studies?limit=50", headers=JSON)
    assert len(response.get_json(force=True)) == 1
    assert "1 additional results" in response.headers["Warning"]


def test_the_query_string_becomes_values():
    parsed = parse_search(
        [
            ("PatientName", "A*"),
            ("SpecimenDescriptionSequence.00400551", "S"),
            ("0020000e", "1.2"),
            ("SeriesInstanceUID", "1.3"),
            ("includefield", "PatientID, 00480105,Unknown"),
            ("limit", "20000"),
            ("offset", "3"),
            ("fuzzymatching", "TRUE"),
            ("unknown", "x"),
        ],
        default=10,
        most=1000,
    )
    assert parsed.keys == (
        MatchKey("00100010", "PN", "A*"),
        MatchKey("00400560.00400551", "LO", "S"),
        MatchKey("0020000E", "UI", "1.2,1.3"),
    )
    assert parsed.include == ("00100020", "00480105")
    assert (parsed.limit, parsed.offset, parsed.include_all) == (1000, 3, False)
    assert (parsed.fuzzy, parsed.empty, parsed.multiple) == (True, False, False)
    assert parse_search([], default=10, most=20).limit == 10
    with pytest.raises(BadParameter):
        parse_search([("PatientID", "a"), ("00100020", "b")], default=1, most=1)
