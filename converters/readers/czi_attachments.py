# SPDX-License-Identifier: Apache-2.0
"""Label, slide preview and thumbnail of CZI: attachments that are a JPEG or a CZI again."""

import struct
from collections.abc import Callable, Sequence

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import sniff
from converters.errors import ConversionError, DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.readers.czi_metadata import CziMetadata, read_metadata_xml
from converters.readers.czi_pixels import COMPRESSIONS, lossy_methods
from converters.readers.czi_scenes import Samples, float_mappings, parts, whole_image
from converters.readers.czi_segments import Attachment, Czi, read_czi
from converters.slide import AssociatedImage, Role

ROLES = {"Label": Role.LABEL, "SlidePreview": Role.OVERVIEW, "Thumbnail": Role.THUMBNAIL}
MAX_PIXELS = 50_000_000
MAX_JPEG_BYTES = 64 * 1024**2
MAX_TIMES = 1_000_000


def associated_images(czi: Czi) -> tuple[Sequence[AssociatedImage], tuple[str, ...]]:
    """The images, and findings: a slide is not refused for an image of a kind that is not
    read. Raises DamagedSlide."""
    found: list[AssociatedImage] = []
    findings: list[str] = []
    for name, role in ROLES.items():
        attachment = czi.attachment(name)
        if attachment is None:
            continue
        kind = attachment.content_type.upper()
        if kind in ("JPG", "JPEG"):
            found.append(_jpeg(attachment, role))
        elif kind in ("CZI", "ZISRAW"):
            try:
                found.append(_czi(attachment, role))
            except (UnsupportedCompression, UnsupportedPixels) as refusal:
                findings.append(f"the {role.value.lower()} image is left out: {refusal}")
        else:
            findings.append(f"the {role.value.lower()} image is of a kind that is not read: left out")
    if czi.attachment("Prescan") is not None:
        findings.append("the prescan is left out")
    return tuple(found), tuple(findings)


def samples_of(czi: Czi, metadata: CziMetadata) -> Samples:
    """How the file's samples become DICOM's."""
    bits = {number: found for number, found in enumerate(metadata.component_bits) if 8 <= found <= 16}
    return Samples(bits, float_mappings(czi))


def _checked(role: Role, rows: int, columns: int) -> None:
    if not (0 < rows <= 65535 and 0 < columns <= 65535 and rows * columns <= MAX_PIXELS):
        raise DamagedSlide(f"the {role.value.lower()} image has an impossible size")


def _jpeg(attachment: Attachment, role: Role) -> AssociatedImage:
    name = role.value.lower()
    if attachment.content.size_bytes > MAX_JPEG_BYTES:
        raise DamagedSlide(f"the {name} image has an impossible size")
    data = attachment.content.read(0, attachment.content.size_bytes, f"the {name} image")
    head = sniff(data)
    if head.format != "jpeg" or head.components not in (1, 3) or head.bits != 8:
        raise DamagedSlide(f"the {name} image is no JPEG of 8-bit grey or colour")
    _checked(role, head.rows, head.columns)

    def read() -> NDArray[np.uint8]:
        try:
            pixels: NDArray[np.uint8] = imagecodecs.jpeg8_decode(data)
        except Exception as error:  # whatever a decoder raises: all mean damaged data
            raise DamagedSlide(f"the {name} image cannot be decoded") from error
        return pixels.reshape(head.rows, head.columns, head.components)

    return AssociatedImage(
        role=role,
        rows=head.rows,
        columns=head.columns,
        read=read,
        compression="JPEG",
        lossy_method="ISO_10918_1",
        encoded_bytes=len(data),
        codestream=data,
    )


def _czi(attachment: Attachment, role: Role) -> AssociatedImage:
    name = role.value.lower()
    inner = read_czi(attachment.content)
    part = parts(inner)[0]
    metadata = read_metadata_xml(inner.xml)
    rows, columns, draw = whole_image(inner, part, samples_of(inner, metadata))
    _checked(role, rows, columns)
    used = set(np.unique(inner.blocks["compression"][part.finest]).tolist())
    if len(used) > 1:
        raise UnsupportedPixels(f"the {name} image is compressed in several ways")
    number = used.pop()
    return AssociatedImage(
        role=role,
        rows=rows,
        columns=columns,
        read=_named(draw, name),
        compression=COMPRESSIONS.get(number, str(number)),
        lossy_method="".join(lossy_methods(inner, part.finest)),
        encoded_bytes=sum(inner.pixels_at(block)[1] for block in part.finest.tolist()),
    )


def _named(draw: Callable[[], NDArray[np.generic]], name: str) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        try:
            return draw().astype(np.uint8, copy=False)
        except ConversionError as error:
            raise DamagedSlide(f"the {name} image cannot be decoded") from error

    return read


def time_stamps_s(czi: Czi) -> tuple[float, ...]:
    """When each time point was taken, in seconds from some moment; () where it is not told."""
    attachment = czi.attachment("TimeStamps")
    if attachment is None or attachment.content.size_bytes < 8:
        return ()
    (count,) = struct.unpack("<4xi", attachment.content.read(0, 8, "the time stamps"))
    if not 0 < count <= min(MAX_TIMES, (attachment.content.size_bytes - 8) // 8):
        return ()
    found = struct.unpack(f"<{count}d", attachment.content.read(8, 8 * count, "the time stamps"))
    return found if np.isfinite(found).all() else ()
