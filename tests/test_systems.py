"""The main table's other systems: what each learns from and is told, what it answers, and outsiders in the cascade;
and text to image, by the same trainers.

One small root (toy world, base models and SFT of two steps each) is made once for the module.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests import llm_server, smoke
from tests.test_trainers import ALONE, adapter, changed, dit, root, same  # noqa: F401 (root: a fixture)
from vans.answer import outsiders, predictions
from vans.answer import systems as answers
from vans.answer.arm import predict as predict_arm
from vans.data.batches import held_out, prompts_of
from vans.data.pictures import derive, telling
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.grid import Arm, Grid
from vans.models.connector import Connector, driven
from vans.models.load import load_vdm, load_vlm
from vans.params import load
from vans.plan.work import Models
from vans.score import run, score
from vans.score.metrics import METRICS
from vans.tables import orders
from vans.tables import pictures as small
from vans.toy.render import Scene, render_event
from vans.train import pictures, systems

ALL = ("extension", "cascade", "unified", "textual")


def fit(root, folder, key, **sections):  # noqa: F811
    """A system trained in a root of its own; (params, root, its models)."""
    params, here = changed(root, folder, **sections)
    systems.train(params, key, here)
    return params, here, here / systems.OUT / key


@pytest.fixture
def told(monkeypatch) -> list:
    """(text, reference) of every flow-matching loss."""
    kept, real = [], systems.flow_matching_loss

    def keep(vdm, x, eps, text, reference, sigma):
        kept.append((text.detach().clone(), None if reference is None else reference.detach().clone()))
        return real(vdm, x, eps, text, reference, sigma)

    monkeypatch.setattr(systems, "flow_matching_loss", keep)
    return kept


# ---- training ------------------------------------------------------------------------------------------------
def test_the_extension_sees_frames_and_is_told_nothing(root, tmp_path, told):  # noqa: F811
    params, _, models = fit(root, tmp_path / "x", "extension", machine={"processes": 1})
    vdm = load_vdm(params, root / "models/base")
    nothing = vdm.embed([""])
    assert told and all(torch.equal(text, nothing.expand_as(text)) for text, _ in told)
    assert all(seen.shape[2] == params.models.vdm.references for _, seen in told)
    assert not (models / "vlm").exists()
    before = dict(vdm.dit.named_parameters())
    assert not same(dit(models / "vdm"), {n: p.detach() for n, p in before.items()})


def test_the_cascades_models_never_meet(root, tmp_path, told, monkeypatch):  # noqa: F811
    learnt: dict[str, set] = {"vlm": set(), "vdm": set()}
    text_step, flow_step = systems.text_step, systems.flow_step

    def reads(ranks, params, vlm, triplets, whole):
        learnt["vlm"] |= set(whole)
        return text_step(ranks, params, vlm, triplets, whole)

    def shows(ranks, s, vdm, clips, whole, *more):
        learnt["vdm"] |= set(whole)
        return flow_step(ranks, s, vdm, clips, whole, *more)

    monkeypatch.setattr(systems, "text_step", reads)
    monkeypatch.setattr(systems, "flow_step", shows)
    params, _, models = fit(root, tmp_path / "c", "cascade", machine={"processes": 1})
    triplets = Triplets(root / "triplets")
    first, second = systems.in_halves(triplets, params.seed)
    assert learnt["vlm"] <= set(first) and learnt["vdm"] <= set(second)
    assert sorted(first + second) == sorted(triplets.select(split="train")) and first and second
    for column in ("scene", "video"):
        shared = [set(triplets.frame.loc[ids, column].dropna()) for ids in (first, second)]
        assert not (shared[0] & shared[1]) - {""}
    assert all(seen is None for _, seen in told)
    labels = {triplets.row(i)["target_sentence"] for i in second}
    vdm = load_vdm(params, root / "models/base")
    known = vdm.embed(sorted(labels | {vdm.negative_prompt}))
    for text in (row for batch, _ in told for row in batch):
        assert any(torch.allclose(text, one, atol=1e-6) for one in known)
    assert (models / "vlm/adapter_model.safetensors").exists() and (models / "vdm/transformer").exists()


def test_the_unified_system_trains_both_and_its_connector(root, tmp_path, told):  # noqa: F811
    params, _, models = fit(root, tmp_path / "u", "unified", machine={"processes": 1})
    fresh = Connector.between(
        load_vlm(params, root / "models/base"),
        load_vdm(params, root / "models/base"),
        systems.seed_of(params.seed, params.train_seed, "unified", "connector") % 2**31,
    )
    trained = load_file(models / "connector.safetensors")
    assert not same(trained, dict(fresh.state_dict()))
    assert any(value.abs().max() > 0 for name, value in adapter(models / "vlm").items() if "lora_B" in name)
    base = load_vdm(params, root / "models/base").dit
    assert not same(dit(models / "vdm"), {n: p.detach() for n, p in base.named_parameters()})
    assert all(text.shape[1] == params.arms.unified.tokens and seen is not None for text, seen in told)


def test_pixels_teach_the_unified_systems_vlm(root):  # noqa: F811
    """No caption stands between: the flow loss alone reaches the adapter, and nothing else of the VLM."""
    params = load(root)
    vlm = systems.fresh_vlm(params, root, "cpu", ("test",))
    connector = Connector.between(vlm, load_vdm(params, root / "models/base"), 0)
    triplets = Triplets(root / "triplets")
    prompts = prompts_of(vlm, triplets, triplets.select(split="train", limit=2))
    driven(vlm, prompts, connector, 24).square().sum().backward()
    moved = {name for name, p in vlm.model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved and all("lora_B" in name for name in moved)


def test_conditions_depend_on_their_own_prompt_alone(root):  # noqa: F811
    params = load(root)
    vlm = load_vlm(params, root / "models/base", root / "models/sft/vlm")
    connector = Connector.between(vlm, load_vdm(params, root / "models/base"), 0)
    triplets = Triplets(root / "triplets")
    ids = triplets.select(split="train", limit=6)
    with torch.no_grad():
        together = driven(vlm, prompts_of(vlm, triplets, ids), connector, 24)
        alone = torch.cat([driven(vlm, prompts_of(vlm, triplets, [i]), connector, 24) for i in ids])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert together.shape[1] == 24


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_the_unified_systems_steps_take_sfts_flops(scale):
    params = load(smoke.ROOT, scale)
    models, s = Models(params), params.sft
    whole = sum(part.flop * getattr(s, model).steps for model in ("vlm", "vdm") for part in models.step(f"sft/{model}"))
    assert params.arms.unified.steps * systems.flops(params) == pytest.approx(whole, rel=0.01)


def test_a_system_goes_on_to_the_same_bytes(root, tmp_path, monkeypatch):  # noqa: F811
    _, _, whole = fit(root, tmp_path / "a", "unified", machine={"processes": 1})
    params, here = changed(root, tmp_path / "b", machine={"processes": 1})
    real, steps = systems.text_step, []

    def stops(*given):
        steps.append(given)
        if len(steps) == 2:  # the first step is done
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(systems, "text_step", stops)
    with pytest.raises(KeyboardInterrupt):
        systems.train(params, "unified", here)
    monkeypatch.setattr(systems, "text_step", real)
    systems.train(params, "unified", here)
    for path in (p.relative_to(whole) for p in whole.rglob("*.safetensors")):
        assert (whole / path).read_bytes() == (here / systems.OUT / "unified" / path).read_bytes()


# ---- answers -------------------------------------------------------------------------------------------------
def answered(params, here, key, models=None) -> predictions.Predictions:
    folder = answers.predict(params, key, models or f"systems/{key}", here)
    ids = held_out(Triplets(here / "triplets"), params.evaluate.samples)
    return predictions.open_folder(folder, ids, words=True)


def test_text_alone_says_what_sft_says(root, tmp_path):  # noqa: F811
    params, here = changed(root, tmp_path / "t", machine={"processes": 1})
    given = answered(params, here, "textual", "sft")
    own = predict_arm(params, Arm("sft", "sft", "sft"), here)
    assert (own / "captions.csv").read_bytes() == (here / "predictions/textual/captions.csv").read_bytes()
    assert not given.paths and any(given.texts)


@pytest.mark.parametrize("key", ["extension", "unified"])
def test_a_system_answers_every_sample(root, tmp_path, key):  # noqa: F811
    params, here, _ = fit(root, tmp_path / "x", key, machine={"processes": 1})
    given = answered(params, here, key)
    clips, fitted = given.clips(given.ids, (9, 32, 32))
    assert fitted == 0 and clips.std() > 0
    assert any(given.texts) is (key == "unified")
    assert not (here / "runs/systems_answer" / key).exists() or not any((here / "runs/systems_answer" / key).iterdir())


def test_what_is_not_run_leaves_its_row_empty(root, tmp_path):  # noqa: F811
    params, here = changed(root, tmp_path / "off", arms={"run": []})
    assert systems.train(params, "unified", here) == []
    told = json.loads((here / "models/systems/unified/not_trained.json").read_text())
    assert told["why"] == f"arms.run of scale {params.scale} leaves it out"
    assert (here / "curves/systems/unified/history.csv").exists()
    folder = answers.predict(params, "unified", "systems/unified", here)
    assert predictions.is_empty(folder)
    scores = run.score_arm(folder, here, "unified", params)
    scores.save(here / "results/scores")
    assert score.load(here / "results/scores", "unified").summary["n"] == 0
    assert score.load_all(here / "results/scores") == {}


# ---- outsiders -----------------------------------------------------------------------------------------------
def behave(call: llm_server.Call) -> llm_server.Answer:
    """Well at the second attempt for one question, never for another kind; once the key comes back."""
    if "routine" in call.text:
        return llm_server.said("The ball jumps.\n") if call.body["temperature"] else llm_server.said("hm")
    return llm_server.said("[Think] so it goes [/Think] [Ans] the ball leaps . [/Ans]")


@pytest.fixture
def outside(root, tmp_path):  # noqa: F811
    """A cascade of an endpoint and of a pipeline's folder: (params, root, server)."""
    with llm_server.Server(behave) as server:
        endpoint = {"url": server.url, "model": "theirs", "attempts": 2}
        named = {"vlm": "endpoint", "vdm": str(root / "models/base/vdm"), "vdm_revision": "folder"}
        params, here = changed(
            root, tmp_path / "o", arms={"cascade": {**named, "endpoint": endpoint}}, machine={"processes": 1}
        )
        yield params, here, server


def test_a_cascade_of_an_endpoint_and_a_pipeline(outside):
    params, here, server = outside
    assert systems.train(params, "cascade", here) == []
    assert "arms.cascade.vdm is" in (here / "models/systems/cascade/vdm/not_trained.json").read_text()
    given = answered(params, here, "cascade")
    triplets = Triplets(here / "triplets")
    for id, caption, text in zip(given.ids, given.captions, given.texts, strict=True):
        asked = "routine" in triplets.row(id)["question"]
        assert caption == ("The ball jumps." if asked else "the ball leaps .")
        assert text.startswith("The ball" if asked else "[Think]")
    assert given.clips(given.ids, (9, 32, 32))[1] == 0
    question = triplets.row(given.ids[0])["question"]
    first = next(call for call in server.calls if question in call.text)
    assert len(first.pictures) == params.arms.cascade.endpoint.frames
    calls = server.count()
    answers.predict(params, "cascade", "systems/cascade", here)  # again: nothing is asked, or paid for, twice
    assert server.count() == calls


def test_a_hub_vlm_is_told_the_form(root, tmp_path):  # noqa: F811
    """A folder in the layout of Qwen2.5-VL stands for the hub id."""
    named = {"vlm": str(root / "models/base/vlm"), "vlm_revision": "folder", "system": "tell a story ."}
    params, here = changed(root, tmp_path / "h", arms={"cascade": named}, machine={"processes": 1})
    systems.train(params, "cascade", here)
    triplets = Triplets(here / "triplets")
    made = answers.Cascade(params, here, here / "models/systems/cascade", torch.device("cpu"), triplets)
    assert "tell a story ." in made.vlm.prompt("what next ?")
    assert made.pipeline is None and made.vdm is not None


class FakePipe:
    """Takes a picture, as image-to-video pipelines do, and no negative prompt."""

    def __call__(self, image, prompt, num_frames, generator=None, output_type="pil"):
        self.given = (np.asarray(image), prompt, generator.initial_seed(), output_type)
        return type("Out", (), {"frames": np.full((1, num_frames, 8, 8, 3), 0.5)})

    def to(self, device):
        return self

    def set_progress_bar_config(self, disable):
        pass


def test_an_image_to_video_pipeline_gets_the_last_picture(root, monkeypatch):  # noqa: F811
    from diffusers import DiffusionPipeline

    pipe = FakePipe()
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *_, **__: pipe)
    params = load(root).with_(arms={"cascade": {"vdm": "some/pipeline", "vdm_revision": "abc"}})
    clips = torch.arange(9, dtype=torch.uint8)[None, :, None, None, None].expand(1, 9, 8, 8, 3)
    (video,) = outsiders.Pipeline(params, "cpu").render(clips, ["the ball jumps ."], ["a"])
    picture, prompt, seed, kind = pipe.given
    assert (picture == 8).all() and prompt == "the ball jumps ." and kind == "np"
    assert seed == outsiders.generator(params.seed, "answer", "a").initial_seed()
    assert video.dtype == torch.uint8 and video.shape == (params.video.frames, 8, 8, 3) and (video == 128).all()


@pytest.mark.parametrize(
    ("cascade", "said"),
    [
        ({"vdm": "no/where", "vdm_revision": "a"}, "arms.cascade.vdm: no/where: no pipeline of diffusers here"),
        ({"vdm": "BASE", "vdm_revision": "a", "options": {"stepz": 3}}, "options: WanPipeline takes no stepz"),
    ],
)
def test_a_pipeline_that_cannot_be_used_is_one_line(root, monkeypatch, cascade, said):  # noqa: F811
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if cascade["vdm"] == "BASE":
        cascade = cascade | {"vdm": str(root / "models/base/vdm")}
    with pytest.raises(UserError, match=said) as caught:
        outsiders.Pipeline(load(root).with_(arms={"cascade": cascade}), "cpu")
    assert "\n" not in str(caught.value)


def test_what_the_cascade_names_needs_a_revision():
    params = load(smoke.ROOT)
    with pytest.raises(UserError, match="arms.cascade.vdm_revision"):
        params.with_(arms={"cascade": {"vdm": "some/pipeline"}})
    with pytest.raises(UserError, match="an endpoint writes and does not render"):
        params.with_(arms={"cascade": {"vdm": "endpoint"}})


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("[Think] a [/Think] [Ans] b c [/Ans]", "b c"),
        ("well: [Ans] b\nc [/Ans] so", "b c"),
        ("The ball\n jumps.", "The ball jumps."),
        ("", ""),
    ],
)
def test_the_caption_of_a_model_that_was_not_taught_the_form(text, caption):
    assert outsiders.caption_of(text) == caption


# ---- the grid ------------------------------------------------------------------------------------------------
def test_every_system_has_its_row():
    grid = Grid(load(smoke.ROOT), smoke.ROOT)
    assert tuple(grid.systems) == ALL
    assert not [claim for claim in orders.SYSTEM_CLAIMS if set(claim[:2]) == {"textual", "sft"}], "the same captions"
    with pytest.raises(UserError, match=r"dvc.yaml: systems_answer: 'unifid' is unknown; did you mean unified\?"):
        grid.system("unifid")
    with pytest.raises(UserError, match=r"dvc.yaml: systems: 'textual' is unknown"):
        grid.trained_system("textual")


# ---- text to image -------------------------------------------------------------------------------------------
def test_the_telling_picture_is_the_one_that_differs_most():
    clip = np.zeros((9, 32, 32, 3), np.uint8)
    clip[3], clip[6] = 9, 7
    assert telling(clip) == 3 and telling(clip[:1]) == 0
    jump = render_event(Scene(shape="ball", colour="red", x=14.0), "jump")
    assert np.abs(jump[telling(jump)].astype(int) - jump[0]).mean() > 0


def test_derived_triplets_keep_all_but_the_target(root, tmp_path):  # noqa: F811
    source = Triplets(root / "triplets")
    made = Triplets(derive(root / "triplets", tmp_path / "triplets", load(root)))
    ids = list(source.frame.index)
    assert list(made.frame.index) == ids
    kept = [name for name in source.frame if not name.endswith(("_offset", "_size")) and name != "shard"]
    assert made.frame[kept].equals(source.frame[kept])
    assert (made.clips(ids[:8], "input") == source.clips(ids[:8], "input")).all()
    clips, shown = source.clips(ids[:8], "target"), made.clips(ids[:8], "target")
    assert shown.shape == (8, 1, *clips.shape[2:])
    assert all((picture[0] == clip[telling(clip)]).all() for picture, clip in zip(shown, clips, strict=True))


@pytest.fixture(scope="module")
def made(root, tmp_path_factory) -> pictures.Made:  # noqa: F811
    params, here = changed(root, tmp_path_factory.mktemp("pictures") / "root", machine={"processes": 1})
    real = load(root)
    rewards = {stage: getattr(real.rewards, stage) for stage in ("stage1", "stage2")}
    plain = {stage: {name: {k: t.weight for k, t in terms.items()} for name, terms in presets.items()}
             for stage, presets in rewards.items()}  # fmt: skip
    return pictures.train(params.with_(rewards=plain), here)


def test_both_stages_run_on_one_picture_and_leave_their_models(made, root):  # noqa: F811
    out = made.root.parents[1] / pictures.OUT
    sft = dit(out / "sft/vdm")
    base = {n: p.detach() for n, p in load_vdm(made.params, root / "models/base").dit.named_parameters()}
    assert not same(sft, base)
    assert adapter(out / "stage1/full/vlm") and dit(out / "stage2/main/vdm").keys() == sft.keys()
    assert all(made.histories[name] for name in ("sft", "stage1", "stage2"))
    assert made.params.video.frames == made.params.models.vdm.references == 1


def test_answers_are_single_pictures(made):
    ids = held_out(Triplets(made.root / "triplets"), made.params.evaluate.samples)
    given = predictions.open_folder(made.root / "predictions/main", ids)
    assert given.clips(ids, (1, 32, 32))[1] == 0 and set(given.shapes) == {(1, 32, 32)}


def test_the_small_table_has_what_a_picture_has_and_no_figure_of_the_papers(made, tmp_path):
    table = small.of(made.root / "results/scores")
    small.write(table, tmp_path)
    text = (tmp_path / "pictures.md").read_text(encoding="utf-8")
    assert "paper" not in text.split("## What each stage changes")[0]
    assert all(METRICS[name].title in text for name in small.SHOWN)
    assert {order.metric for order in table.orders} <= set(small.SHOWN)
    assert "video_event" not in made.scores["main"].summary["metrics"]["all"]  # no event is seen in one picture
    assert table.frame[table.frame["row"] == "picture_ceiling"]["rouge_l"].eq(1).all()


def test_a_new_score_trains_nothing_again(made, root, monkeypatch):  # noqa: F811
    params, here = made.params, made.root.parents[1]
    before = load(root).with_(machine={"processes": 1}, rewards=params.resolved()["rewards"])
    monkeypatch.setattr(pictures.stage2, "sde_rollout", lambda *_, **__: pytest.fail("it was trained again"))
    monkeypatch.setattr(pictures, "predict", lambda params, arm, here: here / "predictions" / arm.key)
    monkeypatch.setattr(pictures.run, "score_arm", lambda folder, here, key, params: made.scores[key])
    again = pictures.train(before, here)
    assert again.histories["stage2"] == made.histories["stage2"]
