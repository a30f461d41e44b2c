# SPDX-License-Identifier: Apache-2.0
"""Levels that the scanner left out, made before anybody knows the digest of its file: while
that is copied or hashed. They depend on the coarsest level's tiles alone, whose own digest
is kept: whoever read them from another copy sees whether these are the same.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.slide import Scene, Slide, TileMap
from converters.writer.coding import CodingChoice
from converters.writer.plan import PlannedLevel, computed_levels, size_of
from converters.writer.recompose import Recomposed, recompose
from converters.writer.survey import survey
from converters.writer.tilework import Bench

MOST_TILES = 1024  # more are made later, one level after another, so that they can be gone on with
MOST_BYTES = 64 << 20  # of the tiles that they are made of


@dataclass(frozen=True, eq=False)
class EarlyLevels:
    """By scene and level; ``digests`` of what they were made of, by scene."""

    made: Mapping[tuple[int, int], Recomposed]
    digests: Mapping[int, bytes]

    def of(self, slide: Slide) -> Mapping[tuple[int, int], Recomposed]:
        """Those that are made of the very tiles of this copy of the slide."""
        same = {
            scene.index
            for scene in slide.scenes
            if scene.index in self.digests and self.digests[scene.index] == _digest(slide, scene)
        }
        return {place: frames for place, frames in self.made.items() if place[0] in same}


NONE_EARLY = EarlyLevels({}, {})


def early_levels(slide: Slide, bench: Bench, coding: CodingChoice, scratch: Path) -> EarlyLevels:
    """What little of a slide whose coarsest levels are copied can be made now, in a new
    folder in ``scratch``. Raises as :func:`recompose`."""
    made: dict[tuple[int, int], Recomposed] = {}
    digests: dict[int, bytes] = {}
    for scene in slide.scenes:
        planned = _worthwhile(slide, scene)
        if not planned:
            continue
        digests[scene.index] = _digest(slide, scene)
        folder = Path(tempfile.mkdtemp(prefix="early-", dir=scratch))
        finer: Recomposed | None = None
        for one in planned:
            finer = recompose(one, coding.of_level(one), bench, folder, str(one.index), finer)
            made[scene.index, one.index] = finer
    return EarlyLevels(made, digests)


def _worthwhile(slide: Slide, scene: Scene) -> list[PlannedLevel]:
    tiles = scene.levels[-1].tiles
    if not isinstance(tiles, TileMap) or int(tiles.lengths.sum()) > MOST_BYTES:
        return []
    found = survey(scene.levels[-1], slide.sources)
    planned = [] if found.why_not_copied else computed_levels(scene, found, size_of(slide))
    return planned if sum(one.number_of_tiles for one in planned) <= MOST_TILES else []


def _digest(slide: Slide, scene: Scene) -> bytes:
    """SHA-256 of the coarsest level: its shape, and its tiles one after another."""
    level = scene.levels[-1]
    tiles = level.tiles
    form = (
        level.index, level.rows, level.columns, level.tile_rows, level.tile_columns, level.pixel_type,
        level.container_rgb, level.absent_colour,
    )  # fmt: skip
    result = hashlib.sha256(repr(form).encode())
    if not isinstance(tiles, TileMap):
        return b""
    result.update(tiles.jpeg_tables + tiles.lengths.tobytes())
    descriptors: dict[int, int] = {}
    try:
        for number, offset, length in zip(
            tiles.files.tolist(), tiles.offsets.tolist(), tiles.lengths.tolist(), strict=True
        ):
            if number not in descriptors:
                descriptors[number] = os.open(slide.sources[number].path, os.O_RDONLY)
            result.update(os.pread(descriptors[number], length, offset))
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    return result.digest()
