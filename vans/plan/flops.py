"""FLOPs of one forward pass, two for each multiply-add, as torch's FlopCounterMode counts them (tests/test_plan.py).

Matrix products, convolutions and attention count; norms, activations and rotations do not. Attention counts whole, also
where half of it is masked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Config = dict[str, Any]


def linear(tokens: float, inner: int, outer: int) -> float:
    return 2 * tokens * inner * outer


def attention(queries: float, keys: float, width: int) -> float:
    """Scores and their product with the values, over all heads together `width` wide."""
    return 4 * queries * keys * width


def dit(config: Config, tokens: int, text: int) -> float:
    """Wan's DiT on one video of so many latent patches, reference ones included, and `text` tokens of a caption."""
    d, f = config["num_attention_heads"] * config["attention_head_dim"], config["ffn_dim"]
    patch = math.prod(config["patch_size"])
    own = 4 * linear(tokens, d, d) + attention(tokens, tokens, d)
    cross = 2 * linear(tokens, d, d) + 2 * linear(text, d, d) + attention(tokens, text, d)
    ends = linear(tokens, patch * config["in_channels"], d) + linear(tokens, d, patch * config["out_channels"])
    time = linear(1, config["freq_dim"], d) + linear(1, d, d) + linear(1, d, 6 * d)
    said = linear(text, config["text_dim"], d) + linear(text, d, d)
    return config["num_layers"] * (own + cross + 2 * linear(tokens, d, f)) + ends + time + said


def language_layers(config: Config, tokens: float, keys: float) -> tuple[float, float]:
    """(linear layers, attention) of Qwen's language model on `tokens` that look at `keys` each."""
    h, i, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    width, kv = _widths(config)
    each = linear(tokens, h, width) + 2 * linear(tokens, h, kv) + linear(tokens, width, h) + 3 * linear(tokens, h, i)
    return layers * each, layers * attention(tokens, keys, width)


def language(config: Config, tokens: int, read: int) -> float:
    """Qwen's language model on one row of so many tokens, the last `read` of which go through its head."""
    return sum(language_layers(config, tokens, tokens)) + linear(read, config["hidden_size"], config["vocab_size"])


def generated(config: Config, prompt: int, tokens: int) -> float:
    """So many tokens one by one behind a prompt whose keys and values are kept; the first is of the prompt's pass."""
    linears, keys = language_layers(config, tokens - 1, 1)
    seen = (prompt + 1 + prompt + tokens - 1) / 2  # on average, each token sees itself
    return linears + keys * seen + linear(tokens - 1, config["hidden_size"], config["vocab_size"])


def _widths(config: Config) -> tuple[int, int]:
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return config["num_attention_heads"] * head, config["num_key_value_heads"] * head


def cache_bytes(config: Config, tokens: int, each: int) -> int:
    """Keys and values of one row, `each` bytes a number."""
    return 2 * config["num_hidden_layers"] * tokens * _widths(config)[1] * each


def lora_parameters(config: Config, rank: int) -> int:
    """Of a LoRA on all linear layers of the language model."""
    h, i = config["hidden_size"], config["intermediate_size"]
    width, kv = _widths(config)
    sides = (h + width) + 2 * (h + kv) + (width + h) + 3 * (h + i)
    return config["num_hidden_layers"] * rank * sides


def tower(config: Config, out: int, grid: tuple[int, int, int]) -> float:
    """Qwen2.5-VL's vision tower on one clip of `grid` patches (time, height, width); out: the language model's."""
    d, i, merge = config["hidden_size"], config["intermediate_size"], config["spatial_merge_size"]
    t, h, w = grid
    patches, unit = t * h * w, merge * merge
    pixels = config.get("in_channels", 3) * config["temporal_patch_size"] * config["patch_size"] ** 2
    block = 4 * linear(patches, d, d) + 3 * linear(patches, d, i)
    whole = t * attention(h * w, h * w, d)
    parts = t * sum(attention(n * unit, n * unit, d) for n in windows(config, h // merge, w // merge))
    full = len(set(config["fullatt_block_indexes"]) & set(range(config["depth"])))
    ends = (
        linear(patches, pixels, d) + linear(patches / unit, unit * d, unit * d) + linear(patches / unit, unit * d, out)
    )
    return config["depth"] * block + full * whole + (config["depth"] - full) * parts + ends


def windows(config: Config, high: int, wide: int) -> list[int]:
    """The windows of one picture of so many merged patches: how many each holds."""
    side = config["window_size"] // config["spatial_merge_size"] // config["patch_size"]

    def cut(length: int) -> Iterable[int]:
        return (min(side, length - start) for start in range(0, length, side))

    return [rows * columns for rows in cut(high) for columns in cut(wide)]


def text_encoder(config: Config, tokens: int) -> float:
    """The umT5 encoder on one caption, padded to so many tokens."""
    d, width, f = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    each = 3 * linear(tokens, d, width) + linear(tokens, width, d) + attention(tokens, tokens, width)
    return config["num_layers"] * (each + 3 * linear(tokens, d, f))
