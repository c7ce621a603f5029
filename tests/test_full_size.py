"""The benchmark of the paper's models: its script runs on toy models, and its typed-in sizes are the released ones."""

import importlib.util
import json

import pytest
import torch

from tests import smoke
from vans.models.clip import CLIP
from vans.models.tokenizer import text_tokenizer
from vans.toy import world


@pytest.fixture(scope="module")
def full_size():
    spec = importlib.util.spec_from_file_location("full_size", smoke.ROOT / "benchmarks/full_size.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_clip_is_the_released_one(full_size):
    """Without memory: on torch's meta device. The others: tests/test_plan.py."""
    with torch.device("meta"):
        clip = CLIP.scratch(full_size.VIT_B_32, text_tokenizer(world.vocabulary()), 0)
    assert sum(p.numel() for p in clip.model.parameters()) == 151_277_313


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
