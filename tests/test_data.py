"Data sets: files that are whole, folders of every layout, splits that are remembered, and commands described by a dataclass."
import json
import os
import stat
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbs_lib.core import SegError, atomic_path, seg_command


def test_a_new_file_does_not_loosen_the_permissions_of_others(tmp_path, monkeypatch):
    "While one thread writes a file, files of other threads get the permissions that the user asked for."
    change = os.umask

    def slow_change(mask):
        before = change(mask)
        time.sleep(0.2)
        return before

    def write():
        with atomic_path(tmp_path/"ours.txt") as temporary:
            temporary.write_text("x")

    before = change(0o077)
    monkeypatch.setattr(os, "umask", slow_change)
    try:
        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.1)
        (tmp_path/"theirs.txt").touch()
        writer.join()
    finally:
        change(before)
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ours.txt": "-rw-------", "theirs.txt": "-rw-------"}


RECIPE = '''
from dataclasses import dataclass
from nbs_lib.core import seg_command

@dataclass
class Data:
    "Which data."
    data: str = "rooms"     # Folder of the data set

@dataclass
class Recipe(Data):
    "How to train."
    size: str = "64"        # Pixels, 100 % of them
    lr: float | None = None # Highest learning rate
    ema: bool = False       # Average the weights?

@seg_command
def seg_recipe(recipe: Recipe):
    "Train."
    print(recipe)
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    "A command whose options are the fields of a dataclass, in a module of its own."
    (tmp_path/"recipe_module.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    import recipe_module
    yield recipe_module
    del sys.modules["recipe_module"]


def test_the_fields_of_a_dataclass_are_the_options_of_a_command(recipe, capsys):
    recipe.seg_recipe.main(["--size", "128", "--lr", "1e-3", "--ema"])
    assert capsys.readouterr().out.strip() == str(recipe.Recipe("rooms", "128", 0.001, True))
    with pytest.raises(SystemExit):
        recipe.seg_recipe.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for text in ("Folder of the data set (default: rooms)", "Pixels, 100 % of them", "Average the weights?", "--config"):
        assert text in said


def test_the_fields_of_a_dataclass_are_the_keys_of_a_file(recipe, tmp_path, capsys):
    settings = tmp_path/"settings.yaml"
    settings.write_text("size: 96\nlr: 1e-4\ndata: faces\n")
    recipe.seg_recipe.main(["--config", str(settings), "--data", "streets"])
    assert capsys.readouterr().out.strip() == str(recipe.Recipe("streets", "96", 1e-4, False))
    for text, says in (("sise: 96", "'sise'"), ("lr: fast", "no float"), ("config: a.yaml", "'config'")):
        settings.write_text(text)
        with pytest.raises(SystemExit):
            recipe.seg_recipe.main(["--config", str(settings)])
        assert says in capsys.readouterr().err
