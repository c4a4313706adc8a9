"""Small sizes first, or the large size at once? `python benchmarks/ladder.py DATA OUT [ARCH] ["64:8 128:3"]`

Trains through the sizes, then at the last size directly, from scratch, for as many epochs as fit into the same time.
The time of an epoch is taken from the last step of the first training.
"""
import sys
from dataclasses import replace
from pathlib import Path

from nbs_lib.layouts import find_pairs
from nbs_lib.train import TrainSettings, parse_ladder, progressive_resizing, train_model


def print_row(name: str, row: dict[str, str]) -> None:
    "A row of the ladder table as a line."
    minutes = float(row["minutes"])
    print(f"{name:7} {row['size']:>9} px  {row['epochs']:>3} epochs  {minutes:6.1f} minutes  Dice {row['dice']}"
          f"  foreground accuracy {row['foreground_accuracy']}")


def main(folder: str, out: str, arch: str = "unet:resnet34", ladder: str = "64:8 128:3") -> None:
    data, steps = find_pairs(folder), parse_ladder(ladder)
    settings = TrainSettings(arch=arch, out=str(Path(out) / "ladder"), resume=True)
    _, rows = progressive_resizing(data, steps, settings, bar=False)
    minutes = [float(row["minutes"]) for row in rows]
    minutes_an_epoch = minutes[-1] / int(rows[-1]["epochs"])
    epochs = max(1, round(sum(minutes) / minutes_an_epoch))
    size = rows[-1]["size"].replace("×", "x")
    direct = replace(settings, size=size, epochs=epochs, out=str(Path(out) / "direct"))
    _, direct_rows = train_model(data, direct, bar=False)
    print(f"{arch}, {len(data)} pairs")
    for row in rows:
        print_row("ladder", row)
    print_row("direct", direct_rows[0])
    print(f"in {sum(minutes):.1f} minutes the ladder reached Dice {rows[-1]['dice']}, "
          f"in {float(direct_rows[0]['minutes']):.1f} minutes direct training {direct_rows[0]['dice']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
