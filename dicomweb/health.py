# SPDX-License-Identifier: Apache-2.0
"""Liveness, readiness and Prometheus metrics.

With several processes the counters live in files of one folder (prometheus-client's
multi-process mode, which ``PROMETHEUS_MULTIPROC_DIR`` switches on before its import);
any process then answers for all.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from flask import Blueprint, Response, jsonify
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from archive.errors import ArchiveError
from dicomweb.context import archive, web

health = Blueprint("health", __name__)

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_SAMPLE_EVERY = 256

Statistics = Callable[[], Mapping[str, float]]


class Metrics:
    """What this edge counts. Labels are route names and statuses, never values."""

    def __init__(self, directory: Path | None, statistics: Statistics) -> None:
        self._directory = directory
        self._statistics = statistics
        self._observed = 0
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "coverslip_http_requests_total", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "coverslip_http_request_seconds",
            "Time to the first byte.",
            ("route",),
            registry=self.registry,
            buckets=_BUCKETS_S,
        )

        self.caches = Gauge(
            "coverslip_cache",
            "Hits and misses of the archive's caches.",
            ("name",),
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def observe(self, route: str, status: int, seconds: float) -> None:
        children = self._children.get((route, status))
        if children is None:  # labels() costs more than counting
            children = self.requests.labels(route, str(status)), self.seconds.labels(route)
            self._children[route, status] = children
        requests, times = children
        requests.inc()
        times.observe(seconds)
        self._observed += 1
        if self._observed % _SAMPLE_EVERY == 0:
            self._sample()

    def _sample(self) -> None:
        """Copy the archive's own counters, now and then: another process may be scraped."""
        for name, value in self._statistics().items():
            self.caches.labels(name).set(value)

    def exposition(self) -> bytes:
        """The text format, of all processes where a folder is shared."""
        self._sample()
        if self._directory is None:
            return generate_latest(self.registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=str(self._directory))  # type: ignore[no-untyped-call]
        return generate_latest(merged)


@health.get("/healthz")
def alive() -> Response:
    """The process answers."""
    return Response("ok\n", content_type="text/plain")


@health.get("/readyz")
def ready() -> tuple[Response, int]:
    """Whether requests can be served: database, storage and disk space, each by name, and
    the processes beside this one where a supervisor reports on them."""
    checks = archive().ready()
    failing = web().settings.unhealthy_file
    if failing is not None:
        checks["processes"] = "a process keeps failing" if failing.exists() else "ok"
    good = all(state == "ok" for state in checks.values())
    return jsonify({"ready": good, "checks": checks}), 200 if good else 503


@health.get("/metrics")
def metrics() -> Response:
    """Prometheus text format."""
    return Response(web().metrics.exposition() + _outbox(), content_type=CONTENT_TYPE_LATEST)


def _outbox() -> bytes:
    """Of the archive, not of a process: counted when it is asked for, absent while the
    database is away."""
    try:
        counts = archive().duty_counts()
    except ArchiveError:
        return b""
    lines = ["# HELP coverslip_outbox Duties to other systems.", "# TYPE coverslip_outbox gauge"]
    lines += [f'coverslip_outbox{{state="{state}"}} {number}' for state, number in sorted(counts.items())]
    return ("\n".join(lines) + "\n").encode()
