"""One known room, like the original: its Dice beside ours, and how long each took.

    python benchmarks/one_room.py OUT [ROOM] [POSES] ["64:16m 128:9m 256:30m"] [ARCH]

The original trained and validated on images of one furnished room. Here are POSES images of the room that
`seg_walk --seed ROOM` shows, and a fifth as many from other poses to validate on. That measures memory of a room, not
what is known of rooms. Interrupted, the same command goes on; sizes that are in OUT/results.csv are not trained again.
"""
import os
import sys
from functools import partial
from pathlib import Path

import torch

from nbs_lib.tools.night import (
    HELD_OUT_SEED,
    Job,
    Network,
    Result,
    RoomSet,
    check_results,
    network_jobs,
    read_rooms,
    room_job,
    run_jobs,
)
from nbs_lib.train import Step, parse_ladder
from virtual_room import Plan, generate

NAME = "room"
ORIGINAL = {64: (0.7744, 16), 128: (0.8577, 9), 256: (0.9015, 30)}  # size: Dice, minutes on a GPU


def draw_poses(room: int, images: RoomSet, deadline: float) -> None:
    "Bring a folder to its number of images of one room; the deadline is not looked at, as this takes a minute."
    plan = Plan(seed=images.seed, size=images.size, one_room=room)
    generate(images.n, images.folder, plan, len(os.sched_getaffinity(0)))


def room_jobs(out: Path, room: int, poses: int, steps: list[Step], arch: str) -> list[Job]:
    "Images to train on, images of other poses, and a training at each size."
    folder, size = out / "images", steps[-1].size
    sets = [RoomSet(folder / "train", poses, size, 0),
            RoomSet(folder / "held_out", max(2, poses // 5), size, HELD_OUT_SEED)]
    drawing = [room_job(images.folder.name, images, partial(draw_poses, room)) for images in sets]
    network = Network(name=NAME, arch=arch, steps=tuple(steps))
    readers, needs = [partial(read_rooms, folder, poses)] * len(steps), [("train", "held_out")] * len(steps)
    return [*drawing, *network_jobs(network, readers, needs, out)]


def line(step: Step, result: Result) -> str:
    "The original's figures at a size, and ours."
    dice, minutes = ORIGINAL.get(step.size, ("-", "-"))
    ours = f"{result.dice or result.status:>10}{result.foreground_accuracy or '-':>21}{result.minutes:>9.1f}"
    return f"{step.size:>5}{dice:>15}{minutes:>17}{ours}"


def print_table(steps: list[Step], results: list[Result]) -> None:
    "A line a size."
    found = {result.job: result for result in results}
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    print(f"\nours on {where}, torch {torch.__version__}")
    header = f"{'size':>5}{'original Dice':>15}{'minutes, GPU':>17}{'our Dice':>10}"
    print(f"{header}{'foreground accuracy':>21}{'minutes':>9}")
    for step in steps:
        print(line(step, found[f"{NAME}_{step.size}"]))


def main(out: str, room: str = "0", poses: str = "2000", ladder: str = "64:16m 128:9m 256:30m",
         arch: str = "unet:resnet18") -> None:
    steps = parse_ladder(ladder)
    results = run_jobs(room_jobs(Path(out), int(room), int(poses), steps, arch), out, step_minutes=30,
                       report=partial(print, flush=True))
    print_table(steps, results)
    check_results(results, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
