"""One POST of JSON, the whole answer within a time and a size."""

import time
from typing import Any

import httpx

LARGEST = 8 * 2**20  # bytes of an answer


class TooLarge(Exception):
    """The answer is larger than LARGEST."""


def post(client: httpx.Client, url: str, body: Any, timeout: float) -> tuple[int, bytes, httpx.Headers]:
    """(status, body, headers). Raises httpx.HTTPError, httpx.ReadTimeout also for one that trickles; TooLarge."""
    deadline = time.monotonic() + timeout
    data = bytearray()
    with client.stream("POST", url, json=body) as response:
        for piece in response.iter_bytes():
            data += piece
            if len(data) > LARGEST:
                raise TooLarge(f"the answer is larger than {LARGEST >> 20} MB")
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("slow")
        return response.status_code, bytes(data), response.headers
