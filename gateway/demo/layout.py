# SPDX-License-Identifier: Apache-2.0
"""Where the tissue of a demo slide lies and what it is made of.

Maps at a thirty-second of the slide's size say how much of each kind of tissue is where;
lists say where each gland, vessel and nucleus stands. All of it follows from the seed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.demo.texture import Field, fractal

FACTOR = 32
"""Pixels of the slide, each way, per pixel of a map."""

SPACING = 15
"""Pixels between the places where a nucleus may stand."""

LYMPHOID, EPITHELIAL, TUMOUR, SPINDLE, STROMAL = range(5)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of tissue: centre and half axes as parts of the slide's height and width,
    its turn, and leanings towards glands, tumour and fat."""

    centre: tuple[float, float]
    half: tuple[float, float]
    turned: float
    glands: float
    tumour: float
    fat: float


PIECES = (
    Piece((0.49, 0.33), (0.37, 0.235), 0.35, 0.9, 0.1, 0.1),
    Piece((0.35, 0.75), (0.235, 0.165), -0.5, -0.4, 1.0, -0.6),
    Piece((0.79, 0.73), (0.11, 0.15), 0.1, 0.3, -1.2, 0.9),
)


@dataclass(frozen=True, slots=True)
class Things:
    """Positions (rows, columns) in slide pixels, sorted by row; ``angle`` in radians;
    ``kind`` selects a library, ``variant`` a stamp in it."""

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    angles: NDArray[np.float32]
    kinds: NDArray[np.uint8]
    variants: NDArray[np.uint16]

    def between(self, top: int, bottom: int) -> "Things":
        """Those with a row in [top, bottom)."""
        part = slice(*np.searchsorted(self.rows, (top, bottom)))
        return Things(
            self.rows[part], self.columns[part], self.angles[part], self.kinds[part], self.variants[part]
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """Maps of (rows, columns) / FACTOR. ``depth`` is the distance to the tissue's edge in
    slide pixels, positive inside; ``direction`` that in which fibres run, in radians;
    the others are amounts, about 0 to 1."""

    rows: int
    columns: int
    depth: Field
    direction: Field
    mucosa: Field
    tumour: Field
    lumina: Field
    fat: Field
    muscle: Field
    lymphoid: Field
    tone: Field
    cleft: Field
    nuclei: Things
    glands: Things
    vessels: Things


def step(field: Field, low: float, high: float) -> Field:
    """0 below ``low``, 1 above ``high``, smooth between."""
    part = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def ramp(field: Field, middle: float, width: float) -> Field:
    """From 0 to 1 in a straight line, 0.5 at ``middle``: a border that can still be found
    between the pixels of a map (:func:`edge`)."""
    return np.asarray(np.clip((field - np.float32(middle)) / np.float32(width) + 0.5, 0, 1), np.float32)


def edge(field: Field) -> Field:
    """The border of a :func:`ramp`, a few pixels wide at the slide's size."""
    return step(field, 0.44, 0.56)


def lay_out(rows: int, columns: int, seed: int) -> Layout:
    """The layout of a slide of (rows, columns) pixels."""
    generator = np.random.default_rng([seed, 1])
    shape = (-(-rows // FACTOR), -(-columns // FACTOR))

    def noise(length: float, slope: float = 1.9) -> Field:
        return fractal(generator, *shape, length / FACTOR, slope)

    depth = np.full(shape, -1e6, np.float32)
    leanings = np.zeros((3, *shape), np.float32)
    around = np.zeros(shape, np.float32)
    ragged = noise(900, 2.2)
    for piece in PIECES:
        inside, turn = _outline(generator, piece, shape)
        size = min(piece.half[0] * rows, piece.half[1] * columns)
        here = inside * np.float32(size) + ragged * np.float32(min(130.0, size / 9))
        nearer = here > depth
        depth = np.where(nearer, here, depth)
        around = np.where(nearer, turn, around)
        for index, leaning in enumerate((piece.glands, piece.tumour, piece.fat)):
            leanings[index][nearer] = leaning

    side = np.cos(around - np.float32(2.4)) + 0.55 * noise(2600)
    mucosa = (
        step(side + leanings[0], 0.1, 0.5)
        * step(depth, 20, 90)
        * (1 - step(depth + 190 * noise(700), 1250, 1500))
    )
    muscle = step(side + leanings[0], 0.0, 0.5) * step(depth + 130 * noise(700), 1290, 1400)
    muscle *= 1 - step(depth + 130 * noise(800), 1560, 1660)
    spread = step(noise(2600) + leanings[1], 0.55, 1.0) * (1 - step(mucosa, 0.2, 0.6)) * step(depth, 60, 300)
    islands = noise(330, 2.3) + 0.6 * spread
    tumour = ramp(islands, 0.48, 1.3) * step(spread, 0.2, 0.7)
    lumina = ramp(noise(190, 2.6), 1.0, 1.2) * step(islands, 0.6, 1.1)
    deep = step(depth, 350, 700) * (1 - step(spread, 0.05, 0.4)) * (1 - step(mucosa + muscle, 0.05, 0.3))
    fat = ramp(noise(1500, 2.6) + leanings[2], 1.07, 0.8) * deep
    lymphoid = _follicles(generator, shape, depth, mucosa, edge(fat)) + 0.5 * step(
        noise(900) + 0.7 * spread, 1.5, 2.3
    )
    lymphoid = np.clip(lymphoid, 0, 1) * (1 - edge(tumour)) * (1 - edge(fat))
    down, across = np.gradient(depth)
    direction = (
        np.arctan2(down, across)
        + np.float32(np.pi / 2)
        + np.float32(0.8) * noise(1500, 3.6) * (1 - 0.6 * muscle)
    )
    cleft = (
        (1 - step(np.abs(noise(700, 2.4)), 0.010, 0.045))
        * step(noise(1800), 0.55, 1.0)
        * step(depth, 100, 400)
    )
    cleft *= (1 - mucosa) * (1 - edge(fat))
    layout = Layout(
        rows=rows,
        columns=columns,
        depth=depth,
        direction=np.asarray(direction, np.float32),
        mucosa=mucosa,
        tumour=tumour,
        lumina=lumina,
        fat=fat,
        muscle=muscle,
        lymphoid=lymphoid,
        tone=np.asarray(0.12 * noise(1500) + 0.05 * noise(200), np.float32),
        cleft=np.asarray(cleft, np.float32),
        nuclei=_EMPTY,
        glands=_EMPTY,
        vessels=_EMPTY,
    )
    return _with_things(layout, generator)


_EMPTY = Things(
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros(0, np.float32),
    np.zeros(0, np.uint8),
    np.zeros(0, np.uint16),
)


def _outline(generator: np.random.Generator, piece: Piece, shape: tuple[int, int]) -> tuple[Field, Field]:
    """(1 at the centre, 0 on a lobed outline, negative outside; direction from the centre)."""
    lines, places = (np.arange(size, dtype=np.float32) / np.float32(size) for size in shape)
    down = (lines - np.float32(piece.centre[0]))[:, np.newaxis]
    across = (places - np.float32(piece.centre[1]))[np.newaxis] * np.float32(shape[1] / shape[0])
    half_across = piece.half[1] * shape[1] / shape[0]
    cosine, sine = np.float32(np.cos(piece.turned)), np.float32(np.sin(piece.turned))
    along = (across * cosine + down * sine) / np.float32(half_across)
    aside = (down * cosine - across * sine) / np.float32(piece.half[0])
    turn = np.arctan2(aside, along)
    outline = np.ones(shape, np.float32)
    for wave in range(2, 9):
        height = generator.normal(0, 0.13 / wave**0.7)
        outline += np.float32(height) * np.cos(wave * turn + np.float32(generator.uniform(0, 6.28)))
    return np.asarray(1 - np.hypot(along, aside) / outline, np.float32), np.asarray(turn, np.float32)


def _follicles(
    generator: np.random.Generator, shape: tuple[int, int], depth: Field, mucosa: Field, fat: Field
) -> Field:
    """Lymphoid follicles, most of them where the mucosa ends."""
    found = np.zeros(shape, np.float32)
    likely = step(depth, 150, 400) * (0.08 + mucosa * (1 - mucosa) * 4) * (1 - fat)
    total = float(likely.sum())
    if total <= 0:
        return found
    places = generator.choice(
        likely.size, size=max(2, likely.size * FACTOR**2 // 12_000_000), p=(likely / total).ravel()
    )
    rows, columns = np.indices(shape, dtype=np.float32)
    for place in places:
        row, column = divmod(int(place), shape[1])
        radius = float(generator.uniform(150, 350)) / FACTOR
        reach = int(radius * 2) + 1
        part = np.s_[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach]
        away = np.hypot(rows[part] - row, (columns[part] - column) * generator.uniform(0.6, 1.4))
        found[part] = np.maximum(
            found[part], step(np.asarray(-away, np.float32), -radius * 1.15, -radius * 0.8)
        )
    return found


def sample(field: Field, rows: NDArray[np.int32], columns: NDArray[np.int32]) -> Field:
    """A map's values at positions of the slide, between its own in straight lines."""
    row = np.clip(rows / np.float32(FACTOR) - 0.5, 0, field.shape[0] - 1.001)
    column = np.clip(columns / np.float32(FACTOR) - 0.5, 0, field.shape[1] - 1.001)
    top, left = row.astype(np.intp), column.astype(np.intp)
    down, across = row - top, column - left
    upper = field[top, left] * (1 - across) + field[top, left + 1] * across
    lower = field[top + 1, left] * (1 - across) + field[top + 1, left + 1] * across
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def _some_nuclei(
    generator: np.random.Generator, layout: Layout, top: int, bottom: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.uint8]]:
    """Rows, columns, angles and kinds of the nuclei between two rows of the slide."""
    rows, columns = _places(generator, layout, SPACING, 0.6, top, bottom)
    inside = sample(layout.depth, rows, columns) > 4
    rows, columns = rows[inside], columns[inside]
    mucosa, tumour, fat, lymphoid, muscle, lumina = (
        sample(field, rows, columns)
        for field in (layout.mucosa, layout.tumour, layout.fat, layout.lymphoid, layout.muscle, layout.lumina)
    )
    tumour, lumina, fat = edge(tumour), edge(lumina), edge(fat)
    dice = generator.random(rows.size, dtype=np.float32)
    rest = (1 - lymphoid) * (1 - tumour)
    tone = sample(layout.tone, rows, columns)
    weights = np.stack(
        [
            0.80 * lymphoid + rest * (0.10 * mucosa + 0.006 + 0.05 * np.clip(tone, 0, 1)),
            0.02 * mucosa * rest,
            0.60 * tumour * (1 - lumina),
            rest * (1 - fat) * (0.030 + 0.05 * muscle + 0.05 * mucosa + 0.06 * np.clip(tone + 0.05, 0, 1)),
            rest * (1 - 0.85 * fat) * (0.022 + 0.06 * mucosa),
        ]
    )
    bounds = np.cumsum(weights, axis=0)
    kinds = (dice[np.newaxis] > bounds).sum(axis=0).astype(np.uint8)
    kept = kinds < 5
    rows, columns, kinds = rows[kept], columns[kept], kinds[kept]
    angles = sample(layout.direction, rows, columns) + generator.normal(0, 0.22, rows.size).astype(np.float32)
    free = np.isin(kinds, (LYMPHOID, TUMOUR, EPITHELIAL))
    angles[free] = generator.uniform(0, np.pi, int(free.sum())).astype(np.float32)
    return rows, columns, angles, kinds


def _with_things(layout: Layout, generator: np.random.Generator) -> Layout:
    """The layout with its nuclei, glands and vessels."""

    parts = [
        _some_nuclei(generator, layout, top, min(top + 1024, layout.rows))
        for top in range(0, layout.rows, 1024)
    ]
    nuclei = _sorted(generator, *(np.concatenate(each) for each in zip(*parts, strict=True)))

    rows, columns = _places(generator, layout, 180, 0.2)
    chance = np.where(sample(layout.depth, rows, columns) > 75, sample(layout.mucosa, rows, columns), 0)
    chance *= 1 - sample(layout.lymphoid, rows, columns)
    kept = generator.random(rows.size) < np.clip(chance * 1.5 - 0.4, 0, 0.97)
    glands = _sorted(generator, rows[kept], columns[kept])

    rows, columns = _places(generator, layout, 520, 0.4)
    chance = np.where(sample(layout.depth, rows, columns) > 200, 0.5, 0)
    for field in (layout.tumour, layout.mucosa, layout.lymphoid):
        chance = chance * (1 - sample(field, rows, columns))
    kept = generator.random(rows.size) < chance
    vessels = _sorted(generator, rows[kept], columns[kept])
    names = (name for name in Layout.__dataclass_fields__ if name not in ("nuclei", "glands", "vessels"))
    maps = {name: getattr(layout, name) for name in names}
    return Layout(**maps, nuclei=nuclei, glands=glands, vessels=vessels)


def _places(
    generator: np.random.Generator,
    layout: Layout,
    spacing: int,
    jitter: float,
    top: int = 0,
    bottom: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Points of a shifted grid, each moved at random by up to ``jitter`` of the spacing."""
    down = np.arange(top + spacing // 2, bottom or layout.rows, spacing, dtype=np.float32)
    across = np.arange(spacing // 2, layout.columns, spacing, dtype=np.float32)
    shifted = np.repeat(np.arange(down.size) % 2, across.size) * (spacing / 2)
    count = down.size * across.size
    rows = np.repeat(down, across.size) + generator.uniform(-jitter, jitter, count) * spacing
    columns = np.tile(across, down.size) + shifted + generator.uniform(-jitter, jitter, count) * spacing
    return (
        np.clip(rows, 0, layout.rows - 1).astype(np.int32),
        np.clip(columns, 0, layout.columns - 1).astype(np.int32),
    )


def _sorted(
    generator: np.random.Generator,
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    angles: NDArray[np.float32] | None = None,
    kinds: NDArray[np.uint8] | None = None,
) -> Things:
    order = np.argsort(rows, kind="stable")
    count = rows.size
    return Things(
        rows[order],
        columns[order],
        np.zeros(count, np.float32) if angles is None else angles[order].astype(np.float32),
        np.zeros(count, np.uint8) if kinds is None else kinds[order],
        generator.integers(0, 1 << 16, count, dtype=np.uint16),
    )
