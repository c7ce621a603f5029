"""Models: toy models saved in the exact file layout of the real repositories load through the paper scale's path; VAE
statistics, reference latents, guidance; sampling that depends on its own seed only; log-probs against generation."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch.testing import assert_close

from tests import smoke
from vans.errors import UserError
from vans.models.clip import CLIP, load_clip
from vans.models.detector import I3D, ToyDetector, load_detector
from vans.models.load import load_dit, load_vdm, load_vlm, vdm_options
from vans.models.prompts import in_parts, pick
from vans.models.sampling import Draws
from vans.models.tokenizer import TAGS, chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.params import from_dict, load
from vans.toy import world

WORDS = world.vocabulary()


@pytest.fixture(scope="module")
def params():
    return load(smoke.ROOT, scale="tiny")


@pytest.fixture(scope="module")
def vdm(params) -> VDM:
    return VDM.scratch(params.models.vdm.config, text_tokenizer(WORDS), 0, **vdm_options(params))


@pytest.fixture(scope="module")
def vlm(params) -> VLM:
    return VLM.scratch(params.models.vlm.config, chat_tokenizer(WORDS), 0)


@pytest.fixture(scope="module")
def clip(params) -> CLIP:
    return CLIP.scratch(params.models.clip.config, text_tokenizer(WORDS), 0)


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    scene = world.Scene(shape="cone", colour="blue")
    return torch.stack([torch.from_numpy(world.render_event(scene, e)) for e in ("left", "grow")])


@pytest.fixture(scope="module")
def hub(tmp_path_factory, vdm, vlm, clip) -> Path:
    """Folders laid out like the three hub repositories."""
    folder = tmp_path_factory.mktemp("hub")
    vdm.save(folder / "Wan2.1-T2V-1.3B-Diffusers")
    vlm.save(folder / "Qwen2.5-VL-3B-Instruct")
    clip.save(folder / "vit_base_patch32_clip_224.openai")
    return folder


# What the real repositories hold; sharded weights have an index beside numbered files instead.
LAYOUT = {
    "Wan2.1-T2V-1.3B-Diffusers": [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ],
    "Qwen2.5-VL-3B-Instruct": [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ],
    "vit_base_patch32_clip_224.openai": ["open_clip_config.json", "open_clip_model.safetensors"],
}


@pytest.mark.parametrize("name", LAYOUT)
def test_files_of_the_real_layout(hub, name):
    found = {str(p.relative_to(hub / name)) for p in (hub / name).rglob("*") if p.is_file()}
    assert set(LAYOUT[name]) <= found
    assert not [f for f in found if f.endswith((".bin", ".pt", ".pth", ".pkl"))], "weights are safetensors only"


def test_weights_of_the_real_layout_load_through_the_papers_path(hub, vdm, vlm, clip, clips):
    tree = yaml.safe_load((smoke.ROOT / "params.yaml").read_text())
    tiny, paper = tree["scales"]["tiny"]["models"], tree["scales"]["paper"]["models"]
    for part, name in zip(("vdm", "vlm", "clip"), LAYOUT, strict=True):
        tiny[part] = {**tiny[part], **paper[part], "repo": str(hub / name), "revision": "local"}
    tiny["vdm"] |= {"references": 3, "max_text": 24}
    params = from_dict(tree, "tiny")
    assert params.models.vdm.shift == 5.0 and params.models.vlm.system.startswith("Watch the video")
    nowhere = Path("models/none")
    again = load_vdm(params, nowhere)
    z = vdm.encode(clips)
    assert_close(again.encode(clips), z, rtol=0, atol=0)
    text = ["the cone moves to the left and stays ."] * 2
    sigma = torch.tensor([0.9, 0.3])
    assert_close(
        again.velocity(z, sigma, again.embed(text), z[:, :, :3]), vdm.velocity(z, sigma, vdm.embed(text), z[:, :, :3])
    )
    assert_close(load_clip(params, nowhere).image(clips), clip.image(clips))
    assert_close(load_clip(params, nowhere).text(text), clip.text(text))
    mine, other = (m.inputs(clips, ["what will happen ?"] * 2, 3.0) for m in (vlm, load_vlm(params, nowhere)))
    assert other["input_ids"].shape[1] > mine["input_ids"].shape[1], "the paper scale has a system prompt"
    answers = vlm.encode_answers(["[Think] a [/Think]", "[Ans] the cone [/Ans]"])
    silent = load_vlm(params, nowhere)
    silent.system, silent.position_rule = "", vlm.position_rule
    assert_close(
        silent.log_probs(silent.inputs(clips, ["what will happen ?"] * 2, 3.0), answers), vlm.log_probs(mine, answers)
    )


def test_missing_weights_are_one_clear_line(tmp_path, params):
    with pytest.raises(UserError, match=r"no VDM weights|no tokenizer"):
        load_vdm(params, tmp_path)
    with pytest.raises(UserError, match="no VLM weights"):
        load_vlm(params, tmp_path)
    with pytest.raises(UserError, match=r"open_clip_model\.safetensors is missing|no CLIP weights"):
        (tmp_path / "clip").mkdir()
        load_clip(params, tmp_path)
    with pytest.raises(UserError, match="dvc repro base"):
        load_detector(params, tmp_path)
    with pytest.raises(UserError, match="no DiT here"):
        load_dit(tmp_path)


def test_a_torchscript_of_another_hash_is_not_loaded(tmp_path):
    path = tmp_path / "i3d.pt"
    path.write_bytes(b"not a network")
    with pytest.raises(UserError, match="sha256"):
        I3D(path, "0" * 64)


def test_latents_are_normalised_by_the_vaes_own_statistics(vdm, clips):
    plain = vdm.encode(clips)
    vdm.vae.register_to_config(latents_mean=[0.5] * 16, latents_std=[2.0] * 16)
    try:
        assert_close(vdm.encode(clips), (plain - 0.5) / 2.0)
        assert plain.shape == (2, *vdm.latent_shape(9, 32, 32)) == (2, 16, 5, 8, 8)
        assert vdm.decode(plain).shape == clips.shape
    finally:
        vdm.vae.register_to_config(latents_mean=[0.0] * 16, latents_std=[1.0] * 16)


def test_references_are_evenly_picked_and_first_and_last_are_among_them(vdm):
    z = torch.arange(5.0).view(1, 1, 5, 1, 1)
    assert vdm.pick_references(z).flatten().tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(UserError, match="references"):
        vdm.pick_references(z[:, :, :2])


def test_references_reach_the_answer_and_their_own_output_is_dropped(vdm, clips):
    z, text = vdm.encode(clips), vdm.embed(["the cone grows to another size ."] * 2)
    x, sigma = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0.7, 0.7])
    with_references = vdm.velocity(x, sigma, text, vdm.pick_references(z))
    assert with_references.shape == x.shape and with_references.dtype == torch.float32
    assert not torch.allclose(with_references, vdm.velocity(x, sigma, text, vdm.pick_references(z.flip(0))))
    assert not torch.allclose(with_references, vdm.velocity(x, sigma, text, None))


def test_captions_are_zero_beyond_their_tokens(vdm):
    short, long = vdm.embed(["ball", "the ball moves to the left ."]).detach()
    assert short[2:].abs().sum() == 0 and long[7].abs().sum() > 0  # a word and </s>; seven tokens and </s>


def test_guidance_is_the_linear_extrapolation(vdm, clips):
    z, sigma = vdm.encode(clips), torch.tensor([0.5, 0.5])
    text, negative = vdm.embed(["ball", "cone"]), vdm.embed([""])
    ref = vdm.pick_references(z)
    v, base = vdm.velocity(z, sigma, text, ref), vdm.velocity(z, sigma, negative.expand(2, -1, -1), ref)
    assert_close(vdm.guided_velocity(z, sigma, text, ref, 1.0), v)
    for grad_through in ("both", "conditional"):
        guided = vdm.guided_velocity(z, sigma, text, ref, 5.0, negative, grad_through=grad_through)
        assert_close(guided, base + 5.0 * (v - base))
    with pytest.raises(ValueError, match="negative"):
        vdm.guided_velocity(z, sigma, text, ref, 5.0)


def test_a_video_does_not_depend_on_what_else_is_in_the_batch(vdm, clips):
    z, text = vdm.encode(clips), vdm.embed(["ball", "cone"]).detach()
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    ref = vdm.pick_references(z)
    both = vdm.render_latents(text, ref, noise, 3, 1.0)
    alone = vdm.render_latents(text[1:], ref[1:], noise[1:], 3, 1.0)
    assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)


def test_the_vaes_and_the_renderers_batch_are_parameters(params, clips, monkeypatch):
    vdm = VDM.scratch(params.models.vdm.config, text_tokenizer(WORDS), 0, **vdm_options(params))
    assert (vdm.vae_batch, vdm.dit_batch) == (params.machine.vae_batch, params.machine.dit_batch) == (16, 16)
    paper = load(smoke.ROOT, scale="paper").machine
    assert (paper.vae_batch, paper.dit_batch) == (1, 8)
    sizes: dict[str, list[int]] = {"encode": [], "decode": [], "dit": []}
    for name in ("encode", "decode"):
        whole = getattr(vdm.vae, name)
        monkeypatch.setattr(vdm.vae, name, lambda x, f=whole, n=name: sizes[n].append(x.shape[0]) or f(x))  # type: ignore[func-returns-value]
    vdm.dit.register_forward_pre_hook(
        lambda _, args, given: sizes["dit"].append(given["hidden_states"].shape[0]), with_kwargs=True
    )
    z = vdm.encode(clips.repeat(2, 1, 1, 1, 1)[:3])
    videos, text = vdm.decode(z), vdm.embed(["ball"] * 3).detach()
    drawn = vdm.render_latents(text, vdm.pick_references(z), z, 2, 1.0)
    assert sizes == {"encode": [3], "decode": [3], "dit": [3, 3]}
    vdm.vae_batch, vdm.dit_batch = 1, 2
    assert_close(vdm.encode(clips.repeat(2, 1, 1, 1, 1)[:3]), z, rtol=1e-4, atol=1e-4)
    assert (vdm.decode(z).int() - videos.int()).abs().max() <= 1
    assert_close(vdm.render_latents(text, vdm.pick_references(z), z, 2, 1.0), drawn, rtol=1e-4, atol=1e-4)
    assert sizes == {"encode": [3, 1, 1, 1], "decode": [3, 1, 1, 1], "dit": [3, 3, 2, 2, 1, 1]}


# ---------------------------------------------------------------------------------------------- VLM
def test_an_answer_depends_on_its_own_seed_only(vlm, clips):
    inputs = vlm.inputs(clips, ["what will happen ?", "what happens next if the wind blows ?"], 3.0)
    seeds = [("s", i) for i in range(6)]
    settings = {"max_new_tokens": 8, "temperature": 1.0}
    answers = vlm.sample(inputs, seeds=seeds, **settings)
    assert len(set(answers.texts)) > 1, "sampling must vary"
    again = vlm.sample(inputs, seeds=seeds, **settings)
    assert again.texts == answers.texts
    changed = vlm.sample(inputs, seeds=[*seeds[:5], ("s", "other")], **settings)
    assert changed.texts[:5] == answers.texts[:5] and changed.texts[5] != answers.texts[5]


@pytest.mark.parametrize("most", [3, 8])
def test_answers_are_those_of_the_whole_batch_however_many_are_sampled_at_once(vlm, clips, most, monkeypatch):
    """Three prompts of four answers: parts of a prompt's answers, whole prompts, and a last batch that is smaller."""
    questions = ["what will happen ?", "what happens next if the wind blows ?", "what next ?"]
    inputs = vlm.inputs(clips[[0, 1, 0]], questions, 3.0)
    given = {"seeds": [("s", i) for i in range(12)], "max_new_tokens": 8, "temperature": 1.0}
    whole = vlm.sample(inputs, **given)
    rows: list[int] = []
    decode = vlm.decode
    monkeypatch.setattr(vlm, "decode", lambda ids, mask: rows.append(len(ids)) or decode(ids, mask))  # type: ignore[func-returns-value]
    monkeypatch.setattr(vlm, "sample_batch", most)
    for prompts in (inputs, vlm.see(inputs)):  # pixels, or features of the clips
        rows.clear()
        parts = vlm.sample(prompts, **given)
        assert sum(rows) == 12 and max(rows) <= most
        assert torch.equal(parts.ids, whole.ids) and torch.equal(parts.mask, whole.mask)
        assert parts.texts == whole.texts
        assert_close(parts.drawn, whole.drawn, rtol=0, atol=1e-5)


def test_how_answers_are_cut_into_batches():
    assert in_parts(3, 4, 8) == [([0, 1], slice(0, 8)), ([2], slice(8, 16))]
    assert in_parts(2, 4, 3) == [([0], slice(0, 3)), ([0], slice(3, 4)), ([1], slice(4, 7)), ([1], slice(7, 8))]
    assert in_parts(2, 1, 1) == [([0], slice(0, 1)), ([1], slice(1, 2))]


def test_the_scales_cap_of_answers_reaches_the_vlm(hub):
    scale = load(smoke.ROOT)
    folder = {"vlm": {"repo": str(hub / "Qwen2.5-VL-3B-Instruct"), "revision": "x"}}
    assert load_vlm(scale.with_(models=folder, machine={"sample_batch": 5}), hub).sample_batch == 5


def test_samples_follow_the_models_distribution(vlm, clips):
    inputs = vlm.inputs(clips[:1], ["what will happen ?"], 3.0)
    count = 1500
    answers = vlm.sample(inputs, seeds=[("d", i) for i in range(count)], max_new_tokens=1, temperature=1.0)
    words = answers.ids[:, 0]
    logp = vlm.log_probs(pick(inputs, [0] * count), answers)[:, 0]
    likely = torch.bincount(words, minlength=len(vlm.tokenizer)).argmax()
    share = (words == likely).float().mean().item()
    p = logp[words == likely][0].exp().item()
    assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.7, 1.0), (1.6, 0.9)])
def test_an_answer_was_drawn_with_the_policys_log_probabilities(vlm, clips, temperature, top_p):
    inputs = vlm.inputs(clips, ["what will happen ?", "what happens next if the wind blows ?"], 3.0)
    seeds = [(i,) for i in range(12)]
    answers = vlm.sample(inputs, seeds=seeds, max_new_tokens=10, temperature=temperature, top_p=top_p)
    logp = vlm.log_probs(inputs, answers, temperature)
    assert_close(answers.drawn, logp, rtol=1e-4, atol=1e-4)
    assert (logp < -0.1).sum() > 60 and not answers.drawn[answers.mask == 0].any()


def test_draws_follow_the_distribution_and_reach_its_rarest_token():
    """Against the distribution's own shares, with the numbers that decide at its ends."""
    share = torch.tensor([0.0, 1e-12, 0.25, 0.0, 0.5, 0.25 - 2e-12, 1e-12, 0.0], dtype=torch.float64)
    logits = share.log().float()[None]
    draw = Draws([("one",)], 1, 1.0, 1.0, torch.device("cpu"))
    edges = [(0.0, 1), (5e-13, 1), (1e-9, 2), (0.25 + 1e-6, 4), (0.75 + 1e-6, 5), (1 - 5e-13, 6), (1 - 2.0**-53, 6)]
    for number, token in edges:
        draw.uniform = torch.tensor([[number]], dtype=torch.float64)
        assert draw(logits, 0).item() == token, number
    many = Draws([("n", i) for i in range(4000)], 2, 0.5, 1.0, torch.device("cpu"))
    drawn = many(logits.expand(4000, -1), 1)
    expected = share**2 / (share**2).sum()  # temperature 0.5
    found = torch.bincount(drawn, minlength=len(share)) / 4000
    assert ((found - expected).abs() < 4 * (expected * (1 - expected) / 4000).sqrt() + 1e-9).all()
    assert set(
        Draws([(i,) for i in range(500)], 1, 1.0, 0.6, torch.device("cpu"))(logits.expand(500, -1), 0).tolist()
    ) == {2, 4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampling_leaves_the_weights_and_the_adapter_as_they_are(params, clips, dtype):
    """A small adapter is in what is sampled, merged or not, and nothing of it is in the weights afterwards."""
    vlm = VLM.scratch(params.models.vlm.config, chat_tokenizer(WORDS), 0)
    vlm.model.to(dtype)
    vlm.autocast_dtype = None if dtype == torch.float32 else dtype
    vlm.add_lora(4, 8, 0)
    for name, p in vlm.model.named_parameters():
        if "lora_B" in name:
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 1e-2
    before = {name: p.clone() for name, p in vlm.model.state_dict().items()}
    inputs = vlm.inputs(clips, ["what will happen ?"] * 2, 3.0)
    answers = vlm.sample(inputs, seeds=[(i,) for i in range(8)], max_new_tokens=10, temperature=1.0)
    after = vlm.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    drawn, tolerance = answers.drawn, 1e-5 if dtype == torch.float32 else 0.02
    assert drawn is not None
    assert_close(drawn, vlm.log_probs(inputs, answers).detach(), rtol=0, atol=tolerance)
    with vlm.model.disable_adapter():
        without = (drawn - vlm.log_probs(inputs, answers)).abs().max()
    assert without > 5 * tolerance, "the adapter was seen"


def test_special_tokens_are_never_sampled(vlm, clips):
    inputs = vlm.inputs(clips, ["what will happen ?"] * 2, 3.0)
    answers = vlm.sample(inputs, seeds=[(i,) for i in range(64)], max_new_tokens=12, temperature=5.0)
    forbidden = set(vlm.special_ids())
    assert vlm.model.config.video_token_id in forbidden
    assert not forbidden & set(answers.ids[answers.mask.bool()].tolist())


def test_top_p_keeps_the_most_likely_only(vlm, clips):
    inputs = vlm.inputs(clips[:1], ["what will happen ?"], 3.0)
    greedy = vlm.sample(inputs, seeds=[("x",)], max_new_tokens=6, temperature=0.0)
    narrow = vlm.sample(inputs, seeds=[("y",)], max_new_tokens=6, temperature=1.0, top_p=1e-6)
    assert narrow.texts == greedy.texts


# What saved generation configs hold: that of Qwen2.5-VL-3B-Instruct, and one that would bend the distribution more.
SAVED = [
    {"do_sample": True, "top_k": 1, "temperature": 1e-6, "repetition_penalty": 1.05},
    {"do_sample": True, "top_k": 3, "top_p": 0.5, "temperature": 0.1, "repetition_penalty": 1.3, "min_p": 0.3},
]


@pytest.mark.parametrize("saved", SAVED, ids=["qwen", "other"])
@pytest.mark.parametrize("temperature", [0.8, 0.0])
def test_a_saved_generation_config_changes_nothing(params, tmp_path, clips, saved, temperature, monkeypatch):
    VLM.scratch(params.models.vlm.config, chat_tokenizer(WORDS), 0).save(tmp_path)
    plain = VLM.load(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **saved}))
    tuned = VLM.load(tmp_path)
    assert tuned.model.generation_config.repetition_penalty == saved["repetition_penalty"], "the file was read"
    seen: list[torch.Tensor] = []
    draw = Draws.__call__

    def record(self, scores, step):
        seen.append(torch.log_softmax(scores.float() / (self.temperature or 1.0), -1))
        return draw(self, scores, step)

    monkeypatch.setattr(Draws, "__call__", record)
    inputs = plain.inputs(clips, ["what will happen ?", "what happens next if the wind blows ?"], 3.0)
    asked = {"seeds": [("g", i) for i in range(8)], "max_new_tokens": 12, "temperature": temperature}
    answers = tuned.sample(inputs, **asked)
    sampled_from = torch.stack(seen, 1)  # [B, L, V]
    assert any(len(set(row)) < len(row) for row in answers.ids.tolist()), "a word must come twice to be penalised"
    assert torch.equal(answers.ids, plain.sample(inputs, **asked).ids)
    chosen = sampled_from.gather(2, answers.ids.unsqueeze(2)).squeeze(2).masked_fill(answers.mask == 0, 0.0)
    assert_close(answers.drawn, chosen, rtol=1e-6, atol=1e-6)
    assert_close(tuned.log_probs(inputs, answers, temperature or 1.0), chosen, rtol=1e-4, atol=1e-4)


def test_log_probs_of_repeated_prompts_and_padding(vlm, clips):
    inputs = vlm.inputs(clips, ["what will happen ?", "what happens next if the wind blows ?"], 3.0)
    answers = vlm.encode_answers(["[Think] a ball", "the", "the cone moves", "ball"])
    logp = vlm.log_probs(inputs, answers)
    assert logp.shape == answers.ids.shape and (logp[~answers.mask.bool()] == 0).all()
    alone = vlm.log_probs(
        vlm.inputs(clips[1:], ["what happens next if the wind blows ?"], 3.0), vlm.encode_answers(["the cone moves"])
    )
    assert_close(logp[2:3, : alone.shape[1]], alone, rtol=1e-4, atol=1e-4)


def test_kept_features_stand_for_a_clips_pixels_and_are_made_once(vlm, clips, monkeypatch):
    questions = ["what will happen ?", "what happens next if the wind blows ?"]
    inputs, answers = vlm.inputs(clips, questions, 3.0), vlm.encode_answers(["[Think] a ball", "the", "cone", "ball"])

    def batch() -> dict:
        make = [lambda i=i: vlm.inputs(clips[i : i + 1], [questions[i]], 3.0) for i in (0, 1)]
        return vlm.together([vlm.kept(("clip", i), make[i]) for i in (0, 1)])

    first = batch()
    assert "pixel_values_videos" not in first and len(first["video_features"]) == 2
    for key in ("input_ids", "attention_mask", "mm_token_type_ids", "video_grid_thw"):
        assert torch.equal(first[key], inputs[key]), key  # padded on the left, as the processor does
    assert_close(vlm.log_probs(first, answers), vlm.log_probs(inputs, answers), rtol=1e-4, atol=1e-4)
    settings = {"seeds": [(i,) for i in range(4)], "max_new_tokens": 6, "temperature": 1.0}
    assert vlm.sample(first, **settings).texts == vlm.sample(inputs, **settings).texts
    with monkeypatch.context() as patch:
        patch.setattr(vlm, "inputs", None)  # nothing is tokenised or encoded again
        assert torch.equal(batch()["video_features"][1], first["video_features"][1])
    vlm.prompts.clear()
    monkeypatch.setattr("vans.models.vlm.PROMPT_BYTES", 0)
    assert torch.equal(batch()["video_features"][0], first["video_features"][0]) and not vlm.prompts


def test_tags_and_punctuation_are_words_of_their_own(vlm):
    text = f"{TAGS[0]} the ball moves . {TAGS[1]} {TAGS[2]} the ball . {TAGS[3]}"
    answers = vlm.encode_answers([text, text.replace(" ", "", 1).replace(f" {TAGS[1]} ", TAGS[1])])
    assert vlm.decode(answers.ids, answers.mask)[0] == text
    assert (answers.ids[0] == answers.ids[1]).all(), "tags without spaces around them are the same answer"


def test_lora_starts_as_the_base_and_only_it_trains(params, tmp_path, clips):
    vlm = VLM.scratch(params.models.vlm.config, chat_tokenizer(WORDS), 0)
    inputs, answers = vlm.inputs(clips, ["what will happen ?"] * 2, 3.0), vlm.encode_answers(["the ball", "the cone"])
    before = vlm.log_probs(inputs, answers)
    vlm.add_lora(4, 8, 0)
    assert_close(vlm.log_probs(inputs, answers), before)
    trained = [n for n, p in vlm.model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in n and "visual" not in n for n in trained)
    assert len(trained) == 2 * 7 * params.models.vlm.config["text_config"]["num_hidden_layers"]
    vlm.save_lora(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["r"] == 4 and settings["lora_alpha"] == 8


def test_detector_keeps_its_shape_and_weights(tmp_path, clips):
    torch.manual_seed(0)
    detector = ToyDetector(5, 8, 16).eval()
    detector.save(tmp_path)
    assert_close(ToyDetector.load(tmp_path).features(clips), detector.features(clips))
    assert "not I3D" in detector.name


def test_what_is_saved_does_not_depend_on_what_was_read(params, tmp_path):
    """A training that goes on after its last step saves what it would have saved then."""
    vdm = VDM.scratch(params.models.vdm.config, text_tokenizer(WORDS), 0, **vdm_options(params))
    clip = CLIP.scratch(params.models.clip.config, text_tokenizer(WORDS), 0)
    for name in ("before", "after"):
        vdm.save(tmp_path / name / "vdm")
        clip.save(tmp_path / name / "clip")
        vdm.embed(["a cone"])
        clip.text(["a cone"])
    for made in ("vdm/tokenizer/tokenizer.json", "clip/tokenizer.json"):
        assert (tmp_path / "before" / made).read_bytes() == (tmp_path / "after" / made).read_bytes()
        assert json.loads((tmp_path / "after" / made).read_text())["padding"]["strategy"] == {"Fixed": 24}
