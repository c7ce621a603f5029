"""The training loops on tiny models: what moves, what does not, and that the way of computing changes nothing.

One small root (toy world, base models and SFT of two steps each) is made once for the module. Untrained models
write no well-formed answers, so rewards that differ are put in (tests/reward_terms.py) where a test needs them.
"""

import json
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests import smoke
from vans import warm_server
from vans.answer import arm as answers
from vans.data.batches import batch_ids, clips_of
from vans.data.curate import curate
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.grid import Arm, Cell
from vans.grpo import rollout
from vans.grpo.denoising import Conditions, sde_rollout, vdm_updates
from vans.grpo.rollout import WithTensors, frozen_copy, initial_noise, render_captions
from vans.grpo.tokens import vlm_updates
from vans.models.load import load_vdm, load_vlm
from vans.models.vdm import VDM
from vans.parallel import Ranks, launch
from vans.params import Params, load
from vans.rng import noise, seed_of
from vans.template import answer_text
from vans.toy import world
from vans.train import all_in_one, base, rollouts, sft, stage1, stage2
from vans.train.feed import embeddings

SFT = Path("models/sft")
ALONE = Ranks(0, 1, torch.device("cpu"))
STAGE1, STAGE2, BOTH = (Cell(s, "new", "sft", "sft", "graded") for s in ("stage1", "stage2", "all_in_one"))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Iterator[Path]:
    """A repository's data and models at smoke size, SFT included. Other ranks than the first are forks."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("root")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(smoke.ROOT / name, folder / name)
    smoke.shrink(folder / "params.yaml")
    params = load(folder)
    world.generate(folder / "data", params.world)
    curate(folder / "data", folder / "triplets", params)
    base.train(params, folder)
    sft.train(params, folder)
    with warm_server.running({**os.environ, "OMP_NUM_THREADS": "1"}):
        yield folder


@pytest.fixture
def seen(monkeypatch) -> dict:
    """The models that a trainer has loaded, kept for looking at them afterwards: "vlm" and "vdm"."""
    kept: dict = {}

    def keeper(kind, function):
        def load_and_keep(*args, **kwargs):
            kept[kind] = function(*args, **kwargs)
            return kept[kind]

        return load_and_keep

    for module in (sft, stage1, stage2, all_in_one):
        monkeypatch.setattr(module, "load_vlm", keeper("vlm", load_vlm))
        monkeypatch.setattr(module, "load_vdm", keeper("vdm", load_vdm))
    return kept


def changed(root: Path, folder: Path, term: str = "graded", **sections) -> tuple[Params, Path]:
    """Other parameters, and another root with the same data and models (links). term: of the preset "graded"."""
    folder.mkdir(exist_ok=True)
    for name in ("triplets", "cache"):
        (folder / name).symlink_to(root / name)
    (folder / "models").mkdir()
    for name in ("base", "sft"):
        (folder / "models" / name).symlink_to(root / "models" / name)
    preset = {"graded": {f"tests.reward_terms:{term}": {"weight": 1.0}}}
    rewards = dict.fromkeys(("stage1", "stage2", "all_in_one"), preset)
    return load(root).with_(rewards=rewards).with_(**sections), folder


def tensors(module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(a: dict, b: dict) -> list[str]:
    """Names of the tensors that are equal to the bit."""
    assert a.keys() == b.keys()
    return [name for name in a if torch.equal(a[name], b[name])]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def dit(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


# ---- what moves and what does not ----------------------------------------------------------------------------
def test_sft_moves_the_adapter_and_the_dit_and_nothing_else(root, tmp_path, seen):
    params, other = changed(root, tmp_path)
    (other / "models/sft").unlink()
    sft.train(params, other)
    params, folder = load(root), root / "models/base"
    before = tensors(load_vlm(params, folder).model)
    after = {n.removeprefix("base_model.model."): p for n, p in tensors(seen["vlm"].model).items()}
    plain = {n.replace(".base_layer", ""): p for n, p in after.items() if "lora_" not in n}
    assert len(same(before, plain)) == len(before)
    lora_b = {n: p for n, p in after.items() if "lora_B" in n}
    assert lora_b and all(p.abs().sum() > 0 for p in lora_b.values())  # B starts at 0
    was, now = load_vdm(params, folder), seen["vdm"]
    assert same(tensors(was.dit), tensors(now.dit)) == []
    assert len(same(tensors(was.vae), tensors(now.vae))) == len(tensors(was.vae))
    assert all(p.is_meta for p in now.text_encoder.parameters())  # given back: its work is done before the first step


def test_stage1_moves_the_adapter_alone(root, tmp_path, seen):
    params, other = changed(root, tmp_path)
    stage1.train(params, STAGE1, other)
    before = load_vlm(load(root), root / "models/base", root / "models/sft/vlm")
    start, end = tensors(before.model), tensors(seen["vlm"].model)
    moved = set(start) - set(same(start, end))
    assert moved == {name for name in start if "lora_" in name}
    painter = load_vdm(load(root), root / "models/base", root / "models/sft/vdm")
    for part in ("dit", "vae", "text_encoder"):
        was, now = tensors(getattr(painter, part)), tensors(getattr(seen["vdm"], part))
        assert len(same(was, now)) == len(was)
    saved = adapter(other / STAGE1.out / "vlm")
    assert same(saved, adapter(root / "models/sft/vlm")) == []


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_stage2_moves_the_dit_alone(root, tmp_path, seen, lora_rank):
    params, other = changed(root, tmp_path, stage2={"lora_rank": lora_rank})
    stage2.train(params, STAGE2, other)
    was = load_vdm(load(root), root / "models/base", root / "models/sft/vdm")
    start, end = dit(root / "models/sft/vdm"), dit(other / STAGE2.out / "vdm")
    stayed = set(same(start, end))
    if lora_rank == 0:
        assert stayed == set()
    else:  # a LoRA is merged into the matrices of attention and feed-forward layers; the rest stays
        matrices = {n for n in start if "blocks." in n and n.endswith(".weight") and start[n].ndim == 2}
        assert set(start) - stayed == matrices
    before, after = tensors(was.vae), tensors(seen["vdm"].vae)
    assert len(same(before, after)) == len(before)
    assert all(p.is_meta for p in seen["vdm"].text_encoder.parameters())  # its work is done before the first step
    anchor = load_vlm(load(root), root / "models/base", root / "models/sft/vlm")
    assert len(same(tensors(anchor.model), tensors(seen["vlm"].model))) == len(tensors(anchor.model))


def test_vlm_and_text_encoder_have_gone_when_stage_2_takes_its_first_step(root, tmp_path, monkeypatch):
    loaded, seen = [], []
    load_whole, roll = stage2.load_vlm, stage2.sde_rollout

    def load_watched(*given):
        vlm = load_whole(*given)
        loaded.append(weakref.ref(next(vlm.model.parameters())))
        return vlm

    def rolled(vdm, *given):
        seen.append(([weight() is None for weight in loaded], {p.device.type for p in vdm.text_encoder.parameters()}))
        return roll(vdm, *given)

    monkeypatch.setattr(stage2, "load_vlm", load_watched)
    monkeypatch.setattr(stage2, "sde_rollout", rolled)
    params, other = changed(root, tmp_path, stage2={"steps": 1, "anchor_threshold": 0.0, "anchor_attempts": 1})
    stage2.train(params, STAGE2, other)
    assert seen == [([True], {"meta"})]


def test_anchors_are_drawn_before_the_first_step_and_kept(root, tmp_path, monkeypatch):
    """By their own seeds, however many are drawn at once; a stage that is taken up again reads them."""
    changes = {"steps": 2, "anchor_threshold": 0.0, "anchor_attempts": 1}
    found = {}
    for rows in (1, 16):
        monkeypatch.setattr(stage2, "ANCHOR_ROWS", rows)
        monkeypatch.setattr(stage2, "ANCHOR_STEPS", rows)
        params, other = changed(root, tmp_path / str(rows), stage2=changes)
        history = stage2.train(params, STAGE2, other)
        files = sorted((other / "runs").rglob("anchors-*.json"))
        assert len(files) == (2 if rows == 1 else 1)
        drawn = {key: value for file in files for key, value in json.loads(file.read_text()).items()}
        found[rows] = {key: text for key, (text, _) in drawn.items()}
        assert all(count == 1 for _, count in drawn.values()) and len(drawn) == 2 * params.stage2.prompts
        assert [row["anchors_resampled"] for row in history] == [0, 0]
    assert found[1] == found[16] and len(set(found[1].values())) > 1
    files[0].write_text("{")  # damaged: drawn again
    shutil.rmtree(next((other / "runs").rglob("done")))
    stage2.train(params, STAGE2, other)
    assert json.loads(files[0].read_text()) == drawn
    files[0].write_text(json.dumps({key: [answer_text("a", "the ball grows ."), 1] for key in found[1]}))
    shutil.rmtree(next((other / "runs").rglob("done")))
    monkeypatch.setattr(stage2.Anchor, "draw", lambda *_: pytest.fail("they are there"))
    captions, embed = [], stage2.embeddings

    def watched(root, vdm, texts, ranks):
        captions.append(texts)
        return embed(root, vdm, texts, ranks)

    monkeypatch.setattr(stage2, "embeddings", watched)
    stage2.train(params, STAGE2, other)
    assert captions == [["the ball grows ."]]


def test_all_in_one_moves_both(root, tmp_path):
    params, other = changed(root, tmp_path)
    history = all_in_one.train(params, BOTH, other)
    assert same(adapter(other / BOTH.out / "vlm"), adapter(root / "models/sft/vlm")) == []
    assert same(dit(other / BOTH.out / "vdm"), dit(root / "models/sft/vdm")) == []
    assert all(row["vdm_ratio_first"] == 0 and row["vdm_ratio_last"] > 0 for row in history)
    assert all(0 < row["vlm_sampler_gap"] < 1e-4 and row["vlm_ratio_last"] > 0 for row in history)


# ---- ratio ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("micro_batch", [3, 8])
def test_ratio_is_one_at_the_first_update_and_not_at_the_second(root, tmp_path, micro_batch):
    size = {"micro_batch": micro_batch}
    params, other = changed(root, tmp_path, stage1=size, stage2=size)
    tokens, videos = stage1.train(params, STAGE1, other), stage2.train(params, STAGE2, other)
    assert [row["ratio_first"] for row in videos] == [0.0] * len(videos)
    assert all(0 < row["sampler_gap"] < 1e-4 for row in tokens)  # its first ratio is 1 by construction
    for history in (tokens, videos):
        assert all(row["ratio_last"] > 0 for row in history)
        assert history[0]["kl"] >= 0 and history[-1]["kl"] > 0


def test_groups_with_equal_rewards_change_nothing_and_are_counted(root, tmp_path):
    once = {"steps": 1, "beta": 0.0, "inner_updates": 1}
    params, other = changed(root, tmp_path, "equal", stage1=once)
    history = stage1.train(params, STAGE1, other)
    assert history[0]["equal_groups"] == 1 and history[0]["grad_norm"] == 0
    assert len(same(adapter(other / STAGE1.out / "vlm"), adapter(root / "models/sft/vlm"))) > 0


def test_nothing_is_rendered_where_no_term_looks_at_videos(root, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a VDM was loaded")

    monkeypatch.setattr(stage1, "load_vdm", never)
    params, other = changed(root, tmp_path, "by_length")
    assert stage1.train(params, STAGE1, other)[0]["tests.reward_terms:by_length"] < 0


def test_train_seed_changes_the_training_and_neither_data_nor_answers(root, tmp_path):
    ends = []
    for seed in (0, 1):
        params, other = changed(root, tmp_path / str(seed), "by_length", train_seed=seed, stage1={"steps": 1})
        assert params.seed == 0
        stage1.train(params, STAGE1, other)
        ends.append(adapter(other / STAGE1.out / "vlm"))
    assert same(*ends) == []


@pytest.mark.parametrize("trainer, cell", [(stage2, STAGE2), (all_in_one, BOTH)])
def test_a_lora_of_the_vdm_begins_where_both_seeds_say(root, tmp_path, monkeypatch, trainer, cell):
    begun = []

    def begin(vdm, rank, seed, cut=None):
        begun.append(seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "make_trainable", begin)
    for seed, train_seed in ((0, 0), (0, 1), (1, 0)):
        params, other = changed(
            root, tmp_path / f"{seed}{train_seed}", seed=seed, train_seed=train_seed, stage2={"lora_rank": 2}
        )
        with pytest.raises(KeyboardInterrupt):
            trainer.train(params, cell, other)
    assert begun == [seed_of(*seeds, "stage2", "lora") % 2**31 for seeds in ((0, 0), (0, 1), (1, 0))]
    assert len(set(begun)) == 3


def test_a_cell_has_steps_of_its_own(root, tmp_path):
    params, other = changed(root, tmp_path, "by_length")
    assert len(stage1.train(params, Cell("stage1", "new", "sft", "sft", "graded", steps=1), other)) == 1


def test_without_any_anchor_stage_2_says_so_and_ends(root, tmp_path):
    params, other = changed(root, tmp_path, stage2={"anchor_threshold": 1.0, "anchor_attempts": 2})
    for _ in range(2):  # running it again says it again
        with pytest.raises(UserError, match=r"stage2\.anchor_threshold is 1: none of .* first 2 steps"):
            stage2.train(params, STAGE2, other)
    assert not (other / STAGE2.out).exists()


def test_a_prompt_without_an_anchor_is_not_rendered_and_adds_zeros(root, tmp_path, monkeypatch):
    """The gradient with both prompts is the sum of those in which the other prompt has no anchor."""
    rendered, gradients = [], []
    drop: list[int] = []
    roll, clip_norm = stage2.sde_rollout, torch.nn.utils.clip_grad_norm_

    def watched(vdm, given, *args):
        rendered.append(len(given.text))
        return roll(vdm, given, *args)

    def keep(trained, size):
        gradients.append(torch.cat([p.grad.flatten() for p in trained]))
        return clip_norm(trained, size)

    def draw(self, steps):
        found = {}
        for step in steps:
            ids, _ = self.rollouts.batch(step, self.params.stage2.prompts)
            for n, row in enumerate(map(self.triplets.row, ids)):
                text = None if n in drop else answer_text(row["reasoning"], row["caption"])
                found[f"{step}/{ids[n]}"] = [text, 1]
        return found

    monkeypatch.setattr(stage2, "sde_rollout", watched)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", keep)
    monkeypatch.setattr(stage2.Anchor, "draw", draw)
    missing = []
    once = {"steps": 1, "inner_updates": 1, "micro_batch": 4, "grad_clip": 1e9}
    for drop in ([0], [1], []):
        params, other = changed(root, tmp_path / f"without{drop}", "rising", stage2=once)
        missing.append(stage2.train(params, STAGE2, other)[0]["anchors_missing"])
    assert rendered == [4, 4, 8] and missing == [0.5, 0.5, 0.0]
    assert all(g.norm() > 0 for g in gradients)
    torch.testing.assert_close(gradients[0] + gradients[1], gradients[2], rtol=1e-3, atol=1e-6)


# ---- accumulation --------------------------------------------------------------------------------------------
class Gradients:
    """In the place of an optimiser: keeps the gradients, changes nothing."""

    def __init__(self, weights):
        self.weights = weights

    def zero_grad(self):
        for p in self.weights:
            p.grad = None

    def step(self):
        self.kept = [p.grad.clone() for p in self.weights]


def settings(**keys) -> SimpleNamespace:
    common = {"inner_updates": 1, "grad_clip": 1e9, "clip_range": 0.2, "beta": 0.5, "temperature": 1.0}
    return SimpleNamespace(**{**common, **keys})


def test_stage1_accumulation_of_8_by_1_is_1_by_8(root):
    params, triplets = load(root), Triplets(root / "triplets")
    policy = load_vlm(params, root / "models/base", root / "models/sft/vlm")
    for name, p in policy.model.named_parameters():
        p.requires_grad_("lora_" in name)
    weights = [p for p in policy.model.parameters() if p.requires_grad]
    start = WithTensors(policy.model, {n: p * 0.5 for n, p in frozen_copy(policy.model).items()})  # a KL to feel
    ids = triplets.select(split="train", limit=2)
    inputs = policy.inputs(
        clips_of(triplets, ids, "input"), [triplets.row(i)["question"] for i in ids], params.video.fps
    )
    answers = policy.sample(inputs, seeds=[(i, g) for i in ids for g in range(4)], max_new_tokens=12, temperature=1.0)
    assert len(set(answers.mask.sum(1).tolist())) > 1 or answers.mask.all()  # lengths may differ
    answers.mask[1, 5:] = 0
    found = {}
    for size in (1, 2, 8):
        optim = Gradients(weights)
        advantages = torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, -0.5, 0.1, -0.2])
        s = settings(micro_batch=size, group_size=4)
        stats = vlm_updates(policy, start, inputs, answers, advantages, s, optim, weights, ALONE)  # type: ignore[arg-type]
        found[size] = (optim.kept, stats["kl"], stats["grad_norm"])
    for size in (1, 2):
        torch.testing.assert_close(found[size][0], found[8][0], rtol=1e-3, atol=1e-6)
        assert found[size][1:] == pytest.approx(found[8][1:], rel=1e-4)
    assert found[8][1] > 0 and found[8][2] > 0


def sde(**keys) -> SimpleNamespace:
    """Settings of a rollout of three steps."""
    common = {"render_steps": 3, "train_steps": 0, "noise_level": 0.7, "guidance": 1.0, "guidance_grad": "both"}
    return settings(**{**common, "guidance_start": 0.0, "guidance_stop": 1.0, **keys})


def rolled_out(root: Path, micro_batch: int):
    """A VDM that trains, and 8 trajectories of 3 steps: (vdm, weights, trajectories, what they were given)."""
    params, triplets = load(root), Triplets(root / "triplets")
    vdm = load_vdm(params, root / "models/base", root / "models/sft/vdm")
    vdm.dit.requires_grad_(True)
    ids = triplets.select(split="train", limit=2)
    repeat = [0] * 4 + [1] * 4
    with torch.no_grad():
        text = vdm.embed(["the ball fades and soon looks as before .", "the box is at rest ."])[repeat]
        negative = vdm.embed([""])
    given = Conditions(text, vdm.pick_references(vdm.encode(clips_of(triplets, ids, "input")))[repeat], negative)
    shape = vdm.latent_shape(params.video.frames, params.video.height, params.video.width)
    start = WithTensors(vdm.network, {n: p * 0.9 for n, p in frozen_copy(vdm.network).items()})
    names = [f"{i}/{g}" for i in ids for g in range(4)]
    noises = initial_noise(shape, ids, 4, False, "test")
    trajectories = sde_rollout(vdm, given, noises, names, ("test",), sde(micro_batch=micro_batch), start)
    return vdm, list(vdm.dit.parameters()), trajectories, given


def test_stage2_accumulation_of_8_by_1_is_1_by_8(root):
    found = {}
    for size in (1, 8):
        vdm, weights, trajectories, given = rolled_out(root, size)
        optim = Gradients(weights)
        advantages = torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, -0.5, 0.1, -0.2])
        stats = vdm_updates(vdm, trajectories, given, advantages, sde(micro_batch=size), optim, weights, ALONE, 8)  # type: ignore[arg-type]
        assert stats["ratio_first"] == 0
        found[size] = (optim.kept, stats["kl"], stats["grad_norm"])
    for one, other in zip(found[1][0], found[8][0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-5)
    assert found[1][1:] == pytest.approx(found[8][1:], rel=1e-3)
    assert found[8][1] > 0 and found[8][2] > 0


# ---- processes -----------------------------------------------------------------------------------------------
STAGES = ("base vdm", "base vlm", "sft vlm", "sft vdm", "stage1", "stage2", "stage2 some anchors")
CUT = ("sft", "stage1", "stage2", "all_in_one")


@pytest.mark.parametrize("stage", CUT)
def test_two_processes_that_are_cut_up_equal_one(root, tmp_path, monkeypatch, stage):
    """With machine.shard, which the second of two ranks without an anchor takes part in, too."""
    monkeypatch.setenv("PYTHONPATH", str(smoke.ROOT))
    found = []
    for processes in (1, 2):
        params, other = changed(
            root,
            tmp_path / str(processes),
            "rising",  # of videos: stage 1 renders with a DiT that is cut up, too
            machine={"processes": processes, "shard": True},
            sft={part: {"optimizer": "adamw", "lr": 1e-4, "steps": 1} for part in ("vlm", "vdm")},
            **{name: {"steps": 1, "beta": 0.1} for name in ("stage1", "stage2")},
            all_in_one={"steps": 1},
        )
        job: dict = {"root": str(other), "out": str(other / "new")}
        cell = Cell(stage, "new", "sft", "sft", "graded").plain()
        if stage == "sft":
            (other / "models/sft").unlink()
            history = launch("vans.train.sft:train_both", params.machine, params=params, **job)["vdm"]
        elif stage == "stage2":
            history = launch("tests.ranks:stage2_some_anchors", params.machine, params=params, cell=cell, **job)
        else:
            trainer = "train_vlm" if stage == "stage1" else "train_both"
            history = launch(f"vans.train.{stage}:{trainer}", params.machine, params=params, cell=cell, **job)
        assert any(value > 0 for name, value in history[-1].items() if name.endswith("grad_norm"))
        found.append({str(p.relative_to(other)): load_file(p) for p in (other / "new").rglob("*model.safetensors")})
    one, two = found
    assert one.keys() == two.keys() and len(one) == (2 if stage in ("sft", "all_in_one") else 1)
    for name in one:
        assert max((one[name][key] - two[name][key]).abs().max().item() for key in one[name]) < 1e-6, name


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one(root, tmp_path, monkeypatch, stage):
    """Same samples, same rewards, same averaged gradient, and weights that have moved the same way."""
    monkeypatch.setenv("PYTHONPATH", str(smoke.ROOT))
    histories, ends = [], []
    kind, _, part = stage.partition(" ")
    for processes in (1, 2):
        params, other = changed(
            root,
            tmp_path / str(processes),
            "by_length" if stage == "stage1" else "rising",
            machine={"processes": processes},
            stage1={"beta": 0.5, "clip_range": 0.2},
            stage2={"micro_batch": 4, "lr": 1e-3, "steps": 1},
        )
        out = other / "new"
        job: dict = {"root": str(other), "out": str(out)}
        if kind == "base":
            shutil.copytree(root / "models/base/vdm", out / "vae")
            history = launch("vans.train.base:train_parts", params.machine, params=params, parts=[part], **job)[part]
            out = out / part
        elif kind == "sft":
            history = launch("vans.train.sft:train_both", params.machine, params=params, **job)[part]
            out = out / part
        elif stage == "stage1":
            history = launch("vans.train.stage1:train_vlm", params.machine, params=params, cell=STAGE1.plain(), **job)
        else:
            target = "tests.ranks:stage2_some_anchors" if part else "vans.train.stage2:train_vdm"
            cell = Cell("stage2", "new", "sft", "sft", "graded", "vlm" if part else "ground_truth").plain()
            history = launch(target, params.machine, params=params, cell=cell, **job)
        histories.append(history)
        ends.append(dit(out) if (out / "transformer").exists() else adapter(out) if kind != "base" else {})
    for one, two in zip(*histories, strict=True):
        names = ("loss", "reward", "reward_std", "kl", "grad_norm", "anchors_missing")
        columns = [c for c in names if c in one and not (part == "some anchors" and c == "kl")]  # a mean over processes
        assert len(columns) >= 2 and one["grad_norm"] > 0
        assert part != "some anchors" or one["anchors_missing"] == 0.5, "the second prompt has none"
        for column in columns:
            assert two[column] == pytest.approx(one[column], rel=5e-3, abs=1e-6), column
    starts = {
        **{"base vdm": dit(root / "models/base/vdm"), "base vlm": {}, "sft vdm": dit(root / "models/base/vdm")},
        **{"stage1": adapter(root / SFT / "vlm"), "stage2": dit(root / SFT / "vdm")},
        "stage2 some anchors": dit(root / SFT / "vdm"),
        # SFT starts from B = 0 and a seeded A: what it makes is compared itself
        "sft vlm": {name: torch.zeros_like(p) for name, p in adapter(root / SFT / "vlm").items()},
    }
    if start := starts[stage]:
        one, two = (torch.cat([(end[n] - start[n]).flatten() for n in start]) for end in ends)
        assert one.norm() > 0 and torch.cosine_similarity(one, two, dim=0) > 0.99


def test_prompts_that_processes_cannot_share_are_refused_before_anything_is_loaded(root, tmp_path):
    params, other = changed(root, tmp_path)
    with pytest.raises(UserError, match=r"stage1\.prompts is 3.*multiple of machine\.processes"):
        params.with_(machine={"processes": 2}, stage1={"prompts": 3})
    nothing = params.with_(rewards={"stage1": {"graded": {"tests.reward_terms:gone": 1.0}}})
    with pytest.raises(UserError, match="reward tests.reward_terms:gone: .*has no attribute 'gone'"):
        stage1.train(nothing, STAGE1, other)
    assert not (other / STAGE1.out).exists()


# ---- rollouts ------------------------------------------------------------------------------------------------
def test_the_last_step_is_not_stochastic_and_not_trained_on(root):
    vdm, _, trajectories, given = rolled_out(root, 8)
    assert trajectories.old_logp.shape == (8, 2)  # three steps, two of them stochastic
    assert len(trajectories.states) == 3 and len(trajectories.sigmas) == 3
    assert trajectories.sigmas[-1] > 0
    assert {state.dtype for state in trajectories.states} == {torch.float32}
    with pytest.raises(ValueError, match="the last is not stochastic"):
        sde_rollout(vdm, given, trajectories.states[0], ["a"] * 8, ("k",), sde(micro_batch=8, train_steps=3))


def test_a_window_of_steps_is_trained_from_the_noisy_end(root, tmp_path):
    params, other = changed(root, tmp_path, stage2={"train_steps": 1, "steps": 1})
    history = stage2.train(params, STAGE2, other)
    assert history[0]["ratio_first"] == 0 and history[0]["grad_norm"] > 0


def test_stage1_trains_on_the_best_and_the_worst_of_its_candidates(root, tmp_path, monkeypatch):
    """Six candidates with rising rewards: the first two and the last two, rendered again with noises of their own."""
    drawn, taken, rendered = [], [], []
    update, render = stage1.vlm_updates, rollouts.render_captions

    def updates(vlm, start, prompts, sampled, *rest):
        taken.append(sampled)
        return update(vlm, start, prompts, sampled, *rest)

    def shown(vdm, captions, reference, start, *args, **given):
        rendered.append((len(captions[0]), given["steps"], start))
        return render(vdm, captions, reference, start, *args, **given)

    def loaded(*args):
        vlm = load_vlm(*args)
        sample = vlm.sample
        vlm.sample = lambda *a, **k: drawn.append(sample(*a, **k)) or drawn[-1]  # type: ignore[method-assign,func-returns-value]
        return vlm

    for module, name, value in ((stage1, "vlm_updates", updates), (stage1, "load_vlm", loaded)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(rollouts, "render_captions", shown)
    explore = {"steps": 1, "explore_size": 6, "explore_steps": 1}
    params, other = changed(root, tmp_path, "rising", stage1=explore)
    history = stage1.train(params, STAGE1, other)
    rows = [p * 6 + g for p in range(2) for g in (0, 1, 4, 5)]
    assert taken[0].texts == [drawn[0].texts[row] for row in rows] and len(drawn[0].texts) == 12
    for name in ("ids", "mask", "drawn"):
        assert torch.equal(getattr(taken[0], name), getattr(drawn[0], name)[rows])
    assert [found[:2] for found in rendered] == [(6, 1), (4, params.stage1.render_steps)]
    assert torch.equal(rendered[1][2], rendered[0][2][rows])
    assert history[0]["reward"] == 1.5 and 0 < history[0]["sampler_gap"] < 1e-4  # of the four that are kept: 0 to 3


def test_stage2_trains_on_the_noises_of_the_best_and_the_worst_videos(root, tmp_path, monkeypatch):
    given = []
    roll, draw = stage2.sde_rollout, VDM.render_latents
    steps = []

    def watched(vdm, conditions, noises, names, *rest):
        given.append((noises, names))
        return roll(vdm, conditions, noises, names, *rest)

    def counted(self, text, reference, noise, count, *rest, **more):
        steps.append((len(noise), count))
        return draw(self, text, reference, noise, count, *rest, **more)

    monkeypatch.setattr(stage2, "sde_rollout", watched)
    monkeypatch.setattr(VDM, "render_latents", counted)
    explore = {"steps": 1, "explore_size": 6, "explore_steps": 1}
    params, other = changed(root, tmp_path, "rising", stage2=explore)
    history = stage2.train(params, STAGE2, other)
    (noises, names), keys = given[0], (params.seed, params.train_seed, "stage2", 0)
    ids = [name.rsplit("/", 1)[0] for name in names[::4]]
    assert names == [f"{i}/{g}" for i in ids for g in (0, 1, 4, 5)] and steps == [(12, 1)]
    rows = [p * 6 + g for p in range(2) for g in (0, 1, 4, 5)]
    assert torch.equal(noises, initial_noise(noises.shape[1:], ids, 6, False, *keys)[rows])
    assert history[0]["ratio_first"] == 0 and history[0]["ratio_last"] > 0


@pytest.mark.parametrize("grad", ["both", "conditional"])
def test_with_guidance_in_an_interval_the_first_ratio_is_one(root, grad):
    vdm, weights, _, given = rolled_out(root, 4)
    s = sde(micro_batch=4, guidance=3.0, guidance_grad=grad, guidance_stop=0.34, inner_updates=2)
    names = [f"{i}" for i in range(8)]
    noises = initial_noise(given.reference.shape[1:2] + (5, 8, 8), names, 1, False, "test")
    found = sde_rollout(vdm, given, noises, names, ("test",), s)
    assert [base is None for base in found.unguided] == ([] if grad == "both" else [False, True])
    everywhere = sde_rollout(vdm, given, noises, names, ("test",), sde(micro_batch=4, guidance=3.0, guidance_grad=grad))
    assert torch.equal(found.states[1], everywhere.states[1]) and not torch.equal(found.states[2], everywhere.states[2])
    optim = torch.optim.SGD(weights, lr=1e-3)
    stats = vdm_updates(vdm, found, given, torch.linspace(-1, 1, 8), s, optim, weights, ALONE, 8)
    assert stats["ratio_first"] == 0 and stats["ratio_last"] > 0


def test_each_video_of_a_group_has_its_own_noise():
    own = initial_noise((2, 3), ["a", "b"], 3, False, "k")
    shared = initial_noise((2, 3), ["a", "b"], 3, True, "k")
    assert len({tuple(row.flatten().tolist()) for row in own}) == 6
    assert torch.equal(shared[0], shared[2]) and not torch.equal(shared[0], shared[3])
    assert torch.equal(own[3:], initial_noise((2, 3), ["b"], 3, False, "k"))  # whatever else is in the batch


def test_rendering_in_one_batch_shows_what_one_by_one_shows(root):
    params = load(root)
    vdm = load_vdm(params, root / "models/base", root / "models/sft/vdm")
    size = (params.video.frames, params.video.height, params.video.width)
    shape = vdm.latent_shape(*size)
    reference = vdm.pick_references(noise(shape, ["seen"], "test"))
    fades, jumps = "the ball fades and soon looks as before .", "the box jumps for a moment and returns ."
    captions: list = [[fades, None, fades, jumps]]
    decoded = []
    decode = vdm.decode

    def counted(z):
        decoded.append(len(z))
        return decode(z)

    vdm.decode = counted  # type: ignore[method-assign, assignment]

    def render(captions, distinct=True):
        start = initial_noise(shape, ["p"], len(captions[0]), False, "k")
        with torch.no_grad():
            negative = vdm.embed([""])
        return render_captions(
            vdm, captions, reference, start, negative, size=size, steps=3, guidance=1.0, distinct=distinct
        )

    together = render(captions)
    assert together.shape == (1, 4, *size, 3) and decoded == [2]
    assert torch.equal(together[0, 0], together[0, 2])  # equal words, one render
    assert not together[0, 1].any() and together[0, 3].any()
    alone = render([[captions[0][0]]])
    assert (alone[0, 0].int() - together[0, 0].int()).abs().max() <= 1
    apart = render(captions, distinct=False)
    assert decoded == [2, 1, 3] and not torch.equal(apart[0, 0], apart[0, 2])


def test_batches_go_through_all_ids_once_an_epoch_and_depend_on_the_step_alone():
    ids = [str(i) for i in range(10)]
    epochs = [i for step in range(5) for i in batch_ids(ids, step, 4, "key")]
    assert sorted(epochs[:10]) == sorted(ids) and sorted(epochs[10:]) == sorted(ids)
    assert epochs[:10] != epochs[10:]
    assert batch_ids(ids, 3, 4, "key") == epochs[12:16]
    assert rollout.noise((2,), ["a"], "k").equal(noise((2,), ["b", "a"], "k")[1:])


def test_kept_text_embeddings_are_those_of_the_encoder(root, tmp_path):
    _, other = changed(root, tmp_path)
    (other / "cache").unlink()
    vdm = load_vdm(load(root), root / "models/base")
    triplets = Triplets(root / "triplets")
    texts = sorted({triplets.row(i)["caption"] for i in triplets.select(split="train")} | {""})
    store = embeddings(other, vdm, texts, ALONE)
    torch.testing.assert_close(store[texts[:3] + [""]], vdm.embed(texts[:3] + [""]))
    kept = sorted((other / "cache/texts").rglob("chunk-*"))
    stamp = [p.stat().st_mtime_ns for p in kept]
    again = embeddings(other, vdm, texts, ALONE)
    assert kept and [p.stat().st_mtime_ns for p in kept] == stamp
    assert torch.equal(again[texts[:1]], store[texts[:1]])
    with torch.no_grad():
        next(vdm.text_encoder.parameters()).mul_(2)  # another encoder: another entry
    assert not torch.allclose(embeddings(other, vdm, texts, ALONE)[texts[:1]], store[texts[:1]])


# ---- answers -------------------------------------------------------------------------------------------------
def test_an_arm_goes_on_where_it_stopped_and_ends_in_the_same_bytes(root, tmp_path, monkeypatch):
    from vans.files import HOST, PARTIAL

    def files(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    arm = Arm("sft", "sft", "sft", "vlm")
    params, whole = changed(root, tmp_path / "whole", generate={"batch": 2})
    expected = files(answers.predict(params, arm, whole))
    assert not list((whole / "runs").rglob("batch-*")) and len(expected) > 3
    params, broken = changed(root, tmp_path / "broken", generate={"batch": 2})
    rendered: list = []
    render = answers.render

    def stopped(params, vdm, clips, captions, names, progress=None):
        if len(rendered) == 1:
            raise KeyboardInterrupt
        rendered.append(names)
        return render(params, vdm, clips, captions, names, progress)

    monkeypatch.setattr(answers, "render", stopped)
    with pytest.raises(KeyboardInterrupt):
        answers.predict(params, arm, broken)
    kept = list((broken / "runs/answer/sft").rglob("batch-*"))
    assert len(kept) == 1 and not (broken / "predictions/sft").exists()
    left = kept[0].parent.parent / f".0{PARTIAL}{HOST}-999999999-gone"  # a kill in the middle of a deletion
    left.mkdir()
    rendered.append([])  # the next call renders: `stopped` counts one more
    assert files(answers.predict(params, arm, broken)) == expected
    assert rendered[0] not in rendered[2:] and len(rendered) == 2 + (len(expected) - 1) // 2 - 1
    assert not list((broken / "runs").rglob("batch-*")) and not left.exists()

    # another process that answers for the same arm ends, and removes what both have kept: at any moment
    params, shared = changed(root, tmp_path / "shared", generate={"batch": 2})
    sealed, seal = answers.files.sealed, answers.files.seal

    def gone(call):
        def called(folder, *given):
            found = call(folder, *given)
            if found is not None or given:
                answers.files.discard(next((shared / "runs/answer/sft").iterdir()))
            return found

        return called

    monkeypatch.setattr(answers, "render", render)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        rendered.clear()
        patch.setattr(answers, "render", stopped)
        answers.predict(params, arm, shared)
    monkeypatch.setattr(answers.files, "sealed", gone(sealed))
    assert files(answers.predict(params, arm, shared)) == expected
    monkeypatch.setattr(answers.files, "seal", gone(seal))
    assert files(answers.predict(params, arm, shared)) == expected
    assert not list((shared / "runs").rglob("batch-*"))
