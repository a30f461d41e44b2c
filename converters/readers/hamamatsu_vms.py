# SPDX-License-Identifier: Apache-2.0
"""Hamamatsu VMS and VMU: a text file that names a matrix of images, their map (a coarser
level) and the macro image. What to know:

- VMS: JPEGs of nearly 65535 pixels an edge, side by side, divided by restart markers
  (:mod:`converters.readers.jpeg_mosaic`). Where these lie is found by searching: the
  optimisation file lists some of them, and not reliably, so it is not read.
- VMU: one NGR, whose colours of 12 bits become 8 here.
- ``ImageFile`` is column 0 and row 0; ``ImageFile(z,x,y)`` is another focal plane, z
  counted upwards. The map exists for the first alone.
- The label is part of the macro image; nothing says which, so there is no LABEL.

Source: openslide.org/formats/hamamatsu.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from converters.errors import DamagedSlide, UnreadableSlide, UnsupportedPixels
from converters.probe import Probe
from converters.readers.hamamatsu_index import (
    bare_name,
    companion,
    index_count,
    index_number,
    read_index,
    section_of,
)
from converters.readers.jpeg_associated import jpeg_associated
from converters.readers.ndpi_pages import SLIDE_LENGTH_MM, SLIDE_WIDTH_MM, origin_mm
from converters.readers.vms_levels import ImageFile, check_ngr, jpeg_level, ngr_level
from converters.slide import OpticalPath, Role, Scan, Scene, Slide, SourceFile

VMS, VMU = "Virtual Microscope Specimen", "Uncompressed Virtual Microscope Specimen"
MAX_FILES = 250
MAX_LAYER_SPACING_NM = 100_000
_IMAGE_FILE = re.compile(r"imagefile(?:\((\d{1,4})(?:,(\d{1,4}))?(?:,(\d{1,4}))?\))?$")
Place = tuple[int, int, int]
"""(Layer, row, column) of an image file, from 0."""


@dataclass(frozen=True, eq=False)
class Parts:
    """What the index names, as bare names; ``map`` and ``macro`` may be empty."""

    section: str
    index: Mapping[str, str]
    shape: Place
    images: Mapping[Place, str]
    map: str
    macro: str
    optimisation: str


class HamamatsuVmsReader:
    """See :class:`converters.registry.Reader`."""

    format = "hamamatsu-vms"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        known = section_of(probe.head) in (VMS, VMU)
        return None if known else f"does not begin with [{VMS}] or [{VMU}]"

    @staticmethod
    def companions(probe: Probe) -> Sequence[str]:
        """Image files by layer, row and column, map, macro, and the optimisation file if it
        exists. Raises MissingCompanion, DamagedSlide."""
        parts = _parts(probe)
        folder = probe.path.parent
        names = []
        for place in sorted(parts.images):
            names.append(parts.images[place])
            companion(folder, names[-1], _name(place))
        for name, what in ((parts.map, "map image"), (parts.macro, "macro image")):
            if name:
                companion(folder, name, what)
                names.append(name)
        if parts.optimisation and (folder / parts.optimisation).is_file():
            names.append(parts.optimisation)
        return tuple(dict.fromkeys(names))

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises MissingCompanion, DamagedSlide, UnsupportedPixels."""
        sources = [SourceFile(probe.path, probe.size_bytes, probe.modified)]
        for name in HamamatsuVmsReader.companions(probe):
            path = probe.path.parent / name
            status = path.stat()
            sources.append(SourceFile(path, status.st_size, status.st_mtime, name))
        with ExitStack() as stack:
            return _slide(_parts(probe), sources, stack)


def _name(place: Place) -> str:
    layer, row, column = place
    return f"image file of column {column}, row {row}" + (f", layer {layer}" if layer else "")


def _parts(probe: Probe) -> Parts:
    section = section_of(probe.head)
    index = read_index(probe.path)
    rows = index_count(index, "nojpegrows", MAX_FILES) if section == VMS else 1
    columns = index_count(index, "nojpegcolumns", MAX_FILES) if section == VMS else 1
    layers = index_count(index, "nolayers", MAX_FILES) if "nolayers" in index else 1
    if rows * columns * layers > MAX_FILES:
        raise UnsupportedPixels(f"the slide has more than {MAX_FILES} image files")
    images: dict[Place, str] = {}
    for key, value in index.items():
        found = _IMAGE_FILE.match(key)
        if found is None:
            continue
        numbers = [int(text) for text in found.groups() if text is not None]
        layer = numbers[0] if len(numbers) in (1, 3) else 0
        column, row = numbers[-2:] if len(numbers) > 1 else (0, 0)
        if layer >= layers or row >= rows or column >= columns:
            raise DamagedSlide("the index file names an image outside of the matrix")
        if (layer, row, column) in images:
            raise DamagedSlide("the index file names an image twice")
        images[layer, row, column] = bare_name(value)
    for layer in range(layers):
        for row in range(rows):
            for column in range(columns):
                if (layer, row, column) not in images:
                    raise DamagedSlide(f"the index file names no {_name((layer, row, column))}")
    others = {
        key: bare_name(index[key]) if index.get(key) else ""
        for key in ("mapfile", "macroimage", "optimisationfile")
    }
    return Parts(section, index, (layers, rows, columns), images, *others.values())


def _slide(parts: Parts, sources: Sequence[SourceFile], stack: ExitStack) -> Slide:
    findings = ["the time of scanning is not stated"]
    numbers = {source.relative_name: number for number, source in enumerate(sources) if number}

    def opened(name: str, what: str) -> ImageFile:
        number = numbers[name]
        try:
            descriptor = stack.enter_context(sources[number].path.open("rb")).fileno()
        except OSError as error:
            raise UnreadableSlide(f"cannot be read: {os.strerror(error.errno or 0)}") from None
        return ImageFile(descriptor, number, sources[number].size_bytes, f"the {what}")

    layers, rows, columns = parts.shape
    matrices = [
        [
            [
                opened(parts.images[layer, row, column], _name((layer, row, column)))
                for column in range(columns)
            ]
            for row in range(rows)
        ]
        for layer in range(layers)
    ]
    read_level = jpeg_level if parts.section == VMS else ngr_level
    if parts.section == VMU:
        check_ngr(parts.index)
        findings.append("colours of 12 bits were reduced to the 8 that DICOM has for slides")
    levels = [read_level(matrices, parts.index, None)]
    if parts.map and layers == 1:
        levels.append(read_level([[[opened(parts.map, "map image")]]], parts.index, levels[0]))
    finest = levels[0]
    size_mm = finest.pixel_spacing_mm and (
        finest.rows * finest.pixel_spacing_mm[0],
        finest.columns * finest.pixel_spacing_mm[1],
    )
    centre_nm = tuple(index_number(parts.index, f"{axis}offsetfromslidecentre") for axis in "xy")
    scene = Scene(
        0,
        tuple(levels),
        (OpticalPath(objective_power=index_number(parts.index, "sourcelens")),),
        origin_mm((centre_nm[0], centre_nm[1]), size_mm, _glass_mm(parts.index)),
        _heights_um(parts.index, layers),
    )
    macro = opened(parts.macro, "macro image") if parts.macro else None
    return Slide(
        format=HamamatsuVmsReader.format,
        sources=tuple(sources),
        scenes=(scene,),
        associated=()
        if macro is None
        else (jpeg_associated(macro.descriptor, 0, macro.size_bytes, Role.OVERVIEW),),
        scan=_scan(parts.index),
        closer=stack.pop_all().close,
        findings=tuple(findings),
    )


def _heights_um(index: Mapping[str, str], layers: int) -> Sequence[float]:
    """Of the focal planes from the first; none where their distance is not stated. (Slides
    of one layer state a number that means nothing.)"""
    spacing_nm = index_number(index, "layerspacing") or 0.0
    if layers > 1 and not 0 < spacing_nm < MAX_LAYER_SPACING_NM:
        return ()
    return tuple(layer * spacing_nm / 1000 if layer else 0.0 for layer in range(layers))


def _glass_mm(index: Mapping[str, str]) -> tuple[float, float]:
    """(Width, length): the macro image shows the whole glass."""
    sizes = [index_number(index, key) or 0.0 for key in ("physicalmacroheight", "physicalmacrowidth")]
    width, length = (size / 1e6 for size in sizes)
    return (width, length) if 20 < width < 60 and 60 < length < 90 else (SLIDE_WIDTH_MM, SLIDE_LENGTH_MM)


def _scan(index: Mapping[str, str]) -> Scan:
    software = index.get("creator", "")
    return Scan(
        manufacturer="Hamamatsu",
        model_name=index.get("hardwaremodel", ""),
        device_serial_number=index.get("hardwareserial", ""),
        software_versions=(software[:64],) if software else (),
        description="\n".join(f"{key}={value}" for key, value in index.items()),
        properties=dict(index),
    )
