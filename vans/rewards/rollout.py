"""What a reward may look at, and how a term says what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Score = Tensor | Sequence[Sequence[float | None]]
Term = Callable[["Rollout"], Score]


def term(needs: str = "text") -> Callable[[Term], Term]:
    """Marks a function as a reward term. needs: "text" (answers and captions), or "video" (they are rendered first)."""
    if needs not in ("text", "video"):
        raise ValueError(f"needs must be text or video, got {needs!r}")

    def mark(function: Term) -> Term:
        setattr(function, "needs", needs)  # noqa: B010
        return function

    return mark


class Rollout:
    """P prompts with G answers each. Everything that costs anything is computed when it is first asked for.

    ids, questions, truth: P strings (truth: the ground-truth captions). answers: P lists of G whole texts of the VLM
    (at stage 2 the anchor's text, G times). captions: P lists of G; None where an answer breaks the template. videos:
    uint8 [P, G, T, H, W, 3], zeros where nothing was rendered; None where no term needs them. rendered: bool [P, G].
    triplets: gives the clips by id. fps: of all clips. clip: the CLIP model behind the features. seed: names the
    rollout, for terms that draw.
    """

    def __init__(
        self,
        ids: Sequence[str],
        questions: Sequence[str],
        truth: Sequence[str],
        answers: Sequence[Sequence[str]],
        captions: Sequence[Sequence[str | None]],
        videos: Tensor | None = None,
        *,
        triplets: Any = None,
        clip: Any = None,
        fps: float = 10.0,
        seed: tuple = (),
    ):
        self.ids, self.questions, self.truth = list(ids), list(questions), list(truth)
        self.answers, self.captions = [list(a) for a in answers], [list(c) for c in captions]
        self._videos, self._triplets, self._clip = videos, triplets, clip
        self.fps, self.seed = fps, seed
        self.shape = (len(self.ids), len(self.captions[0]) if self.captions else 0)  # P, G
        self.rendered = torch.tensor([[c is not None for c in row] for row in self.captions])

    @property
    def has_videos(self) -> bool:
        return self._videos is not None

    @property
    def videos(self) -> Tensor:
        """uint8 [P, G, T, H, W, 3]. Raises ValueError where nothing was rendered."""
        if self._videos is None:
            raise ValueError('there are no videos: only terms marked @term(needs="video") may look at them')
        return self._videos

    @cached_property
    def inputs(self) -> Tensor:
        """The clips that were asked about: uint8 [P, T, H, W, 3]."""
        return torch.from_numpy(self._triplets.clips(self.ids, "input"))

    @cached_property
    def targets(self) -> Tensor:
        """The true next clips: uint8 [P, T, H, W, 3]."""
        return torch.from_numpy(self._triplets.clips(self.ids, "target"))

    # CLIP features, unit length
    @cached_property
    def video_features(self) -> Tensor:
        """[P, G, T, D], of every frame of every video."""
        return self._clip.image(self.videos.flatten(0, 1)).unflatten(0, self.shape)

    @cached_property
    def target_features(self) -> Tensor:
        """[P, T, D], of every frame of the true clips."""
        return self._clip.image(self.targets)

    @cached_property
    def caption_features(self) -> Tensor:
        """[P, G, D], of the captions that the videos were rendered from (of "" where there is none)."""
        flat = [caption or "" for row in self.captions for caption in row]
        distinct = list(dict.fromkeys(flat))
        features = self._clip.text(distinct)
        return features[[distinct.index(caption) for caption in flat]].unflatten(0, self.shape)

    @cached_property
    def truth_features(self) -> Tensor:
        """[P, D], of the ground-truth captions."""
        return self._clip.text(self.truth)

    def where_rendered(self, values: Tensor) -> Tensor:
        """The values [P, G] with 0 for answers without a caption: they earn nothing that a video can earn."""
        return values.masked_fill(~self.rendered.to(values.device), 0.0)
