"""The demo that runs in the browser alone: the page of the model server, with the browser as the engine.

    python docs/browser_demo.py [FOLDER]      # default: site

`make docs` does this, too. The starter model and onnxruntime-web (MIT license) are copied beside the page. npm fetches
the package once, into .run/npm; its checksum is pinned here.
"""
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from nbs_lib.predict import STARTER, Predictor

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".run/npm"
PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
SCRIPTS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs")
WASM = "ort-wasm-simd-threaded.wasm"
PAGE = "model_server/demo.html"
FOLDER = "model_server/demo"
WITHOUT = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>What the model sees</title>
<p>This site was built without the demo: npm could not fetch what it needs. The same page comes with
<code>seg_serve</code>, at <code>/demo</code>.</p>
</html>
"""


class FetchError(Exception):
    "npm could not fetch the package, or fetched another one."


def npm_pack(folder: Path) -> Path:
    "Let npm write the package's archive into `folder`; `FetchError` where it cannot."
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except FileNotFoundError:
        raise FetchError("npm is not installed") from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        reason = (error.stderr or str(error)).strip().splitlines()[-1:]
        raise FetchError(f"npm could not fetch {PACKAGE} {VERSION}: {' '.join(reason)}") from None
    return folder / f"{PACKAGE}-{VERSION}.tgz"


def check_archive(path: Path) -> None:
    "`FetchError` where this is not the archive whose checksum is pinned."
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != SHA256:
        raise FetchError(f"npm fetched another {PACKAGE} {VERSION} than expected (sha256 {sha256})")


def package_archive() -> Path:
    "The package's archive, fetched unless it is in the cache; `FetchError` where it cannot be had."
    archive = CACHE / f"{PACKAGE}-{VERSION}.tgz"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as folder:
        fetched = npm_pack(Path(folder))
        check_archive(fetched)
        fetched.replace(archive)
    return archive


def runtime_files(archive: Path) -> dict[str, bytes]:
    "{name: bytes} of onnxruntime-web's build for WebAssembly: two scripts, and the program, compressed."
    with tarfile.open(archive) as package:
        files = {name: package.extractfile(f"package/dist/{name}").read() for name in (*SCRIPTS, WASM)}
    files[f"{WASM}.gz"] = gzip.compress(files.pop(WASM), mtime=0)
    return files


def label_rows(predictor: Predictor) -> list[dict]:
    "The labels as the server's `/v1/model` writes them: value, name and color."
    labels = predictor.labels
    return [
        dict(value=value, name=name, color=[int(part) for part in color])
        for value, (name, color) in enumerate(zip(labels.codes, labels.colors))
    ]


def description(predictor: Predictor, files: dict[str, bytes]) -> bytes:
    "model.json: what the page must know about the model, and the files to load with their sizes."
    wasm = f"onnxruntime/{WASM}.gz"
    said = dict(
        name=predictor.path.name.removesuffix(".gz"), sha256=predictor.sha256, size=predictor.size,
        background=predictor.labels.background, labels=label_rows(predictor),
        fill=[int(part) for part in predictor.fill],
        model=dict(file=predictor.path.name, bytes=len(files[predictor.path.name])),
        wasm=dict(file=wasm, bytes=len(files[wasm])),
    )
    return json.dumps(said).encode()


def page_for_browser() -> bytes:
    "The server's page with the other engine."
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    return page.replace('data-engine="server"', 'data-engine="browser"').encode()


def demo_files(archive: Path, model: Path = STARTER) -> dict[str, bytes]:
    "{path on the site: bytes} of the whole demo."
    files = {path.name: path.read_bytes() for path in (ROOT / FOLDER).iterdir() if path.is_file()}
    files |= {f"onnxruntime/{name}": content for name, content in runtime_files(archive).items()}
    files[model.name] = model.read_bytes()
    files["model.json"] = description(Predictor(model, threads=1), files)
    return {PAGE: page_for_browser(), **{f"{FOLDER}/{name}": content for name, content in files.items()}}


def demo_pages() -> dict[str, bytes]:
    "`demo_files`; where npm cannot fetch the package, one printed line and a page that says so."
    try:
        return demo_files(package_archive())
    except FetchError as error:
        print(f"the demo in the browser is left out: {error}")
        return {PAGE: WITHOUT}


def write_demo(folder: Path, files: dict[str, bytes]) -> Path:
    "Write the files below a folder; returns the path of the page."
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / PAGE


if __name__ == "__main__":
    print(write_demo(Path(*sys.argv[1:] or ["site"]), demo_pages()))
