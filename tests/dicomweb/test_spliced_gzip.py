# SPDX-License-Identifier: Apache-2.0
"""Pieces that were compressed apart are one gzip member, whatever they hold."""

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from archive import packed_json
from archive.values import Deflated
from dicomweb.spliced_gzip import inflated, joined_crc32, spliced

texts = st.lists(st.tuples(st.booleans(), st.binary(max_size=300)), max_size=12)


def deflated(text: bytes) -> Deflated:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return Deflated(packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH), len(text), zlib.crc32(text))


@given(texts)
def test_any_mixture_is_one_member_that_inflates_to_the_texts(parts):
    pieces = [deflated(text) if packed else text for packed, text in parts]
    whole = b"".join(text for _, text in parts)
    member = b"".join(spliced(pieces))
    reader = zlib.decompressobj(31)
    assert reader.decompress(member) == whole
    assert reader.eof
    assert reader.unused_data == b""
    assert b"".join(inflated(pieces)) == whole


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_checksums_of_two_texts_give_that_of_both(first, second):
    assert joined_crc32(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_a_literal_beyond_64_kib_is_several_blocks():
    literal = bytes(200_000)
    assert gzip.decompress(b"".join(spliced([literal, deflated(b"x")]))) == literal + b"x"


def test_what_was_kept_is_cut_at_its_places_without_inflating_it():
    escaped = b'"say \\"BulkDataURI\\":\\"bulk:no"'
    text = b'{"A":{"BulkDataURI":"bulk:1/0/2"},"B":' + escaped + b',"C":{"BulkDataURI":"bulk:3"}}'
    member = packed_json.pack(text)
    assert gzip.decompress(member) == text
    pieces = packed_json.pieces(member)
    assert len(pieces) == 3
    joined: list[bytes | Deflated] = [pieces[0], b"https://a/", pieces[1], b"https://a/", pieces[2]]
    made = gzip.decompress(b"".join(spliced(joined)))
    assert made == text.replace(b'"BulkDataURI":"bulk:', b'"BulkDataURI":"https://a/')


@given(st.lists(st.text(max_size=40), max_size=20))
def test_members_of_ours_and_of_others_give_the_same_pieces(values):
    text = b",".join(b'{"BulkDataURI":"bulk:' + value.encode("utf-8", "replace") + b'"}' for value in values)
    ours, others = (packed_json.pieces(member) for member in (packed_json.pack(text), gzip.compress(text)))
    assert [(p.length, p.crc32) for p in ours] == [(p.length, p.crc32) for p in others]
    assert b"bulk:".join(b"".join(inflated([piece])) for piece in ours) == text


def test_an_index_that_lies_is_not_believed():
    text = b'{"A":{"BulkDataURI":"bulk:1"}}'
    member = bytearray(packed_json.pack(text))
    member[16] ^= 1  # the first piece's length
    pieces = packed_json.pieces(bytes(member))
    assert b"bulk:".join(b"".join(inflated([piece])) for piece in pieces) == text


def test_thousands_of_places_are_cut_when_asked_for():
    text = b'{"BulkDataURI":"bulk:1"},' * 1000
    member = packed_json.pack(text)
    assert gzip.decompress(member) == text
    assert len(packed_json.pieces(member)) == 1001
