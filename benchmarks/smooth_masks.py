"""Masks enlarged by the scores of the labels beside masks enlarged by nearest neighbor, at the images' own size.

    python benchmarks/smooth_masks.py DATA [MODEL.onnx] [MAPPING] [ONLY]

DATA is any data set that `seg_eval` reads; MAPPING is for data with other labels, and ONLY scores only the images that
show that label. Without a model, the starter model is taken. The time is that of a whole prediction, one image after
the other, both ways in turns.
"""
import statistics
import sys

from nbs_lib.datasets import SegData
from nbs_lib.evaluate import Scoring, evaluate, find_mapping, mapped_scoring, plain_scoring, summarize
from nbs_lib.layouts import find_pairs
from nbs_lib.predict import Predictor, timed, usable_threads

TIMED = 50  # images


def prediction_ms(predictors: dict[str, Predictor], images: list) -> dict[str, float]:
    "Median milliseconds of a prediction, of each predictor."
    ms = {name: [] for name in predictors}
    for image in images:
        for name, predictor in predictors.items():
            ms[name].append(timed(predictor, image, "stretch")[1])
    return {name: statistics.median(values) for name, values in ms.items()}


def make_scoring(predictor: Predictor, data: SegData, mapping: str) -> Scoring:
    "Which answers are right."
    if mapping:
        return mapped_scoring(predictor.labels, data.labels, find_mapping(mapping))
    return plain_scoring(predictor.labels, data.labels)


def main(folder: str, model: str = "", mapping: str = "", only: str = "") -> None:
    data = find_pairs(folder)
    predictors = {"nearest neighbor": Predictor(model, smooth=False), "by scores": Predictor(model)}
    scoring = make_scoring(predictors["by scores"], data, mapping)
    images = [data.read(i)[0] for i in range(min(TIMED, len(data)))]
    ms = prediction_ms(predictors, images)
    print(f"{predictors['by scores']}, {usable_threads()} threads; first image {images[0].width}×{images[0].height}")
    print(f"{'masks enlarged':18}{'images':>7}{'Dice':>9}{'mIoU':>9}{'foreground accuracy':>21}{'ms':>7}")
    for name, predictor in predictors.items():
        matrix, n = evaluate(predictor, data, scoring, only=only or None)
        found, _ = summarize(matrix, scoring)
        figures = f"{found['dice']:9.4f}{found['miou']:9.4f}{found['foreground_accuracy']:21.4f}{ms[name]:7.1f}"
        print(f"{name:18}{n:7}{figures}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
