"""The command line: ``vans COMMAND``. Every error that the user can put right is one line and exit code 1.

The heavy libraries are imported inside the commands, so that ``vans --help`` is instant.
"""

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from vans.arguments import plain
from vans.ending import guarded as guarded
from vans.visible import terminal


# ------------------------------------------------------------------------------------------------- commands
def world(given: argparse.Namespace) -> None:
    """Render the toy world into data/ (only if nothing is there) and check its bytes against data.dvc."""
    from vans import setup

    if given.out:
        setup.render(Path(given.out))
    else:
        setup.data(pin=given.pin)


def check(given: argparse.Namespace) -> None:
    """Check environment, parameters, data, weights and disk, and run every stage at smoke size."""
    from vans.check import check as look
    from vans.params import find_root

    if not look(find_root()):
        raise SystemExit(1)


def repro(given: argparse.Namespace) -> None:
    """Run `dvc repro` with these arguments; the stages' libraries are imported once.

    DVC keeps nothing of a stage that is done if it cannot print so, which `vans.passing` spares it.
    """
    from vans import passing, warm_server

    with warm_server.for_stages() as env:
        code = passing.run(["dvc", "repro", *given.arguments], env)
    if code:
        raise SystemExit(code)


def queue(given: argparse.Namespace) -> None:
    """Run the experiments in DVC's queue to the last one; the stages' libraries are imported once.

    Ctrl-C: what runs goes on to its end, the rest stays queued; a second one ends what runs.
    """
    from vans import queued
    from vans.errors import UserError

    if given.jobs < 1:
        raise UserError(f"-j {given.jobs}: needs 1 or more")
    if code := queued.run(given.jobs):
        raise SystemExit(code)


def estimate(given: argparse.Namespace) -> None:
    """Estimate calls, tokens and cost of annotating the data set with an LLM, before anything is asked."""
    from vans.data.annotate.estimate import Work, count, describe
    from vans.params import find_root, load

    params = load(scale=given.scale)
    if given.segments is None and given.pairs is None:
        work = count(find_root() / "data", params, given.shots)
    else:
        work = Work(given.segments or 0, given.pairs or 0)
    print(describe(params, work))


def split(given: argparse.Namespace) -> None:
    """Write the held-out samples of the benchmark as a list, from the annotations of the sources in data/."""
    from vans.data.split import choose, describe, write
    from vans.errors import UserError
    from vans.files import check_output
    from vans.params import find_root

    if given.samples < 1:
        raise UserError(f"--samples {given.samples}: so many of each kind, one or more")
    check_output(given.output)
    samples = choose(find_root() / "data", given.samples)
    write(given.output, samples)
    print("\n".join([*describe(samples, given.samples), f"written: {given.output} (curate.held_out takes it)"]))


def plan(given: argparse.Namespace) -> None:
    """Reckon FLOPs, memory, disk and hours of a scale, before anything is run."""
    from vans.params import find_root, load
    from vans.plan.gpus import gpu
    from vans.plan.report import describe

    params, root = load(scale=given.scale), find_root()
    for name in ("vlm", "vdm"):
        if repo := getattr(given, name):
            params = params.with_(models={name: {"repo": repo, "revision": "planned"}})
    print(describe(params, root, gpu(given.gpu), given.gpus, given.fraction, given.triplets), end="")


def preflight(given: argparse.Namespace) -> None:
    """Look whether each stage of the current scale could run: weights, disk, GPU, memory, batches."""
    from vans.params import find_root, load
    from vans.preflight import look

    root = find_root()
    if not look(load(root), root):
        raise SystemExit(1)


def answer(given: argparse.Namespace) -> None:
    """Answer questions about a video or a picture with captions and videos of what happens next."""
    from vans.answer.ask import answer as respond

    respond(given.input, given.questions, given.output, given.arm, events=given.events, seed=given.seed)


def import_(given: argparse.Namespace) -> None:
    """Import the method's released weights, to be started from as `release` in dvc.yaml.

    One line for each model that was written.
    """
    from vans.models.release import bring
    from vans.params import find_root, load

    root = find_root()
    out = root / "models/release" if given.out is None else Path(given.out)
    for model, folder in bring(given.path, out, load(root), root / "models/base").items():
        print(f"{model}: {folder}")


def export(given: argparse.Namespace) -> None:
    """Write imported weights, or what was trained from them, as the release's two files."""
    from vans.models.release import send
    from vans.params import find_root

    root = find_root()
    named = {"vlm": given.vlm, "vdm": given.vdm}
    tuned = {model: None if name is None else root / "models" / name / model for model, name in named.items()}
    for model, file in send(given.path, root / "models/release", tuned).items():
        print(f"{model}: {file}")


def score(given: argparse.Namespace) -> None:
    """Score predictions (captions.csv and videos/, or captions alone) of anyone on the held-out samples."""
    from vans.score.anyone import score_folder

    score_folder(given.folder, name=given.name, out=given.out, row=given.row, seeds=given.seeds)


def vote(given: argparse.Namespace) -> None:
    """Compare predictions blindly in a local page, or report what the votes say (--report)."""
    from vans.vote import run

    if given.report is not None:
        run.report(given.report, given.out, given.right)
    else:
        run.serve(given)


def demo(given: argparse.Namespace) -> None:
    """Ask about a video or picture in a local page: up to three futures side by side."""
    from vans.demo import run

    run.serve(given)


def tables(given: argparse.Namespace) -> None:
    """Print the tables in results/ (or published ones with --published)."""
    from vans.tables import report

    report.show_tables(published=given.published)


def compare(given: argparse.Namespace) -> None:
    """Compare the tables in results/ with the published ones in docs/results/, cell by cell."""
    from vans.tables import report

    report.show_comparison()


def page(given: argparse.Namespace) -> None:
    """Write one page of the results: clips that play, numbers, figures; a file that needs no network."""
    from vans.page.build import write
    from vans.params import find_root
    from vans.tables.report import PAGE

    root = find_root()
    out = Path(given.output) if given.output else root / PAGE
    size, lacking = write(root, out, given.seed)
    print("\n".join([f"written: {out} ({size / 1000:.0f} kB)", *(f"not in it: {line}" for line in lacking)]))


def publish(given: argparse.Namespace) -> None:
    """Copy the tables of results/ to docs/results/, write docs/page.html and put the headline into README.md."""
    from vans.tables import report

    if given.seeds:
        report.publish_seeds()
    else:
        report.publish()


def seeds(given: argparse.Namespace) -> None:
    """Keep the scores of this run and of DVC's experiments in docs/results/seeds/, for the table over seeds."""
    from vans.params import find_root
    from vans.tables.seeds import collect

    print("\n".join(collect(find_root())))
    print("then: dvc repro seeds (the table), vans publish --seeds, git add docs/results")


def summary(given: argparse.Namespace) -> None:
    """What `make repro` prints at its end: tables, where the pictures are, the comparison."""
    from vans.tables import report

    report.summary()


def targets(given: argparse.Namespace) -> None:
    """The stages that `make repro` asks DVC for: all, or the main chain where the grid is off. chain, grid: the scores
    of our arms, as `dvc exp run` takes them, without the other systems.
    """
    from vans.grid import Grid
    from vans.params import find_root, load

    if given.of is None:
        print("" if load().machine.grid else "benchmarks")
        return
    root = find_root()
    grid = Grid(load(root), root)
    wanted = grid.main_chain() if given.of == "chain" else [f"score@{key}" for key in grid.arms]
    print(*(f"score@{key}" for key in grid.arms if f"score@{key}" in wanted))


# --------------------------------------------------------------------------------------------------- parser
def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="vans", description="Answer a question about a video with a video.")
    top.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        text = str(function.__doc__).split("\n\n")[0]
        name = function.__name__.rstrip("_")
        sub = commands.add_parser(name, help=text.rstrip("."), description=text)
        sub.set_defaults(function=function)
        return sub

    sub = add(world)
    sub.add_argument("--out", metavar="FOLDER", help="render into this folder instead, without DVC")
    sub.add_argument(
        "--pin", action="store_true", help="pin what is rendered in data.dvc instead of checking"
    )
    add(check)
    sub = add(plan)
    sub.add_argument("--scale", help="of params.yaml (the current one)")
    sub.add_argument("--gpus", type=int, default=8, metavar="N", help="how many (%(default)s)")
    sub.add_argument("--gpu", default="h100", help="a100-40, a100-80, h100, h200, l40s, rtx-6000-48 or b200")
    sub.add_argument("--fraction", type=float, default=0.4, help="of the GPU's peak that is reached (%(default)s)")
    sub.add_argument("--triplets", type=int, metavar="N", help="so many instead of those in triplets/ (else 100,000)")
    for name, such in (("vlm", "Qwen/Qwen2.5-VL-7B-Instruct"), ("vdm", "Wan-AI/Wan2.1-T2V-14B-Diffusers")):
        sub.add_argument(f"--{name}", metavar="REPO", help=f"another model, such as {such}")
    add(preflight)
    sub = add(repro)
    sub.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="of dvc repro; options behind --")
    sub = add(queue)
    sub.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="so many at a time (%(default)s)")
    sub = add(estimate)
    sub.add_argument("--segments", type=int, metavar="N", help="so many segments instead of those in data/")
    sub.add_argument("--pairs", type=int, metavar="N", help="so many pairs instead of those in data/")
    sub.add_argument("--shots", type=int, default=8, metavar="N", help="shots of a video without times (%(default)s)")
    sub.add_argument("--scale", help="of params.yaml (the current one)")
    sub = add(split)
    sub.add_argument("-o", "--output", default="held_out.json", metavar="FILE", help="the list (%(default)s)")
    sub.add_argument("--samples", type=int, default=400, metavar="N", help="of each kind (%(default)s)")
    sub = add(answer)
    sub.add_argument("input", help="any video file, or a picture")
    sub.add_argument("questions", nargs="+", metavar="QUESTION", help='such as "what happens next ?"; several: a sheet')
    where = "a file that ends in .mp4, .avi, .mkv, .webm, .mov or .m4v, or a folder (%(default)s)"
    sub.add_argument("-o", "--output", default="answer.mp4", help=where)
    sub.add_argument("--events", type=int, default=1, metavar="N", help="each answer becomes the next input, N in all")
    sub.add_argument("--seed", type=int, metavar="N", help="another answer than that of params.yaml's seed")
    sub.add_argument("--arm", help="whose models: an arm of dvc.yaml (the furthest trained)")
    sub = add(import_)
    sub.add_argument("path", help="folder with checkpoints/ and the two .safetensors in it, or one of the two alone")
    sub.add_argument("--out", metavar="FOLDER", help="where to (models/release)")
    sub = add(export)
    sub.add_argument("path", help="folder that gets checkpoints/ with the two .safetensors")
    for model in ("vlm", "vdm"):
        whose = "whose weights, as in dvc.yaml: stage1/full, … (the import's own)"
        sub.add_argument(f"--{model}", metavar="MODELS", help=whose)
    sub = add(score)
    sub.add_argument(
        "folder", help="predictions: captions.csv (id, caption, text), videos/<id>.avi or .mp4 (or no folder videos)"
    )
    sub.add_argument("--name", help="the row's name (the folder's)")
    sub.add_argument("--out", metavar="FOLDER", help="also write the scores there")
    sub.add_argument("--as", dest="row", metavar="NAME", help="as a row of this name of both tables and figures")
    sub.add_argument("--seeds", metavar="TEXT", help="of a row: which seeds made the answers (not told)")
    sub = add(demo)
    sub.add_argument("--arm", help="whose models: an arm of dvc.yaml (the furthest trained)")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s: this machine alone)")
    sub.add_argument("--port", type=int, default=8118, help="0: any that is free (%(default)s)")
    sub.add_argument("--largest", type=int, default=200, metavar="MB", help="of a file that is brought (%(default)s)")
    sub.add_argument("--history", metavar="FOLDER", help="where answers are kept (runs/demo)")
    sub = add(vote)
    sub.add_argument("folders", nargs="*", metavar="FOLDER", help="two or more, as for score; or NAME=FOLDER")
    sub.add_argument("--form", default="choice", help="choice (the best, or a tie) or likert (marks of 1 to 5)")
    sub.add_argument("--at-once", type=int, metavar="K", help="candidates side by side (2; likert: up to 4)")
    sub.add_argument("--samples", type=int, default=20, metavar="N", help="so many, drawn by the seed (%(default)s)")
    sub.add_argument("--each", type=int, metavar="N", help="comparisons of a sample that one person sees (all)")
    sub.add_argument("--checks", type=int, metavar="N", help="attention checks of a person (one in ten, 4 or more)")
    sub.add_argument("--questions", metavar="CSV", help="id,question,input,truth,caption instead of triplets/")
    sub.add_argument("--truth", action="store_true", help="show what really happened")
    sub.add_argument("--captions", action="store_true", help="show the candidates' captions")
    sub.add_argument("--seed", type=int, default=0, help="of samples, orders and sides (%(default)s)")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s: this machine alone)")
    sub.add_argument("--port", type=int, default=8117, help="0: any that is free (%(default)s)")
    sub.add_argument("--out", metavar="FILE", help="the votes (votes.csv); of a report: its figure")
    sub.add_argument("--report", metavar="CSV", help="read these votes: strengths, agreement, wins, a figure")
    share = "of attention checks that a person must have right (%(default)s)"
    sub.add_argument("--right", type=float, default=0.7, metavar="SHARE", help=share)
    sub = add(tables)
    sub.add_argument("--published", action="store_true", help="those in docs/results/")
    add(compare)
    sub = add(page)
    sub.add_argument("-o", "--output", metavar="FILE", help="instead of results/page.html")
    sub.add_argument("--seed", type=int, default=0, help="of the samples that are drawn (%(default)s)")
    sub = add(publish)
    sub.add_argument("--seeds", action="store_true", help="the table over seeds alone, beside the published run")
    add(seeds)
    add(summary)
    sub = add(targets)
    sub.add_argument("of", nargs="?", choices=("chain", "grid"), help="scores of the main chain, or of the whole grid")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``vans``: parses, runs, returns the exit code."""
    top = parser()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = next(action.choices for action in top._actions if isinstance(action.choices, dict))
    at = next((i for i, text in enumerate(arguments) if not text.startswith("-")), len(arguments))
    if at < len(arguments) and arguments[at] in commands:
        options = {name: a.nargs != 0 for a in commands[arguments[at]]._actions for name in a.option_strings}
        arguments[at + 1 :] = plain(arguments[at + 1 :], options)
    elif at < len(arguments) and (near := difflib.get_close_matches(arguments[at], commands, 1)):
        top.error(f"there is no command {arguments[at]!r}; did you mean {near[0]}?")
    with terminal():
        given = top.parse_args(arguments)
    return guarded(lambda: given.function(given), verbose=given.verbose)


if __name__ == "__main__":
    sys.exit(main())
