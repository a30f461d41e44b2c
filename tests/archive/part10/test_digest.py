# SPDX-License-Identifier: Apache-2.0
import io
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from archive.part10.digest import content_digest, pixel_digest
from archive.part10.scan import scan_file
from tests.archive.part10 import build
from tests.archive.part10.test_pixels import frames_of
from tests.archive.part10.trees import trees
from tests.support.require import require_data, require_tool


def dataset(**attributes: object) -> Dataset:
    ds = Dataset()
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def whole_digest(data: bytes) -> bytes:
    """Content digest of a file as the archive makes it."""
    scanned = scan_file(io.BytesIO(data))
    frames = pixel_digest(frames_of(data, scanned)) if scanned.frame_table else b""
    bulk = {
        value.path: data[value.offset : value.offset + value.length][:32]
        for value in scanned.bulk
        if not value.is_pixel_data
    }
    return content_digest(scanned.dataset, frames, bulk)


@given(trees())
def test_a_scanned_data_set_and_the_one_that_pydicom_reads_have_one_digest(content):
    data = build.meta() + content
    scanned = scan_file(io.BytesIO(data))
    theirs = dcmread(io.BytesIO(scanned.header))
    assert content_digest(scanned.dataset, b"") == content_digest(theirs, b"")


def test_padding_does_not_count_and_every_other_byte_does():
    base = content_digest(dataset(PatientID="P1", ImageType=["A", "B"]), b"")
    assert content_digest(dataset(PatientID="P1 ", ImageType=["A ", "B"]), b"") == base
    assert content_digest(dataset(PatientID="P2", ImageType=["A", "B"]), b"") != base
    assert content_digest(dataset(PatientID="P1", ImageType=["AB"]), b"") != base
    assert content_digest(dataset(ImageType=["A", "B"]), b"") != base
    assert content_digest(dataset(PatientID="P1", ImageType=["A", "B"]), b"x") != base
    assert content_digest(dataset(PatientID="P1", ImageType=["A", "B"]), b"", {"00282000": b"x"}) != base


def test_numbers_that_end_in_zeros_or_blanks_are_not_padding():
    values = [0, 0x20, 0x2000, 0x2020, 1]
    digests = {content_digest(dataset(Rows=value), b"") for value in values}
    assert len(digests) == len(values)


def test_an_empty_item_and_an_empty_sequence_and_none_are_three_things():
    digests = {
        content_digest(dataset(PatientID="1"), b""),
        content_digest(dataset(PatientID="1", OpticalPathSequence=[]), b""),
        content_digest(dataset(PatientID="1", OpticalPathSequence=[Dataset()]), b""),
        content_digest(dataset(PatientID="1", OpticalPathSequence=[Dataset(), Dataset()]), b""),
    }
    assert len(digests) == 4


def test_a_value_moved_to_another_level_has_another_digest():
    inside = dataset(OpticalPathSequence=[dataset(CodeValue="1")], PatientID="2")
    item = dataset(CodeValue="1", PatientID="2")
    assert content_digest(inside, b"") != content_digest(dataset(OpticalPathSequence=[item]), b"")


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_a_pad_and_the_way_frames_are_cut_into_chunks_do_not_count(frames):
    padded = [frame + b"\x00" * (len(frame) % 2) for frame in frames]
    chunks = [[frame[:3], b"", memoryview(frame)[3:]] for frame in frames]
    assert pixel_digest(frames) == pixel_digest(padded) == pixel_digest(chunks)


def test_frames_moved_dropped_or_changed_have_another_digest():
    base = pixel_digest([b"ab", b"cd"])
    for other in ([b"cd", b"ab"], [b"ab"], [b"abcd"], [b"ab", b"ce"], [b"ab", b"cd", b""]):
        assert pixel_digest(other) != base


@pytest.mark.parametrize(
    "options", [["+te"], ["+ti"], ["+te", "+e"], ["+te", "-e"], ["+te", "+g"], ["+ti", "+g", "-e"]]
)
@pytest.mark.parametrize(
    "name",
    ["highdicom_sm_image.dcm", "google_wsi2dcm_raw.dcm", "highdicom_seg_image_sm_dots_tiled_full.dcm",
     "highdicom_sm_annotations.dcm"],
)  # fmt: skip
def test_what_dcmtk_rewrites_keeps_its_digest(name, options, tmp_path):
    dcmconv = require_tool("dcmconv")
    path = require_data(f"slides/dicom-wsi/{name}")
    out = tmp_path / "out.dcm"
    subprocess.run([dcmconv, *options, path, out], check=True, capture_output=True, timeout=60)
    assert out.read_bytes() != path.read_bytes()
    assert whole_digest(out.read_bytes()) == whole_digest(path.read_bytes())


@pytest.mark.parametrize("options", [["-e"], ["+e"], ["+g"]])
@pytest.mark.parametrize(
    "name", ["google_wsi2dcm_jpeg.dcm", "google_wsi2dcm_jpeg2000.dcm", "libvips_dicom_test_image.dcm"]
)
def test_what_dcmtk_rewrites_around_compressed_frames_keeps_its_digest(name, options, tmp_path):
    dcmconv = require_tool("dcmconv")
    path = require_data(f"slides/dicom-wsi/{name}")
    out = tmp_path / "out.dcm"
    subprocess.run([dcmconv, "+t=", *options, path, out], check=True, capture_output=True, timeout=60)
    assert whole_digest(out.read_bytes()) == whole_digest(path.read_bytes())
