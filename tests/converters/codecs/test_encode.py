# SPDX-License-Identifier: Apache-2.0
"""Encoding, read back by us and by decoders that are not ours (pydicom, Pillow)."""

import io

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array

from converters.codecs import CodecError, UnsupportedCodec, blank, decode, encode
from converters.codecs.encoders import without_spiff
from converters.codecs.transfer_syntax import (
    EXPLICIT_LE,
    HTJ2K_LOSSLESS_RPCL,
    JPEG2000,
    JPEG2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    LOSSLESS_ENCODERS,
    LOSSY_ENCODERS,
    RLE_LOSSLESS,
    photometric_after,
)
from tests.support.make_slide import picture

RGB = picture(60, 90)
ARRAYS = {
    "colour": RGB,
    "grey": RGB[..., 0].copy(),
    "deep": RGB[..., 0].astype(np.uint16) * 257,
    "one pixel": RGB[:1, :1],
    "one column": RGB[:, :1],
}

PYDICOM_READS = [
    EXPLICIT_LE,
    JPEG_LS_LOSSLESS,
    JPEG2000_LOSSLESS,
    RLE_LOSSLESS,
]


def photometric_of(pixels: NDArray[np.generic], syntax: str) -> str:
    return photometric_after("RGB" if pixels.ndim == 3 else "MONOCHROME2", syntax)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("syntax", sorted(LOSSLESS_ENCODERS))
def test_lossless_means_the_same_pixels(syntax: str, array: str) -> None:
    pixels = ARRAYS[array]
    rows, columns = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    frame = encode(pixels, syntax)
    back = decode(
        frame, syntax, rows, columns, samples, pixels.dtype.itemsize * 8, photometric_of(pixels, syntax)
    )
    assert np.array_equal(back.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("array", ["colour", "grey", "deep"])
@pytest.mark.parametrize("syntax", PYDICOM_READS)
def test_pydicom_reads_the_same_pixels(syntax: str, array: str) -> None:
    pixels = ARRAYS[array]
    frame = encode(pixels, syntax)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PhotometricInterpretation = photometric_of(pixels, syntax)
    native = syntax == EXPLICIT_LE
    dataset.PixelData = frame if native else encapsulate([frame])
    dataset["PixelData"].VR = "OW" if native else "OB"
    assert np.array_equal(pixel_array(dataset), pixels)


@pytest.mark.parametrize("photometric", ["", "RGB"])
@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG2000])
def test_lossy_frames_look_the_same_to_pillow(syntax: str, photometric: str) -> None:
    frame = encode(RGB, syntax, quality=92, photometric=photometric)
    shown = np.asarray(Image.open(io.BytesIO(frame)).convert("RGB"))
    assert np.abs(shown.astype(int) - RGB).mean() < 4
    ours = decode(frame, syntax, *RGB.shape, 8, photometric or photometric_after("RGB", syntax))
    assert np.abs(ours.astype(int) - shown).mean() < 1


@pytest.mark.parametrize("syntax", sorted(LOSSLESS_ENCODERS | LOSSY_ENCODERS))
def test_a_blank_frame_has_one_colour(syntax: str) -> None:
    for photometric in ("", "RGB"):
        frame = blank(syntax, 240, 256, (243, 240, 242), photometric=photometric)
        pixels = decode(frame, syntax, 240, 256, 3, 8, photometric or photometric_after("RGB", syntax))
        assert np.abs(pixels.astype(int) - (243, 240, 242)).max() <= 1
    assert decode(blank(syntax, 16, 16, 0), syntax, 16, 16, 1, 8, "MONOCHROME2").max() == 0


def test_a_jpeg_says_which_colours_it_holds() -> None:
    assert b"JFIF" in encode(RGB, JPEG_BASELINE)[:32]
    assert b"Adobe" in encode(RGB, JPEG_BASELINE, photometric="RGB")[:32]


def test_bits_stay_bits_in_native_frames() -> None:
    bits = (RGB[:10, :10, 0] > 100).astype(np.uint8)
    frame = encode(bits, EXPLICIT_LE, bits_stored=1)
    assert len(frame) == 13
    assert np.array_equal(decode(frame, EXPLICIT_LE, 10, 10, 1, 1, "MONOCHROME2")[..., 0], bits)


def test_jpeg_ls_carries_no_file_header() -> None:
    frame = encode(RGB, JPEG_LS_LOSSLESS)
    assert frame[:4] == b"\xff\xd8\xff\xf7"
    assert without_spiff(frame) == frame


def test_the_rpcl_syntax_has_its_order_and_tile_parts() -> None:
    frame = encode(picture(256, 256), HTJ2K_LOSSLESS_RPCL)
    style = frame.index(b"\xff\x52")
    assert frame[style + 5] == 2
    assert b"\xff\x55" in frame[:300]


def test_pixels_that_a_codec_cannot_hold_are_refused() -> None:
    with pytest.raises(UnsupportedCodec, match="8-bit"):
        encode(ARRAYS["deep"], JPEG_BASELINE)
    with pytest.raises(UnsupportedCodec, match="float"):
        encode(np.zeros((4, 4), np.float32), EXPLICIT_LE)
    with pytest.raises(UnsupportedCodec):
        encode(RGB, "1.2.840.10008.1.2.4.51")
    with pytest.raises(CodecError):
        encode(np.zeros((0, 4, 3), np.uint8), JPEG_LS_LOSSLESS)


@pytest.mark.parametrize("array", ["colour", "grey", "deep"])
def test_another_library_reads_lossless_jpeg(array: str) -> None:
    pixels = ARRAYS[array]
    assert np.array_equal(imagecodecs.jpegsof3_decode(encode(pixels, JPEG_LOSSLESS_SV1)), pixels)
