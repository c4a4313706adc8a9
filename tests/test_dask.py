"Pairs drawn by a Dask cluster of separate processes that share no folder: the same bytes as from one process"

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("panda3d")
pytest.importorskip("distributed")
pytest.importorskip("fsspec")

from generated import PATIENCE, REPO, Cluster, digest, object_store, wait_until

from nbs_lib.core import SegError
from nbs_lib.shards import Store
from virtual_room import Plan, drawing, generate
from virtual_room.cluster import draw, environment
from virtual_room.generate import generate_shards
from virtual_room.pairs import PairMaker
from virtual_room.shards import Shards

PLAN = Plan(seed=8, size=48, images_per_room=2)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    "The URL of an S3-compatible server, which the workers can reach too"
    with object_store() as url:
        yield url


@pytest.fixture(scope="module")
def cluster(bucket, tmp_path_factory) -> Iterator[Cluster]:
    "A scheduler and two workers"
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        found.add_worker()
        found.add_worker()
        yield found
    finally:
        found.stop()


def test_one_worker_dies_and_one_is_added(cluster, tmp_path):
    "Without a folder in common: what the workers draw comes back to this process"
    out = tmp_path / "dask"

    def trouble() -> None:
        wait_until(lambda: len(list(out.glob("*.json"))) > 3)
        cluster.workers[0].kill()
        cluster.add_worker()

    thread = threading.Thread(target=trouble)
    thread.start()
    manifest = generate_shards(32, out, PLAN, 2, dask=cluster.address)
    thread.join()
    generate_shards(32, tmp_path / "one", PLAN, 2)
    assert manifest["complete"] and manifest["count"] == 32
    assert digest(out) == digest(tmp_path / "one")


def test_workers_write_to_an_object_store_themselves(cluster, bucket, tmp_path):
    url = f"{bucket}/dask"
    generate_shards(10, url, PLAN, 4, dask=cluster.address)
    generate_shards(10, tmp_path / "one", PLAN, 4)
    store = Store(url)
    assert {name: store.read(name) for name in store.sizes()} == {
        path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    kept = store.place("pairs-000000.tar")[0].modified(store.place("pairs-000000.tar")[1])
    assert generate_shards(10, url, PLAN, 4, dask=cluster.address)["complete"]
    assert store.place("pairs-000000.tar")[0].modified(store.place("pairs-000000.tar")[1]) == kept


def test_a_folder_of_files_is_the_same(cluster, tmp_path):
    generate(3, tmp_path / "dask", PLAN)
    generate(8, tmp_path / "dask", PLAN, dask=cluster.address)
    generate(8, tmp_path / "one", PLAN)
    assert digest(tmp_path / "dask") == digest(tmp_path / "one")


def test_the_script_of_a_cluster(tmp_path):
    "deploy/rooms.sbatch, with a stand-in for Slurm's `srun` that runs on this machine alone."
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text('#!/bin/bash\nshift\nexec "$@"\n')  # without --cpus-per-task
    srun.chmod(0o755)
    paths = [str(srun.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | dict(PATH=os.pathsep.join(paths), PYTHONPATH=str(REPO), SLURM_CPUS_PER_TASK="2")
    options = ["--size", 48, "--seed", 8, "--renderer", "fast", "--out", tmp_path / "slurm"]
    command = ["bash", REPO / "deploy" / "rooms.sbatch", 4, *options]
    script = subprocess.Popen(list(map(str, command)), cwd=tmp_path, env=environment, start_new_session=True)
    try:
        assert script.wait(3 * PATIENCE) == 0
    finally:
        with suppress(ProcessLookupError):  # where all have ended
            os.killpg(script.pid, signal.SIGKILL)
    generate(4, tmp_path / "one", Plan(seed=8, size=48))
    assert digest(tmp_path / "slurm") == digest(tmp_path / "one")


# --- on a worker --------------------------------------------------------------------------------------------------

def test_a_worker_needs_no_folder(tmp_path):
    target = Shards(Store(str(tmp_path / "elsewhere")), 2)
    packed, = draw(PLAN, target, [2, 3], environment(PLAN))
    assert not (tmp_path / "elsewhere").exists()
    assert packed.shard.rooms == (1, 1)
    with pytest.raises(SegError, match="not with other versions"):
        draw(PLAN, target, [2, 3], "other versions")


def test_each_thread_of_a_worker_has_a_process_that_draws():
    found = {}

    def ask(name: str) -> None:
        makers = [drawing.call_beside(type, PLAN) for _ in range(2)]
        found[name] = (makers, drawing._of_thread.drawing.process.pid)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["a"][0] == found["b"][0] == [PairMaker] * 2
    assert len({os.getpid(), found["a"][1], found["b"][1]}) == 3


def test_a_crash_while_drawing_costs_one_question():
    process = drawing.DrawingProcess()
    assert process.call(type, PLAN) is PairMaker
    process.process.kill()
    with pytest.raises(SegError, match="a process that draws ended"):
        process.call(type, PLAN)
    assert drawing.call_beside(type, PLAN) is PairMaker


def test_a_missing_scheduler_is_one_sentence(tmp_path):
    with pytest.raises(SegError, match="no Dask scheduler answers at nowhere"):
        generate(1, tmp_path, Plan(size=32), dask="nowhere://x")
