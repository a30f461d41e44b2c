# SPDX-License-Identifier: Apache-2.0
"""Which levels a slide gets, and how: the scanner's own, copied or encoded again, and
those that it left out, computed until the whole fits one tile."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from converters.slide import Level, PixelTiles, Scene, Slide
from converters.writer.survey import Survey

MAX_LEVELS = 32
PLAIN_SHARE = 64  # of a slide: what is no more than that is not worth encoding
PLAIN_BYTES = 32 << 20
LOSSY_METHODS = {
    "jpeg": "ISO_10918_1", "jpegls": "ISO_14495_1", "jpeg2000": "ISO_15444_1", "htj2k": "ISO_15444_15",
}  # fmt: skip
"""Format of a codestream that loses something -> Lossy Image Compression Method."""


@dataclass(frozen=True, eq=False)
class PlannedLevel:
    """``level`` is the scanner's level, or the coarsest of its levels from which this one
    is computed in ``steps`` halvings. ``survey`` is of that level. ``plain``: its pixels are
    so little beside the slide that they stay as they are, where nothing may be lost: to
    encode them would take longer than to copy all the rest, and nobody need decode them."""

    scene: Scene
    index: int
    rows: int
    columns: int
    level: Level
    survey: Survey
    steps: int = 0
    plain: bool = False

    @property
    def computed(self) -> bool:
        return self.steps > 0

    @property
    def copied(self) -> bool:
        return not self.computed and not self.survey.why_not_copied

    @property
    def why_not_copied(self) -> str:
        """Why frames are not the scanner's bytes, for people; "" where they are."""
        if self.computed:
            return f"the scanner wrote no level of 1:{self.downsample:g}: averaged by area"
        return self.survey.why_not_copied

    @property
    def downsample(self) -> float:
        return self.level.downsample * float(2**self.steps)

    @property
    def tiles_down(self) -> int:
        return -(-self.rows // self.level.tile_rows)

    @property
    def tiles_across(self) -> int:
        return -(-self.columns // self.level.tile_columns)

    @property
    def number_of_tiles(self) -> int:
        return self.tiles_down * self.tiles_across * self.level.focal_planes * self.level.optical_paths

    @property
    def lossy_source(self) -> str:
        """DICOM's name of the scanner's lossy coding, "" where it is lossless."""
        if isinstance(self.level.tiles, PixelTiles):
            return self.level.tiles.lossy_method
        first = self.survey.first
        if first is None or first.codestream.reversible is True:
            return ""
        return LOSSY_METHODS.get(first.codestream.format, "")


def plan(slide: Slide, surveys: Mapping[tuple[int, int], Survey]) -> list[PlannedLevel]:
    """Every level of every scene, finest first. ``surveys`` by scene and level."""
    planned = []
    for scene in slide.scenes:
        for level in scene.levels:
            found = surveys[scene.index, level.index]
            planned.append(PlannedLevel(scene, level.index, level.rows, level.columns, level, found))
        planned += computed_levels(scene, surveys[scene.index, scene.levels[-1].index], size_of(slide))
    return planned


def size_of(slide: Slide) -> int:
    """Bytes of all its files."""
    return sum(source.size_bytes for source in slide.sources)


def computed_levels(scene: Scene, found: Survey, slide_bytes: int) -> list[PlannedLevel]:
    """Those that a scene's scanner left out, finest first. ``found`` is of its coarsest."""
    planned = []
    coarsest = scene.levels[-1]
    rows, columns = coarsest.rows, coarsest.columns
    little = min(PLAIN_BYTES, slide_bytes // PLAIN_SHARE)
    for step in range(1, MAX_LEVELS):
        if rows <= coarsest.tile_rows and columns <= coarsest.tile_columns:
            break
        rows, columns = -(-rows // 2), -(-columns // 2)
        one = PlannedLevel(scene, coarsest.index + step, rows, columns, coarsest, found, step)
        plain = not found.why_not_copied and one.number_of_tiles * _tile_bytes(coarsest) <= little
        planned.append(replace(one, plain=plain))
    return planned


def _tile_bytes(level: Level) -> int:
    samples = level.pixel_type.samples_per_pixel * level.pixel_type.bits_allocated // 8
    return level.tile_rows * level.tile_columns * samples
