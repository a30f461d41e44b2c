# SPDX-License-Identifier: Apache-2.0
"""Metadata in wsidicom's JSON shape, and what it becomes in a header."""

import io
import json
import warnings
from pathlib import Path

import pydicom
import pytest

from converters.convert import ConvertOptions, convert
from converters.errors import BadMetadata
from converters.writer.metadata import read_metadata
from converters.writer.metadata_shape import SHAPE
from tests.support.converted import born
from tests.support.make_slide import make_svs


def code(value: str, meaning: str) -> dict[str, str]:
    return {"value": value, "scheme_designator": "SCT", "meaning": meaning}


WSI_METADATA = {
    "patient": {"name": "Doe^Jane", "identifier": "P1", "birth_date": "1990-01-02", "sex": "female"},
    "study": {
        "uid": "1.2.3", "identifier": "sid", "date": "2024-05-06", "time": "07:08:09",
        "accession_number": "A1", "referring_physician_name": "Who^Dr", "description": "Biopsy",
    },
    "series": {"uid": "1.2.4", "number": 7, "description": "HE", "body_part_examined": None},
    "label": {"text": "Doe / HE", "barcode": "BC1", "contains_phi": True},
    "equipment": {"manufacturer": None, "model_name": "AT2", "software_versions": None},
    "slide": {
        "identifier": "S1",
        "stainings": [
            {"substances": [code("12710003", "hematoxylin stain")]}
        ],
        "samples": [
            {"identifier": "S1-1", "sampled_from": {"identifier": "B1", "sampling_step_index": 0}},
            {
                "identifier": "B1",
                "steps": [
                    {
                        "action": "embedding",
                        "medium": code("311731000", "Paraffin wax"),
                    },
                    {
                        "action": "sampling",
                        "method": code("434472006", "Block sectioning"),
                    },
                ],
                "type": code("119376003", "tissue specimen"),
            },
        ],
    },
    "pyramid": {"image": {"pixel_spacing": {"width": 0.0002, "height": 0.0003}}},
}  # fmt: skip


def test_wsidicoms_json_fills_patient_study_label_and_slide(tmp_path: Path) -> None:
    metadata = read_metadata(json.dumps(WSI_METADATA))
    assert metadata.pixel_spacing_mm == (0.0003, 0.0002)
    instances = born(make_svs(tmp_path / "a.svs"), metadata)
    h = pydicom.dcmread(io.BytesIO(instances[0].header))
    assert (str(h.PatientName), h.PatientID, h.PatientBirthDate, h.PatientSex) == (
        "Doe^Jane", "P1", "19900102", "F",
    )  # fmt: skip
    assert (h.StudyInstanceUID, h.StudyDate, h.StudyTime, h.StudyID) == ("1.2.3", "20240506", "070809", "sid")
    assert (h.SeriesInstanceUID, h.SeriesNumber, h.SeriesDescription) == ("1.2.4", 7, "HE")
    assert (h.Manufacturer, h.ManufacturerModelName) == ("Aperio", "AT2")
    assert h.ContainerIdentifier == "S1"
    (specimen,) = h.SpecimenDescriptionSequence
    assert specimen.SpecimenIdentifier == "S1-1"
    steps = [
        {
            item.ConceptNameCodeSequence[0].CodeMeaning: item
            for item in step.SpecimenPreparationStepContentItemSequence
        }
        for step in specimen.SpecimenPreparationSequence
    ]
    assert [step["Specimen Identifier"].TextValue for step in steps] == ["B1", "S1-1", "S1-1"]
    assert steps[0]["Embedding medium"].ConceptCodeSequence[0].CodeMeaning == "Paraffin wax"
    assert steps[1]["Sampling Method"].ConceptCodeSequence[0].CodeMeaning == "Block sectioning"
    assert steps[1]["Parent Specimen Identifier"].TextValue == "B1"
    assert steps[2]["Using substance"].ConceptCodeSequence[0].CodeValue == "12710003"
    label = next(pydicom.dcmread(io.BytesIO(i.header)) for i in instances if i.role == "LABEL")
    assert (label.LabelText, label.BarcodeValue) == ("Doe / HE", "BC1")


def test_a_specimen_has_one_uid_on_all_its_slides(tmp_path: Path) -> None:
    metadata = read_metadata({"slide": WSI_METADATA["slide"]})
    uids = set()
    for name, seed in (("a", 1), ("b", 2)):
        for instance in born(make_svs(tmp_path / f"{name}.svs", seed=seed), metadata):
            uids.add(pydicom.dcmread(io.BytesIO(instance.header)).SpecimenDescriptionSequence[0].SpecimenUID)
    assert len(uids) == 1


def test_what_wsidicom_writes_is_read(tmp_path: Path) -> None:
    wsidicom = pytest.importorskip("wsidicom.metadata")
    schema = pytest.importorskip("wsidicom.metadata.schema.json")
    written = schema.WsiMetadataJsonSchema().dump(
        wsidicom.WsiMetadata(
            study=wsidicom.Study(identifier="sid"),
            series=wsidicom.Series(number=3),
            patient=wsidicom.Patient(name="A^B", identifier="PID", sex=wsidicom.PatientSex.M),
            label=wsidicom.Label(text="text", barcode="code"),
            equipment=wsidicom.Equipment(manufacturer="maker"),
            slide=wsidicom.Slide(identifier="glass"),
            pyramid=wsidicom.Pyramid(image=wsidicom.Image(), optical_paths=[wsidicom.OpticalPath("0")]),
        )
    )
    metadata = read_metadata(json.dumps(written))
    assert (metadata.patient_name, metadata.patient_sex, metadata.study_id) == ("A^B", "M", "sid")
    assert (metadata.barcode, metadata.container_identifier, metadata.manufacturer) == (
        "code",
        "glass",
        "maker",
    )


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"patient": {"nmae": "A^B"}}, "patient.nmae"),
        ({"study": {"accession": "A1"}}, "study.accession"),
        ({"slide": {"samples": [{"identifier": "S"}, {"identifer": "T"}]}}, r"slide.samples\[1\].identifer"),
        (
            {"slide": {"samples": [{"identifier": "S", "steps": [{"action": "embedding", "medum": {}}]}]}},
            r"slide.samples\[0\].steps\[0\].medum",
        ),
        (
            {"slide": {"stainings": [{"substances": [{**code("1", "x"), "scheme": "SCT"}]}]}},
            r"slide.stainings\[0\].substances\[0\].scheme",
        ),
        ({"pyramid": {"image": {"pixel_spacing": {"with": 1}}}}, "pyramid.image.pixel_spacing.with"),
        ({"overview": {"contains_lable": True}}, "overview.contains_lable"),
    ],
)
def test_a_mistyped_key_inside_of_an_object_is_refused_with_its_path(
    given: dict[str, object], path: str
) -> None:
    with pytest.raises(BadMetadata, match=f"^unknown metadata key '{path}': known are "):
        read_metadata(given)


def test_every_key_of_wsidicoms_json_is_known() -> None:
    """Whatever wsidicom writes may be given; what has no effect here is accepted."""
    fields = pytest.importorskip("marshmallow").fields
    json_schema = pytest.importorskip("wsidicom.metadata.schema.json")
    sample = pytest.importorskip("wsidicom.metadata.schema.json.sample.schema")

    def compare(schema: object, shape: dict[str, object], where: str) -> None:
        for name, field in schema.fields.items():  # type: ignore[attr-defined]
            key = field.data_key or name
            assert key in shape, f"{where}.{key}"
            while isinstance(field, fields.List):
                field = field.inner
            if isinstance(field, fields.Nested) and field.schema.fields:
                compare(field.schema, shape[key], f"{where}.{key}")  # type: ignore[arg-type]

    compare(json_schema.WsiMetadataJsonSchema(), dict(SHAPE), "")
    samples = SHAPE["slide"]["samples"]
    for kind in sample.BaseSpecimenJsonSchema._type_to_schema_mapping.values():
        compare(kind(), samples, "slide.samples")
    for kind in sample.PreparationStepJsonSchema._type_to_schema_mapping.values():
        compare(kind(), samples["steps"], "slide.samples.steps")


def test_how_a_sample_was_processed_is_read_as_wsidicom_writes_it() -> None:
    step = {"action": "processing", "method": code("433465004", "Specimen sampling")}
    metadata = read_metadata({"slide": {"samples": [{"identifier": "S", "steps": [step]}]}})
    ((how,),) = (one.codes for one in metadata.specimens[0].steps)
    assert how.value == "433465004"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"patiant": {}}', "unknown metadata key 'patiant'"),
        ('{"patient": 3}', "patient is not an object"),
        ('{"patient": {"sex": "unsure"}}', "patient.sex"),
        ('{"patient": {"birth_date": "02/01/1990"}}', "patient.birth_date is not a date"),
        ('{"study": {"uid": "1.02.3"}}', "study.uid is not a UID"),
        ('{"study": {"accession_number": "12345678901234567"}}', "longer than 16"),
        ('{"pixel_spacing_mm": 250}', "pixel_spacing_mm"),
        ('{"pixel_spacing_mm": [0.1]}', "pixel_spacing_mm"),
        ('{"pixel_spacing_mm": [0.5, 0.5]}', "0.5 micrometres are 0.0005"),
        ('{"slide": {"samples": [{"identifier": "a", "steps": [{"action": "magic"}]}]}}', "unknown action"),
    ],
)  # fmt: skip
def test_metadata_of_another_form_are_refused_by_name(given: str, says: str) -> None:
    with pytest.raises(BadMetadata, match=says):
        read_metadata(given)


def test_a_sample_that_is_taken_from_itself_is_refused() -> None:
    loop = [
        {"identifier": "top", "sampled_from": {"identifier": "a"}},
        {"identifier": "a", "sampled_from": {"identifier": "b"}},
        {"identifier": "b", "sampled_from": {"identifier": "a"}},
    ]
    with pytest.raises(BadMetadata, match="taken from itself"):
        read_metadata({"slide": {"samples": loop}})


def test_wsidicom_reads_back_from_the_files_what_it_was_given(tmp_path: Path) -> None:
    wsidicom = pytest.importorskip("wsidicom")
    options = ConvertOptions(metadata=read_metadata(WSI_METADATA))
    (made,) = convert([make_svs(tmp_path / "a.svs")], tmp_path / "out", options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        with wsidicom.WsiDicom.open(made.folder) as slide:
            found = slide.metadata
    (sample,) = found.slide.samples
    assert (found.slide.identifier, sample.identifier) == ("S1", "S1-1")
    assert sample.sampled_from.method.meaning == "Block sectioning"
    block = sample.sampled_from.specimen
    assert (block.identifier, block.type.meaning) == ("B1", "tissue specimen")
    assert block.steps[0].medium.meaning == "Paraffin wax"
    assert found.slide.stainings[0].substances[0].value == "12710003"
    assert (found.patient.name, found.label.text, found.label.barcode) == ("Doe^Jane", "Doe / HE", "BC1")
