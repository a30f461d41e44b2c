# SPDX-License-Identifier: Apache-2.0
"""Settings to working parts: the only place that names concrete classes.

Call after a fork, never before: database connections and locks must not be carried over.
"""

import contextlib
import os
import pwd
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from archive.access import OpenPolicy, Policy, Principal, Scope
from archive.index.database import Index
from archive.storage.base import Storage
from archive.storage.local import LocalStorage
from gateway.settings import Settings, WatchSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from archive.service import Archive

SECRET_BYTES = 32


class Caller(TypedDict):
    """What every verb asks for; spread into the call."""

    principal: Principal
    scope: Scope


def storage(settings: Settings) -> Storage:
    settings.storage_path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return LocalStorage(settings.storage_path)


def policy(settings: Settings) -> Policy:
    """Only ``auth.mode = "open"`` passes the start's checks in this release."""
    return OpenPolicy()


def index(settings: Settings) -> Index:
    return Index.open(settings.database, run_dir=settings.run_dir)


def operator(archive: "Archive") -> Caller:
    """The person at this machine's shell."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())  # a container's user may have no name
    principal = Principal(user, "cli")
    return Caller(principal=principal, scope=archive.policy.scope(principal))


def watch_settings(settings: Settings) -> WatchSettings:
    """With absolute folders."""
    return replace(settings.watch, folders=tuple(map(str, settings.watch_folders)))


def site_secret(settings: Settings) -> bytes:
    """The secret that this site's UIDs are derived from; made once, mode 0600.

    Several processes may ask at once: one file wins.
    """
    path = settings.data / "secret"
    if not path.exists():
        settings.data.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".secret-{os.getpid()}-{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(SECRET_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink()
        _sync_folder(settings.data)
    return bytes.fromhex(path.read_text(encoding="ascii"))


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
