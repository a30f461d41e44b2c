# SPDX-License-Identifier: Apache-2.0
"""Pictures for a screen: geometry, grey levels, colour spaces."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from converters.codecs import CodecError, FrameTooLarge, UnsupportedCodec, encode
from converters.codecs.colour import SPACES, standard_profile
from converters.codecs.picture import MEDIA_TYPES, encode_picture
from converters.codecs.render import FrameFormat, Layer, View, render, value_limits
from converters.codecs.transfer_syntax import EXPLICIT_LE
from tests.support.make_slide import picture

PIXELS = picture(64, 96)
COLOUR = FrameFormat(EXPLICIT_LE, 64, 96, 3, 8, 8, 0, "RGB")
FRAME = PIXELS.tobytes()
DEEP = FrameFormat(EXPLICIT_LE, 4, 4, 1, 16, 12, 0, "MONOCHROME2")


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def shown(data: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(opened(data))


def png(**options: object) -> View:
    return View(media_type="image/png", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("media_type", "name"),
    [("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/gif", "GIF"), ("image/jp2", "JPEG2000")],
)
def test_each_media_type_is_what_it_says(media_type: str, name: str) -> None:
    image = opened(render([(0, 0, FRAME)], COLOUR, View(media_type=media_type), (64, 96)))
    assert image.format == name
    assert image.size == (96, 64)
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - PIXELS).mean() < 6


def test_png_is_exact() -> None:
    assert np.array_equal(shown(render([(0, 0, FRAME)], COLOUR, png(), (64, 96))), PIXELS)


def test_tiles_are_cut_at_the_canvas_and_the_rest_is_white() -> None:
    tiles = [(-10, -20, FRAME), (40, 60, FRAME)]
    canvas = shown(render(tiles, COLOUR, png(), (70, 120)))
    assert np.array_equal(canvas[:54, :60], PIXELS[10:, 20:80])
    assert np.array_equal(canvas[40:, 60:], PIXELS[:30, :60])
    assert (canvas[60:, :60] == 255).all()


def test_the_result_fits_the_bounds_and_keeps_its_shape() -> None:
    for bounds, expected in [
        ((32, 0), (32, 48)),
        ((0, 24), (16, 24)),
        ((10, 90), (10, 15)),
        ((900, 900), (64, 96)),
    ]:
        view = png(rows=bounds[0], columns=bounds[1])
        assert shown(render([(0, 0, FRAME)], COLOUR, view, (64, 96))).shape[:2] == expected


def test_a_smaller_picture_is_the_average_by_area() -> None:
    quarter = shown(render([(0, 0, FRAME)], COLOUR, png(rows=16), (64, 96)))
    expected = PIXELS.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(quarter - expected).max() <= 1


def test_deep_grey_is_windowed_or_stretched() -> None:
    values = np.array([[0, 1000, 2000, 4000]] * 4, "<u2")
    tiles = [(0, 0, values.tobytes())]
    stretched = shown(render(tiles, DEEP, png(), (4, 4)))
    assert stretched[0].tolist() == [0, 64, 128, 255]
    for function, expected in {
        "linear-exact": [0, 128, 255, 255],
        "linear": [0, 128, 255, 255],
        "sigmoid": [30, 128, 225, 254],
    }.items():
        view = png(window=(1000.0, 2000.0, function))
        assert shown(render(tiles, DEEP, view, (4, 4)))[0] == pytest.approx(expected, abs=1)
    with pytest.raises(CodecError, match="window"):
        render(tiles, DEEP, png(window=(0.0, 0.0, "linear")), (4, 4))


def test_monochrome1_is_shown_the_other_way_round() -> None:
    form = FrameFormat(EXPLICIT_LE, 2, 2, 1, 8, 8, 0, "MONOCHROME1")
    assert shown(render([(0, 0, bytes([0, 255, 10, 20]))], form, png(), (2, 2))).ravel().tolist() == [
        255,
        0,
        245,
        235,
    ]


def test_a_mask_of_bits_is_black_and_white() -> None:
    form = FrameFormat(EXPLICIT_LE, 2, 4, 1, 1, 1, 0, "MONOCHROME2")
    assert shown(render([(0, 0, b"\x0f")], form, png(), (2, 4))).tolist() == [[255] * 4, [0] * 4]


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
def test_the_profile_is_embedded_only_when_asked(media_type: str) -> None:
    profile = standard_profile("adobergb")
    form = FrameFormat(EXPLICIT_LE, 64, 96, 3, 8, 8, 0, "RGB", icc_profile=profile)
    tiles = [(0, 0, FRAME)]
    assert "icc_profile" not in opened(render(tiles, form, View(media_type=media_type), (64, 96))).info
    kept = opened(render(tiles, form, View(media_type=media_type, icc_profile="yes"), (64, 96)))
    assert kept.info["icc_profile"] == profile
    converted = opened(render(tiles, form, View(media_type=media_type, icc_profile="srgb"), (64, 96)))
    assert converted.info["icc_profile"] == standard_profile("srgb")


def test_a_colour_space_changes_the_numbers_and_keeps_the_colours() -> None:
    profile = standard_profile("adobergb")
    form = FrameFormat(EXPLICIT_LE, 64, 96, 3, 8, 8, 0, "RGB", icc_profile=profile)
    for space in SPACES:
        image = opened(render([(0, 0, FRAME)], form, png(icc_profile=space), (64, 96)))
        back = ImageCms.profileToProfile(
            image, io.BytesIO(image.info["icc_profile"]), io.BytesIO(profile), outputMode="RGB"
        )
        assert back is not None
        difference = np.abs(np.asarray(back).astype(int) - PIXELS)
        assert difference.mean() < 2.5
        assert (np.asarray(image) == PIXELS).all() == (space == "adobergb")


def test_colours_without_a_profile_count_as_srgb() -> None:
    same = shown(render([(0, 0, FRAME)], COLOUR, png(icc_profile="srgb"), (64, 96)))
    assert np.array_equal(same, PIXELS)


def test_profiles_carry_no_clock() -> None:
    standard_profile.cache_clear()
    first = [standard_profile(space) for space in SPACES]
    standard_profile.cache_clear()
    assert [standard_profile(space) for space in SPACES] == first


def test_nonsense_is_refused_with_its_name() -> None:
    tiles = [(0, 0, FRAME)]
    with pytest.raises(UnsupportedCodec, match="image/bmp"):
        render(tiles, COLOUR, View(media_type="image/bmp"), (64, 96))
    with pytest.raises(CodecError, match="cmyk"):
        render(tiles, COLOUR, View(icc_profile="cmyk"), (64, 96))
    broken = FrameFormat(EXPLICIT_LE, 64, 96, 3, 8, 8, 0, "RGB", icc_profile=b"no profile at all")
    with pytest.raises(CodecError, match="ICC"):
        render(tiles, broken, View(icc_profile="srgb"), (64, 96))
    with pytest.raises(FrameTooLarge):
        render(tiles, COLOUR, View(), (1 << 20, 1 << 20))


def test_rendering_reads_every_codec() -> None:
    for syntax in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5"):
        form = FrameFormat(syntax, 64, 96, 3, 8, 8, 0, "YBR_RCT" if syntax.endswith("201") else "RGB")
        assert np.array_equal(shown(render([(0, 0, encode(PIXELS, syntax))], form, png(), (64, 96))), PIXELS)


def test_a_region_is_cut_out_and_scaled_to_the_size_asked_for() -> None:
    view = png(region=(16, 32, 32, 32), rows=8, columns=16, exact=True)
    found = shown(render([(0, 0, FRAME)], COLOUR, view, (64, 96)))
    expected = PIXELS[16:48, 32:64].reshape(8, 4, 16, 2, 3).mean(axis=(1, 3))
    assert found.shape == (8, 16, 3)
    assert np.abs(found - expected).max() <= 1
    same = png(region=(16, 32, 32, 32))
    assert np.array_equal(shown(render([(0, 0, FRAME)], COLOUR, same, (64, 96))), PIXELS[16:48, 32:64])


def test_a_picture_grows_only_where_its_size_is_given() -> None:
    grown = shown(render([(0, 0, FRAME)], COLOUR, png(rows=128, columns=192, exact=True), (64, 96)))
    assert grown.shape == (128, 192, 3)


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 65, 5), (0, 0, 0, 5), (0, 90, 5, 10)])
def test_a_region_beyond_the_canvas_is_refused(region: tuple[float, float, float, float]) -> None:
    with pytest.raises(CodecError, match="region"):
        render([(0, 0, FRAME)], COLOUR, png(region=region), (64, 96))


def test_a_picture_is_flipped_then_turned_clockwise() -> None:
    def drawn(**how: object) -> np.ndarray:
        return shown(render([(0, 0, FRAME)], COLOUR, png(**how), (64, 96)))

    assert np.array_equal(drawn(flip_columns=True), PIXELS[:, ::-1])
    assert np.array_equal(drawn(flip_rows=True), PIXELS[::-1])
    assert np.array_equal(drawn(rotation=90), np.rot90(PIXELS, -1))
    assert np.array_equal(drawn(flip_columns=True, rotation=270), np.rot90(PIXELS[:, ::-1], 1))


def test_tones_are_grey_and_black_and_white() -> None:
    grey = shown(render([(0, 0, FRAME)], COLOUR, png(tone="grey"), (64, 96)))
    assert np.abs(grey - PIXELS @ (0.299, 0.587, 0.114)).max() <= 1
    bitonal = shown(render([(0, 0, FRAME)], COLOUR, png(tone="bitonal"), (64, 96)))
    assert set(np.unique(bitonal)) <= {0, 255}
    with pytest.raises(CodecError, match="sepia"):
        render([(0, 0, FRAME)], COLOUR, png(tone="sepia"), (64, 96))


def test_layers_are_coloured_and_add_up() -> None:
    bright = np.full((4, 4), 1000, "<u2").tobytes()
    half = np.full((4, 4), 550, "<u2").tobytes()
    layers = (Layer(1, (255, 0, 0), (100.0, 1000.0)), Layer(1, (0, 255, 0), (100.0, 1000.0)))
    view = png(layers=layers)
    found = shown(render([(0, 0, bright), (0, 0, half)], DEEP, view, (4, 4)))
    assert found[0, 0].tolist() == [255, 128, 0]
    both = png(layers=(layers[0], layers[0]))
    assert shown(render([(0, 0, half), (0, 0, bright)], DEEP, both, (4, 4)))[0, 0].tolist() == [255, 0, 0]


def test_limits_make_two_tiles_of_one_slide_look_alike() -> None:
    dark, bright = (np.full((4, 4), value, "<u2").tobytes() for value in (1000, 3000))
    view = png(layers=(Layer(1, None, (0.0, 4000.0)),))
    values = [shown(render([(0, 0, tile)], DEEP, view, (4, 4)))[0, 0] for tile in (dark, bright)]
    assert values == [64, 191]


def test_value_limits_leave_out_hot_pixels_and_the_filling_of_the_last_tiles() -> None:
    values = np.tile(np.linspace(500, 1500, 100, dtype="<u2"), (100, 1))
    values[0, 0] = 65535
    values[:, 90:] = 40000  # beyond the matrix
    form = FrameFormat(EXPLICIT_LE, 100, 100, 1, 16, 16, 0, "MONOCHROME2")
    low, high = value_limits([(0, 0, values.tobytes())], form, (100, 90))
    assert 490 <= low <= 520
    assert 1390 <= high <= 1410
    assert value_limits([(0, 0, b"")], form, (100, 90)) == (0.0, 1.0)


def test_a_shrunk_mask_keeps_its_thin_lines_as_greys() -> None:
    form = FrameFormat(EXPLICIT_LE, 8, 8, 1, 1, 1, 0, "MONOCHROME2")
    line = np.zeros((8, 8), np.uint8)
    line[:, 3] = 1
    tiles = [(0, 0, np.packbits(line.ravel(), bitorder="little").tobytes())]
    found = shown(render(tiles, form, png(rows=2), (8, 8)))
    assert found[:, 0].tolist() == [64, 64]


def test_an_empty_frame_is_background() -> None:
    assert (shown(render([(0, 0, b"")], COLOUR, png(), (64, 96))) == 255).all()


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_every_type_shows_the_same_picture(media_type: str) -> None:
    smooth = np.asarray(Image.fromarray(PIXELS[:4, :4].copy()).resize((96, 64), Image.Resampling.BICUBIC))
    made = encode_picture(smooth, media_type, 95)
    if media_type == "image/jxl":
        found = imagecodecs.jpegxl_decode(made)
    else:
        found = np.asarray(opened(made).convert("RGB"))
    assert found.shape == smooth.shape
    assert np.abs(found.astype(int) - smooth).mean() < 12


@pytest.mark.parametrize("media_type", ["image/webp", "image/avif"])
def test_newer_types_carry_a_profile(media_type: str) -> None:
    profile = standard_profile("adobergb")
    assert opened(encode_picture(PIXELS, media_type, 80, profile)).info["icc_profile"] == profile


def test_grey_pictures_are_neutral_in_the_space_asked_for() -> None:
    form = FrameFormat(EXPLICIT_LE, 2, 2, 1, 8, 8, 0, "MONOCHROME2")
    image = opened(render([(0, 0, bytes([0, 100, 200, 255]))], form, png(icc_profile="adobergb"), (2, 2)))
    found = np.asarray(image).astype(int)
    assert image.info["icc_profile"] == standard_profile("adobergb")
    assert np.abs(found - found[..., :1]).max() <= 1
