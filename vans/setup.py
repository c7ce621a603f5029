"""``data/`` of a fresh clone: the toy world, rendered and checked against the bytes that data.dvc pins.

A ``data/`` that is there already, the user's own or not, is never touched.
"""

import subprocess
import sys
from pathlib import Path

from vans import files
from vans.errors import UserError
from vans.params import find_root, load

SIZE = 200_000_000  # bytes, about that of the default world


def render(folder: Path) -> None:
    """Render the toy world of params.yaml into ``folder``, which must not hold anything yet."""
    from vans.toy.world import generate

    params = load()
    if folder.resolve() == Path.cwd() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: is the current folder or no folder; name another one")
    files.check_output(folder / "sources", size=SIZE)
    print(f"rendering the toy world into {folder} …", flush=True)
    counts = generate(folder, params.world)
    print("videos: " + ", ".join(f"{name} {count}" for name, count in counts.items()))


def check_links(folder: Path) -> None:
    """UserError if ``folder``, or one in it, is a link: DVC, which sees nothing behind it, would stay silent."""
    from vans.data.sources.videos import folders_in, no_link

    no_link(folder)
    for _ in folders_in(folder) if folder.exists() else ():
        pass


def data(pin: bool = False, root: Path | None = None) -> None:
    """Make ``data/`` if it is absent, and verify it with `dvc commit` (or pin it: `dvc add`).

    Raises UserError for links to folders, and when the bytes differ from data.dvc; what was just rendered is
    then removed again, so that nothing stands in the place of the data that is asked for.
    """
    root = root or find_root()
    folder = root / "data"
    check_links(folder)
    if folder.exists():
        same = (
            not (root / "data.dvc").exists() or _dvc(root, "status", "--quiet", "data.dvc", check=False) == 0
        )
        note = "" if same else " (it differs from data.dvc: `dvc repro` takes it as it is and pins it)"
        print(f"data/ is there: left as it is{note}")
        return
    if not pin and not (root / "data.dvc").exists():
        raise UserError(
            "data.dvc: missing; get it back with `git checkout data.dvc`, or use `vans world --pin`"
        )
    files.remove_leftovers(folder)
    render(folder)
    if pin:
        _dvc(root, "add", "--quiet", "data")
        print("pinned in data.dvc")
    elif _dvc(root, "commit", "--quiet", "data.dvc", check=False) != 0:
        files.discard(folder)  # half of it would be taken for data of the user's own
        raise UserError(
            "data.dvc: pins other data than the toy world of params.yaml, so none was put into data/; own "
            "data: `dvc checkout data.dvc` or `dvc pull` brings it back; another world: `vans world --pin`"
        )
    else:
        print("data/ is the toy world that data.dvc pins, byte for byte")


def _dvc(root: Path, *arguments: str, check: bool = True) -> int:
    """Run dvc without a terminal (it must not ask) and return its exit code."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it left no message"]
        raise UserError(f"`dvc {' '.join(arguments)}` failed: {lines[-1]}")
    return done.returncode
