# SPDX-License-Identifier: Apache-2.0
import io
import resource
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from pydicom import dcmread
from pydicom.filewriter import dcmwrite

from archive.part10.budget import ParseBudget
from archive.part10.digest import content_digest
from archive.part10.errors import BudgetExceeded, Malformed, NeedsReencoding, Truncated, UnknownTransferSyntax
from archive.part10.scan import reencode_to_explicit_le, scan_file
from tests.archive.part10 import build
from tests.archive.part10.test_pixels import frames_of
from tests.archive.part10.trees import trees
from tests.support.require import require_data


def deflated(data_set: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(data_set) + packer.flush()
    return build.meta(build.DEFLATED) + build.padded(body, b"\x00")


def as_big_endian(data: bytes) -> bytes:
    """``data`` written by pydicom in Explicit VR Big Endian, its pixel data turned too."""
    ds = dcmread(io.BytesIO(data))
    for element in ds.iterall():  # pydicom leaves these as they are
        size = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(element.VR)
        if size and element.value:
            element.value = np.frombuffer(element.value, dtype=f"<u{size}").byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = build.BIG_ENDIAN
    out = io.BytesIO()
    dcmwrite(out, ds, implicit_vr=False, little_endian=False)
    return out.getvalue()


def test_a_deflated_file_is_scanned_by_way_of_a_scratch_file(tmp_path):
    plain = build.native(bytes(range(16)), 4)
    data = deflated(plain[len(build.meta()) :])
    with pytest.raises(NeedsReencoding):
        scan_file(io.BytesIO(data))
    scanned = scan_file(io.BytesIO(data), scratch=tmp_path / "scratch.dcm")
    assert scanned.reencoded
    assert scanned.transfer_syntax_uid == build.EXPLICIT
    assert frames_of((tmp_path / "scratch.dcm").read_bytes(), scanned) == frames_of(
        plain, scan_file(io.BytesIO(plain))
    )
    assert not scan_file(io.BytesIO(plain), scratch=tmp_path / "unused").reencoded
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("bits", [8, 16])
def test_big_endian_pixels_are_turned(tmp_path, bits):
    pixels = bytes(range(32))
    plain = build.native(pixels, 4 if bits == 16 else 8, "OW", bits=bits)
    (tmp_path / "be.dcm").write_bytes(as_big_endian(plain))
    scanned = scan_file(tmp_path / "be.dcm", scratch=tmp_path / "le.dcm")
    assert frames_of((tmp_path / "le.dcm").read_bytes(), scanned) == frames_of(
        plain, scan_file(io.BytesIO(plain))
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(trees())
def test_big_endian_data_sets_come_out_as_they_went_in(tmp_path, content):
    plain = build.meta() + content
    out = tmp_path / "out.dcm"
    out.unlink(missing_ok=True)
    reencode_to_explicit_le(io.BytesIO(as_big_endian(plain)), out)
    assert content_digest(scan_file(out).dataset, b"") == content_digest(
        scan_file(io.BytesIO(plain)).dataset, b""
    )
    ours, theirs = dcmread(out), dcmread(io.BytesIO(plain))
    del ours.file_meta, theirs.file_meta
    assert ours == theirs


@pytest.mark.parametrize(
    "name", ["highdicom_sm_image.dcm", "google_wsi2dcm_raw.dcm", "highdicom_sm_annotations.dcm"]
)
def test_samples_survive_the_way_through_either_syntax(name, tmp_path):
    path = require_data(f"slides/dicom-wsi/{name}")
    expected = scan_file(path)
    plain = tmp_path / "plain.dcm"
    dcmwrite(plain, dcmread(path), implicit_vr=False, little_endian=True)
    data_set = plain.read_bytes()[len_of_meta(plain.read_bytes()) :]
    (tmp_path / "deflated.dcm").write_bytes(deflated(data_set))
    (tmp_path / "big.dcm").write_bytes(as_big_endian(path.read_bytes()))
    for kind in ("deflated", "big"):
        scratch = tmp_path / f"{kind}.scratch"
        scanned = scan_file(tmp_path / f"{kind}.dcm", scratch=scratch)
        assert content_digest(scanned.dataset, b"") == content_digest(expected.dataset, b"")
        if expected.frame_table:
            assert frames_of(scratch.read_bytes(), scanned) == frames_of(path.read_bytes(), expected)


def len_of_meta(data: bytes) -> int:
    return 144 + struct.unpack_from("<I", data, 140)[0]


def test_an_existing_file_is_not_written_over(tmp_path):
    out = tmp_path / "out.dcm"
    out.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        reencode_to_explicit_le(io.BytesIO(deflated(b"")), out)
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (deflated(bytes(100))[:-20] + b"", Truncated),
        (build.meta(build.DEFLATED) + b"\xff" * 100, Malformed),
        (build.meta(build.DEFLATED), Truncated),
        (build.native(bytes(16), 4), UnknownTransferSyntax),
        (build.meta(build.BIG_ENDIAN) + build.big(0x00100010, "PN", b"A^B^", 400), Truncated),
        (build.meta(build.BIG_ENDIAN) + build.big(0x7FE00010, "OW", bytes(65539)), Malformed),
    ],
)
def test_nothing_is_left_of_what_cannot_be_reencoded(data, refusal, tmp_path):
    with pytest.raises(refusal):
        reencode_to_explicit_le(io.BytesIO(data), tmp_path / "out.dcm")
    assert list(tmp_path.iterdir()) == []


def bomb(size: int) -> bytes:
    """A deflated file whose data set is ``size`` zeros: about a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return build.meta(build.DEFLATED) + block * (size >> 24) + packer.flush()


def test_a_deflate_bomb_stops_at_the_ratio_in_little_memory(tmp_path):
    data = bomb(2 << 30)
    assert 1 << 20 < len(data) < 3 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BudgetExceeded, match="200 times its size"):
        reencode_to_explicit_le(io.BytesIO(data), tmp_path / "out.dcm")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB
    assert list(tmp_path.iterdir()) == []


def test_a_deflate_bomb_below_the_ratio_stops_at_the_size(tmp_path):
    budget = ParseBudget(inflate_ratio=10_000, inflated_bytes=8 << 20)
    with pytest.raises(BudgetExceeded, match=f"more than {8 << 20} bytes"):
        reencode_to_explicit_le(io.BytesIO(bomb(1 << 26)), tmp_path / "out.dcm", budget)
    assert list(tmp_path.iterdir()) == []
