# SPDX-License-Identifier: Apache-2.0
"""The JSON model backwards: what was read from a file makes the same data set again."""

import base64
import io
import json
import struct

import pytest
from hypothesis import given

from archive.part10.budget import ParseBudget
from archive.part10.errors import BudgetExceeded, Malformed
from archive.part10.from_json import Slot, first_text, from_json
from archive.part10.json_model import to_json
from archive.part10.meta import encode_meta
from archive.part10.normal_form import element_header
from archive.part10.scan import scan_file
from tests.archive.part10 import build
from tests.archive.part10.test_scan import samples
from tests.archive.part10.trees import trees

CHARACTER_SET = "00080005"


def loads(encoded: bytes):
    return json.loads(encoded, parse_float=str, parse_constant=str)


def joined(pieces, values) -> bytes:
    out = b""
    for piece in pieces:
        if isinstance(piece, Slot):
            content = values[piece.uri] if piece.uri else piece.inline
            content += bytes(len(content) % 2)
            piece = element_header(piece.tag, piece.vr, len(content)) + content
        out += piece
    return out


def again(data: bytes, scanned) -> bytes:
    """JSON of the file that the JSON of ``scanned`` makes."""
    values = {f"bulk:{v.path}": data[v.offset : v.offset + v.length] for v in scanned.bulk}
    pieces = from_json(loads(to_json(scanned.dataset, scanned.bulk)))
    meta = encode_meta(scanned.sop_class_uid, scanned.sop_instance_uid, "1.2.840.10008.1.2.1")
    made = scan_file(io.BytesIO(meta + joined(pieces, values)))
    return to_json(made.dataset, made.bulk)


def without_character_set(encoded: bytes):
    found = json.loads(encoded)
    found.pop(CHARACTER_SET, None)
    return found


@given(trees())
def test_any_data_set_comes_back_from_its_json(tree):
    data = build.meta() + tree
    scanned = scan_file(io.BytesIO(data))
    assert without_character_set(again(data, scanned)) == without_character_set(
        to_json(scanned.dataset, scanned.bulk)
    )


def test_sample_files_come_back_from_their_json():
    tried = 0
    for path in samples():
        scanned = scan_file(path)
        if scanned.transfer_syntax_uid not in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"):
            continue
        tried += 1
        assert without_character_set(again(path.read_bytes(), scanned)) == without_character_set(
            to_json(scanned.dataset, scanned.bulk)
        ), path.name
    assert tried


def encoded(tag: str, **attribute: object) -> bytes:
    """The value field that one attribute becomes."""
    pieces = from_json({tag: attribute})
    out = joined(pieces, {})
    marker = struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16))
    vr = str(attribute["vr"]).encode()
    start = out.index(marker + vr)
    return out[start + (8 if out[start + 6 : start + 8] != b"\0\0" else 12) :]


@pytest.mark.parametrize(
    ("attribute", "content"),
    [
        ({"vr": "DS", "Value": ["1.50", 2, None]}, b"1.50\\2\\ "),
        ({"vr": "DS", "Value": [1 / 3]}, b"0.33333333333333"),
        ({"vr": "IS", "Value": [12]}, b"12"),
        ({"vr": "SV", "Value": ["-9007199254740993"]}, struct.pack("<q", -9007199254740993)),
        ({"vr": "US", "Value": ["3.0", 4]}, struct.pack("<2H", 3, 4)),
        ({"vr": "FD", "Value": ["1.5"]}, struct.pack("<d", 1.5)),
        ({"vr": "AT", "Value": ["00100020"]}, b"\x10\0\x20\0"),
        ({"vr": "PN", "Value": [{"Alphabetic": "Ä^B", "Phonetic": "C"}]}, "Ä^B==C".encode()),
        ({"vr": "LO", "Value": ["ä\\b"]}, "ä\\b".encode()),
        ({"vr": "OB", "InlineBinary": base64.b64encode(b"abc").decode()}, b"abc\0"),
    ],
)  # fmt: skip
def test_values_are_encoded_as_their_vr_wants(attribute, content):
    found = encoded("00091001", **attribute)
    assert found.rstrip(b" ") == content.rstrip(b" ")


def test_text_is_utf_8_and_says_so_whatever_the_metadata_said():
    pieces = from_json(
        {"00100010": {"vr": "PN", "Value": ["Ä"]}, CHARACTER_SET: {"vr": "CS", "Value": ["ISO_IR 100"]}}
    )
    assert b"ISO_IR 192" in joined(pieces, {})
    assert b"ISO_IR 100" not in joined(pieces, {})


def test_group_2_group_lengths_and_offset_tables_are_left_out():
    pieces = from_json(
        {
            "00020010": {"vr": "UI", "Value": ["1.2"]},
            "00100000": {"vr": "UL", "Value": [4]},
            "7FE00001": {"vr": "OV", "BulkDataURI": "x"},
        }
    )
    assert pieces == from_json({})


@pytest.mark.parametrize(
    "data_set",
    [
        [],
        {"PatientName": {"vr": "PN"}},
        {"0010001": {"vr": "PN"}},
        {"00100010": []},
        {"00100010": {"vr": "XX"}},
        {"00100010": {"vr": "PN", "Value": "A"}},
        {"00100010": {"vr": "PN", "Value": [True]}},
        {"00280010": {"vr": "US", "Value": [65536]}},
        {"00280010": {"vr": "US", "Value": [1.5]}},
        {"00280010": {"vr": "US", "Value": ["x"]}},
        {"00282000": {"vr": "OB", "InlineBinary": "!"}},
        {"00282000": {"vr": "OB", "Value": ["x"]}},
        {"00282000": {"vr": "OB", "InlineBinary": "AA==", "BulkDataURI": "x"}},
        {"00100010": {"vr": "PN", "BulkDataURI": "x"}},
        {"00282000": {"vr": "OB", "BulkDataURI": 5}},
        {"00082218": {"vr": "SQ", "BulkDataURI": "x"}},
        {"00082218": {"vr": "SQ", "Value": ["x"]}},
        {"00081190": {"vr": "UR", "Value": ["a", "b"]}},
        {"7fe00010": {"vr": "OB"}, "7FE00010": {"vr": "OB"}},
    ],
)
def test_what_annex_f_does_not_allow_is_refused(data_set):
    with pytest.raises(Malformed):
        from_json(data_set)


@pytest.mark.parametrize(
    "budget",
    [ParseBudget(depth=2), ParseBudget(elements=3), ParseBudget(items=2), ParseBudget(header_bytes=40)],
)
def test_no_data_set_asks_for_more_than_its_budget(budget):
    inner: dict[str, object] = {}
    for _ in range(4):
        inner = {"00082218": {"vr": "SQ", "Value": [inner]}}
    with pytest.raises(BudgetExceeded):
        from_json(inner, budget)


def test_values_that_are_bulk_leave_their_place_open():
    pieces = from_json(
        {
            "00420011": {"vr": "OB", "BulkDataURI": "a"},
            "00480105": {"vr": "SQ", "Value": [{"00282000": {"vr": "OB", "BulkDataURI": "b"}}]},
            "7FE00010": {"vr": "OW", "InlineBinary": "AAA="},
        }
    )
    slots = [piece for piece in pieces if isinstance(piece, Slot)]
    assert [(slot.uri, slot.is_pixel_data) for slot in slots] == [("a", False), ("b", False), ("", True)]


def test_first_text_is_lenient():
    assert first_text({"00080018": {"vr": "UI", "Value": ["1.2"]}}, "00080018") == "1.2"
    for attribute in ({}, {"Value": []}, {"Value": [5]}, {"Value": "1"}, 7, None):
        assert first_text({"00080018": attribute}, "00080018") == ""
