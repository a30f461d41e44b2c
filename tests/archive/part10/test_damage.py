# SPDX-License-Identifier: Apache-2.0
"""Files that are broken, or made to break us: only a Part10Error comes out, soon."""

import contextlib
import io
import random
import resource
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.part10.budget import DEFAULT_BUDGET, ParseBudget
from archive.part10.digest import content_digest
from archive.part10.encode import encode_header
from archive.part10.errors import BudgetExceeded, Malformed, Part10Error, Truncated
from archive.part10.frame_table import FrameTable, Kind
from archive.part10.json_model import to_json
from archive.part10.recode import recode_to_utf8
from archive.part10.scan import ScannedFile, scan_file
from archive.part10.stream import Part10Stream
from archive.part10.walker import normalise
from tests.archive.part10 import build
from tests.archive.part10.trees import trees
from tests.support.require import require_data


def scan(data: bytes, **options: object) -> ScannedFile:
    return scan_file(io.BytesIO(data), **options)


def use(data: bytes) -> None:
    """Everything that is done with a file that was let in; what it promises must hold."""
    scanned = scan(data, allow_bare=True)
    to_json(scanned.dataset, scanned.bulk)
    content_digest(scanned.dataset, b"")
    recode_to_utf8(scanned.dataset)
    encode_header(scanned.dataset, scanned.transfer_syntax_uid, implementation_version="COVERSLIP_1")
    table = FrameTable.from_bytes(scanned.frame_table) if scanned.frame_table else None
    if table is not None and table.kind is not Kind.BITS:
        for index in range(table.count):
            for part in table.segments(index):
                assert isinstance(part, bytes) or part.offset + part.length <= len(data)
    for value in scanned.bulk:
        assert value.offset + value.length <= len(data)
    stream = Part10Stream(scanned.header, scanned.transfer_syntax_uid, table, scanned.bulk)
    assert sum(len(p) if isinstance(p, bytes) else p.length for p in stream.parts()) == stream.length


def refused_or_fine(data: bytes) -> bool:
    """True if refused, by nothing but a Part10Error that holds no value."""
    message = ""
    try:
        use(data)
    except Part10Error as refusal:
        message = str(refusal)
    assert "SECRET" not in message
    return bool(message)


FRAMES = [[b"\xff\xd8\xff\xdbab", b"cd"], [b"\xff\xd8\xff\xdbef"]]
NESTED = build.sequence(
    0x00480105,
    [build.explicit(0x00080100, "SH", b"A1"), build.sequence(0x00082218, [b""], undefined=True)],
    undefined=True,
)
NAME = (0x00100010, build.explicit(0x00100010, "PN", b"SECRET^A"))
FILES = {
    "compressed": build.encapsulated(FRAMES, extra=[(0x00480105, NESTED), NAME]),
    "extended": build.encapsulated(FRAMES, b"", extra=[NAME, *build.extended_table(FRAMES)]),
    "native": build.native(bytes(16), 4),
    "bits": build.native(bytes(4), 6, rows=1, columns=5, bits=1),
    "implicit": build.meta(build.IMPLICIT)
    + build.data_set(
        build.identity(build.implicit),
        build.shape(1, element=build.implicit),
        [
            (
                0x00480105,
                build.sequence(0x00480105, [build.implicit(0x00080100, "SH", b"A1")], element=build.implicit),
            ),
            (
                0x00091001,
                build.implicit(0x00091001, "UN", build.item(build.implicit(0x00080100, "SH", b"A1"))),
            ),
            (0x7FE00010, build.implicit(0x7FE00010, "OW", bytes(4))),
        ],
    ),
}


def test_the_undamaged_files_are_taken():
    for name, data in FILES.items():
        assert not refused_or_fine(data), name


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_before_its_last_element_ends_is_refused(name):
    data = FILES[name]
    start = data.index(b"\xe0\x7f\x10\x00")
    for length in range(start + 1, len(data)):
        with pytest.raises(Truncated):
            scan(data[:length])


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_any_border_is_refused_or_whole_without_its_pixels(name):
    data = FILES[name]
    for length in build.cuts(data):
        refused_or_fine(data[:length])
    for length in range(data.index(b"\x20\x00\x0e\x00") + 8):
        with pytest.raises(Part10Error):
            scan(data[:length])


@pytest.mark.parametrize("name", FILES)
def test_any_one_byte_may_be_any_other(name):
    data = FILES[name]
    rng = random.Random(name)
    for position in range(len(data)):
        for byte in {0, 0xFF, data[position] ^ 1, data[position] ^ 0x80, rng.randrange(256)}:
            damaged = bytearray(data)
            damaged[position] = byte
            refused_or_fine(bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(
    trees(), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=5)
)
def test_random_trees_with_random_damage(content, changes):
    damaged = bytearray(build.meta() + content)
    for where, noise in changes:
        at = 132 + int(where * (len(damaged) - 133))
        damaged[at : at + len(noise)] = noise
    refused_or_fine(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([build.EXPLICIT, build.IMPLICIT, build.JPEG]))
def test_noise_after_a_good_beginning(noise, syntax):
    element = build.implicit if syntax == build.IMPLICIT else build.explicit
    refused_or_fine(build.meta(syntax) + build.data_set(build.identity(element)) + noise)


def test_samples_with_flipped_bytes():
    for name in ("google_wsi2dcm_jpeg.dcm", "highdicom_sm_image_jpegls.dcm", "panimg_sparse_with_bot.dcm"):
        data = require_data(f"slides/dicom-wsi/{name}").read_bytes()
        rng = random.Random(name)
        head = data.index(b"\xe0\x7f\x10\x00") + 60
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                damaged[rng.randrange(132, head)] = rng.randrange(256)
            refused_or_fine(bytes(damaged))


def test_a_length_beyond_the_file_is_refused_everywhere():
    for element in (
        build.explicit(0x00100020, "LO", b"P1", 60000),
        build.explicit(0x00420011, "OB", b"ab", 0xFFFFFFFE),
        build.explicit(0x7FE00010, "OB", b"abc", 0x7FFFFFFF),
        build.explicit(0x00480105, "SQ", build.item(b""), 4000),
        build.explicit(0x00480105, "SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\x7f", 8),
        build.explicit(0x7FE00010, "OB", b"\xfe\xff\x00\xe0\xf0\xff\xff\xff", 0xFFFFFFFF),
    ):
        kind = build.data_set(build.identity(), build.shape(1))
        with pytest.raises(Truncated):
            scan(build.meta(build.JPEG) + kind + element)


def test_a_fragment_longer_than_the_file_or_of_undefined_length_is_refused():
    for length in (100, 0xFFFFFFFE, 0xFFFFFFFF):
        bad = b"\xfe\xff\x00\xe0" + struct.pack("<I", length) + b"ab" + build.SEQUENCE_END
        pixel = build.explicit(0x7FE00010, "OB", build.item(b"") + bad, 0xFFFFFFFF)
        with pytest.raises(Truncated):
            scan(build.meta(build.JPEG) + build.data_set(build.identity(), build.shape(1)) + pixel)


@pytest.mark.parametrize("mark", [b"abcdefgh", build.ITEM_END, b"\xfc\xff\xfc\xff\x00\x00\x00\x00"])
def test_what_is_no_item_among_fragments_is_refused(mark):
    pixel = build.explicit(0x7FE00010, "OB", build.item(b"") + mark + build.SEQUENCE_END, 0xFFFFFFFF)
    with pytest.raises(Malformed, match=r"no item at byte \d+ of pixel data"):
        scan(build.meta(build.JPEG) + build.data_set(build.identity(), build.shape(1)) + pixel)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("element", [build.explicit, build.implicit])
def test_200_nested_sequences_are_refused_and_32_are_not(undefined, element):
    syntax = build.IMPLICIT if element is build.implicit else build.EXPLICIT

    def nested(depth: int) -> bytes:
        content = b""
        for _ in range(depth):
            content = build.sequence(0x00480105, [content], undefined=undefined, element=element)
        return build.meta(syntax) + build.data_set(build.identity(element)) + content

    with pytest.raises(BudgetExceeded, match="32 nested sequences"):
        scan(nested(200))
    with pytest.raises(BudgetExceeded):
        scan(nested(33))
    use(nested(32))


def bounded(data: bytes, seconds: float, megabytes: int, refusal: type[Part10Error]) -> None:
    """Scan within ``seconds`` of CPU, the peak of resident memory rising by less than
    ``megabytes``."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(refusal):
        scan(data)
    assert time.process_time() - start < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes << 10


@pytest.mark.parametrize("element", [build.explicit, build.implicit])
def test_two_million_empty_items_are_refused_in_bounded_time_and_memory(element):
    syntax = build.IMPLICIT if element is build.implicit else build.EXPLICIT
    items = element(0x00480105, "SQ", build.item(b"") * 2_000_000)
    data = build.meta(syntax) + build.data_set(build.identity(element)) + items
    bounded(data, 5, 256, BudgetExceeded)


def test_millions_of_elements_are_refused_in_bounded_time():
    element = build.explicit(0x00080100, "SH", b"")
    items = build.item(element * 1) * 1_400_000
    data = build.meta() + build.data_set(build.identity()) + build.explicit(0x00480105, "SQ", items)
    start = time.process_time()
    with pytest.raises(BudgetExceeded):
        scan(data, budget=ParseBudget(elements=500_000))
    assert time.process_time() - start < 5


def test_twenty_million_backslashes_are_bulk_and_never_split():
    value = build.explicit(0x00189004, "UC", b"\\" * 20_000_000)
    data = build.meta() + build.data_set(build.identity()) + value
    start = time.process_time()
    scanned = scan(data)
    assert time.process_time() - start < 0.5
    assert [v.path for v in scanned.bulk] == ["00189004"]
    assert len(to_json(scanned.dataset, scanned.bulk)) < 1000


def test_too_many_values_in_one_element_are_refused():
    value = build.explicit(0x00080008, "CS", b"\\" * 16384)
    with pytest.raises(BudgetExceeded, match=r"\(0008,0008\) has more than 16384 values"):
        scan(build.meta() + build.data_set(build.identity(), [(0x00080008, value)]))
    value = build.explicit(0x00080008, "CS", b"\\" * 16382)
    scan(build.meta() + build.data_set(build.identity(), [(0x00080008, value)]))


def test_a_header_larger_than_its_budget_is_refused():
    big = build.sequence(0x00480105, [build.explicit(0x00420011, "OB", bytes(60000))] * 20)
    with pytest.raises(BudgetExceeded, match="the header exceeds 1000000 bytes"):
        scan(
            build.meta() + build.data_set(build.identity()) + big, budget=ParseBudget(header_bytes=1_000_000)
        )


def test_private_values_that_look_like_items_cost_no_more_than_a_walk():
    value = build.item(b"") * 1_500_000
    for depth in range(3):
        value = build.item(build.implicit(0x00091001 + depth, "UN", value))
    data = build.meta(build.IMPLICIT) + build.data_set(build.identity(build.implicit))
    data = data.replace(b"\x20\x00\x0d\x00", build.implicit(0x00091001, "UN", value) + b"\x20\x00\x0d\x00")
    start = time.process_time()
    with contextlib.suppress(Part10Error):
        scan(data)
    assert time.process_time() - start < 5


def sparse(frames: int) -> bytes:
    """A TILED_SPARSE header: four items and eight elements a frame."""
    items = []
    for n in range(frames):
        position = b"".join(
            (
                build.explicit(0x0040072A, "DS", b"%010.4f" % n),
                build.explicit(0x0040073A, "DS", b"%010.4f" % n),
                build.explicit(0x0040074A, "DS", b"0 "),
                build.explicit(0x0048021E, "SL", struct.pack("<i", n)),
                build.explicit(0x0048021F, "SL", struct.pack("<i", n)),
            )
        )
        items.append(
            build.sequence(0x00209111, [build.explicit(0x00209157, "UL", struct.pack("<2I", n, n))])
            + build.sequence(0x0048021A, [position])
            + build.sequence(0x00480207, [build.explicit(0x00480106, "SH", b"1 ")])
        )
    return build.meta() + build.data_set(build.identity()) + build.sequence(0x52009230, items)


def test_twenty_thousand_sparse_frames_are_scanned_within_two_seconds():
    data = sparse(20_000)
    start = time.process_time()
    scanned = scan(data)
    assert time.process_time() - start < 2  # about 0.6 s on two slow cores
    start = time.process_time()
    to_json(scanned.dataset)
    content_digest(scanned.dataset, b"")
    assert time.process_time() - start < 3
    assert scanned.header.count(b"\xfe\xff\x00\xe0") == 80_000


def test_two_hundred_thousand_sparse_frames_are_within_the_budget():
    """Counted, not walked: 200,000 frames take several seconds."""
    frames, budget = 200_000, ParseBudget()
    small = ParseBudget(elements=13 * 100, items=4 * 100)
    scan(sparse(90), budget=small)
    assert 4 * frames < budget.items
    assert 14 * frames < budget.elements


def test_zeros_in_place_of_a_data_set_are_not_read_to_their_end() -> None:
    zeros = bytes(8 << 20)
    with pytest.raises(Malformed, match="do not belong into a data set"):
        normalise(zeros + b"\1", 0, len(zeros) + 1, implicit=False, budget=DEFAULT_BUDGET)
