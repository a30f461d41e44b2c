# SPDX-License-Identifier: Apache-2.0
"""One frame from every transfer syntax to every other: the same pixels, the same JPEG, or
pixels that look the same where a lossy syntax was asked for by name."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters.codecs import CodecError, UnsupportedCodec, decode, encode
from converters.codecs.render import FrameFormat
from converters.codecs.transcode import transcode
from converters.codecs.transfer_syntax import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    FAMILY,
    HTJ2K,
    JPEG2000,
    JPEG2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    JPEGXL,
    JPEGXL_LOSSLESS,
    JPEGXL_RECOMPRESSION,
    LOSSLESS_ENCODERS,
    LOSSY_ENCODERS,
    RLE_LOSSLESS,
    Family,
    can_transcode,
    is_lossless,
    photometric_after,
)
from tests.support.make_slide import picture

ROWS, COLUMNS = 64, 96
RGB = picture(ROWS, COLUMNS)
PIXELS: dict[str, NDArray[np.generic]] = {
    "colour": RGB,
    "grey": RGB[..., 0].copy(),
    "deep": RGB[..., 1].astype(np.uint16) * 257,
}
SOURCES = sorted((LOSSLESS_ENCODERS | LOSSY_ENCODERS) - {EXPLICIT_BE})
TARGETS = sorted(set(FAMILY) - {EXPLICIT_BE, DEFLATED_LE})
UNREACHABLE = {JPEG_EXTENDED, JPEGXL_RECOMPRESSION}


def form_of(pixels: NDArray[np.generic], syntax: str, photometric: str = "") -> FrameFormat:
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = pixels.dtype.itemsize * 8
    colours = photometric or photometric_after("RGB" if samples == 3 else "MONOCHROME2", syntax)
    return FrameFormat(syntax, ROWS, COLUMNS, samples, bits, bits, int(pixels.dtype.kind == "i"), colours)


def pixels_of(frame: bytes, form: FrameFormat) -> NDArray[np.generic]:
    found = decode(
        frame, form.transfer_syntax_uid, ROWS, COLUMNS, form.samples_per_pixel, form.bits_allocated,
        form.photometric_interpretation, 0, form.pixel_representation,
    )  # fmt: skip
    return found[..., 0] if form.samples_per_pixel == 1 else found


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", PIXELS)
def test_every_pair_transcodes_or_is_said_to_be_impossible(source: str, kind: str) -> None:
    pixels = PIXELS[kind]
    bits = pixels.dtype.itemsize * 8
    if source == JPEG_BASELINE and bits > 8:
        return
    frame, form = encode(pixels, source, 95), form_of(pixels, source)
    before = pixels_of(frame, form).astype(int)
    for target in TARGETS:
        if not can_transcode(source, target, bits):
            with pytest.raises(UnsupportedCodec):
                transcode(frame, form, target)
            assert target in UNREACHABLE or (target == JPEG_BASELINE and bits > 8)
            continue
        result = transcode(frame, form, target)
        after = pixels_of(result, form_of(pixels, target)).astype(int)
        if is_lossless(source, target) and not (source == JPEG_BASELINE and FAMILY[target] is Family.JPEGXL):
            assert np.array_equal(after, before), target
        else:  # JPEG XL's own reading of a JPEG rounds otherwise than libjpeg's
            scale = 257 if bits > 8 else 1
            assert np.abs(after - before).mean() < 4 * scale, target


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_a_jpeg_is_repacked_as_jpeg_xl_and_comes_back_bit_for_bit(subsampling: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(
        buffer, "JPEG", quality=80, subsampling={"444": 0, "422": 1, "420": 2}[subsampling]
    )
    jpeg = buffer.getvalue()
    form = form_of(RGB, JPEG_BASELINE)
    for target in (JPEGXL_RECOMPRESSION, JPEGXL):
        packed = transcode(jpeg, form, target)
        assert packed != jpeg
        assert transcode(packed, form_of(RGB, target), JPEG_BASELINE) == jpeg
    assert transcode(packed, form_of(RGB, JPEGXL_RECOMPRESSION), JPEGXL) == packed


def test_a_jpeg_xl_that_holds_no_jpeg_is_decoded_for_jpeg() -> None:
    frame = encode(RGB, JPEGXL)
    jpeg = transcode(frame, form_of(RGB, JPEGXL), JPEG_BASELINE)
    assert np.abs(np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) - RGB).mean() < 5


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [(JPEG2000_LOSSLESS, JPEG2000), (JPEG_LOSSLESS_SV1, JPEG_LOSSLESS), (JPEGXL_LOSSLESS, JPEGXL)],
)
def test_a_codestream_stays_as_it_is_where_the_target_is_the_wider_rule(narrow: str, wide: str) -> None:
    frame = encode(RGB, narrow)
    assert transcode(frame, form_of(RGB, narrow), wide) is frame
    assert is_lossless(narrow, wide)
    assert not is_lossless(EXPLICIT_LE, wide) or wide == JPEG_LOSSLESS


def test_colours_are_right_whatever_the_source_says_of_them() -> None:
    ycbcr = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    native = FrameFormat(EXPLICIT_LE, ROWS, COLUMNS, 3, 8, 8, 0, "YBR_FULL")
    for target in (JPEG_BASELINE, JPEG2000_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS, HTJ2K, JPEG2000):
        result = transcode(ycbcr.tobytes(), native, target)
        shown = pixels_of(result, form_of(RGB, target)).astype(int)
        assert np.abs(shown - RGB).mean() < 4, target


def test_lossless_jpeg_2000_and_htj2k_announce_the_component_transform() -> None:
    assert photometric_after("RGB", JPEG2000_LOSSLESS) == "YBR_RCT"
    assert photometric_after("YBR_FULL_422", JPEG2000) == photometric_after("RGB", HTJ2K) == "YBR_ICT"
    assert photometric_after("YBR_FULL_422", EXPLICIT_LE) == "RGB"
    assert photometric_after("YBR_ICT", RLE_LOSSLESS) == "RGB"
    assert photometric_after("MONOCHROME1", JPEG_BASELINE) == "MONOCHROME1"


@pytest.mark.parametrize("target", sorted(LOSSY_ENCODERS))
def test_palettes_and_signed_values_are_never_made_lossy(target: str) -> None:
    assert not can_transcode(EXPLICIT_LE, target, 8, photometric="PALETTE COLOR")
    assert not can_transcode(EXPLICIT_LE, target, 16, pixel_representation=1)


def test_signed_values_keep_their_sign_where_a_codec_has_one() -> None:
    signed = (PIXELS["deep"].astype(np.int32) - 30_000).astype(np.int16)  # type: ignore[attr-defined]
    form = form_of(signed, EXPLICIT_LE)
    for target in TARGETS:
        if not can_transcode(EXPLICIT_LE, target, 16, pixel_representation=1):
            continue
        there = transcode(signed.tobytes(), form, target)
        back = transcode(there, form_of(signed, target), EXPLICIT_LE)
        assert back == signed.tobytes(), target
    assert can_transcode(EXPLICIT_LE, JPEG2000_LOSSLESS, 16, pixel_representation=1)
    assert not can_transcode(EXPLICIT_LE, JPEG_LS_LOSSLESS, 16, pixel_representation=1)


@pytest.mark.parametrize("bits_stored", [10, 12])
def test_values_of_fewer_bits_than_allocated_keep_their_bits(bits_stored: int) -> None:
    values = (PIXELS["deep"] >> (16 - bits_stored)).astype(np.uint16)  # type: ignore[operator]
    form = FrameFormat(EXPLICIT_LE, ROWS, COLUMNS, 1, 16, bits_stored, 0, "MONOCHROME2")
    for target in sorted(LOSSLESS_ENCODERS):
        there = transcode(values.tobytes(), form, target)
        back = FrameFormat(target, ROWS, COLUMNS, 1, 16, bits_stored, 0, "MONOCHROME2")
        assert transcode(there, back, EXPLICIT_LE) == values.tobytes(), target


def test_near_lossless_means_near() -> None:
    frame = transcode(RGB.tobytes(), form_of(RGB, EXPLICIT_LE), JPEG_LS_NEAR_LOSSLESS)
    shown = pixels_of(frame, form_of(RGB, JPEG_LS_NEAR_LOSSLESS)).astype(int)
    assert 0 < np.abs(shown - RGB).max() <= 2


@pytest.mark.parametrize("target", [EXPLICIT_LE, JPEGXL_RECOMPRESSION, JPEG2000, JPEG_LS_LOSSLESS])
def test_a_damaged_frame_does_not_travel_on_in_new_clothes(target: str) -> None:
    jpeg = encode(RGB, JPEG_BASELINE)
    with pytest.raises(CodecError):
        transcode(jpeg[:100], form_of(RGB, JPEG_BASELINE), target)
    with pytest.raises(CodecError):
        transcode(b"", form_of(RGB, JPEG_BASELINE), target)
