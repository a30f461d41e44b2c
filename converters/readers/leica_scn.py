# SPDX-License-Identifier: Apache-2.0
"""Leica SCN (SCN400, SCN400F): a BigTIFF whose first ImageDescription is the XML of
``converters.readers.leica_scn_description``; it names the pages of every image.

- The image that covers the whole collection is the macro photograph; each other one is a
  scanned region, with a pyramid, an objective and a time of its own: a scene. Regions
  are never pasted onto a common canvas.
- Fluorescence has a page of grey values for each channel, stacks one for each plane;
  planes of a level that share their JPEG tables are copied together.
- A pixel's size is the region's size in nm by its number of pixels. Levels are a quarter
  of the one before, cut off or rounded up.
- Nothing says at which side the glass bears its label. Places are given as for all other
  slides (label to the left, see ``aperio_description.origin_mm``), the collection being
  the glass: true among the regions of a slide.
- Heights of planes grow with z; spacingZ is their distance.

Sources: openslide.org/formats/leica; TIFF 6.0; TIFF Technical Note 2.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import DamagedSlide
from converters.probe import Probe
from converters.readers.leica_scn_description import Description, Dimension, Image, parse_description
from converters.readers.tiff_pages import all_pages, first_page, opened
from converters.readers.tiff_pixels import Plane, SegmentCache, level_tiles
from converters.readers.tiff_pyramid import side_image
from converters.readers.tile_grid import scale
from converters.slide import (
    AssociatedImage,
    Illumination,
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

NAMESPACE = "http://www.leica-microsystems.com/scn/2010/"
ICC = 34675


class LeicaScnReader:
    """See :class:`converters.registry.Reader`."""

    format = "leica-scn"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        if NAMESPACE not in page.description[:4096]:
            return "ImageDescription is not of Leica's SCN schema"
        if not page.is_tiled:
            return "the first page is not tiled"
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = all_pages(tiff)
    words = parse_description(pages[0].description)
    regions = [image for image in words.images if not image.is_macro]
    if not regions:
        raise DamagedSlide("the description of the slide lists no scanned region")
    findings: list[str] = []
    known: list[OpticalPath] = []
    acquired = regions[0].acquired
    if acquired is None:
        findings.append("the time of scanning is not stated")
    scenes = tuple(
        _scene(number, image, words, pages, known, findings) for number, image in enumerate(regions)
    )
    return Slide(
        format=LeicaScnReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=tuple(
            replace(scene, acquired=image.acquired) if image.acquired != acquired else scene
            for scene, image in zip(scenes, regions, strict=True)
        ),
        associated=_associated(words, pages, findings),
        scan=Scan(
            manufacturer="Leica" if "leica" in regions[0].model.lower() else "",
            model_name=regions[0].model,
            software_versions=regions[0].versions,
            acquired=acquired,
            barcode=words.barcode,
            description=pages[0].description,
            properties=words.properties,
        ),
        closer=tiff.close,
        findings=tuple(dict.fromkeys(findings)),
    )


def _associated(
    words: Description, pages: Sequence["tifffile.TiffPage"], findings: list[str]
) -> Sequence[AssociatedImage]:
    """The macro photograph at its finest, of several the one in bright field; the label."""
    found: list[AssociatedImage] = []
    if words.label_page is not None:
        if words.label_page >= len(pages):
            raise DamagedSlide("the description names a page that the file lacks")
        label = side_image(pages[words.label_page], Role.LABEL, findings)
        found += [label] if label is not None else []
    macros = sorted(
        (image for image in words.images if image.is_macro),
        key=lambda image: image.illumination is not Illumination.BRIGHTFIELD,
    )
    if not macros:
        return tuple(found)
    if len(macros) > 1:
        findings.append("there are several macro photographs: the one in bright field is taken")
    finest = max(macros[0].dimensions, key=lambda one: one.rows * one.columns)
    macro = side_image(_page(finest, pages), Role.OVERVIEW, findings)
    return (*found, macro) if macro is not None else tuple(found)


def _page(dimension: Dimension, pages: Sequence["tifffile.TiffPage"]) -> "tifffile.TiffPage":
    if dimension.page >= len(pages):
        raise DamagedSlide("the description names a page that the file lacks")
    page = pages[dimension.page]
    if (page.imagelength, page.imagewidth) != (dimension.rows, dimension.columns):
        raise DamagedSlide(f"page {dimension.page} is not as large as the description says")
    return page


def _scene(
    number: int,
    image: Image,
    words: Description,
    pages: Sequence["tifffile.TiffPage"],
    known: list[OpticalPath],
    findings: list[str],
) -> Scene:
    channels = sorted({one.channel for one in image.dimensions})
    planes = sorted({one.plane for one in image.dimensions})
    heights: tuple[float, ...] = (0.0,)
    if len(planes) > 1:  # without a distance nobody knows
        heights = tuple(plane * image.spacing_z_nm / 1000 for plane in planes if image.spacing_z_nm)
    levels = _levels(image, channels, planes, pages, findings)
    icc = _page(image.dimensions[0], pages).tags.get(ICC)
    profile = bytes(icc.value) if icc is not None else b""
    paths = []
    for channel in channels:
        path = replace(image.path(channel), icc_profile=profile)
        if path not in known:
            known.append(path)
        paths.append(replace(path, identifier=str(known.index(path) + 1)))
    return Scene(
        index=number,
        levels=levels,
        optical_paths=tuple(paths),
        origin_mm=(
            (words.size_nm[0] - image.offset_nm[0]) / 1e6,
            (words.size_nm[1] - image.offset_nm[1]) / 1e6,
        ),
        focal_planes_um=heights,
        label=image.name,
    )


def _levels(
    image: Image,
    channels: Sequence[int],
    planes: Sequence[int],
    pages: Sequence["tifffile.TiffPage"],
    findings: list[str],
) -> Sequence[Level]:
    levels: list[Level] = []
    cache = SegmentCache()
    for resolution in sorted({one.resolution for one in image.dimensions}):
        found = {
            (one.channel, one.plane): _page(one, pages)
            for one in image.dimensions
            if one.resolution == resolution
        }
        if levels and len(found) < len(channels) * len(planes):
            findings.append("a coarser level lacks channels or planes: it is left out")
            continue
        size = next(one for one in image.dimensions if one.resolution == resolution)
        rows, columns = size.rows, size.columns
        if levels and not (rows <= levels[-1].rows and columns < levels[-1].columns):
            raise DamagedSlide("the levels of an image do not shrink")
        stack = [
            [Plane(found[at]) if (at := (channel, plane)) in found else None for plane in planes]
            for channel in channels
        ]
        tiles = level_tiles(stack, cache=cache)
        findings.extend(tiles.findings)
        down, across = scale((levels[0].rows, levels[0].columns), (rows, columns)) if levels else (1.0, 1.0)
        finest = levels[0] if levels else None
        spacing = (
            image.size_nm[0] / (finest.rows if finest else rows) / 1e6,
            image.size_nm[1] / (finest.columns if finest else columns) / 1e6,
        )
        levels.append(
            Level(
                index=len(levels),
                rows=rows,
                columns=columns,
                tile_rows=tiles.tile_rows,
                tile_columns=tiles.tile_columns,
                tiles=tiles.tiles,
                pixel_type=tiles.pixel_type,
                pixel_spacing_mm=(spacing[0] * down, spacing[1] * across),
                downsample=across,
                container_rgb=tiles.container_rgb,
                optical_paths=len(channels),
                focal_planes=len(planes),
                reference=tiles.reference,
            )
        )
    return tuple(levels)
