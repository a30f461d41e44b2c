# SPDX-License-Identifier: Apache-2.0
"""A level's DICOM file that is a TIFF as well: one file, the same pixels, two readers.

The 128 bytes before "DICM", which PS3.10 7.1 leaves to other formats, hold a TIFF header;
its one directory lies at the end of the file, inside Data Set Trailing Padding
(FFFC,FFFC), and points at the frames where they are in the encapsulated pixel data. The
data set up to the padding is what it is without. Layout: D. Clunie, "Dual-Personality
DICOM-TIFF for whole slide images", J Pathol Inform 2019;10:12; TIFF 6.0, its Technical
Note 2 (JPEG), BigTIFF where an offset needs more than 32 bits; Compression 33005 is
Aperio's for JPEG 2000 that decodes to RGB.

This is an option of ``convert`` and off by default: DESIGN 1.1 has GET, export and
convert write the same bytes, and only without it do they.

TIFF has no more than this of the image: one plane, one path, all tiles in rows. So only
TILED_FULL levels of one focal plane and optical path whose codestreams TIFF readers know
become one; a level that is one frame is one strip. No patient, specimen or label is in
the directory.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import ArrayLike, NDArray

from archive.part10.codestream import sniff
from archive.part10.frame_table import FrameTable
from archive.part10.stream import Part10Stream
from converters.slide import Role, SourceFile
from converters.writer.born import DicomInstance

EXPLICIT_LE = "1.2.840.10008.1.2.1"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
UNCOMPRESSED, JPEG, APERIO_YCBCR, APERIO_RGB, JPEG_2000_GREY = 1, 7, 33003, 33005, 34712
GREY, RGB, YCBCR = 1, 2, 6

_ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 2, 3, 4, 5, 7, 16
PREAMBLE_BYTES = 128
_PADDING = struct.Struct("<HH2sHI")  # (FFFC,FFFC) OB, its length
_DELIMITER_BYTES = 8  # sequence delimiter after the last frame
_MAX_CLASSIC = 1 << 32
_HEAD_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What makes a Part 10 file a TIFF: ``preamble`` instead of its first 128 bytes, and
    ``padding`` after its last."""

    preamble: bytes
    padding: bytes


@dataclass(frozen=True, slots=True)
class _Field:
    tag: int
    kind: int
    count: int
    value: bytes


def why_not(instance: DicomInstance) -> str:
    """Why an instance's file cannot be a TIFF too, for people; "" where it can."""
    if instance.part:
        return "it is divided into parts"
    if instance.transfer_syntax_uid not in (EXPLICIT_LE, JPEG_BASELINE, *JPEG_2000):
        return "TIFF readers do not know its compression"
    header = _header(instance)
    if header.get("DimensionOrganizationType") != "TILED_FULL":
        return "its tiles are not a full grid"
    if int(header.TotalPixelMatrixFocalPlanes) > 1 or int(header.NumberOfOpticalPaths) > 1:
        return "it has several focal planes or optical paths"
    if not _is_whole(instance, header) and (int(header.Rows) % 16 or int(header.Columns) % 16):
        return "its tiles are no multiple of 16 pixels, which TIFF demands"
    return ""


def wrapping(instance: DicomInstance, stream: Part10Stream) -> Wrapping | None:
    """What makes ``stream``, the Part 10 form of ``instance``, a TIFF as well; None for
    label, overview and thumbnail, and where :func:`why_not` says why."""
    if instance.role is not Role.VOLUME or why_not(instance):
        return None
    offsets, lengths = _places(instance, stream)
    return _written(_fields(instance, offsets, lengths), stream.length)


def _header(instance: DicomInstance) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(instance.header))


def _is_whole(instance: DicomInstance, header: pydicom.Dataset) -> bool:
    """Whether the image is one frame, no larger than itself."""
    return (int(header.Rows), int(header.Columns)) == (instance.rows, instance.columns)


def _places(instance: DicomInstance, stream: Part10Stream) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Where each frame begins in the file, and its bytes. Pixel data are the last element."""
    table = FrameTable.from_bytes(instance.frame_table)
    lengths = np.frombuffer(table.lengths(), dtype=np.uint64)
    if stream.transfer_syntax_uid == EXPLICIT_LE:
        total = int(lengths.sum())
        start, steps = stream.length - total - total % 2, lengths
    else:
        steps = lengths + (lengths & np.uint64(1)) + np.uint64(8)
        start = stream.length - _DELIMITER_BYTES - int(steps.sum()) + 8
    offsets = np.cumsum(steps, dtype=np.uint64) - steps + np.uint64(start)
    return offsets, lengths


def _fields(
    instance: DicomInstance, offsets: NDArray[np.uint64], lengths: NDArray[np.uint64]
) -> list[_Field]:
    """The directory, by ascending tags."""
    header = _header(instance)
    samples, bits = int(header.SamplesPerPixel), int(header.BitsAllocated)
    compression, colours = _compression(instance)
    fields = [
        _numbers(256, [instance.columns]),
        _numbers(257, [instance.rows]),
        _shorts(258, [bits] * samples),
        _shorts(259, [compression]),
        _shorts(262, [colours]),
        _text(270, f"DICOM whole slide image, level {instance.level}, {header.ImageType[3].lower()}"),
        _shorts(277, [samples]),
        _shorts(284, [1]),
        _text(305, "Coverslip"),
    ]
    if _is_whole(instance, header):
        fields += [_numbers(273, offsets), _numbers(278, [instance.rows]), _numbers(279, lengths)]
    else:
        fields += [
            _numbers(322, [int(header.Columns)]),
            _numbers(323, [int(header.Rows)]),
            _numbers(324, offsets),
            _numbers(325, lengths),
        ]
    measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    down, across = (Fraction(str(value)) for value in measures.PixelSpacing)
    fields += [
        _rationals(282, [10 / across]),
        _rationals(283, [10 / down]),
        _shorts(296, [3]),  # per centimetre
    ]
    if colours == YCBCR:
        if compression == JPEG:
            fields.append(_shorts(530, _subsampling(instance)))
        fields.append(_rationals(532, [Fraction(value) for value in (0, 255, 128, 255, 128, 255)]))
    profile = bytes(header.OpticalPathSequence[0].get("ICCProfile") or b"")
    if profile:
        size = int.from_bytes(profile[:4])  # DICOM pads it to an even length
        profile = profile[:size] if 128 <= size <= len(profile) else profile
        fields.append(_Field(34675, _UNDEFINED, len(profile), profile))
    return sorted(fields, key=lambda field: field.tag)


def _compression(instance: DicomInstance) -> tuple[int, int]:
    """Compression (259) and PhotometricInterpretation (262): what a decoder gives."""
    if instance.photometric == "MONOCHROME2":
        kinds = {JPEG_BASELINE: JPEG, EXPLICIT_LE: UNCOMPRESSED}
        return kinds.get(instance.transfer_syntax_uid, JPEG_2000_GREY), GREY
    as_ycbcr = instance.photometric.startswith("YBR_FULL")
    if instance.transfer_syntax_uid in JPEG_2000:  # RCT and ICT are undone in decoding
        return (APERIO_YCBCR, YCBCR) if as_ycbcr else (APERIO_RGB, RGB)
    kind = JPEG if instance.transfer_syntax_uid == JPEG_BASELINE else UNCOMPRESSED
    return kind, YCBCR if as_ycbcr else RGB


def _subsampling(instance: DicomInstance) -> list[int]:
    """YCbCrSubSampling (530), horizontal and vertical, from the first frame: all are alike."""
    head = b""
    for segment in FrameTable.from_bytes(instance.frame_table).segments(0):
        if isinstance(segment, bytes):
            head += segment
        else:
            head += _read(instance.blobs[segment.blob_index], segment.offset, segment.length)
        if len(head) >= _HEAD_BYTES:
            break
    sampling = sniff(head).sampling
    (across, down), (chroma_across, chroma_down) = sampling[0], sampling[1]
    return [across // chroma_across, down // chroma_down]


def _read(blob: SourceFile | bytes | Path, offset: int, length: int) -> bytes:
    """The beginning of a range of a blob."""
    length = min(length, _HEAD_BYTES)
    if isinstance(blob, bytes):
        return blob[offset : offset + length]
    path = blob.path if isinstance(blob, SourceFile) else blob
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _numbers(tag: int, values: ArrayLike) -> _Field:
    """32 bits each, 64 where one needs them (which only BigTIFF knows)."""
    array = np.asarray(values, dtype=np.uint64)
    if int(array.max()) < _MAX_CLASSIC:
        return _Field(tag, _LONG, array.size, array.astype("<u4").tobytes())
    return _Field(tag, _LONG8, array.size, array.astype("<u8").tobytes())


def _shorts(tag: int, values: Sequence[int]) -> _Field:
    return _Field(tag, _SHORT, len(values), struct.pack(f"<{len(values)}H", *values))


def _text(tag: int, text: str) -> _Field:
    value = text.encode("ascii") + b"\0"
    return _Field(tag, _ASCII, len(value), value)


def _rationals(tag: int, values: Sequence[Fraction]) -> _Field:
    parts: list[int] = []
    for value in values:
        most = max(1, min(1_000_000, (_MAX_CLASSIC - 1) // (int(value) + 1)))
        nearest = value.limit_denominator(most)
        parts += (min(nearest.numerator, _MAX_CLASSIC - 1), nearest.denominator)
    return _Field(tag, _RATIONAL, len(values), struct.pack(f"<{len(parts)}I", *parts))


def _written(fields: Sequence[_Field], at: int) -> Wrapping:
    """Header and directory; the padding element begins at byte ``at`` of the file."""
    most = sum(len(field.value) + 32 for field in fields) + 64
    big = at + most >= _MAX_CLASSIC
    value_at = at + _PADDING.size
    directory_at = value_at + -value_at % 8
    word = "<Q" if big else "<I"
    word_bytes = 8 if big else 4
    count = struct.pack("<Q" if big else "<H", len(fields))
    entry_bytes = 4 + 2 * word_bytes
    end = directory_at + len(count) + len(fields) * entry_bytes + word_bytes
    entries, heap = bytearray(), bytearray()
    heap_at = end + -end % 8
    for field in fields:
        entries += struct.pack("<HH", field.tag, field.kind) + struct.pack(word, field.count)
        if len(field.value) <= word_bytes:
            entries += field.value.ljust(word_bytes, b"\0")
        else:
            entries += struct.pack(word, heap_at + len(heap))
            heap += field.value + bytes(-len(field.value) % 8)
    directory = count + entries + bytes(word_bytes)
    value = bytes(directory_at - value_at) + directory + bytes(heap_at - end) + bytes(heap)
    value += bytes(len(value) % 2)
    if big:
        head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, directory_at)
    else:
        head = struct.pack("<2sHI", b"II", 42, directory_at)
    padding = _PADDING.pack(0xFFFC, 0xFFFC, b"OB", 0, len(value)) + value
    return Wrapping(head.ljust(PREAMBLE_BYTES, b"\0"), padding)
