# SPDX-License-Identifier: Apache-2.0
"""Counters of several processes, told as one."""

import os
import subprocess
import sys

from dicomweb.health import Metrics

OBSERVE = """
import sys
from pathlib import Path
from dicomweb.health import Metrics

metrics = Metrics(Path(sys.argv[1]), lambda: {"instance_cache_hits": 2.0})
for _ in range(3):
    metrics.observe("wado.frame", 200, 0.01)
print(metrics.exposition().decode())
"""


def test_two_processes_are_counted_together(tmp_path):
    environment = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    for total in (3.0, 6.0):
        done = subprocess.run(
            [sys.executable, "-c", OBSERVE, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f'coverslip_http_requests_total{{route="wado.frame",status="200"}} {total}' in done.stdout
    assert 'coverslip_cache{name="instance_cache_hits"}' in done.stdout


def test_one_process_counts_for_itself():
    metrics = Metrics(None, lambda: {"file_cache_hits": 7.0})
    metrics.observe("qido.search_studies", 204, 0.2)
    text = metrics.exposition().decode()
    assert 'coverslip_http_requests_total{route="qido.search_studies",status="204"} 1.0' in text
    assert 'coverslip_http_request_seconds_count{route="qido.search_studies"} 1.0' in text
    assert 'coverslip_cache{name="file_cache_hits"} 7.0' in text
