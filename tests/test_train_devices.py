"""The tests of `fake_gpu.py`, in a process of their own."""

import subprocess
import sys

from conftest import ROOT

# torch's fake CUDA tensors can leave a process that crashes at its very end, after its tests: it ends without that end
RUN = """
import os, sys, pytest
status = pytest.main(["-q", "-p", "no:cacheprovider", "tests/fake_gpu.py"])
sys.stdout.flush()
os._exit(int(status))
"""


def test_a_training_on_a_gpu_that_is_not_there():
    done = subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "1 passed" in done.stdout
