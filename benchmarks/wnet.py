"""What one step of W-Net's training takes, each in a fresh process: `python benchmarks/wnet.py [size] [batch]` (224 px, 4 pictures)"""

import platform
import resource
import subprocess
import sys
import time

import torch

from nbs_lib.experiments.wnet import WNet, soft_ncut

MODELS = {"small": dict(n_classes=12, width=16, depth=3), "paper": dict(n_classes=20, width=64, depth=4)}


def peak() -> float:
    "GB of memory this process has ever held"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step(what: str, size: int, batch: int) -> None:
    "A step of `what`: only the cut with its gradient, or both steps of a model"
    torch.manual_seed(0)
    x = torch.rand(batch, 3, size, size)
    before, start = peak(), time.perf_counter()
    if what == "cut":
        soft_ncut(torch.randn(batch, 20, size, size).requires_grad_().softmax(1), x).backward()
    else:
        model = WNet(**MODELS[what])
        for loss in (lambda: soft_ncut(model.encode(x), x), lambda: (model(x) - x).square().mean()):
            optimizer = torch.optim.Adam(model.parameters())
            loss().backward()
            optimizer.step()
            optimizer.zero_grad()
    print(f"{what:6} {time.perf_counter() - start:6.1f} s, peak {peak():5.2f} GB, of it {before:.2f} GB before the step")


if __name__ == "__main__":
    size, batch = (int(a) for a in [*sys.argv[1:3], "224", "4"][:2]) if len(sys.argv) != 2 else (int(sys.argv[1]), 4)
    if len(sys.argv) > 3:
        step(sys.argv[3], size, batch)
    else:
        print(f"{batch} pictures of {size} px; {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
        for what in ("cut", *MODELS):
            subprocess.run([sys.executable, __file__, str(size), str(batch), what], check=True)
