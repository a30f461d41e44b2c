# SPDX-License-Identifier: Apache-2.0
"""The look at every tile while a slide's files pass by, once and from first byte to last:
whoever copies, hashes or converts them reads them anyway.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.slide import Level, Slide, TileMap
from converters.writer.survey import RangeSurvey, Survey

MOST_TILE_BYTES = 8 << 20  # larger ones would keep too much of a file in memory
_AT_ONCE = 400  # numpy lets go of the interpreter for more, and has to win it back


@dataclass(eq=False)
class _Tiles:
    """A level's tiles in one file, as they lie there; the first ``done`` were met."""

    found: RangeSurvey
    indexes: NDArray[np.int64]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    done: int = 0

    @property
    def needs(self) -> int | None:
        """Where the first tile begins that was not met; None where all were."""
        return int(self.offsets[self.done]) if self.done < len(self.offsets) else None


class Following:
    """Surveys of those of a slide's levels whose tiles are ranges, as :func:`survey` gives."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._levels: dict[tuple[int, int], RangeSurvey] = {}
        self._tiles: dict[int, list[_Tiles]] = {number: [] for number in range(len(slide.sources))}
        self._damaged: set[RangeSurvey] = set()
        for scene in slide.scenes:
            for level in scene.levels:
                tiles = followed(level)
                if tiles is not None:
                    found = self._levels[scene.index, level.index] = RangeSurvey(level, tiles)
                    for number in range(len(slide.sources)):
                        self._tiles[number] += _in_file(found, tiles, number)

    def see(self, source: int, position: int, data: memoryview) -> int:
        """Bytes of the file of this number, from ``position`` on: all that follow what was
        seen before, and before them all from where the last call said. Returns from where
        on the next must begin, at most the end of these."""
        needed = position + len(data)
        for tiles in self._tiles[source]:
            if tiles.found in self._damaged:
                continue
            try:
                _look(tiles, position, data)
            except DamagedSlide:  # said by the survey of the level, for its first such tile
                self._damaged.add(tiles.found)
                continue
            if tiles.needs is not None:
                needed = min(needed, tiles.needs)
        return needed

    def surveys_of(self, copy: Slide) -> Mapping[tuple[int, int], Survey]:
        """:meth:`surveys`, of those levels that lie in the same way in a copy of the slide's
        files, whose bytes were seen."""
        found = self.surveys()
        same = {
            (scene.index, level.index)
            for scene, other in zip(self._slide.scenes, copy.scenes, strict=False)
            for level, as_copied in zip(scene.levels, other.levels, strict=False)
            if _alike(level, as_copied)
        }
        return {place: survey for place, survey in found.items() if place in same}

    def surveys(self) -> Mapping[tuple[int, int], Survey]:
        """By scene and level, of levels whose files were seen whole and whose tiles make one:
        what is wrong with another is said by :func:`survey`."""
        unseen = self._damaged | {
            tiles.found for file in self._tiles.values() for tiles in file if tiles.needs is not None
        }
        surveys = {}
        for place, found in self._levels.items():
            with suppress(DamagedSlide):
                if found not in unseen:
                    surveys[place] = found.result()
        return surveys


def _alike(level: Level, other: Level) -> bool:
    """Whether all that a survey knows of two levels is the same."""
    tiles, others = level.tiles, other.tiles
    if not isinstance(tiles, TileMap) or not isinstance(others, TileMap):
        return False
    form = (level.index, level.tile_rows, level.tile_columns, level.pixel_type, level.container_rgb)
    return (
        form == (other.index, other.tile_rows, other.tile_columns, other.pixel_type, other.container_rgb)
        and tiles.jpeg_tables == others.jpeg_tables
        and np.array_equal(tiles.offsets, others.offsets)
        and np.array_equal(tiles.lengths, others.lengths)
        and np.array_equal(tiles.files, others.files)
    )


def followed(level: Level) -> TileMap | None:
    """The level's tiles if they can be met one by one as their files pass."""
    tiles = level.tiles
    if not isinstance(tiles, TileMap) or tiles.absent.all() or int(tiles.lengths.max()) > MOST_TILE_BYTES:
        return None
    return tiles


def _in_file(found: RangeSurvey, tiles: TileMap, number: int) -> Sequence[_Tiles]:
    here = np.flatnonzero(~tiles.absent & (tiles.files == number))
    if not len(here):
        return ()
    here = here[np.argsort(tiles.offsets[here], kind="stable")]
    return (_Tiles(found, here, tiles.offsets[here], tiles.lengths[here]),)


def _look(tiles: _Tiles, position: int, data: memoryview) -> None:
    """At the tiles that end in ``data``, in the order in which they begin."""
    found, take, ends_at = tiles.found, tiles.found.take, position + len(data)
    met = tiles.done
    try:
        while met < len(tiles.offsets):
            part = slice(met, met + _AT_ONCE)
            for index, offset, length in zip(
                tiles.indexes[part].tolist(), tiles.offsets[part].tolist(), tiles.lengths[part].tolist(),
                strict=True,
            ):  # fmt: skip
                if offset + length > ends_at:
                    return
                at, end = offset - position, offset - position + length

                def read(within: int, size: int, at: int = at) -> bytes:
                    return bytes(data[at + within : at + within + size])

                head = bytes(data[at : min(end, at + found.first_read)])
                take(index, length, head, bytes(data[end - 2 : end]), read)
                met += 1
    finally:
        tiles.done = met
