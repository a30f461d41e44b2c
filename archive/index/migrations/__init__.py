# SPDX-License-Identifier: Apache-2.0
"""Schema versions in order: one function each, applied once, in its own transaction.

Expand first, contract one release later: the release before must still run on the
tables that this one leaves. A store of every release is kept in tests/corpus/stores.
"""

import time
from collections.abc import Callable
from typing import Any

from archive.errors import StoreTooNew
from archive.index.migrations import v1, v2, v3, v4, v5, v6

MIGRATIONS: tuple[Callable[[Any, str], None], ...] = (
    v1.apply, v2.apply, v3.apply, v4.apply, v5.apply, v6.apply,
)  # fmt: skip
LATEST = len(MIGRATIONS)


def current_version(database: Any) -> int:
    """The store's schema version; 0 for an empty database. Raises StoreTooNew."""
    if "schema_version" not in database.get_tables():
        return 0
    row = database.execute_sql("SELECT max(version) FROM schema_version").fetchone()
    version = int(row[0] or 0)
    if version > LATEST:
        raise StoreTooNew(f"the index has schema {version}, this release knows {LATEST}")
    return version


def apply_next(database: Any, dialect: str, version: int) -> None:
    """Bring a database from ``version`` to the next one; the caller holds a transaction."""
    if version == 0:
        database.execute_sql(
            "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied BIGINT NOT NULL)"
        )
    MIGRATIONS[version](database, dialect)
    database.execute_sql(
        f"INSERT INTO schema_version (version, applied) VALUES ({version + 1}, {time.time_ns() // 1000})"
    )
