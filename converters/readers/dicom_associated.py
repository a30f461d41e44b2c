# SPDX-License-Identifier: Apache-2.0
"""Label, overview and thumbnail of a received DICOM series: small images, each of one
instance or of the parts of a concatenation, whose tiles are laid together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from converters.errors import ConversionError, DamagedSlide
from converters.readers.dicom_frames import Joined, Part, join
from converters.readers.dicom_header import earlier_losses, text_of
from converters.readers.dicom_known import known_of
from converters.readers.encoded_tiles import MAX_ASSOCIATED_PIXELS
from converters.slide import AssociatedImage, Role
from converters.writer.decimals import decimal


def associated_images(
    images: Sequence[tuple[Role, Part]],
    main: Dataset,
    scene_of: Mapping[str, int],
    findings: Counter[str],
) -> list[AssociatedImage]:
    """``images`` in the order of their numbers; ``main`` is the header of the finest level,
    ``scene_of`` gives the scene of a Pyramid UID. Raises DamagedSlide, MissingCompanion."""
    groups: dict[tuple[Role, str], list[Part]] = {}
    for role, part in images:
        uid = text_of(part.header, "ConcatenationUID") or text_of(part.header, "SOPInstanceUID")
        groups.setdefault((role, uid), []).append(part)
    order = [Role.THUMBNAIL, Role.LABEL, Role.OVERVIEW]
    return [
        _associated_image(role, parts, main, scene_of, findings)
        for (role, _), parts in sorted(groups.items(), key=lambda group: order.index(group[0][0]))
    ]


def _associated_image(
    role: Role, parts: Sequence[Part], main: Dataset, scene_of: Mapping[str, int], findings: Counter[str]
) -> AssociatedImage:
    name = role.value.lower()
    first, shape = parts[0], parts[0].shape
    joined = join(parts)
    if joined is None or any(part.shape != shape for part in parts):
        raise DamagedSlide(f"the parts of the {name} image do not fit together")
    if max(shape.rows, shape.columns) > 65535 or shape.area > MAX_ASSOCIATED_PIXELS:
        raise DamagedSlide(f"the {name} image has an impossible size")
    if len(joined.owner) > joined.shape.extent[0] * joined.shape.extent[1]:
        findings[f"the {name} image has several channels or focal planes: the first is kept"] += 1
    if shape.bits > 8:
        findings[f"the {name} image has 16 bits: 8 are kept"] += 1
    known = known_of(parts, main, role)
    encoded = sum(int(part.lengths.sum()) for part in parts)
    losses = list(earlier_losses(first.header, first.lossy_method))
    if first.lossy_method:
        losses.append((first.lossy_method, max(1.0, shape.area * shape.samples / max(1, encoded))))
    if losses:
        known.LossyImageCompression = "01"
        known.LossyImageCompressionMethod = [method for method, _ in losses]
        known.LossyImageCompressionRatio = [decimal(round(ratio, 2)) for _, ratio in losses]
    return AssociatedImage(
        role=role,
        rows=shape.rows,
        columns=shape.columns,
        read=partial(_assembled, joined, name),
        compression=first.stream.format,
        lossy_method=first.lossy_method,
        encoded_bytes=encoded,
        scene=scene_of.get(text_of(first.header, "PyramidUID"), 0) if role is Role.THUMBNAIL else 0,
        codestream=_whole_codestream(joined),
        known=known,
    )


def _whole_codestream(joined: Joined) -> bytes:
    """The image's only frame, where that shows exactly the image in colours that it
    states itself; else b""."""
    first, shape = joined.parts[0], joined.shape
    alone = first.frames == 1 == len(joined.parts) and len(joined.owner) == 1
    exact = (shape.rows, shape.columns) == (shape.tile_rows, shape.tile_columns)
    if not (alone and exact and first.copyable) or (first.container_rgb and first.stream.format == "jpeg"):
        return b""
    return first.frame(0)


def _assembled(joined: Joined, name: str) -> NDArray[np.uint8]:
    """All of a small image, (rows, columns, samples). Raises DamagedSlide."""
    shape = joined.shape
    down, across = shape.extent
    whole = np.full((down * shape.tile_rows, across * shape.tile_columns, shape.samples), 255, np.uint8)
    for index in range(down * across):
        if joined.owner[index] < 0:
            continue
        try:
            pixels = joined.pixels(index)
        except ConversionError as error:
            raise DamagedSlide(f"the {name} image cannot be decoded") from error
        if shape.bits > 8:
            pixels = np.right_shift(pixels, max(0, joined.parts[0].bits_stored - 8)).clip(0, 255)
        top, left = index // across * shape.tile_rows, index % across * shape.tile_columns
        whole[top : top + shape.tile_rows, left : left + shape.tile_columns] = pixels
    return np.ascontiguousarray(whole[: shape.rows, : shape.columns])
