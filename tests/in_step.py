"""Is nbs_lib what nbs/ exports, and are all notebooks clean? Works on a copy, so that the working tree is only looked at."""
import filecmp, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def differing(a: Path, b: Path, pattern: str) -> list[str]:
    "Names of files that are not byte for byte the same on both sides."
    names = {p.relative_to(d).as_posix() for d in (a, b) for p in d.glob(pattern) if '.ipynb_checkpoints' not in p.parts}
    return sorted(n for n in names if not ((a/n).exists() and (b/n).exists() and filecmp.cmp(a/n, b/n, shallow=False)))


def main() -> int:
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp)/'copy'
        copy.mkdir()
        for name in ('nbs', 'nbs_lib', 'experiments'):
            if (ROOT/name).exists(): shutil.copytree(ROOT/name, copy/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
        for f in [*ROOT.glob('*.ipynb'), ROOT/'settings.ini', ROOT/'pyproject.toml']: shutil.copy(f, copy)
        for f in (copy/'nbs_lib').rglob('*.py'): f.unlink()
        for command in (['nbdev_export'], ['nbdev_clean', '--fname', '.']):
            subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], cwd=copy, check=True)
        stale = differing(ROOT, copy, 'nbs_lib/**/*.py')
        dirty = [n for p in ('*.ipynb', 'nbs/**/*.ipynb', 'experiments/*.ipynb') for n in differing(ROOT, copy, p)]
    if stale: print(f"not in step with nbs/: {', '.join(stale)}; run nbdev_export and commit", file=sys.stderr)
    if dirty: print(f"not clean: {', '.join(dirty)}; run nbdev_clean --fname . and commit", file=sys.stderr)
    if not (stale or dirty): print('nbs_lib is in step with nbs, notebooks are clean')
    return int(bool(stale or dirty))


if __name__ == '__main__': sys.exit(main())
