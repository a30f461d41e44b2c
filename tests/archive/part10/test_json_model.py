# SPDX-License-Identifier: Apache-2.0
import base64
import io
import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from archive.part10.bulk import BulkValue
from archive.part10.errors import Malformed
from archive.part10.json_model import to_json
from archive.part10.recode import recode_to_utf8
from archive.part10.scan import scan_file
from tests.archive.part10 import build
from tests.archive.part10.test_scan import file_of, read, samples
from tests.archive.part10.trees import trees


def model(*elements: bytes) -> dict[str, object]:
    """The JSON model of a file, without its four UIDs."""
    scanned = scan_file(io.BytesIO(file_of(*elements)))
    found = json.loads(to_json(scanned.dataset, scanned.bulk))
    for key in ("00080016", "00080018", "0020000D", "0020000E"):
        del found[key]
    return found


def value(tag: int, vr: str, content: bytes) -> object:
    (found,) = model(build.explicit(tag, vr, build.padded(content))).values()
    assert found.pop("vr") == vr
    return found


def without_empty_sequences(tree: object) -> object:
    """pydicom writes an empty Value, which PS3.18 F.2.5 wants left out, and "" for null."""
    if isinstance(tree, dict):
        pruned = {key: without_empty_sequences(inside) for key, inside in tree.items()}
        return {key: inside for key, inside in pruned.items() if inside != [] or key != "Value"}
    if isinstance(tree, list):
        return [without_empty_sequences(inside) for inside in tree]
    return None if tree == "" else tree


def test_samples_read_as_pydicom_writes_them():
    for path in samples():
        if path.name == "libvips_dicom_test_image.dcm":
            continue  # pydicom knows the VRs of a private creator, PS3.6 does not
        scanned = scan_file(path)
        theirs = read(path).to_json_dict()
        for key in ("7FE00010", "FFFCFFFC"):
            theirs.pop(key, None)
        theirs = {key: inside for key, inside in theirs.items() if not key.endswith("0000")}
        assert json.loads(to_json(scanned.dataset, scanned.bulk)) == without_empty_sequences(theirs), (
            path.name
        )


@given(trees())
def test_random_trees_read_as_pydicom_writes_them(content):
    scanned = scan_file(io.BytesIO(build.meta() + content))
    ours = json.loads(to_json(scanned.dataset, scanned.bulk))
    theirs = json.loads(dcmread(io.BytesIO(scanned.header)).to_json())
    assert without_bulk(ours) == without_empty_sequences(theirs)
    assert list(ours) == sorted(ours)


def without_bulk(tree: object) -> object:
    if isinstance(tree, dict):
        return {
            key: without_bulk(inside)
            for key, inside in tree.items()
            if not (isinstance(inside, dict) and "BulkDataURI" in inside)
        }
    return [without_bulk(inside) for inside in tree] if isinstance(tree, list) else tree


@pytest.mark.parametrize(
    ("vr", "content", "expected"),
    [
        ("IS", b"5", [5]),
        ("IS", b"+007\\-3 ", [7, -3]),
        ("DS", b"0.00025", [0.00025]),
        ("DS", b" 1.5\\\\-.5E+02\\5.", [1.5, None, -50, 5]),
        ("DS", b"NaN\\1,5\\abc", ["NaN", "1,5", "abc"]),
        ("DS", b"1e400", None),
        ("CS", b"A\\ B \\", ["A", "B", None]),
        ("UI", b"1.2.3\x00", ["1.2.3"]),
        ("LO", b" keep \\x", [" keep", "x"]),
        ("LT", b"a\\b\r\n ", ["a\\b\r\n"]),
        ("UR", b"http://x/y?z=1 ", ["http://x/y?z=1"]),
        ("AT", b"\x28\x00\x0a\x00\xe0\x7f\x10\x00", ["0028000A", "7FE00010"]),
        ("US", b"\x00\x00\xff\xff", [0, 65535]),
        ("SS", b"\xff\xff", [-1]),
        ("SL", b"\xfe\xff\xff\xff", [-2]),
        ("FL", struct.pack("<3f", math.nan, math.inf, -math.inf), ["NaN", "inf", "-inf"]),
        ("FD", struct.pack("<2d", 0.1, -0.0), [0.1, -0.0]),
        ("SV", struct.pack("<2q", -(2**53) + 1, -(2**53)), [-(2**53) + 1, str(-(2**53))]),
        ("UV", struct.pack("<2Q", 2**53 - 1, 2**64 - 1), [2**53 - 1, str(2**64 - 1)]),
        ("PN", b"A^B=\xe5=C \\\\=D", None),
    ],
)
def test_values_have_the_types_of_table_f_2_3(vr, content, expected):
    found = value(0x00091001, vr, content)
    if expected is not None:
        assert found == {"Value": expected}


def test_decimal_strings_keep_their_digits():
    scanned = scan_file(io.BytesIO(file_of(build.explicit(0x00280030, "DS", b"0.000250\\1e400 "))))
    assert b'"00280030":{"vr":"DS","Value":[0.000250,1e400]}' in to_json(scanned.dataset)


def test_person_names_have_groups_and_empty_ones_are_left_out():
    assert value(0x00100010, "PN", b"A^B") == {"Value": [{"Alphabetic": "A^B"}]}
    assert value(0x00100010, "PN", b"A^B==C") == {"Value": [{"Alphabetic": "A^B", "Phonetic": "C"}]}
    assert value(0x00081070, "PN", b"A\\\\=B ") == {
        "Value": [{"Alphabetic": "A"}, None, {"Ideographic": "B"}]
    }


@pytest.mark.parametrize(
    ("tag", "vr"), [(0x00100010, "PN"), (0x00480105, "SQ"), (0x00280010, "US"), (0x00091001, "UN")]
)
def test_an_empty_attribute_has_a_vr_and_nothing_else(tag, vr):
    assert value(tag, vr, b"") == {}


@pytest.mark.parametrize("vr", ["OB", "OW", "OD", "OF", "OL", "OV", "UN"])
def test_bytes_are_inline_up_to_64_kib_and_a_uri_above(vr):
    assert value(0x00091001, vr, b"\x01" * 16) == {"InlineBinary": base64.b64encode(b"\x01" * 16).decode()}
    assert value(0x00091001, vr, b"\x01" * 65544) == {"BulkDataURI": "bulk:00091001"}


def test_nested_bulk_stands_at_its_place_and_pixel_data_have_none():
    inner = build.explicit(0x00282000, "OB", bytes(70000)) + build.explicit(0x00480106, "SH", b"1 ")
    pixel = build.explicit(0x7FE00010, "OB", bytes(2))
    found = model(build.sequence(0x00480105, [b"", inner]), pixel, *[e for _, e in build.shape(1, 1, 1)])
    assert "7FE00010" not in found
    assert found["00480105"] == {
        "vr": "SQ",
        "Value": [
            {},
            {
                "00282000": {"vr": "OB", "BulkDataURI": "bulk:00480105/1/00282000"},
                "00480106": {"vr": "SH", "Value": ["1"]},
            },
        ],
    }


@pytest.mark.parametrize("path", ["00480105/0/00282000", "00480106/7/00282000", "00100010/0/00282000"])
def test_bulk_in_an_item_that_is_not_there_is_refused(path):
    ds = Dataset()
    ds.PatientName = "A"
    with pytest.raises(Malformed):
        to_json(ds, [BulkValue(path, "OB", 0, 1)])


CHARSETS = [
    ("ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
    ("ISO_IR 192", "Zażółć".encode(), "Zażółć"),
    ("ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
    ("GB18030", "王小东".encode("gb18030"), "王小东"),
    ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
]


@pytest.mark.parametrize(("charset", "encoded", "text"), CHARSETS)
def test_text_is_utf_8_and_says_so(charset, encoded, text):
    found = model(
        build.explicit(0x00080005, "CS", build.padded(charset.encode())),
        build.explicit(0x00100010, "PN", build.padded(encoded)),
    )
    assert found["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert "=".join(found["00100010"]["Value"][0].values()) == text


@pytest.mark.parametrize(("charset", "encoded", "text"), CHARSETS)
def test_a_data_set_recoded_to_utf_8_says_the_same(charset, encoded, text):
    name = build.explicit(0x00100010, "PN", build.padded(encoded))
    own = build.explicit(0x00080005, "CS", b"ISO_IR 100") + build.explicit(0x00080104, "LO", b"\xfcb")
    scanned = scan_file(io.BytesIO(file_of(
        build.explicit(0x00080005, "CS", build.padded(charset.encode())), name,
        build.sequence(0x00480105, [build.explicit(0x00100010, "PN", build.padded(encoded)), own]),
    )))  # fmt: skip
    recoded = recode_to_utf8(scanned.dataset)
    assert recoded.SpecificCharacterSet == "ISO_IR 192"
    assert str(recoded.PatientName) == text
    assert str(recoded.OpticalPathSequence[0].PatientName) == text
    assert recoded.OpticalPathSequence[1].CodeMeaning == "üb"
    assert "SpecificCharacterSet" not in recoded.OpticalPathSequence[1]
    assert recode_to_utf8(recoded) == recoded
    recoded.PatientName = "Ж"
    assert str(dcmread(io.BytesIO(scan_file(io.BytesIO(header_of(recoded))).header)).PatientName) == "Ж"


def header_of(ds: Dataset) -> bytes:
    from archive.part10.encode import encode_header

    return encode_header(ds, build.EXPLICIT, implementation_version="COVERSLIP_1")


@given(
    st.binary(min_size=1, max_size=60),
    st.sampled_from(["", "ISO_IR 192", "ISO 2022 IR 87", "nonsense", "GB18030"]),
)
def test_no_text_can_make_it_fail(noise, charset):
    elements = [build.explicit(0x00080005, "CS", build.padded(charset.encode()))]
    elements += [build.explicit(tag, vr, build.padded(noise)) for tag, vr in (
        (0x00100010, "PN"), (0x00100020, "LO"), (0x00104000, "LT"), (0x00280030, "DS"), (0x00280008, "IS"),
        (0x00189004, "CS"), (0x0040E010, "UR"), (0x00200062, "UI"),
    )]  # fmt: skip
    model(*elements)
    scanned = scan_file(io.BytesIO(file_of(*elements)))
    json.loads(to_json(recode_to_utf8(scanned.dataset)))


@pytest.mark.parametrize("vr", ["UL", "OB", "PN", "DS"])
def test_a_character_set_of_a_strange_vr_cannot_make_it_fail(vr):
    found = model(build.explicit(0x00080005, vr, b"ISO_IR_6"), build.explicit(0x00100020, "LO", b"P1"))
    assert found["00100020"] == {"vr": "LO", "Value": ["P1"]}
    assert found["00080005"]["vr"] == vr
