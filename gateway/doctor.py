# SPDX-License-Identifier: Apache-2.0
"""What ``coverslip doctor`` looks at: is this machine fit to run these settings?"""

import ctypes
import os
import platform
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from gateway.settings import Settings
from gateway.settings_check import host_port, is_loopback, refusals
from gateway.supervisor import PORTS_FILE, CannotListen, listen
from gateway.versions import versions

OLDEST_CLOCK = 1_735_689_600  # 2025-01-01: before this release was written
CLOCK_DRIFT_S = 5.0
ADJTIMEX_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
CODECS = ("JPEG8", "JPEG2K", "JPEGLS", "JPEGXL")


class State(StrEnum):
    GOOD = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    state: State
    detail: str


def _settings(settings: Settings) -> Iterator[Check]:
    reasons = refusals(settings)
    for reason in reasons:
        yield Check("settings", State.BAD, reason)
    if not reasons:
        yield Check("settings", State.GOOD, "a server may start with them")


def _libraries(settings: Settings) -> Iterator[Check]:
    found = versions()
    good = sys.version_info >= (3, 11) and platform.system() == "Linux"
    detail = ", ".join(f"{name} {version}" for name, version in found.items())
    yield Check("versions", State.GOOD if good else State.BAD, f"{platform.system()}, {detail}")
    if settings.sqlite_path is None and "psycopg" not in found:
        yield Check("psycopg", State.BAD, "PostgreSQL needs it: pip install coverslip[postgresql]")
    for program in ("pg_dump", "pg_restore") if settings.sqlite_path is None else ():
        where = shutil.which(program)
        yield Check(
            program,
            State.GOOD if where else State.NOTE,
            where or "absent: backup and restore of PostgreSQL need it",
        )


def _codecs(settings: Settings) -> Iterator[Check]:
    import imagecodecs

    for name in CODECS:
        codec = getattr(imagecodecs, name, None)
        there = codec is not None and bool(codec.available)
        yield Check(f"codec {name}", State.GOOD if there else State.BAD, "there" if there else "absent")
    yield _decoding(settings)


def _decoding(settings: Settings) -> Check:
    """One picture through the pool, as a request would."""
    from archive.errors import ArchiveError
    from archive.values import PixelDescription, Rendering
    from gateway.codec_pool import CodecPool

    explicit_le = "1.2.840.10008.1.2.1"
    source = PixelDescription(explicit_le, 8, 8, 3, 8, 8, 0, "RGB")
    started = time.monotonic()
    try:
        with CodecPool(1, settings.codecs.memory_bytes, settings.codecs.timeout_s, 1) as pool:
            picture = pool.render([(0, 0, bytes(8 * 8 * 3))], source, Rendering(), (8, 8))
    except (ArchiveError, OSError) as error:
        return Check("decoding", State.BAD, f"the decoding process failed: {error}")
    good = picture.startswith(b"\xff\xd8")
    return Check(
        "decoding",
        State.GOOD if good else State.BAD,
        f"a picture through a decoding process in {time.monotonic() - started:.1f} s",
    )


def _data_folder(settings: Settings) -> Iterator[Check]:
    data = settings.data
    place = data
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        yield Check("data folder", State.BAD, f"{place} cannot be written")
        return
    state = "is there" if data.exists() else "will be made"
    yield Check("data folder", State.GOOD, f"{data} {state}")
    free = shutil.disk_usage(place).free
    enough = free > settings.limits.free_bytes
    yield Check(
        "disk space",
        State.GOOD if enough else State.BAD,
        f"{free / 2**30:.1f} GiB free, {settings.limits.free_bytes / 2**30:.1f} GiB are kept free",
    )
    with tempfile.NamedTemporaryFile(dir=place) as probe:
        drift_s = os.stat(probe.name).st_mtime - time.time()
    if abs(drift_s) > CLOCK_DRIFT_S:
        yield Check("clock", State.NOTE, f"the data folder's clock differs by {drift_s:.0f} s")


def _clock(settings: Settings) -> Iterator[Check]:
    if time.time() < OLDEST_CLOCK:
        yield Check("clock", State.BAD, f"it says {time.strftime('%Y-%m-%d')}")
        return
    yield Check(
        "clock",
        State.NOTE if _is_unsynchronised() else State.GOOD,
        time.strftime("%Y-%m-%d %H:%M:%S %Z")
        + (", not synchronised as far as the kernel knows" if _is_unsynchronised() else ""),
    )


def _is_unsynchronised() -> bool:
    buffer = ctypes.create_string_buffer(512)  # struct timex, all zero: only asks
    call = getattr(ctypes.CDLL(None), "adjtimex", None)
    return call is not None and call(buffer) == ADJTIMEX_UNSYNCHRONISED


def _ports(settings: Settings) -> Iterator[Check]:
    served = (settings.run_dir / PORTS_FILE).exists()
    binds = {"http": settings.http.bind, "dimse": settings.dimse.bind, "dimse.tls": settings.dimse.tls_bind}
    for name, bind in binds.items():
        if not bind:
            continue
        try:
            listen(bind, f"{name}.bind").close()
        except CannotListen as error:
            if served:
                yield Check(f"{name} port", State.GOOD, f"{bind}: this data folder's server has it")
            else:
                yield Check(f"{name} port", State.BAD, str(error))
        else:
            yield Check(f"{name} port", State.GOOD, f"{bind} is free")


def _network(settings: Settings) -> Iterator[Check]:
    host, _ = host_port(settings.http.bind, "http.bind")
    where = "loopback only" if is_loopback(host) else "behind a proxy, which ends TLS"
    yield Check("TLS", State.GOOD, f"{ssl.OPENSSL_VERSION}; HTTP without TLS, {where}")
    yield Check("host name", State.GOOD, socket.gethostname())


def _dicom(settings: Settings) -> Iterator[Check]:
    from gateway.doctor_dicom import examine_dicom

    for name, state, detail in examine_dicom(settings.dimse):
        yield Check(name, State(state), detail)


def _database(settings: Settings) -> Iterator[Check]:
    from archive.errors import ArchiveError
    from gateway import compose

    path = settings.sqlite_path
    if path is not None and not path.exists():
        yield Check("database", State.GOOD, f"{path} will be made")
        return
    try:
        index = compose.index(settings)
        try:
            version = index.data_version()
        finally:
            index.close()
    except (ArchiveError, OSError) as error:
        yield Check("database", State.BAD, str(error))
    else:
        yield Check("database", State.GOOD, f"{index.dialect} answers (data version {version})")


PARTS: tuple[Callable[[Settings], Iterator[Check]], ...] = (
    _settings,
    _libraries,
    _codecs,
    _data_folder,
    _clock,
    _ports,
    _network,
    _dicom,
    _database,
)


def examine(settings: Settings) -> Iterator[Check]:
    """Every check in turn; a part that cannot be looked at is bad, and the others go on."""
    from gateway.settings import SettingsError

    for part in PARTS:
        try:
            yield from part(settings)
        except (OSError, ImportError, SettingsError) as error:
            yield Check(part.__name__.strip("_"), State.BAD, str(error))
