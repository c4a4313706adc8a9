"""Tables of finished runs, which let a benchmark go on where it was interrupted."""
import csv
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

Row = TypeVar("Row")


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    "The rows of a CSV file as dataclasses of a kind; none where there is no file yet."
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [kind(**{field.name: field.type(row[field.name]) for field in fields(kind)}) for row in rows]
