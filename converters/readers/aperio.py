# SPDX-License-Identifier: Apache-2.0
"""Aperio SVS: a tiled TIFF whose first ImageDescription starts with "Aperio".

Page 1 is the finest level, page 2 a thumbnail in strips, then come coarser levels
(tiled) and at the end label and macro (in strips). Traps that real files set:

- Tiles are abbreviated JPEG: the tables stand once, in tag JPEGTables.
- Photometric RGB means RGB inside the JPEG too, with no Adobe marker to say so.
- A tile of length 0 was never scanned.
- GT450 writes coarser levels with an empty description, and resolutions in the TIFF's
  own tags where older scanners wrote MPP.

Sources: openslide.org/formats/aperio; TIFF 6.0; TIFF Technical Note 2.
"""

import struct
from collections.abc import Callable, Sequence

import numpy as np
import tifffile
from numpy.typing import NDArray

from converters.errors import ConversionError, DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.probe import DAMAGED, TIFF_FAULTS, Probe
from converters.readers.aperio_description import Description, parse_description
from converters.readers.lzw import lzw_decode, undo_predictor
from converters.slide import (
    AssociatedImage,
    Coding,
    Level,
    OpticalPath,
    PixelType,
    Role,
    Scan,
    Scene,
    Slide,
    SourceFile,
    TileMap,
)

MAX_PAGES = 100
MAX_TILES = 4_000_000
MAX_ASSOCIATED_PIXELS = 50_000_000
MAX_REUSE = 16  # tiles may share bytes (blank ones do), but not without end
CODINGS = {
    7: Coding.JPEG,
    33003: Coding.JPEG_2000_YCBCR,
    33005: Coding.JPEG_2000,
    34712: Coding.JPEG_2000,
}
LOSSY_METHODS = {7: "ISO_10918_1", 33003: "ISO_15444_1", 33005: "ISO_15444_1", 34712: "ISO_15444_1"}
LOSSLESS = (1, 5, 8, 32946, 32773)  # none, LZW, deflate (two numbers), PackBits
RGB, YCBCR = 2, 6
LZW = 5


class AperioReader:
    """See :class:`converters.registry.Reader`."""

    format = "aperio-svs"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        tiff = probe.tiff
        if isinstance(tiff, str):
            return tiff
        try:
            page = tiff.pages.first
            if not page.description.startswith("Aperio"):
                return "ImageDescription does not start with 'Aperio'"
            if not page.is_tiled:
                return "the first page is not tiled"
        except TIFF_FAULTS as error:
            return f"{DAMAGED} ({type(error).__name__})"
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        tiff = probe.take_tiff()
        try:
            return _slide(tiff, probe)
        except TIFF_FAULTS as error:
            tiff.close()
            raise DamagedSlide(f"the TIFF's directory is damaged ({type(error).__name__})") from error
        except Exception:
            tiff.close()
            raise


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = _pages(tiff)
    words = parse_description(pages[0].description, _text(pages[0], "DateTime"))
    tiled: list[tifffile.TiffPage] = []
    associated: list[AssociatedImage] = []
    for number, page in enumerate(pages):
        role = _role(page, number)
        if role is Role.VOLUME:
            tiled.append(page)
        elif role is not None and all(image.role is not role for image in associated):
            associated.append(_associated(page, role))
    findings: list[str] = list(words.findings)
    levels = _levels(tiled, words, probe.size_bytes, findings)
    icc = pages[0].tags.get(34675)
    path = OpticalPath(
        objective_power=words.objective_power,
        numerical_aperture=words.numerical_aperture,
        icc_profile=bytes(icc.value) if icc is not None else b"",
    )
    return Slide(
        format=AperioReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=(Scene(0, levels, (path,), words.origin_mm(levels[0].pixel_spacing_mm)),),
        associated=tuple(associated),
        scan=Scan(
            manufacturer=words.manufacturer,
            model_name=words.model_name,
            device_serial_number=words.device_serial_number,
            software_versions=words.software_versions,
            acquired=words.acquired,
            barcode=words.barcode,
            description=pages[0].description,
            properties=dict(words.properties),
        ),
        closer=tiff.close,
        findings=tuple(findings),
    )


def _pages(tiff: "tifffile.TiffFile") -> Sequence["tifffile.TiffPage"]:
    pages: list[tifffile.TiffPage] = []
    for page in tiff.pages:
        if len(pages) == MAX_PAGES:
            raise DamagedSlide(f"more than {MAX_PAGES} pages")
        pages.append(page)
    if _next_directory(tiff, pages[-1]):
        # tifffile stops there without a word to us: a slide would lose its label and levels
        raise DamagedSlide(f"the file ends, or its directory breaks off, after page {len(pages) - 1}")
    return pages


def _next_directory(tiff: "tifffile.TiffFile", page: "tifffile.TiffPage") -> int:
    """The offset that the page's directory gives for the next one; 0 after the last."""
    form = tiff.tiff
    handle = tiff.filehandle
    handle.seek(page.offset)
    (count,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(page.offset + form.tagnosize + count * form.tagsize)
    (offset,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    return int(offset)


def _role(page: "tifffile.TiffPage", number: int) -> Role | None:
    """What a page is; None for one that no viewer shows (a second thumbnail, say)."""
    if number == 0:
        return Role.VOLUME
    words = page.description.lower()
    second_line = words.splitlines()[1].strip() if len(words.splitlines()) > 1 else ""
    for name, role in (("label", Role.LABEL), ("macro", Role.OVERVIEW)):
        if second_line.startswith(name) or words.startswith(name):
            return role
    if page.is_tiled:
        return Role.VOLUME
    if page.subfiletype == 9:
        return Role.OVERVIEW
    if page.subfiletype == 1:
        return Role.LABEL
    return Role.THUMBNAIL if number == 1 or "->" in words else None


def _levels(
    pages: Sequence["tifffile.TiffPage"], words: Description, size_bytes: int, findings: list[str]
) -> Sequence[Level]:
    first = pages[0]
    spacing = words.pixel_spacing_mm or _tiff_spacing_mm(first)
    ordered = sorted(pages, key=lambda page: -page.imagewidth * page.imagelength)
    if ordered[0] is not first:
        raise DamagedSlide("a later page is larger than the first")
    levels: list[Level] = []
    for page in ordered:
        rows, columns = int(page.imagelength), int(page.imagewidth)
        if levels and columns == levels[-1].columns:
            raise UnsupportedPixels("two levels of the same size: focal planes in SVS are not read")
        tiles = _tile_map(page, size_bytes)
        scale = _scale(first, rows, columns)
        if levels and not 0.8 < scale[0] / scale[1] < 1.25:
            findings.append(f"page {page.index} is tiled but of another shape than the slide: left out")
            continue
        levels.append(
            Level(
                index=len(levels),
                rows=rows,
                columns=columns,
                tile_rows=int(page.tilelength),
                tile_columns=int(page.tilewidth),
                coding=_coding(page),
                tiles=tiles,
                pixel_type=_pixel_type(page),
                pixel_spacing_mm=(spacing[0] * scale[0], spacing[1] * scale[1]) if spacing else None,
                downsample=scale[1],
                container_rgb={RGB: True, YCBCR: False}.get(int(page.photometric)),
                reference=_reference(page),
                history=page.description,
            )
        )
    return tuple(levels)


def _scale(first: "tifffile.TiffPage", rows: int, columns: int) -> tuple[float, float]:
    """How many pixels of the first page one of this page covers (rows, columns). Scanners
    reduce by whole numbers and cut off what is left over, so a whole one is preferred."""
    factor = max(1, round(first.imagewidth / columns))
    sizes = ((first.imagelength, rows), (first.imagewidth, columns))
    if all(size // factor <= part <= -(-size // factor) for size, part in sizes):
        return float(factor), float(factor)
    return first.imagelength / rows, first.imagewidth / columns


def _coding(page: "tifffile.TiffPage") -> Coding:
    coding = CODINGS.get(int(page.compression))
    if coding is None:
        raise UnsupportedCompression(str(int(page.compression)), f"the tiles of page {page.index}")
    return coding


def _pixel_type(page: "tifffile.TiffPage") -> PixelType:
    samples = int(page.samplesperpixel)
    if samples not in (1, 3) or page.bitspersample != 8 or (samples == 3 and int(page.planarconfig) != 1):
        raise UnsupportedPixels(
            f"page {page.index} has {samples} samples of {page.bitspersample} bits: only 1 or 3 of 8 are read"
        )
    return PixelType(samples_per_pixel=samples)


def _tile_map(page: "tifffile.TiffPage", size_bytes: int) -> TileMap:
    """The page's tiles; every range checked against the file."""
    where = f"page {page.index}"
    if not (0 < page.tilewidth <= 65535 and 0 < page.tilelength <= 65535):
        raise DamagedSlide(f"{where} has an impossible tile size")
    if not (0 < page.imagewidth < 2**31 and 0 < page.imagelength < 2**31):
        raise DamagedSlide(f"{where} has an impossible size")
    count = -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength)
    if count > MAX_TILES:
        raise DamagedSlide(f"{where} has more than {MAX_TILES} tiles")
    if not len(page.dataoffsets) == len(page.databytecounts) == count:
        raise DamagedSlide(f"{where} needs {count} tiles and lists {len(page.dataoffsets)}")
    offsets = np.array(page.dataoffsets, dtype=np.uint64)
    lengths = np.array(page.databytecounts, dtype=np.uint64)
    lengths[offsets == 0] = 0
    offsets[lengths == 0] = 0
    size = np.uint64(size_bytes)
    beyond = (offsets > size) | (lengths > size) | (lengths > size - np.minimum(offsets, size))
    if beyond.any():
        raise DamagedSlide(f"{int(beyond.sum())} tiles of {where} lie beyond the end of the file")
    if int(lengths.sum()) > MAX_REUSE * size_bytes:
        raise DamagedSlide(f"the tiles of {where} overlap each other")
    return TileMap(offsets, lengths, jpeg_tables=page.jpegtables or b"")


def _reference(page: "tifffile.TiffPage") -> Callable[[int], NDArray[np.uint8]] | None:
    """Tiles decoded by tifffile, which knows nothing of how we splice."""
    if int(page.compression) == 33003:
        return None  # given as YCbCr

    def decode(index: int) -> NDArray[np.uint8]:
        handle = page.parent.filehandle
        handle.seek(page.dataoffsets[index])
        data = handle.read(page.databytecounts[index])
        tables = {"jpegtables": page.jpegtables} if int(page.compression) == 7 else {}
        pixels, _, _ = page.decode(data, index, _fullsize=True, **tables)
        shaped: NDArray[np.uint8] = np.asarray(pixels).reshape(page.tilelength, page.tilewidth, -1)
        return shaped

    return decode


def _associated(page: "tifffile.TiffPage", role: Role) -> AssociatedImage:
    compression = int(page.compression)
    if compression not in LOSSLESS and compression not in LOSSY_METHODS:
        raise UnsupportedCompression(str(compression), f"the {role.value.lower()} image")
    rows, columns = int(page.imagelength), int(page.imagewidth)
    if not (0 < rows <= 65535 and 0 < columns <= 65535 and rows * columns <= MAX_ASSOCIATED_PIXELS):
        raise DamagedSlide(f"the {role.value.lower()} image has an impossible size")
    samples = int(page.samplesperpixel)
    if page.bitspersample != 8 or samples not in (1, 3) or int(page.planarconfig) != 1:
        raise UnsupportedPixels(f"the {role.value.lower()} image is not of 8-bit grey or RGB pixels")

    def read() -> NDArray[np.uint8]:
        try:
            pixels = _lzw_image(page, (rows, columns, samples)) if compression == LZW else page.asarray()
        except ConversionError:
            raise
        except Exception as error:  # whatever a decoder raises: all mean damaged data
            raise DamagedSlide(f"the {role.value.lower()} image cannot be decoded") from error
        shaped: NDArray[np.uint8] = np.ascontiguousarray(pixels)
        if shaped.dtype != np.uint8 or shaped.size != rows * columns * samples:
            raise DamagedSlide(f"the {role.value.lower()} image is not as large as it says")
        return shaped.reshape(rows, columns, samples)

    return AssociatedImage(
        role=role,
        rows=rows,
        columns=columns,
        read=read,
        compression=getattr(page.compression, "name", str(compression)),
        lossy_method=LOSSY_METHODS.get(compression, ""),
        encoded_bytes=int(sum(page.databytecounts)),
    )


def _lzw_image(page: "tifffile.TiffPage", shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    rows, columns, samples = shape
    handle = page.parent.filehandle
    in_strip = min(int(page.rowsperstrip), rows)
    if page.is_tiled or in_strip < 1 or len(page.dataoffsets) != -(-rows // in_strip):
        raise DamagedSlide("the label image is not in strips")
    strips = []
    for offset, count, first in zip(
        page.dataoffsets, page.databytecounts, range(0, rows, in_strip), strict=True
    ):
        handle.seek(offset)
        size = min(in_strip, rows - first) * columns * samples
        strips.append(lzw_decode(handle.read(min(count, handle.size)), size))
    pixels = np.frombuffer(b"".join(strips), dtype=np.uint8).reshape(shape)
    return undo_predictor(pixels) if int(page.predictor) == 2 else pixels


def _tiff_spacing_mm(page: "tifffile.TiffPage") -> tuple[float, float] | None:
    """(Between rows, between columns) from the TIFF's own resolution tags.

    Taken only where they can be a microscope's: 0.02 to 20 µm. (72 per inch is what
    libraries write when they do not know.)
    """
    tags = page.tags
    if not {"ResolutionUnit", "XResolution", "YResolution"} <= {tag.name for tag in tags}:
        return None
    unit = {2: 25.4, 3: 10.0}.get(int(tags["ResolutionUnit"].value))
    spacing = []
    for name in ("YResolution", "XResolution"):
        numerator, denominator = tags[name].value
        if unit is None or not numerator or not denominator:
            return None
        spacing.append(unit * denominator / numerator)
    if not all(0.00002 <= value <= 0.02 for value in spacing):
        return None
    return spacing[0], spacing[1]


def _text(page: "tifffile.TiffPage", name: str) -> str:
    tag = page.tags.get(name)
    return tag.value if tag is not None and isinstance(tag.value, str) else ""
