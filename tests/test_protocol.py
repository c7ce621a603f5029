"""How an answer is made: ours, or the release's; each of the twelve differences where it is used."""

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from tests import release_files, smoke
from vans.answer import arm
from vans.answer.watch import watch
from vans.errors import UserError
from vans.media import video
from vans.models.load import vdm_options, vlm_options
from vans.models.protocol import RELEASE, Protocol, prompts, protocol_of
from vans.models.sampling import TOP_K, named_by
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.parallel import Ranks
from vans.params import load
from vans.template import answer_text
from vans.toy import world
from vans.train.settings import settings_of

WORDS = world.vocabulary()
QUESTION = ["what happens next if the wind blows ?"]


@pytest.fixture(scope="module")
def ours():
    return load(smoke.ROOT, scale="tiny")


@pytest.fixture(scope="module")
def release(ours, tmp_path_factory):
    folder = release_files.checkout(tmp_path_factory.mktemp("checkout"))
    return ours.with_(models={"protocol": "release", "prompts": str(folder)})


@pytest.fixture(scope="module")
def clips():
    scene = world.Scene(shape="cone", colour="blue")
    return torch.from_numpy(np.stack([world.render_event(scene, event) for event in ("left", "jump")]))


@pytest.fixture(scope="module")
def vlm(ours):
    return VLM.scratch(ours.models.vlm.config, chat_tokenizer(WORDS), 0)


def painter(params):
    return VDM.scratch(params.models.vdm.config, text_tokenizer(WORDS), 0, **vdm_options(params))


# ------------------------------------------------------------------------------------------------------ values
def test_the_table(ours, release):
    paper = load(smoke.ROOT, scale="paper")
    plain, theirs = protocol_of(paper), protocol_of(release)
    asked = {"max_new_tokens": 512, "temperature": 0.7, "top_p": 0.9}
    own = Protocol(paper.models.vlm.system, paper.models.vdm.negative_prompt)
    assert plain.drawing(paper.generate) == asked and theirs.drawing(ours.generate) == theirs.decoding
    assert plain == own and plain.system.startswith("Watch the video") and plain.negative_prompt.startswith("static")
    assert asdict(theirs) == {
        "system": "think , then answer",
        "negative_prompt": "still",
        "references": "down",
        "frames": 6,
        "pixels": 602112,
        "seconds": 1.0,
        "decoding": {"max_new_tokens": 1024, "temperature": 0.7, "top_p": 0.9, "hub_defaults": True},
        "whole_text": True,
        "spaces": False,
        "half": True,
        "tile": (30, 52),
        "one_seed": True,
    }
    assert protocol_of(release.with_(models={"vlm": {"frames": 4}})).frames == 4
    assert protocol_of(ours.with_(models={"vlm": {"frames": 4}})) == Protocol(frames=4)


def test_wrong_parameters_are_one_line(ours):
    with pytest.raises(UserError, match=r"models.vlm.frames: 10 is more than the 9 frames of a clip"):
        ours.with_(models={"vlm": {"frames": 10}})
    with pytest.raises(UserError, match=r"models.prompts: null, but protocol: release takes its prompts"):
        ours.with_(models={"protocol": "release"})
    with pytest.raises(UserError, match=r"models.protocol: 'theirs' is unknown; use ours or release"):
        ours.with_(models={"protocol": "theirs"})


AGENT, INFERENCE = "vans/models_mllm/agent_mllm.py", "inference.py"
BROKEN = [
    (lambda f: (f / AGENT).unlink(), "agent_mllm.py: missing; models.prompts must name your copy"),
    (lambda f: (f / INFERENCE).unlink(), "inference.py: missing"),
    (lambda f: (f / INFERENCE).write_text("pipe(negative_prompt=other)"), "not one text negative_prompt, but 0"),
    (lambda f: (f / INFERENCE).write_text("a(negative_prompt='b')\nnegative_prompt = 'c'"), "negative_prompt, but 2"),
    (lambda f: (f / INFERENCE).write_text("def ("), "inference.py: models.prompts: no Python"),
    (lambda f: (f / INFERENCE).write_bytes(b"# \xff"), "inference.py: models.prompts: not UTF-8"),
]


@pytest.mark.parametrize("change, message", BROKEN)
def test_a_checkout_without_the_prompts_is_one_line(tmp_path, change, message):
    assert prompts(release_files.checkout(tmp_path)) == ("think , then answer", "still")
    change(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        prompts(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_prompts_may_stand_in_a_file_of_their_own(tmp_path):
    path = tmp_path / "prompts.json"
    for text, message in (("{", "no JSON"), ("[]", "system_prompt, but 0"), ('{"system_prompt": 1}', "system_prompt")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            prompts(path)
    path.write_text(json.dumps({"system_prompt": "a", "negative_prompt": "b"}))
    assert prompts(str(path)) == ("a", "b")
    with pytest.raises(UserError, match=r"none: missing; models.prompts must name your copy"):
        prompts(tmp_path / "none")


def test_a_text_of_the_release_counts_for_a_run(release, tmp_path, monkeypatch):
    (tmp_path / "triplets/shards").mkdir(parents=True)
    for name in ("manifest.parquet", "shards/0.tar"):
        (tmp_path / "triplets" / name).touch()
    monkeypatch.setattr("vans.code.digest", lambda *_: "")
    folder = release_files.checkout(tmp_path / "copy")
    params = release.with_(models={"prompts": str(folder)})
    ranks = Ranks(0, 1, torch.device("cpu"))

    def settings():
        return settings_of(params, tmp_path, ranks, "", ["seed"])

    before = settings()
    assert before == settings() and before["protocol"]["system"] == "think , then answer"
    release_files.checkout(folder, inference="pipe(negative_prompt='moving')")
    assert settings() != before
    ours = settings_of(params.with_(models={"protocol": "ours"}), tmp_path, ranks, "", ["seed"])
    assert "protocol" not in ours


# ------------------------------------------------------------------------------------------------- what is seen
@pytest.mark.parametrize("picking, places", [("nearest", [0, 2, 3, 5, 6, 8]), ("down", [0, 1, 3, 4, 6, 8])])
def test_reference_latents_of_nine(picking, places):
    at: Any = SimpleNamespace(references=6, picking=picking)
    picked = VDM.pick_references(at, torch.arange(9.0).view(1, 1, 9, 1, 1))
    assert picked.flatten().tolist() == places


@pytest.mark.parametrize("frames, places", [(6, [0, 2, 3, 5, 6, 8]), (2, [0, 8]), (1, [0])])
def test_the_vlm_sees_so_many_pictures_with_both_ends(ours, vlm, clips, frames, places):
    params = ours.with_(models={"vlm": {"frames": frames}})
    some = VLM(vlm.model, vlm.processor, **vlm_options(params))
    found = some.inputs(clips, QUESTION * 2, [3.0, 6.0])
    spacing = (places[-1] or 8) / max(len(places) - 1, 1)
    same = vlm.inputs(clips[:, places], QUESTION * 2, [3.0 / spacing, 6.0 / spacing])
    assert torch.equal(found["pixel_values_videos"], same["pixel_values_videos"])
    assert_close(torch.as_tensor(found["second_per_grid_ts"]), torch.as_tensor(same["second_per_grid_ts"]))
    whole = vlm.inputs(clips, QUESTION * 2, 3.0)
    assert found["video_grid_thw"][0, 0] == (frames + 1) // 2 < whole["video_grid_thw"][0, 0]
    all_of_it = VLM(vlm.model, vlm.processor, frames=9).inputs(clips, QUESTION * 2, 3.0)
    assert all(torch.equal(torch.as_tensor(all_of_it[k]), torch.as_tensor(whole[k])) for k in whole)


def test_the_release_is_told_one_second_a_step(release, vlm, clips):
    seen = VLM(vlm.model, vlm.processor, **vlm_options(release))
    inputs = seen.inputs(clips, QUESTION * 2, [3.0, 11.0])
    assert torch.as_tensor(inputs["second_per_grid_ts"]).tolist() == [1.0, 1.0]
    assert inputs["video_grid_thw"][:, 0].tolist() == [3, 3]
    assert "think , then answer" in seen.prompt(QUESTION[0])


def test_a_video_keeps_its_own_shape_up_to_so_many_pixels(tmp_path):
    frames = np.zeros((20, 40, 120, 3), np.uint8)
    frames[:] = np.arange(20, dtype=np.uint8)[:, None, None, None] * 10
    video.write(tmp_path / "x.avi", frames, 4.0)
    clip = SimpleNamespace(frames=9, height=32, width=32, fps=3.0)
    seen = watch(tmp_path / "x.avi", clip, RELEASE)
    assert seen.clip.shape == (9, 32, 32, 3)
    assert seen.looked.shape == (6, 40, 120, 3) and seen.looked_rate == pytest.approx(5 / 4.75)
    assert seen.looked[:, 0, 0, 0].tolist() == [0, 30, 70, 110, 150, 190]
    assert watch(tmp_path / "x.avi", clip, Protocol(pixels=1200)).looked.shape == (9, 20, 60, 3)
    Image.fromarray(frames[3]).save(tmp_path / "x.png")
    still = watch(tmp_path / "x.png", clip, Protocol(pixels=1200))
    assert still.looked.shape == (9, 20, 60, 3) and (still.looked == 30).all() and still.clip.shape == (9, 32, 32, 3)


# ------------------------------------------------------------------------------------------------- what is said
ANSWERS = [  # text, caption here, caption of the release
    ("[Think] a [/Think] [Ans] b [/Ans]", "b", "b"),
    ("[Think]a[/Think][Ans]b[/Ans]", "b", "b"),
    ("the cone moves", None, "the cone moves"),
    ("so : [Ans] b\nc [/Ans] or [Ans] d [/Ans]", None, "b\nc"),
    ("[Think] a [/Think] [Ans] b", None, "[Think] a [/Think] [Ans] b"),
]


@pytest.mark.parametrize("text, here, there", ANSWERS)
def test_captions_of_answers(text, here, there):
    assert (Protocol().caption(text), RELEASE.caption(text)) == (here, there)


def test_an_answer_to_learn_from():
    assert answer_text("a b", "c d") == answer_text("a b", "c d", Protocol().spaces)
    assert answer_text("a b", "c d") == "[Think] a b [/Think] [Ans] c d [/Ans]"
    assert answer_text("a b", "c d", RELEASE.spaces) == "[Think]a b[/Think][Ans]c d[/Ans]"


def test_the_hubs_generation_defaults_are_those_of_generate(ours, clips):
    vlm = VLM.scratch(ours.models.vlm.config, chat_tokenizer(WORDS), 0, position_rule="grid")  # as theirs
    inputs = vlm.inputs(clips, [*QUESTION, "what ?"], 3.0)
    vlm.model.generation_config.repetition_penalty = 50.0
    asked: dict[str, Any] = {"seeds": [("a",), ("b",)], "max_new_tokens": 12, "temperature": 0.0}
    kept, plain = vlm.sample(inputs, **asked, hub_defaults=True), vlm.sample(inputs, **asked)
    theirs = vlm.model.generate(
        **inputs, do_sample=False, max_new_tokens=12, suppress_tokens=vlm.special_ids(), pad_token_id=0, eos_token_id=[]
    )[:, inputs["input_ids"].shape[1] :]
    assert not torch.equal(kept.ids, plain.ids)
    for mine, mask, other in zip(kept.ids, kept.mask, theirs, strict=True):
        count = int(mask.sum())
        assert torch.equal(mine[:count], other[:count])
    vlm.model.generation_config.top_k = 1
    hot = vlm.sample(inputs, **{**asked, "temperature": 5.0}, hub_defaults=True)
    assert torch.equal(hot.ids, kept.ids), "the first of one is the best, however hot"


def test_fifty_where_the_hub_names_no_top_k(vlm):
    config = SimpleNamespace(repetition_penalty=None, top_k=None)
    (only,) = named_by(config, torch.zeros(1, 1))
    assert only.top_k == TOP_K == vlm.model.generation_config._get_default_generation_params()["top_k"]
    assert not named_by(SimpleNamespace(repetition_penalty=1.0, top_k=0), torch.zeros(1, 1))


# --------------------------------------------------------------------------------------------------- what is drawn
def test_a_video_of_the_release(ours, release, clips, monkeypatch):
    """Half precision, tiles, the release's own noise; ours is as it was, and not changed by it."""
    starts = []
    render = VDM.render_latents

    def keep(self, text, reference, start, *more):
        starts.append(start)
        return render(self, text, reference, start, *more)

    monkeypatch.setattr(VDM, "render_latents", keep)
    plain, theirs = painter(ours), painter(release)
    said = ["the cone moves to the left .", "the cone jumps ."]
    mine = arm.render(ours, plain, clips, said, ["a", "b"])
    other = arm.render(release, theirs, clips, said, ["a", "b"])
    assert {p.dtype for p in plain.dit.parameters()} == {p.dtype for p in plain.vae.parameters()} == {torch.float32}
    assert {p.dtype for p in theirs.dit.parameters()} == {p.dtype for p in theirs.vae.parameters()} == {torch.bfloat16}
    vae = theirs.vae
    assert vae.use_tiling and not plain.vae.use_tiling and vae.config.scale_factor_spatial == 4
    assert (vae.tile_sample_min_height, vae.tile_sample_min_width) == (120, 208)
    assert (vae.tile_sample_stride_height, vae.tile_sample_stride_width) == (60, 104)
    first, second = starts
    assert not torch.equal(first[0], first[1]) and torch.equal(second[0], second[1])
    seeded = torch.randn((1, *second.shape[1:]), generator=torch.Generator().manual_seed(ours.seed))
    assert torch.equal(second[:1], seeded)
    assert mine.shape == other.shape == (2, 9, 32, 32, 3) and mine.dtype == other.dtype == torch.uint8
    assert torch.equal(arm.render(ours, plain, clips, said, ["a", "b"]), mine)


def test_latents_and_time_step_of_the_release_are_half(release, clips, monkeypatch):
    vdm = painter(release).lowered(True, None)
    seen = []
    inner = vdm.dit.forward

    def look(hidden_states, timestep, encoder_hidden_states, return_dict):
        seen.append((hidden_states.dtype, timestep.dtype, encoder_hidden_states.dtype))
        return inner(hidden_states, timestep, encoder_hidden_states, return_dict=return_dict)

    monkeypatch.setattr(vdm.dit, "forward", look)
    z = vdm.encode(clips[:1])
    text = vdm.embed(["the cone moves"]).detach()
    noise = torch.randn(1, *z.shape[1:], generator=torch.Generator().manual_seed(0))
    drawn = vdm.render_latents(text, vdm.pick_references(z), noise, 2, 1.0)
    assert seen == [(torch.bfloat16,) * 3] * 2
    assert drawn.dtype == torch.float32 and torch.equal(drawn, drawn.bfloat16().float())
    exact = painter(release).render_latents(text, vdm.pick_references(z), noise, 2, 1.0)
    assert 0 < (drawn - exact).abs().mean() < 0.1
    assert {table.dtype for table in vdm.dit.rope.buffers()} == {
        table.dtype for table in painter(release).dit.rope.buffers()
    }
