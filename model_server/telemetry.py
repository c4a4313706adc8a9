"""What the server says about itself: Prometheus metrics, and one JSON line a request.

Neither holds a picture, a query string or a token.
"""

from __future__ import annotations

import json
import logging
import os
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

LOG = logging.getLogger("model_server")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Telemetry:
    "The metrics of one app. Several workers add theirs up where PROMETHEUS_MULTIPROC_DIR names a folder they share."

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("seg_requests", "Requests answered", ["path", "status"], registry=registry)
        self.stages = Histogram("seg_stage_seconds", "Time a photo spends in each stage", ["stage"], buckets=SECONDS, registry=registry)
        self.rejected = Counter("seg_rejected", "Requests and frames refused", ["reason"], registry=registry)
        self.frames = Counter("seg_frames", "Frames of streams", ["result"], registry=registry)
        self.waiting = Gauge("seg_waiting", "Photos waiting now", registry=registry, multiprocess_mode="livesum")
        self.most_waiting = Gauge("seg_waiting_max", "Most photos that ever waited", registry=registry, multiprocess_mode="max")
        self.reloads = Counter("seg_reloads", "Models loaded while serving", ["result"], registry=registry)
        self._most = 0

    def queue(self, waiting: int) -> None:
        self._most = max(self._most, waiting)
        self.waiting.set(waiting)
        self.most_waiting.set(self._most)

    def stage_times(self, ms: dict[str, float]) -> None:
        for stage, t in ms.items():
            self.stages.labels(stage).observe(t / 1000)

    def text(self) -> bytes:
        "The metrics in Prometheus' text format."
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)


def log(event: str, **fields: object) -> None:
    "One JSON line."
    LOG.info(json.dumps(dict(time=time.strftime("%Y-%m-%dT%H:%M:%S%z"), event=event, **fields), ensure_ascii=False))
