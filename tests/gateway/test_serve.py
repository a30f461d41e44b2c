# SPDX-License-Identifier: Apache-2.0
"""``coverslip serve`` as an operator meets it: one real process tree."""

import json
import os
import select
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.serving import Serving, run, serving
from tests.support.require import require_data

SVS = "slides/svs/CMU-1-Small-Region.svs"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path / "data") as running:
        yield running


def wait_for_end(pid: int, timeout_s: float = 30) -> bool:
    """Whether a process that is not our child ended in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(descriptor)


def descendants(pid: int) -> set[int]:
    """All processes below ``pid``."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found: set[int] = set()
    edge = {pid}
    while edge:
        edge = {child for child, parent in parents.items() if parent in edge} - found
        found |= edge
    return found


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_serves_tells_its_ports_and_stops_in_order(server: Serving) -> None:
    assert set(server.ports) == {"http", "dimse", "pid"}
    assert server.ports["pid"] == server.process.pid
    assert server.url == f"http://127.0.0.1:{server.ports['http']}/"
    assert server.get("/healthz")[0] == 200
    status, body = server.get("/readyz")
    assert (status, json.loads(body)["ready"]) == (200, True)
    told = server.data / "run" / "unhealthy.json"
    told.write_text('{"failing": ["dimse"]}')  # as the supervisor does, see test_supervisor
    status, body = server.get("/readyz")
    assert (status, json.loads(body)["checks"]["processes"]) == (503, "a process keeps failing")
    told.unlink()
    assert server.get("/readyz")[0] == 200
    assert is_taken(server.ports["dimse"])
    assert set(server.children()) == {"web", "dimse", "worker", "watch"}
    below = descendants(server.process.pid)

    assert server.stop() == 0

    assert all(wait_for_end(pid) for pid in below)
    assert not is_taken(server.ports["http"])
    assert not is_taken(server.ports["dimse"])
    assert not (server.data / "run" / "ports.json").exists()
    assert [line["message"] for line in server.log() if line["role"] == "supervisor"][-2:] == [
        "stopping",
        "stopped",
    ]
    assert {line["level"] for line in server.log()} == {"info"}


def test_a_second_serve_of_the_same_folder_is_refused_with_one_line(server: Serving) -> None:
    second = run("serve", "--data", str(server.data), "--http", "127.0.0.1:0", "--dimse", "0")
    assert second.returncode == 4
    assert second.stderr == f"coverslip: {server.data} is served already, by process {server.process.pid}\n"
    assert second.stdout == ""
    assert server.get("/healthz")[0] == 200


def test_killing_the_supervisor_leaves_no_port_taken_and_no_child(server: Serving) -> None:
    status, _ = server.get("/api/slides")
    assert status == 200
    below = descendants(server.process.pid)
    assert len(below) >= 6  # web master and two workers, dimse, worker, watch

    server.process.kill()
    server.process.wait(30)

    assert all(wait_for_end(pid) for pid in below)
    assert not is_taken(server.ports["http"])
    assert not is_taken(server.ports["dimse"])
    with serving(server.data, log_path=server.data.parent / "again.log") as again:
        assert again.get("/readyz")[0] == 200


def test_a_role_that_dies_is_started_again_and_the_others_never_notice(server: Serving) -> None:
    before = server.children()
    os.kill(before["worker"], signal.SIGKILL)
    ended = server.follow("ended, will be restarted", child="worker")
    assert (ended["exit_code"], ended["restart_in_s"]) == (-signal.SIGKILL, 1.0)
    server.follow("started", child="worker")
    after = server.children()
    assert after["worker"] != before["worker"]
    assert {role: pid for role, pid in after.items() if role != "worker"} == {
        role: pid for role, pid in before.items() if role != "worker"
    }
    assert server.get("/readyz")[0] == 200


def test_a_slide_dropped_into_the_watched_folder_is_listed_and_its_name_is_in_no_log(server: Serving) -> None:
    canary = "CANARY^PATIENT 4711"
    shutil.copy(require_data(SVS), server.data / "watch" / f"{canary}.svs")
    server.follow(
        "job 1: 8 instances: stored; "
        "level 1, 2, 3, 4: not written by the scanner, computed without loss (jpeg2000)"
    )
    _, body = server.get("/api/slides")
    assert [slide["number_of_instances"] for slide in json.loads(body)["slides"]] == [8]
    server.get(f"/api/slides?q={canary.replace(' ', '%20')}")
    assert server.stop() == 0
    assert "CANARY" not in server.log_path.read_text()
    assert "4711" not in server.log_path.read_text()


def test_an_address_in_use_is_refused_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = run("serve", "--data", str(tmp_path / "data"), "--http", bind, "--dimse", "0")
    assert refused.returncode == 5
    assert refused.stderr == f"coverslip: http.bind: cannot listen on {bind}: Address already in use\n"


def test_an_unsafe_address_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    refused = run("serve", "--data", str(tmp_path / "data"), "--http", "0.0.0.0:0")
    assert refused.returncode == 3
    assert refused.stderr.count("\n") == 1
    assert "auth.mode" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_store_of_a_newer_release_is_refused_and_left_untouched(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run("migrate", "--data", str(data)).returncode == 0
    version = data / "store" / "store.json"
    version.chmod(0o600)
    version.write_text('{"store": 99}')
    refused = run("serve", "--data", str(data), "--http", "127.0.0.1:0", "--dimse", "0")
    assert refused.returncode == 22
    assert version.read_text() == '{"store": 99}'
