"The walk: nobody walks through furniture, keys do what the help says, predictions never hold the walk up"

import base64
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from walk_by_hand import VALUES, colors_of_an_overlay, press_every_key, until

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS, LabelSet
from virtual_room import make_room
from virtual_room.placement import walkable
from virtual_room.scene import DEFAULT_CONFIG
from virtual_room.walk.live import LiveLabels, Prediction
from virtual_room.walk.overlay import Overlay, groups_of, place_inside
from virtual_room.walk.script import read_script
from virtual_room.walk.session import DIRECTIONS, Walk
from virtual_room.walk.viewpoint import STEEPEST, Viewpoint

REPO = Path(__file__).parent.parent
IMAGE = np.zeros((64, 64, 3), np.uint8)
BED, WALL, MUG = (ROOM_LABELS[name] for name in ("furniture_doubleBed", "building_wall", "items_mug"))


# --- a person -----------------------------------------------------------------------------------------------------

def free_spots(room, margin: float, count: int = 400) -> np.ndarray:
    "Places (n, 2) of a room that are free for so many meters around"
    rng = np.random.default_rng(0)
    spots = rng.uniform(np.min(room.outline, 0), np.max(room.outline, 0), (count, 2))
    return spots[walkable(room, spots, margin, margin)]


def test_nobody_walks_through_walls_or_furniture():
    rng = np.random.default_rng(0)
    for i in range(6):
        room = make_room([21, i])
        x, y = free_spots(room, .25)[0].tolist()
        viewpoint = Viewpoint((x, y, 1.6), 0, 0)
        for _ in range(300):
            viewpoint = viewpoint.turn(rng.uniform(-40, 40), 0).walk([(0, 1)], .05, room)
            place = np.array([viewpoint.at[:2]])
            assert walkable(room, place, .25 - 1e-6, .15 - 1e-6).all()


@pytest.mark.parametrize("key, yaw, way", [
    ("w", 90, (0, 1)), ("s", 90, (0, -1)), ("a", 90, (-1, 0)), ("d", 90, (1, 0)),
    ("w", 30, (.8660, .5)), ("d", 30, (.5, -.8660)),
])
def test_directions_are_a_persons(key, yaw, way):
    room = make_room([21, 0])
    x, y = free_spots(room, .5)[0].tolist()
    viewpoint = Viewpoint((x, y, 1.6), yaw, 0)
    moved = np.subtract(viewpoint.walk([DIRECTIONS[key]], .05, room).at, viewpoint.at)
    assert np.allclose(moved, [*np.multiply(way, 1.6 * .05), 0], atol=1e-5)


def test_a_viewpoint_turns_and_looks_ahead():
    viewpoint = Viewpoint((2.0, 2.0, 1.6), 90, 0)
    assert viewpoint.turn(90, 0).yaw == 0
    assert viewpoint.turn(0, 500).pitch == -STEEPEST
    assert viewpoint.walk([], 1, make_room([21, 0])) == viewpoint
    assert np.allclose(Viewpoint((0, 0, 1), 90, 0).target, (0, 1, 1))
    assert np.allclose(Viewpoint((0, 0, 0), 0, -45).target, (.7071, 0, -.7071), atol=1e-4)


# --- labels over the room -----------------------------------------------------------------------------------------

def test_an_overlay_shows_all_labels_half_transparent():
    colors = Overlay().colors(ROOM_LABELS)
    assert colors[BED].tolist() == [148, 195, 54, 128]
    assert colors[0, 3] == 0 and colors[255, 3] == 0


def test_an_overlay_may_show_one_group():
    assert [group for group, _ in groups_of(ROOM_LABELS)] == ["building", "furniture", "items", "live"]
    colors = Overlay(group=1, opacity=.8).colors(ROOM_LABELS)
    assert colors[BED, 3] == 204 and colors[WALL, 3] == 0


def test_an_overlay_may_hide_the_room():
    colors = Overlay(group=1, alone=True).colors(ROOM_LABELS)
    assert colors[BED].tolist() == [148, 195, 54, 255]
    assert colors[WALL].tolist() == colors[0].tolist() == [0, 0, 0, 255]


def test_an_overlay_names_what_it_shows():
    regions = ((0, .5, .5, .5), (BED, .3, .2, .4), (WALL, .199, .1, .1), (MUG, .001, .1, .1))
    prediction = Prediction(np.zeros((4, 4), np.uint8), ROOM_LABELS, regions, 1.0)
    assert Overlay().names(prediction) == [("doubleBed", .2, .4), ("wall", .1, .1)]
    assert Overlay(group=1).names(prediction) == [("doubleBed", .2, .4)]


def test_a_name_stands_on_its_label():
    "Not on the wall between two paintings"
    mask = np.zeros((10, 20), np.uint8)
    mask[2:4, 1:4] = mask[2:4, 14:19] = 7
    assert place_inside(mask, 7, (.5, .3)) == (16.5 / 20, .25)
    assert place_inside(mask, 7, (.1, .3)) == (.1, .3)  # is on it already
    assert place_inside(mask, 9, (.5, .3)) == (.5, .3)  # a label that the mask does not show


def test_an_overlay_takes_a_table_without_background():
    labels = LabelSet(("bed", "chair"), ((1, 2, 3), (4, 5, 6)), background=None)
    assert Overlay().colors(labels)[1].tolist() == [4, 5, 6, 128]
    assert len(groups_of(labels)) == 2
    assert Overlay(group=3).shown(labels) == []


# --- scripts ------------------------------------------------------------------------------------------------------

def test_scripts_are_read(tmp_path):
    path = tmp_path / "walk.txt"
    path.write_text("# to the bed\nhold w 1.5\npress space  # live\n\nturn 30 -5\n")
    assert read_script(path) == [("hold", "w", 1.5), ("press", "space"), ("turn", 30.0, -5.0)]


@pytest.mark.parametrize("line", ["jump 3", "hold w", "wait long", "press a b"])
def test_a_bad_line_of_a_script_is_named(line, tmp_path):
    path = tmp_path / "walk.txt"
    path.write_text(f"wait 1\n{line}\n")
    with pytest.raises(SegError, match="line 2.*write one of"):
        read_script(path)


def test_a_missing_script_is_said(tmp_path):
    with pytest.raises(SegError, match="cannot read the script"):
        read_script(tmp_path / "none.txt")


# --- a server -----------------------------------------------------------------------------------------------------

def answer_stripes(content: bytes) -> dict:
    "The answer to an image: five upright stripes of equal width, nothing, then a label of each group"
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    stripes = np.repeat(np.uint8(VALUES), width // 5 + 1)[:width]
    mask = np.tile(stripes, (height, 1))
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "PNG")
    rows = []
    for i, value in enumerate(VALUES):
        x, y = width * (i + .5) / 5, height / 2
        rows.append(dict(value=value, name=ROOM_LABELS.codes[value], share=.2, x=x, y=y, confidence=1))
    mask64 = base64.b64encode(png.getvalue()).decode()
    return dict(width=width, height=height, labels=rows, ms={}, model="", mask64=mask64, skipped=0)


@contextmanager
def served(port: int = 0, delay: float = .05, token: str = ""):
    "A server that speaks the protocol and has no model; its port. Its limit for a frame is the real server's"
    sync = pytest.importorskip("websockets.sync.server")
    pytest.importorskip("model_server.client")
    labels = [dict(name=name, color=color) for name, color in zip(ROOM_LABELS.codes, ROOM_LABELS.colors, strict=True)]
    card = json.dumps(dict(background=0, labels=labels))

    def talk(socket):
        for number, content in enumerate(socket):
            time.sleep(delay)
            socket.send(json.dumps(answer_stripes(content) | dict(frame=number)))

    def page(connection, request):
        if token and request.headers.get("Authorization") != f"Bearer {token}":
            return connection.respond(401, '{"error": "a token is needed"}')
        return connection.respond(200, card) if request.path == "/v1/model" else None

    with sync.serve(talk, "127.0.0.1", port, process_request=page, max_size=8 * 2**20) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def serve(live: LiveLabels) -> None:
    "What a window does once a frame"
    if live.ready:
        live.send(IMAGE)
    else:
        time.sleep(.002)


def wait_for(live: LiveLabels, answers: int) -> bool:
    "Are there so many answers, after a while?"
    return until(lambda: live.answers == answers, step=lambda: serve(live))


def test_answers_come_only_when_wanted():
    with served(delay=.01) as port:
        live = LiveLabels(f"http://127.0.0.1:{port}", rate=20)
        assert not live.ready and live.prediction is None
        live.once = True
        assert wait_for(live, 1)
        assert not live.wanted and not live.ready
        assert live.prediction.mask.shape == (64, 64)
        assert live.prediction.regions[1][0] == VALUES[1]
        assert live.prediction.ms >= 10
        live.close()


@pytest.mark.clock
def test_answers_come_at_the_rate_asked_for():
    with served(delay=.01) as port:
        live = LiveLabels(f"http://127.0.0.1:{port}", rate=20)
        live.running = True
        assert wait_for(live, 1)
        start = time.monotonic()
        assert wait_for(live, 11)
        assert .4 < time.monotonic() - start < 4
        live.close()


def test_a_lost_server_is_said_and_found_again():
    with served() as port:
        live = LiveLabels(f"http://127.0.0.1:{port}", rate=50)
        live.running = True
        assert wait_for(live, 2) and not live.trouble
    assert until(lambda: live.trouble != "", step=lambda: serve(live))
    assert str(port) in live.trouble
    before = live.answers
    with served(port):
        assert until(lambda: live.answers > before, step=lambda: serve(live))
        assert not live.trouble
        live.close()


def test_a_token_is_sent():
    with served(delay=.01, token="secret") as port:
        live = LiveLabels(f"http://127.0.0.1:{port}", rate=20)
        live.once = True
        assert until(lambda: "a token is needed" in live.trouble, step=lambda: serve(live))
        live.close()
        live = LiveLabels(f"http://127.0.0.1:{port}", rate=20, token="secret")
        live.once = True
        assert wait_for(live, 1)
        live.close()


@pytest.mark.parametrize("given, used", [("", "secret"), ("mine", "mine")])
def test_a_token_may_come_from_the_environment(given, used, monkeypatch):
    def no_walk(*settings):
        raise SegError(f"no screen, token {settings[-1]}")

    command = import_module("virtual_room.walk.command")
    monkeypatch.setattr(command, "Walk", no_walk)
    monkeypatch.setenv("SEG_SERVE_TOKEN", "secret")
    with pytest.raises(SegError, match=f"token {used}"):
        command.seg_walk("http://127.0.0.1:9", token=given)


def test_whatever_goes_wrong_is_said_and_tried_again(monkeypatch):
    tries = []

    def broken(source, token):
        tries.append(source)
        raise RuntimeError("odd")

    monkeypatch.setattr("virtual_room.walk.live.connected", broken)
    monkeypatch.setattr("virtual_room.walk.live.RETRY", .01)
    live = LiveLabels("http://127.0.0.1:9", rate=20)
    live.running = True
    assert until(lambda: len(tries) > 2)
    assert live.trouble == "no labels from http://127.0.0.1:9 (RuntimeError: odd)"
    live.close()


def test_a_connection_that_nobody_uses_is_closed(monkeypatch):
    "Before the server closes it, which would look like trouble"
    monkeypatch.setattr("virtual_room.walk.live.REST", .1)
    with served(delay=.01) as port:
        live = LiveLabels(f"http://127.0.0.1:{port}", rate=20)
        for answers in (1, 2):
            live.once = True
            assert wait_for(live, answers)
            assert until(lambda: not live._connected) and not live.trouble
        live.close()


def test_a_walk_that_cannot_begin_closes_its_window(monkeypatch):
    closed = []

    class FakeWindow:
        def __init__(self, size, title):
            pass

        def close(self):
            closed.append(self)

    def no_room(*settings):
        raise SegError("no room")

    monkeypatch.setattr("virtual_room.walk.window.Window", FakeWindow)
    monkeypatch.setattr("virtual_room.render.FastRenderer", lambda size, supersampling: None)
    monkeypatch.setattr("virtual_room.walk.session.make_room", no_room)
    with pytest.raises(SegError, match="no room"):
        Walk("", 0, 128, 5.0, DEFAULT_CONFIG)
    assert len(closed) == 1


# --- a real window ------------------------------------------------------------------------------------------------

@contextmanager
def opened_screen() -> Iterator[str]:
    "A display of its own, without a person"
    missing = [name for name in ("Xvfb", "xdotool") if not shutil.which(name)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (Debian packages xvfb, xdotool)")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x700x24"]
    process = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as file:
        yield f":{file.readline().strip()}"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def screen():
    with opened_screen() as display:
        yield display


@pytest.fixture
def elsewhere():
    "A process of its own"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.clock
def test_each_key_does_what_it_says(screen, elsewhere):
    with served() as port:
        seen = elsewhere.submit(press_every_key, screen, f"http://127.0.0.1:{port}").result(timeout=200)
    assert len(seen) == 35
    assert [name for name, good in seen.items() if not good] == []


def test_an_overlay_has_no_seam(screen, elsewhere):
    assert elsewhere.submit(colors_of_an_overlay, screen).result(timeout=60) == 1


DRAW_TWICE = """
from virtual_room import Camera, make_room
from virtual_room.render import FastRenderer

renderer = FastRenderer(32)
for seed in range(2):
    renderer.show(make_room(seed))
    renderer.mask(Camera((0.0, 0.0, 1.5), (0.0, 2.0, 1.0), fov=60))
    print("drawn", flush=True)
    input()
"""


def test_rooms_are_drawn_on_when_the_screen_goes_away():
    with opened_screen() as display:
        environment = os.environ | dict(DISPLAY=display)
        drawing = subprocess.Popen([sys.executable, "-c", DRAW_TWICE], cwd=REPO, env=environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert drawing.stdout.readline() == "drawn\n"
    rest, _ = drawing.communicate("\n\n", timeout=60)
    assert rest == "drawn\n" and drawing.returncode == 0


def walk(display: str, *words) -> subprocess.CompletedProcess:
    "Run `seg_walk` on a display"
    code = "from virtual_room.walk import seg_walk; seg_walk.main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    environment = os.environ | dict(DISPLAY=display)
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=120)


def frames_a_second(done: subprocess.CompletedProcess) -> float:
    "What a finished walk says of its speed"
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split(" frames/s")[0])


@pytest.mark.clock
def test_a_slow_answer_does_not_slow_the_walk(screen, tmp_path):
    script, live, last = tmp_path / "walk.txt", tmp_path / "live.png", tmp_path / "last.png"
    script.write_text("hold w 2\nturn 90 0\nhold a 2\n")
    alone = frames_a_second(walk(screen, "--script", script))
    script.write_text(f"press space\nanswer 20\nhold w 1\nturn 90 0\nhold a 1\nshot {live}\n")
    with served(delay=.8) as port:
        done = walk(screen, "--server", f"http://127.0.0.1:{port}", "--script", script, "--screenshot", last)
    assert frames_a_second(done) > max(2.5, alone / 3)  # a walk that waits for its answers makes 1.25
    assert Image.open(live).size == Image.open(last).size == (512, 512)


def top_lines(path: Path) -> np.ndarray:
    "The part of a window (40, W, 3) where a lost server is said"
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))[:40]


@pytest.mark.clock
def test_a_missing_server_is_said_in_the_window(screen, tmp_path):
    pytest.importorskip("model_server.client")
    script, before, after = tmp_path / "walk.txt", tmp_path / "before.png", tmp_path / "after.png"
    script.write_text(f"wait 0.3\nshot {before}\npress space\nwait 2\n")
    done = walk(screen, "--server", "http://127.0.0.1:9", "--script", script, "--screenshot", after)
    assert done.returncode == 0 and " 0 answers" in done.stdout
    changed = (top_lines(before) != top_lines(after)).any(2)
    assert changed.mean() > .3


def test_a_missing_screen_is_one_sentence(tmp_path):
    blind = walk(":989", "--screenshot", tmp_path / "none.png")
    assert blind.returncode == 1
    assert "xvfb-run" in blind.stderr and "Traceback" not in blind.stderr


@pytest.mark.parametrize("words, says", [
    (["--size", 9], "--size is 9"),
    (["--seed", -1], "--seed is -1"),
    (["--rate", 0], "--rate is 0"),
])
def test_bad_settings_are_one_sentence(words, says):
    done = walk(":989", *words)
    assert done.returncode == 1
    assert says in done.stderr and done.stderr.count("\n") == 1


def test_a_file_of_ranges_changes_the_room(screen, tmp_path):
    ranges, day, night = tmp_path / "ranges.json", tmp_path / "day.png", tmp_path / "night.png"
    ranges.write_text('{"wdth": [3, 4]}')
    wrong = walk(screen, "--config", ranges)
    assert wrong.returncode == 1 and "unknown room setting 'wdth'" in wrong.stderr
    ranges.write_text('{"width": [3, 3.5], "night": 1}')
    assert walk(screen, "--config", ranges, "--screenshot", night).returncode == 0
    assert walk(screen, "--screenshot", day).returncode == 0
    assert day.read_bytes() != night.read_bytes()
