"""The one kind of error that a client is told about. Must not know of the web framework."""

from __future__ import annotations

import json


class APIError(Exception):
    "A request that is not answered: an HTTP status and one sentence for whoever sent it."

    def __init__(self, status: int, sentence: str, reason: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.reason = reason            # one word for the metrics
        self.retry_after = retry_after  # seconds until the client may try again

    @property
    def headers(self) -> dict[str, str]:
        "The HTTP headers that belong to this error."
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    @property
    def body(self) -> bytes:
        "The answer as JSON, for those who answer without the web framework."
        return json.dumps({"error": self.sentence}, ensure_ascii=False).encode()
