# SPDX-License-Identifier: Apache-2.0
"""Decoding against independent opinions: pydicom, Pillow, and what was drawn."""

import io
import random
import struct

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import generate_frames

from converters.codecs import CodecError, FrameTooLarge, UnsupportedCodec, decode, encode
from converters.codecs.transfer_syntax import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    FAMILY,
    HTJ2K_LOSSLESS,
    JPEG2000,
    JPEG2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEGXL,
    JPEGXL_LOSSLESS,
    JPEGXL_RECOMPRESSION,
    RLE_LOSSLESS,
)
from gateway.demo.svs import split_jpeg
from tests.support.make_slide import picture
from tests.support.require import DATA, require_data

RGB = picture(64, 96)
GREY_12 = picture(64, 96)[..., 0].astype(np.uint16) * 16


def close(left: NDArray[np.generic], right: NDArray[np.generic], by: float = 2.0) -> bool:
    return bool(np.abs(left.astype(int) - right.astype(int)).mean() < by)


def jpeg(pixels: NDArray[np.uint8], inside: str, **options: object) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(pixels, level=95, colorspace="RGB", outcolorspace=inside, **options)
    )


def bare(stream: bytes) -> bytes:
    """The JPEG without markers and telling identifiers, as Aperio writes it."""
    tables, rest = split_jpeg(stream)
    return tables[:-2] + rest[2:]


SAMPLES = sorted(
    path.name for path in (DATA / "slides/dicom-wsi").glob("*.dcm") if "annotations" not in path.name
)


@pytest.mark.parametrize("path", SAMPLES or ["google_camelyon_jpeg.dcm"])
def test_every_sample_decodes_to_what_pydicom_decodes(path: str) -> None:
    dataset = pydicom.dcmread(require_data(f"slides/dicom-wsi/{path}"))
    if dataset.SamplesPerPixel > 1 and "PlanarConfiguration" not in dataset:
        dataset.PlanarConfiguration = 0
    syntax = dataset.file_meta.TransferSyntaxUID
    count = int(dataset.get("NumberOfFrames") or 1)
    shape = (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    if syntax.is_encapsulated:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=count))
    elif dataset.BitsAllocated == 1:
        if dataset.Rows * dataset.Columns % 8:
            bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
            frame = np.packbits(bits[: dataset.Rows * dataset.Columns], bitorder="little").tobytes()
        else:
            frame = dataset.PixelData[: dataset.Rows * dataset.Columns // 8]
    else:
        frame = dataset.PixelData[: int(np.prod(shape)) * dataset.BitsAllocated // 8]
    pixels = decode(
        frame,
        syntax,
        *shape,
        dataset.BitsAllocated,
        dataset.PhotometricInterpretation,
        int(dataset.get("PlanarConfiguration") or 0),
    )
    expected = pydicom.pixels.pixel_array(dataset, index=0).reshape(shape)
    if dataset.PhotometricInterpretation.startswith("YBR_FULL") and not syntax.is_encapsulated:
        expected = pydicom.pixels.convert_color_space(expected, "YBR_FULL", "RGB")
    assert close(pixels, expected, 1.0)


@pytest.mark.parametrize("identifiers", ["markers", "bare"])
@pytest.mark.parametrize("inside", ["RGB", "YCBCR"])
def test_jpeg_colours_come_from_the_stream_or_else_from_the_header(inside: str, identifiers: str) -> None:
    stream = jpeg(RGB, inside, subsampling="444")
    photometric = "RGB" if inside == "RGB" else "YBR_FULL_422"
    if identifiers == "markers":  # the stream is right, whatever the header says
        photometric = "YBR_FULL_422" if inside == "RGB" else "RGB"
    else:
        stream = bare(stream)
    assert close(decode(stream, JPEG_BASELINE, *RGB.shape, 8, photometric), RGB)


def test_chroma_with_fewer_samples_is_ycbcr_under_any_header() -> None:
    stream = bare(jpeg(RGB, "YCBCR", subsampling="420"))
    assert close(decode(stream, JPEG_BASELINE, *RGB.shape, 8, "RGB"), RGB, 4)


def test_aperio_tiles_have_the_colours_that_openslide_shows() -> None:
    openslide = pytest.importorskip("openslide")
    tifffile = pytest.importorskip("tifffile")
    path = require_data("slides/svs/CMU-1-Small-Region.svs")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        data = path.read_bytes()
        tile = data[page.dataoffsets[30] :][: page.databytecounts[30]]
        stream = page.jpegtables[:-2] + tile[2:]
        across = -(-page.imagewidth // 240)
    pixels = decode(stream, JPEG_BASELINE, 240, 240, 3, 8, "RGB")
    with openslide.OpenSlide(path) as slide:
        place = (30 % across * 240, 30 // across * 240)
        expected = np.asarray(slide.read_region(place, 0, (240, 240)).convert("RGB"))
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS, JPEG_LOSSLESS_SV1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_lossless_jpeg_takes_its_colours_from_the_header(syntax: str, photometric: str) -> None:
    stored = RGB if photometric == "RGB" else np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    stream = jpeg(stored, "RGB", lossless=True, predictor=1)
    assert close(decode(stream, syntax, *RGB.shape, 8, photometric), RGB, 1)


def test_lossless_jpeg_of_16_bits_is_exact() -> None:
    stream = bytes(imagecodecs.jpeg8_encode(GREY_12, lossless=True, bitspersample=16))
    assert np.array_equal(decode(stream, JPEG_LOSSLESS, 64, 96, 1, 16, "MONOCHROME2")[..., 0], GREY_12)


def test_extended_jpeg_has_12_bits() -> None:
    stream = bytes(imagecodecs.jpeg8_encode(GREY_12, level=95, bitspersample=12))
    assert close(decode(stream, JPEG_EXTENDED, 64, 96, 1, 16, "MONOCHROME2")[..., 0], GREY_12, 16)


@pytest.mark.parametrize(("mct", "photometric"), [(True, "YBR_ICT"), (False, "RGB"), (False, "YBR_FULL")])
def test_jpeg_2000_colours_follow_transform_and_header(mct: bool, photometric: str) -> None:
    stored = np.asarray(Image.fromarray(RGB).convert("YCbCr")) if photometric == "YBR_FULL" else RGB
    stream = bytes(imagecodecs.jpeg2k_encode(stored, level=50, codecformat="j2k", reversible=False, mct=mct))
    pixels = decode(stream, JPEG2000, *RGB.shape, 8, photometric)
    assert close(pixels, RGB)
    if photometric != "YBR_FULL":
        assert close(pixels, np.asarray(Image.open(io.BytesIO(stream))), 0.5)


def test_htj2k_is_read_under_its_own_syntax() -> None:
    stream = bytes(imagecodecs.htj2k_encode(RGB, reversible=True))
    assert np.array_equal(decode(stream, HTJ2K_LOSSLESS, *RGB.shape, 8, "YBR_RCT"), RGB)


@pytest.mark.parametrize("container", [False, True])
def test_jpeg_xl_is_read_bare_and_in_a_container(container: bool) -> None:
    stream = bytes(imagecodecs.jpegxl_encode(RGB, lossless=True, usecontainer=container))
    assert np.array_equal(decode(stream, JPEGXL_LOSSLESS, *RGB.shape, 8, "RGB"), RGB)


def test_a_recompressed_jpeg_shows_the_jpegs_pixels() -> None:
    original = jpeg(RGB, "YCBCR", subsampling="422")
    stream = bytes(imagecodecs.jpegxl_encode_jpeg(original))
    pixels = decode(stream, JPEGXL_RECOMPRESSION, *RGB.shape, 8, "YBR_FULL_422")
    assert close(pixels, decode(original, JPEG_BASELINE, *RGB.shape, 8, "YBR_FULL_422"))


def test_native_pixels_may_be_planar_big_endian_or_halved_in_chroma() -> None:
    planar = np.ascontiguousarray(RGB.transpose(2, 0, 1)).tobytes()
    assert np.array_equal(decode(planar, EXPLICIT_LE, *RGB.shape, 8, "RGB", 1), RGB)
    big = GREY_12.astype(">u2").tobytes()
    assert np.array_equal(decode(big, EXPLICIT_BE, 64, 96, 1, 16, "MONOCHROME2")[..., 0], GREY_12)
    signed = (GREY_12.astype(np.int16) - 2000).tobytes()
    values = decode(signed, EXPLICIT_LE, 64, 96, 1, 16, "MONOCHROME2", 0, 1)
    assert values.min() < 0
    ycc = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    pairs = np.stack((ycc[:, ::2, 0], ycc[:, 1::2, 0], ycc[:, ::2, 1], ycc[:, ::2, 2]), axis=-1)
    assert close(decode(pairs.tobytes(), EXPLICIT_LE, *RGB.shape, 8, "YBR_FULL_422"), RGB, 3)


def test_one_bit_frames_become_noughts_and_ones() -> None:
    bits = np.arange(10 * 10) % 3 == 0
    frame = np.packbits(bits, bitorder="little").tobytes() + b"\0"
    assert np.array_equal(decode(frame, EXPLICIT_LE, 10, 10, 1, 1, "MONOCHROME2").ravel(), bits)


def announce(stream: bytes, rows: int, columns: int) -> bytes:
    """The JPEG with another size in its frame header."""
    at = stream.index(b"\xff\xc0")
    return stream[: at + 5] + struct.pack(">HH", rows, columns) + stream[at + 9 :]


def test_a_size_other_than_the_headers_is_refused_before_decoding() -> None:
    bomb = announce(jpeg(RGB, "YCBCR"), 65500, 65500)
    with pytest.raises(CodecError, match="65500 x 65500 pixels, the header says 64 x 96"):
        decode(bomb, JPEG_BASELINE, *RGB.shape, 8, "YBR_FULL_422")
    with pytest.raises(FrameTooLarge):
        decode(bomb, JPEG_BASELINE, 65500, 65500, 3, 8, "YBR_FULL_422")


def test_components_and_depth_must_be_the_headers() -> None:
    with pytest.raises(CodecError, match="3 components, the header says 1"):
        decode(jpeg(RGB, "YCBCR"), JPEG_BASELINE, 64, 96, 1, 8, "MONOCHROME2")
    deep = bytes(imagecodecs.jpeg2k_encode(GREY_12, level=0, codecformat="j2k", reversible=True))
    with pytest.raises(CodecError, match="16 bits per sample, the header says 8"):
        decode(deep, JPEG2000_LOSSLESS, 64, 96, 1, 8, "MONOCHROME2")


def test_a_codestream_of_another_kind_is_refused() -> None:
    for syntax in FAMILY:
        with pytest.raises(CodecError):
            decode(b"GIF89a" + bytes(200), syntax, *RGB.shape, 8, "RGB")
        with pytest.raises(CodecError):
            decode(b"", syntax, *RGB.shape, 8, "RGB")
    with pytest.raises(CodecError, match="not a jpegls codestream but jpeg"):
        decode(jpeg(RGB, "YCBCR"), JPEG_LS_LOSSLESS, *RGB.shape, 8, "RGB")


def test_an_unknown_transfer_syntax_or_pixel_kind_is_unsupported() -> None:
    with pytest.raises(UnsupportedCodec):
        decode(b"", "1.2.840.10008.1.2.4.100", 8, 8, 3, 8, "YBR_PARTIAL_420")
    with pytest.raises(UnsupportedCodec):
        decode(b"", EXPLICIT_LE, 8, 8, 3, 12, "RGB")


STREAMS = {
    JPEG_BASELINE: jpeg(RGB, "YCBCR"),
    JPEG_LOSSLESS: jpeg(RGB, "RGB", lossless=True),
    JPEG_LS_LOSSLESS: bytes(imagecodecs.jpegls_encode(RGB)),
    JPEG2000: encode(RGB, JPEG2000),
    HTJ2K_LOSSLESS: encode(RGB, HTJ2K_LOSSLESS),
    JPEGXL: bytes(imagecodecs.jpegxl_encode(RGB, level=80)),
    RLE_LOSSLESS: encode(RGB, RLE_LOSSLESS),
}


@pytest.mark.parametrize("syntax", STREAMS)
def test_damage_gives_pixels_or_one_clear_error(syntax: str) -> None:
    """A codec may repair what it can; it may not raise anything of its own."""
    dice = random.Random(8)
    stream = STREAMS[syntax]
    for _ in range(30):
        damaged = bytearray(stream)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        if dice.random() < 0.3:
            del damaged[dice.randrange(len(damaged)) :]
        try:
            pixels = decode(bytes(damaged), syntax, *RGB.shape, 8, "RGB")
        except CodecError:
            continue
        assert pixels.shape == RGB.shape


@pytest.mark.parametrize("syntax", [JPEG_LS_LOSSLESS, JPEG2000, HTJ2K_LOSSLESS, JPEGXL, RLE_LOSSLESS])
def test_half_a_frame_is_an_error(syntax: str) -> None:
    with pytest.raises(CodecError):
        decode(STREAMS[syntax][: len(STREAMS[syntax]) // 8], syntax, *RGB.shape, 8, "RGB")
