"""Which format an Accept header asks for (RFC 9110, section 12.5.1). Pure text."""

from __future__ import annotations

from model_server.errors import APIError
from model_server.messages import MEDIA


def accepted_format(header: str) -> str:
    "The format that the header likes best, ours first where it likes several; `APIError` 406 where it wants none."
    ranges = _ranges(header) or {"*/*": 1.0}
    qualities = {kind: _quality_of(media, ranges) for kind, media in MEDIA.items()}
    best = max(qualities, key=qualities.get)
    if qualities[best] <= 0:
        offered = ", ".join(MEDIA.values())
        raise APIError(406, f"the answer can be {offered}; send one of them as Accept, or none", "accept")
    return best


def _ranges(header: str) -> dict[str, float]:
    "{media range: quality}, in lower case."
    found = {}
    for part in header.lower().split(","):
        name, *options = (option.strip() for option in part.split(";"))
        if name:
            found[name] = _quality(options)
    return found


def _quality(options: list[str]) -> float:
    "0 to 1; 1 where it is not said, 0 where it is no number."
    texts = [option[2:] for option in options if option.startswith("q=")]
    if not texts:
        return 1.0
    try:
        quality = float(texts[0])
    except ValueError:
        return 0.0
    return min(quality, 1.0) if quality > 0 else 0.0


def _quality_of(media: str, ranges: dict[str, float]) -> float:
    "The quality of the range that names this type most exactly."
    group = media.split("/")[0]
    for name in (media, f"{group}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0
