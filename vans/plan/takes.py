"""What each thing takes that a person may want to do, reckoned: memory, seconds, hours, disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vans.grid import Grid
from vans.plan.gpus import GPU
from vans.plan.memory import how_of, memory
from vans.plan.work import Models, Stage

WHAT = {  # what is done -> the stage whose memory it needs, and how that stage's names begin
    "answering one question": ("answer", "answer/main"),
    "SFT of the VLM": ("sft/vlm", "sft/vlm"),
    "SFT of the VDM": ("sft/vdm", "sft/vdm"),
    "stage 1": ("stage1", "stage1/full"),
    "stage 2": ("stage2", "stage2/main"),
    "evaluating one arm": ("answer", "answer/main"),
}


@dataclass(frozen=True)
class Takes:
    """memory: bytes of one GPU. step: seconds of a step, or of a sample. hours: in all. disk: what, and bytes."""

    name: str
    memory: float
    step: float
    steps: int
    hours: float
    disk: tuple[tuple[str, float], ...]

    @property
    def bytes(self) -> float:
        return sum(size for _, size in self.disk)


def takes(
    models: Models, grid: Grid, gpu: GPU, gpus: int, fraction: float, triplets: int, sizes: dict[str, float]
) -> Iterator[Takes]:
    """One of each of WHAT, on so many GPUs; a single question on one. sizes: by name, of `vans.plan.report.sizes`."""
    stages = {stage.name: stage for part in models.stages(grid, triplets) for stage in part}
    p, tuned = models.params, sizes["checkpoints"] / 6  # the last and the next of weights and two moments
    for name, (kind, key) in WHAT.items():
        stage = stages[key]
        one = name.startswith("answering")
        count = 1 if one else gpus
        found = Stage(stage.name, 1 if one else stage.steps, stage.parts, () if one else stage.once)
        step = sum(part.seconds(gpu, count, fraction) for part in found.parts)
        disk = {
            "answering": (("base models", sizes["base models"]), ("a tuned DiT", tuned)),
            "SFT of the VLM": (("triplets", sizes["triplets"]),),
            "SFT of the VDM": (
                *((name, sizes[name]) for name in ("triplets", "latents", "text embeddings", "checkpoints")),
                ("the DiT", tuned),
            ),
            "stage 1": (("latents", p.curate.rl * sizes["latents"] / (2 * triplets)),),
            "stage 2": (("checkpoints", sizes["checkpoints"]), ("the DiT", tuned)),
            "evaluating": (("predictions", p.evaluate.samples * sizes["triplets"] / triplets),),  # clips
        }
        told = next(value for start, value in disk.items() if name.startswith(start))
        held = memory(models, kind, count, how_of(models, kind)).total
        yield Takes(name, held, step, found.steps, found.hours(gpu, count, fraction), told)
