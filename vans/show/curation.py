"""What a curation has made, as tables and in plain words: the tables of notebook 01."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vans.data import quality


def concerns(frame: pd.DataFrame, report: Mapping[str, Any], params: Any, toy: bool = False) -> list[str]:
    """What to think about before training is paid for, a line each; a single line if nothing is.

    frame: the manifest. report: of the curation. params: curate. toy: is it the toy world, whose labels are made to be
    turned into texts by rules?
    """
    said, splits, curate = [], frame["split"].value_counts(), params.curate
    if not splits.get("train"):
        gone = report.get("leaks", {}).get("dropped_from_training", 0)
        why = f"{gone} training videos went, too like held-out ones" if gone else "all that was kept is held out"
        said.append(f"no triplet to train on: {why}")
    if not splits.get("test"):
        said.append("no triplet is held out: nothing can be evaluated; give some videos `subset: testing`")
    videos = report["videos"]
    if 2 * videos["kept"] < videos["in"]:
        most = next(iter(by_size(videos["dropped"])))
        said.append(f"{videos['in'] - videos['kept']} of {videos['in']} videos were dropped, most often: {most}")
    lost = [(r, n) for level in ("videos", "segments") for r, n in report.get(level, {}).get("dropped", {}).items()]
    if broken := sum(n for reason, n in lost if reason.startswith("annotation not readable")):
        said.append(f"{broken} annotations could not be read: {next(iter(report.get('details', [])), '')}")
    taken = int(frame["rl"].sum())
    if taken < curate.rl and splits.get("train"):
        said.append(f"the RL subset has {taken} triplets where curate.rl asks for {curate.rl}")
    if not toy:
        by_rules = frame["style"].isin(["plain", "flowery"]).sum()
        if by_rules:
            said.append(
                f"rules wrote the texts of {by_rules} triplets from labels alone (curate.annotator: rules); for a "
                "paper have a model write them: docs/annotate.md"
            )
        if (scores := frame.loc[frame["split"] == "train", "rl_score"]).nunique() == 1 and len(scores) > 1:
            said.append("all RL scores are equal, so that nothing was chosen by them: see curate.rl_motion, rl_weights")
        if curate.agreement == "none":
            said.append("nobody has measured whether captions fit their clips (curate.agreement: none)")
    unread = report.get("not_read", {"count": 0})
    if unread["count"]:
        said.append(f"{unread['count']} files were not read: {'; '.join(unread['files'][:5])}")
    return said or ["nothing stands out in the counts; look at the pictures all the same"]


def counts(report: Mapping[str, Any]) -> pd.DataFrame:
    """in, kept, dropped of videos, segments and pairs."""
    levels = {name: report[name] for name in ("videos", "segments", "pairs")}
    rows = {n: {"in": v["in"], "kept": v["kept"], "dropped": sum(v["dropped"].values())} for n, v in levels.items()}
    return pd.DataFrame(rows).T


def reasons(drops: pd.DataFrame) -> pd.DataFrame:
    """What was dropped, by level and reason, the most frequent first, with the first three names of each.

    drops: level, name, reason.
    """
    groups = drops.groupby(["level", "reason"], sort=False)["name"]
    table = groups.agg(count="size", first=lambda names: ", ".join(names[:3])).reset_index()
    return table.sort_values(["level", "count"], ascending=[False, False], kind="stable", ignore_index=True)


def by_size(reasons: Mapping[str, int]) -> dict[str, int]:
    """The same counts, the largest first."""
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def segment_lengths(segments: pd.DataFrame, most: int = 3) -> dict[str, pd.Series]:
    """Seconds of the kept segments and of those dropped for each of the `most` frequent reasons; unknown ones left out.

    segments: start, end (s), outcome.
    """
    reasons = segments.loc[segments["outcome"] != "kept", "outcome"].value_counts().index
    shown = segments["outcome"].mask(segments["outcome"].isin(reasons[most:]), "dropped for other reasons")
    seconds = (segments["end"] - segments["start"]).dropna()
    groups = seconds.groupby(shown.loc[seconds.index])
    return dict(sorted(groups, key=lambda group: (group[0] != "kept", group[0])))


def variety(frame: pd.DataFrame) -> pd.DataFrame:
    """How much the questions differ, for each kind of triplet."""
    words = frame["question"].str.split().str.len()
    table = frame.groupby("kind")["question"].agg(["size", "nunique"])
    table["share distinct"] = (table["nunique"] / table["size"]).round(3)
    table["words, mean"] = words.groupby(frame["kind"]).mean().round(1)
    table["most frequent question"] = frame.groupby("kind")["question"].agg(lambda some: some.value_counts().idxmax())
    return table


def leaks(frame: pd.DataFrame, report: Mapping[str, Any]) -> pd.DataFrame:
    """What stands on both sides of the split, counted in the manifest, and what the leak check has measured."""
    train, test = (frame[frame["split"] == split] for split in ("train", "test"))
    facts: dict[str, Any] = {f"{k}s in training and in test": len({*train[k]} & {*test[k]}) for k in SIDES}
    several = frame.groupby("group")["scene"].nunique() > 1
    facts["kept groups of near-duplicates of several scenes"] = int(several.sum())
    for name, found in report["leaks"].items():
        name = NAMES.get(name, name)
        inner = {f"{name}: {key}": value for key, value in found.items()} if isinstance(found, dict) else {name: found}
        facts |= {key.replace("_", " "): "—" if value is None else value for key, value in inner.items()}
    return pd.Series(facts, dtype=object).rename("leak report").to_frame()


NAMES = {"near_duplicate": "counts as the same up to a distance of", "videos": "videos compared"}
SIDES = ("video", "scene", "group")


def rl_terms(train: pd.DataFrame, full_motion: float) -> pd.DataFrame:
    """Mean terms and score (`vans.data.quality`) of the training triplets that were taken and refused."""
    names = ["agreement", "motion", "caption_words", "questions_refused", "visual_gain"]
    rows = train[[name for name in names if name in train]].to_dict("records")
    table = pd.DataFrame([quality.terms(row, full_motion) for row in rows], train.index, columns=list(quality.TERMS))
    table = table.astype(float).assign(score=train["rl_score"], triplets=1)
    grouped = table.groupby(train["rl"].map({True: "taken", False: "refused"}))
    return grouped.mean().round(3).assign(triplets=grouped["triplets"].sum())


def shares(train: pd.DataFrame, target: str) -> pd.DataFrame:
    """Per cent of each value of column `target` in training and in the RL subset."""
    parts = {"training": train, "RL subset": train[train["rl"]]}
    table = pd.DataFrame({name: part[target].value_counts(normalize=True) for name, part in parts.items()})
    return (100 * table.astype(float)).fillna(0).round(1)
