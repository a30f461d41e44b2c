# SPDX-License-Identifier: Apache-2.0
"""A restart interval of one colour, in a JPEG's own tables: what fills tiles that reach
beyond the image. (ITU-T T.81 F.1.2, Annex C.)"""

from collections.abc import Mapping

from converters.readers.restart_intervals import SOS, JpegHead

DQT, DHT = 0xDB, 0xC4
END_OF_BLOCK = 0
Code = tuple[int, int]
"""A Huffman code as (bits, length)."""


def blank_interval(head: JpegHead, mcus: int, *, white: bool, is_ycbcr: bool) -> bytes:
    """The entropy-coded bytes of ``mcus`` units of white or black; empty where the tables
    have no code for it (tables made for one image need not)."""
    stream = head.stream
    tables, steps = _huffman_codes(head), _dc_steps(head)
    frame = next(body for marker, body in head.segments if marker == stream.sof)
    scan = next(body for marker, body in head.segments if marker == SOS)
    first, rest = "", ""
    try:
        for number, (across, down) in enumerate(stream.sampling):
            step = steps[frame[8 + 3 * number]]
            selector = scan[2 + 2 * number]
            dc, ac = tables[0, selector >> 4], tables[1, selector & 15]
            is_chroma = number > 0 and is_ycbcr
            level = 0 if is_chroma else (-(-1016 // step) if white else -1024 // step)
            blocks = 1 if stream.components == 1 else across * down
            plain = _word(dc[0]) + _word(ac[END_OF_BLOCK])
            first += _word(dc[abs(level).bit_length()]) + _amplitude(level) + _word(ac[END_OF_BLOCK])
            first += plain * (blocks - 1)
            rest += plain * blocks
    except (KeyError, IndexError, ZeroDivisionError):
        return b""
    bits = first + rest * (mcus - 1)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\x00")


def _word(code: Code) -> str:
    bits, length = code
    return format(bits, f"0{length}b")


def _amplitude(value: int) -> str:
    """Additional bits of a DC difference (T.81 F.1.2.1)."""
    size = abs(value).bit_length()
    if not size:
        return ""
    return format(value if value > 0 else value + (1 << size) - 1, f"0{size}b")


def _dc_steps(head: JpegHead) -> Mapping[int, int]:
    """Quantisation step of the first coefficient, by table number."""
    steps: dict[int, int] = {}
    for body in (body for marker, body in head.segments if marker == DQT):
        at = 0
        while at < len(body):
            wide = body[at] >> 4 != 0
            steps[body[at] & 15] = int.from_bytes(body[at + 1 : at + (3 if wide else 2)])
            at += 129 if wide else 65
    return steps


def _huffman_codes(head: JpegHead) -> Mapping[tuple[int, int], Mapping[int, Code]]:
    """Code of each symbol, by (0 DC or 1 AC, table number)."""
    tables: dict[tuple[int, int], Mapping[int, Code]] = {}
    for body in (body for marker, body in head.segments if marker == DHT):
        at = 0
        while at + 17 <= len(body):
            kind, lengths = body[at], body[at + 1 : at + 17]
            symbols = body[at + 17 : at + 17 + sum(lengths)]
            at += 17 + sum(lengths)
            codes: dict[int, Code] = {}
            bits, used = 0, 0
            for length, count in enumerate(lengths, start=1):
                for symbol in symbols[used : used + count]:
                    codes[symbol] = (bits, length)
                    bits += 1
                used += count
                bits <<= 1
            tables[kind >> 4, kind & 15] = codes
    return tables
