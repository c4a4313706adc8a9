"The walkable window: a person who cannot walk through furniture, keys that do what the help says, labels that never hold the walk up"

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
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS, LabelSet
from virtual_room import RoomConfig, make_room
from virtual_room.live import Answer, Live
from virtual_room.placement import walkable
from virtual_room.walk import STEEPEST, Eye, Veil, groups_of, read_script

REPO = Path(__file__).parent.parent


# --- a person -----------------------------------------------------------------------------------------------------

def test_nobody_walks_through_walls_or_furniture():
    rng = np.random.default_rng(0)
    for i in range(6):
        room = make_room([21, i])
        spots = rng.uniform(np.min(room.outline, 0), np.max(room.outline, 0), (400, 2))
        eye = Eye((*spots[np.argmax(walkable(room, spots))].tolist(), 1.6), 0, 0)
        for _ in range(300):
            eye = eye.turn(rng.uniform(-40, 40), 0).walk([(0, 1)], .05, room)
            assert walkable(room, np.array([eye.at[:2]]), .25 - 1e-6, .15 - 1e-6).all()


def test_directions_are_a_persons():
    room, eye = make_room([21, 0]), Eye((2.0, 2.0, 1.6), 90, 0)
    free = lambda way: Eye((2.0, 2.0, 1.6), 90, 0).walk([way], .05, room).at
    if free((0, 1)) != eye.at: assert free((0, 1))[1] > 2.0
    if free((1, 0)) != eye.at: assert free((1, 0))[0] > 2.0
    assert eye.turn(90, 0).yaw == 0 and eye.turn(0, 500).pitch == -STEEPEST and eye.walk([], 1, room) == eye
    assert np.allclose(Eye((0, 0, 1), 90, 0).target, (0, 1, 1)) and np.allclose(Eye((0, 0, 0), 0, -45).target, (.7071, 0, -.7071), atol=1e-4)


# --- a veil of labels ---------------------------------------------------------------------------------------------

def test_the_veil_shows_groups_opacity_and_nothing_else():
    bed, wall = ROOM_LABELS["furniture_doubleBed"], ROOM_LABELS["building_wall"]
    assert [g for g, _ in groups_of(ROOM_LABELS)] == ["building", "furniture", "items", "live"]
    all_, furniture = Veil().colours(ROOM_LABELS), Veil(group=1, opacity=.8).colours(ROOM_LABELS)
    assert all_[bed].tolist() == [148, 195, 54, 128] and all_[0, 3] == 0 and all_[255, 3] == 0
    assert furniture[bed, 3] == 204 and furniture[wall, 3] == 0
    alone = Veil(group=1, alone=True).colours(ROOM_LABELS)
    assert alone[bed].tolist() == [148, 195, 54, 255] and alone[wall].tolist() == [0, 0, 0, 255] and alone[0].tolist() == [0, 0, 0, 255]
    answer = Answer(np.zeros((4, 4), np.uint8), ROOM_LABELS, ((0, .5, .5, .5), (bed, .3, .2, .4), (wall, .199, .1, .1), (ROOM_LABELS["items_mug"], .001, .1, .1)), 1.0)
    assert Veil().names(answer) == [("doubleBed", .2, .4), ("wall", .1, .1)] and Veil(group=1).names(answer) == [("doubleBed", .2, .4)]
    plain = LabelSet(("bed", "chair"), ((1, 2, 3), (4, 5, 6)), background=None)
    assert Veil().colours(plain)[1].tolist() == [4, 5, 6, 128] and len(groups_of(plain)) == 2


# --- scripts ------------------------------------------------------------------------------------------------------

def test_scripts_are_read_and_bad_lines_named(tmp_path):
    path = tmp_path / "walk.txt"
    path.write_text("# to the bed\nhold w 1.5\npress space  # live\n\nturn 30 -5\n")
    assert read_script(path) == [("hold", "w", 1.5), ("press", "space"), ("turn", 30.0, -5.0)]
    for bad in ("jump 3", "hold w", "wait long", "press a b"):
        path.write_text(f"wait 1\n{bad}\n")
        with pytest.raises(SegError, match="line 2.*write one of"): read_script(path)
    with pytest.raises(SegError, match="cannot read the script"): read_script(tmp_path / "none.txt")


# --- a server -----------------------------------------------------------------------------------------------------

VALUES = [0, *(ROOM_LABELS[n] for n in ("building_wall", "furniture_doubleBed", "items_tv", "live_dog"))]


def _answer(picture: bytes) -> dict:
    "Five upright stripes of equal width: nothing, then a label of each group"
    width, height = Image.open(io.BytesIO(picture)).size
    mask = np.repeat(np.uint8(VALUES), width // 5 + 1)[None, :width].repeat(height, 0)
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "PNG")
    rows = [dict(value=v, name=ROOM_LABELS.codes[v], share=.2, x=width * (i + .5) / 5, y=height / 2, confidence=1) for i, v in enumerate(VALUES)]
    return dict(width=width, height=height, labels=rows, ms={}, model="", mask64=base64.b64encode(png.getvalue()).decode(), skipped=0)


@contextmanager
def served(port: int = 0, delay: float = .05):
    "A server that speaks the protocol and has no model; its port"
    sync = pytest.importorskip("websockets.sync.server")
    pytest.importorskip("model_server.client")
    card = json.dumps(dict(background=0, labels=[dict(name=n, color=c) for n, c in zip(ROOM_LABELS.codes, ROOM_LABELS.colors)]))

    def talk(socket):
        for number, picture in enumerate(socket):
            time.sleep(delay)
            socket.send(json.dumps(_answer(picture) | dict(frame=number)))

    def page(connection, request): return connection.respond(200, card) if request.path == "/v1/model" else None

    with sync.serve(talk, "127.0.0.1", port, process_request=page, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try: yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def until(true, seconds: float = 15.0, step=lambda: time.sleep(.005)) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end: step()
    return bool(true())


PICTURE = np.zeros((64, 64, 3), np.uint8)


def test_answers_come_at_the_rate_asked_for_and_only_when_wanted():
    with served(delay=.01) as port:
        live = Live(f"http://127.0.0.1:{port}", rate=20)
        serve = lambda: live.send(PICTURE) if live.ready else time.sleep(.002)
        assert not live.ready and live.answer is None
        live.once = True
        assert until(lambda: live.answers == 1, step=serve) and not live.wanted and not live.ready
        assert live.answer.mask.shape == (64, 64) and live.answer.regions[1][0] == VALUES[1] and live.answer.ms >= 10
        live.running, start = True, time.monotonic()
        assert until(lambda: live.answers == 11, step=serve)
        assert .4 < time.monotonic() - start < 4
        live.close()


def test_a_lost_server_is_said_and_found_again():
    with served() as port:
        live = Live(f"http://127.0.0.1:{port}", rate=50)
        serve = lambda: live.send(PICTURE) if live.ready else time.sleep(.002)
        live.running = True
        assert until(lambda: live.answers == 2, step=serve) and not live.trouble
    assert until(lambda: live.trouble, step=serve) and str(port) in live.trouble
    had = live.answers
    with served(port):
        assert until(lambda: live.answers > had, step=serve) and not live.trouble
        live.close()


# --- a real window ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def screen():
    "A display of its own, without a person"
    missing = [name for name in ("Xvfb", "xdotool") if not shutil.which(name)]
    if missing: pytest.skip(f"{' and '.join(missing)} not installed (Debian packages xvfb, xdotool)")
    read, write = os.pipe()
    process = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "800x700x24"], pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as f: yield f":{f.readline().strip()}"
    process.terminate(), process.wait()


def _press_every_key(display: str, url: str) -> dict:
    "In a process of its own: what each key, pressed for real, changes"
    os.environ["DISPLAY"] = display
    from virtual_room.walk import Walk
    walk, seen = Walk(url, 3, 512, 20.0, RoomConfig()), {}
    tool = lambda *words: subprocess.run(["xdotool", *map(str, words)], check=True)

    def frames(true, seconds=10.0): return until(true, seconds, lambda: (walk.frame(.02), time.sleep(.005)))
    def key(name, true): tool("key", name); seen[name] = frames(true) or walk.veil
    def stripes():
        "Colours (5, 3) in the upper part of the five stripes, where no text is"
        frames(lambda: False, .1)
        return walk.window.pixels()[400, 51::102][:5].astype(int)

    tool("mousemove", 256, 256)
    frames(lambda: False, .5)
    bare = stripes()
    where = walk.eye
    for way in "wasd":
        tool("keydown", way)
        moved = frames(lambda: walk.eye.at != where.at, 3)
        tool("keyup", way)
        frames(lambda: False, .2)
        rest = walk.eye.at
        frames(lambda: False, .2)
        seen[way], where = moved and walk.eye.at == rest, walk.eye
    tool("mousedown", 1)
    frames(lambda: False, .2)
    tool("mousemove_relative", "--", 80, 40)
    seen["drag"] = frames(lambda: walk.eye.yaw != where.yaw and walk.eye.pitch < where.pitch)
    tool("mouseup", 1)
    frames(lambda: False, .2)
    where = walk.eye
    tool("mousemove_relative", "--", -60, 0)
    frames(lambda: False, .3)
    seen["no drag"] = walk.eye == where

    bare = stripes()
    key("e", lambda: walk.shown is not None)
    once = stripes()
    seen["e shows all"] = (once[1:] != bare[1:]).any(1).all() and (once[0] == bare[0]).all() and not walk.live.running
    key("e", lambda: walk.shown is None)
    seen["e clears"] = (stripes() == bare).all()
    key("space", lambda: walk.live.answers > 4)
    for i, name in enumerate(("F1", "F2", "F3", "F4")):
        key(name, lambda: walk.veil.group == i)
        seen[f"{name} shows"] = ((stripes() != bare).any(1) == (np.arange(5) == i + 1)).all()
        tool("key", name), frames(lambda: walk.veil.group is None)
    half = stripes()
    key("plus", lambda: walk.veil.opacity > .55)
    palette = ROOM_LABELS.palette[VALUES].astype(int)
    seen["more opaque"] = (np.abs(stripes() - palette)[1:].sum() < np.abs(half - palette)[1:].sum())
    key("minus", lambda: abs(walk.veil.opacity - .5) < .01)
    key("q", lambda: walk.veil.alone)
    seen["labels alone"] = np.abs(stripes() - palette).max() <= 8
    key("q", lambda: not walk.veil.alone)
    key("h", lambda: walk.help)
    seen["help"] = walk.window.lines["middle"][0] != ()
    room = walk.room
    key("n", lambda: walk.room != room)
    key("Escape", lambda: walk.over)
    seen["figures"] = walk.figures()
    walk.close()
    return seen


def test_each_key_does_what_it_says(screen):
    with served() as port, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seen = pool.submit(_press_every_key, screen, f"http://127.0.0.1:{port}").result(timeout=200)
    figures = seen.pop("figures")
    assert "frame" in figures and "answer" in figures
    assert {k: v for k, v in seen.items() if v is not True and not isinstance(v, np.bool_) or not v} == {}


def _covered(display: str) -> int:
    "Colours in a window that lays one colour, half transparent, over nothing"
    os.environ["DISPLAY"] = display
    from virtual_room.window import Window
    window = Window(256, "one colour")
    window.lay_over(np.full((64, 64, 4), (200, 100, 50, 128), np.uint8))
    window.draw()
    colours = np.unique(window.pixels().reshape(-1, 3), axis=0)
    window.close()
    return len(colours)


def test_an_overlay_has_no_seam(screen):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool: assert pool.submit(_covered, screen).result(timeout=60) == 1


def _walk(display: str, *args, **more):
    command = [sys.executable, "-c", "from virtual_room.walk import seg_walk; seg_walk.main()", *map(str, args)]
    return subprocess.run(command, cwd=REPO, env=os.environ | dict(DISPLAY=display), capture_output=True, text=True, timeout=120, **more)


def test_a_slow_answer_does_not_slow_the_walk(screen, tmp_path):
    (tmp_path / "walk.txt").write_text(f"press space\nanswer 20\nhold w 1\nturn 90 0\nhold a 1\nshot {tmp_path / 'live.png'}\n")
    with served(delay=.8) as port:
        done = _walk(screen, "--server", f"http://127.0.0.1:{port}", "--script", tmp_path / "walk.txt", "--screenshot", tmp_path / "last.png")
    assert done.returncode == 0, done.stderr
    frames = float(done.stdout.split(" frames/s")[0])
    assert frames > 8 and Image.open(tmp_path / "live.png").size == Image.open(tmp_path / "last.png").size == (512, 512)


def test_without_server_or_screen_it_says_so(screen, tmp_path):
    pytest.importorskip("model_server.client")
    (tmp_path / "walk.txt").write_text(f"wait 0.3\nshot {tmp_path / 'before.png'}\npress space\nwait 1\n")
    done = _walk(screen, "--server", "http://127.0.0.1:9", "--script", tmp_path / "walk.txt", "--screenshot", tmp_path / "after.png")
    assert done.returncode == 0 and " 0 answers" in done.stdout
    before, after = (np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB"))[:40] for n in ("before", "after"))
    assert (before != after).any(2).mean() > .3  # the message
    blind = _walk(":989", "--screenshot", tmp_path / "none.png")
    assert blind.returncode == 1 and "xvfb-run" in blind.stderr and "Traceback" not in blind.stderr
    ranges = tmp_path / "ranges.json"
    ranges.write_text('{"wdth": [3, 4]}')
    wrong = _walk(screen, "--config", ranges)
    assert wrong.returncode == 1 and "unknown room setting 'wdth'" in wrong.stderr
    ranges.write_text('{"width": [3, 3.5], "night": 1}')
    assert _walk(screen, "--config", ranges, "--screenshot", tmp_path / "night.png").returncode == 0
    assert _walk(screen, "--size", 9).returncode == 1 and _walk(screen, "--rate", 0).returncode == 1
