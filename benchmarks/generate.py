"""How fast pairs are made, and where the time goes: `python benchmarks/generate.py [pairs] [size]`"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from virtual_room import Plan, generate, make_camera, make_room
from virtual_room.generate import Folder
from virtual_room.light import surfaces
from virtual_room.render import Stage


def stages(plan: Plan, out: Path, rooms: int, warm: int = 40) -> dict[str, float]:
    "Milliseconds a pair for each step, in one process, textures loaded"
    stage, folder, steps = Stage(plan.size), Folder(out), {}
    folder.clear(None)

    def timed(name, work):
        start = time.perf_counter()
        result = work()
        if i >= warm: steps[name] = steps.get(name, 0) + (time.perf_counter() - start) * 1000 / rooms
        return result

    for i in range(rooms + warm):
        room = timed("furnish", lambda: make_room([plan.seed, i, 0]))
        lit = timed("mesh and light", lambda: surfaces(room))
        timed("load", lambda: stage.load(room, lit))
        camera = make_camera(room, np.random.default_rng([plan.seed, i]))
        mask = timed("render and read mask", lambda: stage.mask(camera))
        picture = timed("render, read and develop picture", lambda: stage.picture(camera))
        timed("encode and write", lambda: folder.write(i, picture, mask))
    return steps


def main(pairs: int = 200, size: int = 256) -> None:
    print(f"{pairs} pairs of {size} px, {len(os.sched_getaffinity(0))} cores, load before {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as out:
        for workers in (1, 2):
            start = time.perf_counter()
            generate(pairs, Path(out) / str(workers), Plan(size=size), workers)
            print(f"{workers} worker{'s' * (workers > 1)}, start-up and files included: {pairs / (time.perf_counter() - start):6.1f} pairs/s")
        for name, ms in stages(Plan(size=size), Path(out) / "steps", min(pairs, 100)).items(): print(f"{name:34s} {ms:6.1f} ms")


if __name__ == "__main__": main(*map(int, sys.argv[1:]))
