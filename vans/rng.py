"""Randomness from names, not from history: (seed, stage, step, sample) -> generator.

A run that was killed and resumed, a batch cut in another way and two arms of a comparison all see the same
numbers, because no generator outlives the thing that it was made for.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_of(*keys: object) -> int:
    """A 63-bit seed from any sequence of names and numbers (order matters)."""
    text = "\x1f".join(str(k) for k in keys)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*keys: object) -> torch.Generator:
    """A fresh CPU generator for these keys."""
    return torch.Generator().manual_seed(seed_of(*keys))


def numpy_generator(*keys: object) -> np.random.Generator:
    """A fresh numpy generator for these keys."""
    return np.random.default_rng(seed_of(*keys))


def noise(shape: tuple[int, ...], names: list, *keys: object) -> torch.Tensor:
    """Standard normal noise [len(names), *shape]; row i depends on (keys, names[i]) alone, not on the batch."""
    return torch.stack([torch.randn(shape, generator=generator(*keys, name)) for name in names])
