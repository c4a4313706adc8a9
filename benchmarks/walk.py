"""Frames and answers a second of a walk at 512 px, without and with live labels.

`python benchmarks/walk.py MODEL.onnx [answers a second]`
Opens a window on DISPLAY and starts a server of the model beside it, on the same cores.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

SCRIPTS = {
    "still, no server": "wait 6",
    "walking, no server": "hold w 3\nturn 90 0\nhold d 3",
    "walking, live": "press space\nanswer 60\nhold w 4\nturn 90 0\nhold d 4\nturn 90 0\nhold s 4",
}
PORT = 4267
URL = f"http://127.0.0.1:{PORT}"


def command(entry: str, *words) -> list[str]:
    "How a `module:function` is run as a command"
    module, function = entry.split(":")
    return [sys.executable, "-c", f"from {module} import {function}; {function}.main()", *map(str, words)]


def ready() -> bool:
    "Does the server answer?"
    try:
        return urllib.request.urlopen(f"{URL}/health/ready").status == 200
    except (urllib.error.URLError, OSError):
        return False


def start_server(model: str) -> subprocess.Popen:
    "A server of the model that answers, or has ended"
    words = command("model_server.command:seg_serve", "--model", model, "--port", PORT)
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not ready() and server.poll() is None:
        time.sleep(.2)
    return server


def walk(steps: str, rate: float) -> str:
    "What a walk of these steps says at its end"
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "walk.txt"
        script.write_text(steps)
        words = command("virtual_room.walk:seg_walk", "--server", URL, "--rate", rate, "--script", script)
        done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()


def main(model: str, rate: float = 5.0) -> None:
    "Print a line a script"
    server = start_server(model)
    try:
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        print(f"{Path(model).name}, {rate:g} answers a second asked for, {cores} cores, load before {load:.1f}")
        for name, steps in SCRIPTS.items():
            print(f"{name:20s} {walk(steps, rate)}", flush=True)
    finally:
        server.kill()


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
