"""Do votes say what they should? People of known skill, simulated, through the plan and the report of `vans vote`.

    python benchmarks/votes.py                              # order of five arms, coverage of the intervals
    python benchmarks/votes.py --scores results/scores      # and people who see what the toy world's oracle sees

A person votes by the difference of two utilities plus logistic noise: the arm's skill, what the sample adds to the arm,
what the person likes in it; a tie where the sum is within a threshold. What intervals should cover is the value that
endlessly many people and samples would give. Against it also stands the bootstrap that draws people and samples at
once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from vans.answer.predictions import Predictions
from vans.vote import ballots, report, resample
from vans.vote.plan import TIE, Plan, Trial
from vans.vote.samples import Sample

ARMS = {"a": 1.0, "b": 0.5, "c": 0.0, "d": -0.5, "e": -1.0}
APART = (0.25, 0.5, 0.75, 1.0)  # a person prefers the better of two with 56, 62, 68 and 73 % (but for effects and ties)
THRESHOLD = 0.4  # about one vote in six is a tie


def plan_of(arms: list[str], samples: list[str], **settings: object) -> Plan:
    """A plan without videos."""
    empty = Predictions([], [], [], {})
    asked = {id: Sample(id, "", "", None, None) for id in samples}
    return Plan(dict.fromkeys(arms, empty), asked, **{"checks": 0, **settings})  # type: ignore[arg-type]


class People:
    """utilities: [raters, samples, arms], what each sees in each; `slips`: share of votes that are dice."""

    def __init__(self, utilities: np.ndarray, rng: np.random.Generator, slips: float = 0.0) -> None:
        self.utilities, self.rng, self.slips = utilities, rng, slips

    def vote(self, plan: Plan, rater: int, trial: Trial) -> str:
        """A choice among the sides."""
        if self.rng.random() < self.slips:
            return str(self.rng.choice([TIE, *trial.names]))
        if trial.check:
            return TIE
        arms, at = list(plan.arms), list(plan.samples).index(trial.sample)
        seen = np.array([self.utilities[rater, at, arms.index(name)] for name in trial.names])
        seen = seen + self.rng.gumbel(size=len(seen))  # differences of Gumbels are logistic
        best, next_best = np.sort(seen)[::-1][:2]
        return TIE if best - next_best < THRESHOLD else trial.names[int(seen.argmax())]


def votes(plan: Plan, people: People, orders: list[list[Trial]]) -> pd.DataFrame:
    """All votes of all people, as read from a results file."""
    rows = []
    for rater, trials in enumerate(orders):
        for number, trial in enumerate(trials, 1):
            choice = people.vote(plan, rater, trial)
            rows.append(ballots.row(plan, f"r{rater}", number, trial, choice, 5.0))
    return pd.DataFrame(rows)


def utilities(
    shape: tuple[int, int], spreads: tuple[float, float], rng: np.random.Generator, apart: float = 0.5
) -> np.ndarray:
    """Skills, and normal effects of people and samples on each arm: [raters, samples, arms]. apart: of neighbours."""
    raters, samples = shape
    skill = np.array(list(ARMS.values())) * apart / 0.5
    of_people = spreads[0] * rng.normal(size=(raters, 1, len(skill)))
    return skill + of_people + spreads[1] * rng.normal(size=(1, samples, len(skill)))


def limit(spreads: tuple[float, float], draws: int = 200_000) -> np.ndarray:
    """The strengths that endlessly many people and samples would give."""
    rng = np.random.default_rng(1)
    skill = np.array(list(ARMS.values()))
    wins = np.zeros((len(skill), len(skill)))
    spread = np.sqrt(2 * (spreads[0] ** 2 + spreads[1] ** 2))
    noise = rng.logistic(size=draws) + spread * rng.normal(size=draws)
    for i in range(len(skill)):
        for j in set(range(len(skill))) - {i}:
            apart = skill[i] - skill[j] + noise
            wins[i, j] = (apart > THRESHOLD).mean() + 0.5 * (np.abs(apart) <= THRESHOLD).mean()
    return report._strengths(wins[None, None] * 1e6)[1]


def crossed(statistic: resample.Statistic, voted: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Ends [2, K] where people and samples are drawn at once."""
    rng = np.random.default_rng(seed)
    both = ([resample._counts(rng, size) for size in voted.shape] for _ in range(resamples))
    return np.quantile([statistic(np.outer(*one)) for one in both], [0.025, 0.975], axis=0)


def orders(simulations: int, each: int | None, apart: float) -> float:
    """Share of simulations in which the report's order is the true one: 10 people, 20 samples, five arms."""
    plan = plan_of(list(ARMS), [f"s{i}" for i in range(20)], each=each)
    trials, hits = [plan.trials(f"r{i}") for i in range(10)], 0
    for number in range(simulations):
        rng = np.random.default_rng(number)
        people = People(utilities((10, 20), (0.3, 0.5), rng, apart), rng)
        found = report.analyse(votes(plan, people, trials), seed=number, resamples=2)
        hits += found.arms == list(ARMS)
    return hits / simulations


def coverage(simulations: int, resamples: int) -> None:
    """Shares of intervals of strengths that hold the limit, and their mean widths."""
    print(f"coverage of 95 % intervals of five strengths, {simulations} simulations, {resamples} resamples")
    print(f"{'raters':<8}{'samples':<9}{'spread':<14}{'sum':<8}{'width':<8}{'at once':<9}{'width':<8}")
    for shape in ((10, 20), (5, 20), (20, 20)):
        plan = plan_of(list(ARMS), [f"s{i}" for i in range(shape[1])], each=3)
        trials = [plan.trials(f"r{i}") for i in range(shape[0])]
        for spreads in ((0.0, 0.0), (0.3, 0.5), (0.8, 0.3)):
            truth, hits, widths = limit(spreads), np.zeros(2), np.zeros(2)
            for number in range(simulations):
                rng = np.random.default_rng(number)
                frame = votes(plan, People(utilities(shape, spreads, rng), rng), trials)
                found = report.analyse(frame, seed=number, resamples=resamples)
                ends = np.array([[one.lo, one.hi] for _, one in sorted(found.measures["strength"].items())]).T
                names = sorted(set(frame["rater"])), sorted(set(frame["sample"]))
                place = frame["rater"].map(names[0].index), frame["sample"].map(names[1].index)
                table = np.zeros((*shape, len(ARMS), len(ARMS)))
                np.add.at(table, tuple(place), report._wins(frame, list(ARMS))[0])
                voted = np.ones(shape, bool)
                once = crossed(report._strengths(table)[0], voted, number, resamples)
                for at, (lo, hi) in enumerate((ends, once)):
                    hits[at] += ((lo <= truth) & (truth <= hi)).mean()
                    widths[at] += (hi - lo).mean()
            hit, width = hits / simulations, widths / simulations
            cells = f"{hit[0]:<8.3f}{width[0]:<8.2f}{hit[1]:<9.3f}{width[1]:<8.2f}"
            print(f"{shape[0]:<8}{shape[1]:<9}{spreads!s:<14}{cells}", flush=True)


def oracle(
    folder: Path, arms: list[str], samples: int = 20, raters: int = 10, seed: int = 0
) -> tuple[list, report.Found]:
    """People who see what the oracle sees (`video_event` of scored arms), with slips; two of them vote by dice.

    Returns the arms by their mean over the drawn samples, best first, and the report.
    """
    scores = pd.DataFrame({arm: pd.read_csv(folder / f"{arm}.csv").set_index("id")["video_event"] for arm in arms})
    rng = np.random.default_rng(seed)
    drawn = scores.sample(samples, random_state=seed)
    plan = plan_of(arms, list(drawn.index), checks=8)
    seen = np.broadcast_to(4.0 * drawn.to_numpy()[None], (raters, samples, len(arms)))
    frames = []
    for rater in range(raters):
        people = People(seen, rng, slips=1.0 if rater < 2 else 0.05)
        one = votes(plan, people, [plan.trials(f"r{rater}")])
        frames.append(one.assign(rater=f"r{rater}"))
    return list(drawn.mean().sort_values(ascending=False).index), report.analyse(pd.concat(frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--scores", type=Path)
    given = parser.parse_args()
    print("order of five arms recovered, 10 people, 20 samples; neighbours' skills apart:")
    print(f"{'seen of a sample':<18}" + "".join(f"{apart:<7}" for apart in APART))
    for each in (None, 3, 1):
        shares = [orders(given.simulations, each, apart) for apart in APART]
        print(f"{each or 10:<18}" + "".join(f"{share:<7.2f}" for share in shares), flush=True)
    if given.scores:
        arms = ["ceiling", "main", "copy"]
        for seed in range(5):
            order, found = oracle(given.scores, arms, seed=seed)
            told = {arm: round(one.value, 2) for arm, one in found.measures["strength"].items()}
            print(f"oracle: {order}; report: {told}, left out {sorted(found.left_out)}", flush=True)
    coverage(given.simulations, given.resamples)


if __name__ == "__main__":
    main()
