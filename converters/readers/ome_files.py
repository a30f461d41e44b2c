# SPDX-License-Identifier: Apache-2.0
"""The files of an OME-TIFF, and the planes in them.

TiffData names, for runs of planes, a page and a file. Names count from the folder of the
main file and must stay in it. A run fills the planes in the order that DimensionOrder says.

Source: the OME-TIFF specification (ome-model.readthedocs.io).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import tifffile

from converters.errors import DamagedSlide, MissingCompanion
from converters.probe import TIFF_FAULTS, Probe
from converters.readers.ome_xml import OmeDocument, OmeImage, TiffData, parse_ome
from converters.readers.tiff_pages import all_pages, first_page
from converters.readers.tiff_samples import RGB, YCBCR, Plane
from converters.readers.vendor_xml import MAX_XML_BYTES
from converters.slide import SourceFile

MAX_FILES = 250  # TileMap numbers files in 8 bits
MAIN = ""
Found = dict[tuple[int, int, int], Plane]
"""Planes by (channel, z, t)."""


def document_of(probe: Probe, description: str) -> OmeDocument:
    """The OME-XML of the main file, or of the companion that it names. Raises DamagedSlide,
    MissingCompanion."""
    document = parse_ome(description)
    if not document.metadata_file:
        return document
    path = probe.path.parent / _checked(document.metadata_file)
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise DamagedSlide(f"the companion is longer than {MAX_XML_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise MissingCompanion("the companion with the OME-XML") from None
    found = parse_ome(text)
    return OmeDocument(
        found.creator,
        document.uuid,
        found.images,
        document.metadata_file,
        found.text,
        found.properties,
    )


def other_files(probe: Probe) -> Sequence[str]:
    """Names of the files beside the main one. Raises DamagedSlide, MissingCompanion."""
    page = first_page(probe)
    if isinstance(page, str):
        raise DamagedSlide(page)
    document = document_of(probe, page.description)
    names = [document.metadata_file] if document.metadata_file else []
    images = _names(probe, document)
    for number, name in enumerate(images, 1):
        if not (probe.path.parent / name).is_file():
            raise MissingCompanion(f"image file {number} of the {len(images)} beside the first")
    return (*names, *images)


def _checked(name: str) -> str:
    """A name that leads to a file in the folder of the main file or below."""
    parts = PurePosixPath(name).parts
    bad = not parts or len(name) > 1024 or "\\" in name or "\0" in name or ":" in name
    if bad or name.startswith("/") or ".." in parts:
        raise DamagedSlide("the OME-XML names a file outside of the slide's folder")
    return str(PurePosixPath(name))


def _is_main(data: TiffData, probe: Probe, document: OmeDocument) -> bool:
    if not data.file_name or data.file_name == probe.path.name:
        return True
    return bool(document.uuid) and data.uuid == document.uuid


def _names(probe: Probe, document: OmeDocument) -> list[str]:
    """The other image files, each once, in the order of the XML."""
    named = dict.fromkeys(
        data.file_name
        for image in document.images
        for data in image.data
        if not _is_main(data, probe, document)
    )
    all_data = [data for image in document.images for data in image.data]
    alone = len(named) == 1 and len({data.file_name for data in all_data}) == 1
    if alone and not (probe.path.parent / _checked(next(iter(named)))).exists():
        return []  # one file, renamed, that has no UUID
    if len(named) > MAX_FILES:
        raise DamagedSlide(f"more than {MAX_FILES} files")
    return [_checked(name) for name in named]


class OmeFiles:
    """The open files of a slide; :meth:`close` closes them."""

    def __init__(self, probe: Probe, tiff: "tifffile.TiffFile", document: OmeDocument) -> None:
        """Raises MissingCompanion, DamagedSlide."""
        self._probe, self._document = probe, document
        self._open = [tiff]
        self.findings: list[str] = []
        self.sources = [SourceFile(probe.path, probe.size_bytes, probe.modified)]
        self._pages = {MAIN: all_pages(tiff)}
        self._numbers = {MAIN: 0}
        self._names = _names(probe, document)
        try:
            for number, name in enumerate(self._names, 1):
                self._add(name, f"image file {number} of the {len(self._names)} beside the first")
        except Exception:
            self.close()
            raise

    def _add(self, name: str, what: str) -> None:
        path: Path = self._probe.path.parent / name
        try:
            status = path.stat()
            tiff = tifffile.TiffFile(path)
        except FileNotFoundError:
            raise MissingCompanion(what) from None
        except TIFF_FAULTS as error:
            raise DamagedSlide(f"{what} is no TIFF, or damaged") from error
        self._open.append(tiff)
        self._numbers[name] = len(self.sources)
        self.sources.append(SourceFile(path, status.st_size, status.st_mtime, name))
        self._pages[name] = all_pages(tiff)

    def close(self) -> None:
        for tiff in self._open:
            tiff.close()

    def as_stored(self, image: OmeImage) -> OmeImage:
        """The image, with channels that are the colours of one page taken as one channel:
        some writers leave SamplesPerPixel out."""
        depth, channels, times = image.sizes
        page = next(iter(self.planes(image).values())).page
        samples = int(page.samplesperpixel)
        colours = int(page.photometric) in (RGB, YCBCR) and samples in (3, 4)
        if image.samples != 1 or samples != channels or not colours:
            return image
        channel = replace(image.channels[0], name="", samples=samples, rgb=None)
        return replace(image, sizes=(depth, 1, times), samples=samples, channels=(channel,))

    def planes(self, image: OmeImage) -> Found:
        """The image's planes that there are. Raises DamagedSlide where the XML and the
        pages contradict each other, or no plane is there."""
        depth, channels, times = image.sizes
        sizes = {"Z": depth, "C": channels, "T": times}
        axes = image.order[2:]
        total = depth * channels * times
        found: Found = {}
        for data in image.data or (TiffData(),):
            main = not self._names or _is_main(data, self._probe, self._document)
            name = MAIN if main else _checked(data.file_name)
            pages = self._pages[name]
            ifd = data.ifd or 0
            count = data.count
            if count is None:
                count = 1 if data.ifd is not None else min(total, len(pages))
            first_c = data.first_c
            if first_c >= channels and image.samples > 1:
                first_c //= image.samples  # counted in samples
            place = {"Z": data.first_z, "C": first_c, "T": data.first_t}
            if any(place[axis] >= sizes[axis] for axis in axes) or count > total:
                raise DamagedSlide("the OME-XML places planes outside of their image")
            if ifd + count > len(pages):
                raise DamagedSlide("the OME-XML counts more planes than the file has pages")
            start = place[axes[0]] + sizes[axes[0]] * (place[axes[1]] + sizes[axes[1]] * place[axes[2]])
            if start + count > total:
                raise DamagedSlide("the OME-XML places planes outside of their image")
            for step in range(count):
                self._place(image, found, start + step, Plane(pages[ifd + step], self._numbers[name]))
        if not found:
            raise DamagedSlide("an image of the OME-XML has no planes")
        return found

    def _place(self, image: OmeImage, found: Found, at: int, plane: Plane) -> None:
        depth, channels, times = image.sizes
        sizes = {"Z": depth, "C": channels, "T": times}
        place = {}
        for axis in image.order[2:]:
            at, place[axis] = divmod(at, sizes[axis])
        page = plane.page
        if (page.imagelength, page.imagewidth) != (image.rows, image.columns):
            raise DamagedSlide("the OME-XML and the pages differ in size")
        samples = int(page.samplesperpixel)
        if samples == image.samples:
            found[place["C"], place["Z"], place["T"]] = plane
        elif image.samples == 1 and samples == channels and place["C"] == 0:
            for sample in range(samples):  # the channels as samples of one page
                key = (sample, place["Z"], place["T"])
                found[key] = Plane(page, plane.source, sample)
        else:
            raise DamagedSlide("the OME-XML and the pages differ in samples per pixel")
