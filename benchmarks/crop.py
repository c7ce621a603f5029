"""Does CLIP see a whole picture squashed to its square, or its middle? What that changes in CLIP-V and CLIP-T.

    python benchmarks/crop.py --root DIR    # triplets, predictions and models/base/clip of a finished run; only read

CLIP's usual preprocessing scales the shorter side and crops the middle: of 352 x 640 that is 55 % of the width. Here
frames are squashed, so that all of the picture counts. The toy world's pictures are square, so each is taken for one of
352 x 640 that was squashed: cropped is then the middle 55 % of its columns, stretched to the square.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import interpolate

from vans.answer.predictions import open_folder
from vans.data.batches import clips_of, held_out
from vans.data.triplets import Triplets
from vans.models.clip import load_clip
from vans.params import load
from vans.similarity import clip_score, frame_similarity
from vans.visible import terminal

SHARE = 352 / 640


def cropped(clips: Tensor) -> Tensor:
    """The middle of the width, stretched back: uint8 [N, T, H, W, 3]."""
    n, t, high, wide, _ = clips.shape
    kept = round(SHARE * wide)
    first = (wide - kept) // 2
    frames = clips[:, :, :, first : first + kept].flatten(0, 1).permute(0, 3, 1, 2).float()
    out = interpolate(frames, size=(high, wide), mode="bicubic", antialias=True, align_corners=False)
    return out.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).unflatten(0, (n, t))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(), help="a finished run (the current folder)")
    parser.add_argument("--arms", nargs="+", default=["copy", "sft", "stage1", "main", "ceiling"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    params, triplets = load(given.root.resolve()), Triplets(given.root / "triplets")
    ids = held_out(triplets, params.evaluate.samples)
    clip, targets = load_clip(params, given.root / "models/base"), clips_of(triplets, ids, "target")
    text = clip.text([triplets.row(i)["caption"] for i in ids])
    true = {"squashed": clip.image(targets), "cropped": clip.image(cropped(targets))}
    print("| arm | CLIP-V squashed | cropped | rank correlation | CLIP-T squashed | cropped | rank correlation |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for arm in given.arms:
        shape = (params.video.frames, params.video.height, params.video.width)
        videos = torch.from_numpy(open_folder(given.root / "predictions" / arm, ids).clips(ids, shape)[0])
        seen = {"squashed": clip.image(videos), "cropped": clip.image(cropped(videos))}
        cells = []
        for score in (
            {how: frame_similarity(features, true[how]) for how, features in seen.items()},
            {how: clip_score(features, text) for how, features in seen.items()},
        ):
            rank = stats.spearmanr(score["squashed"], score["cropped"]).statistic
            cells += [*(f"{values.mean():.3f}" for values in score.values()), f"{rank:.2f}"]
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
