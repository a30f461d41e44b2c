# SPDX-License-Identifier: Apache-2.0
"""The Specimen module (PS3.3 C.7.6.22): the container and what is on it, by TID 8001."""

from pydicom import Dataset

from converters.writer.metadata import Code, Metadata, Specimen, Step
from converters.writer.uids import Names

MICROSCOPE_SLIDE = Code("433466003", "SCT", "Microscope slide")
_PROCESSING_TYPE = Code("111701", "DCM", "Processing type")
_SPECIMEN_IDENTIFIER = Code("121041", "DCM", "Specimen Identifier")
_PARENT_IDENTIFIER = Code("111705", "DCM", "Parent Specimen Identifier")
_PARENT_TYPE = Code("111707", "DCM", "Parent specimen type")
_ACTIONS = {
    "collection": Code("17636008", "SCT", "Specimen collection"),
    "sampling": Code("433465004", "SCT", "Sampling of tissue specimen"),
    "staining": Code("127790008", "SCT", "Staining"),
    "fixation": Code("9265001", "SCT", "Specimen processing"),
    "embedding": Code("9265001", "SCT", "Specimen processing"),
    "processing": Code("9265001", "SCT", "Specimen processing"),
}
_NAMES_OF_CODES = {
    "collection": Code("17636008", "SCT", "Specimen collection"),
    "sampling": Code("111704", "DCM", "Sampling Method"),
    "staining": Code("424361007", "SCT", "Using substance"),
    "fixation": Code("430864009", "SCT", "Tissue Fixative"),
    "embedding": Code("430863003", "SCT", "Embedding medium"),
    "processing": Code("111703", "DCM", "Processing step description"),
}


def code_item(code: Code) -> Dataset:
    """Code Sequence Macro (PS3.3 Table 8.8-1a)."""
    item = Dataset()
    if len(code.value) > 16:
        item.LongCodeValue = code.value
    else:
        item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def add_specimen(dataset: Dataset, container_identifier: str, metadata: Metadata, names: Names) -> None:
    """The container and its specimens; one specimen of the container's name if none is known."""
    dataset.ContainerIdentifier = container_identifier
    dataset.IssuerOfTheContainerIdentifierSequence = []
    dataset.ContainerTypeCodeSequence = [code_item(MICROSCOPE_SLIDE)]
    specimens = metadata.specimens or (Specimen(container_identifier),)
    dataset.SpecimenDescriptionSequence = [
        _specimen(specimen, names, number if len(specimens) > 1 else 0)
        for number, specimen in enumerate(specimens, 1)
    ]


def _specimen(specimen: Specimen, names: Names, position: int) -> Dataset:
    item = Dataset()
    item.SpecimenIdentifier = specimen.identifier
    item.SpecimenUID = specimen.uid or names.shared_uid("specimen", specimen.issuer, specimen.identifier)
    item.IssuerOfTheSpecimenIdentifierSequence = []
    if specimen.issuer:
        issuer = Dataset()
        issuer.LocalNamespaceEntityID = specimen.issuer
        item.IssuerOfTheSpecimenIdentifierSequence = [issuer]
    if specimen.type is not None:
        item.SpecimenTypeCodeSequence = [code_item(specimen.type)]
    if specimen.short_description:
        item.SpecimenShortDescription = specimen.short_description
    item.SpecimenPreparationSequence = [_preparation(step) for step in specimen.steps]
    if specimen.anatomical_sites:
        item.PrimaryAnatomicStructureSequence = [code_item(site) for site in specimen.anatomical_sites]
    if position:
        # several on one glass, places unknown: told apart by their order (TID 8004 asks for something)
        item.SpecimenLocalizationContentItemSequence = [
            _text(Code("111723", "DCM", "Visual Marking of Specimen"), f"specimen {position}")
        ]
    return item


def _preparation(step: Step) -> Dataset:
    """One item of TID 8001 "Specimen Preparation"."""
    content = [
        _text(_SPECIMEN_IDENTIFIER, step.specimen_identifier),
        _coded(_PROCESSING_TYPE, _ACTIONS[step.action]),
    ]
    content += [_coded(_NAMES_OF_CODES[step.action], code) for code in step.codes]
    if step.parent_identifier:
        content.append(_text(_PARENT_IDENTIFIER, step.parent_identifier))
    if step.parent_type is not None:
        content.append(_coded(_PARENT_TYPE, step.parent_type))
    item = Dataset()
    item.SpecimenPreparationStepContentItemSequence = content
    return item


def _text(name: Code, value: str) -> Dataset:
    item = Dataset()
    item.ValueType = "TEXT"
    item.ConceptNameCodeSequence = [code_item(name)]
    item.TextValue = value
    return item


def _coded(name: Code, value: Code) -> Dataset:
    item = Dataset()
    item.ValueType = "CODE"
    item.ConceptNameCodeSequence = [code_item(name)]
    item.ConceptCodeSequence = [code_item(value)]
    return item
