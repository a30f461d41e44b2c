# SPDX-License-Identifier: Apache-2.0
"""OME-TIFF, the exchange format of microscopy, and what Lunaphore's COMET writes in it: a
TIFF whose first ImageDescription is OME-XML.

Each Image is a region of its own, unless it is named as label, macro or thumbnail; each
time point is one too. TiffData says which page holds which plane, also in other files
beside this one; coarser levels are below a plane's page (SubIFDs). Traps:

- A renamed file still calls itself by its old name: the UUID decides.
- BinaryOnly: the XML itself is in a companion file.
- Palettes of grey planes are look-up tables of the viewer, as Bio-Formats takes them.
- Colours of more than 8 bits, which DICOM's slides cannot hold as such, become optical
  paths of their own, and so do other samples of a page: nothing is lost.
- PositionX and PositionY count in the stage's own frame: they place no origin on a slide.

Sources: the OME-TIFF specification (ome-model.readthedocs.io); files by Bio-Formats, QuPath
and tifffile. Of Lunaphore no file was at hand: it is told by its name in the XML.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import DamagedSlide
from converters.probe import Probe
from converters.readers.ome_files import Found, OmeFiles, document_of, other_files
from converters.readers.ome_xml import OmeChannel, OmeDocument, OmeImage
from converters.readers.tiff_pages import first_page, opened, spacing_mm
from converters.readers.tiff_pixels import Plane, SegmentCache
from converters.readers.tiff_pyramid import (
    Planes,
    build_levels,
    first_page_of,
    icc_profile,
    plausible,
    side_image,
    sub_pages,
)
from converters.readers.tiff_samples import PALETTE
from converters.slide import AssociatedImage, Illumination, OpticalPath, Role, Scan, Scene, Slide

if TYPE_CHECKING:
    import tifffile

ROLES = {"label": Role.LABEL, "macro": Role.OVERVIEW, "overview": Role.OVERVIEW, "thumbnail": Role.THUMBNAIL}
_ROLE = re.compile(r"(?:^|[^a-z0-9])(label|macro|overview|thumbnail)(?:[ _]image)?\s*$")
_COMET = re.compile(r"\bCOMET\b")
COLOURS = (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255)))
METHODS = {
    "brightfield": Illumination.BRIGHTFIELD,
    "transmitted": Illumination.BRIGHTFIELD,
    "fluorescence": Illumination.EPIFLUORESCENCE,
    "epifluorescence": Illumination.EPIFLUORESCENCE,
    "darkfield": Illumination.DARKFIELD,
    "phase": Illumination.PHASE_CONTRAST,
    "dic": Illumination.DIFFERENTIAL_INTERFERENCE_CONTRAST,
}
UNEVEN = 0.05
"""How much distances between focal planes may differ and still count as even."""


class OmeTiffReader:
    """See :class:`converters.registry.Reader`."""

    format = "ome-tiff"
    isolated = True  # floats are decoded to find their least and greatest

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        if "<OME" not in page.description[:8192]:
            return "ImageDescription is no OME-XML"
        return None

    @staticmethod
    def companions(probe: Probe) -> Sequence[str]:
        """The companion with the XML, and every file that it names. Raises MissingCompanion,
        DamagedSlide."""
        return other_files(probe)

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, MissingCompanion, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    document = document_of(probe, tiff.pages.first.description)
    files = OmeFiles(probe, tiff, document)
    try:
        return _built(files, document)
    except Exception:
        files.close()
        raise


def _built(files: OmeFiles, document: OmeDocument) -> Slide:
    findings: list[str] = []
    roles = [_role(image) for image in document.images]
    if Role.VOLUME not in roles:
        roles = [Role.VOLUME] * len(roles)
    if not roles:
        raise DamagedSlide("the OME-XML has no image")
    volumes = [image for image, role in zip(document.images, roles, strict=True) if role is Role.VOLUME]
    scenes: list[Scene] = []
    identifiers: dict[tuple[int, OpticalPath], str] = {}
    cache = SegmentCache()
    for image in map(files.as_stored, volumes):
        for scene in _scenes(image, files, cache, findings):
            paths = tuple(
                replace(path, identifier=identifiers.setdefault((place, path), str(len(identifiers) + 1)))
                for place, path in enumerate(scene.optical_paths)
            )
            acquired = scene.acquired if scene.acquired != volumes[0].acquired else None
            scenes.append(replace(scene, index=len(scenes), optical_paths=paths, acquired=acquired))
    associated: dict[Role, AssociatedImage] = {}
    for image, role in zip(document.images, roles, strict=True):
        if role is not Role.VOLUME and role not in associated:
            page = next(iter(files.planes(image).values())).page
            picture = side_image(page, role, findings)
            if picture is not None:
                associated[role] = picture
    return Slide(
        format=OmeTiffReader.format,
        sources=files.sources,
        scenes=tuple(scenes),
        associated=tuple(associated.values()),
        scan=_scan(document, volumes[0]),
        closer=files.close,
        findings=tuple(dict.fromkeys([*files.findings, *findings])),
    )


def _role(image: OmeImage) -> Role:
    named = _ROLE.search(image.name.lower())
    return ROLES[named[1]] if named and image.sizes == (1, 1, 1) else Role.VOLUME


def _scan(document: OmeDocument, image: OmeImage) -> Scan:
    lunaphore = "lunaphore" in document.text.lower()
    comet = "COMET" if lunaphore and _COMET.search(document.text) else ""
    return Scan(
        manufacturer=image.manufacturer or ("Lunaphore" if lunaphore else ""),
        model_name=image.model_name or comet,
        device_serial_number=image.device_serial_number,
        software_versions=(document.creator,) if document.creator else (),
        acquired=image.acquired,
        description=document.text,
        properties=document.properties,
    )


def _scenes(image: OmeImage, files: OmeFiles, cache: SegmentCache, findings: list[str]) -> Iterator[Scene]:
    """One scene for each time point."""
    found = files.planes(image)
    depth, _, times = image.sizes
    heights, order = _focal_planes(image) if depth > 1 else ((0.0,), [0])
    for time in range(times):
        finest = _finest(image, found, time, order)
        if all(plane is None for path in finest for plane in path):
            findings.append(f"time point {time + 1} has no planes: left out")
            continue
        if any(plane is None for path in finest for plane in path):
            findings.append("planes are missing: shown black")
        page = first_page_of(finest)
        spacing = _spacing(image, page, findings)
        levels, mappings = build_levels(list(_groups(finest)), spacing, findings, cache=cache, scan=True)
        paths = _optical_paths(image, finest, findings)
        if len(levels[0].tiles) and levels[0].pixel_type.samples_per_pixel == 3:
            paths = [replace(path, illumination=_illumination(image, 0, colour=True)) for path in paths]
        label = f"time point {time + 1}" if times > 1 else ""
        yield Scene(
            index=0,
            levels=levels,
            optical_paths=tuple(
                replace(path, real_world=mapping) for path, mapping in zip(paths, mappings, strict=True)
            ),
            focal_planes_um=heights,
            label=", ".join(filter(None, (image.name, label))),
            acquired=_acquired(image, time),
        )


def _acquired(image: OmeImage, time: int) -> datetime | None:
    delta = next((plane.delta_s for plane in image.planes if plane.t == time and plane.delta_s), None)
    if image.acquired is None or not time or delta is None:
        return image.acquired
    return image.acquired + timedelta(seconds=min(delta, 1e8))


def _spacing(image: OmeImage, page: "tifffile.TiffPage", findings: list[str]) -> tuple[float, float] | None:
    rows, columns, _ = image.spacing_um
    if rows is None or columns is None:
        return spacing_mm(page)
    stated = plausible((rows / 1000, columns / 1000))
    if stated is None:
        findings.append("PhysicalSizeX and PhysicalSizeY cannot be a pixel size: not used")
    return stated


def _focal_planes(image: OmeImage) -> tuple[tuple[float, ...], Sequence[int]]:
    """Heights in µm from the lowest plane on, none where they are not stated, and the planes'
    numbers in that order."""
    depth = image.sizes[0]
    first: dict[int, float] = {}
    for plane in image.planes:
        if plane.position_um is not None:
            first.setdefault(plane.z, plane.position_um)
    known = len(first) == depth == len(set(first.values()))
    order = sorted(range(depth), key=first.__getitem__) if known else list(range(depth))
    step = image.spacing_um[2]
    if step is None and known:
        heights = [first[z] - first[order[0]] for z in order]
        step = heights[-1] / (depth - 1)
        if (np.abs(np.diff(heights) - step) > UNEVEN * step).any():
            return tuple(heights), order
    return tuple(step * number for number in range(depth)) if step else (), order


def _finest(image: OmeImage, found: Found, time: int, order: Sequence[int]) -> list[list[Plane | None]]:
    _, channels, _ = image.sizes
    paths: list[list[Plane | None]] = []
    for channel in range(channels):
        planes = [found.get((channel, z, time)) for z in order]
        page = next((plane.page for plane in planes if plane is not None), None)
        for sample in _samples(page, image.samples):
            paths.append(
                [
                    plane and replace(plane, sample=plane.sample if sample is None else sample)
                    for plane in planes
                ]
            )
    if len(paths) == 1:
        return [[plane and _colour_table(plane) for plane in path] for path in paths]
    return [[plane and replace(plane, palette=False) for plane in path] for path in paths]


def _samples(page: "tifffile.TiffPage | None", samples: int) -> Sequence[int | None]:
    """The samples of a channel's page that become optical paths; None is all as one."""
    if samples == 1 or (samples in (3, 4) and (page is None or page.bitspersample == 8)):
        return (None,)
    return range(min(samples, 3) if samples == 4 else samples)


def _colour_table(plane: Plane) -> Plane:
    return replace(plane, palette=not _look_up_table(plane.page))


def _look_up_table(page: "tifffile.TiffPage") -> bool:
    """Whether the palette only colours grey values: no colour gets darker."""
    if int(page.photometric) != PALETTE or page.colormap is None:
        return False
    return bool((np.diff(page.colormap.astype(np.int64), axis=1) >= 0).all())


def _groups(finest: Planes) -> Iterator[Planes]:
    """The planes of every resolution. Raises DamagedSlide where planes have others."""
    yield finest
    below = [[None if plane is None else sub_pages(plane.page) for plane in path] for path in finest]
    counts = {len(pages) for path in below for pages in path if pages is not None}
    if len(counts) > 1:
        raise DamagedSlide("the planes have different numbers of coarser levels")
    for level in range(next(iter(counts))):
        yield [
            [
                None if plane is None or pages is None else replace(plane, page=pages[level])
                for plane, pages in zip(path, below_path, strict=True)
            ]
            for path, below_path in zip(finest, below, strict=True)
        ]


def _optical_paths(image: OmeImage, finest: Planes, findings: list[str]) -> list[OpticalPath]:
    """In the order of ``finest``, without identifiers."""
    each = len(finest) // len(image.channels)
    paths: list[OpticalPath] = []
    for number, channel in enumerate(image.channels):
        for sample in range(each):
            planes = finest[number * each + sample]
            page = next((plane.page for plane in planes if plane is not None), None)
            paths.append(_optical_path(image, number, channel, page, sample if each > 1 else None))
    if len(finest) == len(image.channels) and image.samples == 1 and not _is_told(image):
        findings.append("the file does not say how channels were lit: taken for fluorescence")
    return paths


def _is_told(image: OmeImage) -> bool:
    return all(
        channel.fluor or channel.emission_nm or channel.illumination or channel.contrast
        for channel in image.channels
    )


def _optical_path(
    image: OmeImage, number: int, channel: OmeChannel, page: "tifffile.TiffPage | None", sample: int | None
) -> OpticalPath:
    name, rgb = channel.name, channel.rgb
    if sample is not None and image.samples in (3, 4):
        colour, rgb = COLOURS[sample]
        name = f"{name} {colour}".strip()
    elif sample is not None:
        name = f"{name} sample {sample + 1}".strip()
    if rgb is None and page is not None and _look_up_table(page):
        red, green, blue = (int(value) >> 8 for value in page.colormap[:, -1])
        rgb = (red, green, blue)
    exposures = (plane.exposure_ms for plane in image.planes if plane.c == number)
    return OpticalPath(
        identifier="",
        description=name,
        objective_power=image.magnification,
        numerical_aperture=image.numerical_aperture,
        icc_profile=icc_profile(page) if page is not None else b"",
        illumination=_illumination(image, number, colour=image.samples in (3, 4)),
        excitation_nm=channel.excitation_nm,
        emission_nm=channel.emission_nm,
        exposure_ms=next((value for value in exposures if value), None),
        fluorophore=channel.fluor,
        display_rgb=rgb,
    )


def _illumination(image: OmeImage, number: int, *, colour: bool) -> Illumination:
    channel = image.channels[number]
    for word in (channel.contrast, channel.illumination):
        method = METHODS.get(word.lower())
        if method is not None:
            return method
    return Illumination.BRIGHTFIELD if colour else Illumination.EPIFLUORESCENCE
