# SPDX-License-Identifier: Apache-2.0
"""What the readers of TIFF families share: pages listed, tiles located and checked, label
and macro decoded. Nothing here knows a vendor.

tifffile parses directories and decodes what is no codestream of DICOM's; offsets, counts
and sizes are checked here, since it believes what it reads.

Sources: TIFF 6.0; TIFF Technical Note 2 (JPEG); BigTIFF.
"""

import struct
from array import array
from collections.abc import Callable, Sequence

import numpy as np
import tifffile
from numpy.typing import NDArray

from converters.errors import ConversionError, DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.probe import DAMAGED, TIFF_FAULTS, Probe
from converters.readers.lzw import lzw_decode, undo_predictor
from converters.slide import AssociatedImage, PixelType, Role, Slide, TileMap

MANY_TILES = 4096
TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325
MAX_PAGES = 2000
MAX_TILES = 4_000_000
MAX_ASSOCIATED_PIXELS = 50_000_000
MAX_REUSE = 16  # tiles may share bytes (blank ones do), but not without end
CODESTREAMS = {7: "ISO_10918_1", **dict.fromkeys((33003, 33004, 33005, 34712), "ISO_15444_1")}
"""TIFF compression of tiles that are codestreams -> Lossy Image Compression Method."""
JPEG_2000_33003 = 33003
"""Aperio's JPEG 2000 of YCbCr without component transformation; Bio-Formats' of RGB, and
33004 its lossy kind."""
LOSSLESS = (1, 5, 8, 32946, 32773, 50000, 34926)
"""None, LZW, deflate (two numbers), PackBits, Zstandard (two numbers)."""
RGB, YCBCR = 2, 6
LZW = 5


def opened(probe: Probe, build: Callable[["tifffile.TiffFile"], Slide]) -> Slide:
    """``build`` of the probe's TIFF, which the slide then owns; closed again on a refusal.
    What tifffile raises becomes DamagedSlide."""
    tiff = probe.take_tiff()
    try:
        return build(tiff)
    except TIFF_FAULTS as error:
        tiff.close()
        raise DamagedSlide(f"the TIFF's directory is damaged ({type(error).__name__})") from error
    except Exception:
        tiff.close()
        raise


def first_page(probe: Probe) -> "tifffile.TiffPage | str":
    """The first page, or why there is none: for ``why_not``."""
    tiff = probe.tiff
    if isinstance(tiff, str):
        return tiff
    try:
        return tiff.pages.first
    except TIFF_FAULTS as error:
        return f"{DAMAGED} ({type(error).__name__})"


def all_pages(tiff: "tifffile.TiffFile") -> Sequence["tifffile.TiffPage"]:
    """Every page of the main chain. Raises DamagedSlide when it breaks off, or never ends."""
    pages: list[tifffile.TiffPage] = []
    for page in tiff.pages:
        if len(pages) == MAX_PAGES:
            raise DamagedSlide(f"more than {MAX_PAGES} pages")
        pages.append(page)
    if next_directory(tiff, pages[-1]):
        # tifffile stops there without a word to us: a slide would lose its label and levels
        raise DamagedSlide(f"the file ends, or its directory breaks off, after page {len(pages) - 1}")
    return pages


def next_directory(tiff: "tifffile.TiffFile", page: "tifffile.TiffPage") -> int:
    """The offset that the page's directory gives for the next one; 0 after the last."""
    form = tiff.tiff
    handle = tiff.filehandle
    handle.seek(page.offset)
    (count,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(page.offset + form.tagnosize + count * form.tagsize)
    (offset,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    return int(offset)


def container_rgb(page: "tifffile.TiffPage") -> bool | None:
    """What PhotometricInterpretation says of a colour page: RGB, YCbCr, or nothing."""
    return {RGB: True, YCBCR: False}.get(int(page.photometric))


def is_ycbcr_jpeg_2000(page: "tifffile.TiffPage") -> bool:
    """Whether 33003 means YCbCr, as with Aperio, and not RGB, as in what Bio-Formats wrote
    (and QuPath with it)."""
    if int(page.compression) != JPEG_2000_33003:
        return False
    first = page.parent.pages.first
    return "<OME" not in first.description[:8192] and not first.software.startswith("OME Bio-Formats")


def is_copyable(page: "tifffile.TiffPage") -> bool:
    """Whether the page's tiles are codestreams of whole 8-bit pixels, each in one piece."""
    contiguous = int(page.samplesperpixel) == 1 or int(page.planarconfig) == 1
    return page.is_tiled and int(page.compression) in CODESTREAMS and contiguous


def pixel_type(page: "tifffile.TiffPage") -> PixelType:
    samples = int(page.samplesperpixel)
    if samples not in (1, 3) or page.bitspersample != 8 or (samples == 3 and int(page.planarconfig) != 1):
        raise UnsupportedPixels(
            f"page {page.index} has {samples} samples of {page.bitspersample} bits: only 1 or 3 of 8 are read"
        )
    return PixelType(samples_per_pixel=samples)


def tile_map(page: "tifffile.TiffPage", size_bytes: int, source: int = 0, planes: int = 1) -> TileMap:
    """The page's tiles in file number ``source``, every range checked against its
    ``size_bytes``; of a volume (ImageDepth) all ``planes``, one after the other. Raises
    DamagedSlide."""
    where = f"page {page.index}"
    if not (0 < page.tilewidth <= 65535 and 0 < page.tilelength <= 65535):
        raise DamagedSlide(f"{where} has an impossible tile size")
    if not (0 < page.imagewidth < 2**31 and 0 < page.imagelength < 2**31):
        raise DamagedSlide(f"{where} has an impossible size")
    count = -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength) * planes
    if count > MAX_TILES:
        raise DamagedSlide(f"{where} has more than {MAX_TILES} tiles")
    if not len(page.dataoffsets) == len(page.databytecounts) == count:
        raise DamagedSlide(f"{where} needs {count} tiles and lists {len(page.dataoffsets)}")
    offsets = np.array(page.dataoffsets, dtype=np.uint64)
    lengths = np.array(page.databytecounts, dtype=np.uint64)
    if count > MANY_TILES:
        _forget_numbers(page, offsets, lengths)
    lengths[offsets == 0] = 0
    offsets[lengths == 0] = 0
    size = np.uint64(size_bytes)
    beyond = (offsets > size) | (lengths > size) | (lengths > size - np.minimum(offsets, size))
    if beyond.any():
        raise DamagedSlide(f"{int(beyond.sum())} tiles of {where} lie beyond the end of the file")
    if int(lengths.sum()) > MAX_REUSE * size_bytes:
        raise DamagedSlide(f"the tiles of {where} overlap each other")
    return TileMap(offsets, lengths, source, page.jpegtables or b"")


def _forget_numbers(
    page: "tifffile.TiffPage", offsets: NDArray[np.uint64], lengths: NDArray[np.uint64]
) -> None:
    """Tables in place of tifffile's tuples, whose numbers take five times as much memory."""
    page.dataoffsets, page.databytecounts = (array("Q", table.tobytes()) for table in (offsets, lengths))
    for code in (TILE_OFFSETS, TILE_BYTE_COUNTS):
        if code in page.tags:
            page.tags[code].value = ()


def reference(page: "tifffile.TiffPage") -> Callable[[int], NDArray[np.uint8]] | None:
    """Tiles decoded by tifffile, which knows nothing of how we splice."""
    if is_ycbcr_jpeg_2000(page):
        return None  # tifffile gives YCbCr

    def decode(index: int) -> NDArray[np.uint8]:
        handle = page.parent.filehandle
        handle.seek(page.dataoffsets[index])
        data = handle.read(page.databytecounts[index])
        tables = {"jpegtables": page.jpegtables} if int(page.compression) == 7 else {}
        pixels, _, _ = page.decode(data, index, _fullsize=True, **tables)
        shaped: NDArray[np.uint8] = np.asarray(pixels).reshape(page.tilelength, page.tilewidth, -1)
        return shaped

    return decode


def associated_image(page: "tifffile.TiffPage", role: Role) -> AssociatedImage:
    compression = int(page.compression)
    if compression not in LOSSLESS and compression not in CODESTREAMS:
        raise UnsupportedCompression(str(compression), f"the {role.value.lower()} image")
    rows, columns = int(page.imagelength), int(page.imagewidth)
    if not (0 < rows <= 65535 and 0 < columns <= 65535 and rows * columns <= MAX_ASSOCIATED_PIXELS):
        raise DamagedSlide(f"the {role.value.lower()} image has an impossible size")
    samples = int(page.samplesperpixel)
    if int(page.imagedepth) != 1:
        raise DamagedSlide(f"the {role.value.lower()} image has an impossible size")
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
        lossy_method=CODESTREAMS.get(compression, ""),
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


def spacing_mm(page: "tifffile.TiffPage") -> tuple[float, float] | None:
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


def tag_text(page: "tifffile.TiffPage", name: str) -> str:
    tag = page.tags.get(name)
    return tag.value if tag is not None and isinstance(tag.value, str) else ""
