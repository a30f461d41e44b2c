# SPDX-License-Identifier: Apache-2.0
"""Tiles that have no legal form in DICOM, decoded and encoded again without loss."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import photometric, sniff
from archive.part10.frame_table import encode_direct
from converters.codecs import CodecError, decode, encode
from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.slide import Level, Progress
from converters.writer.survey import Kind, Survey

LOSSLESS_UID = "1.2.840.10008.1.2.4.90"
"""JPEG 2000 lossless: of the lossless syntaxes the one that most viewers read."""
JPEG_UID, JPEG_2000_UID = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
MAX_TILE_PIXELS = 1 << 26
BATCH = 64
WORKERS = max(1, min(4, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Recomposed:
    """Frames one after another in ``path``, which is the caller's to delete."""

    path: Path
    frame_table: bytes
    photometric: str
    size_bytes: int


def recompose(
    level: Level,
    found: Survey,
    source: Path,
    kept: NDArray[np.int64],
    scratch: Path,
    progress: Progress | None = None,
) -> Recomposed:
    """The tiles ``kept`` of a level (by index) as lossless frames, absent ones white; at
    most 64 are in memory.

    ``progress`` counts bytes of the scanner's tiles. Raises DamagedSlide for a tile that
    no decoder takes, UnsupportedCompression for one that none knows; nothing is left then.
    """
    lengths = []
    done = 0
    colours = photometric_of_lossless(level.pixel_type.samples_per_pixel)
    with NamedTemporaryFile("wb", dir=scratch, suffix=".frames", delete=False) as out:
        try:
            for index, frame in zip(kept.tolist(), _frames(level, found, source, kept), strict=True):
                out.write(frame)
                lengths.append(len(frame))
                done += int(found.lengths[index])
                if progress is not None and len(lengths) % BATCH == 1:
                    progress(done, level.tiles.size_bytes)
        except BaseException:
            os.unlink(out.name)
            raise
    ends = np.cumsum(np.array(lengths, dtype=np.uint64))
    table = encode_direct(ends - np.array(lengths, dtype=np.uint64), lengths)
    return Recomposed(Path(out.name), table, colours, int(ends[-1]))


def _frames(level: Level, found: Survey, source: Path, kept: NDArray[np.int64]) -> Iterator[bytes]:
    """Every frame in order. Codecs release the interpreter, so threads share the work."""
    blank = b""
    if level.tiles.absent.any():
        blank = encode(_white(level), LOSSLESS_UID)
    with source.open("rb") as file, ThreadPoolExecutor(WORKERS) as pool:

        def one(index: int) -> bytes:
            if level.tiles.absent[index]:
                return blank
            data = os.pread(file.fileno(), int(found.lengths[index]), int(level.tiles.offsets[index]))
            return encode(decoded_tile(data, found.kinds[found.kind_ids[index]], level), LOSSLESS_UID)

        for start in range(0, len(kept), BATCH):
            yield from pool.map(one, kept[start : start + BATCH].tolist())


def photometric_of_lossless(samples: int) -> str:
    """Photometric Interpretation of the frames that :func:`encode` makes here."""
    frame = encode(np.zeros((8, 8, samples), dtype=np.uint8), LOSSLESS_UID)
    return photometric(sniff(frame))


def decoded_tile(data: bytes, kind: Kind, level: Level) -> NDArray[np.uint8]:
    """A tile's pixels as (tile rows, tile columns, samples), RGB or grey."""
    stream = kind.codestream
    if stream.rows * stream.columns > MAX_TILE_PIXELS:
        raise UnsupportedPixels(f"tiles of {stream.rows} x {stream.columns} pixels are too large to decode")
    frame = kind.prefix + data[kind.skip :]
    try:
        if stream.format == "jpeg2000" and stream.subsampled:
            pixels = _subsampled_jpeg2000(frame, kind)
        else:
            uid = JPEG_2000_UID if stream.format == "jpeg2000" else JPEG_UID
            pixels = decode(frame, uid, stream.rows, stream.columns, stream.components, 8, kind.photometric)
    except CodecError as error:
        raise DamagedSlide(f"a tile of level {level.index} cannot be decoded: {error}") from error
    samples = level.pixel_type.samples_per_pixel
    if pixels.shape[2] != samples:
        pixels = np.repeat(pixels[..., :1], samples, axis=2)
    return np.asarray(pixels, dtype=np.uint8)


def _white(level: Level) -> NDArray[np.uint8]:
    shape = (level.tile_rows, level.tile_columns, level.pixel_type.samples_per_pixel)
    return np.full(shape, 255, dtype=np.uint8)


def _subsampled_jpeg2000(frame: bytes, kind: Kind) -> NDArray[np.uint8]:
    """YCbCr with half the chroma columns, as Aperio's 33003 has it, to RGB."""
    try:
        pixels = imagecodecs.jpeg2k_decode(frame, numthreads=1)
    except NotImplementedError:
        sampling = " ".join(f"{across}x{down}" for across, down in kind.codestream.sampling)
        raise UnsupportedCompression(f"JPEG 2000 sampled {sampling}", "a tile") from None
    except Exception as error:  # the codec library's own kinds
        raise CodecError("damaged codestream") from error
    return np.asarray(pixels, dtype=np.uint8)
