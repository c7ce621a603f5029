"""What the GRPO stages have in common beside their policies: the RL subset, the reward terms, CLIP, rendering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vans.data.batches import batch_ids
from vans.data.triplets import Triplets
from vans.grpo import core
from vans.grpo.rollout import initial_noise, render_captions
from vans.meter import timer
from vans.models.clip import load_clip
from vans.models.vdm import VDM
from vans.parallel import Ranks
from vans.rewards.plugs import Plug, Scored, score
from vans.rewards.rollout import Rollout
from vans.template import parse_answer
from vans.train.feed import latents


class Rollouts:
    """The RL triplets as one rank sees them, with what turns answers into rollouts.

    name: of the stage, for its random numbers. vdm: what renders (None: no term looks at videos).
    """

    def __init__(self, params: Any, root: Path, name: str, vdm: VDM | None, ranks: Ranks):
        self.params, self.name, self.vdm, self.ranks = params, name, vdm, ranks
        self.triplets = Triplets(root / "triplets")
        self.ids = self.triplets.select(split="train", rl=True)
        self.clip = None
        if vdm is not None:
            v = params.video
            self.clip = load_clip(params, root / "models/base", ranks.device)
            self.latents = latents(root, vdm, self.triplets, self.ids, "input", ranks)
            self.size = (v.frames, v.height, v.width)
            self.shape = vdm.latent_shape(*self.size)  # C, T', H', W'
            with torch.no_grad():
                self.negative = vdm.embed([vdm.negative_prompt])  # [1, L, D]

    def batch(self, step: int, prompts: int) -> tuple[list[str], tuple]:
        """This rank's part of a step's ids, and the keys of the step's random numbers."""
        keys = (self.params.seed, self.params.train_seed, self.name)
        return self.ranks.share(batch_ids(self.ids, step, prompts, *keys)), (*keys, step)

    def reference(self, ids: list[str]) -> Tensor:
        """Reference latents of these input clips: [P, C, n, H', W']."""
        assert self.vdm is not None
        return self.vdm.pick_references(self.latents[ids].to(self.ranks.device))

    def noise(self, ids: list[str], group_size: int, share: bool, keys: tuple) -> Tensor:
        """Initial noise of G videos of each, shared by a group or not: [P * G, C, T', H', W']."""
        return initial_noise(self.shape, ids, group_size, share, *keys)

    def render(
        self, ids: list[str], captions: list[list[str | None]], s: Any, keys: tuple, rows: list[int] | None = None
    ) -> Tensor | None:
        """Videos of captions [P][G] by the ODE, uint8 [P, G, T, H, W, 3]; None where no term looks at videos.

        rows: places of the captions among the P * G' candidates (`extremes`); None: all candidates, with explore_steps
        where s.explore_size says that some will be chosen.
        """
        if self.vdm is None:
            return None
        noises = self.noise(ids, s.explore_size or s.group_size, s.share_noise, keys)  # [P * G', C, T', H', W']
        return render_captions(
            self.vdm,
            captions,
            self.reference(ids),
            noises if rows is None else noises[rows],
            self.negative,
            size=self.size,
            steps=s.explore_steps if s.explore_size and rows is None else s.render_steps,
            guidance=s.guidance,
            distinct=s.render_distinct,
            interval=(s.guidance_start, s.guidance_stop),
        )

    def extremes(self, rollout: Rollout, terms: list[Plug], count: int) -> list[int]:
        """Of each prompt's G' candidates the `count` with the most extreme rewards, as rows of P * G'."""
        with timer("reward"):
            scores = score(rollout, terms)  # total [P, G']
        best = core.extremes(scores.total, scores.kept, count)  # [P, G]
        return (best + torch.arange(len(best))[:, None] * scores.total.shape[1]).flatten().tolist()

    def of(
        self, ids: list[str], answers: list[list[str]], captions: list, videos: Tensor | None, keys: tuple
    ) -> Rollout:
        """What the reward terms look at: see `vans.rewards.rollout.Rollout`."""
        rows = [self.triplets.row(i) for i in ids]
        questions, truth = [r["question"] for r in rows], [r["caption"] for r in rows]
        return Rollout(
            ids,
            questions,
            truth,
            answers,
            captions,
            videos,
            triplets=self.triplets,
            clip=self.clip,
            fps=self.params.video.fps,
            seed=keys,
        )


def grouped(texts: list[str], group_size: int) -> list[list[str]]:
    """N = P * G texts -> P lists of G."""
    return [texts[i : i + group_size] for i in range(0, len(texts), group_size)]


def captions_of(answers: list[list[str]]) -> list[list[str | None]]:
    """The caption of each answer [P][G]; None where the template is broken."""
    return [[parse_answer(text)[1] for text in row] for row in answers]


def record_of(rollout: Rollout, scores: Scored, advantages: Tensor) -> dict:
    """The first group of a rollout, for the pictures: ids and texts, each term, the total and the advantages [G]."""
    return {
        "id": rollout.ids[0],
        "question": rollout.questions[0],
        "truth": rollout.truth[0],
        "texts": rollout.answers[0],
        "captions": rollout.captions[0],
        "terms": {name: values[0].nan_to_num().tolist() for name, values in scores.terms.items()},
        "total": scores.total[0].tolist(),
        "advantages": advantages[0].tolist(),
    }
