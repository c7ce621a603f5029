"""One POST of JSON, the whole answer within a time and a size, through the environment's proxy."""

import time
from typing import Any

import httpx

from vans.errors import UserError
from vans.llm.net import is_local

LARGEST = 8 * 2**20  # bytes of an answer


class TooLarge(Exception):
    """The answer is larger than LARGEST."""


def client(host: str, **options: Any) -> httpx.Client:
    """A client for one host. UserError if the environment names a proxy that is none."""
    try:
        return httpx.Client(trust_env=not is_local(host), **options)  # no proxy can reach this machine's own ports
    except (httpx.InvalidURL, ValueError, ImportError):  # its text may hold a password
        raise UserError("the environment's HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is no address of a proxy") from None


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
