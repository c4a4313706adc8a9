"""Frames and answers a second of a walk at 512 px, without and with live labels.

`python benchmarks/walk.py MODEL.onnx [answers a second]`
Opens a window on DISPLAY and starts a server of the model beside it, on the same cores.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import HOST, free_port, start_server

SCRIPTS = {
    "still, no server": "wait 6",
    "walking, no server": "hold w 3\nturn 90 0\nhold d 3",
    "walking, live": "press space\nanswer 60\nhold w 4\nturn 90 0\nhold d 4\nturn 90 0\nhold s 4",
}


def command(entry: str, *words) -> list[str]:
    "How a `module:function` is run as a command"
    module, function = entry.split(":")
    return [sys.executable, "-c", f"from {module} import {function}; {function}.main()", *map(str, words)]


def walk(steps: str, rate: float, url: str) -> str:
    "What a walk of these steps says at its end"
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "walk.txt"
        script.write_text(steps)
        words = command("virtual_room.walk:seg_walk", "--server", url, "--rate", rate, "--script", script)
        done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()


def main(model: str, rate: float = 5.0) -> None:
    "Print a line a script"
    port = free_port()
    server, _ = start_server(model, port)
    try:
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        print(f"{Path(model).name}, {rate:g} answers a second asked for, {cores} cores, load before {load:.1f}")
        for name, steps in SCRIPTS.items():
            print(f"{name:20s} {walk(steps, rate, f'http://{HOST}:{port}')}", flush=True)
    finally:
        server.kill()


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
