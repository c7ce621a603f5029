"""How event, identity and picture quality hold up when each answer is the next input, over 1 to 5 events.

    python benchmarks/chain.py --out chain [--arms sft main] [--events 5] [--samples 128] [--scale tiny]

On held-out samples of the toy world, by its oracle (vans/answer/chain.py says what counts as right). Writes chain.csv
(means with 95 % intervals over scenes), samples.csv (a row for each sample and event) and chain.png, and prints the
means. Needs a repository in which the stages of these arms have run; a minute or two an arm on one core.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

from vans import files
from vans.answer.chain import TRUTH, measured, summary
from vans.answer.live import Answerer
from vans.data.batches import clips_of, held_out
from vans.data.triplets import Triplets
from vans.params import find_root, load
from vans.show.chains import curves
from vans.show.style import save
from vans.toy import oracle

TITLES = {"sft": "SFT", "stage1": "+ stage 1", "main": "Joint-GRPO", TRUTH: "true captions"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is written")
    parser.add_argument("--arms", nargs="+", default=["sft", "main"], help="arms of dvc.yaml (%(default)s)")
    parser.add_argument("--events", type=int, default=5)
    parser.add_argument("--samples", type=int, default=128, help="of each kind")
    given = parser.parse_args()
    root = find_root()
    params = load(root)
    triplets = Triplets(root / "triplets")
    ids = held_out(triplets, given.samples)
    parts = []
    for arm in given.arms:
        models = Answerer(params, root, arm)
        for name in (arm, TRUTH) if arm == given.arms[-1] else (arm,):  # the last arm's VDM is told the truth, too
            began = time.perf_counter()
            parts.append(measured(models, triplets, ids, given.events, told=name == TRUTH).assign(arm=name))
            print(f"{name}: {len(ids)} samples, {given.events} events, {time.perf_counter() - began:.0f} s", flush=True)
    frame = pd.concat(parts)
    found = summary(frame, params.evaluate.bootstrap, params.seed)
    sharp = pd.Series([reading.distance for reading in oracle.read(clips_of(triplets, ids, "target").numpy())]).mean()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, table in (("chain.csv", found), ("samples.csv", frame)):
        files.atomic_write_text(given.out / name, table.to_csv(index=False, float_format="%.6g"))
    titles = {name: TITLES.get(name, name) for name in (*given.arms, TRUTH)}
    save(curves(found, titles, float(sharp)), given.out / "chain.png")
    for (measure, kind), part in found.groupby(["measure", "kind"], sort=False):
        for arm, row in part.groupby("arm", sort=False):
            told = [f"{r.value:.3g} [{r.lo:.3g}, {r.hi:.3g}]" for r in row.sort_values("event").itertuples()]
            print(f"{measure}, {kind}, {arm} (n = {row['n'].iloc[0]}): {', '.join(told)}")
    print(f"blur of true clips: {sharp:.4g}")


if __name__ == "__main__":
    main()
