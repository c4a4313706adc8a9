"""How many wrong labels does a model find? `python benchmarks/wrong_labels.py --model MODEL.onnx --data DIR`

In held-out pairs the label of one piece of furniture is swapped for another's, in 15 rooms at a time. Counted is how
many of those rooms are among the first 15 and the first 30 by `disagreement`, and by the mean contradiction of a pair.
"""

import argparse
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from nbs_lib.datasets import SegData
from nbs_lib.layouts import find_pairs
from nbs_lib.predict import Prediction, Predictor, held_out_pairs, print_doubt
from nbs_lib.tools.browse import disagreement

SHARES = (0.0025, 0.05)  # of the image that a piece must cover at least


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


@dataclass(frozen=True)
class Rooms:
    "Held-out pairs, and what the model says of them."

    data: SegData
    indices: list[int]       # their places in the data
    images: list             # RGB Pillow images
    masks: list[np.ndarray]  # as they are in the data
    said: list[Prediction]


def read_rooms(data: SegData, indices: list[int], predictor: Predictor) -> Rooms:
    "Read pairs, and ask the model about each."
    pairs = [data.read(i) for i in indices]
    images = [image for image, _ in pairs]
    masks = [mask for _, mask in pairs]
    return Rooms(data, indices, images, masks, [predictor(image) for image in images])


def order_by_region(rooms: Rooms, masks: list[np.ndarray]) -> list[int]:
    "The rooms with these masks, most suspicious first, as `disagreement` orders them."
    answers = iter(rooms.said)

    def predictor(_):
        return next(answers)

    predictor.labels = rooms.data.labels
    pairs = [rooms.data.pairs[i] for i in rooms.indices]
    swapped = SimpleNamespace(labels=rooms.data.labels, pairs=pairs, read=lambda r: (rooms.images[r], masks[r]))
    return [found["index"] for found in disagreement(swapped, predictor, range(len(pairs)))]


def order_by_mean(rooms: Rooms, masks: list[np.ndarray]) -> list[int]:
    "The rooms with these masks, most suspicious first, by how surely the model contradicts on average."
    contradictions = [(p.mask != mask) * p.confidence.astype(float) for p, mask in zip(rooms.said, masks, strict=True)]
    return np.argsort([-contradiction.mean() for contradiction in contradictions]).tolist()


ORDERS = {"by region (disagreement)": order_by_region, "by mean contradiction of the pair": order_by_mean}


def count_found(rooms: Rooms, furniture: list[int], share: float, swaps: int, seed: int) -> dict[str, tuple[int, int]]:
    "{order: how many of the swapped rooms are among its first `swaps`, and among twice as many}."
    masks = [mask.copy() for mask in rooms.masks]
    wrong = set(swap_labels(np.random.default_rng(seed), masks, furniture, share, swaps))
    orders = {name: order(rooms, masks) for name, order in ORDERS.items()}
    return {name: (len(wrong & set(order[:swaps])), len(wrong & set(order[:2 * swaps])))
            for name, order in orders.items()}


def print_found(share: float, swaps: int, draws: list[dict[str, tuple[int, int]]]) -> None:
    "The means over all draws, a line for each order."
    for name in ORDERS:
        first, twice = np.mean([found[name] for found in draws], axis=0)
        print(f"pieces of {share:.2%} of the image or more, {name}: {first:.1f} of {swaps} swapped rooms "
              f"among the first {swaps}, {twice:.1f} among the first {2 * swaps}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--rooms", type=int, default=300)
    parser.add_argument("--swaps", type=int, default=15)
    parser.add_argument("--draws", type=int, default=10)
    return parser.parse_args()


def main() -> None:
    "Swap, look and count, for small pieces and for large ones."
    arguments = parse_arguments()
    predictor, data = Predictor(arguments.model), find_pairs(arguments.data)
    honest = held_out_pairs(data, predictor.meta.get("split", {}))
    print_doubt(honest, "wrong_labels")
    rooms = read_rooms(data, honest.indices[:arguments.rooms], predictor)
    furniture = [value for value, code in enumerate(data.labels.codes) if code.startswith("furniture")]
    for share in SHARES:
        seeds = range(arguments.draws)
        draws = [count_found(rooms, furniture, share, arguments.swaps, seed) for seed in seeds]
        print_found(share, arguments.swaps, draws)
    print(f"{len(rooms.images)} held-out rooms of {rooms.images[0].width} px, {predictor}, "
          f"mean of {arguments.draws} draws")


if __name__ == "__main__":
    main()
