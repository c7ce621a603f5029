"""What batching is worth: a group of G videos of one prompt rendered in one batch, and one by one.

    python benchmarks/render_group.py                 # random weights of the current scale's architecture
    python benchmarks/render_group.py --models models/sft

Both ways run in turn in one process, after a warm-up, on the same noise; each time is the median over the
repeats. "rendering" is what a rollout pays: the denoising steps with the scale's guidance, then the VAE's decoder.
Random weights take the same time as trained ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vans import params as parameters
from vans.files import atomic_write_text
from vans.models.load import load_vdm, vdm_options
from vans.models.tokenizer import text_tokenizer
from vans.models.vdm import VDM
from vans.parallel import device_of
from vans.rng import noise
from vans.toy import world
from vans.visible import terminal


def render(vdm: VDM, text: Tensor, reference: Tensor, start: Tensor, steps: int, guidance: float, batch: int) -> Tensor:
    """One group of videos, `batch` at a time: uint8 [G, T, H, W, 3]. start: noise [G, C, T', H', W']."""
    negative = vdm.embed([vdm.negative_prompt])
    latents = vdm.render_latents(text, reference, start, steps, guidance, negative, batch)
    return vdm.decode(latents, batch)


def seconds(call: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Wall-clock time of a call, the device's work included."""
    synchronise(device)
    before = time.perf_counter()
    out = call()
    synchronise(device)
    return time.perf_counter() - before, out


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def compare(vdm: VDM, clip: parameters.Video, group: int, steps: int, guidance: float, repeats: int) -> dict:
    """Median seconds of both ways, their ratio, and the largest difference of a pixel (0 to 255) between them."""
    shape = vdm.latent_shape(clip.frames, clip.height, clip.width)
    start = noise(shape, list(range(group)), "benchmark", "noise")
    seen = noise(shape, [0], "benchmark", "reference")
    reference = vdm.pick_references(seen.to(vdm.device)).expand(group, -1, -1, -1, -1)
    text = vdm.embed(["the ball rolls to the left ."]).expand(group, -1, -1)

    def once(batch: int) -> tuple[float, Tensor]:
        return seconds(lambda: render(vdm, text, reference, start, steps, guidance, batch), vdm.device)

    together, apart = [], []
    for turn in range(repeats + 1):  # the first turn warms up
        (a, in_one), (b, singly) = once(group), once(1)
        if turn:
            together.append(a)
            apart.append(b)
    difference = (in_one.int() - singly.int()).abs().max().item()
    batched, single = statistics.median(together), statistics.median(apart)
    return {
        "group": group,
        "steps": steps,
        "guidance": guidance,
        "repeats": repeats,
        "one_batch_s": round(batched, 4),
        "one_by_one_s": round(single, 4),
        "ratio": round(single / batched, 3),
        "largest_pixel_difference": difference,
    }


def random_vdm(params: parameters.Params) -> VDM:
    """The current scale's architecture with random weights; a scale whose models come from the hub loads them."""
    if params.models.vdm.repo is not None:
        return load_vdm(params, Path("models/base"))
    tokenizer = text_tokenizer(world.vocabulary())
    return VDM.scratch(params.models.vdm.config, tokenizer, seed=0, **vdm_options(params))


def main() -> None:
    parser = argparse.ArgumentParser(description="a group of videos in one batch against one by one")
    parser.add_argument("--models", type=Path, help="folder with vdm/, as models/sft (default: random weights)")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--steps", type=int, help="denoising steps (default: stage1.render_steps)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (default: machine.threads)")
    parser.add_argument("--out", type=Path, help="write the numbers to this file as JSON too")
    given = parser.parse_args()

    root = parameters.find_root()
    params = parameters.load(root)
    torch.set_num_threads(given.threads or params.machine.threads)
    vdm = load_vdm(params, root / "models/base", root / given.models / "vdm") if given.models else random_vdm(params)
    device = device_of(params.machine.device, 0)
    steps = given.steps or params.stage1.render_steps
    found = compare(vdm.to(device), params.video, given.group, steps, params.stage1.guidance, given.repeats)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    found = {"scale": params.scale, "device": where, **found}
    print(f"scale {params.scale}, {where}: {given.group} videos, {steps} steps, median of {given.repeats}")
    print(f"  in one batch  {found['one_batch_s']:8.3f} s")
    print(f"  one by one    {found['one_by_one_s']:8.3f} s")
    print(f"  ratio         {found['ratio']:8.2f} times as fast in one batch")
    print(f"  largest difference of a pixel between the two: {found['largest_pixel_difference']} of 255")
    if given.out:
        atomic_write_text(given.out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
