# SPDX-License-Identifier: Apache-2.0
"""The ND2 reader: pixels as they were drawn and as the nd2 package reads them, and the metadata."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import nd2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from converters.convert import ConvertOptions, convert
from converters.errors import (
    ConversionError,
    DamagedSlide,
    MissingFocalPlaneSpacing,
    MissingLibrary,
    UnsupportedCompression,
)
from converters.registry import open_slide
from converters.slide import Illumination, Level, PixelTiles, PixelType
from converters.workshop.pool import Limits
from tests.support.converted import born
from tests.support.require import require_data
from tests.support.slides import nikon_nd2 as made

CLUSTER = "slides/nd2/cluster.nd2"


def whole(level: Level, path: int = 0, plane: int = 0) -> NDArray[np.generic]:
    """A level's plane from its decoded tiles."""
    tiles = level.tiles
    assert isinstance(tiles, PixelTiles)
    rows = [
        np.concatenate(
            [tiles.read(level.frame_index(path, plane, row, column)) for column in range(level.tiles_across)],
            axis=1,
        )
        for row in range(level.tiles_down)
    ]
    return np.concatenate(rows)[: level.rows, : level.columns]


def test_a_real_file_has_the_pixels_that_the_package_reads() -> None:
    path = require_data(CLUSTER)
    expected = nd2.imread(path)  # T, Z, C, Y, X
    with open_slide(path) as slide:
        assert len(slide.scenes) == 3
        for time, scene in enumerate(slide.scenes):
            (level,) = scene.levels
            assert (level.optical_paths, level.focal_planes) == (2, 10)
            for channel in range(2):
                for plane in range(10):
                    assert np.array_equal(
                        whole(level, channel, plane)[..., 0], expected[time, plane, channel]
                    )


def test_a_real_file_says_all_it_says() -> None:
    with open_slide(require_data(CLUSTER)) as slide:
        scan, scene = slide.scan, slide.scenes[1]
        assert (scan.manufacturer, scan.model_name) == ("Nikon", "Nikon Ti")
        assert scan.software_versions == ("NIS-Elements AR 4.20.01 (Build 982)",)
        assert scan.acquired == datetime(2014, 6, 18, 13, 55, 23, 392000, tzinfo=UTC)
        assert scan.properties["camera.camerausername"] == "Nikon A1plus"
        assert "Plan Apo λ 60x" in scan.description
        assert scene.label == "time point 2"
        assert scene.acquired is not None
        assert scene.acquired.replace(microsecond=0) == datetime(2014, 6, 18, 13, 55, 34, tzinfo=UTC)
        assert scene.focal_planes_um == tuple(0.5 * plane for plane in range(10))
        (level,) = scene.levels
        assert level.pixel_type == PixelType(1, 16, 16)
        assert scan.properties["image.bitspercomponentsignificant"] == "12"
        assert level.pixel_spacing_mm == pytest.approx((0.000167809, 0.000167809), rel=1e-5)
        path = scene.optical_paths[0]
        assert (path.description, path.illumination) == ("5-FAM/pH 9.0", Illumination.EPIFLUORESCENCE)
        assert (path.excitation_nm, path.emission_nm, path.display_rgb) == (488, 525, (120, 233, 15))
        assert (path.objective_power, path.numerical_aperture) == (60, 0.95)
        assert path.exposure_ms == pytest.approx(996.998, abs=0.001)
        assert slide.findings == ()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
def test_loops_become_scenes_and_planes(tmp_path: Path, packed: bool, padding: int) -> None:
    path = made.write_nikon_nd2(tmp_path, times=2, positions=2, planes=3, packed=packed, padding=padding)
    with nd2.ND2File(path) as file:
        expected = file.asarray()  # T, P, Z, C, Y, X
    with open_slide(path) as slide:
        assert [scene.label for scene in slide.scenes] == [
            "time point 1, Well 0",
            "time point 1, Well 1",
            "time point 2, Well 0",
            "time point 2, Well 1",
        ]
        for number, scene in enumerate(slide.scenes):
            (level,) = scene.levels
            for channel in range(2):
                for plane in range(3):
                    found = whole(level, channel, plane)
                    assert np.array_equal(found, made.frame_pixels(number * 3 + plane, channel))
                    assert np.array_equal(found[..., 0], expected[number // 2, number % 2, plane, channel])
        assert isinstance(level.tiles, PixelTiles)
        assert level.tiles.why == ("frames are packed by zlib" if packed else "frames are not compressed")
        assert scene.focal_planes_um == (0.0, 0.5, 1.0)
        times = [scene.acquired for scene in slide.scenes]
        assert times[0] is not None
        assert times[3] is not None
        assert (times[3] - times[0]).total_seconds() == 9


def test_channels_are_optical_paths(tmp_path: Path) -> None:
    with open_slide(made.write_nikon_nd2(tmp_path)) as slide:
        (scene,) = slide.scenes
        dapi, cy5 = scene.optical_paths
        assert (dapi.description, dapi.excitation_nm, dapi.emission_nm) == ("DAPI", 385, 455)
        assert (cy5.identifier, cy5.exposure_ms, cy5.display_rgb) == ("2", 41, (255, 0, 0))
        assert scene.levels[0].pixel_spacing_mm == (0.000325, 0.000325)
        assert (scene.label, scene.acquired, scene.focal_planes_um) == ("", None, (0.0,))
        assert slide.scan.model_name == "Nikon Ti2"
        assert slide.scan.acquired == datetime(2024, 5, 7, 7, 8, 8, 966000, tzinfo=UTC)


@pytest.mark.parametrize("bits", [8, 14])
def test_colours_are_given_as_red_green_blue_of_eight_bits(tmp_path: Path, bits: int) -> None:
    path = made.write_nikon_nd2(tmp_path, channels=1, rgb=True, bits=bits, modality=made.BRIGHTFIELD)
    with open_slide(path) as slide:
        (level,) = slide.scenes[0].levels
        found = whole(level)
        assert found.dtype == np.uint8
        assert np.array_equal(found, made.frame_pixels(0, 0, bits=8, rgb=True))
        path_of_light = slide.scenes[0].optical_paths[0]
        assert path_of_light.illumination is Illumination.BRIGHTFIELD
        assert (path_of_light.emission_nm, path_of_light.excitation_nm) == (None, None)
        assert slide.findings == (() if bits == 8 else ("colours of 14 bits are kept in 8",))


def test_frames_that_were_never_taken_are_absent(tmp_path: Path) -> None:
    path = made.write_nikon_nd2(tmp_path, times=3, planes=2, missing=(3, 4, 5))
    with open_slide(path) as slide:
        assert [scene.label for scene in slide.scenes] == ["time point 1", "time point 2"]
        assert slide.findings == ("3 of 6 frames were never taken",)
        (level,) = slide.scenes[1].levels
        absent = level.tiles.absent.reshape(2, 2, -1)
        assert absent[:, 1].all()
        assert not absent[:, 0].any()
        assert not whole(level, 0, 1).any()


def test_a_stack_taken_downwards_is_turned_lowest_first(tmp_path: Path) -> None:
    with open_slide(made.write_nikon_nd2(tmp_path, planes=3, downwards=True)) as slide:
        (level,) = slide.scenes[0].levels
        assert np.array_equal(whole(level, 0, 0), made.frame_pixels(2, 0))


def test_floats_are_mapped_and_the_mapping_is_declared(tmp_path: Path) -> None:
    with open_slide(made.write_nikon_nd2(tmp_path, floats=True)) as slide:
        mapping = slide.scenes[0].optical_paths[1].real_world
        assert mapping is not None
        stored = whole(slide.scenes[0].levels[0], 1).astype(np.float64)
        scanned = made.frame_pixels(0, 1).astype(np.float64) / 100 - 5
        assert np.abs(mapping.intercept + mapping.slope * stored - scanned).max() <= mapping.slope


def test_an_unknown_pixel_size_is_not_invented(tmp_path: Path) -> None:
    with open_slide(made.write_nikon_nd2(tmp_path, calibrated=False)) as slide:
        assert slide.scenes[0].levels[0].pixel_spacing_mm is None


def test_focal_planes_without_a_distance_are_not_given_one(tmp_path: Path) -> None:
    with pytest.raises(MissingFocalPlaneSpacing):
        born(made.write_nikon_nd2(tmp_path, planes=2, step_um=0.0))


def test_jpeg_2000_inside_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCompression, match="unsupported compression JPEG 2000 in the frames"):
        open_slide(made.write_nikon_nd2(tmp_path, compression=1))
    early = tmp_path / "early.nd2"
    early.write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100))
    with pytest.raises(UnsupportedCompression, match="JPEG 2000 in an ND2 file of version 1"):
        open_slide(early)


@pytest.mark.parametrize(
    ("keep", "says"), [(0.5, "the map of chunks is missing"), (0.999, "the map of chunks is missing")]
)
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: float, says: str) -> None:
    path = made.write_nikon_nd2(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DamagedSlide, match=says):
        open_slide(path)


def test_every_variant_becomes_dicom_and_passes_the_proof(tmp_path: Path) -> None:
    variants: dict[str, dict[str, object]] = {
        "fluorescence": {"planes": 2, "times": 2, "packed": True},
        "colour": {"channels": 1, "rgb": True, "bits": 8, "modality": made.BRIGHTFIELD},
        "float": {"floats": True},
    }
    for name, variant in variants.items():
        folder = tmp_path / name
        folder.mkdir()
        path = made.write_nikon_nd2(folder, **variant)
        (done,) = convert([path], folder / "out", ConvertOptions(verify=True))
        datasets = [pydicom.dcmread(file, stop_before_pixels=True) for file in done.files]
        first = next(one for one in datasets if one.ImageType[3] == "NONE")
        assert first.ManufacturerModelName == "Nikon Ti2"
        assert first.BitsStored == {"fluorescence": 16, "colour": 8, "float": 16}[name]
        assert len(datasets) == {"fluorescence": 4, "colour": 2, "float": 2}[name]


def test_a_file_much_larger_than_the_memory_of_a_child_is_read(tmp_path: Path) -> None:
    """Nothing maps it into memory: children have a limit on that."""
    path = made.write_nikon_nd2(tmp_path, gap_bytes=1 << 30)
    assert path.stat().st_blocks * 512 < 1 << 26  # a hole
    limits = Limits(processes=1, memory_bytes=1 << 29)
    (done,) = convert([path], tmp_path / "out", ConvertOptions(verify=True, limits=limits))
    assert len(done.files) == 2


def test_without_the_package_the_pip_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made.write_nikon_nd2(tmp_path)
    monkeypatch.setitem(sys.modules, "nd2", None)
    with pytest.raises(MissingLibrary, match=r"^reading Nikon ND2 needs nd2: pip install nd2$"):
        open_slide(path)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_give_a_slide_or_one_clear_line(tmp_path: Path, seed: int) -> None:
    original = made.write_nikon_nd2(tmp_path, rows=40, columns=50, planes=2, packed=True).read_bytes()
    generator = np.random.default_rng(seed)
    used = np.flatnonzero(np.frombuffer(original, np.uint8))
    used = used[used > 112]  # the signature stays
    lines, whole_ones = set(), 0
    for _ in range(40):
        data = bytearray(original)
        for at in generator.choice(used, 3):
            data[int(at)] = int(generator.integers(256))
        path = tmp_path / "flipped.nd2"
        path.write_bytes(data)
        try:
            with open_slide(path) as slide:
                for scene in slide.scenes:
                    for level in scene.levels:
                        if len(level.tiles) < 100:
                            whole(level)
            whole_ones += 1
        except ConversionError as error:
            lines.add(str(error))
    assert whole_ones
    assert not any("\n" in line or "no reader" in line for line in lines)
