"""What the server refuses, and the one kind of error that says so.

Plain data; must not know of pictures, models or the web.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    "Everything an operator may set; the defaults are safe to leave running on one machine."

    max_body: int = 8 * MIB            # bytes of a request, or of a frame in a stream
    max_side: int = 4096               # pixels
    max_pixels: int = 8 * MIB          # width × height
    max_tiles: int = 32                # nets' worth of work one photo may ask for
    max_bodies: int = 16               # request bodies held at one time
    max_streams: int = 8               # open streams
    at_once: int = 1                   # photos worked on at one time; each uses all threads of the session
    waiting: int = 2                   # photos that may wait for that; the next one is told to come back
    deadline: float = 30.0             # seconds from the last byte of a request to its answer
    upload: float = 30.0               # seconds a client may take to send a body
    token: str = ""                    # bearer token asked of every client; empty: none
    origins: tuple[str, ...] = ()      # web pages of other origins that may use the server


class Refusal(Exception):
    "A request that is not answered: an HTTP status and one sentence for whoever sent it."

    def __init__(self, status: int, sentence: str, reason: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.reason, self.retry_after = status, sentence, reason, retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
