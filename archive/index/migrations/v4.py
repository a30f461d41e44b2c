# SPDX-License-Identifier: Apache-2.0
"""Schema 4: the outbox, and what receivers confirmed.

A duty with ``holds`` holds up those behind it in its lane (receiver and kind); one that is
only put off does not. ``again``: promised once more while it ran. ``delivered`` keeps the
latest header revision that a receiver took.
"""

from typing import Any

_TYPES = {
    "sqlite": {"id": "INTEGER PRIMARY KEY AUTOINCREMENT", "text": "TEXT", "big": "INTEGER", "int": "INTEGER"},
    "postgresql": {
        "id": "BIGSERIAL PRIMARY KEY", "text": 'TEXT COLLATE "C"', "big": "BIGINT", "int": "INTEGER",
    },
}  # fmt: skip

_STATEMENTS = [
    """CREATE TABLE duty (
        id {id},
        receiver {text} NOT NULL,
        kind {text} NOT NULL,
        key {text} NOT NULL DEFAULT '',
        payload {text} NOT NULL DEFAULT '{{}}',
        state {text} NOT NULL DEFAULT 'waiting'
            CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
        holds {int} NOT NULL DEFAULT 1,
        again {int} NOT NULL DEFAULT 0,
        lease_owner {text} NOT NULL DEFAULT '',
        lease_until {big} NOT NULL DEFAULT 0,
        attempts {int} NOT NULL DEFAULT 0,
        not_before {big} NOT NULL DEFAULT 0,
        progress {text} NOT NULL DEFAULT '{{}}',
        message {text} NOT NULL DEFAULT '',
        created {big} NOT NULL,
        updated {big} NOT NULL
    )""",
    "CREATE UNIQUE INDEX duty_key ON duty (receiver, kind, key) "
    "WHERE key <> '' AND state IN ('waiting', 'running')",
    "CREATE INDEX duty_open ON duty (receiver, kind, id) WHERE state IN ('waiting', 'running')",
    "CREATE INDEX duty_by_state ON duty (state, updated)",
    """CREATE TABLE delivered (
        receiver {text} NOT NULL,
        sop_instance_uid {text} NOT NULL,
        revision {int} NOT NULL,
        time {big} NOT NULL,
        PRIMARY KEY (receiver, sop_instance_uid)
    )""",
    "CREATE INDEX delivered_by_instance ON delivered (sop_instance_uid)",
]


def apply(database: Any, dialect: str) -> None:
    """Bring the tables of schema 3 to schema 4, within the caller's transaction."""
    for sql in _STATEMENTS:
        database.execute_sql(sql.format(**_TYPES[dialect]))
