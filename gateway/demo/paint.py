# SPDX-License-Identifier: Apache-2.0
"""Painting a demo slide: the layout's maps, textures and stamps to RGB, block by block.

Stains are laid in two planes of bytes, haematoxylin and eosin; one table turns a pair
into a colour by Beer and Lambert's law.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.demo import cells
from gateway.demo.cells import Nuclei, Stain, lay, stamp
from gateway.demo.layout import FACTOR, Layout, Things, edge, lay_out
from gateway.demo.texture import Field, fat, fibres, smooth

Pixels = NDArray[np.uint8]

GLASS = (243, 242, 244)
"""What the scanner sees where there is no tissue."""

BLOCK_ROWS, BLOCK_COLUMNS = 256, 512
"""The largest block: its planes stay in the processor's cache."""

MARGIN = 24
"""No nucleus reaches further than this from its centre."""

WIDE_MARGIN = 330
"""Nor a gland or vessel further than this."""

_DIRECTIONS = 4


def stain_table() -> Pixels:
    """RGB for each pair (haematoxylin * 256 + eosin), 65,536 rows."""
    blue, pink = np.meshgrid(np.arange(256) / 255 * 2.0, np.arange(256) / 255 * 1.6, indexing="ij")
    dense = np.clip(pink - 0.95, 0, 1)  # erythrocytes are redder than any stroma
    density = np.stack(
        [
            0.60 * blue + 0.06 * pink,
            0.73 * blue + 0.82 * pink - 0.15 * dense,
            0.29 * blue + 0.41 * pink + 0.6 * dense,
        ],
        axis=-1,
    )
    return np.asarray(np.rint(np.array(GLASS) * np.exp(-density)), np.uint8).reshape(-1, 3)


class Material:
    """Textures and stamps that every slide of a seed is made of."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng([seed, 2])
        sizes = (1024, 896, 1152, 960)  # none repeats where another does
        self.fibres = [
            Texture(fibres(generator, size, np.pi * index / _DIRECTIONS)) for index, size in enumerate(sizes)
        ]
        self.grain = Texture(smooth(generator, 512, 1.1))
        self.mottle = Texture(smooth(generator, 768, 5))
        self.fat = Texture(fat(generator, 1024, 8))
        kinds = (cells.LYMPHOCYTE, cells.EPITHELIAL, cells.TUMOUR, cells.SPINDLE, cells.STROMAL)
        self.nuclei = [Nuclei(generator, kind, 14) for kind in kinds]
        self.glands = [cells.gland(generator, self.nuclei[1], self.nuclei[0]) for _ in range(40)]
        self.vessels = [cells.vessel(generator, self.nuclei[3]) for _ in range(40)]
        self.colours = stain_table()


@lru_cache(maxsize=1)
def material(seed: int) -> Material:
    """The material of a seed; the last one asked for is kept."""
    return Material(seed)


class Painter:
    """A slide's layout and material; :meth:`block` paints any part of it."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        self.layout: Layout = lay_out(rows, columns, seed)
        self._material = material(seed)
        position = self.layout.direction * np.float32(_DIRECTIONS / np.pi)
        half = _DIRECTIONS / 2
        self._weights = [
            np.clip(1 - np.abs((position - index + half) % _DIRECTIONS - half), 0, 1)
            for index in range(_DIRECTIONS)
        ]

    def has_tissue(self, top: int, left: int, rows: int, columns: int) -> bool:
        """Whether anything but glass may lie there."""
        part = self.layout.depth[
            max(0, top // FACTOR - 2) : (top + rows) // FACTOR + 3,
            max(0, left // FACTOR - 2) : (left + columns) // FACTOR + 3,
        ]
        return bool((part > -40).any())

    def block(self, top: int, left: int, rows: int, columns: int) -> Pixels:
        """The pixels of (rows, columns) at (top, left)."""
        blue, pink = self._ground(top, left, rows, columns)
        self._stamp_nuclei(blue, top, left)
        self._lay(blue, pink, self.layout.vessels, self._material.vessels, top, left)
        self._lay(blue, pink, self.layout.glands, self._material.glands, top, left)
        self._cut(blue, pink, top, left)
        return np.take(self._material.colours, blue.astype(np.uint16) * np.uint16(256) + pink, axis=0)

    def _ground(self, top: int, left: int, rows: int, columns: int) -> tuple[Stain, Stain]:
        """Both stains of all that is not an object of its own: stroma, muscle, tumour, fat."""

        place = (top, left, rows, columns)
        layout = self.layout
        texture = self._texture(*place)
        grain = self._material.grain.part(*place)
        mottle = self._material.mottle.part(*place)
        tone = enlarged(layout.tone, *place)
        mucosa = enlarged(layout.mucosa, *place)
        pink = 72 + 34 * tone + (105 - 55 * mucosa) * (texture - 0.5) + 3.5 * grain
        blue = 14 + 9 * mucosa + 12 * np.clip(tone, -0.2, 1) + 1.5 * grain
        if reaches(layout.muscle, *place):
            muscle = enlarged(layout.muscle, *place)
            pink += muscle * (24 - 30 * (texture - 0.5))
        if reaches(layout.lymphoid, *place):
            lymphoid = enlarged(layout.lymphoid, *place)
            pink -= 34 * lymphoid
            blue += 18 * lymphoid
        if reaches(layout.tumour, *place):
            tumour = edge(enlarged(layout.tumour, *place) + 0.025 * mottle)
            pink += tumour * (84 + 7 * mottle + 5 * grain - pink)
            blue += tumour * (46 + 6 * mottle + 3 * grain - blue)
            retraction = np.clip(1 - np.abs(tumour - 0.22) / 0.2, 0, 1) * np.clip(mottle * 0.6 + 0.35, 0, 1)
            pink *= 1 - 0.55 * retraction
            blue *= 1 - 0.55 * retraction
            lumina = edge(enlarged(layout.lumina, *place) + 0.02 * mottle) * tumour
            pink *= 1 - 0.92 * lumina
            blue *= 1 - 0.85 * lumina
        if reaches(layout.fat, *place):
            amount = edge(enlarged(layout.fat, *place) + 0.02 * mottle)
            wall = self._material.fat.part(*place)
            pink += amount * (wall * 92 - pink)
            blue += amount * (wall * 16 - blue)
        return as_stain(blue), as_stain(pink)

    def _texture(self, top: int, left: int, rows: int, columns: int) -> Field:
        """Fibres that follow the direction map: a mix of the two nearest textures."""
        result = np.zeros((rows, columns), np.float32)
        for weights, texture in zip(self._weights, self._material.fibres, strict=True):
            if reaches(weights, top, left, rows, columns):
                result += enlarged(weights, top, left, rows, columns) * texture.part(top, left, rows, columns)
        return result

    def _stamp_nuclei(self, blue: Stain, top: int, left: int) -> None:
        rows, columns = blue.shape
        near = self.layout.nuclei.between(top - MARGIN, top + rows + MARGIN)
        here = np.flatnonzero((near.columns > left - MARGIN) & (near.columns < left + columns + MARGIN))
        for row, column, angle, kind, variant in zip(
            (near.rows[here] - top).tolist(),
            (near.columns[here] - left).tolist(),
            near.angles[here].tolist(),
            near.kinds[here].tolist(),
            near.variants[here].tolist(),
            strict=True,
        ):
            stamp(blue, self._material.nuclei[kind].pick(angle, variant), row, column)

    def _lay(
        self, blue: Stain, pink: Stain, things: Things, patches: list[cells.Tissue], top: int, left: int
    ) -> None:
        rows, columns = blue.shape
        near = things.between(top - WIDE_MARGIN, top + rows + WIDE_MARGIN)
        here = (near.columns > left - WIDE_MARGIN) & (near.columns < left + columns + WIDE_MARGIN)
        for row, column, variant in zip(
            near.rows[here], near.columns[here], near.variants[here], strict=True
        ):
            patch = turned(patches[int(variant) % len(patches)], int(variant) >> 8)
            lay(blue, pink, patch, int(row) - top, int(column) - left)

    def _cut(self, blue: Stain, pink: Stain, top: int, left: int) -> None:
        """Glass where the tissue ends or is torn; the edge takes up more eosin."""
        place = (top, left, *blue.shape)
        depth = enlarged(self.layout.depth, *place)
        torn = reaches(self.layout.cleft, *place)
        if depth.min() > 40 and not torn:
            return
        ragged = (
            self._material.mottle.part(top + 300, left + 150, *blue.shape) * 5
            + self._material.grain.part(*place) * 0.8
        )
        keep = np.clip((depth + ragged) / 3 + 0.5, 0, 1)
        if torn:
            keep *= 1 - np.clip((enlarged(self.layout.cleft, *place) + 0.02 * ragged - 0.45) * 3, 0, 1)
        rim = 1 + 0.30 * np.clip(1 - np.abs(depth + ragged - 5) / 8, 0, 1)
        blue[...] = as_stain(blue * keep)
        pink[...] = as_stain(pink * (keep * rim))


class Texture:
    """A texture that repeats for ever; parts of up to a block's size are views."""

    def __init__(self, field: Field) -> None:
        self._size = field.shape[0]
        self._field = np.pad(field, ((0, BLOCK_ROWS), (0, BLOCK_COLUMNS)), mode="wrap")

    def part(self, top: int, left: int, rows: int, columns: int) -> Field:
        top, left = top % self._size, left % self._size
        return self._field[top : top + rows, left : left + columns]


def enlarged(field: Field, top: int, left: int, rows: int, columns: int) -> Field:
    """A part of a map at the slide's own size, between its values in straight lines."""
    below, down = _between(field.shape[0], top, rows)
    right, across = _between(field.shape[1], left, columns)
    first, last = below[0] - 1, below[-1] + 1
    strip = field[first:last]
    wide = strip[:, right - 1]
    wide = wide + (strip[:, right] - wide) * across
    steps = np.diff(wide, axis=0)
    upper = below - 1 - first
    return np.asarray(wide[upper] + steps[upper] * down[:, np.newaxis], np.float32)


@lru_cache(maxsize=512)
def _between(size: int, start: int, length: int) -> tuple[NDArray[np.intp], Field]:
    """For each pixel along an axis: the map's next value, and how near it is (0 to 1)."""
    position = (np.arange(start, start + length, dtype=np.float32) + 0.5) / FACTOR - 0.5
    position = np.clip(position, 0, size - 1)
    following = np.clip(np.floor(position).astype(np.intp) + 1, 1, size - 1)
    return following, np.asarray(position - (following - 1), np.float32)


def reaches(field: Field, top: int, left: int, rows: int, columns: int) -> bool:
    """Whether a map has anything in a part of the slide."""
    part = field[
        max(0, top // FACTOR - 1) : (top + rows) // FACTOR + 2,
        max(0, left // FACTOR - 1) : (left + columns) // FACTOR + 2,
    ]
    return bool((part > 0.01).any())


def as_stain(field: NDArray[np.floating[Any]]) -> Stain:
    return np.asarray(np.clip(field, 0, 255), np.uint8)


def turned(patch: cells.Tissue, way: int) -> cells.Tissue:
    """A patch in one of its eight positions, without a copy."""

    def turn(plane: Stain) -> Stain:
        plane = np.rot90(plane, way & 3)
        return plane[:, ::-1] if way & 4 else plane

    return cells.Tissue(turn(patch.haematoxylin), turn(patch.eosin), turn(patch.cover))
