# SPDX-License-Identifier: Apache-2.0
"""The iSyntax reader: exactly the pixels that were encoded, and all that the header says."""

import base64
import io
import random
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
import pytest
from isyntax import ISyntax
from numpy.typing import NDArray
from PIL import Image

from converters.convert import ConvertOptions, convert
from converters.errors import (
    ConversionError,
    DamagedSlide,
    MissingLibrary,
    UnsupportedCompression,
)
from converters.probe import Probe
from converters.readers.isyntax_clusters import listed_in_clusters
from converters.readers.isyntax_codeblocks import CodeblockDecoder
from converters.readers.isyntax_header import read_header
from converters.readers.isyntax_layout import Grid
from converters.readers.philips_isyntax import PhilipsIsyntaxReader
from converters.registry import open_slide
from converters.slide import Level, PixelTiles, Role
from tests.support.level_pixels import level_pixels
from tests.support.make_slide import srgb_profile
from tests.support.slides.isyntax import (
    BARCODE,
    EOT,
    associated_jpeg,
    expected_levels,
    tissue,
    write_isyntax,
)
from tests.support.slides.isyntax_codeblocks import encode_codeblock

SMALL = tissue(300, 400)


def write_small(folder: Path, **variant: Any) -> Path:
    return write_isyntax(folder, **{"pixels": SMALL, "levels": 3, **variant})


def pixel_tiles(level: Level) -> PixelTiles:
    assert isinstance(level.tiles, PixelTiles)
    return level.tiles


def blocks_of(path: Path) -> slice:
    """Where codeblocks lie: from the seek table's end."""
    data = path.read_bytes()
    table = data.index(EOT) + len(EOT)
    return slice(table + 8 + int.from_bytes(data[table + 4 : table + 8], "little"), len(data))


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    return path


@pytest.mark.parametrize(("levels", "compressor"), [(3, 1), (4, 1), (4, 2), (5, 2)])
def test_every_level_has_exactly_the_pixels_that_were_encoded(
    tmp_path: Path, levels: int, compressor: int
) -> None:
    """Numbers of levels differ in what the chunks of the coarsest scale hold."""
    with open_slide(write_isyntax(tmp_path, levels=levels, compressor=compressor)) as slide:
        (scene,) = slide.scenes
        expected = expected_levels(tissue(), levels)
        assert np.array_equal(expected[0], tissue())
        assert [(level.rows, level.columns) for level in scene.levels] == [e.shape[:2] for e in expected]
        assert [level.downsample for level in scene.levels] == [2.0**n for n in range(levels)]
        for level, pixels in zip(scene.levels, expected, strict=True):
            assert np.array_equal(level_pixels(slide, level), pixels)


def test_extreme_colours_neither_wrap_around_nor_change(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 2, (500, 700, 3), dtype=np.uint8) * 255
    with open_slide(write_isyntax(tmp_path, pixels=noise, levels=3)) as slide:
        finest, *coarser = slide.scenes[0].levels
        assert np.array_equal(level_pixels(slide, finest), noise)
        for level, pixels in zip(coarser, expected_levels(noise, 3)[1:], strict=True):
            assert np.array_equal(level_pixels(slide, level), pixels)


def test_coarse_levels_lie_where_averages_of_the_finest_would(tmp_path: Path) -> None:
    """A pixel off, each would differ more than twice as much."""
    coarse = np.random.default_rng(1).integers(60, 236, (30, 36, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((1440, 1200), Image.Resampling.BICUBIC), np.uint8)
    with open_slide(write_isyntax(tmp_path, pixels=pixels)) as slide:
        for level in slide.scenes[0].levels[1:]:
            factor = int(level.downsample)
            cut = pixels[: level.rows * factor, : level.columns * factor]
            mean = cut.reshape(level.rows, factor, level.columns, factor, 3).mean((1, 3))
            read = level_pixels(slide, level).astype(float)

            def difference(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
                return float(np.abs(a - b)[4:-4, 4:-4].mean())

            right = difference(read, mean)
            for shift in (-1, 1):
                shifted = np.roll(np.roll(read, shift, 0), shift, 1)
                assert right * 2 < difference(shifted, mean)


@pytest.mark.parametrize(("compressor", "table"), [(1, "seek"), (2, "seek"), (2, "clusters")])
def test_pyisyntax_reads_the_same_slide(
    tmp_path: Path, compressor: int, table: Literal["seek", "clusters"]
) -> None:
    """Another's whole reader; its build halves chroma towards zero: up to two grey levels."""
    path = write_isyntax(tmp_path, compressor=compressor, table=table)
    with ISyntax.open(path) as peer:
        assert peer.level_dimensions == [(1500, 1200), (750, 600), (375, 300), (187, 150)]
        assert peer.barcode == BARCODE
        assert (peer.mpp_x, peer.mpp_y) == (0.25, 0.25)
        assert bytes(peer.read_label_image_jpeg()) == associated_jpeg("LABELIMAGE", (300, 320))
        assert bytes(peer.read_icc_profile()) == srgb_profile()
        for scale, expected in enumerate(expected_levels(tissue(), 4)[:3]):
            across, down = peer.level_tiles[scale]
            rows = [
                np.concatenate([peer.read_tile(x, y, scale) for x in range(across)], axis=1)
                for y in range(down)
            ]
            first = Grid(1200, 1500, 4, 128).first_pixel(scale)
            read = np.concatenate(rows)[first:, first:, :3][: expected.shape[0], : expected.shape[1]]
            assert np.abs(read.astype(int) - expected).max() <= 2


def test_what_was_not_scanned_is_absent_and_white(tmp_path: Path) -> None:
    with (
        open_slide(write_isyntax(tmp_path, name="a.isyntax")) as sparse,
        open_slide(write_isyntax(tmp_path, name="b.isyntax", keep_blank=True)) as whole,
    ):
        finest, *_, coarsest = sparse.scenes[0].levels
        assert pixel_tiles(finest).absent.tolist() == [False] * 8 + [True]
        assert (pixel_tiles(finest).read(8) == 255).all()
        assert not pixel_tiles(coarsest).absent.any()
        for one, other in zip(sparse.scenes[0].levels, whole.scenes[0].levels, strict=True):
            assert not pixel_tiles(other).absent.any()
            assert np.array_equal(level_pixels(sparse, one), level_pixels(whole, other))


def test_the_header_says_what_the_scan_was(tmp_path: Path) -> None:
    with open_slide(write_small(tmp_path)) as slide:
        assert slide.format == "philips-isyntax"
        assert slide.findings == ()
        scan, (scene,) = slide.scan, slide.scenes
        assert (scan.manufacturer, scan.model_name, scan.device_serial_number) == (
            "PHILIPS",
            "UFS Scanner",
            "FMT0777",
        )
        assert scan.software_versions == ("1.8.6824", "20180906_R51")
        assert scan.acquired == datetime(2026, 3, 14, 9, 26, 53)
        assert scan.acquired.tzinfo is None
        assert scan.barcode == BARCODE
        assert scan.description == "PHILIPS UFS V1.8.6824 | Quality=0 | DWT=1 | Compressor=16"
        assert scan.properties["piim_dp_scanner_slot_number"] == "7"
        assert not any(len(text) > 200 for text in scan.properties.values())
        assert [level.pixel_spacing_mm for level in scene.levels] == [
            (0.00025 * 2**n, 0.00025 * 2**n) for n in range(3)
        ]
        assert scene.optical_paths[0].icc_profile == srgb_profile()
        assert scene.optical_paths[0].objective_power is None
        assert scene.origin_mm is None


def test_label_and_macro_are_the_jpegs_of_the_header(tmp_path: Path) -> None:
    with open_slide(write_small(tmp_path)) as slide:
        for role, kind, size in (
            (Role.LABEL, "LABELIMAGE", (300, 320)),
            (Role.OVERVIEW, "MACROIMAGE", (300, 800)),
        ):
            image = slide.associated_image(role)
            assert image is not None
            assert image.codestream == associated_jpeg(kind, size)
            assert (image.rows, image.columns) == size
            assert np.array_equal(image.read(), np.asarray(Image.open(io.BytesIO(image.codestream))))
    with open_slide(write_small(tmp_path, label=False, macro=False, icc=False)) as slide:
        assert slide.associated == ()
        assert slide.scenes[0].optical_paths[0].icc_profile == b""


def test_the_images_may_come_in_another_order(tmp_path: Path) -> None:
    with open_slide(write_small(tmp_path, wsi_first=False)) as slide:
        assert [image.role for image in slide.associated] == [Role.LABEL, Role.OVERVIEW]
        assert np.array_equal(level_pixels(slide, slide.scenes[0].levels[0]), SMALL)


def test_lossy_is_what_the_header_says(tmp_path: Path) -> None:
    def methods(path: Path) -> tuple[set[str], tuple[str, ...]]:
        with open_slide(path) as slide:
            return {pixel_tiles(level).lossy_method for level in slide.scenes[0].levels}, tuple(
                slide.findings
            )

    assert methods(write_small(tmp_path)) == ({""}, ())
    assert methods(write_small(tmp_path, lossy=True)) == ({"PHILIPS_DP_1_0"}, ())
    silent = replaced(
        write_small(tmp_path), b'DICOM_LOSSY_IMAGE_COMPRESSION"', b'DICOM_LOSSY_IMAGE_COMPRESSIOM"'
    )
    assert methods(silent) == (
        {"PHILIPS_DP_1_0"},
        ("the file does not say whether its compression was lossy: taken as lossy",),
    )


def test_a_level_takes_up_its_own_blocks_and_those_of_coarser_ones(tmp_path: Path) -> None:
    path = write_small(tmp_path)
    with open_slide(path) as slide:
        sizes = [pixel_tiles(level).size_bytes for level in slide.scenes[0].levels]
        assert sizes == sorted(sizes, reverse=True)
        blocks = blocks_of(path)  # each after a tag of 8 bytes; colours x (three scales, low band)
        assert sizes[0] == blocks.stop - blocks.start - 8 * 3 * (16 + 4 + 1 + 1)


@pytest.mark.parametrize(
    ("um_per_pixel", "unit", "expected"),
    [
        (0.5, "um", 0.0005),
        (0.00025, "mm", 0.00025),
        (0.25, "parsec", None),
        (None, "MicroMeter", None),
        (-1.0, "MicroMeter", None),
    ],
)
def test_pixel_size_is_taken_only_where_it_is_stated(
    tmp_path: Path, um_per_pixel: float | None, unit: str, expected: float | None
) -> None:
    path = write_small(tmp_path, um_per_pixel=um_per_pixel, unit=unit)
    with open_slide(path) as slide:
        spacing = slide.scenes[0].levels[0].pixel_spacing_mm
        assert spacing == (None if expected is None else pytest.approx((expected, expected)))


def test_a_time_that_is_none_is_a_finding(tmp_path: Path) -> None:
    path = replaced(write_small(tmp_path), b"20260314092653", b"20261314092653")
    with open_slide(path) as slide:
        assert slide.scan.acquired is None
        assert slide.findings == ("the time of scanning is not stated",)


@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("table", ["seek", "header", "clusters"])
def test_pixels_are_found_wherever_byte_ranges_stand(
    tmp_path: Path, table: Literal["seek", "header", "clusters"], levels: int
) -> None:
    """Version 2 lists blocks in clusters; some files have zeros before EOT."""
    with open_slide(write_small(tmp_path, table=table, levels=levels, zeros=500)) as slide:
        for level, pixels in zip(slide.scenes[0].levels, expected_levels(SMALL, levels), strict=True):
            assert np.array_equal(level_pixels(slide, level), pixels)


def test_a_philips_tiff_and_other_xml_are_not_claimed(tmp_path: Path) -> None:
    for number, head in enumerate((b'<DataObject ObjectType="DPOther">', b"II*\0DPUfsImport", b"<xml/>")):
        path = tmp_path / str(number)
        path.write_bytes(head)
        assert PhilipsIsyntaxReader.why_not(Probe(path)) is not None
    path.write_bytes(
        b'\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8"?>\r\n<DataObject ObjectType="DPUfsImport">'
    )
    assert PhilipsIsyntaxReader.why_not(Probe(path)) is None


def test_a_conversion_writes_the_pixels_without_loss(tmp_path: Path) -> None:
    path = write_isyntax(tmp_path, lossy=True)
    (done,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    expected = expected_levels(tissue(), 4)
    read = {}
    for file in done.files:
        dataset = pydicom.dcmread(file)
        read[dataset.ImageType[2], dataset.TotalPixelMatrixRows] = dataset
    level = read["VOLUME", 300]
    assert level.LossyImageCompressionMethod == "PHILIPS_DP_1_0"
    assert np.array_equal(
        level.pixel_array.reshape(512 if level.Rows == 512 else 300, -1, 3)[:300, :375], expected[2]
    )
    assert level.Manufacturer == "PHILIPS"
    assert "LABEL" in {kind for kind, _ in read}


def test_damaged_codeblocks_are_refused_or_read_but_never_end_the_process(tmp_path: Path) -> None:
    """The format has no checksums: a bit that only changes a coefficient goes unseen."""
    path = write_small(tmp_path)
    sound, rng, refusals = path.read_bytes(), random.Random(3), []
    place = blocks_of(path)
    for _ in range(12):
        data = bytearray(sound)
        for _ in range(40):
            data[rng.randrange(place.start, place.stop)] = rng.randrange(256)
        path.write_bytes(data)
        with open_slide(path) as slide:
            try:
                level_pixels(slide, slide.scenes[0].levels[0])
            except DamagedSlide as refusal:
                refusals.append(str(refusal))
    assert set(refusals) == {"a codeblock is damaged"}
    assert len(refusals) > 6


def test_a_damaged_header_is_a_refusal_whatever_it_says(tmp_path: Path) -> None:
    path = write_small(tmp_path)
    sound, rng = path.read_bytes(), random.Random(4)
    end = sound.index(EOT)
    table = sound.index(b"UFS_IMAGE_BLOCK_HEADER_TABLE")
    refusals = []
    for number in range(120):
        data = bytearray(sound)
        first, last = ((0, end), (table, end + 2000))[number % 2]
        for _ in range(1 + number % 3):
            data[rng.randrange(first, last)] = rng.choice(b'0123456789<>/"AZ\0\xff')
        path.write_bytes(data)
        try:
            with open_slide(path) as slide:
                assert slide.format == "philips-isyntax"
        except ConversionError as refusal:
            refusals.append(str(refusal))
    assert len(refusals) > 20
    assert not any("\n" in text for text in refusals)


BROKEN_HEADS: list[Callable[[bytes], bytes]] = [
    lambda data: b"\xff\xff\xff\x7f" + data[4:],  # planes longer than the samples
    lambda data: data[:5] + b"\0" + data[6:],  # counters of no bits
    lambda data: data[:5] + b"\xff" + data[6:],
    lambda data: data[:6] + bytes(400),  # a Huffman tree that forks for ever
    lambda data: data[:8],
    lambda data: data[:20],
]


@pytest.mark.parametrize("broken", BROKEN_HEADS)
def test_heads_that_the_library_would_run_away_with_are_refused(
    broken: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    band = np.arange(128 * 128, dtype=np.int32).reshape(128, 128) % 97 - 40
    block = encode_codeblock([band, band, band], 1)
    decoder = CodeblockDecoder()
    assert np.array_equal(decoder.decode(block, 3, 128, 1)[2], band)
    data = broken(block)
    if len(data) <= 8:
        assert not decoder.decode(data, 3, 128, 1).any()  # so short means empty
    else:
        with pytest.raises(DamagedSlide, match=r"^a codeblock is damaged$"):
            decoder.decode(data, 3, 128, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("scale", [0.2, 4.0, 300.0])
def test_codeblocks_come_back_as_they_were(version: int, scale: float) -> None:
    decoder, rng = CodeblockDecoder(), np.random.default_rng(2)
    for count in (1, 3):
        bands = [np.round(rng.laplace(0, scale, (64, 64))).astype(np.int32) for _ in range(count)]
        decoded = decoder.decode(encode_codeblock(bands, version), count, 64, version)
        assert np.array_equal(decoded, np.stack(bands))


def test_without_the_library_the_refusal_names_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_small(tmp_path)
    monkeypatch.setitem(sys.modules, "isyntax", None)
    with pytest.raises(MissingLibrary, match=r"pip install pyisyntax==0\.1\.7$"):
        open_slide(path)


def test_codeblocks_of_another_method_are_refused(tmp_path: Path) -> None:
    path = write_small(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'PMSVR="IString">16</Attribute>', b'PMSVR="IString">99</Attribute>'))
    with pytest.raises(UnsupportedCompression, match="codeblocks"):
        open_slide(path)


def test_a_damaged_table_of_clusters_is_refused(tmp_path: Path) -> None:
    sound = read_header(write_small(tmp_path, table="clusters"))
    table = sound.blob(sound.wsi, "UFS_IMAGE_CLUSTER_HEADER_TABLE")
    assert table is not None
    assert len(listed_in_clusters(sound.wsi, table).places) == 66
    rng, refused = random.Random(6), 0
    for number in range(200):
        data = bytearray(table)
        if number % 2:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(60)] ^= 1 << rng.randrange(8)
        try:
            listed_in_clusters(sound.wsi, bytes(data))
        except DamagedSlide:
            refused += 1
    assert refused > 120


def test_a_barcode_that_is_no_base64_is_taken_as_it_stands(tmp_path: Path) -> None:
    path = write_small(tmp_path)
    replaced(path, base64.b64encode(BARCODE.encode()), b"S26 0815 (no 64)")
    with open_slide(path) as slide:
        assert slide.scan.barcode == "S26 0815 (no 64)"


def test_a_slash_too_many_behind_base64_does_no_harm(tmp_path: Path) -> None:
    path, jpeg = write_small(tmp_path), associated_jpeg("LABELIMAGE", (300, 320))
    replaced(path, b"Operator ID", b"Operator I")  # offsets stay as they are
    encoded = base64.b64encode(jpeg)
    replaced(path, encoded + b"<", encoded + b"/<")
    with open_slide(path) as slide:
        label = slide.associated_image(Role.LABEL)
        assert label is not None
        assert label.codestream == jpeg
