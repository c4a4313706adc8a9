"""The console command `seg_walk`."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from nbs_lib.core import SegError, seg_command
from virtual_room.scene import DEFAULT_CONFIG, load_config
from virtual_room.walk.live import is_address
from virtual_room.walk.script import play, read_script
from virtual_room.walk.session import Walk, run

SETTLE = [("wait", .3)]  # what is done before a screenshot without a script


@seg_command(settings="")  # config is a file of ranges
def seg_walk(
    server: str = "",  # Where a seg_serve listens, such as http://127.0.0.1:4200; empty: label in this process
    model: str = "",  # ONNX file that labels in this process; empty: the starter model of the package
    seed: int = 0,  # Another seed, another room
    size: int = 512,  # Width and height of the window in pixels, 128 to 1024
    rate: float = 5.0,  # Answers a second to ask for
    config: str = "",  # A JSON file with ranges of the rooms, see RoomConfig
    script: str = "",  # A file of steps that drive the walk instead of a person
    screenshot: str = "",  # Save the last image here and end
    token: str = "",  # The token of the server, where it asks for one. Better: SEG_SERVE_TOKEN
):
    "Walk through a room and see it labelled by a model, or by a model server. Press H in the window for the keys."
    check_numbers(seed, size, rate)
    steps = steps_of(script, screenshot)
    room_config = load_config(config) if config else DEFAULT_CONFIG
    source = source_of(server, model)
    print(f"labels by {source or 'the starter model of the package'}", file=sys.stderr)
    walk = Walk(source, seed, size, rate, room_config, token or os.environ.get("SEG_SERVE_TOKEN", ""))
    start = time.perf_counter()
    try:
        run(walk, play(walk, steps) if steps is not None else None)
        if screenshot:
            walk.window.save(screenshot)
    finally:
        walk.close()
    print(_summary(walk, time.perf_counter() - start))


def check_numbers(seed: int, size: int, rate: float) -> None:
    "`SegError` for a number that is out of range"
    if seed < 0:
        raise SegError(f"--seed is {seed}; give 0 or more")
    if not 128 <= size <= 1024:
        raise SegError(f"--size is {size}; give 128 to 1024 pixels")
    if not .1 <= rate <= 60:
        raise SegError(f"--rate is {rate:g}; give 0.1 to 60 answers a second")


def steps_of(script: str, screenshot: str) -> list | None:
    "The steps that drive the walk; None where a person does"
    if script:
        return read_script(script)
    return SETTLE if screenshot else None


def source_of(server: str, model: str) -> str:
    "Where labels come from: the address of a server, a model file, or nothing for the starter model"
    if server and model:
        raise SegError("--server and --model are both given; give one of them")
    if server and not is_address(server):
        raise SegError(f"--server is {server}; give an address, such as http://127.0.0.1:4200")
    return server or model


def _summary(walk: Walk, took: float) -> str:
    "What a finished walk says: frames and answers a second, and how long frames took"
    ms, answers = 1000 * np.array(walk.seconds[1:] or [0.0]), walk.live.answers
    frames = f"{len(ms) / took:.1f} frames/s (median {np.median(ms):.1f} ms, 99 % under {np.percentile(ms, 99):.1f} ms)"
    return f"{frames}, {answers} answers, {answers / took:.1f}/s"
