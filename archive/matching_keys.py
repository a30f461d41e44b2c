# SPDX-License-Identifier: Apache-2.0
"""Which attributes can be searched: those of the release, and those of the site.

A key without a column has a row in ``attribute`` for each value. What is stored gets the
rows of all keys at once; what was stored before a key was wanted gets them by a job. A
key is matched on once every instance has its rows: the setting ``matching_keys`` says of
which keys that is true.
"""

import time as clock
from collections.abc import Callable, Iterable, Mapping

from archive import work
from archive.access import Principal, Scope
from archive.core import Core
from archive.errors import ArchiveError, BadQuery
from archive.index.attributes import EXTRACTED, MATCHED_VRS, AttributeRow, extract, tag_path, vr_of
from archive.index.columns import COLUMNS
from archive.indexing import execute
from archive.part10.dataset import read_header
from archive.part10.errors import Part10Error
from archive.rows import Row, rows_after

MATCHING_KEYS = "matching_keys"
"""The kind of the job, and the setting."""

_POSITION = "matching_keys_at"
MOST_KEYS = 200
SLICE_S = 20.0


def parse_keys(names: Iterable[str]) -> dict[str, str]:
    """VR by dotted tag path of ``Keyword``, ``Keyword.Keyword``, ``00400560.00400551`` or,
    for private ones, ``00091001:LO``. Raises BadQuery: what is no attribute, has no VR
    that can be matched, or are more than 200."""
    found = {}
    for name in names:
        text, _, vr = name.partition(":")
        try:
            path = tag_path(text.strip())
        except BadQuery:
            raise BadQuery(f"{name!r} is neither a keyword nor a tag") from None
        vr = vr.strip().upper() or vr_of(path)
        if vr not in MATCHED_VRS:
            raise BadQuery(f"{name!r} has the VR {vr}, which cannot be matched")
        if path not in COLUMNS and path not in EXTRACTED:
            found[path] = vr
    if len(found) > MOST_KEYS:
        raise BadQuery(f"more than {MOST_KEYS} keys")
    return found


def want(core: Core, extended: Mapping[str, str]) -> None:
    """Extract these keys too from now on; call before anything is stored or found."""
    core.index.want_keys({**EXTRACTED, **extended})


def incomplete(core: Core) -> bool:
    """Whether instances lack rows of a key that is wanted, or have some of one that is not."""
    return core.index.complete_keys() != core.index.wanted_keys


def enqueue(core: Core, *, principal: Principal, scope: Scope) -> int:
    """See ``Archive.want_keys``."""
    core.operate(principal, scope, MATCHING_KEYS)
    if core.setting(MATCHING_KEYS) is None:  # a new store: the next release must know
        complete = dict(core.index.complete_keys())
        core.index.write(lambda: core.put_setting(MATCHING_KEYS, complete))
    if not incomplete(core):
        return 0
    return work.enqueue(core, MATCHING_KEYS, {}, principal=principal, scope=scope, key=MATCHING_KEYS)


def index_keys(core: Core, progress: Callable[[float], None], *, principal: Principal, scope: Scope) -> int:
    """Rows of new keys for what is stored already, none of old ones. Stops after
    ``SLICE_S``, so that other jobs have their turn; the next goes on where it was."""
    core.operate(principal, scope, MATCHING_KEYS)
    wanted, complete = core.index.wanted_keys, core.index.complete_keys()
    new = {path: vr for path, vr in wanted.items() if complete.get(path) != vr}
    gone = [path for path in complete if path not in wanted]
    with core.index.read():
        last = int(execute(core, "SELECT coalesce(max(id), 0) FROM instance").fetchone()[0])
    at, done, until = 0, 0, clock.monotonic() + SLICE_S
    match core.setting(_POSITION):
        case [dict(keys), int(position)] if keys == new:
            at = position
    while new and at < last and (page := rows_after(core, at)):
        found = [(row, _extracted(core, row, new)) for row in page]
        at = page[-1].id

        def commit(found: list[tuple[Row, list[AttributeRow]]] = found, at: int = at) -> None:
            for row, rows in found:
                header = execute(core, "SELECT revision FROM instance WHERE id = ?", row.id).fetchone()
                if header is None or header[0] != row.revision:
                    continue  # deleted or corrected meanwhile, with all keys
                _forget(core, new, row.id)
                core.index.insert_attributes(row.id, rows)
            core.put_setting(_POSITION, [new, at])

        core.index.write(commit)
        done += len(page)
        progress(min(1.0, at / max(last, 1)))
        if clock.monotonic() > until and at < last:
            return done

    def end() -> None:
        if gone:
            _forget(core, gone)
        core.put_setting(MATCHING_KEYS, dict(wanted))
        core.put_setting(_POSITION, None)

    core.index.write(end)
    return done


def _extracted(core: Core, row: Row, keys: Mapping[str, str]) -> list[AttributeRow]:
    key, offset, length = row.header
    try:
        with core.storage.open(key) as file:
            return list(extract(read_header(file.pread(offset, length)), keys))
    except (ArchiveError, Part10Error):
        return []  # verify tells it


def _forget(core: Core, paths: Iterable[str], instance: int = 0) -> None:
    """Remove the rows of paths, of one instance or of all."""
    for path in paths:
        if instance:
            execute(core, "DELETE FROM attribute WHERE instance_id = ? AND path = ?", instance, path)
        else:
            execute(core, "DELETE FROM attribute WHERE path = ?", path)
