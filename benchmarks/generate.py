"""How fast pairs are made, and where the time goes: `python benchmarks/generate.py [pairs] [size] [fast or shaded]`"""

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from virtual_room import Plan, generate, make_camera, make_room
from virtual_room.encode import encode
from virtual_room.light import gain, surfaces
from virtual_room.meshes import build_mesh
from virtual_room.occupancy import occupied
from virtual_room.pairs import driver_of, make_renderer
from virtual_room.writer import Folder

WARM_UP = 40  # pairs that only load textures


class Stopwatch:
    "Adds up the processor time of named steps, in milliseconds"

    def __init__(self) -> None:
        self.ms = Counter()

    def __call__(self, name: str, work: Callable):
        "Do some work and add its time; its result"
        start = time.process_time()
        result = work()
        self.ms[name] += (time.process_time() - start) * 1000
        return result


def make_pair(plan: Plan, renderer, folder: Folder, index: int, timed: Stopwatch) -> None:
    "Make and write one pair, each step timed"
    room = timed("furnish", lambda: make_room([plan.seed, index, 0]))
    if plan.renderer == "shaded":
        timed("of it mesh and exposure", lambda: gain(room, build_mesh(room)))
        timed("of it cells for occlusion", lambda: occupied(room))
        timed("mesh, cells, load and shadow map", lambda: renderer.show(room))
    else:
        lit = timed("mesh and light", lambda: surfaces(room))
        timed("load", lambda: renderer.load(room, lit))
    camera = make_camera(room, np.random.default_rng([plan.seed, index]))
    mask = timed("draw and read mask", lambda: renderer.mask(camera))
    image = timed("draw, read and develop image", lambda: renderer.image(camera))
    timed("encode and write", lambda: folder.write(encode(index, index, image, mask)))


def time_steps(plan: Plan, out: Path, pairs: int) -> dict[str, float]:
    "Milliseconds of processor time a pair for each step, in one process, textures loaded"
    renderer, folder = make_renderer(plan), Folder(out)
    folder.clear(None)
    for index in range(WARM_UP):
        make_pair(plan, renderer, folder, index, Stopwatch())
    timed = Stopwatch()
    for index in range(WARM_UP, WARM_UP + pairs):
        make_pair(plan, renderer, folder, index, timed)
    return {name: ms / pairs for name, ms in timed.ms.items()}


def pairs_a_second(plan: Plan, out: Path, pairs: int, workers: int) -> float:
    "Start-up and files included"
    start = time.perf_counter()
    generate(pairs, out, plan, workers)
    return pairs / (time.perf_counter() - start)


def main(pairs: int = 200, size: int = 256, renderer: str = "fast") -> None:
    "Print the speed with one and two workers, and the steps"
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{pairs} pairs of {size} px, {renderer}: {driver_of(renderer)}, {cores} cores, load before {load:.1f}")
    plan = Plan(size=size, renderer=renderer)
    with tempfile.TemporaryDirectory() as out:
        for workers, name in ((1, "1 worker"), (2, "2 workers")):
            speed = pairs_a_second(plan, Path(out) / name, pairs, workers)
            print(f"{name}, start-up and files included: {speed:6.1f} pairs/s", flush=True)
        for name, ms in time_steps(plan, Path(out) / "steps", min(pairs, 100)).items():
            print(f"{name:34s} {ms:6.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
