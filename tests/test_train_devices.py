"""A training on a GPU that is not there: see `fake_gpu.py`."""

import subprocess
import sys

from conftest import ROOT


def test_step_metrics_average_checkpoint_and_resume_stay_on_the_gpu():
    command = [sys.executable, ROOT / "tests" / "fake_gpu.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("traced\n")
