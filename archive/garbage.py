# SPDX-License-Identifier: Apache-2.0
"""Garbage collection: the only one that removes blobs (DESIGN 4, Deletion)."""

from collections.abc import Iterator
from functools import partial

from archive.access import Principal, Scope
from archive.audit import APPLICATION_ACTIVITY, AuditRecord
from archive.core import LEASE_S, Core
from archive.indexing import execute
from archive.record import blob_key


def collect_garbage(core: Core, *, principal: Principal, scope: Scope) -> int:
    """See ``Archive.collect_garbage``."""
    core.operate(principal, scope, "collect garbage")
    before = core.now_us() - LEASE_S * 1_000_000
    removed = 0
    while core.index.exclusively(partial(_remove_condemned, core, before)):
        removed += 1
    for key in list(orphan_blobs(core)):
        removed += core.index.exclusively(partial(_remove_orphan, core, key))
    if removed:
        record = AuditRecord(APPLICATION_ACTIVITY, "D", principal, 0, detail={"blobs_removed": removed})
        core.index.write(lambda: core.add_audit(record))
    return removed


def _remove_condemned(core: Core, before_us: int) -> int:
    """One blob; nobody can refer to it between the look and the removal, and others wait
    for one removal at most."""
    row = execute(
        core,
        "SELECT id, digest FROM blob WHERE state = 'condemned' AND condemned_at < ? ORDER BY id LIMIT 1",
        before_us,
    ).fetchone()
    if row is None:
        return 0
    execute(core, "UPDATE blob SET state = 'gone' WHERE id = ?", row[0])
    core.storage.delete(blob_key(bytes(row[1])))
    core.files.drop(blob_key(bytes(row[1])))
    return 1


def _remove_orphan(core: Core, key: str) -> int:
    digest = bytes.fromhex(key.rpartition("/")[2])
    if execute(core, "SELECT 1 FROM blob WHERE digest = ? AND state <> 'gone'", digest).fetchone():
        return 0
    core.storage.delete(key)
    return 1


def orphan_blobs(core: Core) -> Iterator[str]:
    """Blobs older than the lease that the index does not know."""
    model = core.index.models.Blob
    limit = core.clock().timestamp() - LEASE_S
    for key in core.storage.keys("blob/"):
        digest = bytes.fromhex(key.rpartition("/")[2])
        with core.index.read():
            known = model.select().where((model.digest == digest) & (model.state != "gone")).exists()
        if not known and core.storage.modified(key) < limit:
            yield key
