# SPDX-License-Identifier: Apache-2.0
"""Pictures of images with several focal planes and optical paths; what counts as a slide."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from archive.service import Archive
from archive.values import Rendering, Stored
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.codec import DirectCodec
from tests.support.instances import make_instance

TILE = 32
PNG = Rendering("image/png")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "site", codec=DirectCodec())
    yield opened
    opened.close()


def image(*, paths: int = 1, planes: int = 1, places: list[tuple[int, int]] | None = None) -> bytes:
    """2 x 2 tiles for each plane and path; frame n is grey of the value n."""
    count = len(places) if places else 4 * paths * planes
    header = pydicom.dcmread(io.BytesIO(make_instance(frames=count, tile=TILE, native=True)))
    header.TotalPixelMatrixRows = header.TotalPixelMatrixColumns = 2 * TILE
    if places is None:
        header.NumberOfOpticalPaths, header.TotalPixelMatrixFocalPlanes = paths, planes
    else:
        header.DimensionOrganizationType = "TILED_SPARSE"
        header.PerFrameFunctionalGroupsSequence = Sequence([_at(*place) for place in places])
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _at(row: int, column: int) -> Dataset:
    position = Dataset()
    position.RowPositionInTotalImagePixelMatrix = row * TILE + 1
    position.ColumnPositionInTotalImagePixelMatrix = column * TILE + 1
    position.XOffsetInSlideCoordinateSystem = position.YOffsetInSlideCoordinateSystem = 0
    position.ZOffsetInSlideCoordinateSystem = 0
    group = Dataset()
    group.PlanePositionSlideSequence = Sequence([position])
    return group


def corners(archive: Archive, stored: Stored) -> list[int]:
    """The values of the picture's four tiles, row by row."""
    found = archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
    )
    pixels = np.asarray(Image.open(io.BytesIO(archive.rendered(found, 0, PNG, **ASK))))
    assert pixels.shape[:2] == (2 * TILE, 2 * TILE)
    return [int(value) for value in pixels[::TILE, ::TILE, 0].ravel()]


def test_the_picture_of_a_stack_is_its_middle_plane_in_the_first_optical_path(archive: Archive) -> None:
    assert corners(archive, store_bytes(archive, image(paths=2, planes=3))) == [4, 5, 6, 7]


def test_the_picture_of_several_optical_paths_is_the_first(archive: Archive) -> None:
    assert corners(archive, store_bytes(archive, image(paths=5))) == [0, 1, 2, 3]


def test_many_paths_do_not_make_a_small_picture_too_large(archive: Archive) -> None:
    assert corners(archive, store_bytes(archive, image(paths=20))) == [0, 1, 2, 3]


def test_where_frames_state_their_places_the_first_at_each_is_shown(archive: Archive) -> None:
    places = [(1, 1), (0, 0), (1, 1), (0, 0), (0, 1)]
    assert corners(archive, store_bytes(archive, image(places=places))) == [1, 4, 255, 0]


def test_series_about_slides_are_not_listed_as_slides(archive: Archive) -> None:
    slide = store_bytes(archive, make_instance())
    for modality in ("SEG", "ANN"):
        about = pydicom.dcmread(io.BytesIO(make_instance(study=slide.study_instance_uid)))
        about.Modality = modality
        out = io.BytesIO()
        about.save_as(out, enforce_file_format=True)
        store_bytes(archive, out.getvalue())

    listed = archive.slides(**ASK)

    assert [one.series_instance_uid for one in listed] == [slide.series_instance_uid]
