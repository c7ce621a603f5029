"""The vision tower's windows, equal ones at once: the same bits as transformers' own calls, one a window."""

import pytest
import torch
from torch.nn import functional
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionAttention

from vans.models.vision import WindowAttention, batch_windows

TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 20}
ENDS = {"num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def model(depth: int, hidden: int, heads: int, full: list[int]):
    torch.manual_seed(0)
    vision: dict = {"depth": depth, "hidden_size": hidden, "intermediate_size": hidden, "num_heads": heads}
    vision |= {"out_hidden_size": 16, "window_size": 112, "fullatt_block_indexes": full}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=TEXT | ENDS, vision_config=vision)).eval()


def patches(*grid: int) -> tuple[torch.Tensor, torch.Tensor]:
    t, h, w = grid
    return torch.randn(t * h * w, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0)), torch.tensor([grid])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_and_gradients_are_the_same_bits(dtype):
    qwen = model(3, 32, 4, [1]).to(dtype)
    x, grid = patches(3, 10, 22)
    found = []
    for kind in (Qwen2_5_VLVisionAttention, WindowAttention):
        for block in qwen.model.visual.blocks:
            block.attn.__class__ = kind
        out = qwen.model.visual(x.to(dtype), grid_thw=grid).pooler_output
        found.append([out, *torch.autograd.grad(out.float().square().sum(), list(qwen.model.visual.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) and found[0][0].abs().sum() > 0


def test_attention_calls_of_one_clip_of_the_papers_size(monkeypatch):
    """33 pictures of 352 x 640 through 32 layers: 11,492 calls by transformers 5.23."""
    calls = []
    attend = functional.scaled_dot_product_attention

    def counted(q, *rest, **options):
        calls.append(q.shape)
        return attend(q, *rest, **options)

    monkeypatch.setattr("vans.models.vision.scaled_dot_product_attention", counted)
    x, grid = patches(17, 26, 46)
    with torch.no_grad():
        batch_windows(model(32, 8, 1, [7, 15, 23, 31])).model.visual(x, grid_thw=grid)
    assert len(calls) <= 200 and sum(shape[0] for shape in calls) == 11_492
