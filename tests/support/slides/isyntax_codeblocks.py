# SPDX-License-Identifier: Apache-2.0
"""Codeblocks of iSyntax: bit-planes of wavelet coefficients, runs of zero bytes counted,
the rest Huffman-coded; bits are filled in from the least significant one.

    version 1: length of the planes (u32), run symbol (u8), bits of a run's counter (u8),
               Huffman tree, message; planes of each band from the least significant bit,
               after the sign; masks of the planes that are there follow the planes
    version 2: masks (u16 each), run symbol, bits of a counter, offsets of the planes,
               Huffman tree, message; planes from the most significant bit, bands in turn

A block of 8 bytes or fewer is all zeros. Sources: B. Hulsken, "Fast Compression Method
for Medical Images on the Web", arXiv 2005.08713; the decoder of libisyntax.
"""

import heapq
import struct
from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

RUN_SYMBOL = 0  # so that a zero alone and a run of one are the same thing
COUNTER_BITS = 5
MAX_CODE_BITS = 16
BIT_DEPTH = 16

Tree = int | tuple["Tree", "Tree"]
Bits = NDArray[np.uint8]  # one bit each


def encode_codeblock(bands: Sequence[NDArray[np.int32]], version: int) -> bytes:
    """A codeblock of one (LL) or three bands, all (rows, columns), multiples of 4."""
    samples = [_in_areas(band) for band in bands]
    masks = [_mask(values, version) for values in samples]
    if not any(masks):
        return bytes(8)
    order = [(band, bit) for band in range(len(bands)) for bit in range(BIT_DEPTH)]
    if version == 2:
        order.sort(key=lambda place: (place[1], place[0]))
    planes = b"".join(
        np.packbits(samples[band] >> _shift(bit, version) & 1, bitorder="little").tobytes()
        for band, bit in order
        if masks[band] >> bit & 1
    )
    stored = struct.pack(f"<{len(masks)}H", *masks)
    if version == 1:
        if any(mask != 0xFFFF for mask in masks):
            planes += stored
        head = struct.pack("<IBB", len(planes), RUN_SYMBOL, COUNTER_BITS)
        offsets = 0
    else:
        head = stored + bytes((RUN_SYMBOL, COUNTER_BITS))
        in_any = np.bitwise_or.reduce(np.array(masks))
        # where planes start, for decoders that stop early: ours are read whole
        offsets = (int(in_any).bit_count() - 1) * (len(planes).bit_length() - 1 + 5)
    bits = np.concatenate((np.zeros(offsets, np.uint8), *_message(np.frombuffer(planes, np.uint8), version)))
    return head + np.packbits(bits, bitorder="little").tobytes()


def _in_areas(band: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Sign and magnitude, areas of 4 x 4 one after the other."""
    signed = (np.abs(band) | ((band < 0) << 15)).astype(np.uint16)
    rows, columns = band.shape
    return signed.reshape(rows // 4, 4, columns // 4, 4).transpose(0, 2, 1, 3).reshape(-1)


def _shift(bit: int, version: int) -> int:
    """Which bit of a sample plane number ``bit`` holds; plane 0 is the sign."""
    return 15 - bit if version == 2 else (15 if bit == 0 else bit - 1)


def _mask(values: NDArray[np.uint16], version: int) -> int:
    used = int(np.bitwise_or.reduce(values))
    return sum(1 << bit for bit in range(BIT_DEPTH) if used >> _shift(bit, version) & 1)


def _message(data: NDArray[np.uint8], version: int) -> tuple[Bits, Bits]:
    """The Huffman tree and the coded bytes."""
    zero = data == 0
    starts = zero & ~np.concatenate(([False], zero[:-1]))
    ends = zero & ~np.concatenate((zero[1:], [False]))
    runs = np.flatnonzero(ends) - np.flatnonzero(starts) + (2 - version)  # version 2 counts one less
    digits = np.maximum(1, -(-np.frompyfunc(int.bit_length, 1, 1)(runs.tolist()).astype(int) // COUNTER_BITS))

    tokens = (~zero).astype(np.int64)
    tokens[starts] = digits
    symbols = np.repeat(data, tokens)
    is_run = symbols == RUN_SYMBOL
    digit = np.arange(digits.sum()) - np.repeat(np.cumsum(digits) - digits, digits)
    place = np.repeat(digits, digits) - 1 - digit
    counters = np.zeros(len(symbols), np.int64)
    counters[is_run] = np.repeat(runs, digits) >> (COUNTER_BITS * place) & ((1 << COUNTER_BITS) - 1)

    tree = _tree(np.bincount(symbols, minlength=256))
    written: list[int] = []
    codes, sizes = np.zeros(256, np.int64), np.zeros(256, np.int64)
    _walk(tree, 0, 0, written, codes, sizes)
    values = codes[symbols] | counters << sizes[symbols]
    lengths = sizes[symbols] + np.where(is_run, COUNTER_BITS, 0)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    message = np.repeat(values, lengths) >> within & 1
    return np.array(written, np.uint8), message.astype(np.uint8)


def _tree(frequencies: NDArray[np.int64]) -> Tree:
    """A Huffman tree with codes of 1 to 16 bits; it always holds the run symbol, and one more."""
    weights = {symbol: int(n) for symbol, n in enumerate(frequencies) if n or symbol in (RUN_SYMBOL, 255)}
    while True:
        order = count()
        heap: list[tuple[int, int, int, Tree]] = [
            (n, next(order), 0, symbol) for symbol, n in weights.items()
        ]
        heapq.heapify(heap)
        while len(heap) > 1:
            one, other = heapq.heappop(heap), heapq.heappop(heap)
            depth = 1 + max(one[2], other[2])
            heapq.heappush(heap, (one[0] + other[0], next(order), depth, (one[3], other[3])))
        if heap[0][2] <= MAX_CODE_BITS:
            return heap[0][3]
        weights = {symbol: n // 2 + 1 for symbol, n in weights.items()}


def _walk(
    node: Tree, code: int, size: int, written: list[int], codes: NDArray[np.int64], sizes: NDArray[np.int64]
) -> None:
    """Write the tree (0: a fork, 1: a leaf and its symbol); a code's first bit is its lowest."""
    if isinstance(node, int):
        written += [1, *(node >> bit & 1 for bit in range(8))]
        codes[node], sizes[node] = code, size
        return
    written.append(0)
    _walk(node[0], code, size + 1, written, codes, sizes)
    _walk(node[1], code | 1 << size, size + 1, written, codes, sizes)
