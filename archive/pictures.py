# SPDX-License-Identifier: Apache-2.0
"""Thumbnails, which never show a label, and the scanner's own file."""

import hashlib
import json

from archive.access import Action, Principal, Scope
from archive.audit import EXPORT, AuditRecord
from archive.core import Core
from archive.drawing import Drawing
from archive.errors import CannotDecode, CannotTranscode, Gone, NoSuchInstance, NotFound, TooLarge
from archive.indexing import execute, refer
from archive.ingest import put_blob
from archive.record import BlobRef, blob_key
from archive.retrieve import Retriever
from archive.rows import Row, is_tombstoned, rows_below, visible
from archive.values import ByteStream, Rendering

THUMBNAIL = Rendering(rows=256, columns=256, quality=80)
_HIDDEN = {"LABEL", "OVERVIEW"}


def thumbnail(
    core: Core,
    retriever: Retriever,
    drawing: Drawing,
    study: str,
    series: str,
    sop: str,
    rendering: Rendering | None,
    *,
    principal: Principal,
    scope: Scope,
) -> bytes:
    """See ``Archive.thumbnail``."""
    core.check(principal, Action.READ)
    kept = rendering is None and not sop
    if kept and series and (data := _kept(core, study, series, scope)) is not None:
        core.access.note("rendered", principal, study, "", 1, "thumbnail")
        return data
    rows = [
        row
        for page in rows_below(core, study, series, scope)
        for row in page
        if row.has_pixel_data and (not sop or row.sop_instance_uid == sop)
    ]
    shown = [row for row in rows if _kind(row) not in _HIDDEN]
    if not shown:
        if is_tombstoned(core, study, series, sop, scope):
            raise Gone(sop or series or study)
        raise NoSuchInstance(sop or series or study)
    series_id = shown[0].series_id
    failure: Exception | None = None
    for row in sorted((r for r in shown if r.series_id == series_id), key=_preference):
        handle = retriever.handles.get(row.sop_instance_uid)
        if handle is None:
            continue
        try:
            data = drawing.draw(handle, rendering or THUMBNAIL)
        except (CannotDecode, CannotTranscode, TooLarge) as error:
            failure = error
            continue
        if kept:
            _keep(core, series_id, data)
        core.access.note("rendered", principal, study, row.sop_instance_uid, 1, "thumbnail")
        return data
    raise failure or NoSuchInstance(sop or series or study)


def _kind(row: Row) -> str:
    return row.image_type[2] if len(row.image_type) > 2 else ""


def _preference(row: Row) -> tuple[bool, int, int]:
    """THUMBNAIL first, then the smallest image that is large enough to look at."""
    size = max(row.total_pixel_matrix_columns or row.columns, row.total_pixel_matrix_rows or row.rows)
    small = size < max(THUMBNAIL.columns, THUMBNAIL.rows)
    return (_kind(row) != "THUMBNAIL", small, -size if small else size)


def _kept(core: Core, study: str, series: str, scope: Scope) -> bytes | None:
    """The picture that was made of a series earlier, if the scope sees it."""
    sql = (
        "SELECT d.digest FROM derivative d JOIN series s ON s.id = d.series_id "
        "JOIN study ON study.id = s.study_id WHERE d.kind = 'thumbnail' AND s.series_instance_uid = ? "
        f"AND study.study_instance_uid = ? AND ({scope.sql})"
    )
    with core.index.read():
        row = execute(core, sql, series, study, *scope.parameters).fetchone()
    if row is None:
        return None
    key = blob_key(bytes(row[0]))
    if core.storage.stat(key) is None:
        return None
    file = core.files.get(key)
    return file.pread(0, file.size)


def _keep(core: Core, series_id: int, data: bytes) -> None:
    models = core.index.models
    ref = BlobRef(hashlib.sha256(data).digest(), len(data))
    put_blob(core, ref, data)

    def commit() -> None:
        derived = models.Derivative
        if not models.Series.select().where(models.Series.id == series_id).exists():
            return  # deleted meanwhile
        if derived.select().where((derived.series == series_id) & (derived.kind == "thumbnail")).exists():
            return
        row = derived.create(
            series=series_id,
            kind="thumbnail",
            digest=ref.digest,
            media_type="image/jpeg",
            created=core.now_us(),
        )
        refer(core, ref, "derivative", row.id, core.clock())

    core.index.write(commit)


def original(core: Core, series: str, *, principal: Principal, scope: Scope) -> list[tuple[str, ByteStream]]:
    """See ``Archive.original``."""
    core.check(principal, Action.READ_ORIGINAL)
    models = core.index.models
    with core.index.read():
        row = models.Series.get_or_none(models.Series.series_instance_uid == series)
        kept = None if row is None or row.original is None else models.Original.get_by_id(row.original)
    if row is None or kept is None or not _sees(core, row.study, scope):
        raise NotFound(f"no original of series {series}")
    detail: dict[str, object] = {"original": bytes(kept.digest).hex(), "series": series}
    record = AuditRecord(EXPORT, "R", principal, 0, detail=detail)
    core.index.write(lambda: core.add_audit(record))
    found = []
    for one in json.loads(kept.files):
        file = core.files.get(blob_key(bytes.fromhex(one["digest"])))
        found.append((one["name"], ByteStream(file.size, file.chunks(0, file.size))))
    return found


def _sees(core: Core, study_id: int, scope: Scope) -> bool:
    return scope.is_everything or visible(core, study_id, scope)
