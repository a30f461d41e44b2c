# SPDX-License-Identifier: Apache-2.0
"""From one form of a blob to its other one, within the index (docs/adr/0011).

All of this is called inside ``Index.write`` or ``Index.read``.
"""

from datetime import datetime

from archive.core import Core
from archive.indexing import condemn_if_free, execute, refer
from archive.journal import Move


def move_blob(core: Core, instance_id: int, move: Move, *, pack: bool, time: datetime) -> None:
    """Let an instance have a blob in its other form: recompressed if ``pack``, else as it
    came. Raises MissingBlob."""
    old, new = (move.blob, move.packed) if pack else (move.packed, move.blob)
    execute(
        core,
        "UPDATE instance_blob SET blob_id = ?, unpacked_digest = ?, unpacked_size_bytes = ? "
        "WHERE instance_id = ? AND position = ?",
        refer(core, new, "instance", instance_id, time),
        move.blob.digest if pack else None,
        move.blob.size_bytes if pack else None,
        instance_id,
        move.position,
    )
    left = execute(core, "SELECT id FROM blob WHERE digest = ?", old.digest).fetchone()
    kept = "SELECT 1 FROM instance_blob WHERE instance_id = ? AND blob_id = ?"
    if left is None or execute(core, kept, instance_id, left[0]).fetchone():
        return
    execute(
        core,
        "DELETE FROM blob_ref WHERE blob_id = ? AND owner_kind = 'instance' AND owner_id = ?",
        left[0],
        instance_id,
    )
    condemn_if_free(core, left[0], time)


def held(core: Core, instance_id: int) -> str:
    """Why an instance's bytes must stay as they came; "" if nothing says so."""
    row = execute(
        core,
        "SELECT s.held, o.held, p.glp FROM instance i JOIN series s ON s.id = i.series_id "
        "JOIN study ON study.id = i.study_id LEFT JOIN original o ON o.id = i.original_id "
        "LEFT JOIN protocol_study p ON p.id = study.protocol_study_id WHERE i.id = ?",
        instance_id,
    ).fetchone()
    if row is None:
        return ""
    if row[0] or row[1]:
        return "it is under a hold"
    return "it belongs to a GLP study" if row[2] else ""
