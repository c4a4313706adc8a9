"""The outputs shown in the library notebooks: made by running them, and known to belong to the code beside them.

    python tests/outputs.py                        run every notebook of nbs/ whose code has changed since it was run
    python tests/outputs.py nbs/08_metrics.ipynb   run these
    python tests/outputs.py --check                exit with 1 when a notebook shows outputs of older code
"""
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from nbs_lib.core import atomic_path, write_json
from nbs_lib.tools.series import tidy

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "nbs" / "outputs.json"  # {notebook: hash of the code whose outputs it shows}


def code_hash(path: Path) -> str:
    "Hash of all code cells of a notebook, in order."
    notebook = nbformat.read(path, 4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def name_of(path: Path) -> str:
    "How a notebook is called in the record: its path below nbs/."
    return path.resolve().relative_to(ROOT / "nbs").as_posix()


def read_record() -> dict[str, str]:
    "The hashes of the code that was run last; empty when nothing was."
    if not RECORD.exists():
        return {}
    return json.loads(RECORD.read_text(encoding="utf-8"))


def stale_notebooks() -> list[Path]:
    "The library notebooks whose code is not the code that was run."
    record = read_record()
    notebooks = sorted((ROOT / "nbs").rglob("[0-9]*.ipynb"))
    return [path for path in notebooks if record.get(name_of(path)) != code_hash(path)]


def run_notebook(path: Path) -> None:
    "Execute a notebook in its own folder, save it with its outputs, and record which code they belong to."
    notebook = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, startup_timeout=600, timeout=600, kernel_name="python3", resources=resources)
    client.execute()
    with atomic_path(path) as temporary:
        nbformat.write(tidy(notebook), temporary)
    clean = Path(sys.executable).with_name("nbdev_clean")
    subprocess.run([clean, "--fname", str(path)], cwd=ROOT, check=True)
    record = read_record()
    record[name_of(path)] = code_hash(path)
    write_json(RECORD, dict(sorted(record.items())))


def main() -> int:
    arguments = sys.argv[1:]
    if arguments == ["--check"]:
        stale = [name_of(path) for path in stale_notebooks()]
        if stale:
            print(f"these notebooks show outputs of older code: {', '.join(stale)}; run `make notebooks` and commit")
        return int(bool(stale))
    for path in [Path(name) for name in arguments] or stale_notebooks():
        print(f"running {name_of(path)}", flush=True)
        run_notebook(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
