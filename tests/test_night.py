"""Long work in steps: interrupted in the middle, called twice, with a job that fails; both plans at toy scale."""
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from nbs_lib.checkpoint import load_model, load_weights
from nbs_lib.core import SegError
from nbs_lib.tools import night
from nbs_lib.tools.examples import example_rooms
from nbs_lib.tools.night import (
    Job,
    Network,
    NightSettings,
    RoomSet,
    TimeIsUp,
    join_parts,
    night_jobs,
    read_results,
    run_jobs,
)
from nbs_lib.train import Step

ARCH = "unet:tu-test_resnet"
MODEL_32, MODEL_64 = "smp_unet_tu-test_resnet_32", "smp_unet_tu-test_resnet_64"


def quiet(line: str) -> None:
    "A report that nobody reads."


run_quietly = partial(run_jobs, report=quiet)


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch):
    "Float32 without measuring bfloat16, which takes long where the processor is slow in it."
    monkeypatch.setattr("nbs_lib.learner.bf16_gain", lambda device: 1.0)


def draw_rooms(rooms: RoomSet, deadline: float) -> None:
    "Drawn pairs in the place of rendered ones."
    example_rooms(rooms.folder, rooms.n, rooms.size, seed=rooms.seed)


def written(folder: Path) -> dict[str, int]:
    "When each file was written, without the table, which is written in any case."
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    return {str(path): path.stat().st_mtime_ns for path in files}


def counting_job(folder: Path, name: str, n: int, needs: tuple[str, ...] = (), errors: dict | None = None) -> Job:
    "A job of `n` pieces, one a step; `errors` are raised once in the place of a piece."
    file, errors = folder / f"{name}.count", errors or {}

    def pieces() -> int:
        return int(file.read_text()) if file.exists() else 0

    def work(deadline: float) -> None:
        error = errors.pop(pieces(), None)
        if error:
            raise error
        file.write_text(str(pieces() + 1))
        if pieces() < n:
            raise TimeIsUp(f"{pieces()} of {n} pieces")

    return Job(name, work, lambda: pieces() >= n, lambda: {"dice": 0.5}, needs)


def statuses(results) -> dict[str, str]:
    return {result.job: result.status for result in results}


# the engine

def test_an_interruption_is_written_down_and_the_next_call_goes_on(tmp_path):
    jobs = [counting_job(tmp_path, "first", 2), counting_job(tmp_path, "second", 3, errors={1: KeyboardInterrupt()})]
    with pytest.raises(KeyboardInterrupt):
        run_quietly(jobs, tmp_path)
    table = read_results(tmp_path)
    assert statuses(table.values()) == {"first": "done", "second": "interrupted"}
    assert "interrupted" in (tmp_path / "results.txt").read_text()
    results = run_quietly(jobs, tmp_path)
    assert statuses(results) == {"first": "done", "second": "done"}
    assert [result.steps for result in results] == [2, 4]
    assert results[1].dice == "0.5000"


def test_a_failing_job_says_so_and_the_others_go_on(tmp_path):
    failing = counting_job(tmp_path, "failing", 1, errors={0: OSError(28, "No space left on device")})
    jobs = [failing, counting_job(tmp_path, "dependent", 1, ("failing",)), counting_job(tmp_path, "other", 1)]
    results = run_quietly(jobs, tmp_path)
    assert statuses(results) == {"failing": "failed", "dependent": "waiting", "other": "done"}
    assert "No space left" in results[0].note and results[1].note == "for failing"
    assert "Traceback" in (tmp_path / "failing.error.txt").read_text()
    with pytest.raises(SegError, match="^failing failed"):
        night.check_results(results, tmp_path)
    assert set(statuses(run_quietly(jobs, tmp_path)).values()) == {"done"}


def test_a_call_ends_in_time(tmp_path):
    "Nothing is begun after the end of the call, and what was done before keeps its row"
    run_quietly([counting_job(tmp_path, "first", 1)], tmp_path)
    jobs = [counting_job(tmp_path, name, 1) for name in ("first", "second")]
    results = run_quietly(jobs, tmp_path, call_minutes=1e-9)
    assert statuses(results) == {"first": "done", "second": "waiting"}
    assert results[0].steps == 1


def test_work_that_ends_too_early_is_no_success(tmp_path):
    [result] = run_quietly([Job("empty", quiet, lambda: False)], tmp_path)
    assert result.status == "failed" and "not done" in result.note


# trainings in steps

def toy_network(tmp_path: Path, out: str, epochs: int):
    "The jobs of a network at one size, on drawn rooms."
    for folder, n, seed in (("train", 8, 0), ("held_out", 4, 1)):
        example_rooms(tmp_path / "rooms" / folder, n, 32, seed=seed)
    network = Network(name=out, arch=ARCH, steps=(Step(32, epochs),), images=2)
    reader = partial(night.read_rooms, tmp_path / "rooms", 8)
    return night.network_jobs(network, [reader], [()], tmp_path)


def history(folder: Path) -> list[dict]:
    return json.loads((folder / f"{MODEL_32}.json").read_text())["history"]


def test_a_training_in_steps_is_the_training_in_one(tmp_path):
    "No time: each step is one epoch. A Ctrl-C in the second epoch costs that epoch only"
    [whole] = run_quietly(toy_network(tmp_path, "whole", 3), tmp_path)
    assert (whole.status, whole.steps) == ("done", 1)

    class Interrupt(night.StepTimer):
        def after_batch(self):
            if self.epoch == 1:
                raise KeyboardInterrupt

    jobs = toy_network(tmp_path, "steps", 3)
    with night.every_learner(Interrupt(float("inf"))), pytest.raises(KeyboardInterrupt):
        run_quietly(jobs, tmp_path)
    assert (tmp_path / "steps" / f"{MODEL_32}.checkpoint").exists()
    [result] = run_quietly(jobs, tmp_path, step_minutes=1e-6)
    assert (result.status, result.steps, result.note) == ("done", 3, "3 epochs")
    for a, b in zip(history(tmp_path / "whole"), history(tmp_path / "steps"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


# the plans

@pytest.fixture
def toy(tmp_path) -> NightSettings:
    return NightSettings(out=str(tmp_path / "night"), sizes="32 64", rooms=4, held_out=2, epochs=1, arch=ARCH)


def test_the_night(toy, tmp_path):
    "All sizes on the same held-out rooms, with more rooms each time; the second call does nothing"
    out = Path(toy.out)
    results = run_quietly(night_jobs(toy, draw_rooms), out)
    assert [r.job for r in results] == ["held_out", "rooms_4", "series_32", "rooms_5", "series_64"]
    assert set(statuses(results).values()) == {"done"}
    assert all(float(r.dice) >= 0 for r in results if r.job.startswith("series"))
    small, large = (json.loads((out / "series" / f"{name}.json").read_text()) for name in (MODEL_32, MODEL_64))
    assert small["split"]["names"] == large["split"]["names"]
    assert all(name.startswith("held_out/") for name in small["split"]["names"])
    assert (small["recipe"]["pairs"], large["recipe"]["pairs"]) == (6, 7)
    assert large["recipe"]["lr"] == small["recipe"]["lr"] / 2
    assert large["recipe"]["weights"] == small["sha256"]
    before = written(out)
    again = run_quietly(night_jobs(toy, draw_rooms), out)
    assert [(r.status, r.steps) for r in again] == [("done", 1)] * 5
    assert written(out) == before


def test_the_day_on_a_gpu(toy, tmp_path, monkeypatch):
    "The series, the starter model, CamVid and VOC, one of which fails; weights are small files and join again"
    monkeypatch.setattr(night, "CAMVID_SIZES", ((32, 64),))
    monkeypatch.setattr(night, "VOC_SIZES", (32,))
    monkeypatch.setattr(night, "PHOTO_ARCH", ARCH)
    monkeypatch.setattr(night, "STARTER_ARCH", "unet:resnet18")  # large enough for two parts
    example_rooms(tmp_path / "camvid", 6, 64)
    out = Path(toy.out)
    day = replace(toy, gpu=True, sizes="32", camvid=str(tmp_path / "camvid"), voc=str(tmp_path / "missing"))
    results = run_quietly(night_jobs(day, draw_rooms), out)
    failed = {job: status for job, status in statuses(results).items() if status != "done"}
    assert failed == {"voc_32": "failed", "weights_voc": "waiting"}
    files = [path for path in (out / "weights").rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 16_000_000
    parts = out / "weights" / "starter" / "smp_unet_resnet18_32.parts.json"
    assert len(json.loads(parts.read_text())["parts"]["names"]) > 1
    joined, _ = load_model(join_parts(parts, tmp_path / "joined"))
    whole, _ = load_model(out / "starter" / "smp_unet_resnet18_32")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(joined.eval()(images), whole.eval()(images), atol=0.02, rtol=0.02)
    camvid = out / "weights" / "camvid" / "smp_unet_tu-test_resnet_32x64.parts.json"
    load_weights(join_parts(camvid, tmp_path / "joined"))


def test_a_damaged_part_is_named(tmp_path):
    for job in toy_network(tmp_path, "net", 1):
        job.work(float("inf"))
    parts = night.split_model(tmp_path / "net" / MODEL_32, tmp_path / "parts", 1_000_000)
    first = parts.parent / f"{MODEL_32}.000"
    first.write_bytes(b"x" + first.read_bytes()[1:])
    with pytest.raises(SegError, match="damaged"):
        join_parts(parts, tmp_path / "joined")
    assert not list((tmp_path / "joined").glob("*.safetensors"))


def test_rendered_rooms_grow(tmp_path, monkeypatch):
    "`seg_generate` is interrupted at the deadline and goes on; a folder grows"
    pytest.importorskip("panda3d")
    small, large = (RoomSet(tmp_path / "train", n, 32, 3) for n in (2, 3))
    night.generate_rooms(small, time.monotonic() + 300)
    assert night.has_rooms(small) and not night.has_rooms(large)
    night.generate_rooms(large, time.monotonic() + 300)
    assert night.has_rooms(large)
    monkeypatch.setattr(night, "run_until", partial(night.run_until, at_least=1))
    with pytest.raises(TimeIsUp):
        night.generate_rooms(RoomSet(tmp_path / "other", 100_000, 32, 3), time.monotonic())


# the command

def test_the_command_ends_with_its_table(toy, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(night, "night_jobs", lambda settings: [counting_job(tmp_path, "only", 2)])
    night.seg_night.main(["--out", toy.out, "--sizes", "32"])
    assert "only  done    2" in capsys.readouterr().out
    monkeypatch.setattr(night, "night_jobs", lambda settings: [Job("broken", quiet, lambda: False)])
    with pytest.raises(SystemExit):
        night.seg_night.main(["--out", toy.out])
    assert "seg_night: broken failed" in capsys.readouterr().err


def test_the_help_lists_wheels_that_the_project_knows(capsys):
    with pytest.raises(SystemExit):
        night.seg_night.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    project = (ROOT / "pyproject.toml").read_text()
    for name in night.WHEELS:
        assert name in text
        assert f'"{name}>=' in project


# the benchmark beside it

def test_time_to_quality_runs(tmp_path, monkeypatch, capsys):
    "A cycle of stock fastai and of ours, both too short to reach anything but Dice 0"
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import time_to_quality
    example_rooms(tmp_path / "data", 24, 32)
    monkeypatch.setattr(time_to_quality, "TARGETS", (0.0, 0.99))
    time_to_quality.main(str(tmp_path / "data"), "32", "0.001", "0.001", ARCH)
    text = capsys.readouterr().out
    assert text.count("not reached in 0.001 minutes") == 2
    assert text.count("minutes  Dice") == 2  # one epoch of each, and nothing from measuring the time of an epoch
    moments = [time_to_quality.Moment(10, 0.2), time_to_quality.Moment(40, 0.28)]
    ours = [time_to_quality.Moment(4, 0.31)]
    assert time_to_quality.factor_line(moments, ours, 0.2) == "Dice 0.20  ours is 2.5 times as fast"
    assert "more than 10.0 times as fast: stock had 0.280 at most in 40.0 minutes" in time_to_quality.factor_line(
        moments, ours, 0.3)
    assert time_to_quality.factor_line(moments, ours, 0.35) == ""  # neither reached it
    sys.modules.pop("time_to_quality")
