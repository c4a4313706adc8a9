"""The models of one server: found by name, the first one where no name is given.

A model is named after its file. Must not know of the web.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from model_server.errors import APIError
from model_server.service import Service, Shared, Status
from nbs_lib.core import SegError
from nbs_lib.predict import Predictor

SUFFIXES = (".onnx", ".onnx.gz")
Source = str | Path | Predictor  # a file, which can be loaded again, or a predictor


class Models:
    "The services of a server by name; the first is the default."

    def __init__(self, services: Iterable[Service], shared: Shared) -> None:
        self.shared = shared
        self._services = by_name(services)

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())

    @property
    def names(self) -> list[str]:
        "Of all models, the default first."
        return list(self._services)

    @property
    def default(self) -> Service:
        "The model of those who name none."
        return next(iter(self))

    def find(self, name: str | None = None) -> Service:
        "The model of this name, the default without one; `APIError` 404 where there is none of it."
        if name is None:
            return self.default
        if name not in self._services:
            raise APIError(404, f"there is no such model here, only {listed(self.names)}", "model")
        return self._services[name]

    @property
    def status(self) -> Status:
        "`ready` when all models are, `failed` as soon as one is."
        found = {service.status for service in self}
        if "failed" in found:
            return "failed"
        return "warming up" if "warming up" in found else "ready"


def by_name(services: Iterable[Service]) -> dict[str, Service]:
    "{name: service}; `SegError` where two have one name."
    found: dict[str, Service] = {}
    for service in services:
        other = found.setdefault(service.name, service)
        if other is not service:
            both = f"{other.predictor.path} and {service.predictor.path}"
            raise SegError(f"{both} are both named {service.name}; rename one of the files")
    return found


def listed(names: list[str]) -> str:
    "Names as a sentence has them: `a`, `a and b`, `a, b and c`."
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def open_models(sources: Iterable[Source], shared: Shared, provider: str, threads: int | None) -> Models:
    "The models of these files and predictors."
    services = [open_service(source, shared, provider, threads) for source in sources]
    return Models(services, shared)


def open_service(source: Source, shared: Shared, provider: str, threads: int | None) -> Service:
    "The service of one model."
    if not isinstance(source, (str, Path)):
        return Service(source, shared)
    load = loader(source, provider, threads)
    return Service(load(), shared, load)


def loader(path: str | Path, provider: str, threads: int | None) -> Callable[[], Predictor]:
    "A function that reads the file, again at each call."
    def load() -> Predictor:
        "Read the file."
        return Predictor(path, provider, threads)
    return load


def model_files(place: str | Path) -> list[Path]:
    "The file, or the model files of the folder in the order of their names; `SegError` where it has none."
    place = Path(place)
    if not place.is_dir():
        return [place]
    found = sorted(path for path in place.iterdir() if path.name.endswith(SUFFIXES))
    if not found:
        raise SegError(f"{place} has no model in it; put files that `seg_export` wrote there, or name one")
    return found
