"""Small sizes first, or the big size at once? `python benchmarks/ladder.py DATA OUT [ARCH] ["64:8 128:3"]`

Climbs the ladder, then trains at its last size directly, from scratch, for as many epochs as fit into the same time; the time of an epoch is taken from the ladder's last step.
"""
import sys
from pathlib import Path

from nbs_lib.layouts import find_pairs
from nbs_lib.train import climb, train


def main(data, out, arch='unet:resnet34', ladder='64:8 128:3'):
    data, steps = find_pairs(data), [tuple(map(int, s.split(':'))) for s in ladder.split()]
    _, rows = climb(data, steps, arch, Path(out)/'ladder', bar=False)
    minutes = [float(r['minutes']) for r in rows]
    size, epochs = steps[-1]
    _, (direct,) = train(data, size, max(1, round(sum(minutes)/(minutes[-1]/epochs))), arch, out=Path(out)/'direct', resume=True, bar=False)
    print(f"{arch}, {len(data)} pairs")
    for name, r in [*[('ladder', r) for r in rows], ('direct', direct)]: print(f"{name:7} {r['size']:>9} px  {r['epochs']:>3} epochs  {float(r['minutes']):6.1f} minutes  Dice {r['dice']}  foreground accuracy {r['foreground_accuracy']}")
    print(f"in {sum(minutes):.1f} minutes the ladder reached Dice {rows[-1]['dice']}, in {float(direct['minutes']):.1f} minutes direct training {direct['dice']}")


if __name__ == '__main__': main(*sys.argv[1:])
