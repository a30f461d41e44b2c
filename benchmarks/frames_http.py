# SPDX-License-Identifier: Apache-2.0
"""Frames over HTTP: against nginx, against a naive view, in batches, by place; memory after.

One slide of ``--size-mb`` (330). Each number is the median of five; peers take turns with
ours. Goals: single frames, audited, at 8 and 32 clients >= 0.10 (gunicorn) and 0.30
(granian) of nginx serving the same byte ranges; processor time <= 0.25 of the naive view
(``naive_view.py``); >= 20 times Debian's Orthanc, which is given the same instance and a
limit of memory (``orthanc.py``); a frame in a batch of 16 or 400 <= 0.3 of one alone; the last frame as
fast as the first; memory of a process after browsing <= 150 MB. Needs nginx and wrk.
"""

import argparse
import http.client
import os
import platform
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import naive_view
from benchmarks.orthanc import MEMORY_BYTES, missing, running_orthanc
from tests.support.make_slide import big_svs
from tests.support.require import require_tool
from tests.support.server import Server, coverslip, running_server, wait_for

RUNS = 5
CLIENTS = (8, 32)
GOALS = {"gunicorn": 0.10, "granian": 0.30}
MEMORY_MB = 150
ACCEPT = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
PARTS = 'multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.50'
STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
INSTANCE = "application/dicom; transfer-syntax=*"
PEER_S = 20
NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path {folder}/t1;
  proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}
"""


@dataclass(frozen=True)
class Slide:
    """A slide's file and where its frames are."""

    offsets: list[int]
    lengths: list[int]
    path: str


def wrk(url: str, script: Path, clients: int, seconds: float) -> tuple[float, int]:
    """Requests per second, and how many; raises when any answer was not a success."""
    done = subprocess.run(
        [require_tool("wrk"), "-t1", f"-c{clients}", f"-d{seconds:g}s", "-s", str(script), url],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    assert rate is not None
    assert count is not None
    return float(rate.group(1)), int(count.group(1))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, edge = [pid], {pid}
    while edge:
        edge = {child for child, parent in parents.items() if parent in edge}
        found += edge
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and all below it that live."""
    total = 0
    for one in descendants(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def web_memory_mb(pid: int) -> int:
    """The largest resident web process."""
    sizes = [0]
    for one in descendants(pid):
        try:
            command = Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        if b"web" in command and found is not None:
            sizes.append(int(found.group(1)) >> 10)
    return max(sizes)


def lua(path: Path, before: str, request: str) -> Path:
    path.write_text(f"math.randomseed(7)\n{before}\nrequest = function() return {request} end\n")
    return path


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port))
    process = subprocess.Popen([require_tool("nginx"), "-p", str(folder), "-c", str(config)])
    try:
        wait_for(lambda: (folder / "nginx.pid").exists())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def naive(folder: Path, slide: Slide) -> Iterator[tuple[str, int]]:
    """The naive view's address and its process."""
    database = str(folder / "naive.db")
    naive_view.fill(database, slide.path, slide.offsets, slide.lengths)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-k", "gthread", "-w", "2", "--threads", "4", "-b",
         f"127.0.0.1:{port}", "--log-level", "error", "benchmarks.naive_view:app"],
        cwd=ROOT, env={**os.environ, "NAIVE_DATABASE": database},
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        asked = urllib.request.Request(
            f"{url}/frames/1", headers={"Authorization": f"Bearer {naive_view.token()}"}
        )
        wait_for(lambda: urllib.request.urlopen(asked, timeout=10).status == 200)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def rate(url: str, script: Path, clients: int, seconds: float) -> float:
    """Requests per second."""
    return wrk(url, script, clients, seconds)[0]


def spent_us(pid: int, url: str, script: Path, seconds: float) -> float:
    """Processor microseconds of a server for each request, at 8 clients."""
    before = cpu_s(pid)
    _, answered = wrk(url, script, 8, seconds)
    return (cpu_s(pid) - before) / answered * 1e6


def against(peer: Callable[[], float], ours: Callable[[], float], label: str, goal: str) -> float:
    """The ratio of the medians of ours and the peer's, who take turns; printed."""
    taken = [(peer(), ours()) for _ in range(RUNS)]
    a, b = (statistics.median(column) for column in zip(*taken, strict=True))
    print(f"{label:<44} {a:9.1f} {b:9.1f}  ratio {b / a:6.3f}  (goal {goal})", flush=True)
    return b / a


def orthanc_rate(url: str, path: str, count: int, clients: int) -> tuple[float, int]:
    """Frames per second of random frames as they are stored, and how many answers failed."""
    deadline = time.monotonic() + PEER_S
    answered, failed = [], []

    def view(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < deadline:
            asked = urllib.request.Request(
                f"{url}{path}/frames/{chance.randint(1, count)}", headers={"Accept": STORED}
            )
            try:
                with urllib.request.urlopen(asked, timeout=PEER_S) as answer:
                    answer.read()
                answered.append(time.monotonic())
            except OSError:
                failed.append(time.monotonic())

    begun = time.monotonic()
    threads = [threading.Thread(target=view, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(answered) / (time.monotonic() - begun), len(failed)


def over_orthanc(folder: Path, server: Server, path: str, count: int, by_frame: Path) -> list[bool]:
    """The same instance in Orthanc, frames by one client and by eight, over ours."""
    if reason := missing():
        print(reason)
        return []
    met = []
    with running_orthanc(folder) as orthanc:
        asked = urllib.request.Request(f"{server.url}{path}", headers={"Accept": INSTANCE})
        with urllib.request.urlopen(asked, timeout=120) as answer:
            body = answer.read()
        sent = urllib.request.Request(f"{orthanc.url}/instances", body)
        urllib.request.urlopen(sent, timeout=600).close()
        del body
        print(f"Orthanc {orthanc.version}, limited to {MEMORY_BYTES >> 30} GiB: its, ours")
        for clients in (1, 8):
            ours = rate(server.url, by_frame, clients, 2)  # first: it goes on long after its clients
            theirs, failed = orthanc_rate(orthanc.url, path, count, clients)
            told = f"{ours / theirs:6.0f}" if theirs else "no frame from Orthanc"
            print(f"{f'{clients} clients, frames/s over Orthanc':<44} {theirs:9.2f} {ours:9.1f}  ratio {told}"
                  f"  (goal >= 20; {failed} of its answers failed)", flush=True)  # fmt: skip
            met.append(ours >= 20 * theirs)
    shutil.rmtree(folder)
    return met


class Viewer:
    """One kept connection."""

    def __init__(self, server: Server, path: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=60)
        self._path = path

    def ms(self, listed: str, accept: str = ACCEPT) -> float:
        begun = time.perf_counter()
        self._connection.request("GET", f"{self._path}/frames/{listed}", headers={"Accept": accept})
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{listed[:20]}: {answer.status}")
        return (time.perf_counter() - begun) * 1000

    def close(self) -> None:
        self._connection.close()


def batches(viewer: Viewer, count: int) -> list[bool]:
    """Milliseconds per frame: one by one over in one request."""
    met = []
    for size in (16, 400):
        frames = [[random.randint(1, count) for _ in range(size)] for _ in range(RUNS)]
        alone = statistics.median(sum(viewer.ms(str(n)) for n in some) / size for some in frames)
        together = statistics.median(viewer.ms(",".join(map(str, some)), PARTS) / size for some in frames)
        ratio = together / alone
        met.append(ratio <= 0.3)
        print(f"{f'frame in a batch of {size}, ms: alone, batch':<44} {alone:9.3f} {together:9.3f}"
              f"  ratio {ratio:6.3f}  (goal <= 0.3)")  # fmt: skip
    return met


def places(viewer: Viewer, count: int) -> None:
    """Latency by frame number."""
    near = {"first": 1, "middle": count // 2, "last": count - 99}
    found = {
        name: statistics.median(viewer.ms(str(start + n)) for n in range(100)) for name, start in near.items()
    }
    print("frames by number, ms p50: " + ", ".join(f"{name} {ms:.2f}" for name, ms in found.items()))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size-mb", type=int, default=330)
    parser.add_argument("--seconds", type=float, default=2)
    chosen = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "www").mkdir()
        met = measure(folder, chosen.size_mb << 20, chosen.seconds)
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0 if all(met) else 1


def slide_of(path: Path) -> Slide:
    import numpy as np

    from converters.registry import open_slide

    with open_slide(path) as opened:
        tiles = opened.scenes[0].levels[0].tiles
        offsets, lengths = np.asarray(tiles.offsets), np.asarray(tiles.lengths)
        return Slide(offsets.ravel().tolist(), lengths.ravel().tolist(), str(path))


def served(server: Server, data: Path, slide: Path) -> str:
    """The path of the largest instance, ingested if need be."""
    if not server.json("/api/slides")["slides"]:
        coverslip("ingest", slide, "--data", data)
    line = wait_for(lambda: server.json("/api/slides")["slides"])[0]
    base = f"/dicom-web/studies/{line['study_instance_uid']}/series/{line['series_instance_uid']}"
    instances = server.json(f"{base}/instances", "application/dicom+json")
    largest = max(instances, key=lambda i: i["00280008"]["Value"][0])
    return f"{base}/instances/{largest['00080018']['Value'][0]}"


def measure(folder: Path, size: int, seconds: float) -> list[bool]:
    file = big_svs(folder / "www" / "slide.svs", size)
    slide = slide_of(file)
    count = len(slide.offsets)
    ranges = ",".join(f'"bytes={o}-{o + n - 1}"' for o, n in zip(slide.offsets, slide.lengths, strict=True))
    by_range = lua(
        folder / "range.lua", f"local r = {{{ranges}}}",
        'wrk.format("GET", "/slide.svs", {["Range"] = r[math.random(#r)]})',
    )  # fmt: skip
    by_number = lua(
        folder / "naive.lua", f'local h = {{["Authorization"] = "Bearer {naive_view.token()}"}}',
        f'wrk.format("GET", "/frames/" .. math.random({count}), h)',
    )  # fmt: skip
    mean = sum(slide.lengths) // count
    print(f"{count} frames of {mean} bytes; medians of {RUNS}: the peer's, ours")
    met: list[bool] = []
    for kind, goal in GOALS.items():
        with running_server(folder / "site", "--set", f"http.server={kind}") as server:
            path = served(server, folder / "site", file)
            viewer = Viewer(server, path)
            print(f"{kind}: the first frame of a new process {viewer.ms('1'):.1f} ms")
            viewer.close()
            by_frame = lua(
                folder / "frame.lua", f'local h = {{["Accept"] = "{ACCEPT}"}}',
                f'wrk.format("GET", "{path}/frames/" .. math.random({count}), h)',
            )  # fmt: skip
            with nginx(folder) as url:
                for clients in CLIENTS:
                    ratio = against(
                        partial(rate, url, by_range, clients, seconds),
                        partial(rate, server.url, by_frame, clients, seconds),
                        f"{kind}, {clients} clients, frames/s over nginx", f">= {goal}",
                    )  # fmt: skip
                    met.append(ratio >= goal)
            (folder / kind).mkdir()
            with naive(folder / kind, slide) as (url, pid):
                ratio = against(
                    partial(spent_us, pid, url, by_number, seconds),
                    partial(spent_us, server.process.pid, server.url, by_frame, seconds),
                    f"{kind}, processor us per frame over naive", "<= 0.25",
                )  # fmt: skip
                met.append(ratio <= 0.25)
            if kind == "gunicorn":
                met += over_orthanc(folder / "orthanc", server, path, count, by_frame)
            viewer = Viewer(server, path)
            met += batches(viewer, count)
            places(viewer, count)
            memory = web_memory_mb(server.process.pid)
            met.append(memory <= MEMORY_MB)
            print(f"memory of the largest web process {memory} MB  (goal <= {MEMORY_MB})", flush=True)
            viewer.close()
    return met


if __name__ == "__main__":
    sys.exit(main())
