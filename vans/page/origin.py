"""What made a file: the stage of dvc.lock that it is an output of, its command, and the commit that pins its bytes."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DECIDES = ("vans", "notebooks", "params.yaml", "dvc.yaml")  # what of a repository decides its numbers


@dataclass(frozen=True)
class Origin:
    """file: as dvc.lock names it. command: for a person ("dvc repro benchmarks"); runs: what DVC runs then. digest: of
    its bytes, in short. commit: in words."""

    file: str
    command: str
    runs: str
    digest: str
    commit: str


class Origins:
    """Of the outputs of one repository. Without dvc.lock or git it is said that nobody knows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outs = _outs(root / "dvc.lock")
        self.head = self._head()

    def of(self, file: str, stage: str) -> Origin:
        """What made an output; stage: the one that does where dvc.lock does not tell."""
        path = self.root / file
        name, runs, pinned = self.outs.get(file, (stage, "", ""))
        own = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else pinned
        if not pinned:
            commit = "dvc.lock does not know it"
        elif own != pinned:
            commit = f"not what dvc.lock pins ({pinned[:8]})"
        else:
            commit = self._commit(pinned)
        return Origin(file, f"dvc repro {name}", runs, own.removesuffix(".dir")[:8], commit)

    def _commit(self, digest: str) -> str:
        """The first commit with these bytes in its dvc.lock; before there is one, what they were made on top of."""
        said = self._git("log", f"-S{digest}", "--reverse", "--format=%h (%cs)", "--", "dvc.lock").splitlines()
        if said and digest in self._git("show", "HEAD:./dvc.lock"):
            return f"commit {said[0]}"
        return f"dvc.lock not committed yet, on top of {self.head}"

    def _head(self) -> str:
        found = self._git("log", "-1", "--format=%h (%cs)").strip()
        changed = found and self._git("status", "--porcelain", "--", *DECIDES).strip()
        return f"commit {found}{', with changes' if changed else ''}" if found else "no commit (no git here)"

    def _git(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(self.root), *arguments], capture_output=True, check=False, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def _outs(path: Path) -> dict[str, tuple[str, str, str]]:
    """Output -> (stage, command, MD5); empty where there is no lock that can be read."""
    try:
        lock: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
        return {
            out["path"]: (name, str(stage["cmd"]), str(out["md5"]))
            for name, stage in lock["stages"].items()
            for out in stage.get("outs", ())
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        return {}
