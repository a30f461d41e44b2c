# SPDX-License-Identifier: Apache-2.0
"""Files that are DICOM and TIFF: two readers that do not know of each other see the same."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray

from archive.part10.frame_table import FrameTable, encode_direct
from archive.part10.scan import scan_file
from converters.convert import Converted, ConvertOptions, convert
from converters.writer.coding import CodingChoice
from converters.writer.concatenation import PartLimit
from converters.writer.dual_tiff import wrapping
from converters.writer.files import part10_stream
from converters.writer.metadata import Metadata
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.converted import born
from tests.support.make_slide import make_svs
from tests.support.require import require_tool
from tests.support.slides import BASES
from tests.support.slides.generic_tiff import write_generic_tiff

DUAL = ConvertOptions(verify=True, dual_tiff=True)
SLIDES: dict[str, tuple[dict[str, object], tuple[int, int]]] = {
    "jpeg rgb": ({"icc": True}, (7, 2)),
    "jpeg 422": ({"photometric": "YCBCR", "subsampling": "422"}, (7, 6)),
    "jpeg 420": ({"photometric": "YCBCR", "subsampling": "420"}, (7, 6)),
    "jpeg 444": ({"photometric": "YCBCR", "subsampling": "444"}, (7, 6)),
    "jpeg 2000": ({"compression": 33005, "icc": True}, (33005, 2)),
}
SAMPLING = {"jpeg 422": (2, 1), "jpeg 420": (2, 2), "jpeg 444": (1, 1)}


@pytest.fixture(scope="module", params=SLIDES)
def slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("dual")
    return request.param, make_svs(folder / "slide.svs", **SLIDES[request.param][0])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(slide: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert([slide[1]], tmp_path_factory.mktemp("made"), DUAL)[0]


def as_tiff(path: Path, folder: Path) -> Path:
    """A name by which readers do not take it for DICOM at once."""
    link = folder / f"{path.stem}.tif"
    link.write_bytes(path.read_bytes())
    return link


def pixels_of(source: Path, level: int) -> NDArray[np.uint8]:
    with tifffile.TiffFile(source) as tiff:
        return [page for page in tiff.pages if page.is_tiled][level].asarray()  # type: ignore[no-any-return]


def test_tifffile_reads_the_scanners_pixels(slide: tuple[str, Path], made: Converted) -> None:
    name, source = slide
    for level in (0, 1):
        with tifffile.TiffFile(made.folder / f"level-{level}.dcm") as tiff:
            (page,) = tiff.pages
            assert np.array_equal(page.asarray(), pixels_of(source, level))
            assert (page.compression, page.photometric) == SLIDES[name][1]
            assert page.tags.get("YCbCrSubSampling", None) is None or (
                page.tags["YCbCrSubSampling"].value == SAMPLING[name]
            )
            assert not tiff.is_bigtiff


def test_openslide_reads_them_as_a_generic_tiff(
    slide: tuple[str, Path], made: Converted, tmp_path: Path
) -> None:
    tiff = as_tiff(made.folder / "level-0.dcm", tmp_path)
    if slide[0] == "jpeg 2000":  # which it knows in Aperio's files only
        with pytest.raises(openslide.OpenSlideError, match="Unsupported TIFF compression"):
            openslide.OpenSlide(tiff)
        return
    expected = pixels_of(slide[1], 0)
    with openslide.OpenSlide(tiff) as found:
        assert found.properties["openslide.vendor"] == "generic-tiff"
        assert float(found.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        region = np.asarray(found.read_region((0, 0), 0, (900, 700)))[..., :3]
        assert np.array_equal(region, expected)


def test_openslide_reads_the_folder_as_dicom_all_the_same(slide: tuple[str, Path], made: Converted) -> None:
    with openslide.OpenSlide(made.folder / "level-0.dcm") as found:
        assert found.properties["openslide.vendor"] == "dicom"
        assert found.level_count == 2
        region = np.asarray(found.read_region((0, 0), 0, (900, 700)))[..., :3]
        assert np.array_equal(region, pixels_of(slide[1], 0))


def test_the_dicom_file_is_the_same_up_to_the_padding(
    slide: tuple[str, Path], made: Converted, tmp_path: Path
) -> None:
    (plain,) = convert([slide[1]], tmp_path)
    for one, other in zip(made.files, plain.files, strict=True):
        dual, bare = one.read_bytes(), other.read_bytes()
        assert dual[128 : len(bare)] == bare[128:]
        if one.name.startswith("level"):
            assert dual[len(bare) : len(bare) + 8] == b"\xfc\xff\xfc\xffOB\0\0"
            assert (
                int.from_bytes(dual[len(bare) + 8 : len(bare) + 12], "little") == len(dual) - len(bare) - 12
            )
            assert len(dual) % 2 == 0
        else:
            assert dual == bare


def test_pydicom_our_scan_and_dciodvfy_find_no_fault(made: Converted) -> None:
    for path in made.files:
        assert pydicom.dcmread(path).pixel_array.size
        found = scan_file(path)
        assert found.findings == ()
        assert bytes(found.header[:128]) == bytes(128)
        dciodvfy = require_tool("dciodvfy")
        report = subprocess.run([dciodvfy, str(path)], capture_output=True, text=True, check=False).stderr
        assert report.strip() == "VLWholeSlideMicroscopyImage", f"{path.name}: {report}"


def test_the_directory_carries_scale_and_colour_profile(tmp_path: Path) -> None:
    (made,) = convert([make_svs(tmp_path / "slide.svs", icc=True)], tmp_path / "out", DUAL)
    with tifffile.TiffFile(made.folder / "level-1.dcm") as tiff:
        tags = tiff.pages[0].tags
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == pytest.approx(10 / 0.002)
        assert tags["YResolution"].value == tags["XResolution"].value
        assert tags["ResolutionUnit"].value == 3
        profile = pydicom.dcmread(made.folder / "level-1.dcm").OpticalPathSequence[0].ICCProfile
        assert tags["InterColorProfile"].value == profile[: int.from_bytes(profile[:4])]
        assert len(profile) > 400
        assert tags["Software"].value == "Coverslip"
        assert tags["ImageDescription"].value == "DICOM whole slide image, level 1, resampled"


def test_nothing_of_the_patient_is_in_the_tiff(tmp_path: Path) -> None:
    source = make_svs(tmp_path / "slide.svs", barcode="S26-0042")
    known = Metadata(patient_name="Doe^Jane", patient_id="4711", container_identifier="S26-0042-B3")
    options = ConvertOptions(dual_tiff=True, metadata=known)
    (made,) = convert([source], tmp_path / "out", options)
    (plain,) = convert([source], tmp_path / "plain", ConvertOptions(metadata=known))
    for level in ("level-0.dcm", "level-1.dcm"):
        data, bare = (made.folder / level).read_bytes(), (plain.folder / level).read_bytes()
        assert b"Doe^Jane" in bare
        tiff = data[:128] + data[len(bare) :]
        for text in (b"Doe", b"4711", b"S26-0042", b"slide.svs"):
            assert text not in tiff


def test_a_level_without_compression_is_a_tiff(tmp_path: Path) -> None:
    """Pixels that had to be decoded, kept native."""
    options = ConvertOptions(verify=True, dual_tiff=True, coding=CodingChoice("none"))
    source = make_svs(tmp_path / "slide.svs", compression=33003)
    (made,) = convert([source], tmp_path / "out", options)
    with tifffile.TiffFile(made.folder / "level-0.dcm") as tiff:
        assert (tiff.pages[0].compression, tiff.pages[0].photometric) == (1, 2)
        found = tiff.pages[0].asarray()
    image = pydicom.dcmread(made.folder / "level-0.dcm")
    frames = image.pixel_array
    assert np.array_equal(found[:256, 256:512], frames[1])
    assert np.array_equal(found[512:700, 768:900], frames[11][: 700 - 512, : 900 - 768])


@pytest.mark.parametrize(("lossless", "compression"), [("none", 1), ("jpeg2000", 34712)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_levels_are_tiffs(tmp_path: Path, kind: type, lossless: str, compression: int) -> None:
    steps = np.iinfo(kind).max // 700
    pixels = (np.add.outer(np.arange(300), np.arange(400)) * max(1, steps)).astype(kind)
    source = write_generic_tiff(
        tmp_path, pixels=pixels, photometric="minisblack", compression="zlib", tile=128, levels=(1,)
    )
    (made,) = convert([source], tmp_path / "out", replace(DUAL, coding=CodingChoice(lossless)))
    with tifffile.TiffFile(made.folder / "level-0.dcm") as tiff:
        page = tiff.pages[0]
        assert (page.compression, page.photometric) == (compression, 1)
        assert np.array_equal(page.asarray(), pixels)


def test_a_level_that_is_one_frame_is_one_strip(tmp_path: Path) -> None:
    source = write_generic_tiff(tmp_path, rows=180, columns=260, compression="zlib", tile=None, levels=(1,))
    (made,) = convert([source], tmp_path / "out", replace(DUAL, coding=CodingChoice("none")))
    image = pydicom.dcmread(made.folder / "level-0.dcm")
    assert (image.NumberOfFrames, image.Rows, image.Columns) == (1, 180, 260)
    with tifffile.TiffFile(made.folder / "level-0.dcm") as tiff:
        assert not tiff.pages[0].is_tiled
        assert np.array_equal(tiff.pages[0].asarray(), image.pixel_array)


def test_offsets_beyond_4_gib_make_it_a_bigtiff(tmp_path: Path) -> None:
    """A sparse file: a first frame of 4 GiB, and behind it eleven true ones."""
    level = next(
        one for one in born(make_svs(tmp_path / "slide.svs")) if one.role == "VOLUME" and not one.level
    )
    true = list(FrameTable.from_bytes(level.frame_table).lengths())
    lengths = [(1 << 32) - 2, *true[1:]]
    long = replace(level, frame_table=encode_direct([0] * 12, lengths))
    stream = part10_stream(long)
    tiff = wrapping(long, stream)
    assert tiff is not None
    path = tmp_path / "long.tif"
    with path.open("wb") as file:
        file.write(tiff.preamble)
        file.seek(stream.length)
        file.write(tiff.padding)
    with tifffile.TiffFile(path) as found:
        assert found.is_bigtiff
        page = found.pages[0]
        assert list(page.databytecounts) == lengths
        steps = [length + length % 2 + 8 for length in lengths]
        end = stream.length - 8
        expected = [end - sum(steps[at:]) + 8 for at in range(12)]
        assert list(page.dataoffsets) == expected
        assert page.shape == (700, 900, 3)


def test_what_tiff_cannot_say_is_written_plainly_with_a_note(tmp_path: Path) -> None:
    sparse = make_svs(tmp_path / "sparse.svs", missing_tiles=(0, 1, 2, 3, 5, 8, 10, 11))
    coded = make_svs(tmp_path / "coded.svs", compression=33003)
    channels = BASES["leica_scn_fluorescence"](tmp_path)
    notes = {}
    for source, options in (
        (sparse, DUAL),
        (coded, ConvertOptions(dual_tiff=True, coding=CodingChoice("htj2k"))),
        (channels, DUAL),
    ):
        (made,) = convert([source], tmp_path / "out", options)
        notes[source.stem] = made.findings
        assert (made.folder / "level-0.dcm").read_bytes()[:128] == bytes(128)
    assert notes["sparse"] == ("level-0 is no TIFF: its tiles are not a full grid",)
    assert notes["coded"][-1] == "level-0 is no TIFF: TIFF readers do not know its compression"
    assert notes[channels.stem][-1] == "level-0 is no TIFF: it has several focal planes or optical paths"


def test_parts_of_a_concatenation_are_no_tiff(tmp_path: Path) -> None:
    options = ConvertOptions(dual_tiff=True, part_limit=PartLimit(frames=5))
    (made,) = convert([make_svs(tmp_path / "slide.svs")], tmp_path / "out", options)
    assert made.findings == ("level-0 is no TIFF: it is divided into parts",)
    assert {path.name: path.read_bytes()[:2] for path in made.files if "level" in path.name} == {
        "level-1.dcm": b"II",
        "level-0-part-1.dcm": b"\0\0",
        "level-0-part-2.dcm": b"\0\0",
        "level-0-part-3.dcm": b"\0\0",
    }


def test_the_archive_takes_it_gives_it_back_and_knows_the_plain_one(tmp_path: Path) -> None:
    source = make_svs(tmp_path / "slide.svs")
    (dual,) = convert([source], tmp_path / "dual", DUAL)
    (plain,) = convert([source], tmp_path / "plain")
    data = (dual.folder / "level-0.dcm").read_bytes()
    archive = open_archive(tmp_path / "data")
    stored = store_bytes(archive, data)
    assert stored.outcome == "stored"
    found = archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid,
        **ASK,  # type: ignore[arg-type]
    )  # fmt: skip
    assert b"".join(archive.open(found, **ASK).chunks) == data  # type: ignore[arg-type]
    assert store_bytes(archive, (plain.folder / "level-0.dcm").read_bytes()).outcome == "already"
    archive.close()
