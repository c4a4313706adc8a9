"""A process of its own that draws for one thread, so that each thread of a Dask worker keeps a processor busy.

The engine draws in one thread of a process, and a Dask worker may not start processes by `multiprocessing`.
So this one is started as a program, and asked over its pipe. It ends when the pipe does, and a crash of the engine
ends it alone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO

from nbs_lib.core import SegError
from virtual_room.pairs import PairMaker
from virtual_room.plan import Plan

_of_thread = threading.local()


@lru_cache(maxsize=1)
def _maker(plan: Plan) -> PairMaker:
    return PairMaker(plan)


class DrawingProcess:
    "A process that calls functions with the `PairMaker` of a plan"

    def __init__(self) -> None:
        command = [sys.executable, "-m", "virtual_room.drawing"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, function: Callable, plan: Plan, *args) -> Any:
        "The result of `function(maker, *args)` there; what it raises, and `SegError` where the process ended"
        try:
            pickle.dump((function, plan, args), self.process.stdin)
            self.process.stdin.flush()
            answer = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise SegError(f"a process that draws ended with status {self.process.wait()}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def call_beside(function: Callable, plan: Plan, *args) -> Any:
    "`function(maker, *args)` in the drawing process of this thread, which is started where there is none"
    drawing = getattr(_of_thread, "drawing", None)
    if drawing is None or drawing.process.poll() is not None:
        drawing = _of_thread.drawing = DrawingProcess()
    return drawing.call(function, plan, *args)


def _answer(questions: BinaryIO) -> Any:
    "The result of the next question, or the exception that it ended with; `EOFError` after the last one"
    function, plan, args = pickle.load(questions)
    try:
        return function(_maker(plan), *args)
    except Exception as error:
        return error


def main() -> None:
    "Answer questions until there are no more"
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the engine prints is no answer
    while True:
        try:
            answer = _answer(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
