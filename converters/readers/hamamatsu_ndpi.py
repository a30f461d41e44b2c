# SPDX-License-Identifier: Apache-2.0
"""Hamamatsu NDPI: TIFF-like directories, one JPEG for each level, and NDPIS, a text file
that makes several of them the channels of one slide. What to know:

- Each JPEG is one strip; restart markers divide it (:mod:`converters.readers.jpeg_mosaic`).
  Small levels have none, and their size in the directory may be off by rounding.
- A JPEG of more than 65535 columns or rows has 0 for its size.
- SourceLens tells what a page is: above 0 a level, -1 the macro image, -2 a map of where
  tissue lies (no image of DICOM's: left out).
- Pages of equal size at several heights are focal planes.
- The label is part of the macro image; no tag says which, so there is no LABEL.
- In a set each channel is a file. A colour JPEG there holds one channel in one of its
  colours, the one of its wavelength, and must be decoded. Some files leave the wavelength
  out; the shading data in the property map tell the colour there.
- Levels in JPEG XR are one piece or tiles (TileOffsets), unlike all others.

Sources: openslide.org/formats/hamamatsu; Bio-Formats' notes on NDPIS.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from converters.errors import DamagedSlide, UnreadableSlide
from converters.probe import Probe
from converters.readers.hamamatsu_index import bare_name, companion, index_count, read_index, section_of
from converters.readers.jpeg_associated import jpeg_associated
from converters.readers.left_out import unless_damaged
from converters.readers.ndpi_directory import HEADER, why_no_ndpi
from converters.readers.ndpi_levels import levels_of
from converters.readers.ndpi_pages import JPEG, NdpiFile, optical_path, origin_mm, read_ndpi, scan_of
from converters.slide import AssociatedImage, Role, Scene, Slide, SourceFile

SET_SECTION = "NanoZoomer Digital Pathology Image Set"
MAX_CHANNELS = 64


class HamamatsuNdpiReader:
    """See :class:`converters.registry.Reader`."""

    format = "hamamatsu-ndpi"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        if probe.head[:4] != HEADER:
            return "not a little-endian TIFF"
        with probe.path.open("rb") as file:
            return why_no_ndpi(file.fileno(), probe.size_bytes)

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        source = SourceFile(probe.path, probe.size_bytes, probe.modified)
        return _slide(HamamatsuNdpiReader.format, (source,), (source,))


class HamamatsuNdpisReader:
    """See :class:`converters.registry.Reader`."""

    format = "hamamatsu-ndpis"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        return None if section_of(probe.head) == SET_SECTION else f"does not begin with [{SET_SECTION}]"

    @staticmethod
    def companions(probe: Probe) -> Sequence[str]:
        """The NDPI of each channel. Raises MissingCompanion, DamagedSlide."""
        names = _set_names(probe.path)
        for number, name in enumerate(names, start=1):
            companion(probe.path.parent, name, f"NDPI of channel {number}")
        return names

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises MissingCompanion, DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        sources = [SourceFile(probe.path, probe.size_bytes, probe.modified)]
        for name in HamamatsuNdpisReader.companions(probe):
            path = probe.path.parent / name
            status = path.stat()
            sources.append(SourceFile(path, status.st_size, status.st_mtime, name))
        return _slide(HamamatsuNdpisReader.format, sources, sources[1:])


def _set_names(path: Path) -> Sequence[str]:
    index = read_index(path)
    count = index_count(index, "noimages", MAX_CHANNELS)
    names = [bare_name(index.get(f"image{number}", "")) for number in range(count)]
    if len(set(names)) < count:
        raise DamagedSlide("the index file names a file twice")
    return names


def _slide(form: str, sources: Sequence[SourceFile], channels: Sequence[SourceFile]) -> Slide:
    with ExitStack() as stack:
        files = [_file(stack, source) for source in channels]
        findings = [text for file in files for text in file.findings]
        numbers = [sources.index(source) for source in channels]
        levels = levels_of(files, numbers, findings)
        finest = levels[0]
        paths = tuple(optical_path(file, str(number)) for number, file in enumerate(files, start=1))
        heights = [page.height_nm / 1000 for page in files[0].levels[0]]
        gaps = [upper - lower for lower, upper in pairwise(heights)]
        if gaps and max(gaps) - min(gaps) > 0.01 * max(gaps):
            findings.append("the focal planes are not evenly spaced")
        scan = scan_of(files[0])
        if scan.acquired is None:
            findings.append("the time of scanning is not stated")
        first = files[0].first
        size_mm = finest.pixel_spacing_mm and (
            finest.rows * finest.pixel_spacing_mm[0],
            finest.columns * finest.pixel_spacing_mm[1],
        )
        scene = Scene(
            0,
            levels,
            paths,
            origin_mm((first.number_of(65422), first.number_of(65423)), size_mm),
            tuple(height - heights[0] for height in heights),
        )
        return Slide(
            format=form,
            sources=tuple(sources),
            scenes=(scene,),
            associated=_associated(files, findings),
            scan=scan,
            closer=stack.pop_all().close,
            findings=tuple(dict.fromkeys(findings)),
        )


def _file(stack: ExitStack, source: SourceFile) -> NdpiFile:
    try:
        descriptor = stack.enter_context(source.path.open("rb")).fileno()
    except OSError as error:
        raise UnreadableSlide(f"cannot be read: {os.strerror(error.errno or 0)}") from None
    why = why_no_ndpi(descriptor, source.size_bytes)
    if why is not None:
        raise DamagedSlide(f"a file of the slide is no NDPI: {why}")
    return read_ndpi(descriptor, source.size_bytes)


def _associated(files: Sequence[NdpiFile], findings: list[str]) -> Sequence[AssociatedImage]:
    macro = next((file.macro for file in files if file.macro is not None), None)
    if macro is None or macro.compression != JPEG:
        return ()
    stop = macro.offset + macro.size_bytes
    place = (macro.directory.descriptor, macro.offset, stop)
    return unless_damaged(Role.OVERVIEW, findings, lambda: jpeg_associated(*place, Role.OVERVIEW))
