# SPDX-License-Identifier: Apache-2.0
"""Settings: where values come from, what is refused, and what the documents say."""

import os
from pathlib import Path

import pytest

from archive.index.file_systems import network_file_system
from gateway import settings_docs
from gateway.settings import KEYS, Peer, Settings, SettingsError, load, shipped_config, value_of
from gateway.settings_check import host_port, refusals, storage_refusals

ROOT = Path(__file__).resolve().parents[2]


def _load(
    tmp_path: Path,
    text: str = "",
    *,
    flags: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
) -> Settings:
    config = tmp_path / "test.toml"
    config.write_text(text)
    return load(config, flags or {}, environment or {})


def test_the_shipped_file_says_the_built_in_defaults() -> None:
    assert load(shipped_config(), {}, {}) == Settings()


def test_the_shipped_file_names_every_setting() -> None:
    origins = load(shipped_config(), {}, {}).origins
    assert [name for name in KEYS if origins[name] != "config/default.toml"] == []


def test_the_shipped_file_is_the_one_made_from_the_code() -> None:
    assert (ROOT / "config/default.toml").read_text() == settings_docs.default_toml()


def test_the_settings_document_is_the_one_made_from_the_code() -> None:
    assert (ROOT / "docs/settings.md").read_text() == settings_docs.markdown()


def test_every_key_of_the_production_example_is_commented_and_accepted() -> None:
    path = ROOT / "config/production.example.toml"
    settings = load(path, {}, {})
    assert refusals(settings) == []
    lines = path.read_text().splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if "=" in line and not line.startswith(("#", " ")):
            assert above.startswith("#"), f"{line} has no comment"


def test_a_variable_wins_over_the_file_and_a_flag_over_both(tmp_path: Path) -> None:
    text = '[http]\nbind = "127.0.0.1:1"\nthreads = 7\nworkers = 3\n'
    variables = {"COVERSLIP_HTTP_BIND": "127.0.0.1:2", "COVERSLIP_HTTP_THREADS": "9"}
    settings = _load(tmp_path, text, flags={"http.bind": "127.0.0.1:3"}, environment=variables)
    assert (settings.http.bind, settings.http.threads, settings.http.workers) == ("127.0.0.1:3", 9, 3)
    assert settings.origins["http.bind"] == "flag"
    assert settings.origins["http.threads"] == "COVERSLIP_HTTP_THREADS"
    assert settings.origins["http.workers"] == str(tmp_path / "test.toml")
    assert settings.origins["dimse.bind"] == "built-in default"


@pytest.mark.parametrize("key", list(KEYS.values()), ids=lambda key: key.name)
def test_every_setting_can_be_given_as_a_variable(key, tmp_path: Path) -> None:
    text = {bool: "true", int: "5000000000", float: "7.5", str: "text"}.get(key.type, "a,b")
    if key.choices:
        text = key.choices[0]
    if key.name == "dimse.peers":
        text = '[{ ae_title = "A", networks = ["10.0.0.0/8"] }]'
    settings = _load(tmp_path, environment={key.variable: text})
    assert settings.origins[key.name] == key.variable
    expected = {"5000000000": 5_000_000_000, "7.5": 7.5, "true": True, "a,b": ("a", "b")}.get(text, text)
    if key.name == "dimse.peers":
        expected = (Peer("A", ("10.0.0.0/8",)),)
    assert value_of(settings, key.name) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[http]\nbnid = "x"', r"unknown setting http\.bnid \(did you mean http\.bind\?\)"),
        ('[dimes]\nbind = "x"', r"unknown setting dimes \(did you mean dimse\?\)"),
        ("[watch]\nsetle_s = 3", r"did you mean watch\.settle_s\?"),
        ('data_dri = "x"', r"did you mean data_dir\?"),
        ("[http]\nthreads = true", r"http\.threads must be a whole number, not bool"),
        ('[http]\nthreads = "8"', r"http\.threads must be a whole number, not str"),
        ("[http]\nthreads = 0", r"http\.threads must be at least 4"),
        ("[watch]\nsettle_s = nan", r"watch\.settle_s must be at least 0"),
        ('[auth]\nmode = "none"', r"auth\.mode must be one of open, local, oidc"),
        ("http = 3", r"http is a table of settings"),
        ('[watch]\nfolders = "x"', r"watch\.folders must be a list of texts"),
        ('[[dimse.peers]]\naet = "x"', r"unknown setting dimse\.peers\.aet \(did you mean ae_title\?\)"),
        ("data_dir = ", r"is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=complaint):
        _load(tmp_path, text)


def test_an_unknown_variable_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"COVERSLIP_HTP_BIND \(did you mean COVERSLIP_HTTP_BIND\?\)"):
        _load(tmp_path, environment={"COVERSLIP_HTP_BIND": "127.0.0.1:0"})


def test_variables_of_the_test_suite_are_nobodys_settings(tmp_path: Path) -> None:
    assert _load(tmp_path, environment={"COVERSLIP_TEST_DATA": "/x", "PATH": "/bin"}) == Settings()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: No such file"):
        load(tmp_path / "absent.toml", {}, {})


def test_the_defaults_may_start() -> None:
    assert refusals(Settings()) == []


PEER = {"dimse.peers": [{"ae_title": "A", "networks": ["10.0.0.0/8"]}]}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"http.bind": "0.0.0.0:80"}, "auth.mode"),
        ({"http.bind": "[::]:80"}, "auth.mode"),
        ({"http.bind": "192.168.1.5:80"}, "auth.mode"),
        ({"http.bind": "[::ffff:10.0.0.1]:80"}, "auth.mode"),
        (
            {"http.bind": "0.0.0.0:80", "http.behind_proxy": True, "http.trusted_proxies": ["10.0.0.1/32"]},
            "auth.mode",
        ),
        ({"http.bind": "0.0.0.0:80", "auth.mode": "local"}, "not part of this release"),
        ({"http.behind_proxy": True}, "trusted_proxies"),
        ({"http.behind_proxy": True, "http.trusted_proxies": ["127.0.0.1/32", "10.0.0.1/32"]}, "10.0.0.1/32"),
        ({"http.behind_proxy": True, "http.trusted_proxies": ["0.0.0.0/0"]}, "beyond loopback"),
        ({"http.behind_proxy": True, "http.trusted_proxies": ["127.0.0.0/7"]}, "beyond loopback"),
        ({"http.behind_proxy": True, "http.trusted_proxies": ["::/0"]}, "beyond loopback"),
        ({"http.behind_proxy": True, "http.trusted_proxies": ["nonsense"]}, "not a CIDR network"),
        ({"http.bind": "myhost:80"}, "not an IP address"),
        ({"http.bind": "127.0.0.1"}, "not ADDRESS:PORT"),
        ({"http.bind": "127.0.0.1:70000"}, "not ADDRESS:PORT"),
        ({"http.trusted_proxies": ["10.0.0.300"]}, "not a CIDR network"),
        ({"http.public_url": "slides.example"}, "http:// or https://"),
        ({"dimse.bind": "0.0.0.0:104"}, "name the peers"),
        ({"dimse.bind": "0.0.0.0:104", **PEER}, "allow_plaintext"),
        ({"dimse.bind": "0.0.0.0:104", "dimse.allow_plaintext": True}, "name the peers"),
        (
            {"dimse.bind": "0.0.0.0:104", "dimse.allow_plaintext": True, "dimse.peers": [{"ae_title": "A"}]},
            "needs its networks",
        ),
        ({"dimse.ae_title": "MORE_THAN_SIXTEEN"}, "AE title"),
        ({"dimse.ae_title": " "}, "AE title"),
        ({"database_url": "mysql://x"}, "sqlite:///"),
        ({"storage_url": "s3://bucket"}, "file:///"),
    ],
)
def test_an_unsafe_start_is_refused_with_its_reason(flags, reason: str, tmp_path: Path) -> None:
    assert reason in " ".join(refusals(_load(tmp_path, flags=flags)))


@pytest.mark.parametrize(
    "flags",
    [
        {"http.bind": "[::1]:0"},
        {"http.bind": "localhost:8080"},
        {"http.bind": "127.3.2.1:8080"},
        {"http.bind": "[::ffff:127.0.0.1]:8080"},
        {"dimse.bind": "0.0.0.0:104", "dimse.allow_plaintext": True, **PEER},
        {"dimse.bind": ""},
        {
            "http.behind_proxy": True,
            "http.trusted_proxies": ["127.0.0.0/8", "::1/128", "::ffff:127.0.0.1/128"],
        },
    ],
)
def test_a_guarded_or_local_address_is_accepted(flags, tmp_path: Path) -> None:
    assert refusals(_load(tmp_path, flags=flags)) == []


def test_addresses_are_read_with_their_brackets() -> None:
    assert host_port("[::1]:80") == ("::1", 80)
    assert host_port("localhost:0") == ("127.0.0.1", 0)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "smb3"])
def test_sqlite_on_a_network_share_is_refused_and_postgresql_is_not(kind: str) -> None:
    assert kind in next(storage_refusals(Settings(), lambda path: kind))
    assert list(storage_refusals(Settings(database_url="postgresql://h/d"), lambda path: kind)) == []
    assert list(storage_refusals(Settings(), lambda path: "")) == []


@pytest.mark.parametrize("kind", ["nfs4", "fuse.rclone", "beegfs", "gluster"])
def test_a_folder_that_is_not_there_yet_is_judged_by_where_it_will_be(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_text

    def mounted(path: Path, **options: str) -> str:
        text = real(path, **options)
        if str(path) != "/proc/self/mountinfo":
            return text
        device = tmp_path.stat().st_dev  # a chroot's table does not list what it stands on
        return f"1 1 {os.major(device)}:{os.minor(device)} / / rw - {kind} a rw"

    assert network_file_system(tmp_path / "not yet" / "there") == ""
    monkeypatch.setattr(Path, "read_text", mounted)
    assert network_file_system(tmp_path / "not yet" / "there") == kind
    assert f"data_dir is on {kind}" in next(storage_refusals(Settings(data_dir=str(tmp_path / "new"))))


def test_a_relative_database_is_below_the_data_folder() -> None:
    settings = Settings(data_dir="/x y", database_url="sqlite:///d.db")
    assert settings.sqlite_path == Path("/x y/d.db")
    assert settings.database == "sqlite:////x%20y/d.db"
