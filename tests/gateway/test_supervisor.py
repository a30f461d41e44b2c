# SPDX-License-Identifier: Apache-2.0
"""The supervisor's rules, without the roles."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import supervisor
from gateway.settings import Settings
from gateway.supervisor import AlreadyServing, CannotListen, Child, Supervisor, listen, lock_data


@pytest.fixture
def idle(tmp_path: Path) -> Supervisor:
    """One that runs nothing; its clock is what the test says."""
    (tmp_path / "run").mkdir()
    return Supervisor(Settings(data_dir=str(tmp_path)), ["false"])


def fail(watcher: Supervisor, child: Child, times: list[float]) -> list[float]:
    """Let the child end at each time; how long it has to wait for its restart."""
    waits = []
    for now in times:
        watcher._ended(child, 1, now)
        assert child.restart_at is not None
        waits.append(child.restart_at - now)
        watcher._report_health()
    return waits


def test_a_role_that_keeps_failing_is_restarted_ever_later_up_to_a_minute(idle: Supervisor) -> None:
    assert fail(idle, Child("web", []), [0.0] * 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_five_failures_in_a_minute_are_told_to_readyz_and_four_are_not(
    idle: Supervisor, tmp_path: Path
) -> None:
    child = Child("dimse", [])
    idle._children = [child]
    told = tmp_path / "run" / supervisor.UNHEALTHY_FILE
    fail(idle, child, [0, 10, 20, 30])
    assert not told.exists()
    fail(idle, child, [59])
    assert json.loads(told.read_text()) == {"failing": ["dimse"]}


def test_failures_spread_over_more_than_a_minute_are_not_told(idle: Supervisor, tmp_path: Path) -> None:
    child = Child("dimse", [])
    idle._children = [child]
    fail(idle, child, [0, 20, 40, 60, 80, 100])
    assert not (tmp_path / "run" / supervisor.UNHEALTHY_FILE).exists()


def test_a_role_is_well_again_once_it_has_run_for_a_minute(
    idle: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child("worker", [], ready=True)
    idle._children = [child]
    fail(idle, child, [0, 1, 2, 3, 4])
    child.restart_at = None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        child.process = running  # type: ignore[assignment]
        child.started = 10.0
        for now, well in ((69.0, False), (70.0, True)):
            monkeypatch.setattr(supervisor.time, "monotonic", lambda now=now: now)
            idle._look_after()
            assert (tmp_path / "run" / supervisor.UNHEALTHY_FILE).exists() is not well
        monkeypatch.undo()
        running.kill()
    assert child.delay_s == 1.0


def test_the_lock_holds_as_long_as_its_descriptor_and_names_its_holder(tmp_path: Path) -> None:
    held = lock_data(tmp_path / "run")
    with pytest.raises(AlreadyServing, match=f"by process {os.getpid()}$"):
        lock_data(tmp_path / "run")
    os.close(held)
    os.close(lock_data(tmp_path / "run"))


def test_the_data_folder_is_nobody_elses(tmp_path: Path) -> None:
    os.close(lock_data(tmp_path / "data" / "run"))
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_port_0_takes_a_free_port_and_a_taken_one_is_refused() -> None:
    with listen("[::1]:0", "http.bind") as first:
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(CannotListen, match=rf"^http.bind: cannot listen on \[::1\]:{port}: "):
            listen(f"[::1]:{port}", "http.bind")


def test_the_supervisor_loads_nothing_of_the_archive() -> None:
    probe = (
        "import sys; from gateway.cli import main, serve_cmd; "
        "import gateway.supervisor, gateway.settings_check; "
        "from gateway.settings import load; load(None, {}, {}); "
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('archive', 'dicomweb', 'converters', 'peewee', 'flask', 'pydicom', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_child_that_finds_its_parent_gone_leaves_at_once() -> None:
    """The race: the parent died before the child asked to die with it."""
    probe = "from gateway.process import die_with; die_with(1 << 22); print('still here')"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_stop_signal_drains_and_a_term_after_it_ends_the_role() -> None:
    probe = (
        "import os, signal; from gateway.process import stop_event; stop = stop_event(); "
        "os.kill(os.getpid(), signal.SIGUSR1); assert stop.is_set(); print('draining', flush=True); "
        "os.kill(os.getpid(), signal.SIGINT); print('still draining', flush=True); "
        "os.kill(os.getpid(), signal.SIGTERM); print('not reached')"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.stdout == "draining\nstill draining\n"
    assert done.returncode == 128 + signal.SIGTERM
