# SPDX-License-Identifier: Apache-2.0
"""The Aperio reader: what the file says, and where it lies."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from converters.codecs import decode
from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, UnreadableSlide, UnsupportedCompression
from converters.readers import tiff_pages
from converters.readers.aperio_description import parse_description
from converters.registry import open_slide, readers
from converters.slide import Role, TileMap
from gateway.demo.svs import JPEG2000_YCBCR, Pixels, Scan, SvsWriter, TileFormat
from tests.support.converted import jpeg2000_of_components
from tests.support.level_values import level_values
from tests.support.make_slide import JPEG, JPEG2000_RGB, make_svs, picture, shrink
from tests.support.require import require_data


def test_the_real_slide_says_all_it_says() -> None:
    with open_slide(require_data("slides/svs/CMU-1-Small-Region.svs")) as slide:
        (level,) = slide.scenes[0].levels
        assert (level.rows, level.columns, level.tile_rows, level.tile_columns) == (2967, 2220, 240, 240)
        assert level.container_rgb is True
        assert level.pixel_spacing_mm == (0.000499, 0.000499)
        assert len(level.tiles) == 130
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.THUMBNAIL, 768, 574),
            (Role.LABEL, 463, 387),
            (Role.OVERVIEW, 431, 1280),
        ]
        scan = slide.scan
        assert (scan.manufacturer, scan.model_name) == ("Aperio", "ScanScope")
        assert scan.device_serial_number == "CPAPERIOCS"
        assert scan.software_versions == ("Aperio Image Library v11.2.1",)
        assert scan.acquired == datetime(2009, 12, 29, 9, 59, 15)
        assert scan.acquired.tzinfo is None
        assert slide.scenes[0].optical_paths[0].objective_power == 20
        assert scan.description.startswith("Aperio Image Library")


def test_a_region_lies_where_its_own_offset_puts_it() -> None:
    """The region starts 42,673 + 0 columns and 5,576 + 100 rows into the scan."""
    with open_slide(require_data("slides/svs/CMU-1-Small-Region.svs")) as slide:
        assert slide.scenes[0].origin_mm == pytest.approx(
            (23.449873 - 5676 * 0.000499, 75 - 25.691574 - 42673 * 0.000499)
        )


@pytest.mark.parametrize(
    ("name", "image"), [("label", Role.LABEL), ("macro", Role.OVERVIEW), ("thumbnail", Role.THUMBNAIL)]
)
def test_associated_images_have_the_pixels_that_tifffile_reads(name: str, image: Role) -> None:
    path = require_data("slides/svs/CMU-1-Small-Region.svs")
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        page = tiff.pages[{"thumbnail": 1, "label": 2, "macro": 3}[name]]
        found = slide.associated_image(image)
        assert found is not None
        assert np.array_equal(found.read(), page.asarray())


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ("slides/svs/histolab-broken.svs", "not a TIFF"),
        ("slides/fragments/opentile_ndpi_frame_2048x512.jpg", "not a TIFF"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_every_readers_reason(sample: str, says: str) -> None:
    with pytest.raises(UnreadableSlide) as refusal:
        open_slide(require_data(sample))
    assert set(refusal.value.refusals) == {reader.format for reader in readers()}
    assert refusal.value.refusals["aperio-svs"].startswith(says)
    assert str(refusal.value) == "no reader knows this file (coverslip inspect says why)"


def test_no_file_a_folder_and_an_empty_file_are_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "empty.svs").write_bytes(b"")
    for path, says in (("none.svs", "no such file"), ("", "a folder"), ("empty.svs", "is empty")):
        with pytest.raises(UnreadableSlide, match=says):
            open_slide(tmp_path / path)


def test_a_missing_mpp_is_not_invented(tmp_path: Path) -> None:
    with open_slide(make_svs(tmp_path / "a.svs", mpp=None)) as slide:
        assert all(level.pixel_spacing_mm is None for level in slide.scenes[0].levels)


def test_levels_without_description_are_levels_all_the_same(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", levels=(1, 4), describe_levels=False)
    with open_slide(path) as slide:
        levels = slide.scenes[0].levels
        assert [(level.rows, level.columns, level.downsample) for level in levels] == [
            (700, 900, 1.0),
            (175, 225, 4.0),
        ]
        assert levels[1].pixel_spacing_mm == pytest.approx((0.002, 0.002))


def test_an_absent_tile_has_no_bytes(tmp_path: Path) -> None:
    with open_slide(make_svs(tmp_path / "a.svs", missing_tiles=(3, 5))) as slide:
        assert np.flatnonzero(slide.scenes[0].levels[0].tiles.absent).tolist() == [3, 5]


def ycbcr_422(rgb: Pixels) -> bytes:
    """A tile as Aperio's 33003 has it: chroma at every second column."""
    y, cb, cr = (np.asarray(band) for band in Image.fromarray(rgb).convert("YCbCr").split())
    return jpeg2000_of_components([y, cb[:, ::2], cr[:, ::2]], *rgb.shape[:2])


def written_frames(path: Path, samples: int = 3) -> list[Pixels]:
    """Frames of a DICOM file, decoded by our codecs to RGB."""
    instance = pydicom.dcmread(path)
    frames = pydicom.encaps.generate_frames(
        instance.PixelData, number_of_frames=int(instance.get("NumberOfFrames", 1))
    )
    return [
        decode(
            frame, instance.file_meta.TransferSyntaxUID, instance.Rows, instance.Columns, samples, 8,
            instance.PhotometricInterpretation,
        )
        for frame in frames
    ]  # fmt: skip


def test_ycbcr_422_with_a_zero_length_tile_and_an_undescribed_level_converts(tmp_path: Path) -> None:
    """33003 with halved chroma, a tile that was not scanned, GT450's empty descriptions."""
    tile, base = 128, picture(256, 384)
    coarse = shrink(base, 2)
    form = TileFormat(JPEG2000_YCBCR)
    places = [(top, left) for top in (0, tile) for left in (0, tile, 2 * tile)]
    tiles = [ycbcr_422(base[top : top + tile, left : left + tile]) for top, left in places]
    whole = np.pad(coarse, ((0, 0), (0, 2 * tile - coarse.shape[1]), (0, 0)), mode="edge")
    path = tmp_path / "a.svs"
    with SvsWriter(path, Scan()) as svs:
        svs.level(256, 384, tile, form, [*tiles[:4], b"", tiles[5]])
        halves = [ycbcr_422(whole[:, :tile]), ycbcr_422(whole[:, tile:])]
        svs.level(128, 192, tile, form, halves, describe=False)
    with open_slide(path) as slide:
        fine, reduced = slide.scenes[0].levels
        assert fine.container_rgb is False
        assert np.flatnonzero(fine.tiles.absent).tolist() == [4]
        assert (reduced.rows, reduced.columns, reduced.downsample) == (128, 192, 2.0)
    (converted,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    frames = written_frames(converted.folder / "level-0.dcm")
    assert np.all(frames[4] == 255)
    for number in (0, 1, 2, 3, 5):
        top, left = places[number]
        difference = np.abs(frames[number].astype(int) - base[top : top + tile, left : left + tile])
        assert difference.mean() < 2
    assert (
        np.abs(written_frames(converted.folder / "level-1.dcm")[0].astype(int) - whole[:, :tile]).mean() < 2
    )


@pytest.mark.parametrize(
    ("compression", "photometric", "subsampling"),
    [(JPEG, "RGB", "444"), (JPEG, "YCBCR", "422"), (JPEG, "YCBCR", "420"), (JPEG2000_RGB, "RGB", "444")],
)
def test_gt450_like_slides_with_zero_length_tiles_are_copied_and_proven(
    tmp_path: Path, compression: int, photometric: str, subsampling: str
) -> None:
    """Coarser levels without description; tiles 3 and 11 of the finest never scanned."""
    path = make_svs(
        tmp_path / "a.svs", compression=compression, photometric=photometric, subsampling=subsampling,
        missing_tiles=(3, 11), describe_levels=False, levels=(1, 4),
    )  # fmt: skip
    (converted,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert converted.verified_tiles >= 12 - 2 + 1
    assert all(one.born for one in converted.instances if one.role is Role.VOLUME)
    frames = written_frames(converted.folder / "level-0.dcm")
    base = picture(700, 900)
    assert np.all(frames[3] >= 254)
    assert np.abs(frames[5].astype(int) - base[256:512, 256:512]).mean() < 4
    assert pydicom.dcmread(converted.folder / "level-1.dcm").TotalPixelMatrixColumns == 225


def test_tiles_beyond_the_end_of_the_file_are_found_at_once(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs")
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["TileOffsets"]
        order, where = tiff.byteorder, tag.valueoffset
    data = bytearray(path.read_bytes())
    data[where : where + 4] = np.array([len(data) - 10], dtype=f"{order}u4").tobytes()
    path.write_bytes(data)
    with pytest.raises(DamagedSlide, match="1 tiles of page 0 lie beyond the end of the file"):
        open_slide(path)


def test_an_unsupported_compression_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    picture = np.zeros((512, 512, 3), dtype=np.uint8)
    description = "Aperio Image Library v1.0\r\n512x512|MPP = 0.5"
    tifffile.imwrite(
        path, picture, tile=(256, 256), compression="zstd", description=description, metadata=None
    )
    with pytest.raises(UnsupportedCompression, match="unsupported compression 50000 in the tiles of page 0"):
        open_slide(path)


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("Date = 12/29/09|Time = 09:59:15|Time Zone = GMT-04:00", timezone(timedelta(hours=-4))),
        ("Date = 12/29/2009|Time = 09:59:15|Time Zone = GMT+0530", timezone(timedelta(hours=5, minutes=30))),
        ("Date = 12/29/2009|Time = 09:59:15|Time Zone = GMT+0", UTC),
        ("Date = 12/29/2009|Time = 09:59:15|Time Zone = EST", None),
        ("Date = 12/29/2009|Time = 09:59:15", None),
    ],
)
def test_the_time_of_scanning_has_a_zone_only_if_it_is_stated(text: str, zone: timezone | None) -> None:
    found = parse_description(f"Aperio Image Library v1\r\n1x1|{text}").acquired
    assert found == datetime(2009, 12, 29, 9, 59, 15, tzinfo=zone)
    assert found is not None
    assert found.tzinfo == zone


def test_the_tiffs_own_date_stands_in_for_a_missing_one() -> None:
    words = parse_description("Aperio Leica Biosystems GT450 v1.0.1\r\n1x1", "2024:02:03 04:05:06")
    assert words.acquired == datetime(2024, 2, 3, 4, 5, 6)
    assert (words.manufacturer, words.model_name) == ("Leica Biosystems", "GT450")


@pytest.mark.parametrize(
    ("line", "maker", "model"),
    [
        ("Aperio Image Library v12.0.16", "Aperio", "ScanScope"),
        ("Aperio Leica Biosystems GT450 DX v1.0.1 ", "Leica Biosystems", "GT450 DX"),
        ("Aperio Leica Biosystems Segue v1.0 ", "Leica Biosystems", "Segue"),
        ("Aperio Image, Grundium Ocus40", "Grundium", "Ocus40"),
    ],
)
def test_the_first_line_names_maker_and_model(line: str, maker: str, model: str) -> None:
    words = parse_description(f"{line}\r\n1x1 [0,0,1x1] (256x256) JPEG/YCC Q=91|AppMag = 40")
    assert (words.manufacturer, words.model_name) == (maker, model)


@pytest.mark.parametrize(
    ("text", "microns"),
    [
        ("Aperio Image Library v1\r\n1x1|MPP = 0,2527", 0.2527),
        ("Aperio Image, Grundium Ocus\r\nScan resolution 0.48 um|AppMag = 20", 0.48),
        ("Aperio Image, Grundium Ocus\r\nScan resolution 0.48 um|MPP = 0.5", 0.5),
        ("Aperio Image, Grundium Ocus\r\nScan resolution 600 dpi|AppMag = 20", None),
    ],
)
def test_pixel_sizes_are_read_as_makers_write_them(text: str, microns: float | None) -> None:
    expected = None if microns is None else pytest.approx((microns / 1000, microns / 1000))
    assert parse_description(text).pixel_spacing_mm == expected


def test_a_time_zone_that_overflowed_is_none() -> None:
    words = parse_description(
        "Aperio Leica Biosystems GT450 v1.0.1\r\n1x1|Date = 01/31/2022|Time = 10:00:00|"
        "Time Zone = GMT+429496729200"
    )
    assert words.acquired == datetime(2022, 1, 31, 10)


def scanned_svs(path: Path, compression: str | None, thumbnail: dict[str, object]) -> Pixels:
    """As scanners write it, the thumbnail with subfile type 1, label and macro without words."""
    drawn = picture(500, 600)
    rest = {"metadata": None, "software": False, "photometric": "rgb"}
    with tifffile.TiffWriter(path) as tiff:
        words = "Aperio Image Library v1.0\r\n600x500|MPP = 0.5"
        tiff.write(drawn, tile=(240, 240), compression=compression, description=words, **rest)
        tiff.write(shrink(drawn, 4), subfiletype=1, rowsperstrip=16, **{**rest, **thumbnail})
        tiff.write(shrink(drawn, 2), tile=(240, 240), compression=compression, **rest)
        tiff.write(picture(90, 80, 3), subfiletype=1, compression="lzw", **rest)
        tiff.write(picture(60, 200, 4), subfiletype=9, **rest)
    return drawn


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_tiles_that_were_not_compressed_are_decoded(tmp_path: Path, compression: str | None) -> None:
    drawn = scanned_svs(tmp_path / "a.svs", compression, {"compression": "jpeg"})
    with open_slide(tmp_path / "a.svs") as slide:
        assert [level.downsample for level in slide.scenes[0].levels] == [1.0, 2.0]
        assert np.array_equal(level_values(slide.scenes[0].levels[0]), drawn)
        shapes = {image.role: (image.rows, image.columns) for image in slide.associated}
        assert shapes == {Role.THUMBNAIL: (125, 150), Role.LABEL: (90, 80), Role.OVERVIEW: (60, 200)}


def test_a_slide_is_not_refused_for_the_kind_of_its_thumbnail(tmp_path: Path) -> None:
    scanned_svs(tmp_path / "a.svs", "lzw", {"compression": "lzma"})
    path = tmp_path / "a.svs"
    data = path.read_bytes().replace(*(b"\x03\x01\x03\0\x01\0\0\0" + n for n in (b"\x6d\x88", b"\x6e\x77")))
    path.write_bytes(data)  # a compression that nobody has
    with open_slide(path) as slide:
        assert slide.associated_image(Role.THUMBNAIL) is None
        assert slide.associated_image(Role.LABEL) is not None
        assert any("the thumbnail image is left out" in text for text in slide.findings)


@pytest.mark.parametrize(
    "text", ["", "Aperio", "|||", "Aperio x|MPP = nan|Left = x|=|Date = 99/99/99", "Aperio\0|a=\0"]
)
def test_any_text_is_parsed_without_complaint(text: str) -> None:
    words = parse_description(text)
    assert words.pixel_spacing_mm is None
    assert words.origin_mm(None) is None
    assert words.acquired is None


def test_tables_of_very_many_tiles_take_the_place_of_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_svs(tmp_path / "a.svs")
    with open_slide(path) as few:
        monkeypatch.setattr(tiff_pages, "MANY_TILES", 0)
        with open_slide(path) as many:
            for one, other in zip(few.scenes[0].levels, many.scenes[0].levels, strict=True):
                assert isinstance(one.tiles, TileMap)
                assert isinstance(other.tiles, TileMap)
                assert np.array_equal(one.tiles.offsets, other.tiles.offsets)
                assert np.array_equal(one.tiles.lengths, other.tiles.lengths)
                assert one.reference is not None
                assert other.reference is not None
                assert np.array_equal(one.reference(0), other.reference(0))
