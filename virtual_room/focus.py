"""Which labels the next rooms shall show more of: those that a report says a model is worst at.

Reads what `seg_eval --report` and `seg_predict --report` write. Must not know models, nor how rooms are made.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room.scene import FOCUS_LABELS

LEAST_SHARE = 5e-4  # of all pixels of a report: what is said about labels with fewer of them is chance
CHOSEN = 3  # the worst one of so many labels is chosen
MEASURES = dict(iou="IoU", confidence="mean confidence")  # by their names in a report, the better one first
TOGETHER = " + "  # between labels that were scored as one class
GIVE = "give a file that seg_eval --report or seg_predict --report has written"


@dataclass(frozen=True)
class Judged:
    "What a report says about a class: one label, or several that were scored as one"
    labels: tuple[str, ...]
    pixels: int  # that are annotated as the class, or predicted where there are no annotations
    score: float | None  # 0 to 1; None where there is nothing to score


@dataclass(frozen=True)
class Choice:
    "The labels that a report asks for more of"
    report: str
    measure: str  # in words
    weights: dict[str, float]  # by label: 1 - score

    def __str__(self) -> str:
        labels = ", ".join(f"{label} {1 - weight:.2f}" for label, weight in self.weights.items())
        return f"for {self.report}, more of the labels of the lowest {self.measure}, and close-ups of them: {labels}"


def choose_focus(path: str | Path) -> Choice:
    """The worst labels of a report, the worst first, with the weights for `RoomConfig.focus`.

    Of the classes that rooms can show more of and that have enough pixels, the worst third. `SegError` where there is
    none, where the file is no report, or where it is of other labels.
    """
    rows = _read_rows(path)
    measure = _measure_of(rows, path)
    judged = [_judged(row, measure, path) for row in rows]
    _check_labels(judged, path)
    weights = {}
    for found in worst(judged):
        weights |= dict.fromkeys(found.labels, round(1 - found.score, 2))
    if not any(weights.values()):
        raise SegError(f"the report {path} says nothing bad of a label that rooms can show more of; {GIVE}")
    return Choice(Path(path).name, MEASURES[measure], weights)


def worst(judged: list[Judged]) -> list[Judged]:
    "The worst third of the classes that rooms can show more of and that have enough pixels, the worst first"
    least = LEAST_SHARE * sum(found.pixels for found in judged)
    enough = [found for found in judged if found.score is not None and found.pixels >= max(1, least)]
    candidates = [found for found in enough if set(found.labels) <= set(FOCUS_LABELS)]
    candidates.sort(key=lambda found: found.score)
    return candidates[:math.ceil(len(candidates) / CHOSEN)]


# --- reading ------------------------------------------------------------------------------------------------------

def _read_rows(path: str | Path) -> list[dict[str, Any]]:
    "The rows of the classes of a report; `SegError` where there are none"
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise SegError(f"cannot read the report {path}: {e}; {GIVE}") from None
    rows = report.get("classes") if isinstance(report, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _no_report(path)
    if not rows:
        raise SegError(f"the report {path} is empty; {GIVE}")
    return rows


def _no_report(path: str | Path) -> SegError:
    return SegError(f"{path} is no report; {GIVE}")


def _measure_of(rows: list[dict[str, Any]], path: str | Path) -> str:
    "Which of `MEASURES` all rows have; `SegError` where there is none"
    for measure in MEASURES:
        if all(measure in row for row in rows):
            return measure
    raise _no_report(path)


def _judged(row: dict[str, Any], measure: str, path: str | Path) -> Judged:
    "A row of a report, checked"
    name, pixels, score = row.get("label"), row.get("pixels"), row[measure]
    is_scored = type(score) in (int, float) and 0 <= score <= 1
    if not isinstance(name, str) or type(pixels) is not int or pixels < 0 or not (score is None or is_scored):
        raise _no_report(path)
    return Judged(tuple(name.split(TOGETHER)), pixels, score)


def _check_labels(judged: list[Judged], path: str | Path) -> None:
    "`SegError` where a class is of other labels than those of the rooms"
    named = [label for found in judged for label in found.labels]
    unknown = [label for label in named if label not in ROOM_LABELS.codes]
    if unknown:
        what = f"the report {path} is of other labels than those of the rooms, such as {unknown[0]!r}"
        raise SegError(f"{what}; score with a model of the rooms' labels, and --mapping for the data's")
