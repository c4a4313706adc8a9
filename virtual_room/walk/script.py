"""A file of steps that drive a walk instead of a person. Must not know the window."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nbs_lib.core import SegError

if TYPE_CHECKING:
    from virtual_room.walk.session import Walk

STEPS = dict(wait=(float,), press=(str,), hold=(str, float), turn=(float, float), answer=(float,), shot=(str,))
TIMED = ("wait", "hold", "answer")  # their last word is a number of seconds


def read_script(path: str | Path) -> list[tuple]:
    """The steps of a file, one a line, `#` starting a comment; `SegError` names a line that is none.

    `wait S`, `press KEY`, `hold KEY S`, `turn RIGHT DOWN` (degrees), `shot FILE`,
    and `answer S` (wait for the next prediction, S seconds at most).
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise SegError(f"cannot read the script {path} ({e})") from None
    steps = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            steps.append(_step(*words))
        except (KeyError, ValueError):
            known = ", ".join(STEPS)
            fault = f"{path}, line {number}: '{line.strip()}' is no step"
            raise SegError(f"{fault}; write one of {known} with what it needs") from None
    return steps


def _step(verb: str, *words: str) -> tuple:
    "A verb and its words, each of its kind"
    return (verb, *[kind(word) for kind, word in zip(STEPS[verb], words, strict=True)])


def play(walk: Walk, steps: list[tuple]) -> Iterator[None]:
    "Drive a walk; yields once a frame"
    for verb, *words in steps:
        until = time.monotonic() + (words[-1] if verb in TIMED else 0)
        before = walk.live.answers
        _begin(walk, verb, words)
        yield
        while time.monotonic() < until:
            if verb == "answer" and walk.live.answers > before:
                break
            yield
        walk.held_keys.clear()
    yield


def _begin(walk: Walk, verb: str, words: list) -> None:
    "Do what a step asks for at once"
    if verb == "press":
        walk.press(words[0])
    elif verb == "turn":
        walk.viewpoint = walk.viewpoint.turn(*words)
    elif verb == "hold":
        walk.held_keys.add(words[0])
    elif verb == "shot":
        walk.window.save(words[0])
