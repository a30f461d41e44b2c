# SPDX-License-Identifier: Apache-2.0
"""Whether a header is complete: what PS3.3 demands of a VL Whole Slide Microscopy Image.

Attributes of Type 1 and 2 come from a table (``iod_table.json``), generated from that of
highdicom; the conditions of Type 1C that matter to slides are written out here.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

TABLE = Path(__file__).with_name("iod_table.json")


@cache
def _required() -> Mapping[tuple[str, ...], Mapping[str, Sequence[str]]]:
    table = json.loads(TABLE.read_text(encoding="ascii"))["required"]
    return {tuple(filter(None, path.split("/"))): kinds for path, kinds in table.items()}


def problems(header: Dataset) -> list[str]:
    """One line for each attribute that the IOD demands and the header lacks, or holds
    empty where it must not."""
    return [*_missing(header, ()), *_conditions(header)]


def complete(item: Dataset, path: tuple[str, ...]) -> bool:
    """Add, empty, what is of Type 2 and absent from an item of the sequence ``path`` and
    from the items within; False where one of them lacks what is of Type 1."""
    kinds = _required().get(path, {"1": (), "2": ()})
    for keyword in kinds["2"]:
        if keyword not in item:
            kind = dictionary_VR(keyword)
            item.add(DataElement(tag_for_keyword(keyword) or 0, kind, [] if kind == "SQ" else None))
    whole = all(keyword in item and not _is_empty(item, keyword) for keyword in kinds["1"])
    for element in item:
        if element.VR == "SQ" and element.keyword:
            for inner in element.value:
                whole = complete(inner, (*path, element.keyword)) and whole
    return whole


def _missing(item: Dataset, path: tuple[str, ...]) -> Iterator[str]:
    kinds = _required().get(path)
    if kinds is not None:
        for kind in ("1", "2"):
            for keyword in kinds[kind]:
                where = "/".join((*path, keyword))
                if keyword not in item:
                    yield f"{where} (Type {kind}) is missing"
                elif kind == "1" and _is_empty(item, keyword):
                    yield f"{where} (Type 1) is empty"
    for element in item:
        if element.VR == "SQ" and element.keyword:
            for inner in element.value:
                yield from _missing(inner, (*path, element.keyword))


def _is_empty(item: Dataset, keyword: str) -> bool:
    value = item[keyword].value
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def _role(header: Dataset) -> str:
    kinds = list(header.get("ImageType") or [])
    return str(kinds[2]) if len(kinds) > 2 else ""


def _is_full(header: Dataset) -> bool:
    return bool(header.get("DimensionOrganizationType") == "TILED_FULL")


def _is_of_tissue(header: Dataset) -> bool:
    return _role(header) in ("VOLUME", "THUMBNAIL")


def _is_grey(header: Dataset) -> bool:
    return bool(header.get("PhotometricInterpretation") == "MONOCHROME2")


CONDITIONS: tuple[tuple[Callable[[Dataset], bool], tuple[str, ...], str], ...] = (
    (
        _is_full,
        ("TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths", "ImageOrientationSlide"),
        "TILED_FULL",
    ),
    (
        lambda header: not _is_full(header),
        ("PerFrameFunctionalGroupsSequence", "DimensionIndexSequence"),
        "frames with places of their own",
    ),
    (
        _is_of_tissue,
        ("ImagedVolumeWidth", "ImagedVolumeHeight", "ImagedVolumeDepth"),
        "Image Type VOLUME or THUMBNAIL",
    ),
    (
        lambda header: header.get("LossyImageCompression") == "01",
        ("LossyImageCompressionRatio", "LossyImageCompressionMethod"),
        "Lossy Image Compression 01",
    ),
    (lambda header: int(header.get("SamplesPerPixel", 1)) > 1, ("PlanarConfiguration",), "colour"),
    (_is_grey, ("PresentationLUTShape", "RescaleIntercept", "RescaleSlope"), "MONOCHROME2"),
    (
        lambda header: "ConcatenationUID" in header,
        ("InConcatenationNumber", "ConcatenationFrameOffsetNumber", "SOPInstanceUIDOfConcatenationSource"),
        "a concatenation",
    ),
)
"""When, which attributes, and the condition in words (PS3.3 C.7.6.16, C.7.6.17, C.8.12.4)."""


def _conditions(header: Dataset) -> Iterator[str]:
    for applies, keywords, words in CONDITIONS:
        if applies(header):
            for keyword in keywords:
                if keyword not in header or _is_empty(header, keyword):
                    yield f"{keyword} (Type 1C: {words}) is missing"
    if _role(header) == "LABEL":
        yield from (f"{keyword} (Type 2: a label) is missing" for keyword in LABEL if keyword not in header)
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    for keyword in ("PixelMeasuresSequence", "WholeSlideMicroscopyImageFrameTypeSequence"):
        if keyword not in shared:
            yield f"SharedFunctionalGroupsSequence/{keyword} is missing"
    for path in header.get("OpticalPathSequence") or ():
        if not _is_grey(header) and not path.get("ICCProfile"):
            yield "OpticalPathSequence/ICCProfile (Type 1C: colour) is missing"
        if "IlluminationWaveLength" not in path and not path.get("IlluminationColorCodeSequence"):
            yield "OpticalPathSequence/IlluminationColorCodeSequence (Type 1C: no wave length) is missing"
    ratios, methods = (
        header.get(keyword) for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
    )
    if ratios is not None and methods is not None and _count(ratios) != _count(methods):
        yield "LossyImageCompressionRatio and LossyImageCompressionMethod differ in number"


LABEL = ("LabelText", "BarcodeValue")


def _count(value: object) -> int:
    return 1 if isinstance(value, (str, float)) or not hasattr(value, "__len__") else len(value)
