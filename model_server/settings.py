"""What an operator may set: every limit on what a client may send, hold or wait for.

Plain data; must not know of images, models or the web.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 2**10
MIB = 2**20


@dataclass(frozen=True)
class Settings:
    "The limits of one server; the defaults are safe to leave running on one machine."

    # one request
    max_body: int = 8 * MIB            # bytes of a request, or of a frame in a stream
    max_head: int = 32 * KIB           # bytes of a request line and its headers, or of what follows a chunked body
    max_json_values: int = 20_000      # values in a JSON body: parsing them stops everything else
    # one image
    max_side: int = 4096               # pixels
    max_pixels: int = 8 * MIB          # width × height
    max_scan_pixels: int = 192 * MIB   # width × height × scans of a JPEG: each scan is a pass over the whole image
    max_parts: int = 10_000            # segments of a JPEG, chunks of a PNG
    max_tiles: int = 32                # times the network may run for one image
    # one tensor of /v2
    max_tensor_pixels: int = 512 * KIB    # images × width × height: the network holds all of them at one time
    max_tensor_values: int = 300_000      # values and brackets in JSON: one image of 256 × 256, nested or not
    # all clients together
    max_bodies: int = 16               # request bodies held at one time
    max_held: int = 64 * MIB           # bytes of all bodies held
    max_unsent: int = 32 * MIB         # bytes of all answers that their clients have not read yet
    max_connections: int = 256         # open connections
    max_per_address: int = 128         # of them, from one address (IPv6: from one /64 network)
    max_streams: int = 8               # open streams; one address may have half of them
    frame_rate: float = 200.0          # frames a second that are read from one stream; more wait in the sender
    # the work
    at_once: int = 1                   # images worked on at one time; each uses all threads of the session
    batch: int = 1                     # images of one size that the network may take together; 1: each alone
    batch_wait: float = 0.005          # seconds that the first image of a batch waits for others
    waiting: int = 2                   # images that may wait for that; the next one is told to come back
    max_stuck: int = 4                 # threads that may still be busy with what was given up
    # times, in seconds
    deadline: float = 30.0             # from the last byte of a request to its answer
    upload: float = 30.0               # for a client to send a body, or to read an answer
    idle: float = 10.0                 # for a client to begin a request, and to send its headers
    # who may enter
    token: str = ""                    # bearer token asked of every client; empty: none
    origins: tuple[str, ...] = ()      # web pages of other origins that may use the server
    hosts: tuple[str, ...] = ("*",)    # names of the server, beside those of this machine; *: any

    @property
    def places(self) -> int:
        "Images worked on at one time. With batches, one is decoded and answered while the network has the other."
        return self.at_once if self.batch == 1 else 2 * self.batch


DEFAULTS = Settings()
