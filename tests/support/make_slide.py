# SPDX-License-Identifier: Apache-2.0
"""Small and fast SVS files for tests, and large ones for benchmarks."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gateway.demo.svs import (
    JPEG,
    JPEG2000_RGB,
    JPEG2000_YCBCR,
    RGB,
    YCBCR,
    Pixels,
    Scan,
    SvsWriter,
    TileFormat,
    encode_tile,
)

__all__ = ["JPEG", "JPEG2000_RGB", "JPEG2000_YCBCR", "big_svs", "make_svs", "picture", "srgb_profile"]


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An ICC profile of the sRGB space."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(rows: int, columns: int, seed: int = 7) -> Pixels:
    """Smooth, saturated colours on white: every channel order or colour error shows,
    and JPEG at its usual quality stays within a few grey levels."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(60, 236, (max(2, rows // 40), max(2, columns // 40), 3), dtype=np.uint8)
    coarse[..., 1] //= 2  # stained tissue has little green
    image = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC)
    pixels = np.array(image, dtype=np.uint8)
    edge = max(1, min(rows, columns) // 16)
    for side in (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:]):
        pixels[side] = 243
    return pixels


def make_svs(
    path: Path,
    *,
    rows: int = 700,
    columns: int = 900,
    tile: int = 256,
    compression: int = JPEG,
    photometric: str = "RGB",
    subsampling: str = "444",
    quality: int = 80,
    levels: Sequence[int] = (1, 4),
    missing_tiles: Collection[int] = (),
    thumbnail: bool = True,
    label: Pixels | None = None,
    macro: bool = True,
    icc: bytes | bool = False,
    mpp: float | None = 0.5,
    magnification: float = 20,
    scanscope_id: str = "SS7777",
    scanned: datetime | None = datetime(2026, 3, 14, 9, 26, 53),
    barcode: str = "",
    left_mm: float | None = 23.5,
    top_mm: float | None = 15.25,
    extra: Sequence[tuple[str, str]] = (),
    describe_levels: bool = True,
    bigtiff: bool = False,
    pixels: Pixels | None = None,
    seed: int = 7,
) -> Path:
    """Write an Aperio SVS and return its path.

    ``compression`` is 7 (JPEG), 33005 or 33003; ``photometric`` "RGB" or "YCBCR" for
    JPEG tiles, with ``subsampling`` 444, 422 or 420 under YCBCR. ``levels`` are
    downsamples, finest first. ``missing_tiles`` are tile indices (from 0, row by row)
    of level 0 written with zero length. ``icc`` True embeds sRGB. ``mpp`` None leaves
    MPP out. ``label`` None draws a small one. ``pixels`` replaces the drawn picture
    and gives rows and columns.
    """
    base = picture(rows, columns, seed) if pixels is None else pixels
    rows, columns = base.shape[:2]
    form = TileFormat(compression, {"RGB": RGB, "YCBCR": YCBCR}[photometric], subsampling, quality)
    scan = Scan(
        microns_per_pixel=mpp,
        magnification=magnification,
        scanscope_id=scanscope_id,
        scanned=scanned,
        left_mm=left_mm,
        top_mm=top_mm,
        barcode=barcode,
        file_name=path.stem,
        extra=extra,
    )
    profile = srgb_profile() if icc is True else icc or b""
    with SvsWriter(path, scan, bigtiff=bigtiff, icc_profile=profile) as svs:
        for number, factor in enumerate(levels):
            level = base if factor == 1 else shrink(base, factor)
            absent = missing_tiles if number == 0 else ()
            tiles = encoded_tiles(level, tile, form, absent)
            svs.level(level.shape[0], level.shape[1], tile, form, tiles, describe=describe_levels)
            if number == 0 and thumbnail:
                svs.thumbnail(fit(base, 256))
        svs.label(picture(120, 160, seed + 1) if label is None else label)
        if macro:
            svs.macro(fit(base, 320))
    return path


def encoded_tiles(
    level: Pixels, tile: int, form: TileFormat, absent: Collection[int] = ()
) -> Iterator[bytes]:
    """A level's tiles, row by row; edge tiles repeat the last row and column."""
    rows, columns = level.shape[:2]
    index = 0
    for top in range(0, rows, tile):
        for left in range(0, columns, tile):
            part = level[top : top + tile, left : left + tile]
            padding = ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))
            yield b"" if index in absent else encode_tile(np.pad(part, padding, mode="edge"), form)
            index += 1


def shrink(pixels: Pixels, factor: int) -> Pixels:
    """The picture at 1/factor of its size (rounded down), averaged by area."""
    rows, columns = pixels.shape[:2]
    size = (max(1, columns // factor), max(1, rows // factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), dtype=np.uint8)


def fit(pixels: Pixels, edge: int) -> Pixels:
    """The picture scaled so that its longer side has ``edge`` pixels."""
    rows, columns = pixels.shape[:2]
    scale = edge / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), dtype=np.uint8)


def big_svs(
    path: Path,
    size_bytes: int,
    *,
    tile: int = 256,
    photometric: str = "YCBCR",
    progress: Callable[[int, int], None] | None = None,
    seed: int = 7,
) -> Path:
    """A valid SVS of at least ``size_bytes``, in a few seconds: sixty-four different
    tiles of about 20 kB, repeated in a shuffled order over a matrix that is as large as
    it must be. Every tile can be decoded; neighbours do not fit. Three levels."""
    form = TileFormat(
        JPEG, {"RGB": RGB, "YCBCR": YCBCR}[photometric], "422" if photometric == "YCBCR" else "444"
    )
    generator = np.random.default_rng(seed)
    library = [encode_tile(noisy_tile(generator, tile), form) for _ in range(64)]
    mean = sum(map(len, library)) / len(library)
    side = max(2, int(np.ceil(np.sqrt(size_bytes / mean))))
    scan = Scan(file_name=path.stem)
    written = 0

    def tiles(count: int) -> Iterator[bytes]:
        nonlocal written
        for index in generator.integers(0, len(library), count):
            written += len(library[index])
            yield library[index]
            if progress is not None:
                progress(written, size_bytes)

    with SvsWriter(path, scan, bigtiff=size_bytes * 1.2 > 2**32) as svs:
        for factor in (1, 4, 16):
            across = -(-side // factor)
            svs.level(across * tile, across * tile, tile, form, tiles(across * across))
            if factor == 1:
                svs.thumbnail(picture(768, 768, seed))
        svs.label(picture(300, 400, seed))
        svs.macro(picture(400, 1000, seed))
    return path


def noisy_tile(generator: np.random.Generator, tile: int) -> NDArray[np.uint8]:
    """Tissue-like entropy: a smooth field with grain that costs JPEG about 20 kB."""
    smooth = picture(tile, tile, int(generator.integers(1 << 30))).astype(np.int16)
    grain = generator.normal(0, 12, (tile, tile, 1))
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)
