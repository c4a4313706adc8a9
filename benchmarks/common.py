"""What several benchmarks share: the settings of their results, a server beside them, and a cell of their tables.

It is quick to import: what needs torch is imported where it is used. Processes that attack a server import it, too.
"""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbs_lib.core import read_json, write_json

if TYPE_CHECKING:
    from nbs_lib.datasets import SegData

HOST = "127.0.0.1"
SETTINGS = "settings.json"  # beside the results


# --- the settings of results --------------------------------------------------------------------------------------

def keep_settings(out: str | Path, settings: dict[str, Any], results: str) -> None:
    """Write the settings beside the results; end where there are results of other settings.

    `results` is a pattern of the names of result files in `out`. Where there is none, old settings are replaced.
    """
    from nbs_lib.checkpoint import recipe_differences

    path = Path(out) / SETTINGS
    if not any(Path(out).glob(results)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return
    if not path.exists():
        sys.exit(f"{out} holds results, but no {SETTINGS} says of which settings they are; give another OUT")
    saved = read_json(path, "give another OUT")
    changes = recipe_differences(saved, json.loads(json.dumps(settings)))
    if changes:
        sys.exit(f"{out} holds results of other settings ({changes}); give another OUT")


def identity(data: SegData, train: list[int], held_out: list[int]) -> dict[str, str]:
    "Which data this is and how it is split, from the content of all files."
    from nbs_lib.checkpoint import data_recipe

    return data_recipe(data.labels, [data.pairs[i] for i in train], [data.pairs[i] for i in held_out])


def mapping_identity(mapping: str) -> str:
    "The name of a mapping and a hash of its file; empty where there is none."
    from nbs_lib.checkpoint import sha256
    from nbs_lib.mapping import mapping_file

    if not mapping:
        return ""
    path = mapping_file(mapping)
    return f"{path.stem} ({sha256(path)[:8]})"


# --- tables -------------------------------------------------------------------------------------------------------

def spread(values: list[float]) -> str:
    "Mean and standard deviation."
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


# --- a server -----------------------------------------------------------------------------------------------------

def free_port() -> int:
    "A port of this machine that nobody listens on."
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def get(port: int, path: str) -> tuple[int, str]:
    "The status and the text of an answer; status 0 where there is none, or no whole one."
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def start_server(model: str | Path, port: int, **options: Any) -> tuple[subprocess.Popen, float]:
    "A server with these options of `seg_serve`, and the seconds until it was ready."
    begin = time.monotonic()
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "model_server.command", f"--model={model}", f"--port={port}", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while get(port, "/health/ready")[0] != 200:
        if process.poll() is not None or time.monotonic() - begin > 60:
            process.kill()
            sys.exit("the server did not start; run seg_serve to see why")
        time.sleep(0.02)
    return process, time.monotonic() - begin
