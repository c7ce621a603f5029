"""Window attention of the vision tower, equal windows at once.

transformers 5.23 calls attention once per window (11,492 calls a forward pass for one clip of 33 x 352 x 640, of which
there are four lengths). The same sums in a call per length: the same bits on a CPU (tests/test_vision.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)


class WindowAttention(Qwen2_5_VLVisionAttention):
    """The tower's attention with its own weights; what asks for FlashAttention gets transformers' call of it."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        """hidden_states [S, D], windows cu_seqlens [W + 1], cosines and sines [S, d] each -> [S, D]."""
        if self.config._attn_implementation != "sdpa" or position_embeddings is None:
            return super().forward(hidden_states, cu_seqlens, position_embeddings, **options)
        count = hidden_states.shape[0]
        q, k, v = self.qkv(hidden_states).reshape(count, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)  # [S, heads, d]
        starts, lengths = cu_seqlens[:-1], cu_seqlens.diff()
        parts, order = [], []
        for length in lengths.unique().tolist():
            at = starts[lengths == length][:, None] + torch.arange(length, device=starts.device)  # [windows, length]
            some_q, some_k, some_v = (x[at].transpose(1, 2) for x in (q, k, v))  # [windows, heads, length, d]
            out = scaled_dot_product_attention(some_q, some_k, some_v, scale=self.scaling)
            parts.append(out.transpose(1, 2).reshape(-1, self.dim))
            order.append(at.flatten())
        return self.proj(torch.cat(parts)[torch.cat(order).argsort()])


def batch_windows(model: Any) -> Any:
    """Give the vision tower of a Qwen2.5-VL this attention; returns the model."""
    for block in model.model.visual.blocks:
        block.attn.__class__ = WindowAttention
    return model
