# SPDX-License-Identifier: Apache-2.0
"""Settings to working parts: the only place that names concrete classes.

Call after a fork, never before: database connections and locks must not be carried over.
"""

import atexit
import contextlib
import os
import pwd
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from archive.access import OpenPolicy, Policy, Principal, Scope
from archive.core import Limits
from archive.errors import BadQuery
from archive.index.database import Index
from archive.matching_keys import parse_keys
from archive.service import Archive
from archive.storage.base import Storage
from archive.storage.local import LocalStorage
from gateway import process
from gateway.settings import Settings, SettingsError, WatchSettings
from gateway.supervisor import UNHEALTHY_FILE
from gateway.versions import version_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from converters.writer.coding import CodingChoice
    from gateway.codec_pool import CodecPool
    from gateway.ingest.convert import Converter

SECRET_BYTES = 32


class Caller(TypedDict):
    """What every verb asks for; spread into the call."""

    principal: Principal
    scope: Scope


def storage(settings: Settings) -> Storage:
    for folder in (settings.data, settings.storage_path):  # patient data: nobody else's
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return LocalStorage(settings.storage_path)


def policy(settings: Settings) -> Policy:
    """Only ``auth.mode = "open"`` passes the start's checks in this release."""
    return OpenPolicy()


def index(settings: Settings) -> Index:
    return Index.open(settings.database, run_dir=settings.run_dir)


def extended_keys(settings: Settings) -> dict[str, str]:
    """``search.extended_keys``: VR by path. Raises SettingsError."""
    try:
        return parse_keys(settings.search.extended_keys)
    except BadQuery as error:
        raise SettingsError(f"search.extended_keys: {error}") from None


def codec_pool(settings: Settings) -> "CodecPool":
    from gateway.codec_pool import CodecPool

    codecs = settings.codecs
    return CodecPool(codecs.processes, codecs.memory_bytes, codecs.timeout_s, codecs.queue)


def holds_archive(settings: Settings) -> bool:
    """Whether the data folder was used as such before."""
    return (settings.sqlite_path or settings.storage_path).exists()


@contextlib.contextmanager
def archive(settings: Settings, *, codecs: bool = True, migrate: bool = False) -> Iterator[Archive]:
    """The archive, closed at the end. ``codecs``: with processes that decode pixels,
    started when first needed. ``migrate`` brings the database to this release's form
    first. Raises StoreTooNew, StorageFailed, SettingsError (nothing there yet)."""
    if not migrate and settings.sqlite_path is not None and not holds_archive(settings):
        raise SettingsError(
            f"{settings.data} holds no archive: run `coverslip migrate` or `serve`, or name it with --data"
        )
    process.open_many_files()  # before the archive looks how many it may keep open
    kept = storage(settings)
    opened = index(settings)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(opened.close)
        if migrate:
            opened.migrate()
        pool = cleanup.enter_context(codec_pool(settings)) if codecs else None
        made = Archive(
            kept,
            opened,
            policy=policy(settings),
            data_dir=settings.data,
            codec=pool,
            limits=Limits(
                free_bytes=settings.limits.free_bytes, commitment_s=settings.limits.commitment_days * 86_400
            ),
            extended_keys=extended_keys(settings),
        )
        cleanup.callback(made.close)
        yield made


def web_app(settings: Settings) -> "WSGIApplication":
    """The web application with an archive of its own, open for this process's life."""
    from dicomweb.app import WebSettings, create_app
    from gateway.settings_peers import configured_peers
    from gateway.web import metrics_dir

    http = settings.http
    web = WebSettings(
        public_url=http.public_url,
        auth_mode=settings.auth.mode,
        trusted_hosts=http.trusted_hosts,
        behind_proxy=http.trusted_proxies if http.behind_proxy else (),
        cors_origins=http.cors_origins,
        version=version_of("coverslip"),
        watch_folders=tuple(map(str, settings.watch_folders)),
        configured_peers=configured_peers(settings.dimse),
        metrics_dir=metrics_dir(settings),
        unhealthy_file=settings.run_dir / UNHEALTHY_FILE,
        results_default=settings.limits.find_results,
    )
    opened = contextlib.ExitStack()
    made = opened.enter_context(archive(settings))
    atexit.register(opened.close)
    return create_app(made, web)


@contextlib.contextmanager
def converter(settings: Settings) -> Iterator["Converter"]:
    """What turns scanners' files into instances; its processes start when first needed."""
    from converters.workshop import Limits, Workshop
    from gateway.ingest.convert import Converter

    convert = settings.convert
    limits = Limits(convert.processes, convert.memory_bytes, convert.timeout_s)
    with Workshop(limits) as workshop:
        yield Converter(workshop, coding(settings), convert.verify == "whole")


def coding(settings: Settings) -> "CodingChoice":
    """The form of frames that cannot be copied. Raises SettingsError."""
    from converters.writer.coding import CodingChoice

    try:
        return CodingChoice(settings.convert.lossless, settings.convert.lossy_quality or None)
    except ValueError as error:
        raise SettingsError(f"convert: {error}") from None


def operator(archive: Archive) -> Caller:
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
