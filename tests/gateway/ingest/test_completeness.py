# SPDX-License-Identifier: Apache-2.0
"""A quiet file that is not all there is told from one that is."""

import struct
from pathlib import Path

import pytest

from gateway.ingest.completeness import why_incomplete
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs
from tests.support.require import require_data
from tests.support.slides.mrxs import write_mrxs


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("slide") / "slide.svs"
    make_svs(path)
    return path.read_bytes()


def test_a_whole_slide_is_complete(slide: bytes, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(slide)
    assert why_incomplete(path) is None


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9, 0.999])
def test_a_slide_that_is_cut_off_anywhere_is_not(slide: bytes, tmp_path: Path, share: float) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(slide[: int(len(slide) * share)])
    assert why_incomplete(path) is not None


def test_a_slide_whose_size_was_set_before_its_bytes_came_is_not(slide: bytes, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(slide)
    # All directories are there, the furthest tile is still zeros.
    written = max_tile_end(slide)
    with path.open("r+b") as file:
        file.seek(written - 20_000)
        file.write(bytes(20_000))
    assert why_incomplete(path) in ("the last tile is not written yet", "the TIFF is cut off")


def max_tile_end(data: bytes) -> int:
    import io

    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return max(
            offset + count
            for page in tiff.pages
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        )


def test_an_empty_file_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.touch()
    assert why_incomplete(path) == "it is empty"


def test_a_dicom_file_that_is_cut_off_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "level.dcm"
    data = make_instance(frames=9)
    path.write_bytes(data)
    assert why_incomplete(path) is None
    path.write_bytes(data[: len(data) - 100])
    assert why_incomplete(path) == "the DICOM file is cut off"


def test_a_slide_without_its_companion_folder_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "slide.mrxs"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    assert why_incomplete(path) == "its companion folder is missing"
    (tmp_path / "slide").mkdir()
    assert why_incomplete(path) == "a file of the slide is missing: Slidedat.ini"


def test_a_slide_waits_until_its_other_files_are_quiet(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    assert why_incomplete(path, settle_s=0.0) is None
    assert why_incomplete(path, settle_s=3600.0) == "another file of the slide is being written"


def test_other_files_are_for_their_readers_to_judge(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"hello")
    assert why_incomplete(path) is None


def test_a_loop_of_directories_ends(tmp_path: Path) -> None:
    path = tmp_path / "loop.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8) + bytes(8))
    assert why_incomplete(path) is None


def test_every_sample_slide_is_complete() -> None:
    for path in sorted(require_data("slides/svs").glob("*.svs")):
        if path.name not in ("openslide-unreadable.svs", "histolab-broken.svs"):
            assert why_incomplete(path) is None, path.name
