"""How many wrong labels does a model find? `python benchmarks/wrong_labels.py --model MODEL.onnx --data DIR`

In held-out pairs the label of one piece of furniture is swapped for another's, in 15 rooms at a time; counted is how many
of those rooms are among the first 15 and the first 30 by `disagreement`, and by the mean contradiction of a whole pair.
"""

import argparse
from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from nbs_lib.tools.browse import disagreement
from nbs_lib.layouts import find_pairs
from nbs_lib.datasets import split_pairs
from nbs_lib.predict import Predictor


def pieces(mask: np.ndarray, furniture: list[int], least: int) -> list[np.ndarray]:
    "Where each piece of furniture of at least so many pixels lies."
    out = []
    for v in furniture:
        regions, n = ndimage.label(mask == v)
        out += [regions == k for k in range(1, n + 1) if (regions == k).sum() >= least]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--rooms", type=int, default=300)
    parser.add_argument("--swaps", type=int, default=15)
    parser.add_argument("--draws", type=int, default=10)
    a = parser.parse_args()
    predictor, data = Predictor(a.model), find_pairs(a.data)
    indices = split_pairs(data, predictor.meta["split"]["valid"], predictor.meta["split"]["seed"])[1][:a.rooms]
    pairs = [data.read(i) for i in indices]
    said = [predictor(image) for image, _ in pairs]
    furniture = [v for v, c in enumerate(data.labels.codes) if c.startswith("furniture")]
    for share in (0.0025, 0.05):
        found = np.zeros((a.draws, 2, 2))
        for draw in range(a.draws):
            rng, masks, wrong = np.random.default_rng(draw), [m.copy() for _, m in pairs], []
            for r in rng.permutation(len(pairs)):
                if len(wrong) == a.swaps: break
                if there := pieces(masks[r], furniture, round(share * masks[r].size)):
                    piece = there[rng.integers(len(there))]
                    masks[r][piece] = rng.choice([v for v in furniture if v != masks[r][piece][0]])
                    wrong.append(int(r))
            answers = iter(said)

            def again(_): return next(answers)
            again.labels = data.labels
            swapped = SimpleNamespace(labels=data.labels, pairs=[data.pairs[i] for i in indices], read=lambda r: (pairs[r][0], masks[r]))
            orders = ([o["index"] for o in disagreement(swapped, again, range(len(pairs)))],
                      np.argsort([-((p.mask != m) * p.confidence.astype(float)).mean() for p, m in zip(said, masks)]).tolist())
            found[draw] = [[len(set(order[:n]) & set(wrong)) for n in (a.swaps, 2 * a.swaps)] for order in orders]
        for name, row in zip(("by region (disagreement)", "by mean contradiction of the pair"), found.mean(0)):
            print(f"pieces of {share:.2%} of the picture or more, {name}: {row[0]:.1f} of {a.swaps} swapped rooms among the first {a.swaps}, {row[1]:.1f} among the first {2 * a.swaps}", flush=True)
    print(f"{len(pairs)} held-out rooms of {pairs[0][0].width} px, {predictor}, mean of {a.draws} draws")


if __name__ == "__main__":
    main()
