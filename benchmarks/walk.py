"""Frames and answers a second of a walk at 512 px, without and with live labels: `python benchmarks/walk.py MODEL.onnx [answers a second]`

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

SCRIPTS = {"still, no server": "wait 6", "walking, no server": "hold w 3\nturn 90 0\nhold d 3",
           "walking, live": "press space\nanswer 60\nhold w 4\nturn 90 0\nhold d 4\nturn 90 0\nhold s 4"}
PORT = 4267


def command(name: str, *args) -> list[str]:
    module, function = name.split(":")
    return [sys.executable, "-c", f"from {module} import {function}; {function}.main()", *map(str, args)]


def ready() -> bool:
    try: return urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health/ready").status == 200
    except (urllib.error.URLError, OSError): return False


def main(model: str, rate: float = 5.0) -> None:
    server = subprocess.Popen(command("model_server.app:seg_serve", "--model", model, "--port", PORT), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not ready() and server.poll() is None: time.sleep(.2)
        print(f"{Path(model).name}, {rate:g} answers a second asked for, {len(os.sched_getaffinity(0))} cores, load before {os.getloadavg()[0]:.1f}")
        with tempfile.TemporaryDirectory() as folder:
            for name, steps in SCRIPTS.items():
                script = Path(folder) / "walk.txt"
                script.write_text(steps)
                done = subprocess.run(command("virtual_room.walk:seg_walk", "--server", f"http://127.0.0.1:{PORT}", "--rate", rate, "--script", script), capture_output=True, text=True)
                print(f"{name:20s} {done.stdout.strip() or done.stderr.strip()}", flush=True)
    finally: server.kill()


if __name__ == "__main__": main(sys.argv[1], *map(float, sys.argv[2:]))
