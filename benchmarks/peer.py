# SPDX-License-Identifier: Apache-2.0
"""wsidicomizer 0.26.1 in a virtual environment of its own, for those that measure against it.

It cannot be installed beside what Coverslip needs. The environment is made in the temporary
folder and kept there for the next benchmark; it needs the package index, and the system's
libturbojpeg (Debian: libturbojpeg0).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERSION = "0.26.1"


def wsidicomizer() -> Path | str:
    """Its program, or why there is none: one line."""
    folder = Path(tempfile.gettempdir()) / f"coverslip-wsidicomizer-{VERSION}-{os.getuid()}"
    program = folder / "bin" / "wsidicomizer"
    if not program.exists():
        made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True)
        if made.returncode:
            return "a virtual environment cannot be made"
        command = [folder / "bin" / "pip", "install", "-q", f"wsidicomizer=={VERSION}"]
        installed = subprocess.run(command, capture_output=True, text=True)
        if installed.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            return f"wsidicomizer {VERSION} cannot be installed: {_last_line(installed.stderr)}"
    tried = subprocess.run([program, "--help"], capture_output=True, text=True)
    if tried.returncode:
        return f"wsidicomizer {VERSION} does not start (libturbojpeg0?): {_last_line(tried.stderr)}"
    return program


def convert(program: Path, slide: Path, folder: Path, *options: str) -> tuple[float, int]:
    """Seconds of the whole process, and its peak memory in MB; output in ``folder``, made
    here. Raises RuntimeError with its last line when it fails."""
    workers = str(os.cpu_count() or 1)
    command = [str(program), "-i", str(slide), "-o", str(folder), "-w", workers, *options]
    os.sync()
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        taken = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(_last_line(said.read()))
    return taken, used.ru_maxrss >> 10


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"


if __name__ == "__main__":  # `make bench` runs every file here
    print(wsidicomizer())
