# SPDX-License-Identifier: Apache-2.0
"""Conversion to files: all or nothing, the same every time, proven on demand."""

import io
import json
import os
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import zxingcpp

from archive.part10.frame_table import FrameTable
from archive.part10.scan import scan_file
from converters import verify
from converters.convert import ConvertOptions, convert, inspect, source_digest
from converters.errors import BadMetadata, DamagedSlide, TargetExists, VerificationFailed
from converters.registry import open_slide
from converters.verify import verify_files
from converters.writer.files import part10_bytes, part10_chunks, part10_stream
from converters.writer.metadata import Metadata
from tests.support.converted import born, digest
from tests.support.make_slide import make_svs, picture
from tests.support.require import require_data
from tests.support.slides.mrxs import write_mrxs
from tests.support.slides.zeiss_czi import write_slide


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return make_svs(tmp_path / "slide.svs", missing_tiles=(3,))


def test_files_are_named_after_what_they_show(slide: Path, tmp_path: Path) -> None:
    (made,) = convert([slide], tmp_path / "out")
    assert made.folder == tmp_path / "out" / "slide"
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "label.dcm", "level-0.dcm", "level-1.dcm", "overview.dcm", "thumbnail.dcm",
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["slide"]


def test_converting_twice_gives_the_same_bytes(slide: Path, tmp_path: Path) -> None:
    (one,) = convert([slide], tmp_path / "one")
    (other,) = convert([slide], tmp_path / "other")
    for first, second in zip(one.files, other.files, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_a_files_bytes_are_those_of_its_part_10_stream(slide: Path, tmp_path: Path) -> None:
    (made,) = convert([slide], tmp_path / "out")
    for path, instance in zip(made.files, made.instances, strict=True):
        data = path.read_bytes()
        assert data == part10_bytes(instance)
        assert len(data) == part10_stream(instance).length


def test_our_own_scan_finds_no_fault_in_them(slide: Path, tmp_path: Path) -> None:
    (made,) = convert([slide], tmp_path / "out")
    for path, instance in zip(made.files, made.instances, strict=True):
        found = scan_file(path)
        assert found.findings == ()
        assert found.dataset == pydicom.dcmread(io.BytesIO(instance.header))
        assert FrameTable.from_bytes(found.frame_table).count == instance.number_of_frames


def test_an_existing_folder_is_left_alone(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "slide").mkdir(parents=True)
    with pytest.raises(TargetExists, match="slide exists already"):
        convert([slide], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "slide"]


def test_a_failure_half_way_leaves_nothing(slide: Path, tmp_path: Path) -> None:
    def full(done: int, total: int) -> None:
        if done > total // 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        convert([slide], tmp_path / "out", progress=full)
    assert not (tmp_path / "out").exists()


def test_progress_ends_at_the_total(slide: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    (made,) = convert([slide], tmp_path / "out", progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] == sum(path.stat().st_size for path in made.files)
    assert steps == sorted(steps)


def test_chosen_levels_only(slide: Path, tmp_path: Path) -> None:
    (made,) = convert([slide], tmp_path / "out", ConvertOptions(levels=(1,)))
    assert [path.name for path in made.files] == ["level-1.dcm"]
    with pytest.raises(BadMetadata, match="levels 0 to 1 only"):
        convert([slide], tmp_path / "other", ConvertOptions(levels=(2,)))


def test_verify_proves_every_copied_tile(slide: Path, tmp_path: Path) -> None:
    (made,) = convert([slide], tmp_path / "out", ConvertOptions(verify=True))
    assert made.verified_tiles == 11 + 1  # one of twelve is absent; one coarse tile


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_verify_finds_a_changed_byte_in_a_tile(slide: Path, tmp_path: Path, where: float) -> None:
    (made,) = convert([slide], tmp_path / "out")
    level = next(path for path in made.files if path.name == "level-0.dcm")
    data = bytearray(level.read_bytes())
    data[int(len(data) * where)] ^= 1
    level.write_bytes(data)
    with (
        open_slide(slide) as again,
        pytest.raises(VerificationFailed, match=r"level-0\.dcm: frame \d+ differs"),
    ):
        verify_files(again, made.instances, made.files)


def test_what_does_not_verify_is_not_left(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: object) -> int:
        raise VerificationFailed("level-0.dcm: frame 1 differs from the scanner's tile")

    monkeypatch.setattr(verify, "verify_files", changed)
    with pytest.raises(VerificationFailed):
        convert([slide], tmp_path / "out", ConvertOptions(verify=True))
    assert not (tmp_path / "out").exists()


def test_a_slide_of_several_files_may_have_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    main = write_mrxs(tmp_path)
    odd = os.fsdecode(b"caf\xe9")
    os.rename(tmp_path / "scan", tmp_path / odd)
    (made,) = convert([main.rename(tmp_path / f"{odd}.mrxs")], tmp_path / "out", ConvertOptions(verify=True))
    assert made.folder == tmp_path / "out" / odd
    assert made.verified_tiles > 0


def test_verify_finds_wrong_colours(tmp_path: Path) -> None:
    """The entropy-coded data are right, but the Adobe marker says YCbCr."""
    (made,) = convert([make_svs(tmp_path / "slide.svs", photometric="RGB")], tmp_path / "out")
    level = next(path for path in made.files if path.name == "level-0.dcm")
    data = level.read_bytes()
    level.write_bytes(data.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\1"))
    wrong = pytest.raises(VerificationFailed, match="other colours")
    with open_slide(tmp_path / "slide.svs") as slide, wrong:
        verify_files(slide, made.instances, made.files)


def test_a_source_that_changes_while_it_is_converted_is_refused(slide: Path, tmp_path: Path) -> None:
    def change(done: int, total: int) -> None:
        os.utime(slide, (1, 1))

    with pytest.raises(DamagedSlide, match="changed while"):
        convert([slide], tmp_path / "out", progress=change)
    assert not (tmp_path / "out").exists()


def test_a_source_that_shrinks_while_it_is_read_is_noticed(slide: Path) -> None:
    instance = next(i for i in born(slide) if i.level == 0 and i.born)
    os.truncate(slide, slide.stat().st_size // 3)
    with pytest.raises(DamagedSlide, match="became shorter"):
        list(part10_chunks(instance))


def test_the_digest_of_one_file_is_its_sha256(slide: Path) -> None:
    with open_slide(slide) as opened:
        assert source_digest(opened) == digest(slide)


def test_inspect_tells_what_a_conversion_would_do(slide: Path) -> None:
    found = inspect(slide)
    assert (found.format, found.problem) == ("aperio-svs", "")
    assert [name for name, why in found.refusals.items() if why is None] == ["aperio-svs"]
    assert [(level.tiles, level.absent_tiles, level.action) for level in found.levels] == [
        (12, 1, "copied"),
        (1, 0, "copied"),
    ]
    assert found.levels[0].codec == "jpeg"
    assert found.levels[0].photometric == "RGB"
    assert [image.role for image in found.images] == ["THUMBNAIL", "LABEL", "OVERVIEW"]
    assert "filename" in found.lost
    assert "mpp" not in found.lost
    assert json.loads(found.to_json())["levels"][0]["transfer_syntax_uid"] == "1.2.840.10008.1.2.4.50"


def test_inspect_tells_what_would_be_encoded_again(tmp_path: Path) -> None:
    found = inspect(make_svs(tmp_path / "a.svs", compression=33003))
    assert {level.action for level in found.levels} == {"re-encoded without loss"}
    assert "no legal DICOM form" in found.levels[0].reason


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        ("slides/svs/histolab-broken.svs", "no reader knows this file"),
        ("slides/svs/openslide-unreadable.svs", "tile 1 of level 0 is damaged"),
    ],
)
def test_inspect_of_a_bad_file_names_the_problem(sample: str, problem: str) -> None:
    assert inspect(require_data(sample)).problem == problem


def test_the_unreadable_sample_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DamagedSlide, match=r"^tile 1 of level 0 is damaged$"):
        convert([require_data("slides/svs/openslide-unreadable.svs")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def label_with(*codes: tuple[str, str]) -> np.ndarray:  # type: ignore[type-arg]
    """A label of 400 x 400 pixels with symbols below each other."""
    label = picture(400, 400) // 4 + 190
    top = 10
    for kind, text in codes:
        symbol = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, kind)).to_image(scale=2)
        drawn = np.asarray(symbol)
        label[top : top + drawn.shape[0], 10 : 10 + drawn.shape[1]] = drawn[..., None]
        top += drawn.shape[0] + 10
    return label.astype(np.uint8)


@pytest.mark.parametrize("kind", ["DataMatrix", "QRCode", "Code128"])
def test_a_barcode_on_the_label_names_the_container(tmp_path: Path, kind: str) -> None:
    path = make_svs(tmp_path / "slide.svs", label=label_with((kind, "S26-0042-B3")))
    (made,) = convert([path], tmp_path / "out")
    for file in made.files:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        assert header.ContainerIdentifier == "S26-0042-B3"
        assert header.get("BarcodeValue") == ("S26-0042-B3" if file.name == "label.dcm" else None)
    assert inspect(path).barcode == "S26-0042-B3"


def test_of_several_symbols_the_matrix_code_names_the_container(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs", label=label_with(("Code128", "LINEAR"), ("DataMatrix", "MATRIX")))
    (made,) = convert([path], tmp_path / "out")
    label = pydicom.dcmread(made.folder / "label.dcm", stop_before_pixels=True)
    assert label.BarcodeValue == "MATRIX\r\nLINEAR"
    assert label.ContainerIdentifier == "MATRIX"


def series_of(folder: Path) -> dict[str, tuple[str, int, str]]:
    """Series Instance UID, Series Number and SOP Instance UID of each file."""
    found = {path.name: pydicom.dcmread(path, stop_before_pixels=True) for path in folder.glob("*.dcm")}
    return {
        name: (image.SeriesInstanceUID, int(image.SeriesNumber), image.SOPInstanceUID)
        for name, image in found.items()
    }


def test_regions_are_one_series_and_by_option_one_each(tmp_path: Path) -> None:
    source = write_slide(tmp_path)  # two regions, of one size
    (together,) = convert([source], tmp_path / "together")
    (apart,) = convert([source], tmp_path / "apart", ConvertOptions(verify=True, series_per_region=True))
    one, other = series_of(together.folder), series_of(apart.folder)
    assert {(series, number) for series, number, _ in one.values()} == {(one["level-0.dcm"][0], 1)}
    second = {name for name in other if name.startswith("scene-1-")}
    assert {"scene-1-level-0.dcm", "scene-1-level-1.dcm"} < second
    assert len({series for series, _, _ in other.values()}) == 2
    for name, (_, number, instance) in other.items():
        if name in second:
            assert number == 2
            assert instance != one[name][2]  # another header must not have that UID
        else:
            assert (apart.folder / name).read_bytes() == (together.folder / name).read_bytes()
    for name in second:
        image = pydicom.dcmread(apart.folder / name)
        for reference in image.get("ReferencedSeriesSequence", ()):
            assert reference.SeriesInstanceUID == image.SeriesInstanceUID
            (item,) = reference.ReferencedInstanceSequence
            assert item.ReferencedSOPInstanceUID in {other[finer][2] for finer in second}


def test_openslide_opens_both_regions_of_series_apart(tmp_path: Path) -> None:
    source = write_slide(tmp_path)
    (together,) = convert([source], tmp_path / "together")
    with pytest.raises(openslide.OpenSlideError, match="unexpected image"):
        openslide.OpenSlide(together.folder / "level-0.dcm")
    (apart,) = convert([source], tmp_path / "apart", ConvertOptions(series_per_region=True))
    for region in ("", "scene-1-"):
        with openslide.OpenSlide(apart.folder / f"{region}level-0.dcm") as slide:
            assert slide.level_count == len(list(apart.folder.glob("level-*")))
            assert set(slide.associated_images) == (set() if region else {"label", "macro", "thumbnail"})


def test_series_of_regions_follow_from_the_one_that_was_given(tmp_path: Path) -> None:
    source = write_slide(tmp_path)
    second = set()
    for given in ("1.2.3", "1.2.4"):
        known = Metadata(series_instance_uid=given, series_number=7)
        options = ConvertOptions(metadata=known, series_per_region=True)
        (made,) = convert([source], tmp_path / given, options)
        found = series_of(made.folder)
        assert found["level-0.dcm"][:2] == (given, 7)
        assert found["scene-1-level-0.dcm"][1] == 8
        second.add(found["scene-1-level-0.dcm"][0])
    assert len(second) == 2
