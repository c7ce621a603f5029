"""The released models' architectures, as far as they decide parameters and FLOPs, and which one a scale names.

From the config.json files of the named repositories (transformer/, vae/ and text_encoder/ of Wan's); checked against
the classes' own numbers of parameters (tests/test_plan.py).
"""

from __future__ import annotations

from typing import Any

from vans.errors import UserError, one_of
from vans.params.fit import config_file

WAN_VAE = {
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}


def _wan(heads: int, ffn: int, layers: int) -> dict[str, Any]:
    dit = {
        "patch_size": [1, 2, 2],
        "num_attention_heads": heads,
        "attention_head_dim": 128,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 4096,
        "freq_dim": 256,
        "ffn_dim": ffn,
        "num_layers": layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
        "rope_max_seq_len": 1024,
    }
    return {"dit": dit, "vae": WAN_VAE, "text_encoder": UMT5_XXL}


def _qwen(hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return {
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
        },
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
        },
        "tie_word_embeddings": tied,
    }


VDMS = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": _wan(12, 8960, 30),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": _wan(40, 13824, 40),
}
VLMS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen(2048, 11008, 36, 16, 2, 151936, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen(3584, 18944, 28, 28, 4, 152064, False),
}
# timm/vit_base_patch32_clip_224.openai, with OpenAI's quick-GELU
VIT_B_32 = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


def vdm_config(model: Any) -> dict[str, Any]:
    """Sections dit, vae and text_encoder of `models.vdm`: its own, a released one's, or those of a folder's files."""
    if model.repo is None:
        dit = {"text_dim": model.config["text_encoder"]["d_model"], **model.config["dit"]}
        return {**model.config, "dit": dit}
    if model.repo in VDMS:
        return VDMS[model.repo]
    places = {"dit": "transformer", "vae": "vae", "text_encoder": "text_encoder"}
    return {part: _read("vdm", model, place) for part, place in places.items()}


def vlm_config(model: Any) -> dict[str, Any]:
    """text_config, vision_config and tie_word_embeddings of `models.vlm`."""
    if model.repo is None:
        return {"tie_word_embeddings": True, **model.config}
    return VLMS[model.repo] if model.repo in VLMS else _read("vlm", model, ".")


def _read(name: str, model: Any, place: str) -> dict[str, Any]:
    found = config_file(model.repo, model.revision, place)
    if not isinstance(found, dict):
        known = one_of(VDMS if name == "vdm" else VLMS)
        raise UserError(
            f"models.{name}.repo: nothing is known of {model.repo}, whose config.json is not on this machine; use "
            f"{known}, or download it first"
        )
    return {key: value for key, value in found.items() if not key.startswith("_")}
