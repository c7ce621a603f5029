"""What each approximation of rendering does to a group's ranking: rewards of the same groups, rendered both ways.

    python benchmarks/approximations.py --root DIR      # models and triplets of a finished run; prints Markdown
    python benchmarks/approximations.py --out docs/approximations.md

GRPO sees rewards within a group alone, so what counts is whether an approximation orders a group as the exact render
does: Spearman's and Kendall's rank correlation with it (tau-b), per group, the mean over groups with a 95 % interval
(bootstrap over groups). Groups whose rewards are all equal in one of the two have no order and are left out. The cost
is in passes of the DiT for one video, counted as they happen. DIR is only read.

The VLM and the VDM of SFT answer and render, by the code of the stages; stage 1's groups are the VLM's answers to a
question, stage 2's the noises of one true caption.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vans.data.batches import prompts_of
from vans.files import atomic_write_text
from vans.grpo import core
from vans.grpo.denoising import Conditions, sde_rollout
from vans.models import float8
from vans.models.load import load_vdm, load_vlm
from vans.parallel import Ranks
from vans.params import load
from vans.rewards.plugs import plugs, score
from vans.train.rollouts import Rollouts, captions_of, grouped
from vans.visible import terminal

EXACT, GROUP, CANDIDATES = 50, 8, 16  # denoising steps of the exact render; G; G'
GUIDANCE = 3.0  # of the rows that guide, where the scale's own is 1
PARTS = {"the first half": (0.0, 0.5), "the middle half": (0.25, 0.75), "the last half": (0.5, 1.0), "none": (1.0, 1.0)}
ALONE = Ranks(0, 1, torch.device("cpu"))


@dataclass
class Way:
    """A way to render groups. rewards: [P, G], of all terms and of those that look at videos; passes: for one video."""

    name: str
    passes: float
    rewards: Tensor
    seen: Tensor
    also: dict[str, Tensor] = field(default_factory=dict)


class Bench:
    """Groups of one run's models, rendered in any way."""

    def __init__(self, root: Path, folder: Path, prompts: int, batch: int):
        """root: a finished run. folder: one that may be written to."""
        for name in ("triplets", "models"):
            (folder / name).symlink_to((root / name).resolve())
        self.params, self.folder, self.batch = load(root), folder, batch
        self.vdm = load_vdm(self.params, folder / "models/base", folder / "models/sft/vdm")
        self.rollouts = Rollouts(self.params, folder, "stage1", self.vdm, ALONE)
        self.keys = (0, 0, "approximations")
        self.ids = self.rollouts.ids[:: max(1, len(self.rollouts.ids) // prompts)][:prompts]
        self.calls = 0
        self.vdm.dit.register_forward_pre_hook(self._count, with_kwargs=True)
        self.answers = self._answers()
        truth = [self.rollouts.triplets.row(i)["caption"] for i in self.ids]
        self.true = [[caption] * CANDIDATES for caption in truth]

    def _count(self, _: Any, args: tuple, given: dict) -> None:
        self.calls += given["hidden_states"].shape[0]

    def _answers(self) -> list[list[str]]:
        vlm = load_vlm(self.params, self.folder / "models/base", self.folder / "models/sft/vlm")
        s, texts = self.params.stage1, []
        for some in self._parts():
            sampled = vlm.sample(
                prompts_of(vlm, self.rollouts.triplets, some),
                seeds=[(*self.keys, i, g) for i in some for g in range(CANDIDATES)],
                max_new_tokens=s.max_new_tokens,
                temperature=s.temperature,
                top_p=s.top_p,
            )
            texts += sampled.texts
        return grouped(texts, CANDIDATES)

    def _parts(self) -> Iterator[list[str]]:
        for first in range(0, len(self.ids), self.batch):
            yield self.ids[first : first + self.batch]

    def way(self, name: str, stage: str, render: Callable[[list[str], list], Tensor], group: int) -> Way:
        """Render and score all groups in one way. stage: whose captions and rewards. render: of ids and captions."""
        answers = self.answers if stage == "stage1" else self.true
        terms = plugs(getattr(self.params.rewards, stage)["full"], self.params)
        totals, seen, self.calls, shown = [], [], 0, 0
        for some in self._parts():
            texts = [answers[self.ids.index(i)][:group] for i in some]
            captions = captions_of(texts) if stage == "stage1" else texts
            videos = render(some, captions)
            shown += sum(len({c for c in row if c is not None}) if stage == "stage1" else len(row) for row in captions)
            scores = score(self.rollouts.of(some, texts, captions, videos, self.keys), terms)
            totals.append(scores.total)
            seen.append(torch.stack([p.weight * scores.terms[p.name] for p in terms if p.needs == "video"]).sum(0))
        return Way(name, self.calls / shown, torch.cat(totals), torch.cat(seen))

    def ode(self, name: str, stage: str, steps: int, group: int, **changes: Any) -> Way:
        """By the ODE, as stage 1 renders. changes: of its settings."""
        told = {"group_size": group, "render_steps": steps, "render_distinct": stage == "stage1", **changes}
        s = self.params.stage1.with_(**told)

        def render(ids: list[str], captions: list) -> Tensor:
            videos = self.rollouts.render(ids, captions, s, self.keys)
            assert videos is not None
            return videos

        return self.way(name, stage, render, group)

    def sde(self, name: str, window: int) -> Way:
        """By stage 2's SDE with so many stochastic steps (0: all but the last)."""
        s = self.params.stage2.with_(train_steps=window, group_size=GROUP)

        def render(ids: list[str], captions: list) -> Tensor:
            with torch.no_grad():
                text = self.vdm.embed([caption for row in captions for caption in row])
            repeat = [p for p in range(len(ids)) for _ in range(GROUP)]
            given = Conditions(text, self.rollouts.reference(ids)[repeat], self.rollouts.negative)
            names = [f"{i}/{g}" for i in ids for g in range(GROUP)]
            noises = self.rollouts.noise(ids, GROUP, s.share_noise, self.keys)
            found = sde_rollout(self.vdm, given, noises, names, self.keys, s)
            return self.vdm.decode(found.final).unflatten(0, (len(ids), GROUP))

        return self.way(name, "stage2", render, GROUP)


# ------------------------------------------------------------------------------------------------------ statistics
def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % interval by a percentile bootstrap."""
    data = np.asarray(values)
    if len(data) < 2 or np.ptp(data) == 0:
        return float(data.mean()), float(data.min()), float(data.max())
    ends = stats.bootstrap((data,), np.mean, method="percentile", rng=np.random.default_rng(seed)).confidence_interval
    return float(data.mean()), float(ends.low), float(ends.high)


def correlations(one: Tensor, other: Tensor) -> tuple[list[float], list[float]]:
    """Spearman's and Kendall's of each group [P, G] that has an order in both."""
    rho, tau = [], []
    for a, b in zip(one.numpy(), other.numpy(), strict=True):
        if np.ptp(a) > 1e-6 and np.ptp(b) > 1e-6:
            rho.append(float(stats.spearmanr(a, b).statistic))
            tau.append(float(stats.kendalltau(a, b).statistic))
    return rho, tau


def said(values: Sequence[float]) -> str:
    mean, low, high = interval(values)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def table(exact: Way, ways: Sequence[Way], videos_alone: bool) -> list[str]:
    """A row for each way against the exact one."""
    heads = ["rendered by", "passes a video", "of the exact"]
    heads += ["Spearman", "Kendall", *(["Spearman, video terms alone"] if videos_alone else []), "groups"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for way in ways:
        rho, tau = correlations(exact.rewards, way.rewards)
        cells = [way.name, f"{way.passes:.3g}", f"{way.passes / exact.passes:.0%}", said(rho), said(tau)]
        cells += [said(correlations(exact.seen, way.seen)[0])] if videos_alone else []
        lines.append(f"| {' | '.join([*cells, str(len(rho))])} |")
    return lines


def exploring(exact: Way, ways: Sequence[Way]) -> list[str]:
    """What is won by choosing G of G' by a cheap render: the deviation of the exact rewards that are trained on."""
    heads = ("candidates by", "their passes, of G exact renders", "kept as by exact rewards", "deviation of rewards")
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|"]
    kept = torch.ones_like(exact.rewards, dtype=torch.bool)
    best = core.extremes(exact.rewards, kept, GROUP)

    def row(name: str, cost: str, chosen: Tensor) -> str:
        hits = [len(set(a) & set(b)) / GROUP for a, b in zip(chosen.tolist(), best.tolist(), strict=True)]
        spread = exact.rewards.gather(1, chosen).std(dim=1, correction=0)
        return f"| {name} | {cost} | {said(hits)} | {said(spread.tolist())} |"

    first = torch.arange(GROUP).expand(len(best), -1)
    lines.append(row(f"none: the first {GROUP} of {CANDIDATES}", "0 %", first))
    for way in [*ways, exact]:
        cost = CANDIDATES * way.passes / (GROUP * exact.passes)
        lines.append(row(way.name, f"{cost:.0%}", core.extremes(way.rewards, kept, GROUP)))
    return lines


# ---------------------------------------------------------------------------------------------------------- report
def report(bench: Bench) -> str:
    """The page."""
    p = bench.params
    counts = [20, p.generate.steps, p.stage1.render_steps, 4, 3, 2]
    told = {p.generate.steps: " (as at evaluation)", p.stage1.render_steps: " (as in training)"}
    lines = [HEAD.format(groups=len(bench.ids), scale=p.scale, exact=EXACT, group=GROUP, candidates=CANDIDATES)]
    for stage, title in (("stage1", "Stage 1: answers of a VLM"), ("stage2", "Stage 2: noises of one caption")):
        exact = bench.ode(f"{EXACT} steps", stage, EXACT, CANDIDATES)
        ways = [bench.ode(f"{n} steps{told.get(n, '')}", stage, n, CANDIDATES) for n in dict.fromkeys(counts)]
        lines += [f"\n## {title}\n", f"Fewer steps, groups of {CANDIDATES}, against {EXACT} steps:\n"]
        lines += table(exact, ways, stage == "stage1")
        guided = {"guidance": GUIDANCE}
        whole = bench.ode("all", stage, EXACT, GROUP, **guided)
        few = p.generate.steps
        parts = [bench.ode(f"{few} steps, all guided", stage, few, GROUP, **guided)]
        for name, (start, stop) in PARTS.items():
            ends = {"guidance_start": start, "guidance_stop": stop}
            parts.append(bench.ode(f"{few} steps, guided in {name}", stage, few, GROUP, **guided, **ends))
        lines += [f"\nGuidance {GUIDANCE:g} in a part of the steps, groups of {GROUP}, against {EXACT} guided steps:\n"]
        lines += table(whole, parts, stage == "stage1")
        lines += [f"\nThe best and the worst {GROUP // 2} of {CANDIDATES} candidates (`explore_size`):\n"]
        lines += exploring(exact, [way for way in ways if way.name in ("4 steps", "3 steps", "2 steps")])
    every = bench.sde("all", 0)
    trained = p.stage2.render_steps - 1
    windows = [bench.sde(f"{n} of {trained} steps stochastic and trained", n) for n in (3, 2, 1) if n < trained]
    lines += [f"\nA window of trained steps (`train_steps`), groups of {GROUP}, against all stochastic:\n"]
    lines += [*table(every, windows, False), "", WINDOW]
    exact = bench.ode("", "stage1", p.stage1.render_steps, GROUP)
    float8.lower(bench.vdm.dit)
    low = bench.ode(f"{p.stage1.render_steps} steps in float8", "stage1", p.stage1.render_steps, GROUP)
    lines += [f"\n## float8\n\nAgainst {p.stage1.render_steps} steps in float32:\n"]
    lines += [*table(exact, [low], True), "", FP8]
    return "\n".join(lines) + "\n"


HEAD = """# Approximations of rendering

Written by `python benchmarks/approximations.py --out docs/approximations.md`. All of them are off by default, so that a
run renders exactly: with guidance in every one of its `render_steps`, which are fewer than at evaluation.

| parameter | what it does | off |
|---|---|---|
| `render_steps` of both stages | denoising steps of a rollout | the scale's own |
| `guidance_start`, `guidance_stop` of both stages | guidance in this share of the steps alone | 0.0, 1.0 |
| `explore_size`, `explore_steps` of both stages | more candidates than `group_size` are compared by videos of few \
steps; the best and the worst are rendered as always, scored and trained on | 0 |
| `stage2.train_steps` | only the first so many steps are stochastic and trained on | 0 |
| `stage1.fp8` | the frozen DiT's matrix products in float8, on GPUs from Ada and Hopper on | false |

Scale `{scale}`, models of SFT, {groups} questions of the RL subset, rewards of the preset `full`. Exact is {exact}
steps. Each number is the mean over groups of the rank correlation of a group's rewards with those of the exact render,
with its 95 % interval; *groups*: those with an order in both, of {group} or {candidates} answers. At stage 1 equal
words share a video and tie. What a toy model does says little about another one: measure yours before you switch
one on."""
WINDOW = """The rollouts share all noises with the exact one up to the window's end. The update's cost falls with the
window: `vans plan` counts it."""
FP8 = """By the same code on a CPU, which rounds as a GPU does and adds up in another order. Never run on a GPU: no
speed is claimed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(), help="a finished run (the current folder); only read")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8, help="prompts at once")
    parser.add_argument("--out", type=Path, help="write the page to this file, too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        text = report(Bench(given.root, Path(folder), given.prompts, given.batch))
    print(text, end="")
    if given.out:
        atomic_write_text(given.out, text)


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
