# SPDX-License-Identifier: Apache-2.0
"""Backup and restore of a whole archive.

The order makes every row whole: database snapshot first, then storage, then the site's
secret. What a row of the snapshot names was stored before the row and is never changed,
so it is there when storage is copied. A backup is a folder:

    backup.json        version, time, kind of database, digests of database and secret
    database           SQLite file, or pg_dump's custom format
    objects            a line per stored object: SHA-256, size, key
    store/<key>        the objects
    secret             the site's UID secret, in plain (docs/adr/0008)
    access/<name>      lines of reads; the database knows how far it has folded each

Objects are written once, so a backup into the same folder copies only what is new; what it
has it knows by name and size, or, asked to verify, by its digest. While it runs,
``backup.json`` is absent: without it the folder is no backup.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from archive.errors import StorageFull
from archive.storage.base import Storage
from gateway.errors import BadBackup, MissingProgram, TargetNotEmpty
from gateway.settings import Settings, child_environment

FORMAT = 1
CHUNK = 4 << 20
CONTENT_ADDRESSED = ("blob", "record")  # their keys end in their SHA-256
UNFINISHED = ".restoring"

Progress = Callable[[str, int], None]  # (key, bytes) of each object that is done


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object as the backup holds it."""

    sha256: str
    size_bytes: int
    key: str

    def line(self) -> str:
        return f"{self.sha256} {self.size_bytes} {self.key}\n"


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, chunks: Iterator[bytes], *, mode: int = 0o600) -> str:
    """A durable file, there whole or not at all; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(path.name + ".part")
    digest = hashlib.sha256()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync(path.parent)
    return digest.hexdigest()


def _is_damaged(key: str, sha256: str) -> bool:
    return key.startswith(tuple(f"{top}/" for top in CONTENT_ADDRESSED)) and not key.endswith(sha256)


# -- database ------------------------------------------------------------------------


def _postgresql(program: str, url: str, *arguments: str) -> None:
    """Run a PostgreSQL client; the password goes by its environment, not its arguments."""
    if shutil.which(program) is None:
        raise MissingProgram(f"{program} is not installed: it comes with PostgreSQL's client package")
    parts = urlsplit(url)
    secret: dict[str, str] = {}
    location = parts.netloc
    if parts.password is not None:
        secret["PGPASSWORD"] = unquote(parts.password)
        location = f"{parts.username}@{parts.netloc.rpartition('@')[2]}"
    bare = urlunsplit(parts._replace(netloc=location))
    done = subprocess.run(
        [program, "--dbname", bare, *arguments], env=child_environment(secret), capture_output=True, text=True
    )
    if done.returncode:
        raise BadBackup(f"{program}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


def _snapshot_database(settings: Settings, target: Path) -> None:
    source = settings.sqlite_path
    if source is None:
        _postgresql("pg_dump", settings.database, "--format=custom", f"--file={target}")
        return
    if not source.exists():
        raise BadBackup("there is no database yet: nothing to back up")
    with contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live:
        with contextlib.closing(sqlite3.connect(target)) as copy:
            live.backup(copy, pages=1024, sleep=0.01)
            copy.execute("PRAGMA journal_mode=DELETE")


# -- backup --------------------------------------------------------------------------


def _entries(folder: Path) -> dict[str, Entry]:
    found = {}
    with (folder / "objects").open(encoding="utf-8") as lines:
        for line in lines:
            sha256, size, key = line.rstrip("\n").split(" ", 2)
            found[key] = Entry(sha256, int(size), key)
    return found


def _chunks(storage: Storage, key: str) -> Iterator[bytes]:
    with storage.open(key) as stored:
        for offset in range(0, stored.size, CHUNK):
            yield stored.pread(offset, min(CHUNK, stored.size - offset))


def backup(
    settings: Settings, storage: Storage, folder: Path, progress: Progress, *, verify: bool = False
) -> tuple[int, list[str]]:
    """Bring ``folder`` up to date; number of objects, and the keys of damaged ones.

    ``verify`` reads every copy of an earlier run again, and makes anew those that differ
    from their digest.

    Damaged objects are copied as they are and reported: better a damaged copy than none.
    Raises TargetNotEmpty (a folder that is no backup), BadBackup, MissingProgram, StorageFull.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    known: dict[str, Entry] = {}
    if (folder / "objects").exists():
        known = _entries(folder)
    elif any(path.name != "store" for path in folder.iterdir()):
        raise TargetNotEmpty(f"{folder} holds something that is no backup")
    manifest = folder / "backup.json"
    manifest.unlink(missing_ok=True)

    snapshot = folder / "database.part"
    snapshot.unlink(missing_ok=True)
    _snapshot_database(settings, snapshot)
    _sync(snapshot)
    os.replace(snapshot, folder / "database")

    damaged: list[str] = []
    entries: list[Entry] = []
    for key in storage.keys(""):
        size = storage.stat(key)
        if size is None:
            continue  # garbage collection took it meanwhile: no row of the snapshot needs it
        before = known.get(key)
        copy = folder / "store" / key
        if before is not None and before.size_bytes == size and _is_copied(copy, before, verify):
            entries.append(before)
            if _is_damaged(key, before.sha256):
                damaged.append(key)  # copied so earlier, and no better by now
            continue
        try:
            sha256 = _write(copy, _chunks(storage, key))
        except OSError as error:
            raise StorageFull(f"the backup cannot be written: {error.strerror}") from error
        entries.append(Entry(sha256, size, key))
        if _is_damaged(key, sha256):
            damaged.append(key)
        progress(key, size)
    _write(folder / "objects", (entry.line().encode() for entry in entries))
    names = ["database", "objects"]
    secret = settings.data / "secret"
    for source in (secret, *sorted((settings.data / "access").glob("*.jsonl"))):
        if source.exists():
            name = source.relative_to(settings.data).as_posix()
            _write(folder / name, _read(source))
            names.append(name)
    content = {
        "format": FORMAT,
        "time": datetime.now(UTC).isoformat(),
        "database": "sqlite" if settings.sqlite_path is not None else "postgresql",
        "objects": len(entries),
        "sha256": {name: _digest_of(folder / name) for name in names},
    }
    _write(manifest, iter([json.dumps(content, indent=1).encode()]))
    _forget(folder / "store", {entry.key for entry in entries})
    return len(entries), damaged


def _is_copied(copy: Path, before: Entry, verify: bool) -> bool:
    """Whether an earlier run's copy is there still, and whole if that is to be verified."""
    try:
        if copy.stat().st_size != before.size_bytes:
            return False
        return not verify or _digest_of(copy) == before.sha256
    except OSError:  # gone, or the medium cannot read it: it is copied again
        return False


def _forget(store: Path, kept: set[str]) -> None:
    """What the archive has erased must not live on in its backup."""
    for path in store.rglob("*"):
        if path.is_file() and path.relative_to(store).as_posix() not in kept:
            path.unlink()


# -- restore -------------------------------------------------------------------------


def _manifest(folder: Path) -> tuple[str, list[str]]:
    """The kind of database, and the files beside ``store/``, each found right. BadBackup."""
    try:
        content = json.loads((folder / "backup.json").read_bytes())
        version, database, digests = content["format"], str(content["database"]), dict(content["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadBackup(f"{folder} is no finished backup: backup.json is missing or damaged") from error
    if version != FORMAT:
        raise BadBackup(f"{folder} has backup format {version}, this release knows {FORMAT}")
    for name, sha256 in digests.items():
        path = folder / _inside(folder, name)
        if not path.is_file() or _digest_of(path) != sha256:
            raise BadBackup(f"{folder}: {name} is missing or differs from its digest")
    return database, list(digests)


def _inside(folder: Path, name: str) -> str:
    """``name`` if it is a plain relative path. BadBackup."""
    if name.startswith("/") or not set(name.split("/")).isdisjoint({"", ".", ".."}):
        raise BadBackup(f"{folder} names a path outside of itself")
    return name


def restore(settings: Settings, folder: Path, progress: Progress) -> int:
    """Put a backup into an empty data folder; number of objects.

    Every digest is checked on the way; nothing is in place before all are right.
    Raises BadBackup, TargetNotEmpty, MissingProgram, StorageFull.
    """
    kept, names = _manifest(folder)
    kind = "sqlite" if settings.sqlite_path is not None else "postgresql"
    if kept != kind:
        raise BadBackup(f"the backup's database is {kept}, database_url names {kind}")
    data, store, database = settings.data, settings.storage_path, settings.sqlite_path
    unfinished = data / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    for path in (data, store):
        if path.exists() and any(path.iterdir()):
            raise TargetNotEmpty(f"{path} is not empty: restore into a new folder")
    if database is not None and database.exists():
        raise TargetNotEmpty(f"{database} exists already: restore into a new folder")
    unfinished.mkdir(parents=True, mode=0o700)
    try:
        entries = _entries(folder)
        for entry in entries.values():
            _restore_object(folder, unfinished, entry)
            progress(entry.key, entry.size_bytes)
        for name in names:
            _write(unfinished / name, _read(folder / name))
        if database is None:
            _postgresql(
                "pg_restore",
                settings.database,
                "--exit-on-error",
                "--single-transaction",
                "--no-owner",
                str(unfinished / "database"),
            )
        store.parent.mkdir(parents=True, exist_ok=True)
        if store.exists():
            store.rmdir()
        shutil.move(unfinished / "store", store)
        for name in ("secret", "access"):
            if (unfinished / name).exists():
                os.replace(unfinished / name, data / name)
        if database is not None:  # last: with it the folder counts as an archive
            database.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(unfinished / "database", database)
        _sync(data)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(entries)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _restore_object(folder: Path, unfinished: Path, entry: Entry) -> None:
    source = folder / "store" / _inside(folder, entry.key)
    if not source.is_file():
        raise BadBackup(f"{folder}: object {entry.key} is missing")
    try:
        sha256 = _write(unfinished / "store" / entry.key, _read(source))
    except OSError as error:
        raise StorageFull(f"the data folder cannot be written: {error.strerror}") from error
    if sha256 != entry.sha256:
        raise BadBackup(f"{folder}: object {entry.key} differs from its digest")
