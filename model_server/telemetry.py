"""What the server says about itself: Prometheus metrics, and one JSON line a request.

Neither holds an image, a query string or a token.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

LOG = logging.getLogger("model_server")
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the environment's name for where several workers keep their metrics
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # images


class Telemetry:
    """The metrics of one app. Several workers add theirs up where PROMETHEUS_MULTIPROC_DIR names a folder they share.

    The label `model` has the names of the models that are served, never what a client wrote.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("seg_requests", "Requests answered", "path", "status")
        self.rejected = self._counter("seg_rejected", "Requests and frames refused", "reason")
        self.frames = self._counter("seg_frames", "Frames of streams", "result")
        self.reloads = self._counter("seg_reloads", "Models loaded while serving", "result", "model")
        self.waiting = self._gauge("seg_waiting", "Photos waiting now", "livesum")
        self.most_waiting = self._gauge("seg_waiting_max", "Most photos that ever waited", "max")
        what = "Time a photo spends in each stage"
        self.stages = self._histogram("seg_stage_seconds", what, SECONDS, "stage", "model")
        self.batches = self._histogram("seg_batch_images", "Images in each batch", BATCH_SIZES, "model")
        self._most = 0

    def set_waiting(self, waiting: int) -> None:
        "Note how many images wait now."
        self._most = max(self._most, waiting)
        self.waiting.set(waiting)
        self.most_waiting.set(self._most)

    def add_stage_times(self, model: str, milliseconds: dict[str, float]) -> None:
        "Note how long each stage of one image took, by the name of the model it was shown to."
        for stage, time_taken in milliseconds.items():
            self.stages.labels(stage, model).observe(time_taken / 1000)

    def text(self) -> bytes:
        "The metrics in Prometheus' text format, those of all workers added up."
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self.registry)
        forget_dead_workers(Path(os.environ[SHARED_FOLDER]))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: str) -> Gauge:
        return Gauge(name, text, registry=self.registry, multiprocess_mode=mode)


def forget_dead_workers(folder: Path) -> None:
    "Remove what killed workers said about the present moment: nobody waits in them any more."
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rsplit("_", 1)[1])
        if not is_alive(pid):
            mark_process_dead(pid, str(folder))


def is_alive(pid: int) -> bool:
    "Is there a process of this number? Windows cannot be asked: there `os.kill` ends processes."
    if not hasattr(os, "fork"):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def log(event: str, **fields: object) -> None:
    "One JSON line."
    line = dict(time=time.strftime("%Y-%m-%dT%H:%M:%S%z"), event=event, **fields)
    LOG.info(json.dumps(line, ensure_ascii=False))
