"""Small worlds and settings for the tests of the data side."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest


def world_params(procedural=6, procedural_test=3, predictive=5, predictive_test=3, seed=7, surprise=0.2):
    """Parameters of a small toy world."""
    return SimpleNamespace(
        seed=seed,
        procedural_train=procedural,
        procedural_test=procedural_test,
        predictive_train=predictive,
        predictive_test=predictive_test,
        surprise=surprise,
    )


def curate_params(codec="raw", frames=9, height=32, width=32, fps=3.0, **curate):
    """Parameters of a curation at the tiny scale (or any other clip)."""
    fields = {"min_segment": 3.0, "annotator": "rules", "flowery": 0.35, "rl": 8, "shot_threshold": 27.0}
    fields |= {"input_seconds": 3.0, "target_seconds": 3.0}
    fields |= {"skipped_steps": False, "held_out": None}
    fields |= {"rl_motion": 0.002, "agreement": "none", "near_duplicate": 0.08}
    fields["llm"] = SimpleNamespace(key_variable="VANS_API_KEY")
    fields["rl_weights"] = SimpleNamespace(agreement=2.0, motion=1.0, length=1.0, self_check=1.0, visual_gain=0.0)
    return SimpleNamespace(
        seed=0,
        video=SimpleNamespace(frames=frames, height=height, width=width, fps=fps),
        machine=SimpleNamespace(engine="local", workers=1),
        models=SimpleNamespace(clip=SimpleNamespace(repo=None)),
        curate=SimpleNamespace(codec=codec, **{**fields, **curate}),
    )


def shared(name: str) -> Path:
    """A folder of files that are not the project's own; the test is skipped, and says so, where it does not exist."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / name).is_dir():
            return parent / "shared" / name
    pytest.skip(f"no {name} here")


def real_clips() -> Path:
    """The folder of real clips; the test is skipped, and says so, where it does not exist."""
    named = os.environ.get("VANS_REAL_CLIPS")
    around = [parent / "shared" / "real_clips" for parent in Path(__file__).resolve().parents]
    for folder in [Path(named)] if named else around:
        if (folder / "annotations.json").is_file():
            return folder
    pytest.skip("no real clips here (set VANS_REAL_CLIPS to their folder)")
