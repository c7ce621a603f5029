"""`vans plan`: what a scale takes, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vans.errors import UserError
from vans.grid import Grid
from vans.plan import meta
from vans.plan.gpus import GPU
from vans.plan.memory import STAGES, How, Memory, how_of, memory, remedy
from vans.plan.takes import takes
from vans.plan.work import ANSWER, Models, Stage, bytes_of

TRIPLETS = 100_000  # where none are counted
TOKENS = 60  # of a caption, on average
PIXEL = 0.1  # bytes of a pixel in H.264
WORDS = {
    "stage1": "stage 1",
    "stage2": "stage 2",
    "all_in_one": "all in one",
    "sft/vlm": "SFT, VLM",
    "sft/vdm": "SFT, VDM",
}


def describe(params: Any, root: Path, gpu: GPU, gpus: int, fraction: float, triplets: int | None = None) -> str:
    """The whole plan. fraction: of the GPU's peak that is reached. triplets: None: those there are, else TRIPLETS."""
    if not 0 < fraction <= 1:
        raise UserError(f"--fraction {fraction:g}: is the part of the peak that is reached; use a number from 0 to 1")
    if gpus < 1:
        raise UserError(f"--gpus {gpus}: use a whole number from 1 up")
    if triplets is not None and triplets < 1:
        raise UserError(f"--triplets {triplets}: use a whole number from 1 up")
    processes, refused = _processes(params, gpus)
    params = params.with_(machine={"processes": processes})
    models, grid = Models(params), Grid(params, root)
    count = triplets or counted(root) or TRIPLETS
    main, rest = models.stages(grid, count)
    lines = [
        f"Scale `{params.scale}` on {gpus} × {gpu.name} ({gpu.memory} GB, {gpu.peak:g} TFLOP/s in dense bfloat16, of "
        f"which {fraction:.0%} are reckoned with), {count:,} triplets.",
        "",
        *([f"Training would refuse {gpus} processes as it stands: {refused}", ""] if refused else []),
        *passes(models),
        "",
        *hours(main, rest, gpu, gpus, fraction),
        "",
        *held(models, gpus, gpu),
        "",
        *disk(models, grid, count, root),
        "",
        *together(models, grid, count, gpu, gpus, fraction),
    ]
    return "\n".join(lines) + "\n"


def _processes(params: Any, gpus: int) -> tuple[int, str]:
    """As many processes as GPUs, if the batches can be shared so; else as the scale says, and why."""
    try:
        params.with_(machine={"processes": gpus})
    except UserError as error:
        return params.machine.processes, str(error).removeprefix("with_: ")
    return gpus, ""


def counted(root: Path) -> int:
    """Triplets in triplets/, 0 where there are none."""
    path = root / "triplets/manifest.parquet"
    if not path.exists():
        return 0
    import pyarrow.parquet as parquet

    return parquet.ParquetFile(path).metadata.num_rows


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    bar = "|".join(["---", *["---:"] * (len(heads) - 1)])
    return [f"| {' | '.join(heads)} |", f"|{bar}|", *(f"| {' | '.join(row)} |" for row in rows)]


def passes(models: Models) -> list[str]:
    """What one pass costs."""
    p = models.params
    t, h, w = models.size
    again = ", recomputed" if models.again else ""
    millions = {name: meta.parameters(name, models.vdm[name]) / 1e6 for name in (meta.DIT, meta.TEXT, meta.VAE)}
    rows = [
        (
            "DiT, one pass for one video",
            f"{models.tokens:,} tokens with {p.models.vdm.references} reference latents",
            models.dit,
        ),
        (
            "DiT, a pass that is learnt from",
            "forward, backward" + again,
            models.dit_learnt(False),
        ),
        ("text encoder, one caption", f"{p.models.vdm.max_text} tokens", models.text),
        ("VAE, a clip encoded", "in TF32", models.vae[0]),
        ("VAE, a video decoded", "in TF32", models.vae[1]),
        ("vision tower, one clip", f"{models.patches:,} patches", models.tower),
        ("VLM, an answer scored", f"{models.prompt:,} + {models.answer} tokens", models.scored()),
        ("VLM, an answer learnt from", "LoRA" + again, models.learnt()),
        ("the same, a group behind one prompt", "LoRA" + again, models.learnt(models.params.stage1.group_size)),
    ]
    dit, text, vae = (millions[name] for name in (meta.DIT, meta.TEXT, meta.VAE))
    vlm = meta.parameters(meta.VLM, models.vlm) / 1e6
    said = (
        f"A clip is {t} × {h} × {w}. Parameters: DiT {dit:,.4g} M, text encoder {text:,.4g} M, VAE {vae:,.4g} M, "
        f"VLM {vlm:,.4g} M."
    )
    return [said, "", *table(("pass", "of", "TFLOP"), ((a, b, number(flop / 1e12)) for a, b, flop in rows))]


def hours(main: list[Stage], rest: list[Stage], gpu: GPU, gpus: int, fraction: float) -> list[str]:
    """Each stage's FLOPs and hours."""

    def cost(stages: list[Stage]) -> tuple[str, str]:
        spent = sum(stage.hours(gpu, gpus, fraction) for stage in stages)
        return number(sum(stage.flop for stage in stages) / 1e18), number(spent)

    def row(alike: list[Stage]) -> tuple[str, ...]:
        step = " + ".join(f"{part.name} {number(part.flop / 1e12)}" for part in alike[0].parts) or "—"
        name = title(alike[0].name) + "".join(f", {stage.name.partition('/')[2]}" for stage in alike[1:])
        return (
            name,
            f"{len(alike)} × {alike[0].steps:,}" if len(alike) > 1 else f"{alike[0].steps:,}",
            step,
            *cost(alike),
        )

    def rows(name: str, stages: list[Stage]) -> list[tuple[str, ...]]:
        groups: dict[Any, list[Stage]] = {}
        for stage in stages:
            groups.setdefault((stage.name.partition("/")[0], stage.steps, stage.parts, stage.once), []).append(stage)
        return [*map(row, groups.values()), (f"**{name}**", "", "", *(f"**{value}**" for value in cost(stages)))]

    chain, others = rows("main chain", main), rows("the rest of the grid", rest) if rest else []
    heads = ("stage", "steps", "a step or sample, TFLOP", "EFLOP", f"hours on {gpus} GPUs")
    spent = sum(stage.hours(gpu, gpus, fraction) for stage in [*main, *rest])
    return [
        *table(heads, [*chain, *others]),
        "",
        f"Main chain and grid: {number(spent)} hours on {gpus} GPUs, {number(spent * gpus)} GPU hours. Sampling "
        "(generate) is bound by memory: of each batch the VLM's weights are read once a token, "
        f"{ANSWER} tokens an answer at most. Not in it: base models, CLIP, FVD, curation, the optimisers, loading, "
        "checkpoints.",
    ]


def held(models: Models, gpus: int, gpu: GPU) -> list[str]:
    """The memory of each stage, and what to change where it is too much."""
    found: dict[str, tuple[Memory, str]] = {stage: remedy(models, stage, gpus, gpu) for stage in STAGES}

    def row(stage: str, m: Memory) -> tuple[str, ...]:
        with_, without = m.activations
        parts = (m.frozen, m.masters, m.gradients, m.optimiser, m.start, with_, without, m.caches, m.decode, m.total)
        return (title(stage), *(gb(part) for part in parts))

    heads: tuple[str, ...] = ("GB of one GPU", "frozen weights", "masters", "gradients and their buffer", "AdamW")
    heads += (
        "policy at the start",
        "activations, recomputed",
        "activations, kept",
        "caches and copies",
        "VAE's decoder",
        "in all",
    )
    ends = [
        f"- {title(stage)} does not fit {gpu.name}. It would with {what}." for stage, (_, what) in found.items() if what
    ]
    how = how_of(models, "stage2")
    return [
        *table(heads, (row(stage, m) for stage, (m, _) in found.items())),
        "",
        f"In all: the weights and the largest of sampling, rendering, decoding and updating, with "
        f"{_settings(how)}. Of {gpu.memory} GB {gpu.usable / 1e9:.0f} can be filled.",
        "",
        *(ends or [f"Every stage fits {gpu.name}."]),
        *_sharded(models, gpus, gpu, [s for s, (_, what) in found.items() if what and s != "answer"]),
    ]


def _sharded(models: Models, gpus: int, gpu: GPU, stages: list[str]) -> list[str]:
    if not stages or gpus == 1:
        return []
    totals = {stage: memory(models, stage, gpus, replace(how_of(models, stage), shard=gpus)).total for stage in stages}
    rows = [f"{title(stage)} {gb(total)}" for stage, total in totals.items()]
    return [f"- With `machine.shard: true` over {gpus} GPUs, GB of each: {', '.join(rows)}."]


def _settings(how: How) -> str:
    kept = "recomputed" if how.checkpointing == 1 else "half recomputed" if how.checkpointing else "kept"
    return (
        f"activations {kept}, dit_batch {how.dit_batch}, vae_batch {how.vae_batch}, sample_batch {how.sample_batch} "
        "and each stage's micro_batch"
    )


def disk(models: Models, grid: Grid, triplets: int, root: Path) -> list[str]:
    """What lies on the disk in the end, and what for a while."""
    rows = [(name, gb(size), what) for name, size, what in sizes(models, grid, triplets)]
    total = sum(size for _, size, _ in sizes(models, grid, triplets))
    return table(
        ("on the disk", "GB", "what"), [*rows, ("**in all**", f"**{gb(total)}**", "your videos in `data/` beside it")]
    )


def together(models: Models, grid: Grid, triplets: int, gpu: GPU, gpus: int, fraction: float) -> list[str]:
    """What each thing takes, in one table."""
    there = {name: size for name, size, _ in sizes(models, grid, triplets)}
    rows = [
        (
            *(t.name, gb(t.memory), number(t.step), f"{t.steps:,}", number(t.hours)),
            f"{gb(t.bytes)} ({', '.join(name for name, _ in t.disk)})",
        )
        for t in takes(models, grid, gpu, gpus, fraction, triplets, there)
    ]
    heads: tuple[str, ...] = ("what it takes, reckoned", "GB of a GPU", "s a step or sample", "steps or samples")
    heads += ("hours", "GB on the disk")
    said = f"One question on one GPU, the rest on {gpus}. Evaluation: answers; CLIP and FVD are not reckoned."
    return [*table(heads, rows), "", said]


def sizes(models: Models, grid: Grid, triplets: int) -> list[tuple[str, float, str]]:
    """(name, bytes, what) of each thing that a run leaves on the disk."""
    p = models.params
    c = bytes_of(p.machine.dtype)
    latent = latent_bytes(p)
    pixels = models.size[0] * models.size[1] * models.size[2]
    clip = pixels * (3 if p.curate.codec == "raw" else PIXEL)
    texts = triplets * min(TOKENS, p.models.vdm.max_text) * models.vdm["text_encoder"]["d_model"] * c
    dit = 4 * meta.parameters(meta.DIT, models.vdm["dit"])
    chain = grid.main_chain()
    run = [cell for cell in grid.cells.values() if p.machine.grid or f"{cell.stage}@{cell.key}" in chain]
    arms = [arm for arm in grid.arms.values() if p.machine.grid or f"answer@{arm.key}" in chain]
    systems = grid.systems_run()
    named = {"cascade"} if p.arms.cascade.vdm else set()
    tuned = [key for key in grid.systems_run(trained=True) if key not in named]
    base = c * meta.parameters(meta.VLM, models.vlm) + c * meta.parameters(meta.TEXT, models.vdm["text_encoder"])
    base += 4 * meta.parameters(meta.VAE, models.vdm["vae"]) + dit
    saved = dit * (1 + sum(cell.stage != "stage1" for cell in run) + len(tuned))
    filmed = len(arms) + sum(key != "textual" for key in systems)
    shards, videos = 2 * triplets * clip, 2 * p.evaluate.samples * clip * filmed
    return [
        ("triplets", shards, f"two clips of each, {clip / 1e6:.2g} MB a clip"),
        ("latents", 2 * triplets * latent, f"{latent / 1e6:.3g} MB a clip, float16, in cache/"),
        ("text embeddings", texts, f"{min(TOKENS, p.models.vdm.max_text)} tokens a caption, in cache/"),
        ("base models", base, "downloaded or trained"),
        ("trained models", saved, "a DiT of SFT and of each cell or system that tunes one"),
        ("checkpoints", 3 * 3 * dit, "weights and two moments of the DiT, the last two and the next"),
        ("predictions", videos, f"{filmed} arms and systems"),
        ("DVC's cache", shards + saved + videos, "the same again; none where it links (reflink)"),
    ]


def latent_bytes(params: Any) -> int:
    """Of one clip's latents, float16."""
    return 2 * math.prod(Models(params).latents)


def title(stage: str) -> str:
    name, _, key = stage.partition("/")
    return WORDS.get(stage, WORDS.get(name, name) + (f", {key}" if key else ""))


def number(value: float) -> str:
    """Three figures."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1e}"


def gb(size: float) -> str:
    return number(size / 1e9)
