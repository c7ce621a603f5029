"""Numbers drawn from SHA-256 of names: the same on every machine, for every library version, in any order."""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Draw:
    """A stream of draws that depends on its keys alone."""

    def __init__(self, *keys: Any) -> None:
        self.key = "/".join(str(k) for k in keys).encode()
        self.count = 0

    def below(self, n: int) -> int:
        """An integer in 0..n-1."""
        digest = hashlib.sha256(self.key + b"#%d" % self.count).digest()
        self.count += 1
        return int.from_bytes(digest[:8], "big") % n

    def of(self, items: Sequence[T]) -> T:
        """One of a sequence."""
        return items[self.below(len(items))]

    def chance(self, share: float) -> bool:
        """True with a probability, to one part in a million."""
        return self.below(1_000_000) < round(share * 1_000_000)
