# SPDX-License-Identifier: Apache-2.0
"""DICOM from scanners (Leica GT450 DX and others) and from converters: normalised.

A slide is the VL Whole Slide Microscopy Images of one series in one folder; its main file
is the finest VOLUME image. Frames are copied as they are wherever the codestream is legal;
the new instances have UIDs of their own, say what they were made from, and keep patient,
study, specimen and equipment (``dicom_header``). Notes on what is found in the wild:

- The archive stores received objects as they are (DESIGN 4): this is for the way out, and
  to see by ``inspect`` what is wrong with them.
- Photometric Interpretation is often untrue: the codestream decides. One that does not say
  (JPEG without markers, JPEG-LS) is what the header calls it.
- Offset tables are absent or wrong: the items decide (``archive.part10.pixels``).
- Image Type, Optical Path, Frame of Reference, Pixel Spacing are missing: what follows from
  the rest is derived and said; patient and time are not made up.
- One level may be several instances: parts of a concatenation, channels, focal planes.
- Several pyramids in one series are told apart by Pyramid UID.
- The preamble may be a TIFF's header over the same tiles: it is DICOM all the same.

Sources: PS3.3 A.32.8, C.7.6.16, C.7.6.17, C.8.12; PS3.10 7.1.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from archive.part10.agreement import Announced, disagreements
from archive.part10.errors import Part10Error
from archive.part10.scan import scan_file
from archive.part10.syntaxes import NATIVE, VIDEO
from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.probe import Probe
from converters.readers import dicom_header as of
from converters.readers.dicom_associated import associated_images
from converters.readers.dicom_frames import (
    Joined,
    Part,
    frame_ranges,
    has_reference,
    join,
    level_tiles,
    tile_reference,
)
from converters.readers.dicom_known import known_of
from converters.readers.dicom_places import Shape, full_places, sparse_places
from converters.readers.dicom_series import Head, series_of, why_no_slide
from converters.slide import (
    LABEL_LEFT,
    Level,
    PixelType,
    Role,
    Scene,
    Slide,
    SourceFile,
)
from converters.writer.iod import problems

_SAME_SIZE = "several images of the series have one size, and no Pyramid UID tells them apart"


class DicomWsiReader:
    """See :class:`converters.registry.Reader`."""

    format = "dicom-wsi"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        return why_no_slide(probe.path, probe.head)

    @staticmethod
    def companions(probe: Probe) -> Sequence[str]:
        """The other files of the series."""
        return [head.path.name for head in series_of(probe.path) if head.path.name != probe.path.name]

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnreadableSlide, UnsupportedPixels, UnsupportedCompression,
        MissingCompanion."""
        heads = series_of(probe.path)
        findings: Counter[str] = Counter()
        instances = [_instance(head, number, findings) for number, head in enumerate(heads)]
        return _slide(probe, heads, _with_roles(instances, findings), findings)


@dataclass(frozen=True, eq=False)
class _Instance:
    part: Part
    header: of.Header
    role: Role | None  # None: it does not say

    @property
    def order(self) -> tuple[object, ...]:
        said = self.part.header
        return (
            of.integer_of(said, "InstanceNumber"),
            of.text_of(said, "SOPInstanceUID"),
            self.part.path.name,
        )


# ---- one instance ------------------------------------------------------------------------


def _instance(head: Head, source: int, findings: Counter[str]) -> _Instance:
    try:
        scanned = scan_file(head.path)
        if not scanned.frame_table or scanned.pixel_data is None:
            raise DamagedSlide("an image of the series has no pixel data")
        if scanned.transfer_syntax_uid in VIDEO:
            raise UnsupportedCompression("video", "the frames of an image")
        header = of.read_header(scanned, head.path)
        ranges = frame_ranges(scanned.frame_table, head.path, native=scanned.transfer_syntax_uid in NATIVE)
    except Part10Error as error:
        raise DamagedSlide(str(error)) from error
    said = header.dataset
    shape = _shape(said, len(ranges[0]) - 1, scanned.pixel_data.tag)
    identifiers, heights, places = _places(header, shape, len(ranges[0]) - 1, findings)
    part = Part(
        head.path, source, said, scanned.transfer_syntax_uid, of.text_of(said, "PhotometricInterpretation"),
        shape, *ranges, identifiers, heights, places,
    )  # fmt: skip
    _check(part, header, [*scanned.findings], findings)
    kinds = of.image_kind(said)
    role = Role(kinds[2]) if kinds and kinds[2] in set(Role) else None
    return _Instance(part, header, role)


def _shape(said: Dataset, frames: int, pixel_tag: int) -> Shape:
    numbers = {
        word: of.integer_of(said, word)
        for word in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation")
    }
    samples, bits = numbers["SamplesPerPixel"], numbers["BitsAllocated"]
    colours = of.text_of(said, "PhotometricInterpretation")
    if pixel_tag != 0x7FE00010 or samples not in (1, 3) or bits not in (8, 16):
        raise UnsupportedPixels("an image of the series has pixels that no whole slide image has")
    if numbers["PixelRepresentation"] or colours in ("MONOCHROME1", "PALETTE COLOR"):
        raise UnsupportedPixels("an image of the series has signed, inverted or palette pixels")
    whole = [of.integer_of(said, f"TotalPixelMatrix{way}") for way in ("Rows", "Columns")]
    tile = [numbers["Rows"], numbers["Columns"]]
    if whole == [0, 0] and frames == 1:
        whole = tile
    if min(*whole, *tile) < 1:
        raise DamagedSlide("an image of the series does not say how large it or its frames are")
    return Shape(whole[0], whole[1], tile[0], tile[1], samples, bits)


def _places(
    header: of.Header, shape: Shape, frames: int, findings: Counter[str]
) -> tuple[tuple[str, ...], tuple[float | None, ...], NDArray[np.int64]]:
    """Optical paths, heights of the focal planes, and where each frame lies."""
    said = header.dataset
    described = len(said.get("OpticalPathSequence") or ())
    counted = of.integer_of(said, "NumberOfOpticalPaths")
    organized = of.text_of(said, "DimensionOrganizationType")
    if organized != "TILED_FULL" and header.groups:
        identifiers = of.path_identifiers(said, max(described, 1))
        places, heights = sparse_places(header.groups, shape, frames, identifiers)
        return identifiers, heights, places
    if organized not in ("TILED_FULL", ""):
        raise DamagedSlide("the frames of an image do not all say where they lie")
    if not organized:
        findings["frames that do not say where they lie: taken for TILED_FULL"] += 1
    tiles = shape.extent[0] * shape.extent[1]
    partial_image = bool(of.text_of(said, "ConcatenationUID"))
    planes = of.integer_of(said, "TotalPixelMatrixFocalPlanes")
    paths = next((n for n in (counted, described) if n and (partial_image or frames % (n * tiles) == 0)), 1)
    if not 0 < planes <= 100_000:
        planes = 1 if partial_image else max(1, frames // (tiles * paths))
    first = of.integer_of(said, "ConcatenationFrameOffsetNumber") if partial_image else 0
    if first < 0 or paths > 100_000:
        raise DamagedSlide("the numbers of a concatenation are damaged")
    places = full_places(shape, frames, first, paths, planes, partial=partial_image)
    return of.path_identifiers(said, paths), of.plane_heights_um(said, planes), places


def _check(part: Part, header: of.Header, found: list[str], findings: Counter[str]) -> None:
    """What is wrong with a received image: its bytes, its header, and what it says of its
    frames against what they are."""
    if not part.native:
        announced = Announced(
            part.transfer_syntax_uid, part.photometric, part.shape.tile_rows, part.shape.tile_columns,
            part.shape.samples, part.shape.bits,
        )  # fmt: skip
        found += disagreements(part.head, announced)
    found += [f"{word} is not valid: left out" for word in header.left_out]
    complete = Dataset()
    complete.update(part.header)
    if header.groups:
        complete.PerFrameFunctionalGroupsSequence = [Dataset()]
    for line in dict.fromkeys([*found, *problems(complete)]):
        findings[line] += 1


def _with_roles(instances: Sequence[_Instance], findings: Counter[str]) -> list[_Instance]:
    """Every image with a role. One that says none is a level if it has the shape of the
    finest image, a label if it has a label's text, else an overview."""
    finest = max(instances, key=lambda one: (one.role in (None, Role.VOLUME), one.part.shape.area))
    result = []
    for one in instances:
        role = one.role
        if role is None:
            role = _likely_role(one, finest.part.shape)
            findings[f"an image that does not say what it shows: taken for {role.value}"] += 1
        result.append(_Instance(one.part, one.header, role))
    return result


def _likely_role(one: _Instance, finest: Shape) -> Role:
    shape = one.part.shape
    expected = shape.columns * finest.rows / finest.columns
    if abs(expected - shape.rows) <= max(2, 0.02 * shape.rows):
        return Role.VOLUME
    text = of.text_of(one.part.header, "LabelText") or of.text_of(one.part.header, "BarcodeValue")
    return Role.LABEL if text else Role.OVERVIEW


# ---- the slide ----------------------------------------------------------------------------


def _slide(
    probe: Probe, heads: Sequence[Head], instances: Sequence[_Instance], findings: Counter[str]
) -> Slide:
    pyramids: dict[str, list[_Instance]] = {}
    for one in sorted(instances, key=lambda one: one.order):
        if one.role is Role.VOLUME:
            pyramids.setdefault(of.text_of(one.part.header, "PyramidUID"), []).append(one)
    if not pyramids:
        roles = ", ".join(sorted({one.role.value for one in instances if one.role}))
        raise UnsupportedPixels(f"the series has no VOLUME image, only: {roles}")
    by_header = {id(one.part): one.header for one in instances}
    stacks = [stack for pyramid in pyramids.values() for stack in _stacks(pyramid, findings)]
    main = by_header[id(stacks[0][0].parts[0])]
    scenes = [_scene(number, stack, main.dataset, findings) for number, stack in enumerate(stacks)]
    number_of = {uid: number for number, uid in enumerate(pyramids)} if len(stacks) == len(pyramids) else {}
    others = [
        (one.role, one.part)
        for one in sorted(instances, key=lambda one: one.order)
        if one.role not in (None, Role.VOLUME)
    ]
    label = next((one.header for one in instances if one.role is Role.LABEL), None)
    return Slide(
        format=DicomWsiReader.format,
        sources=[_source(head.path, probe) for head in heads],
        scenes=scenes,
        associated=associated_images(others, main.dataset, number_of, findings),
        scan=of.scan(main, label),
        findings=[f"{line} ({n} images)" if n > 1 else line for line, n in findings.items()],
    )


def _source(path: Path, probe: Probe) -> SourceFile:
    try:
        status = path.stat()
    except OSError:
        raise DamagedSlide("a file of the series went away while it was read") from None
    modified = probe.modified if path == probe.path else status.st_mtime
    return SourceFile(path, status.st_size, modified)


def _stacks(pyramid: Sequence[_Instance], findings: Counter[str]) -> list[list[Joined]]:
    """The levels of one pyramid, finest first. Images of one size that cannot be parts of
    one level are pyramids of their own, if that is all there is of each."""
    by_shape: dict[Shape, list[Part]] = {}
    for one in pyramid:
        by_shape.setdefault(one.part.shape, []).append(one.part)
    shapes = sorted(by_shape, key=lambda shape: shape.area, reverse=True)
    if len({(shape.rows, shape.columns) for shape in shapes}) < len(shapes):
        raise UnsupportedPixels(_SAME_SIZE)
    stack: list[Joined] = []
    for shape in shapes:
        joined = join(by_shape[shape])
        if joined is None:
            if len(shapes) > 1:
                raise UnsupportedPixels(_SAME_SIZE)
            alone = [one for one in (join([part]) for part in by_shape[shape]) if one is not None]
            findings["images of one size without a Pyramid UID: taken for regions of their own"] += 1
            return [[one] for one in alone]
        if stack and (joined.identifiers, joined.planes) != (stack[0].identifiers, stack[0].planes):
            findings["a level has not the finest one's channels and focal planes: made anew"] += 1
            continue
        stack.append(joined)
    return [stack]


def _scene(index: int, stack: Sequence[Joined], main: Dataset, findings: Counter[str]) -> Scene:
    finest = stack[0]
    header = finest.parts[0].header
    lies = of.orientation(header)
    if lies is None:
        findings["Image Orientation (Slide) is not stated: the label is assumed at the left"] += 1
    place = of.origin_mm(header)
    if place is None:
        findings["the place on the glass is not stated: assumed"] += 1
    acquired = of.acquired(header)
    return Scene(
        index=index,
        levels=[_level(number, joined, finest, main, findings) for number, joined in enumerate(stack)],
        optical_paths=of.optical_paths([part.header for part in finest.parts], finest.identifiers),
        origin_mm=place,
        focal_planes_um=finest.heights_um,
        label=of.text_of(header, "PyramidLabel"),
        acquired=acquired if acquired != of.acquired(main) else None,
        orientation=lies or LABEL_LEFT,
    )


def _level(index: int, joined: Joined, finest: Joined, main: Dataset, findings: Counter[str]) -> Level:
    first, shape = joined.parts[0], joined.shape
    spacing, derived = of.spacing_mm(first.header, shape.rows, shape.columns)
    if derived:
        findings["Pixel Spacing is not stated: taken from the size of the imaged volume"] += 1
    return Level(
        index=index,
        rows=shape.rows,
        columns=shape.columns,
        tile_rows=shape.tile_rows,
        tile_columns=shape.tile_columns,
        tiles=level_tiles(joined),
        pixel_type=PixelType(shape.samples, shape.bits, first.bits_stored),
        pixel_spacing_mm=spacing,
        downsample=finest.shape.columns / shape.columns,
        container_rgb=_agreed([part.container_rgb for part in joined.parts]),
        optical_paths=len(joined.identifiers),
        focal_planes=joined.planes,
        reference=partial(tile_reference, joined) if has_reference(joined) else None,
        earlier_losses=of.earlier_losses(first.header, first.lossy_method),
        known=known_of(joined.parts, main, Role.VOLUME),
    )


def _agreed(said: Sequence[bool | None]) -> bool | None:
    return said[0] if len(set(said)) == 1 else None
