"What the tests of the generator share: the command in a process of its own, and what a folder holds"

import hashlib
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from virtual_room.generate import seg_generate; seg_generate.main()"]


def run(*args, **kwargs) -> subprocess.CompletedProcess:
    "Run `seg_generate` with these arguments"
    command = [*COMMAND, *map(str, args)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, **kwargs)


def digest(out: Path) -> dict[str, str]:
    "The SHA-256 of each file below a folder, by its path"
    files = [p for p in sorted(out.rglob("*")) if p.is_file()]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
