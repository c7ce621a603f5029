"""The instructions that every CPU with AVX2 has (vans/cpu.py): the bytes that come of them, and what they cost.

    python benchmarks/isa.py bytes                       # a digest of single operations: compare two machines' output
    python benchmarks/isa.py cost --root FOLDER [--turns 2 --steps 4]

bytes: of VANS_ISA=portable, or of the libraries' own choice without it. cost: training steps of the current
scale, portable and native in turns, each in a process of its own of one thread. FOLDER is a repository in which stage 1
has run; it is only read. Printed are medians of a step's processor time, since other work on the machine would count
as theirs, and the ratio portable / native. The first step of each trainer, which loads, is not counted. `weights` is a
digest of the weights after these steps, `video` of a rendered one: a machine of another kind should print the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import vans  # isort: skip (first of all: what it caps is read when NumPy is imported)

import numpy as np
import torch
import torch.nn.functional as F

from vans.answer.arm import render
from vans.data.triplets import Triplets
from vans.grid import Grid
from vans.models.load import load_vdm
from vans.parallel import Ranks
from vans.params import load
from vans.train import sft, stage1, stage2
from vans.train.runs import Run

ALONE = Ranks(0, 1, torch.device("cpu"))
KINDS = ("portable", "native")


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    """float32 in [-2, 2), the same everywhere: integers, scaled by a power of two."""
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(-(2**20), 2**20, shape)
    return torch.from_numpy((drawn / 2**19).astype(np.float32))


def adamw() -> torch.Tensor:
    """Weights after three steps."""
    weights = values(33, 47).requires_grad_()
    optim = torch.optim.AdamW([weights], lr=1e-3)
    for _ in range(3):
        optim.zero_grad()
        weights.sin().sum().backward()
        optim.step()
    return weights.detach()


def operations() -> dict[str, str]:
    """A digest of each operation's result."""
    x, row, query = values(64, 96), values(1003), values(2, 4, 70, 32)
    video, kernel = values(2, 3, 5, 16, 16), values(8, 3, 3, 3, 3, seed=1).requires_grad_()
    F.conv3d(video, kernel).square().sum().backward()
    matrix = values(200, 130).double().numpy()
    draws = torch.Generator().manual_seed(5)
    found = {
        "matmul": values(300, 200) @ values(200, 260, seed=1), "matrix times vector": x @ values(96),
        "bmm": query @ query.mT,
        "conv3d": F.conv3d(video, kernel).detach(), "conv3d, gradient": kernel.grad,
        "attention": F.scaled_dot_product_attention(query, query, query, is_causal=True),
        "softmax": x.softmax(-1), "log_softmax": x.log_softmax(-1), "layer_norm": F.layer_norm(x, (96,)),
        "gelu": F.gelu(row), "exp": row.exp(), "log": row.abs().add(1).log(), "sin": row.sin(), "tanh": row.tanh(),
        "sum": values(100_003).sum(), "cumsum": values(8, 1003).cumsum(1), "AdamW": adamw(),
        "randn": torch.randn(1000, generator=draws), "svd": torch.linalg.svdvals(x), "qr": torch.linalg.qr(x)[0],
        "NumPy matmul": matrix @ matrix.T, "NumPy exp": np.exp(matrix), "NumPy power": np.abs(matrix) ** 0.7,
        "NumPy sum": matrix.sum(), "NumPy eigh": np.linalg.eigvalsh(matrix.T @ matrix),
        "NumPy argsort of ties": np.argsort((matrix.ravel() * 3).astype(int)),
    }  # fmt: skip
    return {name: digest(np.asarray(value)) for name, value in found.items()}


class Enough(Exception):
    """As many steps as asked for."""


def steps_of(train, count: int) -> tuple[list[float], str]:
    """Processor time of each step but the first (s) and a digest of the weights after them."""
    ends, weights, log = [], hashlib.sha256(), Run.log

    def noted(run: Run, step: int, **given) -> None:
        ends.append(time.process_time())
        if len(ends) > count:
            for name, tensor in sorted(run.checkpoints.trainable().items()):
                weights.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
            raise Enough
        log(run, step, **given)

    Run.log = noted  # type: ignore[method-assign]
    try:
        train()
    except Enough:
        pass
    finally:
        Run.log = log  # type: ignore[method-assign]
    return [end - begin for begin, end in pairwise(ends)], weights.hexdigest()[:12]


def measure(root: Path, count: int) -> dict:
    """Seconds of a step and digest, of every trainer and of rendering one video."""
    torch.set_num_threads(1)
    params, grid = load(root), Grid(load(root), root)
    one, two = grid.cell("stage1", "full"), grid.cell("stage2", "main")
    trainers = {
        "SFT, VLM": lambda: sft.train_vlm(ALONE, params, root, root / "out"),
        "SFT, VDM": lambda: sft.train_vdm(ALONE, params, root, root / "out"),
        "stage 1": lambda: stage1.train_vlm(ALONE, params, str(root), str(root / "out"), one.plain()),
        "stage 2": lambda: stage2.train_vdm(ALONE, params, str(root), str(root / "out"), two.plain()),
    }
    found = {}
    for name, train in trainers.items():
        seconds, weights = steps_of(train, count)
        found[name] = (statistics.median(seconds), weights)
    triplets = Triplets(root / "triplets")
    name = triplets.select(split="test")[0]
    vdm = load_vdm(params, root / "models/base", root / "models/sft/vdm")
    clips, captions = torch.from_numpy(triplets.clips([name], "input")), [triplets.row(name)["caption"]]
    times = []
    for _ in range(count):
        began = time.process_time()
        video = render(params, vdm, clips, captions, [name])
        times.append(time.process_time() - began)
    found["render"] = (statistics.median(times), digest(video.numpy()))
    return found


def cost(root: Path, turns: int, count: int) -> None:
    """Portable and native in turns."""
    seen: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for turn in range(turns):
        for kind in KINDS if turn % 2 == 0 else reversed(KINDS):
            with tempfile.TemporaryDirectory(prefix="vans-isa-") as place:
                folder = Path(place)
                for name in ("triplets", "models", "params.yaml", "dvc.yaml"):
                    (folder / name).symlink_to(root / name)
                for name in ("latents", "texts"):
                    if (root / "cache" / name).is_dir():  # what is missing is made in the first step
                        shutil.copytree(root / "cache" / name, folder / "cache" / name)
                command = [sys.executable, __file__, "one", "--root", place, "--steps", str(count)]
                environment = {**os.environ, "VANS_ISA": kind, "OMP_NUM_THREADS": "1"}
                for name in vans.cpu.CAPS | {vans.cpu.NUMPY: ""}:
                    environment.pop(name, None)
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            seen[kind].append(json.loads(done.stdout.splitlines()[-1]))
            print(kind, seen[kind][-1], flush=True)
    print(f"\nmedians of {turns} turns of {count} steps, processor time of a step")
    for name in seen["native"][0]:
        portable, native = (statistics.median(turn[name][0] for turn in seen[kind]) for kind in KINDS)
        digests = {kind: sorted({turn[name][1] for turn in seen[kind]}) for kind in KINDS}
        print(f"{name:<10} {portable:8.3f} / {native:8.3f} s = {portable / native:.2f}   {digests}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bytes", "cost", "one"), help="one: a single turn of cost")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="a repository in which stage 1 has run")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    if given.what == "bytes":
        torch.set_num_threads(1)
        print("\n".join(f"{value}  {name}" for name, value in operations().items()))
    elif given.what == "one":
        print(json.dumps(measure(given.root.resolve(), given.steps)))
    else:
        cost(given.root.resolve(), given.turns, given.steps)


if __name__ == "__main__":
    main()
