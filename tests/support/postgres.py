# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of the machine's own binaries, in a temporary folder.

PostgreSQL refuses to run as root: then it runs as the user ``postgres``, or else
``nobody``. It listens on a Unix socket only, in a folder of its own.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.support.require import absent

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # the tests ask for logic; the machine is not pulled from the wall
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


def binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``, newest version first; else skip."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True
    )
    if not versions:
        absent("PostgreSQL's server is not installed")
    return versions[0].parent


def _owner() -> pwd.struct_passwd | None:
    """Whom to run the server as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    owner = accounts.get("postgres") or accounts.get("nobody")
    if owner is None:
        absent("no unprivileged user for PostgreSQL")
    return owner


@contextmanager
def server() -> Iterator[str]:
    """A running server's URL, without a database name: ``url + "/name"`` is one.

    >>> with server() as url: ...
    """
    bin_dir = binaries()
    owner = _owner()
    # In memory where there is such a folder, and short: a socket's path has 107 bytes.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="pg-", dir=memory, ignore_cleanup_errors=True) as folder:
        if owner is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        data = f"{folder}/data"

        def run(*command: str) -> None:
            subprocess.run(
                command,
                check=True,
                stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                user=None if owner is None else owner.pw_uid,
                group=None if owner is None else owner.pw_gid,
                extra_groups=None if owner is None else [],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": folder},
            )

        run(f"{bin_dir}/initdb", "-D", data, "-U", "coverslip", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = " ".join(f"-c {name}={value or repr('')}" for name, value in _SETTINGS.items())
        control = [f"{bin_dir}/pg_ctl", "-D", data, "-w", "-l", f"{folder}/log"]
        run(*control, "-o", f"{options} -k {folder}", "start")
        try:
            yield f"postgresql://coverslip@{quote(folder, safe='')}"
        finally:
            run(*control, "-m", "immediate", "stop")


def new_database(url: str, name: str) -> str:
    """Make an empty database on a :func:`server`; return its URL."""
    import psycopg

    with psycopg.connect(url + "/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{url}/{name}"
