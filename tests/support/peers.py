# SPDX-License-Identifier: Apache-2.0
"""Clients of others that cannot be installed beside Coverslip: each in a virtual environment.

They are made below ``.venv/peers`` when first asked for, from pinned versions of the
package index, and kept for the next run.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.require import ROOT, absent

PEERS = Path(os.environ.get("COVERSLIP_TEST_PEERS", ROOT / ".venv" / "peers"))
PACKAGES = {
    "dicomslide": ("dicomslide==0.7.2", "dicomweb-client==0.61.2", "highdicom==0.28.2", "pydicom==3.0.2"),
    "iiif-validator": ("iiif-validator==1.0.5",),
    "ez-wsi": ("ez-wsi-dicomweb==6.1.6", "pydicom==3.0.2", "numpy==2.4.6"),
}


def require_peer(name: str) -> Path:
    """The Python interpreter of an environment of :data:`PACKAGES`; skips, or fails where
    everything is required, when it cannot be made."""
    folder = PEERS / name
    python = folder / "bin" / "python"
    wanted = "\n".join(PACKAGES[name])
    made = folder / "made-of"
    PEERS.mkdir(parents=True, exist_ok=True)
    with (PEERS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if made.exists() and made.read_text() == wanted:
            return python
        shutil.rmtree(folder, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", folder],
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES[name]],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=280)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
                absent(f"{name} cannot be installed: {last}")
        made.write_text(wanted)
    return python


def run_client(
    command: Sequence[str | Path], task: Mapping[str, Any], cwd: Path, **variables: str
) -> dict[str, Any]:
    """Run a client's program (``tests/interop/clients``) with its task as JSON on stdin, and
    give the JSON it prints. AssertionError with what it said when it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERSLIP"))}
    done = subprocess.run(
        [str(part) for part in command],
        input=json.dumps(task), capture_output=True, text=True, cwd=cwd, timeout=120,
        env={**environment, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
