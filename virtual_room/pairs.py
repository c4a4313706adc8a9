"""One pair from a plan and a number: an image, its mask, and what else the plan wants to know of it.

Knows rooms by `make_room` and `make_camera`, and the engine by its renderers only. Must not know files.
"""

from __future__ import annotations

import numpy as np

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room.camera import make_camera
from virtual_room.lens import through_lens
from virtual_room.plan import Plan
from virtual_room.rooms import make_room
from virtual_room.scene import Room

POSES, ROOMS = 8, 50  # poses tried in a room, and rooms tried for a pair
MIN_LABELS, MAX_SHARE, MAX_EMPTY = 3, .85, .3  # of a mask worth learning from
MILLIMETERS = 1000  # in a meter


def choose_renderer(renderer: str) -> str:
    "`auto` is shaded where there is a GPU with OpenGL, else fast; other names stay"
    if renderer != "auto":
        return renderer
    from virtual_room.shaded import hardware
    return "shaded" if hardware() else "fast"


def driver_of(renderer: str) -> str:
    "The driver that will draw, or a `SegError` that says what is missing"
    if renderer == "fast":
        from virtual_room.render import driver
    else:
        from virtual_room.shaded import driver
    return driver()


def make_renderer(plan: Plan):
    "The renderer of a plan; it loads the engine"
    if plan.renderer == "fast":
        from virtual_room.render import FastRenderer
        return FastRenderer(plan.size)
    from virtual_room.shaded import ShadedRenderer
    wants_geometry = {"depth", "normals"} & set(plan.annotations)
    return ShadedRenderer(plan.size, geometry=bool(wants_geometry))


class PairMaker:
    "Draws the pairs of a plan, one after the other, with one renderer"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.renderer = make_renderer(plan)
        self.room: Room | None = None
        self.camera = None
        self._room_seed: int | list[int] | None = None

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and mask (H, W), uint8, of a number: the first pose, then the first room, that shows enough.

        `SegError` where none does.
        """
        for attempt in range(ROOMS):
            self._enter(self.plan.room_seed(index, attempt))
            for pose in range(POSES):
                rng = np.random.default_rng(self.plan.pose_seed(index, attempt, pose))
                self.camera = make_camera(self.room, rng, self.plan.config)
                mask = self.renderer.mask(self.camera)
                if worth_learning(mask):
                    return through_lens(self.renderer.image(self.camera), self.camera, rng), mask
        views = f"no view of {ROOMS} rooms shows {MIN_LABELS} labels for image {index}"
        raise SegError(f"{views}; widen the ranges of the room settings")

    def _enter(self, seed: int | list[int]) -> None:
        "Show the room of a seed, unless it is shown already"
        if self._room_seed == seed:
            return
        self.room, self._room_seed = make_room(seed, self.plan.config, self.plan.assets), seed
        self.renderer.show(self.room)

    def annotations(self) -> dict[str, np.ndarray | list]:
        """What the plan wants besides the mask of the pair made last, by folder.

        Instances and depth in millimeters are (H, W) uint16, normals (H, W, 3) uint8, objects a list.
        """
        wanted, found = set(self.plan.annotations), {}
        if wanted & {"instances", "boxes", "visible"}:
            found["instances"] = self.renderer.instances(self.camera).astype(np.uint16)
        if wanted & {"boxes", "visible"}:
            found["objects"] = self._objects(found["instances"])
        if wanted & {"depth", "normals"}:
            depth, normals = self.renderer.geometry(self.camera)
        if "depth" in wanted:
            found["depth"] = (depth * MILLIMETERS).round().astype(np.uint16)
        if "normals" in wanted:
            found["normals"] = ((normals + 1) * 127.5).round().astype(np.uint8)
        return found

    def _objects(self, instances: np.ndarray) -> list[dict]:
        "The objects of the pair made last, with the share of each that nothing hides where that is wanted"
        objects = describe_objects(instances, self.room, "boxes" in self.plan.annotations)
        if "visible" not in self.plan.annotations:
            return objects
        totals = self.renderer.uncovered(self.camera, [row["id"] - 1 for row in objects])
        for row, total in zip(objects, totals, strict=True):
            whole = max(total, row["pixels"])  # a wall may be seen by its seal alone, which `uncovered` leaves out
            row["visible"] = round(row["pixels"] / whole, 4)
        return objects


def describe_objects(instances: np.ndarray, room: Room, boxes: bool) -> list[dict]:
    "The objects in an instance mask (H, W), 0 for none: number, label, kind, pixels, perhaps box [x, y, width, height]"
    objects = []
    for i in np.unique(instances[instances > 0]).tolist():
        found, shown = instances == i, room.objects[i - 1]
        row = dict(id=i, label=shown.label, kind=shown.kind, pixels=int(found.sum()))
        if boxes:
            row["box"] = bounding_box(found)
        objects.append(row)
    return objects


def bounding_box(found: np.ndarray) -> list[int]:
    "[x, y, width, height] of the True pixels of (H, W)"
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def count_labels(mask: np.ndarray) -> np.ndarray:
    "Pixels (n_classes,) of each label in a mask"
    return np.bincount(mask.ravel(), minlength=ROOM_LABELS.n_classes)


def worth_learning(mask: np.ndarray) -> bool:
    "At least three labels, none over 85 % of the mask, and little that is empty"
    pixels = count_labels(mask)
    labels = (pixels[1:] > 0).sum()
    return bool(labels >= MIN_LABELS and pixels.max() <= MAX_SHARE * mask.size and pixels[0] <= MAX_EMPTY * mask.size)
