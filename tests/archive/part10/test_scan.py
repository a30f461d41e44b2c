# SPDX-License-Identifier: Apache-2.0
import io
import struct
import warnings
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence

from archive.part10.digest import content_digest
from archive.part10.encode import encode_dataset, encode_header
from archive.part10.errors import Malformed, NotPart10, Part10Error, Truncated, UnknownTransferSyntax
from archive.part10.frame_table import FrameTable
from archive.part10.scan import BulkValue, ScannedFile, scan_file
from tests.archive.part10 import build
from tests.archive.part10.test_pixels import frames_of
from tests.support.require import require_data


def scan(data: bytes, **options: object) -> ScannedFile:
    return scan_file(io.BytesIO(data), **options)


def file_of(*elements: bytes, syntax: str = build.EXPLICIT) -> bytes:
    """Identity and the given elements, sorted by their own tags."""
    order = [(struct.unpack("<HH", e[:4])[0] << 16 | struct.unpack("<HH", e[:4])[1], e) for e in elements]
    element = build.implicit if syntax == build.IMPLICIT else build.explicit
    return build.meta(syntax) + build.data_set(build.identity(element), order)


def samples() -> list[Path]:
    return sorted(require_data("slides/dicom-wsi").glob("*.dcm"))


def read(path_or_file: object) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(path_or_file)


def test_every_sample_scans_and_agrees_with_pydicom():
    paths = samples()
    assert len(paths) >= 20
    for path in paths:
        scanned = scan_file(path)
        theirs = read(path)
        assert scanned.sop_instance_uid == theirs.SOPInstanceUID, path.name
        assert scanned.transfer_syntax_uid == theirs.file_meta.TransferSyntaxUID
        assert content_digest(scanned.dataset, b"") == content_digest(theirs, b""), path.name
        if scanned.pixel_data is not None:
            table = FrameTable.from_bytes(scanned.frame_table)
            assert table.count == int(theirs.get("NumberOfFrames", 1)), path.name


def test_frames_of_every_sample_are_those_that_pydicom_reads():
    for path in samples():
        scanned = scan_file(path)
        if scanned.pixel_data is None:
            continue
        theirs = read(path)
        frames = frames_of(path.read_bytes(), scanned)
        if scanned.pixel_data.encapsulated:
            from pydicom.encaps import generate_frames

            expected = list(generate_frames(theirs.PixelData, number_of_frames=len(frames)))
            assert frames == expected, path.name
        elif theirs.BitsAllocated == 1:
            pixels = theirs.pixel_array.reshape(len(frames), -1)
            for frame, plane in zip(frames, pixels, strict=True):
                assert sum(byte.bit_count() for byte in frame) == int(plane.sum())
        else:
            assert b"".join(frames) == theirs.PixelData[: len(b"".join(frames))], path.name


def test_a_header_is_a_part_10_file_that_pydicom_reads_without_complaint():
    for path in samples():
        scanned = scan_file(path)
        theirs = dcmread(io.BytesIO(scanned.header))
        explicit = scanned.transfer_syntax_uid in (build.IMPLICIT, build.EXPLICIT)
        expected = build.EXPLICIT if explicit else scanned.transfer_syntax_uid
        assert theirs.file_meta.TransferSyntaxUID == expected
        assert "PixelData" not in theirs
        assert content_digest(theirs, b"") == content_digest(scanned.dataset, b"")


def test_scanning_a_header_gives_the_same_header():
    for path in samples():
        header = scan_file(path).header
        assert scan(header).header == header, path.name


@pytest.mark.parametrize("undefined", [False, True])
def test_explicit_and_implicit_files_give_the_same_header(undefined):
    def file(element, syntax):
        inner = element(0x00080100, "SH", b"A1") + element(0x00080104, "LO", b"meaning ")
        nested = build.sequence(0x00082218, [inner, b""], undefined=undefined, element=element)
        outer = build.sequence(0x00480105, [nested], undefined=undefined, element=element)
        elements = [
            (0x00100010, element(0x00100010, "PN", b"A^B ")),
            (0x00280010, element(0x00280010, "US", b"\x02\x00")),
            (0x00280103, element(0x00280103, "US", b"\x01\x00")),
            (0x00280106, element(0x00280106, "SS", b"\xff\xff")),
            (0x00400244, element(0x00400244, "DA", b"")),
            (0x00480105, outer),
        ]
        return build.meta(syntax) + build.data_set(build.identity(element), elements)

    explicit = scan(file(build.explicit, build.EXPLICIT))
    implicit = scan(file(build.implicit, build.IMPLICIT))
    start = explicit.header.index(b"\x08\x00\x16\x00")
    assert explicit.header[start:] == implicit.header[implicit.header.index(b"\x08\x00\x16\x00") :]
    assert implicit.dataset.OpticalPathSequence[0].AnatomicRegionSequence[0].CodeMeaning == "meaning"
    assert implicit.dataset.SmallestImagePixelValue == -1
    assert implicit.transfer_syntax_uid == build.IMPLICIT


def test_sequences_of_a_header_have_undefined_lengths():
    nested = build.sequence(0x00082218, [build.explicit(0x00080100, "SH", b"A1")])
    header = scan(file_of(build.sequence(0x00480105, [nested]))).header
    assert header.endswith(
        b"\x48\x00\x05\x01SQ\x00\x00\xff\xff\xff\xff" b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        b"\x08\x00\x18\x22SQ\x00\x00\xff\xff\xff\xff" b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        b"\x08\x00\x00\x01SH\x02\x00A1" + (build.ITEM_END + build.SEQUENCE_END) * 2
    )  # fmt: skip


def test_values_above_64_kib_are_bulk_and_those_of_64_kib_are_not():
    at_limit = build.explicit(0x00282000, "OB", bytes(65536))
    above = build.explicit(0x00282000, "OB", bytes(65538))
    assert scan(file_of(at_limit)).bulk == ()
    data = file_of(above)
    (value,) = scan(data).bulk
    assert value == BulkValue("00282000", "OB", data.index(above) + 12, 65538)
    assert 0x00282000 not in scan(data).dataset


def test_nested_bulk_is_named_by_its_path():
    path = build.sequence(0x00480105, [b"", build.explicit(0x00282000, "OB", b"\x07" * 70000)])
    data = file_of(path, build.sequence(0x006A0002, [build.explicit(0x00660016, "OF", bytes(70000))]))
    scanned = scan(data)
    assert [value.path for value in scanned.bulk] == ["00480105/1/00282000", "006A0002/0/00660016"]
    first = scanned.bulk[0]
    assert data[first.offset : first.offset + first.length] == b"\x07" * 70000
    assert "ICCProfile" not in scanned.dataset.OpticalPathSequence[1]


def test_an_icon_with_encapsulated_pixels_is_bulk_of_its_item():
    pixel = build.explicit(0x7FE00010, "OB", build.fragments(b"", b"abcd"), build.UNDEFINED)
    data = file_of(build.sequence(0x00880200, [pixel], undefined=True))
    scanned = scan(data)
    assert scanned.pixel_data is None
    (value,) = scanned.bulk
    assert (value.path, value.encapsulated) == ("00880200/0/7FE00010", True)
    assert data[value.offset : value.offset + value.length] == build.fragments(b"", b"abcd")


def test_group_lengths_and_trailing_padding_are_left_out():
    length = build.explicit(0x00100000, "UL", b"\x0a\x00\x00\x00")
    inside = build.sequence(0x00480105, [length + build.explicit(0x00100010, "PN", b"A^")])
    padding = build.explicit(0xFFFCFFFC, "OB", bytes(100))
    scanned = scan(file_of(length, build.explicit(0x00100020, "LO", b"P1"), inside, padding))
    plain = build.sequence(0x00480105, [build.explicit(0x00100010, "PN", b"A^")])
    assert scanned.header == scan(file_of(build.explicit(0x00100020, "LO", b"P1"), plain)).header
    assert scanned.findings == ()


def test_elements_out_of_order_are_sorted_at_every_level_and_noted():
    right = build.explicit(0x00080100, "SH", b"A1") + build.explicit(0x00080104, "LO", b"ab")
    wrong = build.explicit(0x00080104, "LO", b"ab") + build.explicit(0x00080100, "SH", b"A1")
    name, number = build.explicit(0x00100010, "PN", b"A^"), build.explicit(0x00100020, "LO", b"P1")
    identity = build.data_set(build.identity())
    good = build.meta() + identity + build.sequence(0x00480105, [build.sequence(0x00082218, [right])])
    bad = build.meta() + identity + build.sequence(0x00480105, [build.sequence(0x00082218, [wrong])])
    assert scan(bad).header == scan(good).header
    assert scan(bad).findings == ("elements are not in ascending order: sorted",)
    head = build.meta() + build.data_set(build.identity()[:2])
    tail = build.data_set(build.identity()[2:])
    assert scan(head + number + name + tail).header == scan(head + name + number + tail).header


@pytest.mark.parametrize("distance", [0, 1])
def test_a_tag_that_occurs_twice_is_refused(distance):
    twice = build.explicit(0x00100010, "PN", b"A^")
    between = build.explicit(0x00100020, "LO", b"P1") * distance
    for data in (
        build.meta() + build.data_set(build.identity()[:2]) + twice + between + twice
        + build.data_set(build.identity()[2:]),
        file_of(build.sequence(0x00480105, [twice + between + twice])),
    ):  # fmt: skip
        with pytest.raises(Malformed, match=r"\(0010,0010\) occurs twice"):
            scan(data)


def test_a_sequence_sent_as_un_is_read_as_the_sequence_it_is():
    inner = build.implicit(0x00080100, "SH", b"A1")
    for value in (
        build.explicit(0x00480105, "UN", build.item(inner)),
        build.explicit(0x00480105, "UN", build.item(inner, undefined=True) + build.SEQUENCE_END, 0xFFFFFFFF),
    ):
        scanned = scan(file_of(value))
        assert scanned.dataset.OpticalPathSequence[0].CodeValue == "A1"
        expected = build.sequence(0x00480105, [build.explicit(0x00080100, "SH", b"A1")])
        assert scanned.header == scan(file_of(expected)).header


def test_after_a_sequence_as_un_the_walk_goes_on_in_explicit_vr():
    un = build.explicit(0x00480105, "UN", build.item(build.implicit(0x00080100, "SH", b"A1")))
    scanned = scan(file_of(un, build.explicit(0x00480106, "SH", b"1 ")))
    assert scanned.dataset.OpticalPathIdentifier == "1"


def test_a_private_sequence_in_implicit_vr_has_the_digest_it_has_in_explicit_vr():
    def file(element, syntax):
        creator = element(0x00090010, "LO", b"MAKER ")
        private = build.sequence(0x00091001, [element(0x00080100, "SH", b"A1")], element=element)
        return file_of(creator, private, syntax=syntax)

    explicit = scan(file(build.explicit, build.EXPLICIT))
    implicit = scan(file(build.implicit, build.IMPLICIT))
    assert content_digest(explicit.dataset, b"") == content_digest(implicit.dataset, b"")


def test_private_bytes_that_only_begin_like_an_item_stay_bytes():
    value = b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcdef"
    scanned = scan(file_of(build.implicit(0x00091001, "UN", value), syntax=build.IMPLICIT))
    assert scanned.dataset[0x00091001].VR == "UN"
    assert scanned.dataset[0x00091001].value == value


def test_odd_and_impossible_lengths_are_mended_and_noted():
    scanned = scan(
        file_of(build.explicit(0x00100010, "PN", b"A^B"), build.explicit(0x00091052, "US", b"abc"))
    )
    assert scanned.header.count(b"PN\x04\x00A^B ") == 1
    assert scanned.dataset[0x00091052].value == b"abc\x00"
    assert len(scanned.findings) == 3


@pytest.mark.parametrize(
    ("vr", "known"), [(b"ZZ", True), (b"??", True), (b"\x00\x01", False), (b"sh", False)]
)
def test_a_value_representation_of_a_later_edition_is_un(vr, known):
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, vr, 0, 2) + b"ab"
    if known:
        assert scan(file_of(element)).dataset[0x00091001].VR == "UN"
    else:
        with pytest.raises(Malformed):
            scan(file_of(element))


@pytest.mark.parametrize("count", [1, 7, 8, 11, 12, 512])
def test_zeros_after_the_data_set_are_let_pass_and_noted(count):
    scanned = scan(file_of(build.explicit(0x00100020, "LO", b"P1")) + bytes(count))
    assert scanned.findings == ("zeros follow the data set",)


def test_a_data_set_in_the_other_vr_encoding_than_declared_is_read_and_noted():
    implicit = file_of(build.implicit(0x00100020, "LO", b"P1"), syntax=build.IMPLICIT)
    lying = implicit.replace(build.meta(build.IMPLICIT), build.meta(build.EXPLICIT))
    scanned = scan(lying)
    assert scanned.dataset.PatientID == "P1"
    assert scanned.findings == ("the data set is not encoded as its transfer syntax says",)


@pytest.mark.parametrize("syntax", [build.EXPLICIT, build.IMPLICIT])
def test_a_bare_data_set_is_taken_only_where_allowed(syntax):
    element = build.implicit if syntax == build.IMPLICIT else build.explicit
    data = file_of(element(0x00100020, "LO", b"P1"), syntax=syntax)
    bare = data[len(build.meta(syntax)) :]
    with pytest.raises(NotPart10):
        scan(bare)
    scanned = scan(bare, allow_bare=True)
    assert scanned.transfer_syntax_uid == syntax
    assert scanned.dataset.PatientID == "P1"
    assert scanned.media_storage_uids == ("", "")
    assert scanned.findings == ("a data set without preamble and group 2",)


@pytest.mark.parametrize("noise", [b"", b"abc", bytes(200), b"II*\x00" + bytes(300), b"\x89PNG" * 100])
def test_what_is_no_dicom_is_refused_even_where_bare_data_sets_are_allowed(noise):
    with pytest.raises(NotPart10):
        scan(noise, allow_bare=True)


@pytest.mark.parametrize(
    "uid",
    [
        b"../../etc/x ",
        b"/etc/passwd ",
        b"1.2\x00.3 ",
        b"1" * 66,
        b"",
        b"1.2.\xc3\xbc ",
        b"1..2",
        b"1.2.3\\1.2 ",
    ],
)
def test_what_is_no_uid_is_refused_and_not_repeated_in_the_message(uid):
    bad = build.explicit(0x00080018, "UI", uid)
    elements = [e for e in build.identity() if e[0] != 0x00080018]
    with pytest.raises(Malformed) as refusal:
        scan(build.meta() + build.data_set(elements, [(0x00080018, bad)]))
    assert str(refusal.value).startswith("(0008,0018)")
    assert "etc" not in str(refusal.value)


def test_a_file_without_study_is_refused():
    elements = [e for e in build.identity() if e[0] != 0x0020000D]
    with pytest.raises(Malformed, match=r"\(0020,000D\) is absent"):
        scan(build.meta() + build.data_set(elements))


@pytest.mark.parametrize("syntax", ["1.2.3.4", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.1"])
def test_an_unknown_transfer_syntax_is_refused(syntax):
    with pytest.raises(UnknownTransferSyntax):
        scan(build.meta(syntax) + build.data_set(build.identity()))


def test_group_2_is_checked_against_the_data_set():
    data = build.meta(sop_instance="1.2.3.99") + build.data_set(build.identity())
    scanned = scan(data)
    assert scanned.media_storage_uids == (build.WSI, "1.2.3.99")
    assert scanned.findings == ("group 2 names another SOP instance than the data set",)
    wrong_length = bytearray(build.meta() + build.data_set(build.identity()))
    wrong_length[140] += 2
    assert scan(bytes(wrong_length)).findings == ("the length of group 2 is wrong or absent",)


def test_the_header_has_no_preamble_of_the_sender():
    data = bytearray(build.meta() + build.data_set(build.identity()))
    data[:4] = b"MZ\x90\x00"
    assert scan(bytes(data)).header[:128] == bytes(128)


def test_paths_files_and_bytes_are_scanned_alike(tmp_path):
    data = build.native(bytes(16), 4)
    path = tmp_path / "a.dcm"
    path.write_bytes(data)
    with path.open("rb") as file:
        file.seek(5)
        results = [scan_file(path), scan_file(str(path)), scan_file(file), scan(data)]
        assert not file.closed
    assert len({(r.header, r.frame_table, r.bulk) for r in results}) == 1


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.dcm").write_bytes(b"")
    with pytest.raises(NotPart10):
        scan_file(tmp_path / "empty.dcm")


def test_a_length_that_leads_out_of_its_item_is_told_from_one_out_of_the_file():
    inner = build.explicit(0x00080100, "SH", b"A1", 200)
    item = build.sequence(0x00480105, [inner])
    with pytest.raises(Malformed, match="longer than what it lies in"):
        scan(file_of(item, build.explicit(0x00500010, "SH", b"x" * 300)))
    with pytest.raises(Truncated, match="after the file"):
        scan(file_of(item))


def test_encoding_a_scanned_data_set_gives_the_scanned_header():
    for path in samples():
        scanned = scan_file(path)
        header = encode_header(
            scanned.dataset, scanned.transfer_syntax_uid, implementation_version="COVERSLIP_1"
        )
        assert header == scanned.header, path.name


def test_a_changed_attribute_changes_its_own_bytes_only():
    scanned = scan(file_of(build.explicit(0x00100020, "LO", b"P1"), build.sequence(0x00480105, [b""])))
    before = encode_dataset(scanned.dataset)
    scanned.dataset.PatientID = "P2"
    assert encode_dataset(scanned.dataset) == before.replace(b"P1", b"P2")


def test_an_encoded_header_does_not_depend_on_the_order_of_assignment():
    def made(names):
        ds = Dataset()
        for name, value in names:
            setattr(ds, name, value)
        ds.OpticalPathSequence = Sequence([Dataset()])
        return encode_header(ds, build.EXPLICIT, implementation_version="COVERSLIP_1")

    names = [("SOPClassUID", build.WSI), ("SOPInstanceUID", "1.2"), ("PatientID", "x"), ("Rows", 3)]
    assert made(names) == made(names[::-1])
    again = dcmread(io.BytesIO(made(names)))
    assert again.file_meta.ImplementationVersionName == "COVERSLIP_1"
    assert again.Rows == 3


def test_a_data_set_that_cannot_be_a_header_is_refused():
    ds = Dataset()
    with pytest.raises(Malformed):
        encode_header(ds, build.EXPLICIT, implementation_version="COVERSLIP_1")
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2", "1.3"
    with pytest.raises(Malformed):
        encode_header(ds, build.EXPLICIT, implementation_version="X" * 17)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.add_new(0x00280010, "US", "no number")
    with pytest.raises(Malformed, match=r"\(0028,0010\) cannot be encoded"):
        encode_header(ds, build.EXPLICIT, implementation_version="COVERSLIP_1")


def test_pixel_data_and_offset_tables_are_not_encoded():
    ds = dcmread(io.BytesIO(build.encapsulated([[b"ab"]], b"", extra=build.extended_table([[b"ab"]]))))
    assert b"\xe0\x7f" not in encode_header(ds, build.JPEG, implementation_version="COVERSLIP_1")


def test_what_pydicom_writes_in_any_native_syntax_has_one_digest():
    ds = read(require_data("slides/dicom-wsi/highdicom_sm_image.dcm"))
    del ds[0x7FE00010]
    digests = set()
    for implicit in (True, False):
        out = io.BytesIO()
        ds.file_meta.TransferSyntaxUID = build.IMPLICIT if implicit else build.EXPLICIT
        dcmwrite(out, ds, implicit_vr=implicit, little_endian=True)
        digests.add(content_digest(scan(out.getvalue()).dataset, b"f"))
    assert len(digests) == 1


def test_findings_and_refusals_hold_no_values():
    secret = b"SECRET^NAME"
    data = file_of(build.explicit(0x00100010, "PN", secret), build.explicit(0x00281052, "DS", secret, 4000))
    with pytest.raises(Part10Error) as refusal:
        scan(data)
    assert "SECRET" not in str(refusal.value)
