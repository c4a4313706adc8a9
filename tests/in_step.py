"""Is nbs_lib what nbs/ exports, and are all notebooks clean? Works on a copy: the working tree is only looked at."""
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("nbs", "nbs_lib", "experiments")
NOTEBOOKS = ("*.ipynb", "nbs/**/*.ipynb", "experiments/*.ipynb")


def differing(a: Path, b: Path, pattern: str) -> list[str]:
    "Names of files that are not byte for byte the same on both sides."
    found = [path.relative_to(folder) for folder in (a, b) for path in folder.glob(pattern)]
    names = {path.as_posix() for path in found if ".ipynb_checkpoints" not in path.parts}
    return sorted(name for name in names if not same(a / name, b / name))


def same(a: Path, b: Path) -> bool:
    "Are both files there, with the same content?"
    return a.exists() and b.exists() and filecmp.cmp(a, b, shallow=False)


def copy_sources(target: Path) -> None:
    "Copy what nbdev reads, without the modules that it writes."
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in FOLDERS:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
    for file in [*ROOT.glob("*.ipynb"), ROOT / "settings.ini", ROOT / "pyproject.toml"]:
        shutil.copy(file, target)
    for file in (target / "nbs_lib").rglob("*.py"):
        file.unlink()


EXPORT_AND_CLEAN = """
from nbdev.clean import nbdev_clean
from nbdev.doclinks import nbdev_export
nbdev_export()
nbdev_clean(fname='.')
"""


def export_and_clean(folder: Path) -> None:
    "Let nbdev write the modules, and take out of the notebooks what it would take out; it looks where it is started."
    subprocess.run([sys.executable, "-c", EXPORT_AND_CLEAN], cwd=folder, check=True)


def main() -> int:
    "Say what is not in step; 1 where there is anything."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.mkdir()
        copy_sources(copy)
        export_and_clean(copy)
        stale = differing(ROOT, copy, "nbs_lib/**/*.py")
        dirty = [name for pattern in NOTEBOOKS for name in differing(ROOT, copy, pattern)]
    if stale:
        print(f"not in step with nbs/: {', '.join(stale)}; run nbdev_export and commit", file=sys.stderr)
    if dirty:
        print(f"not clean: {', '.join(dirty)}; run nbdev_clean --fname . and commit", file=sys.stderr)
    if not (stale or dirty):
        print("nbs_lib is in step with nbs, notebooks are clean")
    return int(bool(stale or dirty))


if __name__ == "__main__":
    sys.exit(main())
