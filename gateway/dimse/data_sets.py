# SPDX-License-Identifier: Apache-2.0
"""What of a Part 10 stream goes into a C-STORE: the data set without preamble and group 2
(PS3.7 9.3.1, PS3.10 7)."""

from collections.abc import Iterator

from archive.part10.errors import Truncated
from archive.part10.meta import read_meta
from archive.values import ByteStream

_PREAMBLE_BYTES = 132
_META_LIMIT = 1 << 16


def data_set_chunks(stream: ByteStream) -> Iterator[bytes | memoryview]:
    """The data set of a Part 10 stream, piece by piece: nothing but its head is gathered.

    Raises NotPart10, Truncated or Malformed before the first piece where the head is none.
    """
    head = bytearray()
    chunks = iter(stream.chunks)
    for chunk in chunks:
        head += chunk
        # All of group 2 and what follows it, so that its end is seen.
        if len(head) >= min(stream.length, _PREAMBLE_BYTES + _META_LIMIT):
            break
    meta = read_meta(bytes(head))
    if meta.data_set_offset >= stream.length:
        raise Truncated("a stream without a data set")
    with memoryview(head) as view:
        if meta.data_set_offset < len(view):
            yield bytes(view[meta.data_set_offset :])
    yield from chunks
