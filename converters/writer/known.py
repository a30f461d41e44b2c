# SPDX-License-Identifier: Apache-2.0
"""What a received DICOM header knows, put into the header that we write.

A reader of DICOM hands a data set over with each image (``Level.known``). It goes over
what the writer found, piece by piece where the writer must have its say: what an
operator gave stays, sequences that lack what their module demands are completed or left
out, and a level that was computed here takes nothing that was said of another's pixels.
"""

import copy
from collections.abc import Mapping, Sequence

from pydicom import Dataset

from converters.writer.iod import complete
from converters.writer.metadata import Metadata
from converters.writer.uids import Names

OF_THE_PIXELS = frozenset(
    {
        "ImageType", "SourceImageSequence", "ReferencedSeriesSequence", "ImageComments",
        "TotalPixelMatrixOriginSequence", "ContentDate", "ContentTime",
    }
)  # fmt: skip
"""What was said of one image and of no other that is made from it."""
_APART = frozenset(
    {
        "ImageType", "SharedFunctionalGroupsSequence", "OpticalPathSequence", "ReferencedSeriesSequence",
        "ContributingEquipmentSequence", "TotalPixelMatrixOriginSequence", "SpecimenDescriptionSequence",
    }
)  # fmt: skip
_OPERATORS: Mapping[str, tuple[str, ...]] = {
    "patient_name": ("PatientName",),
    "patient_id": (
        "PatientID",
        "IssuerOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDsSequence",
    ),
    "issuer_of_patient_id": ("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    "patient_birth_date": ("PatientBirthDate",),
    "patient_sex": ("PatientSex",),
    "study_instance_uid": ("StudyInstanceUID",),
    "study_id": ("StudyID",),
    "study_date": ("StudyDate", "StudyTime"),
    "study_time": ("StudyTime",),
    "study_description": ("StudyDescription",),
    "accession_number": ("AccessionNumber", "IssuerOfAccessionNumberSequence"),
    "referring_physician_name": ("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    "series_description": ("SeriesDescription",),
    "body_part_examined": ("BodyPartExamined",),
    "label_text": ("LabelText",),
    "barcode": ("BarcodeValue",),
    "container_identifier": ("ContainerIdentifier", "IssuerOfTheContainerIdentifierSequence"),
    "manufacturer": ("Manufacturer",),
    "manufacturer_model_name": ("ManufacturerModelName",),
    "device_serial_number": ("DeviceSerialNumber",),
    "software_versions": ("SoftwareVersions",),
    "specimens": ("SpecimenDescriptionSequence",),
}
"""Field of :class:`Metadata` -> elements that it speaks for."""


def stated_image_type(known: Dataset | None, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Image Type as the received image has it, else ``otherwise``."""
    if known is None or "ImageType" not in known:
        return otherwise
    return tuple(str(value) for value in known.ImageType)


def take_over(
    to: Dataset, known: Dataset, metadata: Metadata, names: Names, *, computed: bool = False
) -> None:
    """Put into ``to``, a complete header, what ``known`` says. ``computed``: the image is
    not the one that ``known`` was said of, but made from it."""
    given = {
        keyword for field, keywords in _OPERATORS.items() if getattr(metadata, field) for keyword in keywords
    }
    left_out = given | (OF_THE_PIXELS if computed else frozenset())
    for element in known:
        word = element.keyword
        if word in left_out or word in _APART:
            continue
        taken = copy.deepcopy(element)
        if taken.VR == "SQ" and not all(complete(item, (word,)) for item in taken.value):
            continue
        to.add(taken)
    if "SpecimenDescriptionSequence" in known and "SpecimenDescriptionSequence" not in left_out:
        _specimens(to, known.SpecimenDescriptionSequence, names)
    ours = list(to.ContributingEquipmentSequence)
    ours[-1].ContributionDescription = "Received DICOM made anew; compressed frames copied where legal"
    if known.get("ContributingEquipmentSequence"):
        earlier = [copy.deepcopy(item) for item in known.ContributingEquipmentSequence]
        word = "ContributingEquipmentSequence"
        to.ContributingEquipmentSequence = [*(item for item in earlier if complete(item, (word,))), *ours]
    if known.get("OpticalPathSequence"):
        _optical_paths(to, known.OpticalPathSequence)
    if known.get("SharedFunctionalGroupsSequence"):
        _shared_groups(to, known.SharedFunctionalGroupsSequence[0])
    if not computed:
        if (
            known.get("TotalPixelMatrixOriginSequence")
            and to.get("DimensionOrganizationType") == "TILED_FULL"
        ):
            _origin(to, known.TotalPixelMatrixOriginSequence[0])
        if known.get("ReferencedSeriesSequence"):
            _references(to, known)


def _references(to: Dataset, known: Dataset) -> None:
    """Common Instance Reference (PS3.3 C.12.2): by another path where the operator moved
    the image to another study."""
    items = copy.deepcopy(list(known.ReferencedSeriesSequence))
    study = known.get("StudyInstanceUID")
    if study and study != to.StudyInstanceUID:
        other = Dataset()
        other.StudyInstanceUID = study
        other.ReferencedSeriesSequence = items
        to.StudiesContainingOtherReferencedInstancesSequence = [other]
        return
    to.ReferencedSeriesSequence = [*(to.get("ReferencedSeriesSequence") or ()), *items]


def _origin(to: Dataset, known: Dataset) -> None:
    """The image's own place, where the header has both coordinates."""
    mine = to.TotalPixelMatrixOriginSequence[0]
    words = ("XOffsetInSlideCoordinateSystem", "YOffsetInSlideCoordinateSystem")
    if all(known.get(word) is not None for word in words):
        for word in words:
            mine.add(copy.deepcopy(known[word]))


def _specimens(to: Dataset, items: Sequence[Dataset], names: Names) -> None:
    """Specimens as received, with their UIDs; one that has none gets that of its identifier."""
    found = []
    for received in items:
        item = copy.deepcopy(received)
        if not item.get("SpecimenIdentifier"):
            item.SpecimenIdentifier = to.ContainerIdentifier
        if not item.get("SpecimenUID"):
            issuers = item.get("IssuerOfTheSpecimenIdentifierSequence")
            issuer = str(issuers[0].get("LocalNamespaceEntityID") or "") if issuers else ""
            item.SpecimenUID = names.shared_uid("specimen", issuer, str(item.SpecimenIdentifier))
        for step in item.get("SpecimenPreparationSequence") or ():
            complete(step, ("SpecimenDescriptionSequence", "SpecimenPreparationSequence"))
        if complete(item, ("SpecimenDescriptionSequence",)):
            found.append(item)
    if found:
        to.SpecimenDescriptionSequence = found


def _optical_paths(to: Dataset, items: Sequence[Dataset]) -> None:
    """Paths as received; of ours only what theirs lack and must have. An identifier that
    the frames go by is that of the received path."""
    received = {str(item.get("OpticalPathIdentifier") or ""): item for item in items}
    shared = to.SharedFunctionalGroupsSequence[0]
    alone = len(to.OpticalPathSequence) == 1
    result = []
    for ours in to.OpticalPathSequence:
        theirs = received.get(str(ours.OpticalPathIdentifier))
        if theirs is None and alone:
            theirs = items[0]
        if theirs is None:
            result.append(ours)
            continue
        item = copy.deepcopy(theirs)
        wanted = ["OpticalPathIdentifier", "IlluminationTypeCodeSequence", "ICCProfile"]
        if not item.get("IlluminationWaveLength"):
            wanted.append("IlluminationColorCodeSequence")
        if "ICCProfile" in ours and ours.ICCProfile != item.get("ICCProfile"):
            item.pop("ICCProfile", None)  # theirs was none, or is of no use
            wanted.append("OpticalPathDescription")
        for word in wanted:
            if word in ours and not item.get(word):
                item[word] = ours[word]
        if "ICCProfile" not in ours:
            item.pop("ICCProfile", None)
        complete(item, ("OpticalPathSequence",))
        result.append(item)
        if alone:
            shared.OpticalPathIdentificationSequence[0].OpticalPathIdentifier = item.OpticalPathIdentifier
    to.OpticalPathSequence = result


def _shared_groups(to: Dataset, known: Dataset) -> None:
    shared = to.SharedFunctionalGroupsSequence[0]
    measures = known.get("PixelMeasuresSequence")
    if measures:
        shared.PixelMeasuresSequence[0].update(copy.deepcopy(measures[0]))
    mappings = [copy.deepcopy(item) for item in known.get("RealWorldValueMappingSequence") or ()]
    word = "SharedFunctionalGroupsSequence"
    if mappings and all(complete(item, (word, "RealWorldValueMappingSequence")) for item in mappings):
        shared.RealWorldValueMappingSequence = mappings
