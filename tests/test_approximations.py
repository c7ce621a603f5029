"""The named approximations of rendering, each against a value made by hand; what is off changes nothing."""

import pytest
import torch
from torch.testing import assert_close

from tests import smoke
from vans.errors import UserError
from vans.grpo.core import extremes
from vans.models import float8
from vans.models.flow import in_interval, ode_step, sigmas
from vans.models.load import vdm_options
from vans.models.tokenizer import text_tokenizer
from vans.models.vdm import VDM
from vans.params import load
from vans.plan.work import Models

TINY = load(smoke.ROOT, "tiny")


@pytest.fixture(scope="module")
def vdm() -> VDM:
    words = ["the", "ball", "cone", "moves"]
    return VDM.scratch(TINY.models.vdm.config, text_tokenizer(words), 0, **vdm_options(TINY))


@pytest.fixture
def given(vdm) -> tuple:
    """Text, references, noise, negative prompt of two videos."""
    noise = torch.randn(2, 16, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return vdm.embed(["ball", "cone"]), vdm.pick_references(noise.flip(0)), noise, vdm.embed([""])


def test_every_approximation_is_off():
    for name in ("tiny", "paper"):
        params = load(smoke.ROOT, name)
        for s in (params.stage1, params.stage2):
            assert (s.guidance_start, s.guidance_stop, s.explore_size) == (0.0, 1.0, 0)
        assert not params.stage1.fp8 and params.stage2.train_steps == 0


def test_an_interval_of_steps():
    assert [in_interval(k, 5, (0.0, 1.0)) for k in range(5)] == [True] * 5
    assert [in_interval(k, 4, (0.25, 0.75)) for k in range(4)] == [False, True, True, False]
    assert not any(in_interval(k, 7, (0.5, 0.5)) for k in range(7))
    first, second = ([k for k in range(6) if in_interval(k, 6, ends)] for ends in ((0.0, 0.4), (0.4, 1.0)))
    assert first + second == list(range(6)), "two intervals that meet share the steps"


def test_guidance_in_an_interval_is_guidance_there_and_none_elsewhere(vdm, given):
    text, reference, noise, negative = given
    found = vdm.render_latents(text, reference, noise, 4, 5.0, negative, interval=(0.25, 0.75))
    grid, x = sigmas(4, vdm.shift).tolist(), noise
    with torch.no_grad():
        for k, scale in enumerate([1.0, 5.0, 5.0, 1.0]):
            sigma = torch.full((2,), grid[k])
            x = ode_step(x, vdm.guided_velocity(x, sigma, text, reference, scale, negative), grid[k], grid[k + 1])
    assert torch.equal(found, x)
    everywhere = vdm.render_latents(text, reference, noise, 4, 5.0, negative)
    assert torch.equal(vdm.render_latents(text, reference, noise, 4, 5.0, negative, interval=(0.0, 1.0)), everywhere)
    none = vdm.render_latents(text, reference, noise, 4, 5.0, interval=(1.0, 1.0))  # no negative prompt is needed
    assert torch.equal(none, vdm.render_latents(text, reference, noise, 4, 1.0))
    assert not torch.allclose(none, everywhere) and not torch.allclose(found, everywhere)


def test_the_best_and_the_worst_of_a_group():
    yes = torch.ones(2, 6, dtype=torch.bool)
    rewards = torch.tensor([[3.0, 0.0, 5.0, 1.0, 4.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0, 2.0]])
    assert extremes(rewards, yes, 4).tolist() == [[1, 2, 3, 4], [0, 3, 4, 5]]
    assert extremes(rewards, yes, 3).tolist() == [[1, 2, 4], [0, 4, 5]]  # of an odd number one more of the best
    assert extremes(rewards, yes, 6).tolist() == [list(range(6))] * 2
    few = torch.tensor([[True, False, False, True, False, True]])
    assert extremes(rewards[:1], few, 4).tolist() == [[0, 1, 3, 5]]  # what has no score comes last
    assert extremes(rewards[:1], few, 2).tolist() == [[0, 3]]


def test_float8_is_the_product_of_what_it_rounds_to():
    """By hand, with values that e4m3 holds and with any others: three bits of mantissa, so at most 1/16 off each."""
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0)) * torch.tensor([[[1.0]], [[100.0]], [[1e-3]]])
    linear = torch.nn.Linear(32, 16)
    layer = float8.Float8Linear(linear)

    def rounded(values):
        scale = values.abs().amax(-1, keepdim=True) / 448
        return (values / scale).to(torch.float8_e4m3fn).float() * scale

    expected = rounded(x) @ rounded(linear.weight.detach()).T + linear.bias
    assert_close(layer(x), expected, rtol=1e-4, atol=1e-6)
    exact = linear(x).detach()
    bound = (x.abs() @ linear.weight.abs().T) * (2 / 16 + 1 / 256)
    assert ((layer(x) - exact).abs() <= bound).all() and not torch.allclose(layer(x), exact)
    whole = torch.nn.Linear(16, 16, bias=False)
    whole.weight.data = torch.full((16, 16), 2.0)
    assert torch.equal(float8.Float8Linear(whole)(torch.full((1, 16), 3.0)), torch.full((1, 16), 96.0))


def test_a_dit_in_float8_renders_nearly_the_same(vdm, given):
    text, reference, noise, _ = given
    exact = vdm.render_latents(text, reference, noise, 3, 1.0)
    low = VDM.scratch(TINY.models.vdm.config, vdm.tokenizer, 0, **vdm_options(TINY))
    float8.lower(low.dit)
    changed = [n for n, m in low.dit.named_modules() if isinstance(m, float8.Float8Linear)]
    assert len(changed) == 4 * (4 + 4 + 2) and all(n.startswith("blocks.") for n in changed)
    found = low.render_latents(text, reference, noise, 3, 1.0)
    off = (found - exact).norm() / exact.norm()
    assert 1e-4 < off < 0.05


def test_float8_is_refused_where_the_hardware_has_none(monkeypatch):
    line = r"^stage1\.fp8: needs a GPU of compute capability 8\.9 or later \(Ada, Hopper\), and {}; use false$"
    with pytest.raises(UserError, match=line.format("this is cpu")):
        float8.check(torch.device("cpu"), "stage1.fp8")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "NVIDIA A100")
    for capability, fits in (((8, 0), False), ((8, 9), True), ((9, 0), True)):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda _, found=capability: found)
        if fits:
            float8.check(torch.device("cuda", 0), "stage1.fp8")
        else:
            with pytest.raises(UserError, match=line.format(r"NVIDIA A100 has 8\.0")):
                float8.check(torch.device("cuda", 0), "stage1.fp8")


@pytest.mark.parametrize(
    "stage, changes, said",
    [
        ("stage1", {"guidance_start": 0.5, "guidance_stop": 0.25}, "guidance_stop: 0.25 is before guidance_start; use"),
        ("stage2", {"explore_size": 16, "explore_steps": 7}, "explore_steps: 7 is more than render_steps; use fewer"),
        ("stage2", {"explore_size": 16, "share_noise": True}, "explore_size: all candidates would be one video; use 0"),
    ],
)
def test_settings_that_contradict_each_other_are_one_line(stage, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        TINY.with_(**{stage: changes})
    assert "\n" not in str(caught.value)


def test_candidates_of_stage_2_and_weights_cut_up_are_not_for_each_other():
    with pytest.raises(UserError, match=r"stage2\.explore_size: machine\.shard needs all GPUs to render equally often"):
        TINY.with_(machine={"shard": True}, stage2={"explore_size": 16})


def test_the_plan_counts_them():
    """Passes of the DiT by hand, at the paper's scale: 20 guided steps for each of 64 videos."""
    paper = load(smoke.ROOT, "paper")

    def passes(stage: str, **changes) -> float:
        models = Models(paper.with_(**{stage: changes}))
        render = next(part for part in models.step(stage) if part.name == "render")
        texts = changes.get("explore_size", 0) * 8 + 64 if stage == "stage1" else 64
        return (render.flop - texts * models.text) / models.dit

    assert passes("stage1") == pytest.approx(64 * 40)
    assert passes("stage1", guidance_stop=0.5) == pytest.approx(64 * 30)
    assert passes("stage1", explore_size=16, explore_steps=4) == pytest.approx(64 * 40 + 128 * 8)
    assert passes("stage2") == pytest.approx(64 * (40 + 38))
    assert passes("stage2", guidance_start=0.5) == pytest.approx(64 * (30 + 28))
    assert passes("stage2", train_steps=5) == pytest.approx(64 * (40 + 10))
    assert passes("stage2", explore_size=16, explore_steps=4) == pytest.approx(64 * 78 + 128 * 8)
    generated = [p.flop for s in ({}, {"explore_size": 16}) for p in Models(paper.with_(stage1=s)).step("stage1")[:1]]
    assert generated[1] > generated[0]
