# SPDX-License-Identifier: Apache-2.0
"""Single frames over HTTP at 8 clients, audited, against nginx serving the same byte ranges.

Target: at least 0.06 of nginx. Both serve random frames of the same 19,000-tile slide to
``wrk`` with kept connections, in turn, medians of five. Needs nginx and wrk.
"""

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.make_slide import big_svs
from tests.support.require import require_tool
from tests.support.server import coverslip, running_server, wait_for

RUNS = 5
SECONDS = 4
CLIENTS = 8
SIZE_BYTES = 330 << 20
NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path {folder}/t1;
  proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}
"""


def wrk(url: str, script: Path) -> float:
    """Requests per second; raises when any answer was not a success."""
    done = subprocess.run(
        [require_tool("wrk"), "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", "-s", str(script), url],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None
    return float(found.group(1))


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    import numpy as np

    from converters.registry import open_slide

    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "www").mkdir()
        slide = big_svs(folder / "www" / "slide.svs", SIZE_BYTES)
        with open_slide(slide) as opened:
            level = opened.scenes[0].levels[0]
            offsets, lengths = (
                np.asarray(level.tiles.offsets).ravel(),
                np.asarray(level.tiles.lengths).ravel(),
            )
        count = len(offsets)
        ranges = ",".join(f'"bytes={o}-{o + n - 1}"' for o, n in zip(offsets, lengths, strict=True))
        by_range = folder / "range.lua"
        by_range.write_text(
            f"local r = {{{ranges}}}\nmath.randomseed(7)\nrequest = function()\n"
            'return wrk.format("GET", "/slide.svs", {["Range"] = r[math.random(#r)]}) end\n'
        )
        with running_server(folder / "site") as server:
            coverslip("ingest", "--create", slide, "--data", folder / "site")
            line = wait_for(lambda: server.json("/api/slides")["slides"])[0]
            base = f"/dicom-web/studies/{line['study_instance_uid']}/series/{line['series_instance_uid']}"
            instances = server.json(f"{base}/instances", "application/dicom+json")
            largest = max(instances, key=lambda i: i["00280008"]["Value"][0])
            sop = largest["00080018"]["Value"][0]
            by_frame = folder / "frame.lua"
            accept = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
            by_frame.write_text(
                f'math.randomseed(7)\nlocal h = {{["Accept"] = "{accept}"}}\nrequest = function()\n'
                f'return wrk.format("GET", "{base}/instances/{sop}/frames/" .. math.random({count}), h) end\n'
            )
            port = free_port()
            config = folder / "nginx.conf"
            config.write_text(NGINX.format(folder=folder, port=port))
            nginx = subprocess.Popen([require_tool("nginx"), "-p", str(folder), "-c", str(config)])
            try:
                wait_for(lambda: shutil.which("curl") and (folder / "nginx.pid").exists())
                peer, ours = [], []
                for _ in range(RUNS):
                    peer.append(wrk(f"http://127.0.0.1:{port}", by_range))
                    ours.append(wrk(server.url, by_frame))
            finally:
                nginx.terminate()
                nginx.wait()
    a, b = statistics.median(peer), statistics.median(ours)
    print(f"{count} frames of {int(np.mean(lengths))} bytes, {CLIENTS} clients, medians of {RUNS}")
    print(f"nginx, byte ranges   {a:9.0f} requests/s")
    print(f"coverslip, audited   {b:9.0f} requests/s")
    print(f"ratio                {b / a:9.3f}  (target >= 0.06)")
    return 0 if b / a >= 0.06 else 1


if __name__ == "__main__":
    sys.exit(main())
