"""How fast pairs are made, and where the time goes: `python benchmarks/generate.py [pairs] [size] [fast or shaded]`"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from virtual_room import Plan, generate, make_camera, make_room
from virtual_room.generate import Folder, driver_of, stage_of
from virtual_room.light import gain, shape_of, surfaces
from virtual_room.openness import filled


def stages(plan: Plan, out: Path, rooms: int, warm: int = 40) -> dict[str, float]:
    "Milliseconds of processor time a pair for each step, in one process, textures loaded"
    stage, folder, steps = stage_of(plan), Folder(out), {}
    folder.clear(None)

    def timed(name, work):
        start = time.process_time()
        result = work()
        if i >= warm: steps[name] = steps.get(name, 0) + (time.process_time() - start) * 1000 / rooms
        return result

    for i in range(rooms + warm):
        room = timed("furnish", lambda: make_room([plan.seed, i, 0]))
        if plan.renderer == "shaded":
            timed("of it mesh and exposure", lambda: gain(room, shape_of(room))), timed("of it cells for occlusion", lambda: filled(room))
            timed("mesh, cells, load and shadow map", lambda: stage.show(room))
        else:
            lit = timed("mesh and light", lambda: surfaces(room))
            timed("load", lambda: stage.load(room, lit))
        camera = make_camera(room, np.random.default_rng([plan.seed, i]))
        mask = timed("render and read mask" + " and picture" * (plan.renderer == "shaded"), lambda: stage.mask(camera))
        picture = timed("develop picture" if plan.renderer == "shaded" else "render, read and develop picture", lambda: stage.picture(camera))
        timed("encode and write", lambda: folder.write(i, picture, mask))
    return steps


def main(pairs: int = 200, size: int = 256, renderer: str = "fast") -> None:
    print(f"{pairs} pairs of {size} px, {renderer}: {driver_of(renderer)}, {len(os.sched_getaffinity(0))} cores, load before {os.getloadavg()[0]:.1f}")
    plan = Plan(size=size, renderer=renderer)
    with tempfile.TemporaryDirectory() as out:
        for workers in (1, 2):
            start = time.perf_counter()
            generate(pairs, Path(out) / str(workers), plan, workers)
            print(f"{workers} worker{'s' * (workers > 1)}, start-up and files included: {pairs / (time.perf_counter() - start):6.1f} pairs/s", flush=True)
        for name, ms in stages(plan, Path(out) / "steps", min(pairs, 100)).items(): print(f"{name:34s} {ms:6.1f} ms")


if __name__ == "__main__": main(*map(int, sys.argv[1:3]), *sys.argv[3:])
