# SPDX-License-Identifier: Apache-2.0
"""3DHISTECH MRXS (MIRAX, Pannoramic): a stub ``name.mrxs``, often a JPEG preview, and all
else in the folder ``name`` beside it: Slidedat.ini, Index.dat, Data0000.dat and so on.

- Photos that do not overlap, JPEG: each image is a tile and is copied; fields that were not
  photographed are absent tiles. The level begins at a corner of an image at each level.
- Photos that overlap: stitched by the camera positions (``mirax_stitch``); the level is the
  scanned area as OpenSlide gives it in its bounds.
- Fluorescence: up to three filters share an image. Its components are numbered blue, green,
  red: filter with STORING_CHANNEL_NUMBER 0 is in the blue component. (Validated on real
  slides by two independent readers; the opposite order finds stains that are not there.)
- A level whose IMAGE_CONCAT_FACTOR is 0 (slides before version 1.9), or with pieces of few
  pixels, is left out with all coarser ones; they are computed as missing levels are.

JPEG XR (an option of fluorescence scanners) is refused: nothing public says in which order
its components hold the filters, and whether they are BGR or RGB.

Label, overview and thumbnail as OpenSlide has them: ScanDataLayer_SlideBarcode,
ScanDataLayer_SlideThumbnail, ScanDataLayer_SlidePreview.

Sources: openslide.org/formats/mirax; Slidedat.ini of real slides.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from converters.codecs import CodecError, decode
from converters.codecs.transfer_syntax import JPEG_BASELINE
from converters.errors import DamagedSlide
from converters.probe import TIFF_MAGIC, Probe
from converters.readers.encoded_tiles import decoded
from converters.readers.mirax_files import FIRST_DATA_FILE, MiraxFiles
from converters.readers.mirax_index import Images, Index
from converters.readers.mirax_ini import Hierarchy
from converters.readers.mirax_layout import (
    Area,
    Pieces,
    Placement,
    Zoom,
    grid_area,
    is_on_grid,
    nominal_positions,
    scanned_area,
    stated_positions,
)
from converters.readers.mirax_scan import (
    FORMATS,
    POSITION_LAYERS,
    associated_images,
    channels_of,
    focal_planes,
    geometry_of,
    scan_of,
)
from converters.readers.mirax_stitch import Stitch
from converters.slide import (
    DEFAULT_TILE,
    Level,
    PixelTiles,
    PixelType,
    Scene,
    Slide,
    TileMap,
)

MAX_TILES = 4_000_000
MAX_COPIED_FILES = 252  # sources are numbered by a byte


class MiraxReader:
    """See :class:`converters.registry.Reader`."""

    format = "3dhistech-mrxs"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        if probe.path.suffix.lower() != ".mrxs":
            return "the name does not end in .mrxs"
        if probe.head[:4] in TIFF_MAGIC:
            return "it is a TIFF"
        return None

    @staticmethod
    def companions(probe: Probe) -> Sequence[str]:
        """Raises MissingCompanion, and DamagedSlide for a Slidedat.ini that names none."""
        return MiraxFiles(probe).names

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, MissingCompanion, UnsupportedCompression, UnsupportedPixels."""
        return _Mirax(MiraxFiles(probe)).slide()


@dataclass(frozen=True, eq=False)
class _Stored:
    """The images of a level, filter level and focal plane, placed."""

    images: Images
    pieces: Pieces


class _Mirax:
    """A slide that is being opened."""

    def __init__(self, files: MiraxFiles) -> None:
        self.files, self.ini = files, files.ini
        self.findings: list[str] = []
        self.hierarchies = self.ini.hierarchies()
        self.others = self.ini.others()
        self.geometry = geometry_of(self.ini, self.hierarchies, self.others, self.findings)
        sizes = np.array([source.size_bytes for source in files.sources[FIRST_DATA_FILE:]], np.uint64)
        slide_id = self.ini.text_of("GENERAL", "SLIDE_ID")
        self.index = Index(files.index_path, slide_id, sizes, self.geometry.grid)
        self.paths, self.channels = channels_of(self.ini, self.hierarchies)
        self.heights, self.planes = focal_planes(self.ini, self.hierarchies, self._has_images, self.findings)
        self._check_owner(slide_id)

    def slide(self) -> Slide:
        placement = Placement(self.geometry, self._positions())
        stored = [self._stored(zoom, placement) for zoom in self.geometry.zooms]
        whole = next((at for at, each in enumerate(stored) if not all(map(len, _images(each)))), len(stored))
        if whole == 0:
            raise DamagedSlide("the slide has no images at its finest level")
        if whole < len(stored):
            self.findings.append(f"zoom levels from {whole} on are not stored for all channels and planes")
        zooms, stored = self.geometry.zooms[:whole], stored[:whole]
        area = scanned_area([each.pieces for each in stored[0].values()], self.geometry)
        on_grid = all(
            is_on_grid(self.geometry, zoom, each.images, each.pieces)
            for zoom, record in zip(zooms, stored, strict=True)
            for each in record.values()
        )
        if on_grid:
            area = grid_area(area, self.geometry, zooms)
        levels = [
            self._level(index, zoom, record, area, on_grid)
            for index, (zoom, record) in enumerate(zip(zooms, stored, strict=True))
        ]
        return Slide(
            format=MiraxReader.format,
            sources=self.files.sources,
            scenes=(Scene(0, tuple(levels), self.paths, focal_planes_um=self.heights),),
            associated=associated_images(self.others, self.index, self.files.read, self.findings),
            scan=scan_of(self.ini, self.others, self.findings),
            findings=tuple(self.findings),
        )

    def _record(self, zoom: int, group: int, plane: int) -> int:
        """Number of a record in the index's table."""
        record, stride = 0, 1
        for hierarchy in self.hierarchies:
            chosen = {"zoom": zoom, "filter": group, "focus": plane}.get(_axis(hierarchy), hierarchy.default)
            record += stride * chosen
            stride *= len(hierarchy.values)
        return record

    def _has_images(self, plane: int) -> bool:
        zoom = self.geometry.zooms[0]
        return all(
            len(self.index.images(self._record(0, group, plane), zoom.concat)) for group, _ in self.channels
        )

    def _stored(self, zoom: Zoom, placement: Placement) -> "dict[tuple[int, int], _Stored]":
        found = {}
        for plane in self.planes:
            for group in dict.fromkeys(group for group, _ in self.channels):
                images = self.index.images(self._record(zoom.number, group, plane), zoom.concat)
                found[group, plane] = _Stored(images, placement.place(zoom, images))
        return found

    def _positions(self) -> NDArray[np.int64]:
        for layer, deflated in POSITION_LAYERS.items():
            record = next((at for at, other in enumerate(self.others) if other.layer == layer), None)
            if record is None:
                continue
            place = self.index.other(record)
            if place is None:
                raise DamagedSlide("the list of camera positions is missing")
            content = self.files.read(place.file, place.offset, place.length)
            return stated_positions(content, deflated, self.geometry)
        return nominal_positions(self.geometry)

    def _level(
        self, index: int, zoom: Zoom, stored: "dict[tuple[int, int], _Stored]", area: Area, on_grid: bool
    ) -> Level:
        scale = self.geometry.downsample(zoom)
        rows, columns = max(1, int(area.rows // scale)), max(1, int(area.columns // scale))
        edge = (zoom.rows, zoom.columns)
        if not on_grid or not all(64 <= size <= 2048 for size in edge):
            edge = (min(rows, DEFAULT_TILE), min(columns, DEFAULT_TILE))
        tiles_of_plane = -(-rows // edge[0]) * -(-columns // edge[1])
        if tiles_of_plane * len(self.channels) * len(self.planes) > MAX_TILES:
            raise DamagedSlide(f"level {index} has more tiles than any slide")
        copied = on_grid and edge == (zoom.rows, zoom.columns) and not self.is_fluorescence
        copied = copied and zoom.image_format == "JPEG" and len(self.files.data_paths) <= MAX_COPIED_FILES
        origin = (area.x / scale, area.y / scale)
        tiles: TileMap | PixelTiles
        if copied:
            tiles = self._copied(zoom, stored, origin, (rows, columns))
        else:
            tiles = self._pixels(zoom, stored, origin, (rows, columns), edge, on_grid)
        finest = self.geometry.zooms[0].spacing_mm
        return Level(
            index=index,
            rows=rows,
            columns=columns,
            tile_rows=edge[0],
            tile_columns=edge[1],
            tiles=tiles,
            pixel_type=PixelType(1 if self.is_fluorescence else 3),
            pixel_spacing_mm=(finest[0] * scale, finest[1] * scale) if finest else None,
            downsample=scale,
            optical_paths=len(self.paths),
            focal_planes=len(self.planes),
            reference=partial(self._decoded_tile, tiles, edge) if isinstance(tiles, TileMap) else None,
            history=f"{zoom.image_format} {zoom.quality}".strip(),
            absent_colour=None if self.is_fluorescence else zoom.fill_rgb,
        )

    @property
    def is_fluorescence(self) -> bool:
        return self.channels[0][1] is not None

    def _copied(
        self,
        zoom: Zoom,
        stored: "dict[tuple[int, int], _Stored]",
        origin: tuple[float, float],
        shape: tuple[int, int],
    ) -> TileMap:
        down, across = -(-shape[0] // zoom.rows), -(-shape[1] // zoom.columns)
        count = down * across
        offsets, lengths = (np.zeros(count * len(stored), np.uint64) for _ in range(2))
        source = np.zeros(count * len(stored), np.uint8)
        for plane, each in enumerate(stored.values()):
            row = each.images.row // zoom.concat - int(origin[1]) // zoom.rows
            column = each.images.column // zoom.concat - int(origin[0]) // zoom.columns
            inside = (row >= 0) & (row < down) & (column >= 0) & (column < across)
            place = plane * count + (row * across + column)[inside]
            offsets[place], lengths[place] = each.images.offset[inside], each.images.length[inside]
            source[place] = each.images.file[inside] + FIRST_DATA_FILE
        return TileMap(offsets, lengths, source)

    def _decoded_tile(self, tiles: TileMap, size: tuple[int, int], number: int) -> NDArray[np.uint8]:
        file = int(tiles.files[number]) - FIRST_DATA_FILE
        content = self.files.read(file, int(tiles.offsets[number]), int(tiles.lengths[number]))
        return decoded(content, (*size, 3), "an image")

    def _pixels(
        self,
        zoom: Zoom,
        stored: "dict[tuple[int, int], _Stored]",
        origin: tuple[float, float],
        shape: tuple[int, int],
        edge: tuple[int, int],
        on_grid: bool,
    ) -> PixelTiles:
        stitches = [
            Stitch(each.pieces, self._decoder(zoom, each.images, component), origin, shape, edge,
                   (0,) if self.is_fluorescence else zoom.fill_rgb)
            for group, component in self.channels
            for each in (stored[group, plane] for plane in self.planes)
        ]  # fmt: skip
        count = stitches[0].count

        def read(frame_index: int) -> NDArray[np.uint8]:
            which, tile = divmod(frame_index, count)
            return stitches[which].read(tile)

        if self.is_fluorescence:
            why = "each colour component of an image is a channel of its own"
        elif not on_grid:
            why = "photos overlap"
        else:
            why = f"the images are {zoom.image_format}"
        return PixelTiles(
            read=read,
            count=count * len(stitches),
            why=why,
            lossy_method=FORMATS[zoom.image_format],
            size_bytes=sum(int(each.images.length.sum()) for each in stored.values()),
            missing=np.concatenate([stitch.missing for stitch in stitches]),
        )

    def _decoder(
        self, zoom: Zoom, images: Images, component: int | None
    ) -> Callable[[int], NDArray[np.uint8]]:
        def decode(number: int) -> NDArray[np.uint8]:
            content = self.files.read(
                int(images.file[number]), int(images.offset[number]), int(images.length[number])
            )
            pixels = _photo(content, (zoom.rows, zoom.columns, 3))
            return pixels if component is None else pixels[..., component : component + 1]

        return decode

    def _check_owner(self, slide_id: str) -> None:
        """A Data file names its slide, in newer ones in UTF-16 and cut off."""
        marks = {slide_id.encode()[:16], slide_id.encode("utf-16-le")[:16]}
        for number, source in enumerate(self.files.sources[FIRST_DATA_FILE:]):
            if source.size_bytes >= 37 and self.files.read(number, 5, 16) not in marks:
                self.findings.append(f"data file {number} names another slide as its own")


def _photo(content: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image's pixels. A JPEG that has its end is decoded the fastest way; what that does
    not take is left to the careful one (an image of one component, say)."""
    if content.startswith(b"\xff\xd8\xff") and content.endswith(b"\xff\xd9"):
        with suppress(CodecError):
            return decode(content, JPEG_BASELINE, *shape, 8, "YBR_FULL_422")
    return decoded(content, shape, "an image")


def _images(stored: "dict[tuple[int, int], _Stored]") -> Sequence[Images]:
    return [each.images for each in stored.values()]


def _axis(hierarchy: Hierarchy) -> str:
    name = hierarchy.name.lower()
    return next((axis for axis in ("zoom", "filter", "focus") if axis in name), name)
