# SPDX-License-Identifier: Apache-2.0
"""Ventana (Roche) BIF and TIFF of iScan and DP scanners: a tiled TIFF with an ``iScan``
element in its XMP; pages are told apart by their ImageDescription.

- "level=0 mag=40 quality=95" and so on is the pyramid, halved from level to level. The
  finest level's XMP places its tiles (``converters.readers.ventana_stitching``); without
  it ("Ventana TIFF") tiles abut and there is one region.
- Each scanned area is a scene. In the file areas are packed to whole tiles, which is not
  how far apart they lie; a coarser level is taken for an area that begins and ends where
  its tiles do.
- An area whose tiles do not overlap is copied. Where they do, the coarser levels are the
  unstitched tiles reduced, overlaps and all, so that only the finest level is taken,
  stitched, and the others are computed from it.
- ImageDepth is the number of focal planes, each all tiles of the page: first the
  nominal one, then the nearer ones, then the farther ones, counted away from it. The
  nearer are taken for the lower: no source says from where near and far are meant.
- "Label_Image" (or "Label Image") is a photograph of the whole glass, the label at its
  top; LabelBoundary is the row where the label ends, 0 where nobody set it.
- "Probability_Image" is the scanner's map of tissue, "Thumbnail" a reduced picture.
- Tiles never scanned have length 0 and the scanner's white (ScanWhitePoint).
- BuildDate is the software's; the time of scanning is the TIFF's DateTime.
- The label is at the top of all pictures, so columns run along +X and rows along -Y. A
  DP scanner measures places from the glass's lower left corner, an older one only among
  areas.

Sources: openslide.org/formats/ventana; Roche's BIF white paper (MC--06058, 2020) as
described by its readers; TIFF 6.0; TIFF Technical Note 2.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from converters.errors import DamagedSlide, UnsupportedCompression
from converters.probe import TIFF_FAULTS, Probe
from converters.readers.tiff_pages import (
    all_pages,
    container_rgb,
    first_page,
    is_copyable,
    opened,
    pixel_type,
    reference,
    tag_text,
    tile_map,
)
from converters.readers.tiff_pyramid import side_image
from converters.readers.tile_grid import window
from converters.readers.vendor_xml import number, parse_xml, whole
from converters.readers.ventana_pixels import stitched_tiles
from converters.readers.ventana_stitching import Area, scanned_areas
from converters.slide import (
    DEFAULT_TILE,
    LABEL_TOP,
    AssociatedImage,
    Level,
    OpticalPath,
    Role,
    Scan,
    Scene,
    Slide,
    SourceFile,
)

if TYPE_CHECKING:
    import tifffile

XMP, ICC = 700, 34675
PAGES_WITH_XMP = 3  # the photograph's comes first; where that was taken away, a level's
MAX_PLANES = 1000
_LEVEL = re.compile(r"(?:^|\s)level=(\d{1,2})(?:\s|$)")
_QUALITY = re.compile(r"(?:^|\s)quality=(\d{1,3})(?:\s|$)")
_DATES = ("%Y:%m:%d %H:%M:%S", "%Y-%m-%d %H:%M:%S")


class VentanaBifReader:
    """See :class:`converters.registry.Reader`."""

    format = "ventana-bif"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        pages = page.parent.pages
        try:
            if any(b"<iScan" in _xmp(pages.get(index)) for index in range(PAGES_WITH_XMP)):
                return None
        except TIFF_FAULTS:
            pass  # fewer pages, or a damaged one: whoever reads it tells
        return "no XMP with an iScan element"

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


def _xmp(page: "tifffile.TiffPage") -> bytes:
    tag = page.tags.get(XMP)
    value = tag.value if tag is not None else b""
    if isinstance(value, str):
        return value.encode("utf-8")
    return value if isinstance(value, bytes) else b""


@dataclass(frozen=True)
class _Pyramid:
    """The pages of levels, finest first, and what all scenes share."""

    pages: Sequence["tifffile.TiffPage"]
    planes: tuple[int, ...]  # numbers of the page's planes, lowest first
    spacing_mm: float | None
    white: tuple[int, int, int] | None
    size_bytes: int

    @property
    def tile(self) -> tuple[int, int]:
        return int(self.pages[0].tilelength), int(self.pages[0].tilewidth)

    def grid(self, page: "tifffile.TiffPage") -> tuple[int, int]:
        tile = self.tile
        return -(-int(page.imagelength) // tile[0]), -(-int(page.imagewidth) // tile[1])


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = all_pages(tiff)
    said, encoding = _metadata(pages)
    findings: list[str] = []
    associated = _associated(pages, said, findings)
    finest = _level_pages(pages)
    depth = _depth(finest[0])
    spacing_um = number(said.get("scanres"))
    white = whole(said.get("scanwhitepoint"), 1, 255)
    pyramid = _Pyramid(
        finest,
        _planes(depth),
        spacing_um / 1000 if spacing_um is not None and 0 < spacing_um < 100 else None,
        (white, white, white) if white is not None else None,
        probe.size_bytes,
    )
    heights = _heights(said, depth)
    power = number(said.get("magnification"))
    icc = finest[0].tags.get(ICC)
    path = OpticalPath(
        objective_power=power if power is not None and 0 < power < 1000 else None,
        icc_profile=bytes(icc.value) if icc is not None and isinstance(icc.value, bytes) else b"",
    )
    areas = _areas(encoding, pyramid)
    placed = len(areas) > 1 or said.get("scannermodel", "").upper().startswith("VENTANA DP")
    scenes: list[Scene] = []
    for area in areas:
        findings.extend(area.findings)
        levels = _levels(area, pyramid, findings)
        label = f"AOI {area.index}" if len(areas) > 1 else ""
        origin = _origin_mm(area, pyramid) if placed else None
        scenes.append(Scene(len(scenes), levels, (path,), origin, heights, label, orientation=LABEL_TOP))
    acquired = _acquired(tag_text(finest[0], "DateTime") or tag_text(pages[0], "DateTime"))
    if acquired is None:
        findings.append("the time of scanning is not stated")
    build = said.get("buildversion", "")
    return Slide(
        format=VentanaBifReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=tuple(scenes),
        associated=associated,
        scan=Scan(
            manufacturer="Ventana Medical Systems",
            model_name=said.get("scannermodel", "") or "iScan",
            device_serial_number=said.get("unitnumber", ""),
            software_versions=(build,) if build else (),
            acquired=acquired,
            barcode=said.get("barcode1d", "") or said.get("barcode2d", ""),
            description=_xmp(pages[0]).decode("utf-8", "replace").strip("\0"),
            properties=said,
        ),
        closer=tiff.close,
        findings=tuple(dict.fromkeys(findings)),
    )


def _metadata(pages: Sequence["tifffile.TiffPage"]) -> tuple[dict[str, str], Element | None]:
    """The attributes of iScan, in lower case, and the EncodeInfo of the finest level."""
    said: dict[str, str] = {}
    encoding: Element | None = None
    for page in pages:
        xmp = _xmp(page)
        if not xmp.strip(b"\0 \r\n\t"):
            continue
        root = parse_xml(xmp, f"the XMP of page {page.index}")
        if root.tag == "EncodeInfo" and encoding is None:
            encoding = root
        for element in root.iter("iScan"):
            for name, value in element.attrib.items():
                said[name.lower()] = said.get(name.lower()) or value.strip()
    return said, encoding


def _level_pages(pages: Sequence["tifffile.TiffPage"]) -> Sequence["tifffile.TiffPage"]:
    found: dict[int, tifffile.TiffPage] = {}
    for page in pages:
        level = _LEVEL.search(page.description)
        if level is None:
            continue
        if int(level[1]) in found:
            raise DamagedSlide("two pages claim the same level")
        if not page.is_tiled:
            raise DamagedSlide(f"page {page.index} is a level without tiles")
        if not is_copyable(page):
            raise UnsupportedCompression(str(int(page.compression)), f"the tiles of page {page.index}")
        found[int(level[1])] = page
    if sorted(found) != list(range(len(found))) or not found:
        raise DamagedSlide("the pages of some levels are missing")
    first = found[0]
    for page in found.values():
        if (page.tilelength, page.tilewidth) != (first.tilelength, first.tilewidth):
            raise DamagedSlide("the levels have tiles of different sizes")
    return [found[level] for level in range(len(found))]


def _depth(page: "tifffile.TiffPage") -> int:
    depth = int(page.imagedepth)
    if not 1 <= depth <= MAX_PLANES or int(page.tiledepth) != 1:
        raise DamagedSlide(f"page {page.index} has an impossible depth")
    return depth


def _planes(depth: int) -> tuple[int, ...]:
    near = (depth - 1) // 2
    return (*range(near, 0, -1), 0, *range(near + 1, depth))


def _heights(said: dict[str, str], depth: int) -> Sequence[float]:
    if depth == 1:
        return (0.0,)
    step = number(said.get("z-spacing"))
    if step is None or not 0 < step < 1000:
        raise DamagedSlide("the distance between the focal planes is not stated")
    return tuple(step * plane for plane in range(depth))


def _areas(encoding: Element | None, pyramid: _Pyramid) -> Sequence[Area]:
    page, tile = pyramid.pages[0], pyramid.tile
    tile_map(page, pyramid.size_bytes, planes=len(pyramid.planes))  # sizes are checked before they are used
    down, across = pyramid.grid(page)
    if encoding is not None:
        return scanned_areas(encoding, tile, (down, across))
    tops, lefts = (
        tuple(tile[0] * row for row in range(down)),
        tuple(tile[1] * column for column in range(across)),
    )
    return (Area(0, (0, 0), (down, across), tops, lefts, None),)


def _origin_mm(area: Area, pyramid: _Pyramid) -> tuple[float, float] | None:
    if area.position is None or pyramid.spacing_mm is None:
        return None
    rows, _ = area.size(pyramid.tile)
    origin = (
        area.position[1] * pyramid.spacing_mm,
        (area.position[0] + rows) * pyramid.spacing_mm,
    )
    return origin if all(-100 < value < 200 for value in origin) else None


def _levels(area: Area, pyramid: _Pyramid, findings: list[str]) -> Sequence[Level]:
    rows, columns = area.size(pyramid.tile)
    page = pyramid.pages[0]
    spacing = (pyramid.spacing_mm, pyramid.spacing_mm) if pyramid.spacing_mm else None
    quality = _QUALITY.search(page.description)
    first = Level(
        index=0,
        rows=rows,
        columns=columns,
        tile_rows=pyramid.tile[0],
        tile_columns=pyramid.tile[1],
        tiles=tile_map(page, pyramid.size_bytes, planes=len(pyramid.planes)),
        pixel_type=pixel_type(page),
        pixel_spacing_mm=spacing,
        container_rgb=container_rgb(page),
        focal_planes=len(pyramid.planes),
        history=page.description if quality else "",
        absent_colour=pyramid.white,
    )
    if area.overlaps(pyramid.tile):
        if len(pyramid.pages) > 1:
            findings.append("coarser levels hold unstitched tiles: they are computed from the stitched level")
        edges = min(rows, DEFAULT_TILE), min(columns, DEFAULT_TILE)
        tiles = stitched_tiles(
            page, first.tiles, area, pyramid.grid(page), pyramid.planes, edges, pyramid.white
        )
        return (replace(first, tile_rows=edges[0], tile_columns=edges[1], tiles=tiles, container_rgb=None),)
    if pyramid.grid(page) == area.tiles and area.start == (0, 0):
        # a Ventana TIFF states its true size; a BIF's are whole tiles
        first = replace(
            first, rows=min(rows, int(page.imagelength)), columns=min(columns, int(page.imagewidth))
        )
    levels: list[Level] = []
    for number_of_level, coarse in enumerate(pyramid.pages):
        factor = 2**number_of_level
        if any(start % factor for start in area.start) or _depth(coarse) != len(pyramid.planes):
            findings.append("a coarser level cannot be cut into its areas or planes: it is computed")
            break
        size = first.rows // factor, first.columns // factor
        grid = pyramid.grid(coarse)
        expected = [-(-tiles // factor) for tiles in pyramid.grid(page)]
        if any(abs(have - want) > 1 for have, want in zip(grid, expected, strict=True)):
            raise DamagedSlide(f"page {coarse.index} is not half as large as the level before")
        if not all(size):
            break
        corner = area.start[0] // factor, area.start[1] // factor
        tiles_of = -(-size[0] // pyramid.tile[0]), -(-size[1] // pyramid.tile[1])
        part = window(grid, tiles_of, corner, pyramid.planes)
        stored = tile_map(coarse, pyramid.size_bytes, planes=len(pyramid.planes))
        levels.append(
            replace(
                first,
                index=number_of_level,
                rows=size[0],
                columns=size[1],
                tiles=part.tiles(stored),
                pixel_type=pixel_type(coarse),
                pixel_spacing_mm=(spacing[0] * factor, spacing[1] * factor) if spacing else None,
                downsample=float(factor),
                container_rgb=container_rgb(coarse),
                reference=part.reference(reference(coarse)),
                history=coarse.description,
            )
        )
    return tuple(levels)


def _associated(
    pages: Sequence["tifffile.TiffPage"], said: dict[str, str], findings: list[str]
) -> Sequence[AssociatedImage]:
    found: dict[Role, AssociatedImage] = {}
    for page in pages:
        words = page.description.replace("_", " ").strip("\0 ").lower()
        if words.startswith("label") and Role.OVERVIEW not in found:
            overview = side_image(page, Role.OVERVIEW, findings)
            if overview is None:
                continue
            found[Role.OVERVIEW] = overview
            boundary = whole(said.get("labelboundary"), 1, overview.rows - 1)
            if boundary is not None and overview.rows > overview.columns:
                found[Role.LABEL] = _upper_part(overview, boundary)
            else:
                findings.append("the label is part of the overview: where it ends is not stated")
        elif words == "thumbnail" and Role.THUMBNAIL not in found:
            thumbnail = side_image(page, Role.THUMBNAIL, findings)
            found |= {Role.THUMBNAIL: thumbnail} if thumbnail is not None else {}
        elif words.startswith("probability"):
            findings.append("the scanner's map of tissue (probability image) is left out")
    return tuple(found.values())


def _upper_part(overview: AssociatedImage, rows: int) -> AssociatedImage:
    read = overview.read
    return replace(
        overview,
        role=Role.LABEL,
        rows=rows,
        read=lambda: read()[:rows],
        encoded_bytes=overview.encoded_bytes * rows // overview.rows,
    )


def _acquired(text: str) -> datetime | None:
    for form in _DATES:
        try:
            return datetime.strptime(text.strip("\0 "), form)
        except ValueError:
            continue
    return None
