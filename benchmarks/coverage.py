"""What intervals over trainings and samples cover, in simulation: the one that the table over seeds uses, and others.

    python benchmarks/coverage.py                          # spreads of real per-sample differences, results/scores
    python benchmarks/coverage.py --scores FOLDER --repeats 4000

Data: y_sg = a_s + b_g + e_sg around a true mean of 0, for S trainings on the same G groups of samples. b and e are
drawn from a normal distribution, or from the differences per group of two arms that were scored (heavy tails: most
samples do not change); or y is the difference of two arms' events, which each sample has with a chance of its own (all
is e then; "doubt": chances in the middle, "sure": near 0 and 1). The crossed bootstrap resamples trainings and groups,
the plain one trainings alone.

Rows: share of e in b + e, and the spread of trainings in units of the error that the samples leave in one's mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import special

from vans.score.two_level import Spread, spread

METHODS = ("two-level", "never below 0", "t over seeds", "crossed bootstrap", "seed bootstrap")
PAIRS = (("clip_v", "stage1", "main"), ("video_event", "sft", "stage1"))


def table(pool: np.ndarray | float | None, s: int, g: int, share: float, ratio: float, rng: np.random.Generator):
    """One data set [S, G] with true mean 0. ``pool``: what b and e are drawn from (None: normal), or for events the
    parameter of the symmetric beta distribution of their chances."""
    seeds = ratio / np.sqrt(g) * rng.normal(size=(s, 1))
    if isinstance(pool, float):
        chance = rng.beta(pool, pool, size=(1, g))
        spread_of_one = np.sqrt(2 * (0.25 - 0.25 / (2 * pool + 1)))
        tuned = np.clip(chance + spread_of_one * seeds, 0, 1)
        return (rng.random((s, g)) < tuned).astype(float) - (rng.random((s, g)) < chance)
    of = (lambda *size: rng.normal(size=size)) if pool is None else (lambda *size: rng.choice(pool, size))
    return np.sqrt(1 - share) * of(1, g) + np.sqrt(share) * of(s, g) + seeds


def ends(values: np.ndarray, rng: np.random.Generator, resamples: int) -> list[tuple[float, float]]:
    """The interval of each of METHODS."""
    mean, found = float(values.mean()), spread(values)
    s, g = values.shape
    kept = found.interval(mean, g)
    never = Spread(s, g, max(found.seed, 0.0), found.group, found.both).interval(mean, g)
    half = special.stdtrit(s - 1, 0.975) * values.mean(1).std(ddof=1) / np.sqrt(s)
    of_seeds = rng.multinomial(s, np.full(s, 1 / s), resamples) / s
    of_groups = rng.multinomial(g, np.full(g, 1 / g), resamples) / g
    crossed = np.quantile(((of_seeds @ values) * of_groups).sum(1), [0.025, 0.975])
    alone = np.quantile(of_seeds @ values.mean(1), [0.025, 0.975])
    return [(kept.lo, kept.hi), (never.lo, never.hi), (mean - half, mean + half), tuple(crossed), tuple(alone)]


def pools(folder: Path) -> dict[str, np.ndarray]:
    """Differences per group of two scored arms, of mean 0 and spread 1, and how large the error of their mean is."""
    from vans.score import score

    found = {}
    for metric, first, second in PAIRS:
        both = [score.load(folder, arm).frame for arm in (first, second)]
        values = (both[1][metric] - both[0][metric]).groupby(both[0]["group"]).mean().to_numpy()
        error = values.std(ddof=1) / np.sqrt(len(values))
        print(f"{metric}, {second} - {first}: error of the mean by samples alone {error:.4f}, {len(values)} groups")
        found[f"{metric} {second}"] = (values - values.mean()) / values.std()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, default=Path("results/scores"))
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--groups", type=int, default=192, help="those of the toy world's 256 samples (%(default)s)")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    drawn = {"normal": None, **pools(given.scores)}
    cases: list[tuple[str, np.ndarray | float | None, float]] = []
    cases += [(name, pool, share) for name, pool in drawn.items() for share in (0.3, 0.7)]
    cases += [("events, sure", 0.2, 1.0), ("events, doubt", 3.0, 1.0)]
    print(f"coverage of 95 % intervals, {given.repeats} repeats, {given.groups} groups")
    print(f"{'seeds':<6}{'drawn':<20}{'e':<5}{'trainings':<11}" + "".join(f"{m:<19}" for m in METHODS))
    worst = [1.0, 0.0]
    for s in (5, 10):
        for name, pool, share in cases:
            for ratio in (0.0, 1.0, 3.0):
                hits = np.zeros(len(METHODS))
                for _ in range(given.repeats):
                    values = table(pool, s, given.groups, share, ratio, rng)
                    hits += [lo <= 0 <= hi for lo, hi in ends(values, rng, given.resamples)]
                covered = hits / given.repeats
                worst = [min(worst[0], covered[0]), max(worst[1], covered[0])]
                print(f"{s:<6}{name:<20}{share:<5}{ratio:<11}" + "".join(f"{x:<19.3f}" for x in covered), flush=True)
    print(f"two-level: between {worst[0]:.3f} and {worst[1]:.3f}")


if __name__ == "__main__":
    main()
