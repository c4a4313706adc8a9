"""`seg_serve`: the command that starts the server, in one process or in several."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from model_server.application import make_app
from model_server.models import listed, model_files
from model_server.pages import ANY, is_loopback
from model_server.service import POLL_SECONDS, WARM_UP_SIZE, try_out
from model_server.settings import DEFAULTS, Settings
from model_server.telemetry import LOG, SHARED_FOLDER
from model_server.uvicorn_protocols import server_options
from nbs_lib.core import SegError, check_unix, seg_command, usable_threads
from nbs_lib.predict import starter_model

ENVIRONMENT = "SEG_SERVE"  # how seg_serve tells its worker processes what to serve
M_MMAP_THRESHOLD = -3      # glibc's name for the size from which a block is mapped on its own
LARGE_BLOCK = 2**20        # bytes


def worker_app() -> FastAPI:
    "The application in a worker process, from what `seg_serve` wrote into the environment."
    log_to_stderr()
    return_freed_memory()
    given = json.loads(os.environ[ENVIRONMENT])
    end_with(given.pop("parent"), given["runtime"])
    origins, hosts = tuple(given.pop("origins")), tuple(given.pop("hosts"))
    settings = Settings(**given.pop("settings"), origins=origins, hosts=hosts)
    app = make_app(settings=settings, **given)
    exempt_from_collection()
    return app


def tell_workers(**given: Any) -> None:
    "Write what `worker_app` reads into the environment."
    os.environ[ENVIRONMENT] = json.dumps(given)


def end_with(parent: int, runtime: str) -> None:
    "End this process when the one that started it is gone, killed for instance: a worker would keep the port."
    def watch() -> None:
        "Wait for the end of the parent."
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        shutil.rmtree(runtime, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)
    if os.getpid() != parent:
        threading.Thread(target=watch, daemon=True).start()


def log_to_stderr() -> None:
    "Let the log's lines be seen on standard error."
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.handlers = [handler]
    LOG.propagate = False
    LOG.setLevel(logging.INFO)


@dataclass(frozen=True)
class Options:
    "The options of `seg_serve`."

    model: tuple[str, ...] = ()  # ONNX file or folder of them; again: more models. Without: the starter model
    host: str = "127.0.0.1"      # Address to listen on; 0.0.0.0 for all networks (then set a token)
    port: int = 4200             # Port to listen on
    workers: int = 1             # Processes; each loads the models and gets its share of the processors
    token: str = ""              # Bearer token that clients must send; allows POST /v1/reload. Better: SEG_SERVE_TOKEN
    origins: str = ""            # Web pages of other origins that may use the server, comma separated
    hosts: str = ""              # Names by which requests may call it besides localhost, comma separated; *: any
    waiting: int = 2             # Photos that may wait in a worker; the next is answered 503
    deadline: float = 30.0       # Seconds until a request is given up
    batch: int = 1               # Waiting photos that the network sees at one time; pays on a GPU, rarely on a CPU
    batch_wait_ms: float = 5.0   # Milliseconds that the first photo of a batch waits for others
    provider: str = "cpu"        # Execution provider: cpu, cuda, openvino ...


RANGES = dict(port=(1, 65535), workers=(1, 256), waiting=(0, 1000), batch=(1, 128), batch_wait_ms=(0, 1000))


def check_numbers(options: Options) -> None:
    "`SegError` for a number that makes no server."
    for name, (lowest, highest) in RANGES.items():
        value = getattr(options, name)
        if not lowest <= value <= highest:
            raise SegError(f"--{name} is {value:g}; take {lowest} to {highest}")
    deadline = options.deadline
    if not (math.isfinite(deadline) and 0 < deadline <= 3600):
        raise SegError(f"--deadline is {deadline:g}; take seconds above 0 and up to 3600")


def check_workers(workers: int) -> None:
    "`SegError` where several processes cannot serve together: they look for each other as Unix does."
    if workers > 1:
        check_unix(f"--workers {workers}", "on Windows, take --workers 1")


def check_port(host: str, port: int) -> None:
    "`SegError` where the address is none or the port is taken."
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
            if os.name == "posix":  # elsewhere it would let two programs listen
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((host, port))
    except UnicodeError:
        raise SegError(f"{host!r} is not an address to listen on; take one with --host") from None
    except OSError as error:
        sentence = f"cannot listen on {host}:{port} ({error.strerror})"
        raise SegError(f"{sentence}; stop what does, or take another with --port") from None


def exit_on_signals() -> None:
    "Let SIGTERM and SIGHUP end this process like an exception, so that its temporary folder is removed."
    def leave(number: int, frame: Any) -> None:
        "What a signal handler is called with is not needed."
        sys.exit(0)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), leave)


def return_freed_memory() -> None:
    """Let the C library give every large block back when it is freed.

    glibc else keeps blocks of up to 32 MiB once it has seen one freed, and a burst of images leaves them behind.
    """
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
    except (OSError, AttributeError, TypeError):  # another C library
        pass


def exempt_from_collection() -> None:
    """Let Python's garbage collection leave out what is there now: modules and the model, which stay until the end.

    Each full collection would look at all of it, and stop every request for 50 ms or more.
    """
    gc.collect()
    gc.freeze()


def say_where(app: FastAPI, host: str, port: int, workers: int) -> None:
    "What is served, and where."
    models = app.state.models
    plural = "s" if workers > 1 else ""
    address = f"http://{host}:{port}"
    for service in models:
        print(service.predictor)
    if len(models.names) > 1:
        print(f"{listed(models.names)}; {models.default.name} where a request names none")
    print(f"{address}, page at {address}/demo, {workers} worker{plural}", flush=True)
    if not is_loopback(host) and not models.shared.settings.token:
        warning = "anybody who reaches this address may use the server; set a token with --token"
        print(f"seg_serve: {warning}", file=sys.stderr)


def checked_app() -> FastAPI:
    "The application, whose models have run once: a bad file is a sentence here, not a worker that dies over and over."
    app = worker_app()
    for service in app.state.models:
        try_out(service.predictor, WARM_UP_SIZE)
    return app


def run_server(app_or_name: FastAPI | str, settings: Settings, **options: Any) -> None:
    "Serve until a signal comes."
    uvicorn.run(app_or_name, log_level="warning", **server_options(settings), **options)


def serve_workers(settings: Settings, runtime: str, options: Options) -> None:
    "Serve what the environment says: a single worker in this process, several in processes of their own."
    address = dict(host=options.host, port=options.port)
    app = checked_app()
    say_where(app, options.host, options.port, options.workers)
    if options.workers == 1:
        run_server(app, settings, **address)
        return
    del app  # its memory is the workers' now
    os.environ[SHARED_FOLDER] = runtime
    name = "model_server.command:worker_app"
    run_server(name, settings, factory=True, workers=options.workers, **address)


def limits(options: Options) -> dict[str, Any]:
    "The fields of `Settings` that the options give, as JSON can hold them."
    token = options.token or os.environ.get("SEG_SERVE_TOKEN", "")
    batch = dict(batch=options.batch, batch_wait=options.batch_wait_ms / 1000)
    most_bodies = max(DEFAULTS.max_bodies, Settings(**batch).places + options.waiting)  # who may wait, waits with one
    return dict(token=token, waiting=options.waiting, deadline=options.deadline, max_bodies=most_bodies, **batch)


def words(text: str) -> list[str]:
    "What stands between the commas."
    return [word.strip() for word in text.split(",") if word.strip()]


def host_names(options: Options) -> list[str]:
    "The names that requests may be sent to, beside those of this machine."
    if options.hosts:
        return [name.lower() for name in words(options.hosts)]
    return [] if is_loopback(options.host) else [ANY]


def named_models(options: Options) -> list[str]:
    "The files to serve; the starter model where none is named."
    places = options.model or (starter_model(),)
    return [str(path) for place in places for path in model_files(place)]


@seg_command(settings="")
def seg_serve(options: Options):
    "Serve exported models over HTTP: the original's protocol, /v1, /v2 and a page at /demo. Needs no torch."
    check_numbers(options)
    check_workers(options.workers)
    models = named_models(options)
    check_port(options.host, options.port)
    exit_on_signals()
    settings = limits(options)
    with tempfile.TemporaryDirectory(prefix="seg_serve-") as runtime:
        tell_workers(
            model=models,
            settings=settings,
            origins=words(options.origins),
            hosts=host_names(options),
            runtime=runtime,
            provider=options.provider,
            threads=max(1, usable_threads() // options.workers),
            parent=os.getpid(),
        )
        serve_workers(Settings(**settings), runtime, options)


if __name__ == "__main__":
    seg_serve.main()
