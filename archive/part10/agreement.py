# SPDX-License-Identifier: Apache-2.0
"""Whether a codestream is what the header around it says: one line for each contradiction.

Scanners and converters in the wild get Photometric Interpretation wrong most of all
(RGB over YCbCr, YBR_ICT without a component transformation). What a codestream does not
say of itself (the colours of JPEG-LS, of JPEG without markers) is the header's to say.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from archive.part10.codestream import Codestream, jpeg_segments, photometric, sniff, transfer_syntax
from archive.part10.errors import Malformed

HEAD_BYTES = 4096
_YCBCR = frozenset(("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"))
_JPEG_LOSSLESS = frozenset(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"))
_HTJ2K_LOSSLESS = frozenset(("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"))
_JPEG_2000 = frozenset(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"))


@dataclass(frozen=True, slots=True)
class Announced:
    """What a header says of its frames (PS3.3 C.7.6.3)."""

    transfer_syntax_uid: str
    photometric: str
    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int


def stated_colours(head: bytes, stream: Codestream) -> str:
    """The Photometric Interpretation that a codestream of three components states by
    itself, ``""`` where it says nothing and the header decides."""
    if stream.components != 3:
        return photometric(stream)
    match stream.format:
        case "jpeg" if not stream.reversible:
            marked = stream.adobe_transform is not None or stream.component_ids == (82, 71, 66)
            if marked or stream.subsampled or _has_jfif(head):
                return photometric(stream)
        case "jpeg2000" | "htj2k" if stream.mct or stream.subsampled:
            return photometric(stream)
    return ""


def disagreements(head: bytes, announced: Announced) -> list[str]:
    """One line for each way in which a frame, whose first bytes are ``head``, is not what
    the header says. Nothing for frames whose kind cannot be told."""
    stream = sniff(head)
    found = transfer_syntax(stream)
    # the head of JPEG XL does not tell its kind; a head may be longer than what we were given
    if stream.format in ("unknown", "rle", "jpegxl") or not stream.head_complete:
        return []
    lines = []
    if found is None:
        lines.append("the frames are of a kind that no transfer syntax in use carries")
    elif not _may_carry(announced.transfer_syntax_uid, found):
        lines.append("the frames are of another transfer syntax than the header says")
    if (stream.rows, stream.columns) != (announced.rows, announced.columns):
        lines.append("the frames are not as large as the header says")
    if stream.components and stream.components != announced.samples_per_pixel:
        lines.append("the frames have other samples per pixel than the header says")
    if stream.bits > announced.bits_allocated:
        lines.append("the frames have more bits than the header says")
    colours = stated_colours(head, stream)
    if colours and colours != announced.photometric and not {colours, announced.photometric} <= _YCBCR:
        lines.append(f"the frames are {colours}, Photometric Interpretation says something else")
    elif not colours and announced.photometric in ("YBR_ICT", "YBR_RCT"):
        lines.append(
            "the frames have no component transformation, Photometric Interpretation says that they have"
        )
    return lines


def _may_carry(announced: str, found: str) -> bool:
    """Whether frames of one transfer syntax may stand under another: lossless in a lossy
    one, baseline under extended JPEG, and processes that the head does not tell apart."""
    if announced == found or {announced, found} <= _JPEG_LOSSLESS or {announced, found} <= _HTJ2K_LOSSLESS:
        return True
    if announced == "1.2.840.10008.1.2.4.91" and found in _JPEG_2000:
        return True
    return (announced, found) in {
        ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.50"),
        ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.80"),
        *(("1.2.840.10008.1.2.4.203", lossless) for lossless in _HTJ2K_LOSSLESS),
    }


def _has_jfif(head: bytes) -> bool:
    try:
        segments: Iterable[tuple[int, int, int]] = jpeg_segments(head)
    except Malformed:
        return False
    return any(marker == 0xE0 and head[at : at + 5] == b"JFIF\0" for marker, at, _ in segments)
