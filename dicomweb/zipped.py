# SPDX-License-Identifier: Apache-2.0
"""A study, series or instance as one ZIP file: an extension, for people with a browser.

Stored, not deflated, since slides do not shrink; ZIP64, since they are large. Written
while it is sent: memory is one chunk and a line for each instance.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence

from flask import Response

from archive.values import Instance
from dicomweb import media
from dicomweb.context import archive, caller
from dicomweb.responses import REVALIDATE, accept, accept_query, labelled

ZIP = "application/zip"
_TIME = (1980, 1, 1, 0, 0, 0)

Chunks = Callable[[Instance], Iterable[bytes]]


def is_asked() -> bool:
    """Whether the client names ``application/zip`` and likes nothing else better."""
    for text in (",".join(accept_query()), accept() or ""):
        named = [member for member in media.parse_accept(text) if member.q > 0]
        if any(member.media_type == ZIP for member in named):
            return max(named, key=lambda member: member.q).media_type == ZIP
    return False


def zip_response(found: Sequence[Instance], name: str) -> Response:
    """Every instance as ``study/series/instance.dcm``, in the stored transfer syntax."""
    store, who = archive(), caller()
    stream = zip_stream(found, lambda instance: store.open(instance, **who).chunks)
    response = Response(stream, content_type=ZIP)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.zip"'
    return labelled(response, "", REVALIDATE)


class _Sink:
    """What ``zipfile`` writes to: no place to go back to, so it does not try."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def zip_stream(found: Iterable[Instance], chunks: Chunks) -> Iterator[bytes]:
    """The bytes of the file, as they come."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as file:  # type: ignore[call-overload]
        for instance in found:
            name = (
                f"{instance.study_instance_uid}/{instance.series_instance_uid}/"
                f"{instance.sop_instance_uid}.dcm"
            )
            with file.open(zipfile.ZipInfo(name, _TIME), "w", force_zip64=True) as entry:
                for chunk in chunks(instance):
                    entry.write(chunk)
                    yield sink.take()
    yield sink.take()
