# SPDX-License-Identifier: Apache-2.0
"""Frames with a place of their own (PS3.3 C.7.6.17.3, C.8.12.6.1): TILED_SPARSE, for levels
most of whose tiles were never scanned and for focal planes at uneven distances."""

from collections.abc import Sequence
from typing import NamedTuple

from pydicom import Dataset

from converters.slide import Scene
from converters.writer.decimals import decimal

PLANE_POSITION = 0x0048021A
PATH_IDENTIFICATION = 0x00480207
ROW_POSITION, COLUMN_POSITION, Z_OFFSET, PATH_IDENTIFIER = 0x0048021F, 0x0048021E, 0x0040074A, 0x00480106


class Place(NamedTuple):
    """Where a frame lies; each counted from 0."""

    optical_path: int
    focal_plane: int
    row: int
    column: int


def add_positions(
    to: Dataset,
    places: Sequence[Place],
    origin_mm: tuple[float, float],
    spacing_mm: tuple[float, float],
    scene: Scene,
) -> None:
    """Say where each frame lies."""
    organization = to.DimensionOrganizationSequence[0].DimensionOrganizationUID
    pointers = [(ROW_POSITION, PLANE_POSITION), (COLUMN_POSITION, PLANE_POSITION)]
    several_planes = len({place.focal_plane for place in places}) > 1
    several_paths = len(scene.optical_paths) > 1
    if several_planes:
        pointers.append((Z_OFFSET, PLANE_POSITION))
    if several_paths:
        pointers.append((PATH_IDENTIFIER, PATH_IDENTIFICATION))
    indexes = []
    for pointer, group in pointers:
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer = pointer
        index.FunctionalGroupPointer = group
        indexes.append(index)
    to.DimensionOrganizationType = "TILED_SPARSE"
    to.DimensionIndexSequence = indexes
    size = (int(to.Rows), int(to.Columns))
    frames = []
    for place in places:
        frame = _frame(place, size, origin_mm, spacing_mm, scene)
        values = [place.row + 1, place.column + 1]
        if several_planes:
            values.append(place.focal_plane + 1)
        if several_paths:
            values.append(place.optical_path + 1)
            path = Dataset()
            path.OpticalPathIdentifier = scene.optical_paths[place.optical_path].identifier[:16]
            frame.OpticalPathIdentificationSequence = [path]
        frame.FrameContentSequence[0].DimensionIndexValues = values
        frames.append(frame)
    to.PerFrameFunctionalGroupsSequence = frames


def _frame(
    place: Place,
    size: tuple[int, int],
    origin_mm: tuple[float, float],
    spacing_mm: tuple[float, float],
    scene: Scene,
) -> Dataset:
    row, column = place.row * size[0], place.column * size[1]
    along, down = scene.orientation[:2], scene.orientation[3:5]
    x, y = (
        origin_mm[axis] + column * spacing_mm[1] * along[axis] + row * spacing_mm[0] * down[axis]
        for axis in (0, 1)
    )
    position = Dataset()
    position.RowPositionInTotalImagePixelMatrix = row + 1
    position.ColumnPositionInTotalImagePixelMatrix = column + 1
    position.XOffsetInSlideCoordinateSystem = decimal(x)
    position.YOffsetInSlideCoordinateSystem = decimal(y)
    position.ZOffsetInSlideCoordinateSystem = decimal(scene.focal_planes_um[place.focal_plane])
    frame = Dataset()
    frame.FrameContentSequence = [Dataset()]
    frame.PlanePositionSlideSequence = [position]
    return frame
