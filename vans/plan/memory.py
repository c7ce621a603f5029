"""What a stage holds on one GPU, by parts, and what to change where it does not fit.

Each stage holds its models for as long as it runs, and what the largest of its phases (sampling, rendering, decoding,
updating) needs beside them. Stage 2 holds VLM and text encoder until its anchors are drawn and embedded, before there
are gradients and moments, and neither of them in its steps. As the trainers do it: frozen weights of the VLM and the
text encoder in machine.dtype, DiT and VAE in float32; what trains in float32, with its gradients, AdamW's two moments,
the policy at the start of the stage (for the KL; not in SFT) and, with several processes, one flat buffer of gradients.
In bfloat16 the DiT computes in a copy (vans/models/masters.py), of which the start of the stage is another one; where
it does not train, the copy is all that there is. Of a LoRA autocast keeps a copy. Sharded, there is neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vans.plan import flops, meta
from vans.plan.gpus import GPU
from vans.plan.work import Models, bytes_of, recomputed

STAGES = ("sft/vlm", "sft/vdm", "stage1", "stage2", "all_in_one", "answer")
CLIP = 0.6e9  # ViT-B/32 in float32
LOGITS = 4  # float32 copies of an answer's logits: as they come, suppressed, their softmax, a gradient


@dataclass(frozen=True)
class How:
    """What can be changed. checkpointing: share of the layers that recompute. shard: GPUs over which the models are cut
    up (machine.shard): the DiT, and the VLM where it trains, but for its vision tower; 1: none is."""

    checkpointing: float
    micro_batch: int
    dit_batch: int
    vae_batch: int
    sample_batch: int
    shard: int = 1


@dataclass(frozen=True)
class Memory:
    """Bytes. activations: of the largest micro-batch, (with, without) recomputing; caches: keys, values and logits in
    sampling, autocast's copies; decode: what the VAE's decoder holds. total: with what `How` says."""

    frozen: float
    masters: float
    gradients: float
    optimiser: float
    start: float
    activations: tuple[float, float]
    caches: float
    decode: float
    total: float


def how_of(models: Models, stage: str) -> How:
    """As the parameters are."""
    p = models.params
    micro = {
        "sft/vlm": p.sft.vlm.micro_batch,
        "sft/vdm": p.sft.vdm.micro_batch,
        "stage1": p.stage1.micro_batch,
        "stage2": p.stage2.micro_batch,
        "all_in_one": max(p.stage1.micro_batch, p.stage2.micro_batch),
    }
    m = p.machine
    dit, vae, sample = (1, 1, 1) if stage.startswith("sft") else (m.dit_batch, m.vae_batch, m.sample_batch)
    shard = m.processes if m.shard and stage != "answer" else 1
    return How(recomputed(m.gradient_checkpointing), micro.get(stage, 1), dit, vae, sample, shard)


def memory(models: Models, stage: str, gpus: int, how: How) -> Memory:
    """Of one GPU of so many."""
    p, vdm = models.params, models.vdm
    c = bytes_of(p.machine.dtype)
    vlm, dit = stage != "sft/vdm", stage != "sft/vlm"
    lora = flops.lora_parameters(models.language, p.sft.vlm.lora_rank) if vlm else 0
    sizes = {name: meta.parameters(name, vdm[name]) for name in (meta.DIT, meta.VAE, meta.TEXT)} if dit else {}
    dit_trains = stage in ("sft/vdm", "stage2", "all_in_one")
    halved = c == 2 and (how.shard == 1 or stage == "answer")  # the DiT computes in a copy
    vlm_trains = stage in ("sft/vlm", "stage1", "all_in_one")

    frozen: float = meta.parameters(meta.VLM, models.vlm) * c if vlm else 0
    if dit:
        frozen += 4 * sizes[meta.VAE] + (0 if stage == "sft/vdm" else c * sizes[meta.TEXT] + CLIP)
        frozen += 0 if dit_trains else (c if halved else 4) * sizes[meta.DIT]
    frozen += 0 if vlm_trains else 4 * lora
    gone: float = 0  # before the first step
    if stage == "stage2":
        gone = c * (meta.parameters(meta.VLM, models.vlm) + sizes[meta.TEXT]) + 4 * lora
        frozen -= gone
    trained: float = 4 * ((lora if vlm_trains else 0) + (sizes[meta.DIT] if dit_trains else 0))
    start: float = 0
    if not stage.startswith("sft"):
        start = 4 * (lora if vlm_trains else 0) + ((c if halved else 4) * sizes[meta.DIT] if dit_trains else 0)
    copies = trained / 4 * 2 if c == 2 else 0
    buffer = trained if gpus > 1 and how.shard == 1 else 0  # of all gradients, while they are averaged
    layer = gathered = 0.0
    if how.shard > 1 and stage != "answer":
        share = 1 / how.shard
        if dit:
            frozen -= 0 if dit_trains else 4 * sizes[meta.DIT] * (1 - share)
            layer = _block(sizes[meta.DIT] / vdm["dit"]["num_layers"], c, dit_trains)
        if vlm_trains:
            base, ends = meta.shards(models.vlm)
            gathered = c * base * (1 - share)  # whole again while answers are sampled
            frozen -= gathered
            layer = max(layer, c * (2 * (base - ends) / models.language["num_hidden_layers"] + ends))
        trained, start, copies = trained * share, start * share, 0.0

    phases = _phases(models, stage, how, c)
    held = frozen + 4 * trained + start + copies + layer
    if "sample" in phases:
        phases["sample"] += gathered
    caches = phases.get("sample", 0.0) + copies + layer
    with_, without = phases.get("update", 0.0), phases.get("update without", 0.0)
    update = how.checkpointing * with_ + (1 - how.checkpointing) * without + buffer
    sample = phases.get("sample", 0.0)
    most = max(0.0 if gone else sample, phases.get("render", 0.0), phases.get("decode", 0.0), update)
    before = frozen + gone + trained + start + layer + sample if gone else 0.0  # while stage 2's anchors are drawn
    return Memory(
        frozen,
        trained,
        trained + buffer,
        2 * trained,
        start,
        (with_, without),
        caches,
        phases.get("decode", 0.0),
        max(held + most, before),
    )


def _block(size: float, c: int, trains: bool) -> float:
    """Bytes that the DiT's blocks of so many parameters take as they are gathered: two in float32, one of them cast;
    and two gradients on their way to their shares."""
    return size * (2 * 4 + (c if c == 2 else 0) + (2 * 4 if trains else 0))


def _phases(models: Models, stage: str, how: How, c: int) -> dict[str, float]:
    """Bytes of each phase beside the weights."""
    p, text, d = models.params, models.language, models.vdm["dit"]
    found: dict[str, float] = {}
    wide = c / 2  # what is kept is asked for in bfloat16
    if stage != "sft/vdm":
        rows = {"sft/vlm": 0, "stage1": p.stage1.prompts * p.stage1.group_size, "stage2": p.stage2.prompts}
        rows |= {"all_in_one": p.all_in_one.prompts * p.stage1.group_size, "answer": p.generate.batch}
        most = min(how.sample_batch, -(-rows[stage] // p.machine.processes))
        length = models.prompt + models.answer
        found["sample"] = most * (flops.cache_bytes(text, length, c) + LOGITS * 4 * text["vocab_size"])
    if stage in ("sft/vlm", "stage1", "all_in_one"):
        together = 1 if stage == "sft/vlm" else min(how.micro_batch, p.stage1.group_size)  # behind one prompt
        rows_at_once, length = -(-how.micro_batch // together), models.prompt + together * models.answer
        layer = wide * meta.language_kept(text, length)
        logits = LOGITS * 4 * (together * models.answer + 1) * text["vocab_size"]
        inputs = text["num_hidden_layers"] * length * text["hidden_size"] * c
        found["update"] = rows_at_once * (inputs + 2 * layer + logits)
        found["update without"] = rows_at_once * (text["num_hidden_layers"] * layer + layer + logits)
    if stage != "sft/vlm":
        block = wide * meta.dit_kept(d, models.shown, p.models.vdm.max_text)
        width = d["num_attention_heads"] * d["attention_head_dim"]
        inputs = d["num_layers"] * models.tokens * width * c
        if stage != "sft/vdm":
            found["render"] = how.dit_batch * block
            found["decode"] = how.vae_batch * meta.vae_peak(models.vdm["vae"], models.size)
        if stage in ("sft/vdm", "stage2", "all_in_one"):
            micro = min(how.micro_batch, p.stage2.micro_batch) if stage == "all_in_one" else how.micro_batch
            found["update"] = max(found.get("update", 0.0), micro * (inputs + 2 * block))
            whole = micro * (d["num_layers"] + 1) * block
            found["update without"] = max(found.get("update without", 0.0), whole)
    return found


def cures(how: How, gpus: int) -> Iterator[tuple[str, How]]:
    """What can be changed, the least first, each with everything before it; more GPUs than there are come last."""
    said: list[str] = []
    if how.checkpointing < 1:
        how = replace(how, checkpointing=1)
        said.append("machine.gradient_checkpointing of all layers")
        yield ", ".join(said), how
    if gpus > 1 and how.shard == 1:
        how = replace(how, shard=gpus)
        said.append("machine.shard: true")
        yield ", ".join(said), how
    at_once = ("micro_batch", "dit_batch", "vae_batch", "sample_batch")
    if any(getattr(how, name) > 1 for name in at_once):
        said.append(" and ".join(f"{name}: 1" for name in at_once if getattr(how, name) > 1))
        how = replace(how, micro_batch=1, dit_batch=1, vae_batch=1, sample_batch=1)
        yield ", ".join(said), how
    for count in (2, 4, 8, 16, 32, 64):
        if count > gpus and count > how.shard:
            yield ", ".join([*said, f"machine.shard: true on {count} GPUs"]), replace(how, shard=count)


def remedy(models: Models, stage: str, gpus: int, gpu: GPU) -> tuple[Memory, str]:
    """What a stage holds, and, where that is more than the GPU has, what to change ("" where it fits)."""
    how = how_of(models, stage)
    found = memory(models, stage, gpus, how)
    if found.total <= gpu.usable:
        return found, ""
    for what, other in cures(how, gpus if stage != "answer" else 1):  # whose models are not cut up
        total = memory(models, stage, max(gpus, other.shard), other).total
        if total <= gpu.usable:
            return found, f"{what}: {total / 1e9:.0f} GB"
    return found, "nothing here makes it fit; take a GPU with more memory, or smaller models"
