"""The benchmarks at toy scale: they run, go on where they were cut, and print what they promise."""
import csv
import importlib
import socket
import threading
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from nbs_lib.tools.examples import example_rooms

ARCH = "unet:tu-test_resnet"


@pytest.fixture
def benchmark(monkeypatch):
    "Imports a benchmark by its name; float32 without measuring bfloat16, which takes long on a slow machine."
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr("nbs_lib.learner.bf16_gain", lambda device: 1.0)
    return importlib.import_module


def test_results_of_other_settings_are_refused(benchmark, tmp_path):
    "Settings are kept with the first results; until there are some, they may change"
    common = benchmark("common")
    common.keep_settings(tmp_path, dict(size=32), "*.csv")
    common.keep_settings(tmp_path, dict(size=64, data="a"), "*.csv")
    (tmp_path / "table.csv").touch()
    common.keep_settings(tmp_path, dict(size=64, data="a"), "*.csv")
    with pytest.raises(SystemExit, match="other settings .size: 64 then, 32 now.; give another OUT"):
        common.keep_settings(tmp_path, dict(size=32, data="a"), "*.csv")
    with pytest.raises(SystemExit, match="the files of the data set are not the same"):
        common.keep_settings(tmp_path, dict(size=64, data="b"), "*.csv")
    (tmp_path / common.SETTINGS).unlink()
    with pytest.raises(SystemExit, match="no settings.json says of which settings they are"):
        common.keep_settings(tmp_path, dict(size=64, data="a"), "*.csv")


def test_a_mapping_is_known_by_its_content(benchmark, tmp_path):
    common = benchmark("common")
    shipped = ROOT / "nbs_lib" / "mappings" / "nyuv2.csv"
    copy = tmp_path / "nyuv2.csv"
    copy.write_bytes(shipped.read_bytes())
    assert common.mapping_identity("nyuv2") == common.mapping_identity(str(copy)) != common.mapping_identity("") == ""
    copy.write_bytes(shipped.read_bytes() + b"\n")
    assert common.mapping_identity("nyuv2") != common.mapping_identity(str(copy))


def test_ablation(benchmark, tmp_path, capsys):
    "Two levers, then a second seed: what is in the table is not run again"
    ablation = benchmark("ablation")
    data, out, wanted = str(tmp_path / "data"), str(tmp_path / "out"), "+ averaged weights; learning rate 4e-3"
    example_rooms(tmp_path / "data", 20, 32)
    ablation.main(data, out, "32", "16", "1", wanted)
    first = (tmp_path / "out" / "ablation.csv").read_text()
    capsys.readouterr()
    ablation.main(data, out, "32", "16", "2", wanted)
    text = (tmp_path / "out" / "ablation.csv").read_text()
    assert text.startswith(first)
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["lever"], row["seed"]) for row in rows[2:]] == [(name, "1") for name in wanted.split("; ")]
    last = capsys.readouterr().out.strip().splitlines()[-2:]
    assert all(" 2  0." in line and " ± " in line for line in last)
    example_rooms(tmp_path / "other", 20, 32, seed=1)
    with pytest.raises(SystemExit, match="the files of the data set are not the same"):
        ablation.main(str(tmp_path / "other"), out, "32", "16", "1", wanted)


@pytest.mark.parametrize("images", [8, 16, 40, 100])
def test_the_budget_of_the_ablation_is_the_same_for_all(benchmark, tmp_path, images):
    "Ours, half the size first, and stock fastai are shown as many images, but for what does not divide"
    ablation = benchmark("ablation")
    plan = ablation.Plan(example_rooms(tmp_path, 20, 32), 64, images=images)
    ours, parted = ablation.length(plan), ablation.length(plan, ablation.QUARTERS)
    steps = ablation.half_first(plan)
    assert [step.size for step in steps] == [32, 64]
    assert steps[1].epochs == 3 * steps[0].epochs and sum(step.epochs for step in steps) == parted["epochs"]
    loader = ablation.DataLoader(list(range(16)), bs=4, shuffle=True, drop_last=True)
    learn = SimpleNamespace(dls=SimpleNamespace(train=loader))
    stock = dict(epochs=ablation.stock_epochs(plan, learn), epoch_size=loader.n)
    for length in (ours, parted, stock):
        assert images - length["epochs"] < length["epochs"] * length["epoch_size"] <= images
        assert length["epoch_size"] <= 16
    assert stock == ours


def test_an_epoch_of_stock_fastai_can_be_shorter(benchmark):
    "Its images are drawn anew from all"
    ablation = benchmark("ablation")
    loader = ablation.DataLoader(list(range(16)), bs=4, shuffle=True, drop_last=True)
    ablation.limit_epoch(loader, 9)
    epochs = [[int(i) for batch in loader for i in batch] for _ in range(20)]
    assert all(len(set(epoch)) == 8 for epoch in epochs) and len(loader) == 2
    assert set().union(*epochs) == set(range(16))
    ablation.limit_epoch(loader, 3)
    assert [len(batch) for batch in loader] == [3]


def test_levers_of_the_ablation(benchmark):
    "They add up to the recipe; each of the others is the recipe but for one thing"
    ablation = benchmark("ablation")
    levers = ablation.levers()
    recipe = levers["+ batch 16 = the recipe"]
    assert (recipe["loss"], recipe["weight_classes"], recipe["ema_decay"], recipe["bs"]) == (
        "cross_entropy+0.5*dice", 0.5, 0.998, 16)
    assert levers["cross-entropy, batch 32"]["loss"] == "cross_entropy"
    zoom = {"max_zoom", "max_shift", "cache_size"}  # one thing: how far, where to, and pixels to show there
    warp = {"max_rotate", "max_zoom"}  # one thing: pixels stay where they are
    for name in ablation.CHANGED:
        changed = {key for key, value in levers[name].items() if recipe.get(key) != value}
        assert len(changed) == 1 or changed in (zoom, warp) or name == ablation.HALF_FIRST
        assert recipe.keys() <= levers[name].keys()
    with pytest.raises(SystemExit):
        ablation.chosen("no such lever")


def test_the_split_of_the_ablation_is_the_same_for_all_seeds(benchmark, tmp_path):
    ablation = benchmark("ablation")
    data = ablation.with_fixed_split(example_rooms(tmp_path, 20, 32))
    assert ablation.split_pairs(data, seed=1) == ablation.split_pairs(data, seed=2)


def test_one_room(benchmark, tmp_path, capsys):
    "The same room from other poses; the original's figures beside ours; the second call trains nothing"
    pytest.importorskip("panda3d")
    one_room = benchmark("one_room")
    out = str(tmp_path / "out")
    one_room.main(out, "3", "6", "32:1 64:1", ARCH)
    text = capsys.readouterr().out
    line = text.strip().splitlines()[-1].split()
    assert line[:3] == ["64", "0.7744", "16"] and 0 <= float(line[3]) <= 1
    one_room.main(out, "3", "6", "32:1 64:1", ARCH)
    with open(tmp_path / "out" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["steps"]) for row in rows] == [
        ("train", "1"), ("held_out", "1"), ("room_32", "1"), ("room_64", "1")]


def test_close_the_loop(benchmark, tmp_path, capsys):
    "Both ways are trained once and scored on photos and rooms; the second call trains nothing"
    pytest.importorskip("panda3d")
    loop = benchmark("close_the_loop")
    photos, out = str(tmp_path / "photos"), tmp_path / "out"
    example_rooms(tmp_path / "photos", 6, 32)
    words = (photos, str(out), "", "", "20", "32", "16", "16", "1", ARCH)
    loop.main(*words)
    text = capsys.readouterr().out
    scores = sorted(path.name for path in (out / "scores").iterdir())
    assert scores == ["before_0.json", "default_rooms_0.json", "rooms_for_the_report_score_0.json"]
    lines = [line for line in text.splitlines() if line.startswith(("photos ", "rooms "))]
    assert len(lines) == 6 and loop.FOR in lines[2] and loop.FOR in lines[5]
    models = {path: path.stat().st_mtime_ns for path in out.rglob("models/*/*.safetensors")}
    assert sorted(path.parent.name for path in models) == ["default_0", "first", "for_score_0"]
    loop.main(*words)
    assert models == {path: path.stat().st_mtime_ns for path in models}
    table = "first 16, 16 more images"
    assert capsys.readouterr().out.partition(table)[2] == text.partition(table)[2] != ""
    with pytest.raises(SystemExit, match="size: 32 then, 64 now, more: 16 then, 20 now"):
        loop.main(photos, str(out), "", "", "20", "64", "16", "20", "1", ARCH)
    by_confidence = loop.Loop(photos, str(out), by="confidence")
    first = next(path for path in models if path.parent.name == "first")
    assert "mean confidence" in str(loop.write_report(by_confidence, first))


def test_halves_of_the_photos_do_not_meet(benchmark, tmp_path):
    loop = benchmark("close_the_loop")
    chosen_by, scored = loop.halves(example_rooms(tmp_path, 7, 32))
    assert sorted(chosen_by + scored) == list(range(7)) and len(chosen_by) == 3


def test_labelled_photos(benchmark, tmp_path, capsys, monkeypatch):
    "From scratch and after renders, judged on other photos; the second call trains nothing"
    from nbs_lib.train import TrainSettings, train_model
    labelled_photos = benchmark("labelled_photos")
    monkeypatch.setattr(labelled_photos, "EPOCH_IMAGES", 8)
    exported = []

    def export_first(weights, folder):  # an export takes longer than the training
        exported.append(exported[0] if exported else export(weights, folder))
        return exported[0]

    export = labelled_photos.export_onnx
    monkeypatch.setattr(labelled_photos, "export_onnx", export_first)
    rooms, photos, out = example_rooms(tmp_path / "rooms", 8, 32), tmp_path / "photos", tmp_path / "out"
    example_rooms(photos, 12, 32, seed=1)
    train_model(rooms, TrainSettings(size="32", epochs=1, arch=ARCH, bs=4, out=str(tmp_path)), bar=False)
    weights = str(tmp_path / "smp_unet_tu-test_resnet_32.safetensors")
    arguments = (str(photos), weights, str(out), "0 2", "8", "32", "1", "same")
    labelled_photos.main(*arguments)
    first = (out / "labelled_photos.csv").read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert [(row["photos"], row["start"]) for row in rows] == [("0", "renders"), ("2", "scratch"), ("2", "renders")]
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-2].split()[:2] == ["0", "-"] and len(lines[-1].split()) == 4
    labelled_photos.main(*arguments)
    assert (out / "labelled_photos.csv").read_text() == first and len(exported) == 3
    with pytest.raises(SystemExit, match="mapping:  then, nyuv2 .*give another OUT"):
        labelled_photos.main(*arguments[:-1], "nyuv2")


def test_photos_to_judge_on_show_other_scenes(benchmark, tmp_path):
    labelled_photos = benchmark("labelled_photos")
    plan = labelled_photos.Plan(example_rooms(tmp_path / "a", 20, 32, images_per_room=2), "", tmp_path, 1, "32", "", "")
    train, judged = labelled_photos.split_by_scene(plan.photos)
    rooms = [{plan.photos.pairs[i].group for i in part} for part in (train, judged)]
    assert not rooms[0] & rooms[1] and len(judged) == 6
    film = plan.photos.pairs[0].__class__
    pairs = tuple(film(pair.image, pair.mask) for pair in plan.photos.pairs)
    train, judged = labelled_photos.split_by_scene(plan.photos.__class__(tmp_path, "plain", plan.photos.labels, pairs))
    assert judged == list(range(14, 20)) and train == list(range(12))
    few, more = (labelled_photos.chosen_photos(plan, n, seed=3) for n in (4, 9))
    assert more[:4] == few and set(more) <= set(labelled_photos.split_by_scene(plan.photos)[0])


def test_shards(benchmark, tmp_path, capsys, monkeypatch):
    "Every way to write and to read, then a set by two Dask workers: each a row with its ratio to the first way"
    for name in ("panda3d", "distributed", "s3fs", "moto"):
        pytest.importorskip(name)
    shards = benchmark("shards")
    monkeypatch.setattr(shards, "PAIRS_EACH", 4)
    monkeypatch.setattr(shards, "SECONDS", 0.2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # which it changes
    shards.main("rates", "24", "48", "32", "1")
    lines = capsys.readouterr().out.splitlines()
    assert sum(" pairs/s" in line for line in lines) == 2 * 5
    assert sum(" samples/s" in line for line in lines) == 2 * 4
    assert "the 6 shards are the same at 3 places" in lines
    shards.main("large", str(tmp_path / "large"), "8", "32", "2")
    shards.main("large", str(tmp_path / "large"), "24", "32", "2")
    text = capsys.readouterr().out
    assert "16 pairs of 32 px" in text and "(8 were there)" in text
    assert text.count("as one process draws it") == 4 + 10
    header, *rows = csv.reader((tmp_path / "large" / "memory.csv").read_text().splitlines())
    assert header == ["seconds", "shards", "client", "scheduler", "worker 1", "worker 2"]
    assert all(float(row[2]) > 10 for row in rows)


def test_mixed_sizes(benchmark, tmp_path, capsys):
    "Both ways are trained and judged at the photos' own sizes; an unknown way is refused"
    mixed_sizes = benchmark("mixed_sizes")
    example_rooms(tmp_path, 10, 48)
    mixed_sizes.main(str(tmp_path), "mixed:32 square:32", "0.001", ARCH, "2")
    lines = [line for line in capsys.readouterr().out.splitlines() if "mean IoU" in line]
    assert [line.split(":")[0] for line in lines] == [
        "mixed 32 px, seed 0", "mixed 32 px, seed 1", "square 32 px, seed 0", "square 32 px, seed 1"]
    assert all(0 <= float(line.split("mean IoU ")[1].split()[0]) <= 1 for line in lines)
    with pytest.raises(SystemExit, match="'round:32' is no way"):
        mixed_sizes.main(str(tmp_path), "round:32")


def test_methods_of_regions(benchmark, tmp_path):
    "W-Net has a seed in its name; an unknown method is named before anything is trained"
    regions = benchmark("regions")
    names = ("W-Net", "W-Net:2", "W-Net:two", "SLIC")
    assert [regions.seed_of(name) for name in names] == [0, 2, None, None]
    assert list(regions.wanted_methods(("SLIC",), [], tmp_path, 1)) == ["SLIC"]
    with pytest.raises(SystemExit, match="'slick' is no method; give some of k-means"):
        regions.wanted_methods(("W-Net", "slick"), [], tmp_path, 1)
    assert not any(tmp_path.iterdir())


def test_what_a_method_of_regions_adds_is_told_on_the_same_images(benchmark, capsys):
    "Images differ by much, the methods always by 0.1: the difference has no error"
    regions = benchmark("regions")
    scores = np.linspace(0, 1, 30).reshape(10, 3)
    regions.print_folds({"boundaries": scores, "W-Net": scores + 0.1})
    first, other = capsys.readouterr().out.splitlines()[-2:]
    assert "± 0.000" not in first
    assert other.split("against boundaries:")[1].split() == ["0.100", "±", "0.000"] * 3


def test_attacks_are_known_by_name(benchmark):
    attack = benchmark("attack")
    attack.check_names(["none", "60 slow bodies"])
    with pytest.raises(SystemExit, match="there is no attack 'slow'; take some of: 'none', "):
        attack.check_names(["slow"])


def test_an_attack_is_counted(benchmark):
    "Both ways to attack count what they sent; without a server nothing is sent"
    attack = benchmark("attack")
    _, sent = attack.new_attackers("none", 0, 0.0)
    with answering(b"") as port:
        attack.send_again_and_again(port, time.monotonic() + 0.3, sent, b"a")
        first = sent.value
        attack.hold(port, time.monotonic() + 0.3, sent, 3, b"a")
        second = sent.value
    assert 1 < first < first + 3 <= second
    attack.hold(port, time.monotonic() + 0.1, sent, 3, b"a")
    assert sent.value == second


@pytest.mark.parametrize("code,fails", [(0, False), (None, False), (1, True), (-11, True)])
def test_an_attacker_that_failed_ends_the_benchmark(benchmark, code, fails):
    "Else its row would show a server that nobody attacked"
    attack = benchmark("attack")
    ended = []
    attackers = [SimpleNamespace(join=lambda _: None, kill=lambda: ended.append(1), exitcode=one) for one in (0, code)]
    if fails:
        with pytest.raises(SystemExit, match=f"an attacker of 'none' ended with code {code}"):
            attack.end_attackers("none", attackers)
    else:
        attack.end_attackers("none", attackers)
    assert len(ended) == 2


HALF_AN_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"


@pytest.mark.parametrize("answer", [HALF_AN_ANSWER, b"nonsense\r\n\r\n", b""])
def test_half_an_answer_is_lost(benchmark, answer):
    "It is counted, the client goes on, and its time is no time of a health request"
    load = benchmark("load")
    answers, seen = load.Answers(), load.Watched()
    with answering(answer) as port:
        load.never_rest(port, time.monotonic() + 0.3, [b"image"], answers)
        load.ask_health(port, seen)
    assert answers.count["lost"] > 1 and not answers.seconds
    assert (seen.health, seen.unhealthy) == ([], 1)


@contextmanager
def answering(answer: bytes):
    "The port of a server that sends the same to every client and closes the connection."
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_all, args=(server, answer))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)  # ends accept
            thread.join()


def answer_all(server: socket.socket, answer: bytes) -> None:
    "Answer until the server is shut down."
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client, suppress(OSError):
            client.recv(65536)
            client.sendall(answer)


def test_this_server_is_measured_as_seg_serve_runs_it(benchmark):
    "With its own protocols; only a connection may rest longer"
    serve = benchmark("serve")
    from model_server.uvicorn_protocols import BoundedHttpProtocol
    from nbs_lib.predict import Predictor
    used = []
    config = serve.uvicorn.Config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve.uvicorn, "Config", lambda app, **options: used.append(options) or config(app, **options))
        with serve.our_server(Predictor()) as connection:
            connection.request("GET", "/health/live")
            assert connection.getresponse().status == 200
    assert used[0]["http"] is BoundedHttpProtocol and not used[0]["server_header"]
