"""What a metric may look at: a batch of answered questions with their ground truth."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch


class Batch:
    """N answers beside the truth. What costs anything is computed when it is first asked for, and once.

    ids, questions, captions, truth: N strings (truth: the ground-truth captions; captions: None where a system writes
    none). answers: N whole texts of the VLM, or None where there are none. videos: uint8 [N, T, H, W, 3], or None of a
    system that answers in words; so are targets (the true next clips) and inputs (the clips that were asked about),
    which ``triplets`` gives where they are not given. clip, detector: the models behind the features. toy: is it the
    toy world, which the oracle can read?
    """

    def __init__(
        self,
        ids: Sequence[str],
        captions: Sequence[str] | None,
        truth: Sequence[str],
        videos: np.ndarray | None = None,
        *,
        questions: Sequence[str] = (),
        answers: Sequence[str] | None = None,
        targets: np.ndarray | None = None,
        inputs: np.ndarray | None = None,
        triplets: Any = None,
        clip: Any = None,
        detector: Any = None,
        toy: bool = False,
    ):
        self.ids, self.truth = list(ids), list(truth)
        self.captions: Any = None if captions is None else list(captions)
        self.questions, self.answers, self.toy = list(questions), answers, toy
        self.videos: Any = videos
        self._triplets, self._clip, self._detector = triplets, clip, detector
        for name, clips in (("targets", targets), ("inputs", inputs)):
            if clips is not None:
                self.__dict__[name] = clips

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def targets(self) -> np.ndarray:
        return clips_of(self._triplets.clips(self.ids, "target"))

    @cached_property
    def inputs(self) -> np.ndarray:
        return clips_of(self._triplets.clips(self.ids, "input"))

    # CLIP features, unit length
    @cached_property
    def video_features(self) -> torch.Tensor:
        """[N, T, D], of every frame of every video."""
        return self._clip.image(torch.from_numpy(self.videos))

    @cached_property
    def target_features(self) -> torch.Tensor:
        """[N, T, D], of every frame of the true clips."""
        return self._clip.image(torch.from_numpy(self.targets))

    @cached_property
    def caption_features(self) -> torch.Tensor:
        """[N, D]"""
        return self._clip.text(self.captions)

    @cached_property
    def truth_features(self) -> torch.Tensor:
        """[N, D], of the ground-truth captions."""
        return self._clip.text(self.truth)

    def detector_features(self, clips: np.ndarray) -> np.ndarray:
        """[N, D], of clips uint8 [N, T, H, W, 3]: what FVD compares."""
        return numpy(self._detector.features(torch.from_numpy(clips)))


def clips_of(clips: Any) -> np.ndarray:
    """Clips as a contiguous uint8 array [N, T, H, W, 3], from numpy or torch."""
    return np.ascontiguousarray(numpy(clips), dtype=np.uint8)


def numpy(values: Any) -> np.ndarray:
    """A numpy array from numpy or torch."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
