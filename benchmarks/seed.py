"""One train seed from SFT to tables, beside another revision: what a verdict over seeds costs.

    python benchmarks/seed.py --against d42d2bd [--root .] [--cells main]

Runs every stage from SFT on (`--cells main`: those of the main table alone) as its `make repro` does, forced, in two
worktrees that share the triplets and base models of `root`, in turns: both revisions' SFT, then both revisions' cells
of one stage, and so on, so that a load that changes meets both. Prints seconds and CPU seconds of each turn and, last,
the ratio of all seconds. Needs a repository in which `dvc repro base` has run. Other systems are neither trained nor
scored; tables are made where `root` has what they read of these, else all are left out on both sides.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

COPIED = ("triplets", "models/base")
FIRST = ("strip", "sft")
TRAINED = ("stage1", "stage2", "all_in_one")
READ = re.compile(r"(?:results/scores|predictions)/(\w+)")
TABLES = {"main": ("benchmarks",), "all": ("benchmarks", "ablations")}


def worktree(root: Path, revision: str, folder: Path) -> Path:
    """A checkout of a revision with its own copy of what the stages before SFT have made, and of other systems."""
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(folder), revision], cwd=root, check=True)
    for name in COPIED:
        shutil.copytree(root / name, folder / name)
    for name in of_others(folder):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)
        elif (root / name).is_dir():
            shutil.copytree(root / name, folder / name)
    return folder


def of_others(folder: Path, tables: tuple[str, ...] = TABLES["all"]) -> list[str]:
    """What these tables of a revision read and no arm of ours makes: answers and scores of other systems."""
    told = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = [str(dep) for table in tables for dep in told[table]["deps"]]
    return [dep for dep in deps if (m := READ.match(dep)) and m[1] not in own_arms(told)]


def own_arms(told: dict) -> set[str]:
    """Arms that are answered from what is trained here, by the pipeline of a revision."""
    return set(told["answer" if "answer" in told else "evaluate"]["foreach"])


def stages(folder: Path, cells: str) -> list[list[str]]:
    """The turns: stages of a revision as DVC names them, in an order in which they can run."""
    told = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    scored = [name for name in ("answer", "evaluate", "score") if name in told]
    turns = [list(FIRST), *([name] for name in TRAINED), scored, list(TABLES[cells])]
    wanted = main_chain(told) if cells == "main" else None
    own = own_arms(told)
    found = []
    for turn in turns:
        names: list[str] = []
        for stage in turn:
            rows = told[stage].get("foreach")
            keys = [f"{stage}@{key}" for key in rows if stage not in scored or key in own] if rows else [stage]
            names += [key for key in keys if wanted is None or stage not in TRAINED + tuple(scored) or key in wanted]
        if names:
            found.append(names)
    return found


def main_chain(told: dict) -> set[str]:
    """What the main table is made of: its arms, and the cells `full` and `main` behind them."""
    arms = {m[1] for dep in told["benchmarks"]["deps"] if (m := READ.match(dep))}
    return {f"{stage}@{arm}" for stage in ("answer", "evaluate", "score") for arm in arms & own_arms(told)} | {
        "stage1@full",
        "stage2@main",
    }


def run(folder: Path, names: list[str]) -> tuple[float, float]:
    """Seconds, and CPU seconds of all processes, of these stages."""
    tools = Path(sys.executable).parent
    path = os.pathsep.join([str(tools), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    began, used = time.perf_counter(), _cpu()
    with open(folder / "seed.log", "a") as log:
        warm = (folder / "vans" / "warm_server.py").exists()  # as `make repro` runs them
        repro = [sys.executable, "-m", "vans.cli", "repro", "--"] if warm else [str(tools / "dvc"), "repro"]
        command = [*repro, "--force", "--single-item", *names]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode:
        sys.exit(f"{folder}: {' '.join(names)}: failed; see {folder / 'seed.log'}")
    return time.perf_counter() - began, _cpu() - used


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="the other revision")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="a repository in which the base models are made")
    parser.add_argument("--cells", choices=TABLES, default="all", help="main: what the main table needs")
    parser.add_argument("--turns", type=int, help="the first so many turns alone (1: SFT)")
    given = parser.parse_args()
    root = given.root.resolve()
    place = Path(tempfile.mkdtemp(prefix="vans-seed-"))
    trees = {name: place / f"tree{i}" for i, name in enumerate((given.against, "HEAD"))}
    try:
        turns = {name: stages(worktree(root, name, tree), given.cells) for name, tree in trees.items()}
        read = [tree / name for tree in trees.values() for name in of_others(tree, TABLES[given.cells])]
        if absent := [path for path in read if not path.exists()]:
            print(f"without the tables: they read {absent[0].name} of other systems, which {root} has not", flush=True)
            turns = {name: told[:-1] for name, told in turns.items()}
        seconds, cpu = dict.fromkeys(trees, 0.0), dict.fromkeys(trees, 0.0)
        for turn in list(zip(*turns.values(), strict=True))[: given.turns]:
            for name, names in zip(trees, turn, strict=True):
                took, used = run(trees[name], names)
                seconds[name] += took
                cpu[name] += used
                print(f"{name}: {names[0]} and {len(names) - 1} more: {took:.0f} s, {used:.0f} CPU s", flush=True)
    finally:  # a tree that failed stays, with its log
        for tree in trees.values():
            if sys.exc_info()[0] is None:
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=root, check=False)
    for title, (before, after) in {"CPU seconds": cpu.values(), "seconds": seconds.values()}.items():  # type: ignore[misc]
        print(f"one train seed, HEAD / {given.against}, {title}: {after:.0f} / {before:.0f} = {after / before:.2f}")


if __name__ == "__main__":
    main()
