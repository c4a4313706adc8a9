"""What one step of W-Net's training takes: `python benchmarks/wnet.py [size] [batch]` (224 px, 4 images)

Each kind of step runs in a fresh process.
"""

import platform
import resource
import subprocess
import sys
import time

import torch

from nbs_lib.experiments.wnet import WNet, soft_ncut

MODELS = {"small": dict(n_classes=12, width=16, depth=3), "paper": dict(n_classes=20, width=64, depth=4)}
SIZE, BATCH = 224, 4


def peak() -> float:
    "GB of memory this process has ever held"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def cut_alone(x: torch.Tensor) -> None:
    "The normalized cut of 20 classes with its gradient"
    batch, _, height, width = x.shape
    p = torch.randn(batch, 20, height, width).requires_grad_().softmax(1)
    soft_ncut(p, x).backward()


def whole_step(model: WNet, x: torch.Tensor) -> None:
    "Both updates of a training step"
    for name in ("ncut", "mse"):
        optimizer = torch.optim.Adam(model.parameters())
        loss = soft_ncut(model.encode(x), x) if name == "ncut" else (model(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def measure(what: str, size: int, batch: int) -> None:
    "Time and memory of a step of `what`: the cut alone, or one of `MODELS`"
    torch.manual_seed(0)
    x = torch.rand(batch, 3, size, size)
    before, start = peak(), time.perf_counter()
    if what == "cut":
        cut_alone(x)
    else:
        whole_step(WNet(**MODELS[what]), x)
    seconds = time.perf_counter() - start
    print(f"{what:6} {seconds:6.1f} s, peak {peak():5.2f} GB, of it {before:.2f} GB before the step")


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:3]]
    size, batch = [*numbers, *(SIZE, BATCH)[len(numbers):]]
    if len(sys.argv) > 3:
        measure(sys.argv[3], size, batch)
        return
    where = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{batch} images of {size} px; {where}", flush=True)
    for what in ("cut", *MODELS):
        subprocess.run([sys.executable, __file__, str(size), str(batch), what], check=True)


if __name__ == "__main__":
    main()
