# SPDX-License-Identifier: Apache-2.0
"""The body of a store request, part by part from the socket (PS3.18 10.5, RFC 2387)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from flask import request

from archive.errors import TooLarge
from dicomweb import media
from dicomweb.errors import UnsupportedMediaType
from dicomweb.multipart import (
    Event,
    MultipartError,
    MultipartReader,
    PartBegin,
    PartData,
    PartEnd,
    boundary_of,
)

CHUNK_BYTES = 1 << 18
HEAD_BYTES = 1 << 14
DICOM = "application/dicom"
_KINDS = (DICOM, media.JSON, media.XML)


@dataclass(frozen=True, slots=True)
class BodyType:
    """What the request's Content-Type says: the media type of its root part."""

    kind: str
    boundary: str


def body_type(content_type: str) -> BodyType:
    """Raises UnsupportedMediaType, MultipartError."""
    name, parameters = media.parse_parameters(content_type)
    kind = parameters.get("type", DICOM).partition(";")[0].strip().lower()
    if name != "multipart/related" or kind not in _KINDS:
        raise UnsupportedMediaType(f"the body must be multipart/related with one of {', '.join(_KINDS)}")
    return BodyType(kind, boundary_of(content_type))


class Body:
    """The parts of the request's body, one after the other; each must be used up before
    the next is asked for."""

    def __init__(self, boundary: str, limit: int) -> None:
        self._reader = MultipartReader(boundary)
        self._limit = limit

    def _events(self) -> Iterator[Event]:
        while chunk := self._read():
            yield from self._reader.feed(chunk)
        self._reader.close()

    @staticmethod
    def _read() -> bytes:
        try:
            return request.stream.read(CHUNK_BYTES)
        except Exception as error:  # each server has its own for a bad chunk or a client gone
            raise MultipartError(f"the body cannot be read: {type(error).__name__}") from error

    def parts(self) -> Iterator["BodyPart"]:
        """Raises TooLarge beyond the limit, MultipartError where the body breaks."""
        events = self._events()
        number = 0
        for event in events:
            if isinstance(event, PartBegin):
                number += 1
                if number > self._limit:
                    raise TooLarge(f"at most {self._limit} parts in one request")
                yield BodyPart(event.headers, events)


class BodyPart:
    """One part, streaming. ``head``: its first bytes, as far as they were read."""

    def __init__(self, headers: dict[str, str], events: Iterator[Event]) -> None:
        name, parameters = media.parse_parameters(headers.get("content-type", ""))
        self.media_type = media.ALIASES.get(name, name)
        self.transfer_syntax_uid = parameters.get("transfer-syntax", "")
        self.location = headers.get("content-location", "")
        length = headers.get("content-length", "")
        self.size_hint = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else 0
        self.head = b""
        self._events = events
        self._done = False

    def chunks(self) -> Iterator[bytes]:
        """The bytes that are left. Raises MultipartError where the body ends within."""
        while not self._done:
            event = next(self._events, None)
            if isinstance(event, PartEnd):
                self._done = True
            elif isinstance(event, PartData):
                if len(self.head) < HEAD_BYTES:
                    self.head += event.data[: HEAD_BYTES - len(self.head)]
                yield event.data
            else:
                raise MultipartError("the body ends within a part")

    def skip(self) -> None:
        """Read past the rest. Raises MultipartError."""
        for _ in self.chunks():
            pass
