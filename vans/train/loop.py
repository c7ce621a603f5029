"""A resumable training: atomic checkpoints, history, curves. The loops themselves stay plain `for` loops.

    run = Run("stage1/full", fingerprint, group, modules, optimizers, root, every=10)
    for step in run.steps(total):
        …                                   # one visible optimiser step
        run.log(step, loss=…, reward=…)     # and a checkpoint every `every` steps
    history = run.finish()

A checkpoint holds what trains (model and optimiser tensors as safetensors), the position and the history. There is no
random state to keep: all randomness is a function of (seed, stage, step, sample), see `vans.rng`. A run that is killed
at any point goes on from its last checkpoint and ends in the same bytes as one that was not (on CPUs; on a GPU as far
as its kernels are deterministic).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch
from dvclive import Live
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from vans import files
from vans.parallel import Group


def code_digest() -> str:
    """One hash over the library's sources: a half-finished run never goes on under other code."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(package.rglob("*.py"))
    return files.digest({str(p.relative_to(package)): files.sha256_file(p) for p in sources})


def run_fingerprint(settings: dict, ranks: int) -> str:
    """Runs of equal fingerprints end in the same bytes."""
    return files.digest({"settings": settings, "code": code_digest(), "ranks": ranks})


class Run:
    """One training named `name`; its checkpoints stand in runs/<name>/ below `root` until `finish` removes them."""

    def __init__(
        self,
        name: str,
        settings: dict,
        group: Group,
        modules: dict[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        root: Path,
        every: int,
    ):
        self.name, self.group, self.modules, self.optimizers = name, group, modules, optimizers
        self.folder, self.every = root / "runs" / name, every
        self.fingerprint = run_fingerprint(settings, group.size)
        self.history: list[dict] = []
        self.position = 0
        self.bar: tqdm | None = None
        self._resume()

    # ------------------------------------------------------------------ the loop
    def steps(self, total: int) -> Iterator[int]:
        """The steps that are still to do."""
        self.total = total
        if self.group.main:
            self.bar = tqdm(
                total=total, initial=self.position, desc=self.name, file=sys.stdout, mininterval=2, ncols=100
            )
        yield from range(self.position, total)
        if self.bar:
            self.bar.close()

    def log(self, step: int, **values: float | Tensor) -> None:
        """End of a step: note its values, and save if it is time to.

        A number is averaged over the ranks that have it, a tensor over all its elements on all ranks (a rank may have
        fewer prompts than the others, or none).
        """
        mine = {k: v.float().flatten().tolist() if isinstance(v, Tensor) else [float(v)] for k, v in values.items()}
        gathered = self.group.gather(mine)
        names = list(dict.fromkeys(k for g in gathered for k in g))
        every = {k: [x for g in gathered for x in g.get(k, [])] for k in names}
        row = {"step": step, **{k: sum(x) / len(x) for k, x in every.items() if x}}
        self.history.append(row)
        self.position = step + 1
        if self.bar:
            self.bar.set_postfix({k: f"{v:.3g}" for k, v in list(row.items())[1:5]}, refresh=False)
            self.bar.update(1)
        if self.position % self.every == 0 or self.position == self.total:
            self._save()

    def finish(self) -> None:
        """The result is safe elsewhere: drop the checkpoints."""
        if self.group.main:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------ checkpoints
    def _trainable(self) -> dict[str, Tensor]:
        return {
            f"model.{m}.{n}": p
            for m, module in self.modules.items()
            for n, p in module.named_parameters()
            if p.requires_grad
        }

    def _save(self) -> None:
        if self.group.main:
            tensors = {k: p.detach().cpu().contiguous() for k, p in self._trainable().items()}
            for name, optim in self.optimizers.items():
                for index, state in optim.state_dict()["state"].items():
                    for key, value in state.items():
                        tensors[f"optim.{name}.{index}.{key}"] = torch.as_tensor(value).cpu().clone().contiguous()
            with files.atomic_dir(self.folder / f"step-{self.position:07d}") as partial:
                save_file(tensors, partial / "state.safetensors")
                record = {"fingerprint": self.fingerprint, "position": self.position, "history": self.history}
                (partial / "run.json").write_text(json.dumps(record))
            for old in sorted(self.folder.glob("step-*"))[:-1]:
                shutil.rmtree(old, ignore_errors=True)
        self.group.barrier()

    def _resume(self) -> None:
        found = sorted(self.folder.glob("step-*"))
        if not found:
            if self.group.main:  # pictures of a run that ended before its first checkpoint
                shutil.rmtree(self.folder, ignore_errors=True)
            self.group.barrier()
            return
        record = json.loads((found[-1] / "run.json").read_text())
        if record["fingerprint"] != self.fingerprint:
            if self.group.main:
                print(f"{self.name}: an unfinished run with other settings, data or code is discarded")
            self.group.barrier()  # every rank has read before rank 0 removes
            if self.group.main:
                shutil.rmtree(self.folder)
            return
        tensors = load_file(found[-1] / "state.safetensors")
        with torch.no_grad():
            for key, p in self._trainable().items():
                p.copy_(tensors[key])
        for name, optim in self.optimizers.items():
            state: dict[int, dict] = {}
            prefix = f"optim.{name}."
            for key, value in tensors.items():
                if key.startswith(prefix):
                    index, field = key[len(prefix) :].split(".", 1)
                    state.setdefault(int(index), {})[field] = value
            whole = optim.state_dict()
            whole["state"] = state
            optim.load_state_dict(whole)
        self.position, self.history = record["position"], record["history"]
        if self.group.main and self.position:
            print(f"{self.name}: goes on at step {self.position}")


def write_curves(folder: Path, history: list[dict], settings: dict | None = None) -> None:
    """History as dvclive's files (for `dvc plots` and `dvc exp show`), written again as a whole: no step twice."""
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    with Live(str(folder), dvcyaml=None, report=None, save_dvc_exp=False, monitor_system=False) as live:
        for row in history:
            live.step = row["step"]
            for key, value in row.items():
                if key != "step":
                    live.log_metric(key, value)
            live.next_step()
    (folder / "plots/metrics").mkdir(parents=True, exist_ok=True)  # there even if nothing was trained
    table = frame(history) if history else pd.DataFrame({"step": []})
    table.to_csv(folder / "history.csv", index=False)


def frame(history: list[dict]) -> pd.DataFrame:
    """History as a table, one row a step."""
    return pd.DataFrame(history)
