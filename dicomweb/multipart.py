# SPDX-License-Identifier: Apache-2.0
"""multipart/related (RFC 2046, RFC 2387) without I/O: bytes in, events out, and back.

The reader holds one chunk and a delimiter's length at a time, whatever the size of a
part, and looks at every byte once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from dicomweb.media import parse_parameters

HEADER_BYTES = 16_384
PREAMBLE_BYTES = 65_536
_PADDING_BYTES = 256


class MultipartError(ValueError):
    """The body is not what its Content-Type announced."""


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part's header fields, names in lower case; the last of a repeated one counts."""

    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    pass


Event = PartBegin | PartData | PartEnd


class _State(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()
    HEADERS = auto()
    BODY = auto()
    EPILOGUE = auto()


def boundary_of(content_type: str) -> str:
    """The boundary parameter; raises MultipartError if it is absent or not RFC 2046's."""
    _, parameters = parse_parameters(content_type)
    boundary = parameters.get("boundary", "")
    if not 0 < len(boundary) <= 70 or not boundary.isascii() or not boundary.isprintable():
        raise MultipartError("Content-Type has no valid boundary")
    if boundary.endswith(" "):
        raise MultipartError("the boundary ends with a blank")
    return boundary


class MultipartReader:
    """Cuts a body into parts, however the network split it.

    ``feed`` gives the events that the bytes completed; the bytes of a part arrive in
    any number of :class:`PartData`. After the last byte call :meth:`close`.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        # A line break before the first delimiter is optional: pretend there was one.
        self._buffer = bytearray(b"\r\n")
        self._state = _State.PREAMBLE
        self._resume = _State.PREAMBLE
        self._skipped = 0

    @property
    def finished(self) -> bool:
        """Whether the closing delimiter was seen."""
        return self._state is _State.EPILOGUE

    def feed(self, data: bytes) -> list[Event]:
        """Take received bytes; return the events they completed, in order.

        Raises MultipartError on headers that are too long or malformed.
        """
        events: list[Event] = []
        if self._state is _State.EPILOGUE:
            return events
        self._buffer += data
        while self._step(events):
            pass
        return events

    def close(self) -> None:
        """The body has ended. Raises MultipartError if its last delimiter is missing."""
        if not self.finished:
            raise MultipartError("the body ends before its closing boundary")

    def _step(self, events: list[Event]) -> bool:
        """Advance by one token; False when more bytes are needed."""
        if self._state in (_State.PREAMBLE, _State.BODY):
            return self._scan(events)
        if self._state is _State.DELIMITER:
            return self._after_delimiter(events)
        if self._state is _State.HEADERS:
            return self._read_headers(events)
        self._buffer.clear()
        return False

    def _emit(self, size: int, events: list[Event]) -> None:
        """Hand over the first ``size`` bytes of the buffer, or drop them from the preamble."""
        if self._state is _State.BODY:
            if size:
                events.append(PartData(bytes(memoryview(self._buffer)[:size])))
        else:
            self._skipped += size
            if self._skipped > PREAMBLE_BYTES:
                raise MultipartError("no boundary found")
        del self._buffer[:size]

    def _scan(self, events: list[Event]) -> bool:
        position = self._buffer.find(self._delimiter)
        if position < 0:
            keep = len(self._delimiter) - 1
            if len(self._buffer) > keep:
                self._emit(len(self._buffer) - keep, events)
            return False
        self._emit(position, events)
        self._resume, self._state = self._state, _State.DELIMITER
        return True

    def _after_delimiter(self, events: list[Event]) -> bool:
        """The buffer starts with the delimiter: is it one, and which?

        A longer line that only begins with the delimiter belongs to the data.
        """
        start = len(self._delimiter)
        rest = bytes(self._buffer[start : start + _PADDING_BYTES + 2])
        if rest[:2] == b"--":
            self._end_part(events)
            self._state = _State.EPILOGUE
            self._buffer.clear()
            return False
        padding = len(rest) - len(rest.lstrip(b" \t"))
        line_end = rest[padding : padding + 2]
        if line_end == b"\r\n":
            del self._buffer[: start + padding + 2]
            self._end_part(events)
            self._state = _State.HEADERS
            return True
        if padding <= _PADDING_BYTES and (line_end in (b"", b"\r") or rest == b"-"):
            return False
        self._state = self._resume
        self._emit(1, events)  # its line break cannot start another delimiter
        return True

    def _end_part(self, events: list[Event]) -> None:
        if self._resume is _State.BODY:
            events.append(PartEnd())

    def _read_headers(self, events: list[Event]) -> bool:
        if self._buffer[:2] == b"\r\n":
            size, block = 2, b""
        else:
            end = self._buffer.find(b"\r\n\r\n", 0, HEADER_BYTES + 4)
            if end < 0:
                if len(self._buffer) >= HEADER_BYTES + 4:
                    raise MultipartError("the header of a part is too long")
                return False
            size, block = end + 4, bytes(self._buffer[:end])
        headers = _parse_headers(block)
        del self._buffer[:size]
        events.append(PartBegin(headers))
        self._state = _State.BODY
        return True


def _parse_headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    # RFC 5322 folding: a line that starts with a blank continues the one before.
    for line in block.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon or not name.strip():
            raise MultipartError("the header of a part is malformed")
        headers[name.strip().decode("latin-1").lower()] = value.strip().decode("latin-1")
    return headers


# ---- writing --------------------------------------------------------------------


def part_head(boundary: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """What precedes the bytes of a part; each part is followed by :data:`PART_TAIL`."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"--{boundary}\r\n{lines}\r\n".encode("latin-1")


PART_TAIL = b"\r\n"


def closing(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode("ascii")


def content_length(heads: Sequence[bytes], lengths: Sequence[int], boundary: str) -> int:
    """Exact size of a body of parts with these heads and lengths of content."""
    framing = sum(map(len, heads)) + len(PART_TAIL) * len(heads)
    return framing + sum(lengths) + len(closing(boundary))
