# SPDX-License-Identifier: Apache-2.0
"""Tiles that have no legal form in DICOM, decoded and encoded again without loss."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import photometric, sniff
from archive.part10.frame_table import encode_direct
from converters.codecs import CodecError, decode, encode
from converters.errors import DamagedSlide
from converters.slide import Level
from converters.writer.survey import Kind, Survey

LOSSLESS_UID = "1.2.840.10008.1.2.4.90"
"""JPEG 2000 lossless: of the lossless syntaxes the one that most viewers read."""


@dataclass(frozen=True, slots=True)
class Recomposed:
    """Frames one after another in ``path``, which is the caller's to delete."""

    path: Path
    frame_table: bytes
    photometric: str
    size_bytes: int


def recompose(level: Level, found: Survey, source: Path, scratch: Path) -> Recomposed:
    """All tiles of a level as lossless frames. Absent ones become white.

    Raises DamagedSlide for a tile that no decoder takes.
    """
    offsets, lengths = [], []
    position = 0
    blank: bytes | None = None
    colours = ""
    with (
        source.open("rb") as file,
        NamedTemporaryFile("wb", dir=scratch, suffix=".frames", delete=False) as out,
    ):
        for index in range(len(level.tiles)):
            if level.tiles.absent[index]:
                blank = blank or lossless_frame(_white(level))[0]
                frame = blank
            else:
                data = os.pread(
                    file.fileno(), int(found.lengths[index]), int(level.tiles.offsets[index])
                )
                frame, colours = lossless_frame(decoded_tile(data, found.kinds[found.kind_ids[index]], level))
            out.write(frame)
            offsets.append(position)
            lengths.append(len(frame))
            position += len(frame)
    return Recomposed(Path(out.name), encode_direct(offsets, lengths), colours, position)


def lossless_frame(pixels: NDArray[np.uint8]) -> tuple[bytes, str]:
    """A lossless frame of (rows, columns, samples), and its Photometric Interpretation."""
    frame = encode(pixels, LOSSLESS_UID)
    return frame, photometric(sniff(frame[:4096]))


def decoded_tile(data: bytes, kind: Kind, level: Level) -> NDArray[np.uint8]:
    """A tile's pixels as (tile rows, tile columns, samples), RGB or grey."""
    stream = kind.codestream
    frame = kind.prefix + data[kind.skip :]
    try:
        if stream.format == "jpeg2000" and stream.subsampled:
            pixels = _subsampled_jpeg2000(frame, stream.rows, stream.columns)
        elif stream.format == "jpeg2000":
            pixels = decode(
                frame, "1.2.840.10008.1.2.4.91", stream.rows, stream.columns, stream.components, 8,
                kind.photometric,
            )  # fmt: skip
        else:
            pixels = decode(
                frame, "1.2.840.10008.1.2.4.50", stream.rows, stream.columns, stream.components, 8,
                kind.photometric,
            )  # fmt: skip
    except CodecError as error:
        raise DamagedSlide(f"a tile of level {level.index} cannot be decoded: {error}") from error
    if pixels.shape[2] != level.pixel_type.samples_per_pixel:
        pixels = np.repeat(pixels[..., :1], level.pixel_type.samples_per_pixel, axis=2)
    if pixels.shape[:2] == (level.tile_rows, level.tile_columns):
        return np.asarray(pixels, dtype=np.uint8)
    fitted = _white(level)
    rows, columns = min(pixels.shape[0], level.tile_rows), min(pixels.shape[1], level.tile_columns)
    fitted[:rows, :columns] = pixels[:rows, :columns]
    return fitted


def _white(level: Level) -> NDArray[np.uint8]:
    return np.full(
        (level.tile_rows, level.tile_columns, level.pixel_type.samples_per_pixel), 255, dtype=np.uint8
    )


def _subsampled_jpeg2000(frame: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    raise CodecError("JPEG 2000 with subsampled components")
