# SPDX-License-Identifier: Apache-2.0
"""Deflated and big endian files, turned into Explicit VR Little Endian once.

What was received is kept beside as the original; nothing else in the project knows
these two transfer syntaxes.
"""

import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from archive.part10.budget import DEFAULT_BUDGET, ParseBudget
from archive.part10.errors import BudgetExceeded, Malformed, Part10Error, Truncated, UnknownTransferSyntax
from archive.part10.frame_table import Range
from archive.part10.meta import FileMeta, encode_meta, read_meta
from archive.part10.normal_form import (
    swap_bytes,
)
from archive.part10.source import PathOrFile, mapped
from archive.part10.stream import Part10Stream
from archive.part10.syntaxes import DEFLATED, EXPLICIT, EXPLICIT_BIG_ENDIAN
from archive.part10.vr import SWAP
from archive.part10.walker import normalise

_CHUNK = 1 << 18
_RATIO_FROM = 1 << 20


def reencode_to_explicit_le(
    path_or_file: PathOrFile, out_path: Path, budget: ParseBudget = DEFAULT_BUDGET
) -> None:
    """Write a deflated (PS3.5 A.5) or big endian (A.3) file to ``out_path``, which must
    not exist, in Explicit VR Little Endian. Not fsynced.

    Inflation stops at the budget's bytes and ratio (``BudgetExceeded``), in chunks, so
    memory stays small. On any error nothing is left at ``out_path``.
    """
    with mapped(path_or_file) as (source, _), open(out_path, "xb") as out:
        try:
            meta = read_meta(source)
            if meta.transfer_syntax_uid == DEFLATED:
                out.write(encode_meta(meta.sop_class_uid, meta.sop_instance_uid, EXPLICIT))
                for chunk in _inflate(source, meta.data_set_offset, budget):
                    out.write(chunk)
            elif meta.transfer_syntax_uid == EXPLICIT_BIG_ENDIAN:
                _swap(source, meta, out, budget)
            else:
                raise UnknownTransferSyntax("only deflated and big endian files are re-encoded")
        except (Part10Error, OSError):
            out_path.unlink()
            raise


def _inflate(source: bytes | mmap.mmap, start: int, budget: ParseBudget) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = 0
    position = start
    while not inflater.eof:
        data = inflater.unconsumed_tail
        if not data:
            data = source[position : position + _CHUNK]
            position += len(data)
            if not data:
                raise Truncated("the deflated data set ends early")
        try:
            chunk = inflater.decompress(data, _CHUNK)
        except zlib.error as problem:
            raise Malformed("the data set cannot be inflated") from problem
        inflated += len(chunk)
        if inflated > budget.inflated_bytes:
            raise BudgetExceeded(f"the data set inflates to more than {budget.inflated_bytes} bytes")
        consumed = position - start - len(inflater.unconsumed_tail)
        if inflated > _RATIO_FROM + consumed * budget.inflate_ratio:
            raise BudgetExceeded(f"the data set inflates to more than {budget.inflate_ratio} times its size")
        yield chunk


def _swap(source: bytes | mmap.mmap, meta: FileMeta, out: BinaryIO, budget: ParseBudget) -> None:
    """Header and bulk values, their numbers turned round on the way."""
    normal = normalise(
        source, meta.data_set_offset, len(source), implicit=False, budget=budget, big_endian=True
    )
    header = encode_meta(meta.sop_class_uid, meta.sop_instance_uid, EXPLICIT) + normal.data
    sizes = {value.offset: SWAP.get(value.vr.encode("ascii"), 1) for value in normal.bulk}
    for part in Part10Stream(header, EXPLICIT, None, normal.bulk).parts():
        if not isinstance(part, Range):
            out.write(part)
            continue
        size = sizes[part.offset]
        if part.length % size:
            raise Malformed(f"a value of {part.length} bytes does not hold whole numbers")
        for start in range(part.offset, part.offset + part.length, _CHUNK):
            chunk = source[start : min(start + _CHUNK, part.offset + part.length)]
            out.write(chunk if size == 1 else swap_bytes(chunk, size))
