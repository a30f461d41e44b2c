# SPDX-License-Identifier: Apache-2.0
"""Levels in parts: the same frames, the same image, for whoever puts them together."""

import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import wsidicom

from archive.part10.frame_table import FrameTable, Kind
from archive.part10.scan import scan_file
from converters.convert import Converted, ConvertOptions, convert
from converters.errors import UnsupportedPixels, VerificationFailed
from converters.registry import open_slide
from converters.verify import verify_files
from converters.writer import concatenation
from converters.writer.born import DicomInstance
from converters.writer.concatenation import PartLimit, concatenated
from tests.support.converted import born
from tests.support.make_slide import make_svs
from tests.support.require import require_tool
from tests.support.slides.ndpi import write_ndpi

OF_PARTS = {
    "SOPInstanceUID", "NumberOfFrames", "ConcatenationUID", "InConcatenationNumber",
    "InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber", "SOPInstanceUIDOfConcatenationSource",
    "PerFrameFunctionalGroupsSequence",
}  # fmt: skip
ABSENT = (0, 1, 2, 3, 5, 8, 10, 11)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tiles in the finest level, one of them absent; one in the other."""
    return make_svs(tmp_path_factory.mktemp("slide") / "slide.svs", missing_tiles=(3,))


@pytest.fixture(scope="module")
def whole(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert([slide], tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture(scope="module")
def divided(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    options = ConvertOptions(verify=True, part_limit=PartLimit(frames=5))
    return convert([slide], tmp_path_factory.mktemp("divided"), options)[0]


def headers(folder: Path, pattern: str) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.glob(pattern))]


def finest(path: Path) -> DicomInstance:
    return next(one for one in born(path) if one.role == "VOLUME" and one.level == 0)


def frames_of(instances: Sequence[DicomInstance]) -> list[tuple[object, ...]]:
    tables = [FrameTable.from_bytes(one.frame_table) for one in instances]
    return [table.segments(at) for table in tables for at in range(table.count)]


def test_a_level_of_too_many_frames_is_written_in_parts_and_verified(divided: Converted) -> None:
    assert [path.name for path in divided.files] == [
        "level-1.dcm", "level-0-part-1.dcm", "level-0-part-2.dcm", "level-0-part-3.dcm",
        "thumbnail.dcm", "label.dcm", "overview.dcm",
    ]  # fmt: skip
    assert divided.verified_tiles == 11 + 1


def test_parts_say_where_their_frames_belong(whole: Converted, divided: Converted) -> None:
    (source,) = headers(whole.folder, "level-0.dcm")
    parts = headers(divided.folder, "level-0-part-*.dcm")
    assert [part.NumberOfFrames for part in parts] == [5, 5, 2]
    assert [part.ConcatenationFrameOffsetNumber for part in parts] == [0, 5, 10]
    assert [part.InConcatenationNumber for part in parts] == [1, 2, 3]
    assert {part.InConcatenationTotalNumber for part in parts} == {3}
    assert {part.SOPInstanceUIDOfConcatenationSource for part in parts} == {source.SOPInstanceUID}
    assert len({part.ConcatenationUID for part in parts}) == 1
    assert len({part.SOPInstanceUID for part in parts} | {source.SOPInstanceUID}) == 4
    for part in parts:
        assert part.file_meta.MediaStorageSOPInstanceUID == part.SOPInstanceUID


def test_parts_are_alike_in_all_else(whole: Converted, divided: Converted) -> None:
    (source,) = headers(whole.folder, "level-0.dcm")
    for part in headers(divided.folder, "level-0-part-*.dcm"):
        differing = {
            element.keyword for element in part if element.tag not in source or element != source[element.tag]
        }
        assert differing - {"PixelData"} == OF_PARTS - {"PerFrameFunctionalGroupsSequence"}
        assert set(source.keys()) <= set(part.keys())


def test_parts_hold_the_frames_in_order(whole: Converted, divided: Converted) -> None:
    def frames(folder: Path, pattern: str) -> list[bytes]:
        return [
            frame
            for image in headers(folder, pattern)
            for frame in pydicom.encaps.generate_frames(
                image.PixelData, number_of_frames=image.NumberOfFrames
            )
        ]

    assert frames(divided.folder, "level-0-part-*") == frames(whole.folder, "level-0.dcm")
    for path in divided.files:
        assert scan_file(path).findings == ()


def test_what_is_small_enough_stays_as_it_is(whole: Converted, divided: Converted) -> None:
    for name in ("level-1.dcm", "label.dcm", "overview.dcm", "thumbnail.dcm"):
        assert (divided.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_dividing_again_gives_the_same_files_and_otherwise_others(
    slide: Path, divided: Converted, tmp_path: Path
) -> None:
    (again,) = convert([slide], tmp_path / "again", ConvertOptions(part_limit=PartLimit(frames=5)))
    assert [path.read_bytes() for path in again.files] == [path.read_bytes() for path in divided.files]
    level = finest(slide)
    fives, sixes = (concatenated([level], PartLimit(frames=count)) for count in (5, 6))
    assert not {one.sop_instance_uid for one in fives} & {one.sop_instance_uid for one in sixes}


def test_parts_by_size_hold_as_many_frames_as_fit(slide: Path) -> None:
    level = finest(slide)
    lengths = list(FrameTable.from_bytes(level.frame_table).lengths())
    encoded = [length + length % 2 + 8 for length in lengths]
    most = max(encoded) * 3
    parts = concatenated([level], PartLimit(size_bytes=most))
    assert frames_of(parts) == frames_of([level])
    start = 0
    for part in parts:
        stop = start + part.number_of_frames
        assert sum(encoded[start:stop]) <= most
        assert stop == len(encoded) or sum(encoded[start : stop + 1]) > most
        assert part.pixel_bytes == sum(lengths[start:stop])
        start = stop


def test_a_frame_larger_than_the_limit_is_a_part_of_its_own(slide: Path) -> None:
    parts = concatenated([finest(slide)], PartLimit(size_bytes=1))
    assert [part.number_of_frames for part in parts] == [1] * 12
    both = concatenated([finest(slide)], PartLimit(frames=4, size_bytes=1 << 40))
    assert [part.number_of_frames for part in both] == [4, 4, 4]


def test_absent_tiles_are_those_of_the_part(slide: Path) -> None:
    parts = concatenated([finest(slide)], PartLimit(frames=2))
    assert [part.absent_tiles for part in parts] == [b"", b"\x40", b"", b"", b"", b""]
    assert [part.tile_indexes.tolist() for part in parts if part.tile_indexes is not None] == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11],
    ]  # fmt: skip


def test_frames_gathered_from_pieces_are_divided_too(tmp_path: Path) -> None:
    source = write_ndpi(tmp_path)
    level = finest(source)
    assert FrameTable.from_bytes(level.frame_table).kind is Kind.GATHER
    parts = concatenated([level], PartLimit(frames=3))
    assert len(parts) > 2
    assert frames_of(parts) == frames_of([level])
    assert all(len(part.frame_table) < len(level.frame_table) for part in parts)
    options = ConvertOptions(verify=True, part_limit=PartLimit(frames=3))
    (made,) = convert([source], tmp_path / "out", options)
    assert made.verified_tiles >= level.number_of_frames


def test_places_of_a_sparse_level_go_with_their_frames(tmp_path: Path) -> None:
    source = make_svs(tmp_path / "slide.svs", missing_tiles=ABSENT)
    (one,) = convert([source], tmp_path / "one")
    (made,) = convert([source], tmp_path / "out", ConvertOptions(verify=True, part_limit=PartLimit(frames=3)))
    (sparse,) = headers(one.folder, "level-0.dcm")
    parts = headers(made.folder, "level-0-part-*")
    assert [len(part.PerFrameFunctionalGroupsSequence) for part in parts] == [3, 1]
    places = [place for part in parts for place in part.PerFrameFunctionalGroupsSequence]
    assert places == list(sparse.PerFrameFunctionalGroupsSequence)


def test_verification_misses_a_part(slide: Path, divided: Converted) -> None:
    kept = [(one, path) for one, path in zip(divided.instances, divided.files, strict=True) if one.part != 2]
    lacking = pytest.raises(VerificationFailed, match="level 0 lacks tiles")
    with open_slide(slide) as opened, lacking:
        verify_files(opened, *zip(*kept, strict=True))


def test_more_parts_than_can_be_counted_are_refused(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concatenation, "MAX_PARTS", 11)
    with pytest.raises(UnsupportedPixels, match="more than 11 parts"):
        concatenated([finest(slide)], PartLimit(frames=1))
    assert len(concatenated([finest(slide)], PartLimit(frames=2))) == 6


def test_openslide_and_wsidicom_read_the_whole_from_parts(whole: Converted, divided: Converted) -> None:
    size = (900, 700)
    with openslide.OpenSlide(whole.folder / "level-0.dcm") as slide:
        expected = np.asarray(slide.read_region((0, 0), 0, size))
    with openslide.OpenSlide(divided.folder / "level-0-part-2.dcm") as slide:
        assert slide.level_dimensions == (size, (225, 175))
        assert np.array_equal(np.asarray(slide.read_region((0, 0), 0, size)), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        with wsidicom.WsiDicom.open(divided.folder) as other, wsidicom.WsiDicom.open(whole.folder) as one:
            assert len(other.levels) == len(one.levels)
            found = np.asarray(other.read_region((0, 0), 0, size))
            assert np.array_equal(found, np.asarray(one.read_region((0, 0), 0, size)))


def test_dciodvfy_finds_nothing_but_the_grid_that_it_expects(divided: Converted) -> None:
    """It asks for all tiles in each part, which a concatenation rules out."""
    dciodvfy = require_tool("dciodvfy")
    for file in divided.files:
        report = subprocess.run([dciodvfy, str(file)], capture_output=True, text=True, check=False).stderr
        lines = [line.partition(" got ")[0] for line in report.splitlines()]
        expected = "Error - NumberOfFrames does not match expected value for tiled total pixel matrix"
        wanted = [expected] if "-part-" in file.name else []
        assert lines == [*wanted, "VLWholeSlideMicroscopyImage"], file.name
