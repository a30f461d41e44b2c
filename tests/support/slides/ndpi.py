# SPDX-License-Identifier: Apache-2.0
"""Hamamatsu NDPI and NDPIS from public format notes (openslide.org/formats/hamamatsu):
TIFF directories with 64-bit offsets, one JPEG with restart markers for each level."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tests.support.make_slide import fit, picture, shrink
from tests.support.slides.restart_jpeg import encode_jpeg, head_length, intervals, joined, starts

SHORT, LONG, RATIONAL, SLONG, FLOAT, ASCII = 3, 4, 5, 9, 11, 2
JPEG, JPEG_XR = 7, 22610
MICRONS_PER_PIXEL = 0.455
LENS = 20.0
PROPERTIES = (
    "NDP.S/N=870003\r\nProduct=NanoZoomer 2.0-HT\r\nObjective.Lens.Magnificant=17.58\r\n"
    "Created=2011/02/28\r\nBarcode=S26-0815 A1\r\n"
)
Tags = dict[int, tuple[int, object]]


class NdpiFile:
    """Writes directories; ``base`` leaves a hole before the first byte of data."""

    def __init__(self, file: BinaryIO, base: int = 0) -> None:
        self.file = file
        self.link = 4
        file.write(struct.pack("<2sHQ", b"II", 42, 0))
        file.seek(max(base, file.tell()))

    def put(self, data: bytes) -> int:
        """Where the data now lies, at an even offset."""
        if self.file.tell() % 2:
            self.file.write(b"\0")
        at = self.file.tell()
        self.file.write(data)
        return at

    def directory(self, tags: Mapping[int, tuple[int, object]]) -> None:
        """(Type, value) by tag; ASCII is out of line even when it is short."""
        entries = []
        for code, (kind, value) in sorted(tags.items()):
            count, number = self._value(kind, value)
            entries.append((code, kind, count, number))
        at = self.put(struct.pack("<H", len(entries)))
        for code, kind, count, number in entries:
            self.file.write(struct.pack("<HHII", code, kind, count, number & 0xFFFFFFFF))
        following = self.file.tell()
        self.file.write(bytes(8))
        self.file.write(b"".join(struct.pack("<I", number >> 32) for *_, number in entries))
        end = self.file.tell()
        self.file.seek(self.link)
        self.file.write(struct.pack("<Q", at))
        self.file.seek(end)
        self.link = following

    def _value(self, kind: int, value: object) -> tuple[int, int]:
        """(count, inline value or offset), both as the directory has them."""
        if kind == ASCII:
            data = str(value).encode() + b"\0"
            return len(data), self.put(data)
        if kind == FLOAT:
            return 1, int.from_bytes(struct.pack("<f", value), "little")
        if kind == RATIONAL:
            return 1, self.put(struct.pack("<II", *value))  # type: ignore[misc]
        if isinstance(value, int):
            return 1, value & 0xFFFFFFFF if kind == SLONG else value
        numbers = list(value)  # type: ignore[call-overload]
        form = f"<{len(numbers)}{'H' if kind == SHORT else 'I'}"
        data = struct.pack(form, *numbers)
        if len(data) <= 4:
            return len(numbers), int.from_bytes(data.ljust(4, b"\0"), "little")
        return len(numbers), self.put(data)


def level_jpeg(
    pixels: NDArray[np.uint8], interval_columns: int, subsampling: str, quality: int = 80
) -> tuple[bytes, Sequence[int] | None]:
    """A level as one JPEG and its McuStarts; None where it is narrower than a strip, and so
    has no restart markers."""
    if pixels.shape[1] < interval_columns:
        return encode_jpeg(pixels, subsampling=subsampling, quality=quality), None
    jpeg = encode_jpeg(pixels, interval_columns=interval_columns, subsampling=subsampling, quality=quality)
    return jpeg, starts(jpeg)


def write_ndpi(
    folder: Path,
    *,
    name: str = "slide.ndpi",
    rows: int = 1008,
    columns: int = 2048,
    interval_columns: int = 512,
    levels: Sequence[int] = (1, 4, 16),
    subsampling: str = "444",
    grey: bool = False,
    planes_nm: Sequence[int] = (0,),
    macro: bool = True,
    map_image: bool = False,
    mcu_starts: str = "right",
    channel: tuple[str, float] | None = None,
    compression: int = JPEG,
    xr_tile: int = 0,
    tags_of_all: Mapping[int, tuple[int, object]] | None = None,
    base: int = 0,
    properties: str = PROPERTIES,
    pixels: NDArray[np.uint8] | None = None,
    seed: int = 7,
) -> Path:
    """``levels`` are downsamples. ``mcu_starts``: "right", "absent", or "wrong" (shifted by
    some bytes). ``channel``: filter set and wavelength in nm. ``compression``: 7, or 22610
    for levels of 16-bit JPEG XR, in tiles of ``xr_tile`` rows and columns unless that is 0.
    ``tags_of_all`` are added to each level. ``base``: offset of the first data, as a hole."""
    path = folder / name
    with path.open("wb") as file:
        ndpi = NdpiFile(file, base)
        for factor in levels:
            for plane, height_nm in enumerate(planes_nm):
                finest = picture(rows, columns, seed + plane) if pixels is None else pixels
                level = finest if factor == 1 else shrink(finest, factor)
                if grey:
                    level = np.ascontiguousarray(level[..., 0])
                tags: Tags = {65424: (SLONG, height_nm)}
                begins = None
                if compression == JPEG:
                    data, begins = level_jpeg(level, interval_columns, subsampling)
                else:
                    deep = (level[..., 0] if level.ndim == 3 else level).astype(np.uint16) * 16 + 5
                    data = b"" if xr_tile else imagecodecs.jpegxr_encode(deep)
                    tags[65441] = (LONG, 7)
                tags |= _image_tags(ndpi, data, level.shape, compression)
                if compression == JPEG_XR and xr_tile:
                    tags = {tag: value for tag, value in tags.items() if tag not in (273, 278, 279)}
                    tags |= _jpeg_xr_tiles(ndpi, deep, xr_tile)
                tags |= tags_of_all or {}
                tags |= _scan_tags(LENS / factor, MICRONS_PER_PIXEL * factor, properties, channel)
                if begins is not None and mcu_starts != "absent":
                    shift = 3 if mcu_starts == "wrong" else 0
                    tags[65426] = (LONG, [begin + shift for begin in begins])
                    tags[65432] = (LONG, [0] * len(begins))
                ndpi.directory(tags)
        finest = picture(rows, columns, seed) if pixels is None else pixels
        if macro:
            overview = fit(finest, 640)
            data = encode_jpeg(overview)
            tags = _image_tags(ndpi, data, overview.shape, JPEG)
            ndpi.directory(tags | _scan_tags(-1.0, 120.0, "", None))
        if map_image:
            data = encode_jpeg(fit(finest, 64)[..., 0])
            tags = _image_tags(ndpi, data, fit(finest, 64).shape[:2], JPEG)
            ndpi.directory(tags | _scan_tags(-2.0, 1200.0, "", None))
    return path


def write_wide_ndpi(folder: Path, *, rows: int = 1024, across: int = 33) -> Path:
    """A level of 2048 x ``across`` columns: more than JPEG can say, so its SOF has 0. One
    strip of each of 8 rows of MCUs is repeated all over the level."""
    strip = picture(64, 2048)
    jpeg = encode_jpeg(strip, interval_columns=2048, subsampling="422")
    parts = [part for part in intervals(jpeg) for _ in range(across)] * (rows // 64)
    columns = 2048 * across
    data = joined(jpeg[: head_length(jpeg)], parts, rows, columns)
    path = folder / "wide.ndpi"
    with path.open("wb") as file:
        ndpi = NdpiFile(file)
        tags = {65424: (SLONG, 0)} | _image_tags(ndpi, data, (rows, columns, 3), JPEG)
        begins = starts(data)
        tags[65426] = (LONG, begins)
        tags[65432] = (LONG, [0] * len(begins))
        ndpi.directory(tags | _scan_tags(LENS, MICRONS_PER_PIXEL, PROPERTIES, None))
    return path


def big_ndpi(path: Path, *, edge: int = 32768, interval_columns: int = 2048, seed: int = 7) -> Path:
    """A square NDPI, at 32768 of about 230 MB, in a few seconds: sixty-four strips of grainy
    pixels in a shuffled order. Three levels and the macro image."""
    generator = np.random.default_rng(seed)
    smooth = picture(512, interval_columns, seed).astype(np.int16)
    grain = generator.normal(0, 6, (512, interval_columns, 1))
    strips = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    jpeg = encode_jpeg(strips, interval_columns=interval_columns, subsampling="422", quality=82)
    head, parts = jpeg[: head_length(jpeg)], intervals(jpeg)
    with path.open("wb") as file:
        ndpi = NdpiFile(file)
        for factor in (1, 4, 16):
            size = edge // factor
            order = generator.integers(0, len(parts), size // 8 * (size // interval_columns)).tolist()
            data = joined(head, [parts[number] for number in order], size, size)
            lengths = np.array([len(parts[number]) + 2 for number in order[:-1]], np.int64)
            begins = np.concatenate(([len(head)], len(head) + np.cumsum(lengths)))
            tags = {65424: (SLONG, 0)} | _image_tags(ndpi, data, (size, size, 3), JPEG)
            tags[65426] = (LONG, begins.tolist())
            tags[65432] = (LONG, [0] * len(begins))
            ndpi.directory(tags | _scan_tags(LENS / factor, MICRONS_PER_PIXEL * factor, PROPERTIES, None))
        overview = encode_jpeg(picture(312, 912, seed))
        tags = _image_tags(ndpi, overview, (312, 912, 3), JPEG)
        ndpi.directory(tags | _scan_tags(-1.0, 83.0, "", None))
    return path


def write_ndpis(
    folder: Path,
    *,
    channels: Sequence[tuple[str, float]] = (("DAPI", 455.0), ("FITC", 525.0), ("TRITC", 605.0)),
    grey: bool = True,
    properties: Sequence[str] = ("", "", ""),
) -> Path:
    """A set of fluorescence files, one for each (filter set, wavelength in nm), with its
    property map."""
    names = [f"set-{name}.ndpi" for name, _ in channels]
    for number, (name, channel) in enumerate(zip(names, channels, strict=True)):
        write_ndpi(
            folder, name=name, rows=600, grey=grey, channel=channel, seed=20 + number,
            properties=properties[number],
        )  # fmt: skip
    lines = [f"NoImages={len(names)}", *(f"Image{number}={name}" for number, name in enumerate(names))]
    path = folder / "set.ndpis"
    text = "\r\n".join(["[NanoZoomer Digital Pathology Image Set]", *lines, ""])
    path.write_bytes(text.encode())
    return path


def _image_tags(ndpi: NdpiFile, data: bytes, shape: Sequence[int], compression: int) -> Tags:
    samples = shape[2] if len(shape) == 3 and compression == JPEG else 1
    bits = 8 if compression == JPEG else 16
    offset = ndpi.put(data)
    return {
        256: (LONG, shape[1]), 257: (LONG, shape[0]), 258: (SHORT, [bits] * samples),
        259: (SHORT, compression), 262: (SHORT, 6 if samples == 3 else 1), 273: (LONG, offset),
        274: (SHORT, 1), 277: (SHORT, samples), 278: (LONG, shape[0]), 279: (LONG, len(data)),
        284: (SHORT, 1),
    }  # fmt: skip


def _jpeg_xr_tiles(ndpi: NdpiFile, pixels: NDArray[np.uint16], edge: int) -> Tags:
    """Tiles, those at the right and lower edge padded with zeros."""
    rows, columns = pixels.shape
    padded = np.pad(pixels, ((0, -rows % edge), (0, -columns % edge)))
    tiles = [
        imagecodecs.jpegxr_encode(np.ascontiguousarray(padded[top : top + edge, left : left + edge]))
        for top in range(0, rows, edge)
        for left in range(0, columns, edge)
    ]
    places = [ndpi.put(tile) for tile in tiles]
    lengths = [len(tile) for tile in tiles]
    return {
        322: (LONG, edge), 323: (LONG, edge), 324: (LONG, places if len(places) > 1 else places[0]),
        325: (LONG, lengths if len(lengths) > 1 else lengths[0]), 65324: (LONG, [0] * len(tiles)),
        65325: (LONG, [0] * len(tiles)),
    }  # fmt: skip


def _scan_tags(
    lens: float, microns_per_pixel: float, properties: str, channel: tuple[str, float] | None
) -> Tags:
    resolution = (round(10_000_000 / microns_per_pixel), 1000)
    tags: Tags = {
        271: (ASCII, "Hamamatsu"), 272: (ASCII, "C9600-12"), 282: (RATIONAL, resolution),
        283: (RATIONAL, resolution), 296: (SHORT, 3), 305: (ASCII, "NDP.scan 2.5.88"),
        306: (ASCII, "2011/02/28 10:21:50"), 65420: (LONG, 1), 65421: (FLOAT, lens),
        65422: (SLONG, 4876667), 65423: (SLONG, -2340000), 65425: (LONG, 0), 65427: (ASCII, "A1"),
        65428: (LONG, 635108335), 65442: (ASCII, "870003"),
    }  # fmt: skip
    if properties:
        tags[65449] = (ASCII, properties)
    if channel is not None:
        tags[65434] = (ASCII, channel[0])
        tags[65451] = (FLOAT, channel[1])
    return tags
