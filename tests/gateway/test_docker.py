# SPDX-License-Identifier: Apache-2.0
"""The image and its composition, as far as they can be known without an engine."""

import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli.main import COMMANDS
from gateway.settings import load, shipped_config
from gateway.settings_check import refusals
from tests.gateway.serving import serving
from tests.support.require import require_tool

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
STEP = "sh /usr/local/share/coverslip/install.sh "


def instructions(verb: str) -> list[str]:
    found = re.findall(rf"^{verb} (.*)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    return [str(line) for line in found]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return parsed


def services(compose: dict[str, Any], profile: str) -> dict[str, Any]:
    return {name: it for name, it in compose["services"].items() if profile in it["profiles"]}


def test_every_step_of_the_image_is_one_that_can_be_rehearsed() -> None:
    steps = instructions("RUN")
    assert all(step.startswith(STEP) for step in steps)
    used = [step.removeprefix(STEP).split()[0] for step in steps]
    assert used == re.findall(r"^(\w+)\)$", (DOCKER / "install.sh").read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", ["install.sh", "rehearse.sh"])
def test_the_scripts_are_shell(script: str) -> None:
    subprocess.run(["sh", "-n", str(DOCKER / script)], check=True)


def test_an_unknown_step_is_refused() -> None:
    done = subprocess.run(["sh", str(DOCKER / "install.sh"), "paint"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "install.sh: unknown step 'paint'\n")


def test_everything_that_is_copied_is_there_and_all_packages_are_copied() -> None:
    sources = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {"archive", "converters", "dicomweb", "gateway", "config", "pyproject.toml"} <= set(sources)


def test_without_a_profile_one_container_starts(compose: dict[str, Any]) -> None:
    chosen = re.search(r"^COMPOSE_PROFILES=(\w+)$", (DOCKER / ".env").read_text(), re.MULTILINE)
    assert chosen is not None
    assert list(services(compose, chosen[1])) == ["coverslip"]


def test_the_split_profile_has_every_role(compose: dict[str, Any]) -> None:
    assert set(services(compose, "split")) == {
        "postgres",
        "migrate",
        "web",
        "nginx",
        "dimse",
        "worker",
        "watch",
    }


def test_every_dependency_and_volume_is_declared(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        same = services(compose, service["profiles"][0])
        assert set(service.get("depends_on", {})) <= set(same), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DOCKER / source).exists(), name


def test_every_container_may_start_with_its_settings(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if service["image"] != "coverslip":
            continue
        assert service["command"][0] in COMMANDS, name
        settings = load(
            shipped_config(), {}, {"COVERSLIP_DATA_DIR": "/data", **service.get("environment", {})}
        )
        assert refusals(settings) == [], name


def test_containers_are_given_longer_to_stop_than_a_drain_takes(compose: dict[str, Any]) -> None:
    from gateway.supervisor import DRAIN_S, TERM_S

    for service in compose["services"].values():
        if service["image"] == "coverslip":
            assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN_S + TERM_S


def test_nginx_serves_what_is_behind_it_and_replaces_what_clients_claim(tmp_path: Path) -> None:
    nginx = require_tool("nginx")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ("--set", "http.behind_proxy=true", "--set", "http.trusted_proxies=127.0.0.1/32")
    with serving(tmp_path / "data", *options) as server:
        text = (DOCKER / "nginx.conf").read_text()
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{server.ports['http']}")
        text = text.replace("listen 8081", f"listen 127.0.0.1:{port}").replace(
            "/tmp/nginx.pid", f"{tmp_path}/pid"
        )
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            text = text.replace(
                "server_tokens off;", f"server_tokens off; {name}_temp_path {tmp_path}/{name};"
            )
        (tmp_path / "nginx.conf").write_text(text)
        front = subprocess.Popen(
            [nginx, "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"],
            stdout=(tmp_path / "access").open("wb"), stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            answer = ask_until_it_listens(f"http://127.0.0.1:{port}/api/slides?q=CANARY", front)
            assert b'"slides"' in answer
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(
                    urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": "evil.example"})
                )
            assert refused.value.code == 403
        finally:
            front.send_signal(signal.SIGQUIT)
            _, complaint = front.communicate(timeout=30)
        assert b"emerg" not in complaint
        log = (tmp_path / "access").read_text()
        assert '"path":"/api/slides"' in log
        assert "CANARY" not in log


def ask_until_it_listens(url: str, process: "subprocess.Popen[bytes]") -> bytes:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            os.sched_yield()
    raise AssertionError("nginx ended")
