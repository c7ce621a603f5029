"""The DiT's copy in bfloat16 over float32 masters: what it shares with them, that gradients reach them, and that it
follows them; its blocks compiled one by one."""

import weakref
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call
from torch.testing import assert_close

from tests import smoke
from vans.grpo.rollout import WithTensors, frozen_copy
from vans.models.load import vdm_options
from vans.models.tokenizer import text_tokenizer
from vans.models.vdm import VDM
from vans.params import load
from vans.toy import world
from vans.train.optim import optimizer
from vans.train.stage2 import make_trainable

SIGMA = torch.tensor([0.9, 0.3])


def vdm_of(dtype: torch.dtype | None = torch.bfloat16, **options) -> VDM:
    params = load(smoke.ROOT, scale="tiny")
    config = params.models.vdm.config
    config = {**config, "dit": {**config["dit"], "cross_attn_norm": True}}  # as the released one: a norm with weights
    told = vdm_options(params) | {"autocast_dtype": dtype} | options
    return VDM.scratch(config, text_tokenizer(world.vocabulary()), 0, **told)


@pytest.fixture
def vdm() -> VDM:
    vdm = vdm_of()
    vdm.dit.requires_grad_(True)
    return vdm


def given(vdm: VDM, seed: int = 0) -> tuple:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, *vdm.latent_shape(9, 32, 32), generator=draw)
    with torch.no_grad():
        text = vdm.embed(["the ball moves to the left .", "ball"])
    return x, SIGMA, text, x.flip(2)[:, :, :3]


def loss(v: torch.Tensor) -> torch.Tensor:
    return (v - 1).square().mean()


def test_what_diffusers_keeps_in_float32_is_the_master_itself(vdm):
    copies, masters = (dict(module.named_parameters()) for module in (vdm.network, vdm.dit))
    shared = {name for name in masters if copies[name] is masters[name]}
    ends = (".norm2.weight", ".norm2.bias", "scale_shift_table")
    assert shared == {n for n in masters if n.endswith(ends) or ".time_embedder." in n} and len(shared) > 6
    assert {p.dtype for p in masters.values()} == {torch.float32}
    for name in masters.keys() - shared:
        assert copies[name].dtype == torch.bfloat16 and torch.equal(copies[name], masters[name].bfloat16()), name
    for (name, mine), (_, its) in zip(vdm.network.named_buffers(), vdm.dit.named_buffers(), strict=True):
        assert mine.dtype == its.dtype and torch.equal(mine, its), name
    assert vdm.network is vdm.network


def test_gradients_reach_the_masters_and_add_up_there_in_float32(vdm):
    """Against autograd through the cast itself, for two passes."""
    shared = {name for name, p in vdm.network.named_parameters() if p.dtype == torch.float32}

    def cast(**told):
        weights = {n: p if n in shared else p.bfloat16() for n, p in vdm.dit.named_parameters()}
        return functional_call(frame, weights, (), told)

    frame, expected = vdm_of().network, {n: torch.zeros_like(p) for n, p in vdm.dit.named_parameters()}
    for seed in (0, 1):
        loss(vdm.velocity(*given(vdm, seed), dit=cast)).backward()  # type: ignore[arg-type]
        for name, p in vdm.dit.named_parameters():
            assert p.grad is not None
            expected[name], p.grad = expected[name] + p.grad, None
    for seed in (0, 1):
        loss(vdm.velocity(*given(vdm, seed))).backward()
    for name, p in vdm.dit.named_parameters():
        assert p.grad is not None and p.grad.dtype == torch.float32, name
        assert torch.equal(p.grad, expected[name]), name
        assert name in shared or p.grad.norm() != p.grad.bfloat16().float().norm(), "a sum of bfloat16's own grid"
    assert all(p.grad is None for p in vdm.network.parameters() if p.dtype == torch.bfloat16)


def test_the_copy_follows_an_update_a_checkpoint_and_a_weight_set_by_hand(vdm):
    def follows() -> bool:
        copies = dict(vdm.network.named_parameters())
        return all(torch.equal(copies[n], p.to(copies[n].dtype)) for n, p in vdm.dit.named_parameters())

    before = vdm.velocity(*given(vdm))
    loss(before).backward()
    start = WithTensors(vdm.network, frozen_copy(vdm.network))
    optimizer([vdm.dit], "adamw", 1e-2).step()
    assert follows()
    after = vdm.velocity(*given(vdm))
    assert (after - before).abs().max() > 1e-2
    assert torch.equal(vdm.velocity(*given(vdm), dit=start), before), "the policy at the start is as it was"
    with torch.no_grad():
        for p in vdm.dit.parameters():
            p.copy_(p * 0.5)
    assert follows()
    weight = vdm.dit.blocks[0].ffn.net[2].weight
    weight.data = weight.data * 3
    assert follows()


def test_only_what_trains_has_gradients_an_adapter_too(tmp_path):
    vdm = vdm_of()
    loss(vdm.velocity(*given(vdm)).requires_grad_(True)).backward()
    assert all(p.grad is None for p in vdm.dit.parameters()), "a frozen one renders only"
    save = make_trainable(vdm, 4, 0)
    for name, p in vdm.dit.named_parameters():
        if "lora_B" in name:
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    loss(vdm.velocity(*given(vdm))).backward()
    for name, p in vdm.dit.named_parameters():
        assert (p.grad is not None and p.grad.abs().sum() > 0) == ("lora_" in name), name
    save(tmp_path)
    tensors = load_file(tmp_path / "transformer/diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float32}, "what is saved are masters"


def test_its_error_is_that_of_autocast():
    told = vdm_of(None)
    exact = told.velocity(*given(told))
    errors = {}
    for halved in (True, False):
        vdm = vdm_of(halved=halved)
        assert (vdm.network is vdm.dit) != halved
        errors[halved] = (vdm.velocity(*given(vdm)) - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < errors[True] < 1.2 * errors[False] < 0.03


def test_in_float32_there_is_no_copy():
    vdm = vdm_of(None)
    assert vdm.network is vdm.dit
    dit, v = vdm.dit, vdm.velocity(*given(vdm))
    assert vdm.rounded().dit is dit and torch.equal(vdm.velocity(*given(vdm)), v)


def test_what_only_renders_holds_one_copy_and_renders_the_same():
    def rendered(vdm: VDM) -> torch.Tensor:
        x, _, text, reference = given(vdm)
        return vdm.render_latents(text, reference, x, 3, 3.0, text[:1])

    vdm = vdm_of()
    v, latents = vdm.velocity(*given(vdm)), rendered(vdm)
    kept = {p.data_ptr() for p in vdm.network.parameters() if p.dtype == torch.float32}
    masters = [weakref.ref(p.untyped_storage()) for p in vdm.dit.parameters() if p.data_ptr() not in kept]
    vdm.rounded()
    assert masters and not any(storage() for storage in masters), "nobody holds the masters"
    ours, its = ([p.data_ptr() for p in module.parameters()] for module in (vdm.dit, vdm.network))
    assert ours == its, "dit and network are the same memory"
    assert torch.equal(vdm.velocity(*given(vdm)), v) and torch.equal(rendered(vdm), latents)
    lowered = vdm_of().lowered(True, None)
    assert torch.equal(rendered(vdm.lowered(True, None)), rendered(lowered)), "the release's way, too"


def test_compiled_blocks_compute_the_same_with_and_without_gradients(vdm, monkeypatch):
    """Traced by torch.compile; its own compiler of kernels would take a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled = vdm_of(compiled=True).checkpoint_activations("all")
    compiled.dit.requires_grad_(True)
    assert compiled.network.blocks[0]._compiled_call_impl is not None
    modes = set()
    compiled.network.blocks[0].register_forward_pre_hook(lambda *_: modes.add(torch.is_grad_enabled()))
    with torch.no_grad():
        calm = compiled.velocity(*given(vdm))
    assert not calm.requires_grad and modes == {True}
    v = compiled.velocity(*given(vdm))
    assert torch.equal(v, calm)
    plain = vdm.velocity(*given(vdm))
    assert_close(v, plain, rtol=0, atol=0.02)
    loss(v).backward()
    loss(plain).backward()
    for (name, mine), its in zip(compiled.dit.named_parameters(), vdm.dit.parameters(), strict=True):
        assert mine.grad is not None and its.grad is not None
        assert (mine.grad - its.grad).norm() < 0.05 * its.grad.norm() + 1e-6, name
    start = WithTensors(compiled.network, {n: p * 0.5 for n, p in frozen_copy(compiled.network).items()})
    with torch.no_grad():
        for p in vdm.dit.parameters():
            p.mul_(0.5)
        halved = compiled.velocity(*given(vdm), dit=start)  # type: ignore[arg-type,misc]
        assert_close(halved, vdm.velocity(*given(vdm)), rtol=0, atol=0.02)
