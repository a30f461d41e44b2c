# SPDX-License-Identifier: Apache-2.0
"""Certificates for a test, made by the openssl program: an authority, and whom it vouches for."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.require import require_tool

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        said = _openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha256")
        return said.strip().partition("=")[2]


class Authority:
    """Makes certificates in ``folder``."""

    def __init__(self, folder: Path, name: str = "Test authority") -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl(
            "req", "-x509", *KEY, "-keyout", self._key, "-out", self.certificate, "-subj", f"/CN={name}",
            "-days", "30", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(
        self, name: str, *, alternative: str = "DNS:localhost,IP:127.0.0.1", days: int = 30, rsa_bits: int = 0
    ) -> Identity:
        """A certificate of subject O=Lab, CN=``name``; ``days`` may be -1: it has ended."""
        made = Identity(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.cnf"
        extensions.write_text(f"subjectAltName={alternative}\nbasicConstraints=CA:FALSE\n")
        key = ["-newkey", f"rsa:{rsa_bits}", "-nodes"] if rsa_bits else KEY
        _openssl("req", *key, "-keyout", made.key, "-out", request, "-subj", f"/O=Lab/CN={name}")
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
            "-out", made.certificate, "-days", str(days), "-extfile", extensions,
        )  # fmt: skip
        return made


def _openssl(*arguments: str | Path) -> str:
    done = subprocess.run(
        [require_tool("openssl"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
