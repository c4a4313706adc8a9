"""How many wrong labels does a model find? `python benchmarks/wrong_labels.py --model MODEL.onnx --data DIR`

In held-out pairs the label of one piece of furniture is swapped for another's, in 15 rooms at a time. Counted is how
many of those rooms are among the first 15 and the first 30 by `disagreement`, and by the mean contradiction of a pair.
"""

import argparse
from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from nbs_lib.datasets import SegData
from nbs_lib.layouts import find_pairs
from nbs_lib.predict import Prediction, Predictor, held_out_pairs, print_doubt
from nbs_lib.tools.browse import disagreement

ORDERS = ("by region (disagreement)", "by mean contradiction of the pair")


def pieces(mask: np.ndarray, furniture: list[int], least: int) -> list[np.ndarray]:
    "Where each piece of furniture of at least so many pixels lies."
    out = []
    for value in furniture:
        regions, n = ndimage.label(mask == value)
        out += [regions == k for k in range(1, n + 1) if (regions == k).sum() >= least]
    return out


def swap_labels(
    rng: np.random.Generator, masks: list[np.ndarray], furniture: list[int], share: float, swaps: int
) -> list[int]:
    "Give one piece in each of `swaps` random masks another label, in place; returns which masks."
    wrong: list[int] = []
    for r in rng.permutation(len(masks)):
        if len(wrong) == swaps:
            break
        found = pieces(masks[r], furniture, round(share * masks[r].size))
        if found:
            piece = found[rng.integers(len(found))]
            right = masks[r][piece][0]
            masks[r][piece] = rng.choice([value for value in furniture if value != right])
            wrong.append(int(r))
    return wrong


def order_by_region(data: SegData, indices: list[int], images: list, masks: list, said: list[Prediction]) -> list[int]:
    "The rooms, most suspicious first, as `disagreement` orders them."
    answers = iter(said)

    def predictor(_):
        return next(answers)

    predictor.labels = data.labels
    pairs = [data.pairs[i] for i in indices]
    swapped = SimpleNamespace(labels=data.labels, pairs=pairs, read=lambda r: (images[r], masks[r]))
    return [found["index"] for found in disagreement(swapped, predictor, range(len(images)))]


def order_by_mean(masks: list[np.ndarray], said: list[Prediction]) -> list[int]:
    "The rooms, most suspicious first, by how surely the model contradicts on average."
    means = [((p.mask != mask) * p.confidence.astype(float)).mean() for p, mask in zip(said, masks, strict=True)]
    return np.argsort([-mean for mean in means]).tolist()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--rooms", type=int, default=300)
    parser.add_argument("--swaps", type=int, default=15)
    parser.add_argument("--draws", type=int, default=10)
    return parser.parse_args()


def main() -> None:
    a = parse_arguments()
    predictor, data = Predictor(a.model), find_pairs(a.data)
    honest = held_out_pairs(data, predictor.meta.get("split", {}))
    print_doubt(honest, "wrong_labels")
    indices = honest.indices[:a.rooms]
    images, masks = zip(*(data.read(i) for i in indices), strict=True)
    said = [predictor(image) for image in images]
    furniture = [value for value, code in enumerate(data.labels.codes) if code.startswith("furniture")]
    for share in (0.0025, 0.05):
        found = np.zeros((a.draws, 2, 2))
        for draw in range(a.draws):
            changed = [mask.copy() for mask in masks]
            wrong = swap_labels(np.random.default_rng(draw), changed, furniture, share, a.swaps)
            orders = order_by_region(data, indices, images, changed, said), order_by_mean(changed, said)
            for row, order in enumerate(orders):
                for column, n in enumerate((a.swaps, 2 * a.swaps)):
                    found[draw, row, column] = len(set(order[:n]) & set(wrong))
        for name, (first, twice) in zip(ORDERS, found.mean(0), strict=True):
            print(f"pieces of {share:.2%} of the image or more, {name}: {first:.1f} of {a.swaps} swapped rooms "
                  f"among the first {a.swaps}, {twice:.1f} among the first {2 * a.swaps}", flush=True)
    print(f"{len(images)} held-out rooms of {images[0].width} px, {predictor}, mean of {a.draws} draws")


if __name__ == "__main__":
    main()
