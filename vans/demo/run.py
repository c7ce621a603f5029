"""What `vans demo` does: load the models of an arm, and serve the page until it is stopped."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from vans.answer.live import Answerer
from vans.demo import source
from vans.demo.desk import Desk
from vans.demo.samples import Samples, of_triplets
from vans.demo.server import Server
from vans.demo.session import Session
from vans.demo.shelf import Shelf
from vans.errors import UserError
from vans.grid import Grid
from vans.params import find_root, load

HISTORY = "runs/demo"


def serve(given: argparse.Namespace) -> None:
    """Serve until Ctrl-C. given: the command line's arguments."""
    root = find_root()
    params = load(root)
    grid = Grid(params, root)
    arm = given.arm or grid.furthest()
    grid.answering(arm)
    if not 1 <= given.largest <= 100_000:
        raise UserError(f"--largest {given.largest}: MB of a file that may be brought, from 1 to 100000")
    check_room(given.largest)
    shelf = Shelf(Path(given.history) if given.history else root / HISTORY)
    try:
        with Server(given.host, given.port) as server:
            samples = held_out(root / "triplets")
            print(f"loading the models of the arm {arm} ...", flush=True)
            desk = Desk(Answerer(params, root, arm), shelf, arm)
            try:
                desk.warm()
                source.ready()
                server.session = Session(desk, samples, given.largest * 1_000_000)
                print(f"{len(shelf.runs)} answers of before in {shelf.folder}")
                print(f"open {server.url} (Ctrl-C ends it; what was answered is kept)", flush=True)
                server.serve_forever()
            finally:
                desk.close()
    finally:
        shelf.close()


def held_out(folder: Path) -> Samples:
    """The samples to try; none where there is no data, which is said."""
    try:
        return of_triplets(folder)
    except UserError as error:
        print(f"no held-out samples to try: {error}")
        return Samples()


def check_room(largest: int) -> None:
    """UserError where a file that may be brought would not fit into the temporary folder."""
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < largest * 1_000_000:
        raise UserError(f"{folder}: less than {largest} MB are free; free some, or give a smaller --largest")
