"""What only the real classes know, asked of them on torch's meta device, where nothing is computed or held.

Parameters; the VAE's FLOPs and the most memory that its decoder holds; what a layer keeps for its backward pass.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vans.plan.flops import Config

DIT, VAE, TEXT, VLM = "dit", "vae", "text_encoder", "vlm"


def parameters(kind: str, config: Config) -> int:
    """Number of parameters of a part: DIT, VAE, TEXT or VLM."""
    return _parameters(kind, json.dumps(config, sort_keys=True))


def shards(config: Config) -> tuple[int, int]:
    """Parameters of a VLM that are cut up over GPUs, all but its vision tower's; those of them in no layer."""
    return _shards(json.dumps(config, sort_keys=True))


def vae_flop(config: Config, size: tuple[int, int, int]) -> tuple[float, float]:
    """FLOPs of encoding and of decoding one clip of T, H, W."""
    return _vae_flop(json.dumps(config, sort_keys=True), size)


def vae_peak(config: Config, size: tuple[int, int, int]) -> int:
    """Bytes that decoding one clip of T, H, W holds at most, in float32 and beside the weights."""
    return _vae_peak(json.dumps(config, sort_keys=True), size)


def dit_kept(config: Config, shape: tuple[int, int, int, int], text: int) -> int:
    """Bytes that one block of the DiT keeps for its backward pass, for latents of C, T', H', W' in bfloat16."""
    return _dit_kept(json.dumps(config, sort_keys=True), shape, text)


def language_kept(config: Config, tokens: int) -> int:
    """Bytes that one layer of the language model keeps for its backward pass, for one row in bfloat16."""
    return _language_kept(json.dumps(config, sort_keys=True), tokens)


# ------------------------------------------------------------------------------------------------------- models
def built(kind: str, config: Config) -> nn.Module:
    """The part by its real class, without memory."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        if kind == DIT:
            return WanTransformer3DModel(**config)
        if kind == VAE:
            neutral = {"latents_mean": [0.0] * config["z_dim"], "latents_std": [1.0] * config["z_dim"]}
            return AutoencoderKLWan(**{**neutral, **config})
        if kind == TEXT:
            return UMT5EncoderModel(UMT5Config(**{**config, "is_encoder_decoder": False}))
        vision = {**config["vision_config"], "out_hidden_size": config["text_config"]["hidden_size"]}
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**{**config, "vision_config": vision}))


@cache
def _shards(config: str) -> tuple[int, int]:
    model: Any = built(VLM, json.loads(config))
    whole, kept, layers = (
        sum(p.numel() for p in part.parameters())
        for part in (model, model.model.visual, model.model.language_model.layers)
    )
    return whole - kept, whole - kept - layers


@cache
def _parameters(kind: str, config: str) -> int:
    return sum(p.numel() for p in built(kind, json.loads(config)).parameters())


# ---------------------------------------------------------------------------------------------------------- VAE
def _latents(vae: Any, size: tuple[int, int, int]) -> Tensor:
    time, space = vae.config.scale_factor_temporal, vae.config.scale_factor_spatial
    t, h, w = size
    return torch.empty(1, vae.config.z_dim, (t - 1) // time + 1, h // space, w // space, device="meta")


@cache
def _vae_flop(config: str, size: tuple[int, int, int]) -> tuple[float, float]:
    vae: Any = built(VAE, json.loads(config))
    return (
        _counted(lambda: vae.encode(torch.empty(1, 3, *size, device="meta"))),
        _counted(lambda: vae.decode(_latents(vae, size))),
    )


@torch.no_grad()
def _counted(call: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


@cache
@torch.no_grad()
def _vae_peak(config: str, size: tuple[int, int, int]) -> int:
    vae: Any = built(VAE, json.loads(config))
    with Peak() as peak:
        vae.decode(_latents(vae, size))
    return peak.most


class Peak(TorchDispatchMode):
    """The most bytes that the tensors made within were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, Any] = {}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return out

    def _note(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive:
            return

        def gone(_: Any) -> None:
            self.now -= size
            del self.alive[key]

        self.alive[key] = weakref.ref(storage, gone)
        self.now += size


# -------------------------------------------------------------------------------------------------- activations
class _Attention(torch.autograd.Function):
    """What a fused kernel keeps: queries, keys, values, output, and a number for each query and head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], device=q.device))
        return out


class Fused(TorchFunctionMode):
    """Attention as on a GPU, where no matrix of scores is held."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            return _Attention.apply(given["query"], given["key"], given["value"])
        return func(*args, **(kwargs or {}))


def kept(module: nn.Module, call: Callable[[], Any]) -> int:
    """Bytes that autograd keeps of a call, the module's own weights and buffers left out."""
    own = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    held: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), Fused():
        out = call()
    total = sum(storage.nbytes() for storage in held.values())
    del out
    return total


@cache
def _dit_kept(config: str, shape: tuple[int, int, int, int], text: int) -> int:
    def of(layers: int) -> int:
        model: Any = nn.Module.to(built(DIT, {**json.loads(config), "num_layers": layers}), torch.bfloat16)
        given: dict[str, Any] = {"device": "meta", "dtype": torch.bfloat16}
        caption = torch.empty(1, text, model.config.text_dim, **given)
        return kept(model, lambda: model(torch.empty(1, *shape, **given), torch.zeros(1, device="meta"), caption))

    return of(2) - of(1)


@cache
def _language_kept(config: str, tokens: int) -> int:
    from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    def of(layers: int) -> int:
        with torch.device("meta"):
            model: Any = Qwen2_5_VLTextModel(
                Qwen2_5_VLTextConfig(**{**json.loads(config), "num_hidden_layers": layers})
            )
            model = model.to(torch.bfloat16)
            embedded = torch.empty(1, tokens, model.config.hidden_size, dtype=torch.bfloat16)
            places = torch.zeros(3, 1, tokens, dtype=torch.long)
        masks: dict[str, None] = {"full_attention": None}
        return kept(
            model, lambda: model(inputs_embeds=embedded, position_ids=places, attention_mask=masks, use_cache=False)
        )

    return of(2) - of(1)
