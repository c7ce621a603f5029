"""What `vans vote` does: serve a plan's page until it is stopped, or report."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from vans.errors import UserError, one_of
from vans.files import check_output
from vans.vote import plan as plans
from vans.vote.ballots import Ballots, read
from vans.vote.samples import Sample, of_csv, of_triplets
from vans.vote.server import Server
from vans.vote.session import Session

VOTES = "votes.csv"


def serve(given: argparse.Namespace) -> None:
    """Serve until Ctrl-C. given: the command line's arguments."""
    if given.form not in plans.MOST:
        raise UserError(f"--form {given.form}: {one_of(plans.MOST)}")
    plan = plans.make(
        *(given.folders, _questions(given.questions)),
        *(given.samples, given.form, given.at_once, given.each, given.checks, given.seed),
        *(given.truth, given.captions),
    )
    file = Ballots(given.out or VOTES, plan)
    session = Session(plan, file)
    try:
        with Server(session, given.host, given.port) as server:
            print(describe(plan, file))
            print(f"open {server.url} (Ctrl-C ends it; votes are kept)", flush=True)
            server.serve_forever()
    finally:
        file.close()


def _questions(path: str | None) -> Mapping[str, Sample]:
    if path is not None:
        return of_csv(Path(path))
    from vans.params import find_root

    return of_triplets(find_root() / "triplets")


def describe(plan: plans.Plan, file: Ballots) -> str:
    """What is going to be asked, and what is there already."""
    checks = plan.checks if plan.unlike else f"{plan.checks} (identical copies only: no two samples have a truth)"
    each = len(plan.trials("")) - plan.checks
    lines = [
        f"{', '.join(plan.arms)}: {len(plan.samples)} samples, {plan.at_once} at once",
        f"a person sees {each} screens and {checks} attention checks",
        f"{file.path}: {sum(map(len, file.votes.values()))} votes of {len(file.votes)} people",
    ]
    return "\n".join(lines)


def report(path: str, out: str | None, right: float) -> None:
    """Print what votes say and write the figure beside them."""
    from vans.show import style
    from vans.vote import figure
    from vans.vote.report import analyse

    picture = Path(out) if out else Path(path).with_suffix(".png")
    check_output(picture, reads=[path])
    found = analyse(read(path), least=right)
    print(found.text())
    style.save(figure.draw(found), picture)
    print(f"written: {picture}")
