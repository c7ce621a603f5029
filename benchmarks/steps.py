"""A training step of each kind, beside another revision and beside plain library code, at a size between toy and paper.

    python benchmarks/steps.py --against d42d2bd [--repeats 3] [--only update,sample]

Makes a worktree of that revision, starts a process in either tree (one thread each, one of them working at a time),
asks both for each part in turns and prints the ratio of the medians on a line of its own. VLM of 6 layers x 256 with a
tower of 8 x 160 on a clip of 9 x 168 x 308, G = 8 answers of 32 to 48 tokens, activations recomputed; DiT of 6 x 256,
guidance, 6 steps. The last line sets stage 1 beside transformers and peft as their manuals use them: answers sampled
one by one, each with a prompt of its own in the update, the tower within it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WORDS = [f"w{i}" for i in range(300)]
QUESTION = " ".join(WORDS[:6])
G, LONGEST, CLIP = 8, 48, (9, 168, 308)
VLM_SIZE: dict[str, Any] = {
    "text_config": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
    },
    "vision_config": {
        "depth": 8,
        "hidden_size": 160,
        "intermediate_size": 320,
        "num_heads": 5,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [3, 7],
        "tokens_per_second": 2,
    },
}
VDM_SIZE: dict[str, Any] = {
    "vae": {
        "base_dim": 8,
        "z_dim": 16,
        "dim_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_scales": [],
        "temperal_downsample": [True],
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
        "scale_factor_temporal": 2,
        "scale_factor_spatial": 4,
    },
    "text_encoder": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0},
    "dit": {
        "patch_size": [1, 2, 2],
        "num_attention_heads": 8,
        "attention_head_dim": 32,
        "in_channels": 16,
        "out_channels": 16,
        "freq_dim": 64,
        "ffn_dim": 1024,
        "num_layers": 6,
        "rope_max_seq_len": 64,
    },
}
SETTINGS = {
    "group": G,
    "group_size": G,
    "micro_batch": G,
    "clip": 0.2,
    "clip_range": 0.2,
    "beta": 0.01,
    "inner_updates": 2,
    "grad_clip": 1.0,
    "temperature": 1.0,
    "render_steps": 6,
    "train_steps": 0,
    "noise_level": 0.7,
    "guidance": 5.0,
    "guidance_start": 0.0,
    "guidance_stop": 1.0,
    "guidance_grad": "conditional",
}


class Alone:
    """In the place of the ranks of a run."""

    def average_gradients(self, trained: Any) -> None:
        pass


class Steps:
    """The parts, by the code of the tree in which this process runs (of either revision)."""

    def __init__(self) -> None:
        import torch

        from vans.models.tokenizer import chat_tokenizer
        from vans.models.vlm import VLM, Completions

        self.torch, self.s = torch, SimpleNamespace(**SETTINGS)
        self.vlm = VLM.scratch(VLM_SIZE, chat_tokenizer(WORDS), 0)
        self.vlm.add_lora(8, 32, 0)
        self.trained = [p for n, p in self.vlm.model.named_parameters() if "lora_" in n]
        for p in self.trained:
            p.requires_grad_(True)
        self.vlm.checkpoint_activations()
        draw = torch.Generator().manual_seed(0)
        self.clips = torch.randint(0, 256, (1, *CLIP, 3), generator=draw, dtype=torch.uint8)
        lengths = torch.randint(32, LONGEST + 1, (G,), generator=draw)
        ids = torch.randint(20, 300, (G, LONGEST), generator=draw)
        mask = (torch.arange(LONGEST) < lengths[:, None]).long()
        self.answers = Completions(ids, mask, [""] * G)
        if hasattr(self.answers, "drawn"):
            self.answers.drawn = torch.zeros(G, LONGEST)
        self.advantages = torch.linspace(-1, 1, G)
        self.optim = torch.optim.AdamW(self.trained, lr=1e-5)
        self.vdm: Any = None

    def inputs(self) -> Any:
        """One prompt as a step meets it: with its clip's features where the revision shares them."""
        inputs = self.vlm.inputs(self.clips, [QUESTION], 3.0)
        return self.vlm.see(inputs) if hasattr(self.vlm, "see") else inputs

    def drawn(self, inputs: Any) -> Any:
        seeds = [("bench", g) for g in range(G)]
        return self.vlm.sample(inputs, seeds=seeds, max_new_tokens=40, temperature=1.0)

    def updated(self, inputs: Any) -> None:
        try:
            from vans.grpo.rollout import WithTensors, frozen_copy
            from vans.grpo.tokens import vlm_updates
        except ImportError:
            from vans.train.rollout import WithTensors, frozen_copy  # type: ignore[no-redef]

            from vans.train.stage1 import grpo_updates as vlm_updates  # type: ignore[no-redef]
        start = WithTensors(self.vlm.model, frozen_copy(self.vlm.model))
        told: Any = (self.advantages, self.s, self.optim, self.trained, Alone())
        vlm_updates(self.vlm, start, inputs, self.answers, *told)

    # ------------------------------------------------------------------ the parts
    def update(self) -> float:
        """Two inner updates of stage 1 on a rollout that is there."""
        inputs = self.inputs()
        return timed(lambda: self.updated(inputs))

    def sample(self) -> float:
        """G answers of one prompt."""
        inputs = self.inputs()
        return timed(lambda: self.drawn(inputs))

    def step(self) -> float:
        """Stage 1 without rendering: prompt, samples, two inner updates."""

        def work() -> None:
            inputs = self.inputs()
            self.drawn(inputs)
            self.updated(inputs)

        return timed(work)

    def sft_none(self) -> float:
        """The same, HEAD's without recomputing what fits into memory."""
        return self.sft(layers="none")

    def sft_again(self) -> float:
        """The same on a clip that was met before, whose features HEAD has kept."""
        return self.sft(again=True)

    def sft(self, layers: str = "all", again: bool = False) -> float:
        """A supervised step of the VLM on one sample."""
        answer = type(self.answers)(self.answers.ids[:1], self.answers.mask[:1], [""])
        inputs = self.inputs
        if hasattr(self.vlm, "recomputed"):
            self.vlm.recomputed = layers
        if again and hasattr(self.vlm, "kept"):
            inputs = partial(self.vlm.kept, ("bench",), partial(self.vlm.inputs, self.clips, [QUESTION], 3.0))
            inputs()

        def work() -> None:
            with self.vlm.recomputing():
                logp = self.vlm.log_probs(inputs(), answer, suppress=False)
            (-logp.mean()).backward()
            self.optim.step()
            self.optim.zero_grad()

        seconds = timed(work)
        if hasattr(self.vlm, "recomputed"):
            self.vlm.recomputed = "all"
        return seconds

    def stage2_none(self) -> float:
        """The same, HEAD's without recomputing what fits into memory."""
        return self.stage2("none")

    def stage2(self, layers: str = "all") -> float:
        """Stage 2 without reward: a rollout of G trajectories and two inner updates."""
        torch = self.torch
        if self.vdm is None:
            from vans.models.tokenizer import text_tokenizer
            from vans.models.vdm import VDM

            options = {"references": 3, "shift": 3.0, "max_text": 24, "negative_prompt": ""}
            self.vdm = VDM.scratch(VDM_SIZE, text_tokenizer(WORDS), 0, **options)
            self.vdm.dit.requires_grad_(True)
        if hasattr(self.vdm, "checkpoint_activations"):
            self.vdm.dit.disable_gradient_checkpointing()
            self.vdm.checkpoint_activations(layers)
        else:
            self.vdm.dit.enable_gradient_checkpointing()
        vdm, s = self.vdm, SimpleNamespace(**{**SETTINGS, "micro_batch": 2, "clip": 1e-3, "clip_range": 1e-3})
        trained = list(vdm.dit.parameters())
        optim = torch.optim.AdamW(trained, lr=1e-6)
        text, negative = vdm.embed([QUESTION]).detach().repeat(G, 1, 1), vdm.embed([""]).detach()
        noises = torch.randn(G, 16, 5, 12, 12, generator=torch.Generator().manual_seed(0))
        reference, names = noises[:, :, :3], [f"x/{g}" for g in range(G)]

        def work() -> None:
            try:
                from vans.grpo.denoising import Conditions, sde_rollout, vdm_updates
                from vans.grpo.rollout import WithTensors, frozen_copy

                start = WithTensors(vdm.dit, frozen_copy(vdm.dit))
                given = Conditions(text, reference, negative)
                done = sde_rollout(vdm, given, noises, names, ("bench",), s, start)
                vdm_updates(vdm, done, given, self.advantages, s, optim, trained, Alone(), G)  # type: ignore[arg-type]
            except ImportError:
                from vans.train.rollout import (  # type: ignore[no-redef]
                    WithTensors,
                    frozen_copy,
                    sde_rollout,
                )

                from vans.train.stage2 import grpo_updates

                told = {"steps": s.render_steps, "trained": 0, "eta": s.noise_level, "guidance": s.guidance}
                told |= {"negative": negative, "micro_batch": s.micro_batch}
                told["frozen"] = WithTensors(vdm.dit, frozen_copy(vdm.dit))
                done = sde_rollout(vdm, text, reference, noises, names, ("bench",), **told)
                given = (text, reference, negative, self.advantages, s, optim, trained, Alone(), G)
                grpo_updates(vdm, done, *given)

        return timed(work)

    def plain(self) -> float:
        """Stage 1 without rendering by transformers and peft alone, the tower not differentiated."""
        torch, model = self.torch, self.vlm.model
        whole = self.vlm.inputs(self.clips, [QUESTION], 3.0)

        def logp() -> Any:
            rows = []
            for ids, mask in zip(self.answers.ids, self.answers.mask, strict=True):
                ids = ids[mask.bool()][None]
                full = dict(whole) | {"input_ids": torch.cat([whole["input_ids"], ids], 1)}
                full["attention_mask"] = torch.ones_like(full["input_ids"])
                full["mm_token_type_ids"] = torch.cat([whole["mm_token_type_ids"], torch.zeros_like(ids)], 1)
                out = model(**full).logits[:, -ids.shape[1] - 1 : -1].log_softmax(-1)
                rows.append(out.gather(2, ids[..., None])[..., 0].mean())
            return torch.stack(rows)

        def work() -> None:
            with torch.no_grad():
                for g in range(G):
                    torch.manual_seed(g)
                    model.generate(**whole, do_sample=True, max_new_tokens=40, min_new_tokens=40)
                old = logp()
                with model.disable_adapter():
                    logp()
            for p in self.trained:
                p.requires_grad_(True)
            for _ in range(2):
                with self.vlm.recomputing():
                    (-(logp() - old).exp() * self.advantages).mean().backward()
                self.optim.step()
                self.optim.zero_grad()

        return timed(work)


def timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def serve() -> None:
    """The child: a part's name on each line of standard input, its seconds on each line of standard output."""
    import torch

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    steps = Steps()
    for line in sys.stdin:
        out.write(json.dumps(getattr(steps, line.strip())()) + "\n")
        out.flush()


def child(tree: Path, log: Path) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    with open(log, "w") as file:
        return subprocess.Popen(command, cwd=tree, env=env, text=True, stdin=-1, stdout=-1, stderr=file)


def ask(process: subprocess.Popen, log: Path, part: str) -> float:
    process.stdin.write(part + "\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]
    if not (line := process.stdout.readline()):  # type: ignore[union-attr]
        sys.exit(f"{part}: the process ended\n{log.read_text()[-2000:]}")
    return json.loads(line)


PARTS = {
    "update": "stage-1 update (two inner updates)",
    "step": "stage-1 step without rendering",
    "sft": "SFT step of the VLM",
    "sft_none": "SFT step of the VLM, nothing recomputed in HEAD",
    "sft_again": "SFT step of the VLM, clip met before",
    "sample": "sampling G answers of one prompt",
    "stage2": "stage-2 step",
    "stage2_none": "stage-2 step, nothing recomputed in HEAD",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="d42d2bd", help="revision (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default=",".join([*PARTS, "plain"]), help="parts, by commas (%(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve()
    root, wanted = Path(__file__).resolve().parents[1], given.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        add = ["git", "worktree", "add", "--quiet", "--detach", str(tree), given.against]
        subprocess.run(add, cwd=root, check=True)
        logs = [Path(folder) / name for name in ("before", "after")]
        children = [child(*each) for each in zip((tree, root), logs, strict=True)]
        try:

            def medians(asked: list[tuple[int, str]]) -> list[float]:
                rounds = [[ask(children[i], logs[i], part) for i, part in asked] for _ in range(given.repeats + 1)]
                return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]  # the first is to warm up

            lines = []
            for part, title in PARTS.items():
                if part in wanted:
                    before, after = medians([(0, part), (1, part)])
                    print(f"{title}: {before:.2f} s, {after:.2f} s", flush=True)
                    lines.append(f"{title}, {given.against} / HEAD: {before / after:.2f}")
            if "plain" in wanted:
                before, after = medians([(1, "plain"), (1, "step")])
                print(f"stage 1 by plain libraries: {before:.2f} s, {after:.2f} s", flush=True)
                lines.append(f"stage 1 without rendering, plain transformers and peft / HEAD: {before / after:.2f}")
        finally:
            for each in children:
                each.kill()
                each.wait()
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=root, check=False)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
