# SPDX-License-Identifier: Apache-2.0
import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.pixels.encoders import RLELosslessEncoder

from archive.part10.codestream import jpeg_segments, photometric, sniff, splice_tables, transfer_syntax
from archive.part10.errors import Malformed
from tests.support.require import require_data

COLOURS = np.random.default_rng(1).integers(0, 255, (40, 56, 3), dtype=np.uint8)
GREY = COLOURS[..., 0].copy()


def pillow_jpeg(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


CASES = {
    "jpeg 4:2:0": (pillow_jpeg(COLOURS, subsampling=2), ".4.50", "YBR_FULL_422"),
    "jpeg 4:4:4": (pillow_jpeg(COLOURS, subsampling=0), ".4.50", "YBR_FULL_422"),
    "jpeg rgb": (pillow_jpeg(COLOURS, keep_rgb=True), ".4.50", "RGB"),
    "jpeg grey": (pillow_jpeg(GREY), ".4.50", "MONOCHROME2"),
    "jpeg progressive": (pillow_jpeg(COLOURS, progressive=True), None, "YBR_FULL_422"),
    "jpeg lossless": (imagecodecs.ljpeg_encode(GREY), ".4.57", "MONOCHROME2"),
    "j2k 5/3": (imagecodecs.jpeg2k_encode(COLOURS, codecformat="j2k", reversible=True), ".4.90", "YBR_RCT"),
    "j2k 9/7": (
        imagecodecs.jpeg2k_encode(COLOURS, codecformat="j2k", level=40, reversible=False), ".4.91", "YBR_ICT",
    ),
    "j2k no mct": (
        imagecodecs.jpeg2k_encode(COLOURS, codecformat="j2k", reversible=True, mct=False), ".4.90", "RGB",
    ),
    "htj2k": (imagecodecs.htj2k_encode(COLOURS, reversible=True), ".4.201", "YBR_RCT"),
    "jpegls": (imagecodecs.jpegls_encode(GREY), ".4.80", "MONOCHROME2"),
    "jpegls near": (imagecodecs.jpegls_encode(COLOURS, level=3), ".4.81", "RGB"),
    "jpegxl lossy": (imagecodecs.jpegxl_encode(COLOURS, lossless=False), ".4.112", "RGB"),
    "jpegxl from jpeg": (
        imagecodecs.jpegxl_encode_jpeg(pillow_jpeg(COLOURS)), ".4.111", "YBR_FULL_422",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_transfer_syntax_and_colours_follow_from_the_codestream(name):
    data, syntax, colours = CASES[name]
    found = sniff(data[:4096])
    assert (found.rows, found.columns) == (40, 56)
    assert found.bits == 8
    assert found.components == (1 if colours == "MONOCHROME2" else 3)
    assert transfer_syntax(found) == (syntax and "1.2.840.10008.1.2" + syntax)
    assert photometric(found) == colours
    assert found.head_complete


def test_sampling_is_given_per_component():
    assert sniff(CASES["jpeg 4:2:0"][0]).sampling == ((2, 2), (1, 1), (1, 1))
    assert sniff(CASES["jpeg 4:4:4"][0]).sampling == ((1, 1), (1, 1), (1, 1))
    assert sniff(CASES["jpeg 4:2:0"][0]).subsampled
    assert not sniff(CASES["jpeg 4:4:4"][0]).subsampled


def test_twelve_bit_jpeg_is_the_extended_process():
    pixels = (GREY.astype(np.uint16) * 16) & 0xFFF
    data = imagecodecs.jpeg_encode(pixels, bitspersample=12)
    found = sniff(data)
    assert found.bits == 12
    assert transfer_syntax(found) == "1.2.840.10008.1.2.4.51"


def test_a_jp2_file_has_no_transfer_syntax_since_a_frame_is_a_bare_codestream():
    found = sniff(imagecodecs.jpeg2k_encode(COLOURS, codecformat="jp2", reversible=True))
    assert transfer_syntax(found) is None
    assert (found.rows, found.columns) == (40, 56)


def test_rle_is_told_by_its_header():
    data = RLELosslessEncoder.encode(
        COLOURS,
        rows=40,
        columns=56,
        samples_per_pixel=3,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="RGB",
        number_of_frames=1,
        planar_configuration=0,
    )
    assert transfer_syntax(sniff(data)) == "1.2.840.10008.1.2.5"


def test_a_head_cut_before_the_scan_is_told():
    data = CASES["jpeg 4:2:0"][0]
    scan_at = jpeg_segments(data)[-1][1]
    assert not sniff(data[: scan_at - 4]).head_complete
    assert sniff(data[: scan_at - 4]).rows == 40


@given(st.binary(max_size=200), st.sampled_from(list(CASES)), st.integers(0, 300))
def test_sniffing_never_raises(noise, name, position):
    sniff(noise)
    data = CASES[name][0]
    found = sniff(data[:position] + noise + data[position + len(noise) :])
    transfer_syntax(found)
    photometric(found)


def test_tables_and_adobe_marker_make_a_tile_of_an_svs_stand_alone():
    path = require_data("slides/svs/CMU-1-Small-Region.svs")
    with tifffile.TiffFile(path) as tiff, path.open("rb") as file:
        page = tiff.pages.first
        file.seek(page.dataoffsets[0])
        tile = file.read(page.databytecounts[0])
        expected = next(iter(page.segments()))[0].squeeze()
        assert not sniff(tile).has_tables
        prefix = splice_tables(page.jpegtables, adobe_transform=0)
        frame = prefix + tile[2:]
    found = sniff(frame)
    assert found.has_tables
    assert photometric(found) == "RGB"
    assert transfer_syntax(found) == "1.2.840.10008.1.2.4.50"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(frame))), expected)


def test_an_adobe_marker_in_the_tables_is_kept_and_no_second_added():
    with_marker = splice_tables(b"", adobe_transform=1) + b"\xff\xd9"
    assert splice_tables(with_marker, adobe_transform=0).count(b"Adobe") == 1
    assert sniff(splice_tables(with_marker, adobe_transform=0)).adobe_transform == 1


@pytest.mark.parametrize("tables", [b"\xff\xdb", CASES["jpeg grey"][0], b"\xff\xd8\xff\xdb\x00\x43\x00"])
def test_tables_that_are_none_are_refused(tables):
    with pytest.raises(Malformed):
        splice_tables(tables)


def test_a_tile_without_tables_needs_none_of_its_own():
    assert splice_tables(b"") == b"\xff\xd8"
