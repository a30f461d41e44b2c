# SPDX-License-Identifier: Apache-2.0
"""Debian's Orthanc with its DICOMweb plugin, for those that measure against it.

Installed by ``apt install orthanc orthanc-dicomweb``; started here in a folder of its own,
on a free port of the loopback address, and never without a limit of memory.
"""

import contextlib
import json
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MEMORY_BYTES = 8 << 30


@dataclass(frozen=True)
class Orthanc:
    """A running one. ``version`` is its own and the plugin's."""

    url: str
    pid: int
    version: str
    dicom_port: int = 0

    def peak_mb(self) -> int:
        """Highest resident memory of its process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(row.split()[1]) >> 10 for row in status.splitlines() if row.startswith("VmHWM"))


def missing() -> str:
    """Why it cannot be started; "" if it can."""
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        return "Orthanc is not installed (apt install orthanc orthanc-dicomweb)"
    return ""


@contextlib.contextmanager
def running_orthanc(folder: Path, *, dicom: bool = False) -> Iterator[Orthanc]:
    """Orthanc with an empty store in ``folder``, until the block ends; with ``dicom`` it
    listens for associations too, as ORTHANC."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe, socket.socket() as second:
        probe.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        port, dicom_port = probe.getsockname()[1], second.getsockname()[1]
    settings = {
        "HttpPort": port, "HttpServerEnabled": True, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "DicomServerEnabled": dicom, "DicomPort": dicom_port,
        "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False, "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"), "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [shutil.which("Orthanc") or "Orthanc", str(folder / "orthanc.json")],
            stdout=log, stderr=log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"{url}/system", timeout=2) as answer:
                    version = json.load(answer)["Version"]
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Orthanc did not start: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.1)
        with urllib.request.urlopen(f"{url}/plugins/dicom-web", timeout=5) as answer:
            plugin = json.load(answer)["Version"]
        yield Orthanc(url, process.pid, f"{version}, DICOMweb {plugin}", dicom_port if dicom else 0)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    if reason := missing():
        print(reason)
        return 0
    import tempfile

    with tempfile.TemporaryDirectory() as name, running_orthanc(Path(name)) as orthanc:
        print(f"Orthanc {orthanc.version}, {orthanc.peak_mb()} MB at rest")
    return 0


if __name__ == "__main__":  # `make bench` runs every file here
    sys.exit(main())
