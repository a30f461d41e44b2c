# SPDX-License-Identifier: Apache-2.0
"""Tiles of TIFF pages: decoded ones against the pixels that went in, copied ones by their ranges."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.readers import tiff_segments
from converters.readers.tiff_pages import all_pages
from converters.readers.tiff_pixels import LevelTiles, Plane, SegmentCache, level_tiles
from converters.slide import Level, PixelTiles, TileMap
from tests.support.make_slide import picture
from tests.support.slides.jpeg_pages import write_tiled

ROWS, COLUMNS = 700, 900
RGB = picture(ROWS, COLUMNS)
GREY = RGB[..., 0]
GREY16 = (RGB[..., 0].astype(np.uint16) << 8) + RGB[..., 1]

Opened = Callable[..., list["tifffile.TiffPage"]]


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Opened]:
    """Write images (one page each) with TiffWriter and give the file's pages."""
    files = []

    def write(*images: NDArray[Any], **form: Any) -> list["tifffile.TiffPage"]:
        path = tmp_path / "pages.tif"
        with tifffile.TiffWriter(path, **form.pop("file", {})) as writer:
            for image in images:
                writer.write(image, metadata=None, **form)
        file = tifffile.TiffFile(path)
        files.append(file)
        return list(all_pages(file))

    yield write
    for file in files:
        file.close()


def one(page: "tifffile.TiffPage", *, scan: bool = True, **options: Any) -> LevelTiles:
    return level_tiles([[Plane(page)]], scan=scan, **options)


def whole(found: LevelTiles, rows: int = ROWS, columns: int = COLUMNS, plane: int = 0) -> NDArray[Any]:
    """All tiles of a plane, joined and cut to the image."""
    assert isinstance(found.tiles, PixelTiles)
    level = Level(0, rows, columns, found.tile_rows, found.tile_columns, found.tiles)
    tiles = level.tiles_down * level.tiles_across
    read = [found.tiles.read(plane * tiles + index) for index in range(tiles)]
    assert {tile.shape[:2] for tile in read} == {(found.tile_rows, found.tile_columns)}
    bands = [
        np.concatenate(read[row * level.tiles_across :][: level.tiles_across], axis=1)
        for row in range(level.tiles_down)
    ]
    return np.concatenate(bands)[:rows, :columns]


TILED: dict[str, Any] = {"tile": (256, 256)}
FORMS = [TILED, {"rowsperstrip": 7}, {"rowsperstrip": ROWS}]
LOSSLESS = [(name, form) for name in (None, "lzw", "zlib", "zstd", "packbits") for form in FORMS]
LOSSLESS.append(("png", TILED))


@pytest.mark.parametrize(
    ("image", "compression", "form"),
    [
        *((RGB, *case) for case in [*LOSSLESS, ("webp", TILED), ("jpegxl", TILED)]),
        *((GREY16, *case) for case in LOSSLESS),
    ],
)
def test_every_lossless_compression_decodes_to_what_was_written(
    pages: Opened, image: NDArray[Any], compression: str | None, form: dict[str, Any]
) -> None:
    arguments = {"lossless": True} if compression == "webp" else None
    (page,) = pages(image, compression=compression, compressionargs=arguments, **form)

    found = one(page)

    assert found.pixel_type.bits_allocated == image.dtype.itemsize * 8
    assert np.array_equal(whole(found), image.reshape(ROWS, COLUMNS, -1))


@pytest.mark.parametrize(("lossless", "method"), [(True, ""), (False, "WEBP")])
def test_webp_tells_whether_it_has_lost_something(pages: Opened, lossless: bool, method: str) -> None:
    (page,) = pages(RGB, tile=(256, 256), compression="webp", compressionargs={"lossless": lossless})
    assert one(page).tiles.lossy_method == method  # type: ignore[union-attr]


@pytest.mark.parametrize("predictor", [True, False])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_predictor_and_byte_order_are_undone(pages: Opened, predictor: bool, byteorder: str) -> None:
    (page,) = pages(GREY16, compression="zlib", predictor=predictor, file={"byteorder": byteorder})
    assert np.array_equal(whole(one(page))[..., 0], GREY16)


def test_uncompressed_strips_keep_their_byte_order(pages: Opened) -> None:
    (page,) = pages(GREY16, file={"byteorder": ">"})
    assert np.array_equal(whole(one(page))[..., 0], GREY16)


@pytest.mark.parametrize("form", [{"tile": (128, 128)}, {"rowsperstrip": 32}, {}])
def test_colours_stored_apart_are_joined(pages: Opened, form: dict[str, Any]) -> None:
    (page,) = pages(
        np.moveaxis(RGB, 2, 0).copy(), photometric="rgb", planarconfig="separate", compression="lzw", **form
    )
    assert np.array_equal(whole(one(page)), RGB)


def test_tiles_of_the_file_stay_tiles_and_strips_become_tiles_of_512(pages: Opened) -> None:
    (tiled,) = pages(GREY, tile=(240, 256), compression="zlib")
    assert (one(tiled).tile_rows, one(tiled).tile_columns) == (240, 256)
    (stripped,) = pages(GREY, rowsperstrip=16, compression="zlib")
    assert (one(stripped).tile_rows, one(stripped).tile_columns) == (512, 512)


def test_tiles_too_small_for_dicom_are_joined(pages: Opened) -> None:
    (page,) = pages(GREY, tile=(16, 16), compression="zlib")
    found = one(page)
    assert (found.tile_rows, found.tile_columns) == (512, 512)
    assert np.array_equal(whole(found)[..., 0], GREY)


def test_an_image_smaller_than_a_tile_is_one_tile(pages: Opened) -> None:
    (page,) = pages(GREY[:100, :80], compression="zlib")
    found = one(page)
    assert (found.tile_rows, found.tile_columns, len(found.tiles)) == (100, 80, 1)


def test_each_strip_is_decoded_once(pages: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    (page,) = pages(RGB, rowsperstrip=10, compression="zlib")
    decoded = []
    original = tiff_segments.Segments._decoded

    def counted(self: tiff_segments.Segments, index: int) -> NDArray[Any]:
        decoded.append(index)
        return original(self, index)

    monkeypatch.setattr(tiff_segments.Segments, "_decoded", counted)
    whole(one(page))
    twice = {512 // 10}  # the strip under the boundary of two rows of tiles
    assert set(decoded) == set(range(70))
    assert len(decoded) <= 70 + len(twice)


def test_the_cache_keeps_to_its_budget(pages: Opened) -> None:
    (page,) = pages(RGB, rowsperstrip=10, compression="zlib")
    cache = SegmentCache(budget_bytes=5 * 10 * COLUMNS * 3)
    assert np.array_equal(whole(one(page, cache=cache)), RGB)
    assert sum(pixels.nbytes for pixels in cache._kept.values()) <= cache.budget_bytes


def test_a_huge_strip_is_refused_unless_it_can_be_read_in_parts(
    pages: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_segments, "MAX_SEGMENT_BYTES", 300_000)
    monkeypatch.setattr(tiff_segments, "PART_BYTES", 100_000)
    (raw,) = pages(RGB)
    assert np.array_equal(whole(one(raw)), RGB)
    (packed,) = pages(RGB, rowsperstrip=ROWS, compression="zlib")
    with pytest.raises(UnsupportedPixels, match="holds too many pixels"):
        one(packed)


def test_white_is_zero_is_inverted(pages: Opened) -> None:
    (page,) = pages(GREY16, photometric="miniswhite")
    assert np.array_equal(whole(one(page))[..., 0], 65535 - GREY16)


def test_bits_become_bytes(pages: Opened) -> None:
    bits = GREY > 128
    (page,) = pages(bits, photometric="minisblack")
    assert np.array_equal(whole(one(page))[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("bits", [4, 12])
def test_packed_bits_are_unpacked(pages: Opened, bits: int) -> None:
    values = GREY >> 4 if bits == 4 else GREY16 >> 4
    (page,) = pages(values, bitspersample=bits, photometric="minisblack")
    assert np.array_equal(whole(one(page))[..., 0], values * 17 if bits == 4 else values)


def test_a_palette_becomes_rgb_or_stays_a_look_up_table(pages: Opened) -> None:
    palette = np.random.default_rng(3).integers(0, 65536, (3, 256), np.uint16)
    (page,) = pages(GREY, photometric="palette", colormap=palette)
    assert np.array_equal(whole(one(page)), (palette >> 8).astype(np.uint8).T[GREY])
    grey = level_tiles([[Plane(page, palette=False)]])
    assert np.array_equal(whole(grey)[..., 0], GREY)


def test_alpha_is_left_out_and_said(pages: Opened) -> None:
    rgba = np.dstack([RGB, np.full((ROWS, COLUMNS), 9, np.uint8)])
    (page,) = pages(rgba, photometric="rgb", extrasamples=["unassalpha"], compression="zlib")
    found = one(page)
    assert np.array_equal(whole(found), RGB)
    assert found.findings == ("page 0: 1 samples beyond the colours (alpha) are left out",)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_signed_values_are_shifted(pages: Opened, dtype: str) -> None:
    values = (GREY16 >> 8 if dtype == "int8" else GREY16).astype(np.int32)
    values -= 128 if dtype == "int8" else 32768
    (page,) = pages(values.astype(dtype), compression="zlib")
    found = one(page)
    (mapping,) = found.mappings
    assert mapping is not None
    assert mapping.slope == 1
    stored = whole(found)[..., 0]
    assert stored.dtype.itemsize == np.dtype(dtype).itemsize
    assert np.array_equal(stored + mapping.intercept, values)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        pytest.param(GREY16.astype(np.float32) / 1000 - 3, 65.536 / 65535, id="float32"),
        pytest.param(GREY16.astype(np.float64) * 1e6, 65536e6 / 65535, id="float64"),
        pytest.param(GREY16.astype(np.uint32) * 1000, 1000.1, id="wide uint32"),
        pytest.param(GREY16.astype(np.uint32) + 1_000_000, 0, id="uint32 of few values"),
        pytest.param(GREY16.astype(np.float32), 0, id="whole floats"),
    ],
)
def test_wide_values_are_mapped_to_16_bits_as_declared(
    pages: Opened, values: NDArray[Any], error: float
) -> None:
    (page,) = pages(values, compression="lzw", tile=(256, 256))
    found = one(page)
    (mapping,) = found.mappings
    assert mapping is not None
    stored = whole(found)[..., 0]
    assert stored.dtype == np.uint16
    assert np.abs(stored * mapping.slope + mapping.intercept - values).max() <= error / 2 + 1e-9


@pytest.mark.parametrize("dtype", ["float32", "uint32"])
def test_values_are_decoded_while_opening_only_where_that_is_allowed(pages: Opened, dtype: str) -> None:
    (page,) = pages(GREY16.astype(dtype), compression="lzw")
    with pytest.raises(UnsupportedPixels, match=f"^{dtype} values are not read in this format$"):
        one(page, scan=False)


def test_values_that_are_no_numbers_become_the_least(pages: Opened) -> None:
    values = GREY16.astype(np.float32) / 7 + 10
    values[5, 6], values[7, 8] = np.nan, np.inf
    (page,) = pages(values, compression="zlib")
    stored = whole(one(page))[..., 0]
    assert (stored[5, 6], stored[7, 8]) == (0, 65535)


def test_a_coarser_level_takes_the_finest_ones_mapping(pages: Opened) -> None:
    (page,) = pages(GREY16.astype(np.float32) / 1000, compression="zlib")
    mappings = one(page).mappings
    (small,) = pages(np.full((20, 30), 32.5, np.float32), compression="zlib")
    found = one(small, mappings=mappings)
    assert found.mappings == mappings
    assert mappings[0] is not None
    assert np.allclose(whole(found, 20, 30) * mappings[0].slope + mappings[0].intercept, 32.5, atol=0.001)


def test_paths_and_planes_come_in_frame_order(pages: Opened) -> None:
    images = [np.full((300, 300), value, np.uint8) for value in (1, 2, 3, 4)]
    found = level_tiles(_by_two(pages(*images, compression="zlib")))
    assert [int(whole(found, 300, 300, plane).mean()) for plane in range(4)] == [1, 2, 3, 4]


def _by_two(pages: list["tifffile.TiffPage"]) -> list[list[Plane | None]]:
    """Two paths of two planes."""
    return [[Plane(pages[0]), Plane(pages[1])], [Plane(pages[2]), Plane(pages[3])]]


def test_a_plane_that_is_missing_is_absent(pages: Opened) -> None:
    (page,) = pages(GREY, compression="zlib")
    found = level_tiles([[Plane(page)], [None]])
    assert found.tiles.absent.tolist() == [False] * 4 + [True] * 4
    assert found.tiles.read(7).max() == 0  # type: ignore[union-attr]


def test_one_sample_of_many_is_taken_alone(pages: Opened) -> None:
    (page,) = pages(RGB.astype(np.uint16) * 200, photometric="rgb", tile=(256, 256), compression="zlib")
    found = level_tiles([[Plane(page, sample=number)] for number in range(3)])
    for number in range(3):
        assert np.array_equal(whole(found, plane=number)[..., 0], RGB[..., number].astype(np.uint16) * 200)


def test_jpeg_tiles_are_copied_with_their_tables(pages: Opened) -> None:
    form = {"tile": (256, 256), "compression": "jpeg", "photometric": "minisblack"}
    four = pages(*[GREY + np.uint8(value) for value in range(4)], **form)
    found = level_tiles(_by_two(four))
    assert isinstance(found.tiles, TileMap)
    assert found.tiles.offsets.tolist() == [offset for page in four for offset in page.dataoffsets]
    assert found.reference is not None
    tile = found.reference(12 * 3)[..., 0].astype(int)
    assert np.abs(tile - (GREY[:256, :256] + np.uint8(3))).mean() < 3


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"compression": "jpeg", "rowsperstrip": 64}, "strips instead of tiles"),
        ({"compression": "zlib", "tile": (256, 256)}, "no legal form in DICOM for compression deflate"),
    ],
)
def test_it_says_why_tiles_cannot_be_copied(pages: Opened, form: dict[str, Any], why: str) -> None:
    (page,) = pages(RGB, photometric="rgb", **form)
    found = one(page)
    assert isinstance(found.tiles, PixelTiles)
    assert found.tiles.why == why
    assert found.tiles.lossy_method == ("ISO_10918_1" if "rowsperstrip" in form else "")


def test_pages_with_different_tables_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as writer:
        for quality in (60, 95):
            write_tiled(writer, GREY, 256, quality=quality)
    with tifffile.TiffFile(path) as file:
        first, second = all_pages(file)
        assert first.jpegtables != second.jpegtables
        found = level_tiles([[Plane(first)], [Plane(second)]])
        assert isinstance(found.tiles, PixelTiles)
        assert found.tiles.why == "pages have different JPEG tables"
        assert np.array_equal(whole(found, plane=1)[..., 0], second.asarray())


def test_sixteen_bit_jpeg_2000_is_copied(pages: Opened) -> None:
    (page,) = pages(GREY16, tile=(256, 256), compression="jpeg2000", photometric="minisblack")
    found = one(page)
    assert isinstance(found.tiles, TileMap)
    assert (found.pixel_type.bits_allocated, found.pixel_type.bits_stored) == (16, 16)


def test_tiles_left_out_are_absent_and_filled(pages: Opened) -> None:
    (page,) = pages(RGB, tile=(256, 256), compression="zlib")
    page.dataoffsets = (0, *page.dataoffsets[1:])
    found = one(page)
    assert found.tiles.absent.tolist() == [True] + [False] * 11
    assert found.tiles.read(0).min() == 255  # type: ignore[union-attr]


def test_what_the_file_says_of_places_is_checked(pages: Opened) -> None:
    (page,) = pages(GREY, rowsperstrip=100, compression="zlib")
    offsets = page.dataoffsets
    page.dataoffsets = (*offsets[:-1], 10**9)
    with pytest.raises(DamagedSlide, match="beyond the end of the file"):
        one(page)
    page.dataoffsets = offsets[:-1]
    with pytest.raises(DamagedSlide, match="needs 7 strips or tiles and lists 6"):
        one(page)


def test_damaged_data_are_refused_when_read(pages: Opened) -> None:
    (page,) = pages(GREY, rowsperstrip=100, compression="zlib")
    page.dataoffsets = (page.dataoffsets[0] + 5, *page.dataoffsets[1:])
    found = one(page)
    with pytest.raises(DamagedSlide, match="a strip or tile of page 0 cannot be decoded"):
        found.tiles.read(0)  # type: ignore[union-attr]


def test_what_is_not_read_is_refused(pages: Opened) -> None:
    (page,) = pages(RGB.astype(np.uint16), photometric="rgb")
    with pytest.raises(UnsupportedPixels, match="more or less than 8 bits"):
        one(page)
    (page,) = pages(np.dstack([RGB, GREY]), photometric="separated")
    with pytest.raises(UnsupportedPixels, match="colours or samples that are not read"):
        one(page)
    (page,) = pages(GREY)
    page.compression = 65000
    with pytest.raises(UnsupportedCompression):
        one(page)
