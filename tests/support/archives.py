# SPDX-License-Identifier: Apache-2.0
"""Real archives for tests: local storage and SQLite in a temporary folder."""

from pathlib import Path

from archive.access import EVERYTHING, OpenPolicy, Policy, Principal
from archive.index.database import Index
from archive.service import Archive
from archive.storage.base import Storage
from archive.storage.local import LocalStorage
from archive.values import FrameCodec, Sender, Stored

TESTER = Principal("tester", "cli")
SENDER = Sender("cli", "tester")
ASK = {"principal": TESTER, "scope": EVERYTHING}


def open_archive(
    folder: Path,
    *,
    codec: FrameCodec | None = None,
    policy: Policy | None = None,
    storage: Storage | None = None,
    url: str = "",
) -> Archive:
    """An archive in ``folder``; call again to open what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    index = Index.open(url or f"sqlite:///{folder / 'coverslip.db'}", run_dir=folder / "run")
    index.migrate()
    return Archive(
        storage or LocalStorage(folder / "store"),
        index,
        policy=policy or OpenPolicy(),
        data_dir=folder,
        codec=codec,
    )


def store_bytes(archive: Archive, data: bytes, **options: object) -> Stored:
    """Stage and store a Part 10 byte string."""
    with archive.stage(len(data)) as staging:
        staging.write(data)
        staged = staging.finish()
    return archive.store_file(staged, **{"sender": SENDER, **ASK, **options})  # type: ignore[arg-type]
