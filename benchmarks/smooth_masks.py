"""Masks enlarged by nearest neighbor, by the scores of the labels, and by test-time augmentation, at the images' size.

    python benchmarks/smooth_masks.py DATA [MODEL.onnx] [MAPPING] [ONLY]

DATA is any data set that `seg_eval` reads; MAPPING is for data with other labels, and ONLY scores only the images that
show that label. Without a model, the starter model is taken. The time is that of a whole prediction, one image after
the other, all ways in turns.
"""
import statistics
import sys

from PIL import Image

from nbs_lib.evaluate import choose_scoring, evaluate, summarize
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


def print_header(predictor: Predictor, first: Image.Image) -> None:
    "What is measured, and the names of the columns."
    print(f"{predictor}, {usable_threads()} threads; first image {first.width}×{first.height}")
    print(f"{'masks enlarged':18}{'images':>7}{'Dice':>9}{'mIoU':>9}{'foreground accuracy':>21}{'ms':>7}")


def table_line(name: str, n: int, found: dict[str, float], ms: float) -> str:
    "The figures of one way."
    scores = f"{found['dice']:9.4f}{found['miou']:9.4f}{found['foreground_accuracy']:21.4f}"
    return f"{name:18}{n:7}{scores}{ms:7.1f}"


def main(folder: str, model: str = "", mapping: str = "", only: str = "") -> None:
    data = find_pairs(folder)
    smooth = Predictor(model)
    nearest, patient = Predictor(model, smooth=False), Predictor(model, tta=True)
    predictors = {"nearest neighbor": nearest, "by scores": smooth, "by scores, tta": patient}
    scoring = choose_scoring(smooth, data, mapping)
    images = [data.read(i)[0] for i in range(min(TIMED, len(data)))]
    ms = prediction_ms(predictors, images)
    print_header(smooth, images[0])
    for name, predictor in predictors.items():
        matrix, n = evaluate(predictor, data, scoring, only=only or None)
        found, _ = summarize(matrix, scoring)
        print(table_line(name, n, found, ms[name]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
