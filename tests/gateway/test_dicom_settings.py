# SPDX-License-Identifier: Apache-2.0
"""Peers and TLS in the settings: what may start, and what ``doctor`` says of it."""

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway import doctor_dicom
from gateway.certificates import read_certificates, validity
from gateway.doctor_dicom import examine_dicom
from gateway.settings import DimseSettings, Peer
from gateway.settings_check import dimse_refusals
from gateway.settings_read import SettingsError
from gateway.tls import TlsSettings, server_context
from tests.gateway.serving import COVERSLIP
from tests.support.certificates import Authority, Identity

SCANNER = Peer("SCANNER1", ("10.1.2.0/24",))
BOUND = Peer("SCANNER2", ("10.1.2.0/24",), fingerprints=("ab" * 32,))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Identity:
    return authority.issue("archive", days=90)


@pytest.fixture
def settings(authority: Authority, ours: Identity) -> DimseSettings:
    return DimseSettings(
        tls_bind="0.0.0.0:2762", tls_certificate=str(ours.certificate), tls_key=str(ours.key),
        tls_ca=str(authority.certificate), peers=(SCANNER, BOUND),
    )  # fmt: skip


def refused(settings: DimseSettings) -> str:
    try:
        return " ".join(dimse_refusals(settings))
    except SettingsError as error:
        return str(error)


def test_a_listener_with_tls_may_reach_beyond_loopback_for_named_peers(settings: DimseSettings) -> None:
    assert refused(settings) == ""
    assert refused(replace(settings, bind="")) == ""
    assert "name the peers" in refused(replace(settings, peers=()))


def test_a_peers_file_names_the_peers_even_while_it_is_empty(settings: DimseSettings, tmp_path: Path) -> None:
    path = tmp_path / "peers.toml"
    path.write_text("")
    assert refused(replace(settings, peers=(), peers_file=str(path))) == ""
    path.unlink()
    assert f"cannot read {path}" in refused(replace(settings, peers=(), peers_file=str(path)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tls_bind": "0.0.0.0"}, "not ADDRESS:PORT"),
        ({"tls_certificate": ""}, "needs dimse.tls_certificate and dimse.tls_key"),
        ({"tls_key": ""}, "needs dimse.tls_certificate and dimse.tls_key"),
        ({"tls_certificate": "/absent.pem"}, "cannot read /absent.pem"),
        ({"tls_key": "/absent.key"}, "cannot read /absent.key"),
        ({"tls_ca": ""}, "dimse.tls_ca must name"),
        ({"tls_ca": "/absent.pem"}, "cannot read /absent.pem"),
        ({"tls_ca": __file__}, "no certificate or crl found"),
        ({"tls_client_certificate": "none"}, "SCANNER2 is known by its certificate"),
        ({"tls_bind": ""}, "SCANNER2 comes by TLS only: set dimse.tls_bind"),
        ({"bind": "0.0.0.0:11112"}, "dimse.allow_plaintext"),
        ({"peers": (Peer("SCANNER1"),)}, "needs its networks"),
        ({"peers": (Peer("SCANNER1", ("10.0.0.0/33",)),)}, "not a CIDR network"),
        ({"peers": (SCANNER, SCANNER)}, "named twice"),
        ({"peers": (Peer("SCANNER1", ("10.0.0.0/8",), rights=("all",)),)}, "not a right"),
        ({"peers": (Peer("A" * 17),)}, "not an AE title"),
        ({"ae_title": "A\\B"}, "dimse.ae_title"),
    ],
)
def test_an_unsafe_or_impossible_start_is_refused_with_its_reason(
    settings: DimseSettings, changes: dict[str, object], reason: str
) -> None:
    assert reason in refused(replace(settings, **changes))  # type: ignore[arg-type]


def test_files_that_do_not_fit_together_and_encrypted_keys_are_refused(
    settings: DimseSettings, authority: Authority, tmp_path: Path
) -> None:
    other = authority.issue("other")
    assert "key values mismatch" in refused(replace(settings, tls_key=str(other.key)))
    encrypted = tmp_path / "encrypted.key"
    encrypt = [
        "openssl",
        "pkey",
        "-in",
        str(other.key),
        "-aes256",
        "-passout",
        "pass:secret",
        "-out",
        str(encrypted),
    ]
    assert os.spawnvp(os.P_WAIT, encrypt[0], encrypt) == 0
    both = replace(settings, tls_certificate=str(other.certificate), tls_key=str(encrypted))
    assert "the key is encrypted" in refused(both)


def test_a_peer_that_is_only_called_needs_no_network(settings: DimseSettings) -> None:
    assert refused(replace(settings, peers=(Peer("PACS", host="pacs.lab.example", port=104),))) == ""
    by_tls = Peer("PACS", host="pacs.lab.example", port=2762, tls=True)
    assert refused(DimseSettings(peers=(by_tls,))) == ""
    assert "cannot read" in refused(DimseSettings(peers=(by_tls,), tls_ca="/absent.pem"))


def said(settings: DimseSettings) -> list[tuple[str, str, str]]:
    return list(examine_dicom(settings))


def test_doctor_names_who_speaks_without_tls(settings: DimseSettings) -> None:
    plain = replace(
        settings, bind="0.0.0.0:11112", allow_plaintext=True,
        peers=(SCANNER, BOUND, Peer("PACS", host="pacs.lab.example", port=104)),
    )  # fmt: skip
    notes = {name: detail for name, state, detail in said(plain) if state == "note"}
    assert notes["peer SCANNER1"] == "may speak DICOM without TLS from 10.1.2.0/24"
    assert notes["peer PACS"] == "is called without TLS at pacs.lab.example:104"
    assert "peer SCANNER2" not in notes
    assert ("DICOM", "ok", "without TLS, loopback only") in said(settings)


def test_doctor_says_whose_certificate_ends_and_which_key_others_can_read(
    settings: DimseSettings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {name: state for name, state, _ in said(settings)}
    assert states["our certificate"] == "ok"
    assert states["dimse.tls_ca"] == "note"  # 30 days
    ended = replace(settings, tls_certificate=str(authority.issue("ended", days=-1).certificate))
    ended = replace(ended, tls_key=str(Path(ended.tls_certificate).with_suffix(".key")))
    assert {name: state for name, state, _ in said(ended)}["our certificate"] == "bad"
    monkeypatch.setattr(doctor_dicom, "SOON", timedelta(days=120))
    assert {name: state for name, state, _ in said(settings)}["our certificate"] == "note"
    key = Path(ended.tls_key)
    key.chmod(0o644)
    assert any("can be read by others" in detail for _, _, detail in said(ended))
    key.chmod(0o600)
    assert not any("can be read by others" in detail for _, _, detail in said(ended))


def test_doctor_says_that_a_file_is_missing(settings: DimseSettings) -> None:
    with pytest.raises(SettingsError, match=r"cannot read /absent\.pem"):
        said(replace(settings, tls_ca="/absent.pem"))


def test_the_validity_of_a_certificate_is_read(ours: Identity, authority: Authority) -> None:
    (encoded,) = read_certificates(ours.certificate)
    before, after = validity(encoded)
    assert after - before == timedelta(days=90)
    assert timedelta(0) <= datetime.now(UTC) - before < timedelta(hours=1)
    for cut in range(len(encoded)):
        with pytest.raises(ValueError):
            validity(encoded[:cut])


def test_a_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.pem"
    for text in ("", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"):
        path.write_text(text)
        with pytest.raises(SettingsError, match=r"own\.pem holds no certificate"):
            read_certificates(path)


def test_a_key_of_1024_bits_is_too_short(authority: Authority) -> None:
    weak = authority.issue("weak", rsa_bits=1024)
    with pytest.raises(SettingsError, match="ee key too small"):
        server_context(TlsSettings(weak.certificate, weak.key, authority.certificate))


def coverslip(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COVERSLIP, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_config_check_and_doctor_say_it_at_the_command_line(authority: Authority, tmp_path: Path) -> None:
    soon = authority.issue("ending", days=3)
    config = tmp_path / "coverslip.toml"
    config.write_text(
        f"""data_dir = "{tmp_path}"
        [dimse]
        bind = "0.0.0.0:0"
        allow_plaintext = true
        tls_bind = "127.0.0.1:0"
        tls_certificate = "{soon.certificate}"
        tls_key = "{soon.key}"
        tls_ca = "{authority.certificate}"
        peers = [{{ ae_title = "SCANNER1", networks = ["10.1.2.0/24"] }}]
        """
    )
    told = coverslip("config", "check", "--config", config)
    assert told.returncode == 0, told.stderr
    assert "note: peer SCANNER1: may speak DICOM without TLS from 10.1.2.0/24" in told.stdout
    assert f"note: our certificate: {soon.certificate} ends on " in told.stdout
    looked = coverslip("doctor", "--config", config)
    assert "may speak DICOM without TLS from 10.1.2.0/24" in looked.stdout
    assert f"{soon.certificate} ends on" in looked.stdout
    soon.certificate.unlink()
    refused = coverslip("config", "check", "--config", config)
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert f"cannot read {soon.certificate}" in refused.stderr
