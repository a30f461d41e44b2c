# SPDX-License-Identifier: Apache-2.0
"""Requests to a child process and its replies, as bytes.

A child decodes bytes from outside and may be subverted by them: what it sends back is
a status and plain bytes, never anything that its parent would have to interpret.
A request is a JSON object and byte strings. All lengths are 32 bits, big-endian.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

HEAD = struct.Struct(">II")
REPLY = struct.Struct(">BI")

MAX_REPLY_BYTES = 1 << 30


class Status(IntEnum):
    """What a reply's payload is: the result, or the message of a refusal."""

    DONE = 0
    DAMAGED = 1
    UNSUPPORTED = 2
    TOO_LARGE = 3
    REFUSED = 4  # "name of a class of converters.errors", newline, message


def pack_request(order: Mapping[str, object], blobs: Sequence[bytes]) -> list[bytes]:
    """The request's bytes, in parts."""
    text = json.dumps({**order, "blobs": [len(blob) for blob in blobs]}).encode()
    return [HEAD.pack(len(text), sum(map(len, blobs))) + text, *blobs]


def read_request(read: Callable[[int], bytes]) -> tuple[dict[str, object], list[bytes]]:
    """A request from ``read(size)``, which gives exactly ``size`` bytes or raises
    ``EOFError``."""
    text_length, blob_length = HEAD.unpack(read(HEAD.size))
    order = json.loads(read(text_length))
    body = read(blob_length)
    blobs, at = [], 0
    for length in order.pop("blobs"):
        blobs.append(body[at : at + length])
        at += length
    return order, blobs


def pack_reply(status: Status, length: int) -> bytes:
    """What stands before a payload of ``length`` bytes."""
    return REPLY.pack(status, length)
