# SPDX-License-Identifier: Apache-2.0
"""3DHISTECH MRXS slides for tests: a stub ``.mrxs``, and a folder beside it of the same
name with Slidedat.ini, Index.dat and Data files (openslide.org/formats/mirax).

Photos of neighbouring camera fields differ a little in brightness, so that a stitch in
the wrong order shows.
"""

import io
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.make_slide import fit, picture

Pixels = NDArray[np.uint8]
Images = dict[tuple[int, int], Pixels]  # (row, column) in the grid of level 0's images
Items = list[tuple[int, int, int, int]]  # image number, offset, length, file

SLIDE_ID = "0123456789ABCDEF0123456789ABCDEF"
FILL_RGB = (250, 240, 230)
PAGE = 128  # items of an index page, as the scanner's


@dataclass(frozen=True)
class Filter:
    """A fluorescence filter; three share the components of one JPEG."""

    name: str
    excitation_nm: int
    emission_nm: int
    exposure_us: int
    colour: tuple[int, int, int]


FILTERS = (
    Filter("Rhodamine", 540, 580, 66000, (255, 0, 0)),
    Filter("FITC", 490, 525, 18000, (0, 255, 0)),
    Filter("UV", 365, 445, 1000, (0, 0, 255)),
)
CY5 = Filter("CY5", 640, 670, 90000, (255, 255, 0))


@dataclass(frozen=True)
class Mrxs:
    """What is to be written. ``positions`` is "" (none stated), "vimslide" (as it is) or
    "stitching" (deflated); ``jitter`` moves each photo by up to so many pixels;
    ``present`` numbers the camera fields that were photographed; ``planes_um`` are the
    heights of the focal planes, the reference one first."""

    fields: tuple[int, int] = (3, 4)  # camera fields (down, across)
    divisions: int = 2  # images of a photo, each way
    image: tuple[int, int] = (128, 128)  # (rows, columns)
    overlap: tuple[int, int] = (0, 0)
    positions: str = ""
    origin: tuple[int, int] = (0, 0)
    jitter: int = 0
    levels: int = 3
    first_concat: int = 0
    image_format: str = "JPEG"
    present: Collection[int] | None = None
    filters: Sequence[Filter] = ()
    planes_um: Sequence[float] = (0.0,)
    associated: Collection[str] = ("label", "macro", "thumbnail")
    data_files: int = 2
    general: dict[str, str] = field(default_factory=dict)
    seed: int = 7

    @property
    def grid(self) -> tuple[int, int]:
        return self.fields[0] * self.divisions, self.fields[1] * self.divisions

    def is_present(self, number: int) -> bool:
        return self.present is None or number in self.present

    def position(self, number: int) -> tuple[int, int]:
        """(row, column) of a photo in pixels of level 0."""
        at = divmod(number, self.fields[1])
        moved = np.random.default_rng(self.seed + number).integers(-self.jitter, self.jitter + 1, 2)
        return tuple(
            int(origin + place * (self.divisions * size - overlap) + move)
            for place, size, overlap, origin, move in zip(
                at, self.image, self.overlap, self.origin, moved, strict=True
            )
        )  # type: ignore[return-value]


def write_mrxs(folder: Path, *, name: str = "scan", **variant: object) -> Path:
    """Write the slide into ``folder``; returns the stub. ``variant`` as :class:`Mrxs`."""
    slide = replace(Mrxs(), **variant)  # type: ignore[arg-type]
    inside = folder / name
    inside.mkdir(parents=True)
    stub = folder / f"{name}.mrxs"
    stub.write_bytes(encoded(fit(glass(slide), 200), "JPEG"))
    data = _DataFiles(slide.data_files)
    hierarchy = [
        _stored(slide, data, group, plane) if group < _groups(slide) else [[]] * slide.levels
        for plane in range(len(slide.planes_um))
        for group in range(max(1, len(slide.filters)))
    ]
    others, sections = _others(slide, data)
    (inside / "Slidedat.ini").write_bytes(
        b"\xef\xbb\xbf" + _ini(slide, sections).replace("\n", "\r\n").encode()
    )
    (inside / "Index.dat").write_bytes(_index([level for record in hierarchy for level in record], others))
    for number, content in enumerate(data.files):
        (inside / f"Data{number:04d}.dat").write_bytes(content)
    return stub


def write_stitched_mrxs(folder: Path) -> Path:
    """Photos that overlap, at positions of their own."""
    return write_mrxs(
        folder, image=(104, 120), overlap=(20, 24), positions="stitching", origin=(60, 90), jitter=5
    )


def glass(slide: Mrxs, group: int = 0, plane: int = 0) -> Pixels:
    """What lies under the objective: all that the photos show, without a seam."""
    sizes = [
        origin + count * divisions * edge + slide.jitter
        for origin, count, divisions, edge in zip(
            slide.origin, slide.fields, (slide.divisions,) * 2, slide.image, strict=True
        )
    ]
    return picture(sizes[0], sizes[1], slide.seed + 10 * group + 100 * plane)


def base_images(slide: Mrxs, group: int = 0, plane: int = 0) -> Images:
    """Level 0's images, cut from the photos of the camera fields that are present."""
    under, found = glass(slide, group, plane), {}
    (height, width), divisions = slide.image, slide.divisions
    for number in range(slide.fields[0] * slide.fields[1]):
        if not slide.is_present(number):
            continue
        top, left = (max(0, at) for at in slide.position(number))
        photo = under[top : top + divisions * height, left : left + divisions * width]
        missing = [(0, divisions * edge - size) for edge, size in zip(slide.image, photo.shape, strict=False)]
        photo = np.pad(photo, (*missing, (0, 0)), mode="edge")
        if slide.jitter or any(slide.overlap):
            photo = np.clip(photo.astype(int) - number % 3 * 9, 0, 255).astype(np.uint8)
        row, column = (at * divisions for at in divmod(number, slide.fields[1]))
        for down in range(divisions):
            for across in range(divisions):
                found[row + down, column + across] = photo[
                    down * height : (down + 1) * height, across * width : (across + 1) * width
                ]
    return found


def halved(slide: Mrxs, images: Images, step: int) -> Images:
    """The next level: two by two images become one of the same size."""
    height, width = slide.image
    found: Images = {}
    for row, column in {(r // (2 * step) * 2 * step, c // (2 * step) * 2 * step) for r, c in images}:
        blank = np.full((height, width, 3), (0, 0, 0) if slide.filters else FILL_RGB, np.uint8)
        four = np.vstack(
            [
                np.hstack([images.get((row + down, column + across), blank) for across in (0, step)])
                for down in (0, step)
            ]
        )
        found[row, column] = np.asarray(
            Image.fromarray(four).resize((width, height), Image.Resampling.BOX), dtype=np.uint8
        )
    return found


def encoded(pixels: Pixels, image_format: str, quality: int = 85) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image_format == "JPEG":
        image.save(out, "JPEG", quality=quality)
    else:
        image.save(out, "BMP" if image_format == "BMP24" else image_format)
    return out.getvalue()


class _DataFiles:
    """Data files, filled in turns."""

    def __init__(self, count: int) -> None:
        self.files = [
            bytearray(b"01.02" + SLIDE_ID.encode() + b"%3d" % number + bytes(256)) for number in range(count)
        ]
        self.turn = 0

    def add(self, content: bytes) -> tuple[int, int, int]:
        """(offset, length, file)."""
        number = self.turn % len(self.files)
        self.turn += 1
        offset = len(self.files[number])
        self.files[number] += content
        return offset, len(content), number


def _groups(slide: Mrxs) -> int:
    """Filter levels that hold images: the first of each three filters."""
    return max(1, -(-len(slide.filters) // 3))


def _stored(slide: Mrxs, data: _DataFiles, group: int, plane: int) -> list[Items]:
    images, step, found = base_images(slide, group, plane), 1, []
    for _ in range(slide.first_concat):
        images, step = halved(slide, images, step), step * 2
    for level in range(slide.levels):
        if level:
            images, step = halved(slide, images, step), step * 2
        items = [
            (row * slide.grid[1] + column, *data.add(encoded(images[row, column], slide.image_format)))
            for row, column in sorted(images)
        ]
        found.append(items)
    return found


def _others(slide: Mrxs, data: _DataFiles) -> tuple[list[tuple[int, int, int]], list[list[str]]]:
    """Records of no level, and for each layer of them its name and what it holds."""
    under = glass(slide)
    pictures = {
        "macro": ("ScanDataLayer_SlideThumbnail", fit(under, 180)),
        "label": ("ScanDataLayer_SlideBarcode", picture(90, 120, slide.seed + 1)),
        "thumbnail": ("ScanDataLayer_SlidePreview", fit(under, 240)),
    }
    names, records = [], []
    for key in slide.associated:
        names.append(pictures[key][0])
        records.append(data.add(encoded(pictures[key][1], "JPEG")))
    layers = [["Scan data layer", *names]] if names else []
    if slide.positions:
        records.append(data.add(_positions(slide)))
        layer = {"vimslide": ("VIMSLIDE_POSITION_BUFFER", "default"),
                 "stitching": ("StitchingIntensityLayer", "StitchingIntensityLevel")}  # fmt: skip
        layers.append(list(layer[slide.positions]))
    return records, layers


def _positions(slide: Mrxs) -> bytes:
    out = b""
    for number in range(slide.fields[0] * slide.fields[1]):
        there = slide.is_present(number)
        row, column = slide.position(number) if there else (0, 0)
        out += struct.pack("<Bii", there, column >> slide.first_concat, row >> slide.first_concat)
    return zlib.compress(out) if slide.positions == "stitching" else out


def _index(levels: Sequence[Items], others: Sequence[tuple[int, int, int]]) -> bytes:
    out = bytearray(b"01.02" + SLIDE_ID.encode() + bytes(8))
    roots = len(out) - 8
    tables = []
    for number, count in enumerate((len(levels), len(others))):
        struct.pack_into("<i", out, roots + 4 * number, len(out))
        tables.append(len(out))
        out += bytes(4 * count)
    for number, items in enumerate(levels):
        if not items:
            continue
        struct.pack_into("<i", out, tables[0] + 4 * number, len(out))
        _pages(out, [struct.pack("<4i", *item) for item in items])
    for number, record in enumerate(others):
        struct.pack_into("<i", out, tables[1] + 4 * number, len(out))
        _pages(out, [struct.pack("<5i", 0, 0, *record)])
    return bytes(out)


def _pages(out: bytearray, items: Sequence[bytes]) -> None:
    """A chain of pages: an empty one first, then ``PAGE`` items each."""
    link = len(out) + 4
    out += bytes(8)
    for start in range(0, len(items), PAGE):
        some = items[start : start + PAGE]
        struct.pack_into("<i", out, link, len(out))
        link = len(out) + 4
        out += struct.pack("<ii", len(some), 0) + b"".join(some)


def _ini(slide: Mrxs, layers: Sequence[Sequence[str]]) -> str:
    return "\n".join(_ini_lines(slide, layers)) + "\n"


def _ini_lines(slide: Mrxs, layers: Sequence[Sequence[str]]) -> Iterator[str]:
    kind = "FLUORESCENCE" if slide.filters else "BRIGHTFIELD"
    general = {
        "SLIDE_VERSION": "01.02", "SLIDE_NAME": "SYN-MRXS", "PROJECT_NAME": "SYN", "SLIDE_ID": SLIDE_ID,
        "IMAGENUMBER_X": str(slide.grid[1]), "IMAGENUMBER_Y": str(slide.grid[0]),
        "CURRENT_SLIDE_VERSION": "2.2" if slide.positions == "stitching" else "1.9",
        "SLIDE_CREATIONDATETIME": "05/03/2014 11:12:13", "CAMERA_TYPE": "Synthetic camera",
        "OBJECTIVE_MAGNIFICATION": "20", "OBJECTIVE_NAME": "Plan-Apochromat",
        "SLIDE_TYPE": f"SLIDE_TYPE_{kind}", "CameraImageDivisionsPerSide": str(slide.divisions),
    } | slide.general  # fmt: skip
    yield "[GENERAL]"
    yield from (f"{key} = {value}" for key, value in general.items())
    yield " = False"  # a line without a key, as scanners write now and then
    filters = [f"FilterLevel_{number}" for number in range(len(slide.filters))]
    hierarchies = [("Slide zoom level", [f"ZoomLevel_{level}" for level in range(slide.levels)])]
    if filters:
        hierarchies.append(("Slide filter level", filters))
    if len(slide.planes_um) > 1:
        planes = [f"ZStackLevel_({number})" for number in range(len(slide.planes_um))]
        hierarchies.append(("Microscope focus level", planes))
    yield from ("[HIERARCHICAL]", "INDEXFILE = Index.dat", f"HIER_COUNT = {len(hierarchies)}",
                f"NONHIER_COUNT = {len(layers)}")  # fmt: skip
    for number, (name, values) in enumerate(hierarchies):
        yield from (f"HIER_{number}_NAME = {name}", f"HIER_{number}_COUNT = {len(values)}")
        for value, word in enumerate(values):
            yield f"HIER_{number}_VAL_{value} = {word}"
            yield f"HIER_{number}_VAL_{value}_SECTION = LAYER_{number}_LEVEL_{value}_SECTION"
    for number, (name, *values) in enumerate(layers):
        yield from (f"NONHIER_{number}_NAME = {name}", f"NONHIER_{number}_COUNT = {len(values)}",
                    f"NONHIER_{number}_SECTION = NONHIERLAYER_{number}_SECTION")  # fmt: skip
        for value, word in enumerate(values):
            yield f"NONHIER_{number}_VAL_{value} = {word}"
            yield f"NONHIER_{number}_VAL_{value}_SECTION = NONHIERLAYER_{number}_LEVEL_{value}_SECTION"
    if layers and layers[0][0] == "Scan data layer":
        yield from ("[NONHIERLAYER_0_SECTION]", "SCANNER_HARDWARE_VERSION = v0.5",
                    "SCANNER_HARDWARE_ID = P250-0042", "SCANNER_SOFTWARE_VERSION = 2,0,0,27")  # fmt: skip
        for value, word in enumerate(layers[0][1:]):
            key = {"Thumbnail": "THUMBNAIL", "Barcode": "BARCODE", "Preview": "PREVIEW"}[
                word.split("Slide")[1]
            ]
            yield from (f"[NONHIERLAYER_0_LEVEL_{value}_SECTION]", f"{key}_IMAGE_TYPE = JPEG")
    yield from _level_lines(slide)
    for number, each in enumerate(slide.filters):
        yield from (
            f"[LAYER_1_LEVEL_{number}_SECTION]", f"FILTER_NAME = {each.name}",
            *(f"COLOR_{key} = {value}" for key, value in zip("RGB", each.colour, strict=True)),
            f"STORING_CHANNEL_NUMBER = {number % 3}",
            f"DATA_IN_THIS_FILTER_LEVEL = FilterLevel_{number // 3}",
            f"EXPOSURE_TIME = {each.exposure_us}", f"EXCITATION_WAVELENGTH = {each.excitation_nm}",
            f"EMISSION_WAVELENGTH = {each.emission_nm}",
        )  # fmt: skip
    focus = 2 if slide.filters else 1
    for number, height in enumerate(slide.planes_um if len(slide.planes_um) > 1 else ()):
        yield from (f"[LAYER_{focus}_LEVEL_{number}_SECTION]", f"OFFSET_IN_MICROMETERS = {height}")
    yield from ("[DATAFILE]", f"FILE_COUNT = {slide.data_files}")
    yield from (f"FILE_{number} = Data{number:04d}.dat" for number in range(slide.data_files))


def _level_lines(slide: Mrxs) -> Iterator[str]:
    red, green, blue = FILL_RGB
    for level in range(slide.levels):
        scale = 2 ** (level + slide.first_concat)
        yield from (
            f"[LAYER_0_LEVEL_{level}_SECTION]", f"IMAGE_FILL_COLOR_BGR = {blue << 16 | green << 8 | red}",
            f"MICROMETER_PER_PIXEL_X = {0.25 * scale}", f"MICROMETER_PER_PIXEL_Y = {0.25 * scale}",
            f"DIGITIZER_WIDTH = {slide.image[1]}", f"DIGITIZER_HEIGHT = {slide.image[0]}",
            f"OVERLAP_X = {slide.overlap[1] / scale}", f"OVERLAP_Y = {slide.overlap[0] / scale}",
            f"IMAGE_CONCAT_FACTOR = {1 if level else slide.first_concat}",
            f"IMAGE_FORMAT = {slide.image_format}", "IMAGE_COMPRESSION_FACTOR = 85",
        )  # fmt: skip
