# SPDX-License-Identifier: Apache-2.0
"""Periodic textures out of filtered noise: fibres, grain, fat. All are square, wrap
around, and come from the generator that they are given."""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

STRIP = 128
"""Rows worked on at a time where temporary arrays would pile up."""


def _spectrum(shape: tuple[int, int]) -> tuple[Field, Field]:
    down = np.fft.fftfreq(shape[0]).astype(np.float32)
    across = np.fft.rfftfreq(shape[1]).astype(np.float32)
    return down[:, np.newaxis], across[np.newaxis]


def _filtered(generator: np.random.Generator, shape: tuple[int, int], gain: NDArray[np.float32]) -> Field:
    """White noise through a filter, with mean 0 and standard deviation 1."""
    noise = np.fft.rfft2(generator.standard_normal(shape, dtype=np.float32))
    noise *= gain
    field = np.asarray(np.fft.irfft2(noise, shape), np.float32)
    field -= field.mean()
    field /= field.std()
    return field


def smooth(generator: np.random.Generator, size: int, length: float) -> Field:
    """Noise whose blobs are about ``length`` pixels wide."""
    down, across = _spectrum((size, size))
    gain = np.exp(-(down**2 + across**2) * np.float32((2.2 * length) ** 2))
    return _filtered(generator, (size, size), gain)


def fractal(
    generator: np.random.Generator, rows: int, columns: int, length: float, slope: float = 1.9
) -> Field:
    """Noise with detail at all scales below ``length``, of (rows, columns): outlines."""
    shape = (-(-rows // 64) * 64, -(-columns // 64) * 64)  # sizes that transform fast
    down, across = _spectrum(shape)
    radius = np.sqrt(down**2 + across**2) + np.float32(1 / length)
    field = _filtered(generator, shape, radius ** np.float32(-slope))
    return np.ascontiguousarray(field[:rows, :columns])


def fibres(generator: np.random.Generator, size: int, angle: float) -> Field:
    """Wavy collagen running at ``angle``: fine fibrils within bundles, values about 0 to 1."""
    down, across = _spectrum((size, size))
    along = across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle))
    normal = down * np.float32(np.cos(angle)) - across * np.float32(np.sin(angle))
    fibrils = _filtered(generator, (size, size), np.exp(-((along * 70) ** 2) - (normal * 3.0) ** 2))
    bundles = _filtered(generator, (size, size), np.exp(-((along * 220) ** 2) - (normal * 22) ** 2))
    gaps = _filtered(generator, (size, size), np.exp(-((along * 110) ** 2) - (normal * 9) ** 2))
    field = 0.54 + 0.11 * fibrils + 0.15 * bundles - 0.34 * np.clip(gaps - 1.1, 0, 1.2)
    shift = smooth(generator, size, 80) * 14 + smooth(generator, size, 26) * 2.5
    return _displaced(field.astype(np.float32), shift, angle + np.pi / 2)


def _displaced(field: Field, shift: Field, angle: float) -> Field:
    """The field with each pixel taken ``shift`` pixels away in direction ``angle``."""
    size = field.shape[0]
    strips = []
    for first in range(0, size, STRIP):
        part = shift[first : first + STRIP]
        y = (
            part * np.float32(np.sin(angle))
            + np.arange(first, first + len(part), dtype=np.float32)[:, np.newaxis]
        )
        x = part * np.float32(np.cos(angle)) + np.arange(size, dtype=np.float32)
        top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
        down, across = (y - top).astype(np.float32), (x - left).astype(np.float32)
        top, left = top % size, left % size
        below, right = (top + 1) % size, (left + 1) % size
        upper = field[top, left] * (1 - across) + field[top, right] * across
        lower = field[below, left] * (1 - across) + field[below, right] * across
        strips.append(upper * (1 - down) + lower * down)
    return np.concatenate(strips)


def fat(generator: np.random.Generator, size: int, cells: int) -> Field:
    """Walls of ``cells`` x ``cells`` fat cells: 1 on a wall, 0 within a cell."""
    spacing = size / cells
    grid = np.indices((cells, cells), dtype=np.float32)
    points = (grid + 0.5 + generator.uniform(-0.36, 0.36, grid.shape).astype(np.float32)) * np.float32(
        spacing
    )
    wobble = smooth(generator, size, 14) * 2.5
    other = np.roll(wobble, size // 3, axis=0)
    strips = [
        _walls(points, wobble[top : top + 128], other[top : top + 128], top) for top in range(0, size, 128)
    ]
    return np.concatenate(strips)


def _walls(points: Field, down_by: Field, across_by: Field, top: int) -> Field:
    """A strip of :func:`fat`: where the two nearest cell centres are equally far."""
    cells, size = points.shape[1], down_by.shape[1]
    spacing = size / cells
    rows = down_by + np.arange(top, top + down_by.shape[0], dtype=np.float32)[:, np.newaxis]
    columns = across_by + np.arange(size, dtype=np.float32)
    own_row, own_column = (rows // spacing).astype(np.int32), (columns // spacing).astype(np.int32)
    nearest: Field = np.full(rows.shape, np.inf, np.float32)
    second: Field = nearest.copy()
    for step_down in (-1, 0, 1):
        for step_across in (-1, 0, 1):
            down, across = own_row + step_down, own_column + step_across
            centre = points[:, down % cells, across % cells]
            centre_row = centre[0] + (down // cells) * np.float32(size)
            centre_column = centre[1] + (across // cells) * np.float32(size)
            distance: Field = np.hypot(rows - centre_row, columns - centre_column)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
    return np.asarray(np.clip(1.25 - (second - nearest) / 5.0, 0, 1), np.float32)
