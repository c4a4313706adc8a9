"""Pairs in tar files at any path or URL: what `seg_generate --shards` writes and `nbs_lib.shards` reads.

Every shard follows from the plan and its own number, and is written whole or not at all. So any number of processes and
machines may write one set, each its own range of numbers, without a lock. Must not know how pairs are made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbs_lib.core import SegError, json_text
from nbs_lib.labels import ROOM_LABELS, write_labels
from nbs_lib.layouts import GENERATION
from nbs_lib.shards import (
    IMAGE,
    MASK,
    Sample,
    Shard,
    Store,
    pack_shard,
    read_shard,
    shard_name,
    shard_number,
    shard_text,
    whole_shards,
)
from virtual_room.encode import EncodedPair, make_encoded
from virtual_room.pairs import PairMaker
from virtual_room.plan import Plan
from virtual_room.writer import FOLDERS, Manifest, Tally, agreed_manifest

IN_SHARD = dict(screenshots=IMAGE, labels=MASK)  # what a kind of file is called in a shard; others by kind and suffix


@dataclass(frozen=True)
class Packed:
    "A shard that is made but not written"
    content: bytes
    shard: Shard


@dataclass(frozen=True)
class Shards:
    "Where the pairs are: tar files of `size` pairs each, and beside each a piece of the manifest"
    store: Store
    size: int

    @property
    def is_everywhere(self) -> bool:
        "Can every machine write there? Not into a folder of this one"
        return not self.store.is_local

    def number_of(self, batch: list[int]) -> int:
        "The number of the shard that holds these pairs"
        return batch[0] // self.size

    def there(self, plan: Plan, batch: list[int]) -> tuple[Tally, list[int]]:
        "The tally of a batch whose shard is whole, and nothing missing; else all of it is missing"
        tar, piece = shard_name(self.number_of(batch))
        content = self.store.read(piece)
        if content is None:
            return Tally(), batch
        shard = read_shard(content, f"{self.store.url}/{piece}")
        if len(shard) != len(batch) or self.store.size(tar) != shard.bytes:
            return Tally(), batch
        return tally_of(shard), []

    def make(self, maker: PairMaker, missing: list[int]) -> Iterator[Packed]:
        "Draw the pairs of a shard and pack them"
        if missing:
            samples = (as_sample(make_encoded(maker, index)) for index in missing)
            tar, _ = shard_name(self.number_of(missing))
            yield Packed(*pack_shard(tar, missing[0], samples))

    def write(self, packed: Packed) -> Tally:
        "Write a shard, its piece of the manifest last: where that is, the shard is whole. Its tally"
        tar, piece = shard_name(packed.shard.first // self.size)
        self.store.write(tar, packed.content)
        self.store.write(piece, shard_text(packed.shard))
        return tally_of(packed.shard)

    def clear(self, keep: int) -> None:
        "Remove the shards that hold only pairs from number `keep` on, and what an interrupted run left half written"
        first_gone = -(-keep // self.size)
        gone = [name for name in self.store.sizes() if is_half_written(name) or shard_number(name) >= first_gone]
        self.store.remove(sorted(gone, reverse=True))

    def end(self) -> int:
        "The number after that of the last whole pair, 0 without pairs"
        ends = [shard.first + len(shard) for shard in whole_shards(self.store)]
        return max(ends, default=0)


def is_half_written(name: str) -> bool:
    "Is this a temporary file of a shard?"
    return name.startswith(".pairs-") and ".tmp." in name


def as_sample(pair: EncodedPair) -> Sample:
    "A pair as it goes into a shard"
    files = {IN_SHARD.get(kind, f"{kind}.{FOLDERS[kind]}"): content for kind, content in pair.files.items()}
    return Sample(pair.room, files, pair.pixels)


def tally_of(shard: Shard) -> Tally:
    "What a shard holds of each label"
    return Tally(len(shard), np.array(shard.pixels), np.array(shard.images))


# --- numbers ------------------------------------------------------------------------------------------------------

def parse_part(part: str) -> tuple[int, int]:
    "(2, 4) from '2/4'; `SegError` where it is none"
    first, _, second = part.partition("/")
    if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise SegError(f"--part is '{part}'; give the part and the number of parts, such as 1/4")
    return int(first), int(second)


def shard_batches(total: int, size: int, part: str = "") -> Iterator[list[int]]:
    "The numbers of the pairs of each shard; of a part of the shards where one is given, such as '2/4'"
    count = -(-total // size)
    i, parts = parse_part(part) if part else (1, 1)
    for number in range(count * (i - 1) // parts, count * i // parts):
        yield list(range(number * size, min(total, (number + 1) * size)))


# --- the manifest -------------------------------------------------------------------------------------------------

def read_generation(shards: Shards, settings: dict[str, Any]) -> Manifest | None:
    "The manifest of shards that may be gone on with, None for a new place; `SegError` for one of other settings"
    content = shards.store.read(GENERATION)
    return agreed_manifest(content, settings, shards.store.url) if content else None


def write_generation(shards: Shards, settings: dict[str, Any], total: int) -> Manifest:
    "Write the settings, and what the shards hold that are there; what was written. It does not grow with the set"
    tally, whole = Tally(), 0
    for shard in whole_shards(shards.store):
        tally.merge(tally_of(shard))
        whole += len(shard)
    manifest = dict(**settings, count=total, complete=whole == total, label_counts=tally.by_label())
    shards.store.write(GENERATION, json_text(manifest).encode())
    return manifest


def write_table(shards: Shards) -> None:
    "Write the label table beside the shards"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        write_labels(ROOM_LABELS, path)
        shards.store.write(path.name, path.read_bytes())
