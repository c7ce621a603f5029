"""A step asks its device for numbers once, at its end: on a GPU every other look would wait for all work before it.

Seen without a GPU: tensors of the meta device have no values, so that each look at one is an error.
"""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from tests import smoke
from vans.grpo import core, denoising, flow_sde, rollout, tokens
from vans.grpo.denoising import Conditions, sde_rollout, vdm_updates
from vans.grpo.rollout import WithTensors, frozen_copy
from vans.models.flow import ode_step
from vans.models.load import vdm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.parallel import Ranks
from vans.params import load
from vans.toy import world

ALONE = Ranks(0, 1, torch.device("cpu"))
SETTINGS = {
    "inner_updates": 2,
    "grad_clip": 1.0,
    "clip_range": 1e-3,
    "beta": 0.01,
    "micro_batch": 2,
    "temperature": 1.0,
}
SDE = {"render_steps": 4, "train_steps": 0, "noise_level": 0.7, "guidance": 5.0, "guidance_grad": "conditional"}


class Optim:
    """In the place of an optimiser."""

    def zero_grad(self) -> None: ...

    def step(self) -> None: ...


def settings() -> SimpleNamespace:
    whole = load(smoke.ROOT, scale="tiny").stage2
    return SimpleNamespace(**{name: getattr(whole, name) for name in type(whole).model_fields} | SETTINGS | SDE)


def test_a_stage_2_step_looks_at_no_value_of_its_device_before_its_end(monkeypatch):
    told = vdm_options(load(smoke.ROOT, scale="tiny")) | {"autocast_dtype": torch.bfloat16}
    vdm = VDM.scratch(load(smoke.ROOT, scale="tiny").models.vdm.config, text_tokenizer(world.vocabulary()), 0, **told)
    vdm.checkpoint_activations("all").to("meta")
    vdm.dit.requires_grad_(True)
    start = WithTensors(vdm.network, frozen_copy(vdm.network))
    x = torch.randn(4, *vdm.latent_shape(9, 32, 32), device="meta")
    text = torch.randn(4, vdm.max_text, vdm.dit.config.text_dim, device="meta")
    given, s, found = Conditions(text, x[:, :, :3], text[:1]), settings(), []
    done = sde_rollout(vdm, given, x, ["a/0", "a/1", "b/0", "b/1"], ("test",), s, start)
    monkeypatch.setattr(denoising, "numbers", lambda values: found.append(values) or {})  # type: ignore[func-returns-value]
    vdm_updates(vdm, done, given, torch.zeros(4), s, Optim(), list(vdm.dit.parameters()), ALONE, 4)  # type: ignore[arg-type]
    (values,) = found
    assert list(values) == ["ratio_first", "ratio_last", "clipped", "kl", "grad_norm"]
    assert all(value.device.type == "meta" and value.ndim == 0 for value in values.values())
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in vdm.dit.parameters())
    tensors = [*done.states, done.old_logp, *done.ref_means, done.final, *done.unguided]
    assert {t.device.type for t in tensors if t is not None} == {"meta"}, "states stay where they were computed"


class Looks(TorchDispatchMode):
    """Counts looks at single values: item(), bool(), float()."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_a_stage_1_update_looks_at_no_value_of_its_own(monkeypatch):
    """But for the prompts' places, once; transformers looks twice in every pass whether a clip's features fit."""
    vlm = VLM.scratch(load(smoke.ROOT, scale="tiny").models.vlm.config, chat_tokenizer(world.vocabulary()), 0)
    vlm.add_lora(4, 8, 0)
    weights = vlm.train_lora()
    scene = world.Scene(shape="cone", colour="blue")
    clips = torch.stack([torch.from_numpy(world.render_event(scene, e)) for e in ("left", "grow")])
    prompts = vlm.see(vlm.inputs(clips, ["what will happen ?"] * 2, 3.0))
    answers = vlm.sample(prompts, seeds=[(i,) for i in range(4)], max_new_tokens=6, temperature=1.0)
    start = WithTensors(vlm.model, frozen_copy(vlm.model))
    s = SimpleNamespace(**SETTINGS, group_size=2)
    asked = []
    told = lambda values: asked.append(1) or rollout.numbers(values)  # type: ignore[func-returns-value] # noqa: E731
    monkeypatch.setattr(tokens, "numbers", told)
    with Looks() as looks:
        advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
        stats = tokens.vlm_updates(vlm, start, prompts, answers, advantages, s, Optim(), weights, ALONE)  # type: ignore[arg-type]
    passes = 2 * (1 + 2)  # micro-batches; the reference and two updates
    assert looks.count <= 2 * passes + 2 and asked == [1]
    assert list(stats) == ["ratio_last", "sampler_gap", "clipped", "kl", "grad_norm"] and stats["grad_norm"] > 0


def test_the_sum_of_numbers_is_pythons():
    parts = torch.rand(50, generator=torch.Generator().manual_seed(0))
    told, here = rollout.zero(torch.device("cpu")), 0.0
    for part in parts:
        told += part.double() * (1 / 3)
        here += part.item() * (1 / 3)
    assert rollout.numbers({"a": told, "b": parts[0]}) == {"a": here, "b": parts[0].item()}


def test_coefficients_are_the_same_wherever_the_sample_is(monkeypatch):
    """A number is filled in, a copy of it would wait; on a CPU both are the same."""
    x, v = torch.randn(2, 2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    known = flow_sde.sde_mean_std(x, v, 0.9, 0.7, 0.5), ode_step(x, v, 0.3, 0.1)
    meta = torch.empty(2, device="meta")
    copied = flow_sde.sde_mean_std(x, v, torch.tensor([0.9, 0.9]), torch.tensor([0.7, 0.7]), 0.5)
    assert_close(copied[0], known[0][0], rtol=0, atol=1e-6)
    assert flow_sde.on(meta, torch.tensor([0.5], dtype=torch.float64)).dtype == torch.float32
    assert flow_sde.on(meta, torch.tensor([0.5, 0.1], dtype=torch.float64)).shape == (2,)
    with pytest.raises(ValueError, match="need 1 >= sigma"):
        flow_sde.sde_mean_std(meta[:, None], meta[:, None], 0.5, 0.6, 0.5)  # numbers are looked at everywhere
    terms, _, fraction = core.clipped_objective(meta[:, None], meta[:, None], meta, 0.2)
    assert core.grpo_loss(terms, core.kl_tokens(meta[:, None], meta[:, None]), 0.1).device.type == "meta"
    assert fraction.device.type == "meta"
