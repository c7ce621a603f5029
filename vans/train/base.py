"""The models that everything starts from. Scale paper: loaded from the hub, nothing to train. Scale tiny: the same
architectures trained from scratch on the curated training clips, which stand in for the web that the real ones saw.

1. VAE: reconstruction of the clips.  2. CLIP: frames and descriptions, contrastive.  3. Detector for FVD: a classifier.
4. VDM (text encoder and DiT): text-to-video by flow matching, without reference latents.  5. VLM: describes videos, and
knows the language and the answer's template, but none of the world's rules: those are left to SFT.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from vans import files
from vans.data.batches import batch_ids, clips_of
from vans.data.corpus import Corpus
from vans.data.triplets import Triplets
from vans.models.clip import CLIP
from vans.models.detector import ToyDetector
from vans.models.load import vdm_options, vlm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM, to_model
from vans.models.vlm import VLM
from vans.parallel import Ranks, launch
from vans.preflight import preflight
from vans.rng import generator, noise, numpy_generator, seed_of
from vans.sharding import update
from vans.template import TAGS
from vans.train.feed import latents
from vans.train.flow import flow_matching_loss, training_sigmas
from vans.train.loop import columns, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.runs import Run
from vans.train.settings import settings_of

OUT, CURVES = "models/base", "curves/base"
PARTS = ("vae", "clip", "detector", "vdm", "vlm")
# The parameters that each uses beside the seed; the VDM is built around the VAE.
KEYS = {
    "vae": ("base.vae", "models.vdm"),
    "clip": ("base.clip", "models.clip"),
    "detector": ("base.detector", "models.detector", "-models.detector.sha256"),
    "vdm": ("base.vae", "base.vdm", "base.drop_caption", "models.vdm"),
    "vlm": ("base.vlm", "models.vlm"),
}


def train(params: Any, root: Path) -> list[dict]:
    """Train (or refer to) all base models below models/base, and write the curves.

    Returns the history with part/... columns, a dict a step.
    """
    scratch = []
    vlm, vdm, clip = params.models.vlm, params.models.vdm, params.models.clip
    models = {"vae": vdm, "clip": clip, "detector": params.models.detector, "vdm": vdm, "vlm": vlm}
    preflight(params, root, "base", [f"{OUT}/{part}" for part in ("vlm", "vdm", "clip") if models[part].repo])
    with files.atomic_dir(root / OUT) as partial:
        for part in PARTS:
            model = models[part]
            if getattr(model, "repo", None) or getattr(model, "path", None):
                record = {"repo": getattr(model, "repo", None), "revision": getattr(model, "revision", None)}
                (partial / f"{part}.json").write_text(json.dumps(record) + "\n")
            else:
                scratch.append(part)
        job = {"root": str(root), "out": str(partial), "parts": scratch}
        histories = launch("vans.train.base:train_parts", params.machine, params=params, **job) if scratch else {}
        shutil.rmtree(partial / "vae", ignore_errors=True)  # it stands in vdm/ now
    history = columns(histories)
    write_curves(root / CURVES, history)
    return history


def train_parts(ranks: Ranks, params: Any, root: str, out: str, parts: list[str]) -> dict[str, list[dict]]:
    trainers = {"vae": train_vae, "clip": train_clip, "detector": train_detector, "vdm": train_vdm, "vlm": train_vlm}
    return {part: trainers[part](ranks, params, root, out) for part in parts}


class Part:
    """One part's training: its model, the optimiser, the run, and the batches of each rank."""

    def __init__(self, ranks: Ranks, params: Any, root: str, out: str, part: str, build):
        self.ranks, self.params, self.part, self.root, self.out = ranks, params, part, root, Path(out)
        self.triplets = Triplets(Path(root) / "triplets")
        self.corpus = Corpus(self.triplets)
        self.settings = s = getattr(params.base, part)
        used = settings_of(params, Path(root), ranks, "vans/train/base.py", ("seed", *KEYS[part]))
        self.run = Run(root, f"base/{part}", used, ranks, params.keep.checkpoints.base)
        if self.run.done:
            return
        self.model, modules = build(self)
        for module in modules.values():
            module.to(ranks.device).train().requires_grad_(True)
        self.trained = [p for m in modules.values() for p in m.parameters()]
        self.optim = optimizer(modules.values(), s.optimizer, s.lr, s.adam_lr)
        self.run.attach(modules, {part: self.optim})

    def steps(self):
        """Each step with this rank's part of the batch; the learning rate is set."""
        s = self.settings
        for step in self.run.steps(s.steps):
            set_lr(self.optim, schedule(step, s.steps, s.warmup, s.decay))
            whole = batch_ids(self.corpus.ids, step, s.batch, self.params.seed, "base", self.part)
            yield step, self.ranks.share(whole)

    def update(self, step: int, loss: torch.Tensor, **values) -> None:
        """One optimiser step from this rank's mean loss."""
        self.optim.zero_grad()
        loss.backward()
        norm = update(self.optim, self.trained, self.ranks, self.settings.grad_clip)
        self.run.log(step, loss=loss.item(), **values, grad_norm=norm.item())

    def take(self) -> list[dict]:
        """The result of a run that had finished already."""
        return self.run.take(self.out / self.part)

    def finish(self, save) -> list[dict]:
        """Keep the finished part until the stage is whole."""
        return self.run.finish(self.out / self.part, save)


# ---------------------------------------------------------------------------------------------- 1. VAE
def _fresh_vdm(part: Part) -> VDM:
    params = part.params
    tokenizer = text_tokenizer(part.corpus.vocabulary())
    seed = seed_of(params.seed, "base", "vdm") % 2**31
    return VDM.scratch(params.models.vdm.config, tokenizer, seed, **vdm_options(params))


def train_vae(ranks: Ranks, params: Any, root: str, out: str) -> list[dict]:
    """L1 + 2 MSE, saturated (object) pixels weighted; every fourth step on whole clips, else on five frames (the
    causal VAE's first chunk and one more), which costs less than half."""

    def build(part):
        vdm = _fresh_vdm(part)
        return vdm, {"vae": vdm.vae}

    part = Part(ranks, params, root, out, "vae", build)
    if part.run.done:
        return part.take()
    vdm = part.model
    for step, ids in part.steps():
        clips = clips_of(part.triplets, ids, "target" if step % 2 else "input")  # [B, T, H, W, 3]
        x = to_model(clips.to(ranks.device))  # [B, 3, T, H, W]
        if step % 4 != 3 and x.shape[2] > 5:
            start = int(numpy_generator(part.params.seed, "vae", step).integers(0, x.shape[2] - 4))
            x = x[:, :, start : start + 5]  # [B, 3, 5, H, W]
        z = vdm.vae.encode(x).latent_dist.mode()  # [B, C, T', H', W']
        error = vdm.vae.decode(z).sample - x  # like x
        weight = 1.0 + 3.0 * (x.amax(1, keepdim=True) - x.amin(1, keepdim=True) > 0.5).float()  # [B, 1, T, H, W]
        loss = ((error.abs() + 2 * error.square()) * weight).mean() + 1e-4 * z.square().mean()  # []
        part.update(step, loss, psnr=-10 * torch.log10(error.detach().square().mean() / 4).item())

    def save(folder):
        vdm.frozen()
        sample = clips_of(part.triplets, part.corpus.ids[:256], "target")
        z = torch.cat([vdm.vae.encode(to_model(c.to(ranks.device))).latent_dist.mode() for c in sample.split(32)])
        mean, std = z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4))
        vdm.vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
        vdm.save(folder)

    with torch.no_grad():
        return part.finish(save)


# ---------------------------------------------------------------------------------------------- 2. CLIP
def train_clip(ranks: Ranks, params: Any, root: str, out: str) -> list[dict]:
    """Symmetric contrastive loss over the whole batch (features of other ranks included, without gradient); texts
    that are the same are all positives. An image is one frame, most often one that shows what the text says: of the
    mean of several, rest and event would look alike, and CLIPScore would not see that a video stands still."""

    def build(part):
        params = part.params
        tokenizer = text_tokenizer(part.corpus.vocabulary())
        clip = CLIP.scratch(params.models.clip.config, tokenizer, seed_of(params.seed, "base", "clip") % 2**31)
        return clip, {"clip": clip.model}

    part = Part(ranks, params, root, out, "clip", build)
    if part.run.done:
        return part.take()
    clip = part.model
    for step, ids in part.steps():
        draw = numpy_generator(part.params.seed, "clip", step, ranks.rank)
        which = "target" if step % 2 else "input"
        clips = clips_of(part.triplets, ids, which)  # [B, T, H, W, 3]
        said = [part.corpus.moment(id, which, c.numpy(), draw) for id, c in zip(ids, clips, strict=True)]
        texts = [text for _, text in said]
        frames = torch.stack([c[t : t + 1] for c, (t, _) in zip(clips, said, strict=True)])  # [B, 1, H, W, 3]
        image = clip.image_features(frames)[:, 0]  # [B, D]
        text = clip.text_features(texts)  # [B, D]
        others = ranks.gather((image.detach().cpu(), text.detach().cpu(), texts))
        images = torch.cat([image if r == ranks.rank else o[0].to(image) for r, o in enumerate(others)])  # [N, D]
        words = torch.cat([text if r == ranks.rank else o[1].to(text) for r, o in enumerate(others)])  # [N, D]
        every = [t for o in others for t in o[2]]
        same = torch.tensor([[a == b for b in every] for a in texts], device=image.device).float()  # [B, N]
        target = same / same.sum(1, keepdim=True)  # [B, N]
        scale = clip.model.logit_scale.exp()
        loss = cross_entropy(scale * image @ words.T, target) + cross_entropy(scale * text @ images.T, target)
        part.update(step, loss)
        with torch.no_grad():
            clip.model.logit_scale.clamp_(max=float(np.log(100)))
    clip.frozen()
    return part.finish(clip.save)


# ---------------------------------------------------------------------------------------------- 3. detector
def train_detector(ranks: Ranks, params: Any, root: str, out: str) -> list[dict]:
    """Cross-entropy on what a clip's annotated sentence and its colour are: features that know event and identity."""

    def build(part):
        torch.manual_seed(seed_of(part.params.seed, "base", "detector") % 2**31)
        detector = ToyDetector(len(part.corpus.classes), **part.params.models.detector.config)
        return detector, {"detector": detector}

    part = Part(ranks, params, root, out, "detector", build)
    if part.run.done:
        return part.take()
    for step, ids in part.steps():
        which = "target" if step % 2 else "input"
        labels = torch.tensor([part.corpus.class_of(id, which) for id in ids], device=ranks.device)  # [B]
        logits = part.model(clips_of(part.triplets, ids, which))  # [B, classes]
        loss = cross_entropy(logits, labels)
        part.update(step, loss, accuracy=(logits.argmax(1) == labels).float().mean().item())
    part.model.eval().requires_grad_(False)
    return part.finish(part.model.save)


# ---------------------------------------------------------------------------------------------- 4. VDM
def train_vdm(ranks: Ranks, params: Any, root: str, out: str) -> list[dict]:
    """Text-to-video flow matching; the text encoder learns with the DiT (there is no pretrained one at this size).

    Its texts come from a captioner with fewer words than CLIP and the VLM have read: one for each event.
    """

    def build(part):
        vdm = VDM.load(part.out / "vae", **vdm_options(part.params)).to(ranks.device)
        return vdm, {"dit": vdm.dit, "text_encoder": vdm.text_encoder}

    part = Part(ranks, params, root, out, "vdm", build)
    if part.run.done:
        return part.take()
    vdm = part.model
    store = {
        which: latents(Path(root), vdm, part.triplets, part.corpus.ids, which, ranks) for which in ("input", "target")
    }
    for step, ids in part.steps():
        which = "target" if step % 2 else "input"
        x = store[which][ids].to(ranks.device)  # [B, C, T', H', W']
        draws = [numpy_generator(params.seed, "t2v", step, id) for id in ids]
        texts = [part.corpus.describe(id, which, draw, other=0.0) for id, draw in zip(ids, draws, strict=True)]
        texts = ["" if draw.random() < params.base.drop_caption else t for draw, t in zip(draws, texts, strict=True)]
        levels = training_sigmas(part.settings.batch, vdm.shift, generator(params.seed, "t2v", step)).tolist()
        eps = noise(tuple(x.shape[1:]), ids, params.seed, "t2v", step)  # [B, C, T', H', W']
        loss = flow_matching_loss(vdm, x, eps, vdm.embed(texts), None, torch.tensor(ranks.share(levels)))
        part.update(step, loss)
    vdm.frozen()
    return part.finish(vdm.save)


# ---------------------------------------------------------------------------------------------- 5. VLM
def train_vlm(ranks: Ranks, params: Any, root: str, out: str) -> list[dict]:
    """Cross-entropy on answers to `describe the video .` and on sentences of the language with made-up content."""

    def build(part):
        params = part.params
        tokenizer = chat_tokenizer(part.corpus.vocabulary())
        seed = seed_of(params.seed, "base", "vlm") % 2**31
        vlm = VLM.scratch(params.models.vlm.config, tokenizer, seed, **vlm_options(params))
        return vlm, {"vlm": vlm.model}

    part = Part(ranks, params, root, out, "vlm", build)
    if part.run.done:
        return part.take()
    vlm = part.model
    for step, ids in part.steps():
        which = "target" if step % 2 else "input"
        draws = [numpy_generator(part.params.seed, "vlm", step, id) for id in ids]
        pairs = [part.corpus.exercise(id, which, draw, TAGS) for id, draw in zip(ids, draws, strict=True)]
        clips = clips_of(part.triplets, ids, which)  # [B, T, H, W, 3]
        inputs = vlm.inputs(clips, [q for q, _ in pairs], part.triplets.rates(ids, which, clips.shape[1]))
        answers = vlm.encode_answers([a for _, a in pairs])  # [B, L]
        tokens = sum(ranks.gather(answers.mask.sum().item())) / ranks.size
        loss = -vlm.log_probs(inputs, answers, suppress=False).sum() / tokens
        part.update(step, loss)
    vlm.frozen()
    return part.finish(vlm.save)
