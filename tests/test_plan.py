"""`vans plan`: formulas count what torch counts, architectures are the released ones, the page shows its output."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests import smoke
from vans import cli
from vans.errors import UserError
from vans.grid import Grid
from vans.models.load import vdm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.params import load
from vans.plan import flops, gpus, meta, released, report
from vans.plan.memory import STAGES, How, cures, how_of, memory, remedy
from vans.plan.takes import WHAT, takes
from vans.plan.work import Models, Part, Stage, of_step
from vans.toy import world

TINY = load(smoke.ROOT, "tiny")


@pytest.fixture(scope="module")
def toy() -> Models:
    return Models(TINY)


@pytest.fixture(scope="module")
def paper() -> Models:
    return Models(load(smoke.ROOT, "paper").with_(machine={"processes": 8}))


@torch.no_grad()
def counted(call: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


# --------------------------------------------------------------------------------------------------------- flops
def test_the_dit_is_counted_as_torch_counts_it(toy):
    """Toy size, exactly: 3 reference latents among 8, 24 tokens of text; a rectangular clip, and other patches."""
    wide = {**toy.vdm["dit"], "patch_size": [1, 1, 2], "num_layers": 2}
    for config, shape in ((toy.vdm["dit"], toy.shown), (wide, (16, 3, 4, 6))):
        model = meta.built(meta.DIT, config)
        t, h, w = config["patch_size"]
        tokens = shape[1] // t * (shape[2] // h) * (shape[3] // w)
        given = (
            torch.empty(1, *shape, device="meta"),
            torch.zeros(1, device="meta"),
            torch.empty(1, 24, 64, device="meta"),
        )
        assert flops.dit(config, tokens, 24) == counted(lambda model=model, given=given: model(*given))
    assert toy.tokens == (5 + 3) * 4 * 4


def test_the_language_model_is_counted_as_torch_counts_it(toy):
    """Exactly: a row of 17 tokens, five of them through the head, and a token behind 16 kept ones."""
    from transformers import DynamicCache

    model: Any = meta.built(meta.VLM, toy.vlm).to_empty(device="cpu")
    body, head, config = model.model.language_model, model.lm_head, toy.language
    masks = {"full_attention": None}

    def run(tokens: int, cache: Any = None) -> Any:
        given = torch.zeros(1, tokens, config["hidden_size"])
        start = 0 if cache is None else cache.get_seq_length()
        places = torch.arange(start, start + tokens).expand(3, 1, -1)
        options = {"past_key_values": cache, "use_cache": cache is not None}
        return body(inputs_embeds=given, position_ids=places, attention_mask=masks, **options)

    assert flops.language(config, 17, 5) == counted(lambda: head(run(17).last_hidden_state[:, -5:]))
    cache = DynamicCache()
    run(16, cache)
    assert flops.generated(config, 16, 2) == counted(lambda: head(run(1, cache).last_hidden_state))
    assert flops.cache_bytes(config, 17, 4) == sum(
        t.nbytes for layer in cache.layers for t in (layer.keys, layer.values)
    )


def test_the_vision_tower_is_counted_as_torch_counts_it(toy):
    """Exactly; with windows of unequal sizes, too (pictures of 10 x 6 patches, windows of 4 x 4)."""
    for full, grid in (([0, 1, 2], toy.grid), ([1], (2, 10, 6))):
        config = {**toy.vision, "fullatt_block_indexes": full}
        tower = meta.built(meta.VLM, {**toy.vlm, "vision_config": config}).model.visual.to_empty(device="cpu")  # type: ignore[union-attr]
        values = 3 * config["temporal_patch_size"] * config["patch_size"] ** 2
        given = (torch.zeros(grid[0] * grid[1] * grid[2], values), torch.tensor([grid]))
        found = counted(lambda tower=tower, given=given: tower(given[0], grid_thw=given[1]))
        assert flops.tower(config, toy.language["hidden_size"], grid) == found
    assert flops.windows(toy.vision, 5, 3) == [4, 2, 4, 2, 2, 1]


def test_the_text_encoder_is_counted_as_torch_counts_it(toy):
    """Within a thousandth: the table of relative positions is no matrix product here, and one there."""
    config = {"vocab_size": 100, **toy.vdm["text_encoder"]}
    model = meta.built(meta.TEXT, config).to_empty(device="cpu")
    found = counted(
        lambda: model(torch.zeros(1, 24, dtype=torch.long), attention_mask=torch.ones(1, 24, dtype=torch.long))
    )
    assert flops.text_encoder(config, 24) == pytest.approx(found, rel=1e-3)


# -------------------------------------------------------------------------------------------------- architectures
def test_parameters_are_those_of_the_released_models():
    of = {repo: meta.parameters(meta.DIT, config["dit"]) for repo, config in released.VDMS.items()}
    assert list(of.values()) == [1_418_996_800, 14_288_491_584]
    of = {repo: meta.parameters(meta.VLM, config) for repo, config in released.VLMS.items()}
    assert list(of.values()) == [3_754_622_976, 8_292_166_656]
    assert meta.parameters(meta.VAE, released.WAN_VAE) == 126_892_531
    assert meta.parameters(meta.TEXT, released.UMT5_XXL) == 5_680_910_336


def test_parameters_of_toy_models_are_those_that_are_built(toy):
    """Their vocabularies are the toy world's words: the classes' own would be most of a toy."""
    words, models = world.vocabulary(), TINY.models
    vdm = VDM.scratch(models.vdm.config, text_tokenizer(words), 0, **vdm_options(TINY))
    vlm = VLM.scratch(models.vlm.config, chat_tokenizer(words), 0)
    built = {meta.DIT: vdm.dit, meta.VAE: vdm.vae, meta.TEXT: vdm.text_encoder}
    for name, model in built.items():
        assert meta.parameters(name, toy.vdm[name]) == sum(p.numel() for p in model.parameters()), name
    assert meta.parameters(meta.VLM, toy.vlm) == sum(p.numel() for p in vlm.model.parameters())


def test_a_lora_has_as_many_parameters_as_peft_makes(toy):
    from vans.models.tokenizer import chat_tokenizer
    from vans.models.vlm import VLM
    from vans.toy import world

    vlm = VLM.scratch(TINY.models.vlm.config, chat_tokenizer(world.vocabulary()), 0).add_lora(5, 5, 0)
    assert flops.lora_parameters(toy.language, 5) == sum(p.numel() for p in vlm.train_lora())
    assert meta.parameters(meta.VLM, toy.vlm) == sum(
        p.numel() for n, p in vlm.model.named_parameters() if "lora_" not in n
    )


def test_a_models_own_files_and_one_that_nothing_is_known_of(tmp_path):
    for place, config in (("transformer", {"num_layers": 3, "_class_name": "x"}), ("vae", {}), ("text_encoder", {})):
        (tmp_path / place).mkdir()
        (tmp_path / place / "config.json").write_text(str(config).replace("'", '"'))
    model = TINY.models.vdm.model_copy(update={"repo": str(tmp_path)})
    assert released.vdm_config(model)["dit"] == {"num_layers": 3}
    with pytest.raises(UserError, match="models.vlm.repo: nothing is known of a/b, whose config.json is not on this"):
        released.vlm_config(TINY.models.vlm.model_copy(update={"repo": "a/b"}))


# ------------------------------------------------------------------------------------------------------ the paper's
def test_the_papers_scale_as_it_was_reckoned_by_hand(paper):
    """docs/scales.md before this command: 13,200 tokens, 66.5 TFLOP a pass, 266 one that is learnt from, 203 GB."""
    assert paper.tokens == 13200 and paper.patches == 20332 and paper.seen == 5083
    assert paper.dit / 1e12 == pytest.approx(66.53, abs=0.005)
    assert paper.dit_learnt(False) == 4 * paper.dit
    assert 2 * 100_000 * report.latent_bytes(paper.params) / 1e9 == pytest.approx(202.75, abs=0.01)
    assert sum(flops.windows(paper.vision, 13, 23)) * 4 * paper.grid[0] == paper.patches
    parts = {stage: {part.name: part.flop for part in paper.step(stage)} for stage in ("sft/vdm", "stage1", "stage2")}
    videos, hours = 64, 3600 * 790e12
    assert 20_000 * parts["sft/vdm"]["update"] / hours == pytest.approx(15, abs=0.5)
    render = parts["stage1"]["render"] - videos * paper.text
    assert render == videos * 20 * 2 * paper.dit and 800 * render / hours == pytest.approx(48, abs=0.5)
    rollout = parts["stage2"]["render"] - videos * paper.text
    assert rollout == videos * (20 * 2 + 19 * 2) * paper.dit  # the reference not in the last step, which is not trained
    update = parts["stage2"]["update"]
    assert update == videos * 19 * 9 * paper.dit and 1000 * update / hours == pytest.approx(256, abs=0.5)
    assert paper.learnt(8) < paper.learnt() / 5, "a prompt of 5,083 tokens is read once for eight answers"
    assert of_step(paper.params, "stage2").videos == videos
    assert of_step(paper.params, "stage2").flop() == sum(parts["stage2"].values())
    no_video = {part.name for part in paper.step("stage1", renders=False)}
    assert no_video == {"generate", "update"}


def test_what_settings_change(paper):
    p = paper.params

    def update(**s: Any) -> float:
        return Models(p.with_(stage2=s)).step("stage2")[-1].flop / paper.step("stage2")[-1].flop

    assert update(inner_updates=1) == pytest.approx(4 / 9) and update(train_steps=10) == pytest.approx(10 / 19)
    assert update(guidance_grad="both") == pytest.approx(16 / 9) and update(guidance=1.0) == pytest.approx(8 / 9)
    assert update(lora_rank=8) == pytest.approx(7 / 9)
    kept = Models(p.with_(machine={"gradient_checkpointing": "none"}))
    assert kept.dit_learnt(False) == 3 * kept.dit and kept.dit_learnt(True) == 2 * kept.dit


# ------------------------------------------------------------------------------------------------------------ time
def test_hours_by_hand():
    """A GPU of 100 TFLOP/s and 1 TB/s, of which half is reached, two of them."""
    card = gpus.GPU("x", 10, 100.0, 1.0, ())
    assert Part("a", 1e14).seconds(card, 2, 0.5) == 1.0
    assert Part("a", 1e14, "tf32").seconds(card, 2, 0.5) == 2.0
    assert Part("a", 1e14, read=4e12).seconds(card, 2, 0.5) == 4.0
    stage = Stage("s", 3600, (Part("a", 1e14),), (Part("b", 3.6e17),))
    assert stage.hours(card, 2, 0.5) == 2.0 and stage.flop == 7.2e17


def test_gpus_by_the_names_that_cuda_gives_them():
    named = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA A100-SXM4-40GB": "a100-40"}
    named |= {"NVIDIA A100 80GB PCIe": "a100-80", "NVIDIA L40S": "l40s", "NVIDIA B200": "b200"}
    named |= {"NVIDIA RTX 6000 Ada Generation": "rtx-6000-48"}
    assert {name: card.name for name in named if (card := gpus.found(name))} == named
    assert gpus.found("NVIDIA GeForce RTX 3060") is None
    with pytest.raises(UserError, match="--gpu h1000: is unknown; use a100-40, .* or b200"):
        gpus.gpu("h1000")


# ---------------------------------------------------------------------------------------------------------- memory
def test_what_a_layer_keeps_and_what_the_vae_holds(toy):
    """By hand: a linear layer keeps its input, GELU its own; fused attention no scores; of a chain two are alive."""
    body = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8)).to("meta")
    x = torch.empty(10, 8, device="meta")
    assert meta.kept(body, lambda: body(x)) == 4 * 10 * (8 + 16 + 16)
    q, k, v = (torch.empty(1, 2, n, 4, device="meta", requires_grad=True) for n in (5, 7, 7))
    attend = torch.nn.functional.scaled_dot_product_attention
    assert meta.kept(body, lambda: attend(q, k, v)) == 4 * 2 * (5 * 4 * 2 + 7 * 4 * 2 + 5)
    with meta.Peak() as peak:
        y = torch.empty(100, device="meta")
        for _ in range(5):
            y = y + 1
    assert peak.most == 2 * 400 and peak.now == 400
    assert meta.vae_peak(toy.vdm["vae"], toy.size) > 4 * 3 * 9 * 32 * 32


def test_memory_by_parts(paper):
    how = how_of(paper, "stage2")
    one, eight = (memory(paper, "stage2", gpus, how) for gpus in (1, 8))
    dit = 4 * 1_418_996_800
    assert one.masters == one.gradients == 2 * one.start == dit and one.optimiser == 2 * dit  # the start in bfloat16
    assert eight.gradients == 2 * dit  # and the flat buffer that is averaged
    assert one.frozen == pytest.approx(4 * 126_892_531 + 0.6e9)  # the VAE and CLIP: VLM and text encoder have gone
    assert one.activations[0] < one.activations[1] / 5
    sharded = memory(paper, "stage2", 8, replace(how, shard=8))
    assert sharded.masters == sharded.gradients == sharded.start == dit / 8 and sharded.optimiser == dit / 4
    assert sharded.frozen == one.frozen, "what stage 2 does not train stays whole"
    block = 1_418_996_800 / 30 * (2 * 4 + 2 + 2 * 4)  # two gathered, one of them cast, two gradients
    assert sharded.caches - block == one.caches - 2 * dit / 4, "in the place of autocast's copy of all"
    tower, painted = 668_682_240, memory(paper, "stage1", 8, replace(how_of(paper, "stage1"), shard=8))
    whole = 2 * (tower + 5_680_910_336) + 4 * 126_892_531 + 0.6e9
    assert painted.frozen == pytest.approx(whole + (2 * (3_754_622_976 - tower) + dit) / 8)
    on = Models(paper.params.with_(machine={"shard": True}))
    assert how_of(on, "stage2").shard == 8 and how_of(on, "answer").shard == 1
    frozen = memory(paper, "answer", 1, how_of(paper, "answer")).frozen
    lora = 4 * flops.lora_parameters(paper.language, 8)
    read = 2 * (3_754_622_976 + 5_680_910_336) + lora
    assert frozen == pytest.approx(read + 4 * 126_892_531 + 0.6e9 + dit / 2), "of a DiT that only renders two bytes"
    sft = memory(paper, "sft/vdm", 8, how_of(paper, "sft/vdm"))
    assert sft.start == 0 and sft.frozen == 4 * 126_892_531  # the text encoder has gone
    assert [what.split(",")[0] for what, _ in cures(How(0, 2, 1, 1, 1), 8)][:2] == [
        "machine.gradient_checkpointing of all layers"
    ] * 2


def test_stage_2_holds_vlm_and_text_encoder_before_its_first_step_alone(paper):
    """Where the DiT is cut up, drawing the anchors needs most: by hand, in bytes."""
    how = How(1, 1, 1, 1, 1, shard=64)
    found, dit = memory(paper, "stage2", 64, how), 4 * 1_418_996_800
    layer = dit / 4 / 30 * (2 * 4 + 2 + 2 * 4)  # two gathered blocks, one of them cast, two gradients
    answer = flops.cache_bytes(paper.language, paper.prompt + paper.answer, 2) + 16 * 151_936
    read = 2 * (3_754_622_976 + 5_680_910_336) + 4 * flops.lora_parameters(paper.language, 8)
    assert found.total == pytest.approx(found.frozen + read + 2 * dit / 64 + layer + answer)
    both = memory(paper, "all_in_one", 64, how)  # which goes on to read and write captions
    cut = 2 * (3_754_622_976 - 668_682_240) * 63 / 64  # of the language model, not of the tower
    assert both.frozen == pytest.approx(found.frozen + read - 4 * flops.lora_parameters(paper.language, 8) - cut)
    whole = memory(paper, "stage2", 1, how_of(paper, "stage2"))
    drawn = whole.frozen + read + whole.masters + whole.start + answer
    assert drawn < whole.total < 48e9, "the steps need more than the drawing"


def test_what_does_not_fit_and_what_to_change(paper):
    """The 1.3 B DiT fits 48 GB cards cut up; 14 B beside the 7 B VLM eight of 80 GB, cut up."""
    fits = {name: remedy(paper, "stage2", 8, card)[1] for name, card in gpus.GPUS.items()}
    assert all(fits[name] == "" for name in ("h100", "a100-80", "h200", "b200"))
    for stage in STAGES:
        change = remedy(paper, stage, 8, gpus.GPUS["l40s"])[1]
        assert change == "" or re.fullmatch(r"(machine.shard: true|dit_batch: 1 and .*): \d\d GB", change), stage
        assert stage != "answer" or "shard" not in change, "its models are not cut up"
    assert fits["l40s"] != ""
    large = {"vdm": {"repo": "Wan-AI/Wan2.1-T2V-14B-Diffusers"}, "vlm": {"repo": "Qwen/Qwen2.5-VL-7B-Instruct"}}
    models = Models(paper.params.with_(models=large))
    assert models.vdm["dit"]["num_layers"] == 40
    assert remedy(models, "answer", 8, gpus.GPUS["h100"])[1] == "dit_batch: 1 and sample_batch: 1: 63 GB"
    told = "\n".join(report.held(models, 8, gpus.GPUS["h100"]))
    assert "over 8 GPUs, GB of each: SFT, VDM" in told and ", answer" not in told.partition("GB of each")[2]
    for stage in ("sft/vlm", "sft/vdm", "stage1", "stage2"):
        change = remedy(models, stage, 8, gpus.GPUS["h100"])[1]
        assert change == "" or re.match(r"machine.shard: true.*: \d\d GB", change), stage
        assert "machine.shard: true on" not in change, "on these eight"
    assert re.search(r"machine.shard: true on \d+ GPUs: ", remedy(models, "stage2", 2, gpus.GPUS["h100"])[1])  # more


# ---------------------------------------------------------------------------------------------------------- report
def test_the_page_shows_what_the_command_prints(monkeypatch, capsys):
    monkeypatch.chdir(smoke.ROOT)
    page = (smoke.ROOT / "docs/scales.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- (vans plan [^>]*) -->\n(.*?)<!-- end -->", page, re.S)
    assert shown is not None
    assert cli.main(shown[1].split()[1:]) == 0
    assert shown[2] == capsys.readouterr().out


def test_what_it_takes_by_hand(paper):
    """At the paper's scale on 8 H100 at 40 %, with 100,000 triplets."""
    grid, card, count = Grid(paper.params, smoke.ROOT), gpus.GPUS["h100"], 100_000
    there = {name: size for name, size, _ in report.sizes(paper, grid, count)}
    found = {t.name: t for t in takes(paper, grid, card, 8, 0.4, count, there)}
    assert list(found) == list(WHAT)
    for name, stage in (("stage 1", "stage1"), ("stage 2", "stage2"), ("SFT of the VDM", "sft/vdm")):
        step = sum(part.seconds(card, 8, 0.4) for part in paper.step(stage))
        assert found[name].step == pytest.approx(step)
        assert found[name].memory == memory(paper, stage, 8, how_of(paper, stage)).total
    assert found["stage 1"].step == pytest.approx(170_632 / 989 / 0.4 / 8, rel=0.1), "rendering is nearly all of it"
    one, all_ = found["answering one question"], found["evaluating one arm"]
    assert one.step == pytest.approx(8 * all_.step) and one.steps == 1 and all_.steps == 800
    dit, clip = 4 * 1_418_996_800, 0.1 * 33 * 352 * 640
    assert dict(found["stage 2"].disk) == pytest.approx({"checkpoints": 9 * dit, "the DiT": dit})
    assert all_.bytes == pytest.approx(800 * clip) and found["SFT of the VLM"].bytes == pytest.approx(2 * count * clip)
    assert found["stage 1"].bytes == 1000 * report.latent_bytes(paper.params)


def test_bad_options_are_one_line(monkeypatch, capsys):
    monkeypatch.chdir(smoke.ROOT)
    for options, said in (
        (["--gpu", "gtx"], "--gpu gtx: is unknown; use a100-40"),
        (["--triplets", "0"], "--triplets 0: use a whole number from 1 up"),
        (["--fraction", "1.5"], "--fraction 1.5: is the part of the peak"),
        (["--gpus", "0"], "--gpus 0: use a whole number from 1 up"),
        (["--vlm", "no/such"], "models.vlm.repo: nothing is known of no/such"),
        (["--scale", "papr"], "vans: --scale papr: is unknown; use tiny or paper"),
    ):
        assert cli.main(["plan", *options]) == 1
        assert said in capsys.readouterr().err


def test_gpus_that_cannot_share_the_batches_are_told():
    for count, refused in ((2, False), (3, True)):
        plan = report.describe(TINY, smoke.ROOT, gpus.gpu("h100"), count, 0.4, 10)
        said = [line for line in plan.splitlines() if "refuse" in line]
        assert len(said) == refused
    assert said[0].startswith("Training would refuse 3 processes as it stands: base.vae.batch is 16, which")


def test_every_stage_of_the_grid_is_in_the_plan_once(toy):
    grid = Grid(TINY, smoke.ROOT)
    main, rest = toy.stages(grid, 100)
    names = [stage.name for stage in [*main, *rest]]
    cells, arms = [cell.name for cell in grid.cells.values()], [f"answer/{key}" for key in grid.arms]
    systems = ["systems/extension", "systems/cascade VLM", "systems/cascade VDM", "systems/unified"]
    answered = [f"answer/{key}" for key in ("extension", "cascade", "unified", "textual")]
    assert sorted(names) == sorted(["sft/vlm", "sft/vdm", *cells, *arms, *systems, *answered])
    assert not [stage.name for stage in rest if stage.name in systems + answered], "rows of the main table"
    of = {stage.name: stage for stage in [*main, *rest]}
    steps, sft = (of[name].flop for name in ("systems/unified", "sft/vlm")), of["sft/vdm"]
    unified, vlm = steps
    assert unified == pytest.approx(vlm + sft.flop - sum(p.flop for p in sft.once), rel=0.01), "SFT's FLOPs"
    assert of["systems/extension"].steps == TINY.sft.vdm.steps and of["answer/extension"].parts[-1].name == "decode"
    assert [p.name for p in of["answer/textual"].parts] == ["generate"]
    assert of["answer/copy"].flop == 0 and of["answer/sft_best"].flop == 8 * of["answer/sft"].flop
    assert of["stage1/no_v1"].flop < of["stage1/full"].flop and len(of["stage2/vdm_only"].parts) == 3
