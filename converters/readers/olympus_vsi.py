# SPDX-License-Identifier: Apache-2.0
"""Olympus VSI: a TIFF with a tree of tags (cellSens, VS-ASW), the images beside it.

``name.vsi`` explains image stacks; each has its tiles in ``_name_/stack<n>/frame_t_<t>.ets``.
Nothing in the .vsi says which stack is which file: a stack's size must fit the tiles, and
where several fit, the order decides, as in cellSens. A file that fits no stack is told in a
finding and left out (cellSens 4.1 leaves more in a stack's folder than the stack counts,
and OlyVIA shows one); a stack without a file is a refusal. Every image stack becomes a scene
(every time point too), label, macro and overview stacks become associated images.

Tiles in JPEG and JPEG 2000 are copied; their colours are what the codestreams say (real files
hold JFIF, YCbCr). Raw, PNG and BMP tiles are decoded. A .vsi whose image is in the TIFF
itself, with no external stack, is left to the reader of plain TIFFs. The stage positions
(``origin``) are kept as properties only: the file does not say where the glass lies in them.

Sources: slideio, drivers/vsi (BSD-3); Bio-Formats' cellSens reader (facts); see
:mod:`olympus_tags`, :mod:`olympus_words`, :mod:`olympus_ets`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import DamagedSlide, MissingCompanion
from converters.probe import Probe
from converters.readers.olympus_ets import EtsFile, read_ets
from converters.readers.olympus_levels import Axes, axes_of, levels
from converters.readers.olympus_pictures import page_pictures, role_of, stack_picture
from converters.readers.olympus_tags import read_tree, starts_like_vsi
from converters.readers.olympus_words import (
    DEFAULT_IMAGE,
    EXTENDED_FOCUS,
    KINDS,
    MACRO,
    OVERVIEW,
    Stack,
    optical_paths,
    scan,
    stacks,
)
from converters.readers.tiff_pages import all_pages, opened, tag_text
from converters.slide import AssociatedImage, OpticalPath, Role, Scene, Slide, SourceFile

if TYPE_CHECKING:
    import tifffile

FOLDER = re.compile(r"stack(\d{1,9})")
FRAME = re.compile(r"frame_t_?(\d{0,9})\.ets", re.IGNORECASE)
SCENES = (DEFAULT_IMAGE, OVERVIEW, EXTENDED_FOCUS, MACRO)
MAX_FILES = 250
MAX_ENTRIES = 100_000
Frames = list[str]
"""Names of the .ets files of one stack folder, by time point."""


class OlympusVsiReader:
    """See :class:`converters.registry.Reader`."""

    format = "olympus-vsi"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        if not starts_like_vsi(probe.head):
            return "a TIFF starts it, but no tags of a VSI" if probe.head[:2] == b"II" else "not a VSI"
        try:
            found = stacks(read_tree(probe.path))
        except (DamagedSlide, OSError, ValueError):
            return None  # ours, and damaged: opening it says so
        return None if any(stack.external for stack in found) else "a VSI whose image is in the TIFF itself"

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, MissingCompanion, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _Opening(probe, tiff).slide())

    @staticmethod
    def companions(probe: Probe) -> Sequence[str]:
        """Every .ets file beside the .vsi, those that fit no stack too. Raises
        MissingCompanion when there are fewer than stacks."""
        wanted = sum(stack.external for stack in stacks(read_tree(probe.path)))
        names = [name for frames in image_files(probe.path) for name in frames]
        if len(names) < wanted:
            raise MissingCompanion(f"image file (.ets) {len(names) + 1} of {wanted}")
        return names


def image_files(path: Path) -> list[Frames]:
    """Names of the .ets files, relative to the .vsi's folder, by stack and time point."""
    home = f"_{path.stem}_"
    folders: list[tuple[int, Frames]] = []
    seen = 0
    try:
        for folder in sorted((path.parent / home).iterdir()):
            number = FOLDER.fullmatch(folder.name)
            if number is None or not folder.is_dir():
                continue
            frames = []
            for file in folder.iterdir():
                seen += 1
                if seen > MAX_ENTRIES:
                    raise DamagedSlide("the slide's folder holds impossibly many files")
                place = FRAME.fullmatch(file.name)
                if place is not None:
                    frames.append((int(place[1] or 0), f"{home}/{folder.name}/{file.name}"))
            folders.append((int(number[1]), [name for _, name in sorted(frames)]))
    except (FileNotFoundError, NotADirectoryError):
        return []
    if sum(len(frames) for _, frames in folders) > MAX_FILES:
        raise DamagedSlide(f"the slide has more than {MAX_FILES} image files")
    return [frames for _, frames in sorted(folders) if frames]


@dataclass
class _Opening:
    """A slide being put together; ``sources`` are numbered as the tiles number them."""

    probe: Probe
    tiff: "tifffile.TiffFile"
    findings: list[str] = field(default_factory=list)
    files: list[list[EtsFile]] = field(default_factory=list)
    numbers: dict[Path, int] = field(default_factory=dict)
    sources: list[SourceFile] = field(default_factory=list)
    paths: list[OpticalPath] = field(default_factory=list)

    def slide(self) -> Slide:
        pages = all_pages(self.tiff)
        root = read_tree(self.probe.path)
        found = stacks(root)
        if root.value:
            self.findings.append("some tags of the file cannot be read")
        self.sources.append(SourceFile(self.probe.path, self.probe.size_bytes, self.probe.modified))
        pairs = self._pairs([stack for stack in found if stack.external])
        scenes: list[Scene] = []
        images: list[AssociatedImage] = []
        main = None
        macros = any(stack.kind == MACRO and role_of(stack) is Role.OVERVIEW for stack, _ in pairs)
        for stack, files in pairs:
            axes = axes_of(stack, files[0])
            role = role_of(stack)
            if role is Role.OVERVIEW and macros and stack.kind != MACRO:
                role = None  # the macro image shows all of the glass
            if role is not None and len(pairs) > 1 and all(image.role is not role for image in images):
                picture = stack_picture(stack, files[0], axes, role) if len(files) == 1 else None
                if picture is not None:
                    images.append(picture)
                    continue
            kind = KINDS.get(stack.kind, "a stack of an unknown type")
            if stack.kind not in SCENES:
                self.findings.append(f"{kind} belongs to the slide: it is no image of it, and was left out")
                continue
            if stack.kind != DEFAULT_IMAGE and stack.pixel_spacing_mm is None:
                self.findings.append(f"{kind} of unknown pixel size was left out")
                continue
            main = main or stack
            scenes += self._scenes(stack, files, axes, len(scenes))
        if main is None:
            raise DamagedSlide("the file describes no image stack but label and overview")
        internal = [stack for stack in found if not stack.external]
        size = (scenes[0].levels[0].rows, scenes[0].levels[0].columns)
        images += page_pictures(pages, internal, size, {image.role for image in images}, self.findings)
        return Slide(
            format=OlympusVsiReader.format,
            sources=tuple(self.sources),
            scenes=tuple(scenes),
            associated=tuple(images),
            scan=scan(root, main, tag_text(pages[0], "Software")),
            closer=self.tiff.close,
            findings=tuple(dict.fromkeys(self.findings)),
        )

    def _pairs(self, wanted: list[Stack]) -> list[tuple[Stack, list[EtsFile]]]:
        """Each stack with its files (several for several time points). Raises
        MissingCompanion for a stack without."""
        unreadable: DamagedSlide | None = None
        groups = []
        for names in image_files(self.probe.path):
            files = []
            for name in names:
                path = self.probe.path.parent / name
                status = path.stat()
                self.numbers[path] = len(self.sources)
                self.sources.append(SourceFile(path, status.st_size, status.st_mtime, name))
                try:
                    files.append(read_ets(path))
                except DamagedSlide as refusal:
                    unreadable = refusal
            if files:
                groups.append(files)
        matches = matched(wanted, groups)
        for number, stack in enumerate(wanted):
            if number not in matches:
                if unreadable is not None:
                    raise unreadable
                raise MissingCompanion(f"image file (.ets) of stack {number + 1} of {len(wanted)}")
            if len(self._of_stack(stack, groups[matches[number]])) < stack.external:
                if unreadable is not None:
                    raise unreadable
                raise MissingCompanion(f"image file (.ets) of a time point of stack {number + 1}")
        for orphan in range(len(groups)):
            if orphan not in matches.values():
                self.findings.append("an image file (.ets) belongs to no stack of the slide: left out")
        if unreadable is not None:
            self.findings.append("an image file (.ets) that cannot be read belongs to no stack: left out")
        pairs = []
        for number, stack in enumerate(wanted):
            files = self._of_stack(stack, groups[matches[number]])
            if len(files) < len(groups[matches[number]]):
                self.findings.append("image files (.ets) of a stack that the slide does not count: left out")
            pairs.append((stack, files))
        return pairs

    @staticmethod
    def _of_stack(stack: Stack, files: list[EtsFile]) -> list[EtsFile]:
        """Those that the stack counts, of those in its folder: the ones that fit it best."""
        ranked = sorted(files, key=lambda ets: (not _fits(stack, ets, True), not _fits(stack, ets, False)))
        chosen = ranked[: stack.external]
        return [ets for ets in files if ets in chosen]

    def _scenes(self, stack: Stack, files: list[EtsFile], axes: Axes, first: int) -> list[Scene]:
        """One for each time point."""
        paths = self._identified(optical_paths(stack, axes.channels, files[0].components))
        points = [(ets, time) for ets in files for time in range(axes.times)]
        step = abs(stack.z_increment_um or 0.0)
        heights = tuple(step * plane for plane in range(axes.planes) if step or axes.planes == 1)
        scenes = []
        for number, (ets, time) in enumerate(points):
            if (ets.tile_rows, ets.tile_columns, ets.components) != (
                files[0].tile_rows, files[0].tile_columns, files[0].components,
            ) or axes_of(stack, ets) != axes:  # fmt: skip
                raise DamagedSlide("the time points of an image stack differ in form")
            point = f"time point {number + 1}" if len(points) > 1 else ""
            scenes.append(
                Scene(
                    index=first + number,
                    levels=levels(stack, ets, axes, time, self.numbers[ets.path], self.findings),
                    optical_paths=paths,
                    focal_planes_um=heights,  # none where the distance is not stated
                    label=" ".join(filter(None, (stack.name, point))),
                    acquired=stack.acquired if first and not number else None,
                )
            )
        return scenes

    def _identified(self, paths: list[OpticalPath]) -> tuple[OpticalPath, ...]:
        """Equal paths of different scenes share an identifier, others never do."""
        found = []
        for path in paths:
            own = [known for known in self.paths if known not in found]
            same = next((known for known in own if replace(known, identifier=path.identifier) == path), None)
            if same is None:
                same = replace(path, identifier=str(len(self.paths) + 1))
                self.paths.append(same)
            found.append(same)
        return tuple(found)


def matched(wanted: Sequence[Stack], groups: Sequence[Sequence[EtsFile]]) -> dict[int, int]:
    """Numbers of stacks to numbers of groups of files: first those that fit exactly, in order, then
    those whose outer tiles may be missing, the smallest stack first."""
    matches: dict[int, int] = {}
    for exactly in (True, False):
        for number, files in enumerate(groups):
            if number in matches.values():
                continue
            fitting = [
                at
                for at, stack in enumerate(wanted)
                if at not in matches and any(_fits(stack, ets, exactly) for ets in files)
            ]
            if fitting:
                at = fitting[0] if exactly else min(fitting, key=lambda n: wanted[n].rows * wanted[n].columns)
                matches[at] = number
    return matches


def _fits(stack: Stack, ets: EtsFile, exactly: bool) -> bool:
    across, down = ets.extents[:2]
    inside = (across - 1) * ets.tile_columns < stack.columns and (down - 1) * ets.tile_rows < stack.rows
    whole = across * ets.tile_columns >= stack.columns and down * ets.tile_rows >= stack.rows
    return inside and (whole or not exactly)
