# SPDX-License-Identifier: Apache-2.0
"""TILED_SPARSE: a level most of whose tiles were never scanned has frames for the others
only, each with its place (PS3.3 C.7.6.17.3, C.8.12.6.1)."""

from collections.abc import Sequence

from pydicom import Dataset

from converters.writer.decimals import decimal

ROW_POSITION = 0x0048021F
COLUMN_POSITION = 0x0048021E
PLANE_POSITION = 0x0048021A


def add_sparse_positions(
    to: Dataset,
    tiles: Sequence[tuple[int, int]],
    origin_mm: tuple[float, float],
    spacing_mm: tuple[float, float],
) -> None:
    """Say where each frame lies: ``tiles`` are (row, column) in the grid of tiles, from 0.

    Slide coordinates decrease along rows and columns (see ``dataset.ORIENTATION``).
    """
    organization = to.DimensionOrganizationSequence[0].DimensionOrganizationUID
    indexes = []
    for pointer in (ROW_POSITION, COLUMN_POSITION):
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer = pointer
        index.FunctionalGroupPointer = PLANE_POSITION
        indexes.append(index)
    to.DimensionOrganizationType = "TILED_SPARSE"
    to.DimensionIndexSequence = indexes
    to.PerFrameFunctionalGroupsSequence = [
        _frame(row, column, (int(to.Rows), int(to.Columns)), origin_mm, spacing_mm) for row, column in tiles
    ]


def _frame(
    row: int,
    column: int,
    size: tuple[int, int],
    origin_mm: tuple[float, float],
    spacing_mm: tuple[float, float],
) -> Dataset:
    content = Dataset()
    content.DimensionIndexValues = [row + 1, column + 1]
    place = Dataset()
    place.RowPositionInTotalImagePixelMatrix = row * size[0] + 1
    place.ColumnPositionInTotalImagePixelMatrix = column * size[1] + 1
    place.XOffsetInSlideCoordinateSystem = decimal(origin_mm[0] - row * size[0] * spacing_mm[0])
    place.YOffsetInSlideCoordinateSystem = decimal(origin_mm[1] - column * size[1] * spacing_mm[1])
    place.ZOffsetInSlideCoordinateSystem = decimal(0)
    frame = Dataset()
    frame.FrameContentSequence = [content]
    frame.PlanePositionSlideSequence = [place]
    return frame
