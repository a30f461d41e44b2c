# SPDX-License-Identifier: Apache-2.0
"""What the header of a received image hands over to the one that is made from it.

Whole modules go as they are: patient, clinical trial, study, equipment, specimen, optical
path, context of acquisition. UIDs of the instance, its references, its tiles and a
maker's private elements stay behind: the new image is another one.
"""

from collections.abc import Iterator, Sequence

from pydicom import Dataset
from pydicom.dataelem import DataElement

from converters.readers.dicom_frames import Part
from converters.readers.dicom_header import (
    WHOLE_GROUPS,
    acquired,
    image_kind,
    item_of,
    numbers_of,
    path_identifiers,
)
from converters.slide import Role
from converters.writer.dataset import SOURCE_IMAGE
from converters.writer.specimen import code_item

_TAKEN = frozenset(
    {
        "StudyInstanceUID", "StudyID", "SeriesNumber", "FrameOfReferenceUID", "AcquisitionNumber",
        "Laterality", "ImageLaterality", "ImageComments", "BurnedInAnnotation", "RecognizableVisualFeatures",
        "LongitudinalTemporalInformationModified", "QualityControlImage", "SpecimenLabelInImage",
        "FocusMethod", "ExtendedDepthOfField", "NumberOfFocalPlanes", "DistanceBetweenFocalPlanes",
        "RecommendedAbsentPixelCIELabValue", "ImagedVolumeDepth", "TotalPixelMatrixOriginSequence",
        "OpticalPathSequence", "LabelText", "BarcodeValue", "LabelStyleSelection",
    }
)  # fmt: skip
"""Beside whole groups: what else is handed over."""
_NOT_TAKEN = frozenset(
    {
        "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "PyramidUID", "PyramidLabel",
        "PyramidDescription", "Modality", "ImageType", "InstanceCreationDate", "InstanceCreationTime",
        "InstanceCreatorUID", "InstanceCoercionDateTime", "DerivationDescription", "DerivationCodeSequence",
        "SourceImageSequence", "SourceInstanceSequence", "ReferencedSeriesSequence",
        "ReferencedImageSequence", "ReferencedInstanceSequence", "RetrieveURL", "RetrieveURI",
        "StudiesContainingOtherReferencedInstancesSequence", "QueryRetrieveView", "TimezoneOffsetFromUTC",
    }
)  # fmt: skip
_TISSUE_ONLY = ("ImagedVolumeDepth", "TotalPixelMatrixOriginSequence")
_LABEL_ONLY = ("LabelText", "BarcodeValue", "LabelStyleSelection")


def known_of(parts: Sequence[Part], main: Dataset, role: Role) -> Dataset:
    """What the writer takes over for an image, and what it was made from."""
    known = _of_header(parts[0].header, main, role)
    paths: dict[str, Dataset] = {}
    for part in parts:
        items = part.header.get("OpticalPathSequence") or ()
        for name, item in zip(path_identifiers(part.header, len(items)), items, strict=False):
            paths.setdefault(name, item)
    if len(paths) > 1:
        known.OpticalPathSequence = list(paths.values())
    sources, references = [], []
    for part in parts:
        reference = Dataset()
        reference.ReferencedSOPClassUID = part.header.SOPClassUID
        reference.ReferencedSOPInstanceUID = part.header.SOPInstanceUID
        references.append(reference)
        source = Dataset()
        source.update(reference)
        source.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
        sources.append(source)
    series = Dataset()
    series.SeriesInstanceUID = parts[0].header.SeriesInstanceUID
    series.ReferencedInstanceSequence = references
    known.SourceImageSequence = sources
    known.ReferencedSeriesSequence = [series]
    return known


def _of_header(header: Dataset, main: Dataset, role: Role) -> Dataset:
    """What the writer takes over for an image: its own header's, but patient, study and
    specimen from ``main``, so that all images of the slide agree."""
    known = Dataset()
    for element in _taken(header, main, role):
        known.add(element)
    if role in (Role.LABEL, Role.OVERVIEW):
        if known.get("FrameOfReferenceUID") == main.get("FrameOfReferenceUID"):
            known.pop("FrameOfReferenceUID", None)  # they are not registered with the tissue
    elif "FrameOfReferenceUID" in main:
        known.FrameOfReferenceUID = main.FrameOfReferenceUID
    if acquired(header) is None:
        known.pop("AcquisitionDateTime", None)
    kinds = image_kind(header)
    if kinds and kinds[0] in ("ORIGINAL", "DERIVED"):
        fourth = kinds[3] if len(kinds) > 3 and kinds[3] in ("NONE", "RESAMPLED") else "NONE"
        known.ImageType = [kinds[0], "PRIMARY", role.value, fourth]
    shared = Dataset()
    groups = item_of(header, "SharedFunctionalGroupsSequence")
    thickness = numbers_of(item_of(groups, "PixelMeasuresSequence"), "SliceThickness")
    measures = Dataset()
    if len(thickness) == 1 and thickness[0] > 0:
        measures.SliceThickness = item_of(groups, "PixelMeasuresSequence").SliceThickness
    stated = numbers_of(item_of(groups, "PixelMeasuresSequence"), "PixelSpacing")
    if role in (Role.LABEL, Role.OVERVIEW) and len(stated) == 2 and min(stated) > 0:
        measures.PixelSpacing = item_of(groups, "PixelMeasuresSequence").PixelSpacing
    if len(measures):
        shared.PixelMeasuresSequence = [measures]
    if groups.get("RealWorldValueMappingSequence"):
        shared.RealWorldValueMappingSequence = groups.RealWorldValueMappingSequence
    if len(shared):
        known.SharedFunctionalGroupsSequence = [shared]
    return known


def _taken(header: Dataset, main: Dataset, role: Role) -> Iterator[DataElement]:
    tissue = role in (Role.VOLUME, Role.THUMBNAIL)
    for element in (*(one for one in header if not _of_the_slide(one)), *filter(_of_the_slide, main)):
        word = element.keyword
        wanted = word in _TAKEN or (element.tag.group in WHOLE_GROUPS and word not in _NOT_TAKEN)
        if not wanted or (word in _TISSUE_ONLY and not tissue):
            continue
        if element.is_empty and element.tag.group != 0x0012:  # a trial is whole or none
            continue
        if (word in _LABEL_ONLY and role is not Role.LABEL) or (element.VR == "SQ" and not element.value):
            continue
        if word == "ImagedVolumeDepth" and not element.value > 0:
            continue
        yield element


def _of_the_slide(element: DataElement) -> bool:
    """Whether an element is the same for all images of a slide (patient, clinical trial,
    study, container, specimen)."""
    word = element.keyword
    if element.tag.group in (0x0010, 0x0012, 0x0032, 0x0038):
        return True
    return word != "SpecimenLabelInImage" and word.startswith(
        ("Study", "Container", "IssuerOfTheContainer", "Specimen", "Accession", "ReferringPhysician")
    )
