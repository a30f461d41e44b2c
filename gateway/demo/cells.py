# SPDX-License-Identifier: Apache-2.0
"""Stamps of nuclei, glands and vessels: small pictures of two stains.

Amounts are in bytes: 255 of haematoxylin or eosin is what the densest pixel of a slide
takes up. Sizes are pixels of half a micron (20x).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Stain = NDArray[np.uint8]

ANGLES = 16
"""Directions (over half a turn) that elongated nuclei are kept in."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """A patch of tissue of (rows, columns): its stains, and how far it covers what lies
    below (0 to 255)."""

    haematoxylin: Stain
    eosin: Stain
    cover: Stain


@dataclass(frozen=True, slots=True)
class NucleusKind:
    """Half axes in pixels, how much they vary, density, rim, nucleoli, and crookedness."""

    length: float
    width: float
    spread: float
    density: float
    rim: float
    clumps: float
    nucleolus: float
    bend: float


LYMPHOCYTE = NucleusKind(6.4, 5.9, 0.10, 215, 0.10, 0.24, 0.0, 0.0)
EPITHELIAL = NucleusKind(9.6, 5.4, 0.14, 172, 0.22, 0.20, 0.35, 0.0)
TUMOUR = NucleusKind(10.6, 8.2, 0.24, 168, 0.26, 0.30, 0.7, 0.05)
SPINDLE = NucleusKind(14.0, 2.7, 0.22, 176, 0.08, 0.14, 0.0, 0.10)
STROMAL = NucleusKind(8.4, 4.0, 0.25, 165, 0.15, 0.20, 0.1, 0.05)


def nucleus(generator: np.random.Generator, kind: NucleusKind, angle: float) -> Stain:
    """One nucleus, its long axis at ``angle`` to the rows."""
    length = kind.length * float(np.exp(generator.normal(0, kind.spread)))
    width = min(length, kind.width * float(np.exp(generator.normal(0, kind.spread))))
    reach = int(np.ceil(length)) + 3
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    along = across * np.cos(angle) + down * np.sin(angle)
    aside = down * np.cos(angle) - across * np.sin(angle)
    aside += kind.bend * generator.normal() * along**2 / max(1.0, length)
    turn = np.arctan2(aside / width, along / length)
    outline = 1.0
    for wave in (2, 3, 4):
        outline = outline + generator.normal(0, 0.05) * np.cos(wave * turn + generator.uniform(0, 6.28))
    radius = np.sqrt((along / length) ** 2 + (aside / width) ** 2) / outline
    edge = np.clip((1.0 - radius) * width / 1.7 + 0.5, 0, 1)
    chromatin = _patch(generator, radius.shape, 2.4) * 0.6 + _patch(generator, radius.shape, 1.2) * 0.4
    amount = 1.0 - kind.rim * 1.6 * np.clip(0.86 - radius, 0, 1) + kind.clumps * chromatin
    if generator.random() < kind.nucleolus:
        place = generator.uniform(-0.35, 0.35, 2) * (length, width)
        spot = np.hypot(along - place[0], aside - place[1])
        amount += 0.45 * np.clip(2.4 - spot, 0, 1)
    density = kind.density * float(np.exp(generator.normal(0, 0.14)))
    return np.asarray(np.clip(density * amount * edge, 0, 255), np.uint8)


def _patch(generator: np.random.Generator, shape: tuple[int, ...], length: float) -> NDArray[np.float32]:
    """Smooth noise of this shape, standard deviation about 1."""
    coarse = generator.standard_normal([max(2, int(side / length)) for side in shape[:2]]).astype(np.float32)
    image = Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


class Nuclei:
    """A library of nuclei of one kind, by direction."""

    def __init__(self, generator: np.random.Generator, kind: NucleusKind, variants: int) -> None:
        self.variants = variants
        self._stamps = [
            nucleus(generator, kind, np.pi * step / ANGLES) for step in range(ANGLES) for _ in range(variants)
        ]

    def pick(self, angle: float, variant: int) -> Stain:
        """The stamp nearest to a direction (radians, half a turn is the same)."""
        step = round(angle / np.pi * ANGLES) % ANGLES
        return self._stamps[step * self.variants + variant % self.variants]


def stamp(plane: Stain, nucleus: Stain, row: int, column: int) -> None:
    """Put a nucleus with its centre at (row, column): the denser of both stays."""
    height, width = nucleus.shape
    top, left = row - height // 2, column - width // 2
    upper, start = max(0, top), max(0, left)
    lower, end = min(plane.shape[0], top + height), min(plane.shape[1], left + width)
    if upper < lower and start < end:
        below = plane[upper:lower, start:end]
        np.maximum(below, nucleus[upper - top : lower - top, start - left : end - left], out=below)


def lay(haematoxylin: Stain, eosin: Stain, tissue: Tissue, row: int, column: int) -> None:
    """Cover what lies at (row, column) (the patch's centre) with a patch."""
    height, width = tissue.cover.shape
    top, left = row - height // 2, column - width // 2
    upper, start = max(0, top), max(0, left)
    lower, end = min(eosin.shape[0], top + height), min(eosin.shape[1], left + width)
    if upper >= lower or start >= end:
        return
    part = np.s_[upper - top : lower - top, start - left : end - left]
    cover = tissue.cover[part].astype(np.uint16)
    rest = 255 - cover
    for plane, stain in ((haematoxylin, tissue.haematoxylin), (eosin, tissue.eosin)):
        below = plane[upper:lower, start:end]
        below[...] = (below * rest + stain[part] * cover + 127) // 255


def gland(generator: np.random.Generator, nuclei: Nuclei, lymphocytes: Nuclei) -> Tissue:
    """A gland cut across: basal nuclei, pale goblets, a lumen, a sleeve of lamina propria."""
    radius = float(generator.uniform(46, 88))
    stretch = float(np.exp(abs(generator.normal(0, 0.30))))
    turned = float(generator.uniform(0, np.pi))
    reach = int(radius * stretch * 1.22) + 10
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    along = (across * np.cos(turned) + down * np.sin(turned)) / stretch
    aside = down * np.cos(turned) - across * np.sin(turned)
    turn = np.arctan2(aside, along)
    waves = [
        (wave, generator.normal(0, 0.09 / wave**0.5), generator.uniform(0, 6.28)) for wave in (2, 3, 4, 5)
    ]

    def outline(angle: NDArray[np.float32]) -> NDArray[np.float32]:
        total = np.ones_like(angle)
        for wave, height, phase in waves:
            total += np.float32(height) * np.cos(wave * angle + np.float32(phase))
        return total

    def reach_at(angle: float) -> float:
        return float(outline(np.full(1, angle, np.float32))[0])

    depth = np.hypot(along, aside) / (radius * outline(turn))  # 1 at the basement membrane
    grain = _patch(generator, depth.shape, 2.2)
    cloud = _patch(generator, depth.shape, 9)
    lumen_edge = generator.uniform(0.12, 0.42) + 0.05 * cloud
    for folds in generator.integers(3, 12, 3):
        lumen_edge = lumen_edge + 0.022 * np.cos(folds * turn + generator.uniform(0, 6.28))
    inside = np.clip((1.0 - depth) * radius / 1.5 + 0.5, 0, 1)
    lumen = np.clip((lumen_edge - depth) * radius / 2.0 + 0.5, 0, 1)
    eosin = (96 + 9 * grain + 10 * cloud) * (0.75 + 0.35 * np.clip(depth, 0, 1))
    haematoxylin = 34 + 5 * grain + 26 * np.clip(depth - 0.62, 0, 1)
    cells = int(2 * np.pi * radius * stretch**0.5 / generator.uniform(9.5, 12.5))
    goblets = float(generator.uniform(0.15, 0.7))
    for index in range(cells):
        angle = 2 * np.pi * (index + generator.uniform(-0.2, 0.2)) / cells
        if generator.random() < goblets:
            place = float(generator.uniform(0.52, 0.70))
            row, column = _place(angle, place * radius * reach_at(angle), stretch, turned)
            size = float(generator.uniform(5.5, 9.5))
            away = np.hypot(down - row, across - column) + 0.8 * grain
            vacuole = np.clip((size - away) / 2 + 0.5, 0, 1)
            eosin = eosin * (1 - 0.86 * vacuole)
            haematoxylin = haematoxylin * (1 - 0.45 * vacuole) + 9 * vacuole
    mucus = generator.uniform(0, 26)
    eosin = eosin * (1 - lumen) + lumen * np.clip(mucus + 9 * cloud, 0, 60)
    haematoxylin = haematoxylin * (1 - lumen) + lumen * np.clip(mucus * 0.6 + 6 * cloud, 0, 40)
    membrane = np.clip(1.6 - np.abs(depth - 1.015) * radius / 1.4, 0, 1)
    eosin = np.maximum(eosin * inside, 150 * membrane)
    haematoxylin = haematoxylin * inside
    blue = np.clip(haematoxylin, 0, 255).astype(np.uint8)
    crypt = float(generator.uniform(0.76, 0.84))
    for index in range(cells):
        for layer in range(1 + (generator.random() < 0.25)):
            angle = 2 * np.pi * (index + generator.uniform(-0.3, 0.3)) / cells
            place = crypt + generator.normal(0, 0.035) - 0.13 * layer
            row, column = _place(angle, place * radius * reach_at(angle), stretch, turned)
            direction = np.arctan2(row, column) + generator.normal(0, 0.2)
            stamp(
                blue,
                nuclei.pick(direction, int(generator.integers(1 << 16))),
                reach + round(row),
                reach + round(column),
            )
        if generator.random() < 0.06:
            row, column = _place(2 * np.pi * generator.random(), 0.66 * radius, stretch, turned)
            stamp(
                blue,
                lymphocytes.pick(0, int(generator.integers(1 << 16))),
                reach + round(row),
                reach + round(column),
            )
    cover = np.clip((1.035 - depth) * radius / 2 + 0.5, 0, 1)
    return Tissue(blue, np.clip(eosin, 0, 255).astype(np.uint8), (255 * cover).astype(np.uint8))


def _place(angle: float, distance: float, stretch: float, turned: float) -> tuple[float, float]:
    """(row, column) of a point given in the gland's own, unstretched frame."""
    along, aside = distance * np.cos(angle) * stretch, distance * np.sin(angle)
    return (
        float(along * np.sin(turned) + aside * np.cos(turned)),
        float(along * np.cos(turned) - aside * np.sin(turned)),
    )


def vessel(generator: np.random.Generator, spindles: Nuclei) -> Tissue:
    """A vessel cut across: endothelium, a muscular wall, red cells within."""
    radius = float(np.exp(generator.uniform(np.log(16), np.log(95))))
    squeeze = float(generator.uniform(1.0, 1.9))
    turned = float(generator.uniform(0, np.pi))
    wall = float(generator.uniform(0.18, 0.55))
    reach = int(radius * (1 + wall) * squeeze**0.5) + 12
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    along = (across * np.cos(turned) + down * np.sin(turned)) / squeeze**0.5
    aside = (down * np.cos(turned) - across * np.sin(turned)) * squeeze**0.5
    cloud = _patch(generator, along.shape, 12)
    depth = np.hypot(along, aside) / radius + 0.05 * cloud
    grain = _patch(generator, along.shape, 2)
    layers = 0.5 + 0.5 * np.sin(depth * radius * 1.1 + 2 * cloud)
    lumen = np.clip((1 - depth) * radius / 1.5 + 0.5, 0, 1)
    eosin = (118 + 26 * layers + 8 * grain) * (1 - lumen)
    blue = np.clip((22 + 4 * grain) * (1 - lumen), 0, 255).astype(np.uint8)
    if generator.random() < 0.75:
        packed = float(generator.uniform(0.25, 1.0))
        eosin = _with_red_cells(generator, eosin, down, across, depth, radius, packed)
    count = max(5, int(2 * np.pi * radius * (1 + wall / 2) / 17))
    for index in range(count):
        angle = 2 * np.pi * (index + generator.uniform(-0.4, 0.4)) / count
        distance = radius * (
            1.03 if generator.random() < 0.5 else 1 + wall * float(generator.uniform(0.25, 0.9))
        )
        x, y = distance * np.cos(angle) * squeeze**0.5, distance * np.sin(angle) / squeeze**0.5
        row, column = x * np.sin(turned) + y * np.cos(turned), x * np.cos(turned) - y * np.sin(turned)
        direction = np.arctan2(y * squeeze, x / squeeze) + np.pi / 2
        direction = turned + direction if squeeze > 1 else direction
        stamp(
            blue,
            spindles.pick(float(direction), int(generator.integers(1 << 16))),
            reach + round(row),
            reach + round(column),
        )
    cover = np.clip((1 + wall - depth) * radius / 5 + 0.5, 0, 1)
    return Tissue(blue, np.clip(eosin, 0, 255).astype(np.uint8), (255 * cover).astype(np.uint8))


def _with_red_cells(
    generator: np.random.Generator,
    eosin: NDArray[np.float32],
    down: NDArray[np.float32],
    across: NDArray[np.float32],
    depth: NDArray[np.float32],
    radius: float,
    packed: float,
) -> NDArray[np.float32]:
    """Erythrocytes of seven microns in the lumen."""
    spacing = 12.5
    steps = int(radius * 1.5 / spacing) + 1
    result = eosin.astype(np.float32)
    for down_step in range(-steps, steps + 1):
        for across_step in range(-steps, steps + 1):
            if generator.random() > packed:
                continue
            row = (down_step + generator.uniform(-0.35, 0.35)) * spacing
            column = (across_step + generator.uniform(-0.35, 0.35)) * spacing
            top, left = round(row) - 8 + down.shape[0] // 2, round(column) - 8 + down.shape[1] // 2
            if top < 0 or left < 0 or top + 17 > down.shape[0] or left + 17 > down.shape[1]:
                continue
            part = np.s_[top : top + 17, left : left + 17]
            away = np.hypot(down[part] - row, across[part] - column)
            disc = np.clip((6.6 - away) / 1.3 + 0.5, 0, 1) * (depth[part] < 0.93)
            ring = 205 - 42 * np.clip(1 - away / 4.5, 0, 1)
            result[part] = np.maximum(result[part], ring * disc)
    return result
