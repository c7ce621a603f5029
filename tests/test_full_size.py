"""The benchmark of the paper's models: its script runs on toy models, and its typed-in sizes are the released ones."""

import importlib.util
import json

import pytest
import torch

from tests import smoke
from vans.models.clip import CLIP
from vans.models.load import vdm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.params import load
from vans.toy import world


@pytest.fixture(scope="module")
def full_size():
    spec = importlib.util.spec_from_file_location("full_size", smoke.ROOT / "benchmarks/full_size.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_those_of_the_released_models(full_size):
    """Without memory: on torch's meta device."""
    options, words = vdm_options(load(smoke.ROOT, scale="paper")), world.vocabulary()
    with torch.device("meta"):
        wan = {**full_size.WAN, "text_encoder": {**full_size.WAN["text_encoder"], "vocab_size": 256384}}
        vdm = VDM.scratch(wan, text_tokenizer(words), 0, **options)
        vlm = VLM.scratch(full_size.QWEN, chat_tokenizer(words), 0)
        clip = CLIP.scratch(full_size.VIT_B_32, text_tokenizer(words), 0)
    assert count(vdm.dit) == 1_418_996_800
    assert count(vdm.vae) == 126_892_531
    assert count(vdm.text_encoder) == 5_680_910_336
    assert count(vlm.model) == 3_754_622_976
    assert count(clip.model) == 151_277_313
    assert vdm.latent_shape(33, 352, 640) == (16, 9, 44, 80)


def test_flops_of_the_dit(full_size):
    """15 latents of 22 x 40 patches: 66.5 TFLOP and the cross-attention's share of the text."""
    assert full_size.dit_flop(full_size.WAN["dit"], 13200, 512) / 1e12 == pytest.approx(66.5, rel=0.02)


def test_the_script_on_toy_models(full_size, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(smoke.ROOT)
    out = tmp_path / "found.json"
    found = full_size.main(["--tiny", "--group", "3", "--out", str(out)])
    assert json.loads(out.read_text()) == found
    assert len(found["parts"]) == 10 and all(row["seconds"] > 0 for row in found["parts"])
    assert 0 < found["stage1"]["sampler_gap"] < 0.1 and found["stage2"]["ratio_first"] == 0
    assert all(found[stage]["ratio_last"] > 0 for stage in ("stage1", "stage2"))
    table = out.with_suffix(".md").read_text()
    assert all(row["part"] in table for row in found["parts"])
    said = capsys.readouterr().out
    assert ("has not been measured on a GPU" in said) != full_size.RESULT.exists()
