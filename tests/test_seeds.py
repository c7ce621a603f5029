"""Training seeds: what is kept of a run, what is never mixed, and the table's verdicts where they are known."""

import copy
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from tests import smoke
from vans.errors import UserError
from vans.score import score
from vans.score.score import Resampling
from vans.score.two_level import spread
from vans.show import seeds as drawn
from vans.tables import orders, report, seeds, seeds_markdown, seeds_table
from vans.tables.seeds import Seed

N = 60
SAMPLES = pd.DataFrame(
    {
        "id": [f"s{i}" for i in range(N)],
        "kind": ["procedural"] * 20 + ["predictive"] * 40,
        "group": [f"g{i}" if i < 20 else f"scene{i // 2}" for i in range(N)],
    }
)
SHARED = {"triplets": "aa.dir", "models/base": "bb.dir"}
# arm -> what it adds to CLIP-V, and the spread of that over trainings
ADDS = {
    "sft": (0.0, 0.0),
    "stage1": (0.1, 0.001),
    "main": (0.11, 0.02),
    "no_c2": (0.2, 0.001),
    "no_v2": (0.1104, 0.001),
}


def made_up(train_seed: int, seed: int = 0) -> Seed:
    rng = np.random.default_rng([seed, train_seed])
    sample = np.random.default_rng(9).normal(0.5, 0.1, N)
    arms = {}
    for arm, (add, of_seed) in ADDS.items():
        clip_v = sample + add + of_seed * rng.normal() + 0.002 * rng.normal(size=N)
        arms[arm] = pd.DataFrame({"clip_v": clip_v.round(5), "rouge_l": np.full(N, 0.5), "static": 0.0})
    distances = {arm: {"fvd": {"all": [3.0, *np.linspace(2.9, 3.1, 40)]}} for arm in arms}
    stages = {"sft": "1234", "score@main": "5678"}
    return Seed(seed, train_seed, stages, dict(SHARED), 300, SAMPLES, arms, distances)


@pytest.fixture(scope="module")
def runs() -> list[Seed]:
    return [made_up(train_seed) for train_seed in range(6)]


@pytest.fixture(scope="module")
def table(runs) -> seeds_table.SeedTable:
    return seeds_table.build([*runs, made_up(7, seed=1)])


# ---- files ---------------------------------------------------------------------------------------------------
def test_a_file_holds_what_was_kept_and_has_the_same_bytes_again(tmp_path):
    made = made_up(3)
    made.arms["sft"].loc[4, "clip_v"] = np.nan
    path = made.save(tmp_path)
    read = seeds.read(path)
    assert path.name == "seed0_train3.json.gz" and read.bytes() == path.read_bytes() == made.bytes()
    pd.testing.assert_frame_equal(read.arms["sft"], made.arms["sft"], check_dtype=False)
    assert read.samples.equals(SAMPLES) and read.distances == made.distances


def test_seeds_of_one_recipe_are_read_together_in_their_order(tmp_path):
    for train_seed in (10, 2, 0):
        made_up(train_seed).save(tmp_path)
    replace(made_up(1, seed=1), shared={"triplets": "cc", "models/base": "dd"}).save(tmp_path)  # varies them all
    assert [(run.seed, run.train_seed) for run in seeds.load(tmp_path)] == [(0, 0), (0, 2), (0, 10), (1, 1)]


@pytest.mark.parametrize(
    "change, what",
    [
        ({"stages": {"sft": "1234", "score@main": "other"}}, "score@main"),
        ({"shared": {**SHARED, "models/base": "other"}}, "models/base"),
        ({"samples": SAMPLES.assign(id=[f"t{i}" for i in range(N)])}, "the evaluated samples"),
    ],
)
def test_a_seed_of_another_recipe_is_refused_by_name_and_not_mixed(tmp_path, change, what):
    for train_seed in range(3):
        made = made_up(train_seed)
        (replace(made, **change) if train_seed == 1 else made).save(tmp_path)
    with pytest.raises(UserError) as caught:
        seeds.load(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'seed0_train1.json.gz'}: {what}: made by other code, parameters or data than ")
    assert "train seed 0, 2; remove the file, or run train seed 1 again" in line


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-20], lambda b: b"", lambda b: b"{}", lambda b: b[:10] + b"\xff" * 8 + b[18:]]
)
def test_a_file_that_is_not_whole_is_one_line(tmp_path, damage):
    path = made_up(0).save(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"seed0_train0.json.gz: no whole scores of a seed"):
        seeds.load(tmp_path)


def test_a_file_under_another_seeds_name_is_refused(tmp_path):
    made_up(0).save(tmp_path).rename(tmp_path / "seed0_train4.json.gz")
    with pytest.raises(UserError, match="its name"):
        seeds.load(tmp_path)


# ---- from a run ----------------------------------------------------------------------------------------------
def _stage(cmd: str, deps: dict[str, str], outs: dict[str, str], **params: object) -> dict:
    rows = [[{"path": path, "md5": md5} for path, md5 in some.items()] for some in (deps, outs)]
    return {"cmd": cmd, "deps": rows[0], "params": {"params.yaml": params}, "outs": rows[1]}


def _lock(train_seed: int = 4) -> dict[str, dict]:
    both = {"seed": 0, "train_seed": train_seed}
    vlm = f"vlm {train_seed}"
    lock = {
        "strip": _stage("strip", {}, {"stripped": "s"}),
        "curate": _stage("curate", {"data": "d"}, {"triplets": "t"}, seed=0),
        "base": _stage("base", {"triplets": "t", "stripped/code/base.txt": "c"}, {"models/base": "b"}, seed=0),
        "sft": _stage("sft", {"models/base": "b", "triplets": "t"}, {"models/sft": f"m {train_seed}"}, **both, lr=1),
    }
    for arm in ("sft", "main"):
        answers = f"p {arm} {train_seed}"
        read = {"models/sft/vlm": vlm, "models/base": "b", "triplets": "t"}
        lock[f"answer@{arm}"] = _stage(arm, read, {f"predictions/{arm}": answers}, seed=0)
        lock[f"score@{arm}"] = _stage("score", {f"predictions/{arm}": answers}, {f"results/scores/{arm}.csv": "x"})
    return lock


def _scores(arm: str) -> SimpleNamespace:
    frame = SAMPLES.assign(clip_v=np.linspace(0, 1, N) / 3, caption="words")
    summary = {"metrics": {"all": {"fvd": {"value": 2.0}}}, "fvd_left_out": {"all": [2.1, 1.9]}}
    return SimpleNamespace(arm=arm, frame=frame, summary=summary, resampling=Resampling())


SCORED = {arm: _scores(arm) for arm in ("sft", "main")}


def test_what_is_kept_of_a_run():
    found, reasons = seeds.of_run(_lock(), SCORED)  # type: ignore[arg-type]
    assert (found.seed, found.train_seed, reasons) == (0, 4, {})
    assert found.shared == {"triplets": "t", "models/base": "b"}
    assert list(found.stages) == sorted(set(_lock()) - {"strip"})
    assert list(found.arms["main"]) == ["clip_v"] and found.arms["main"]["clip_v"].iloc[1] == float(f"{1 / 59 / 3:.5g}")
    assert found.distances["main"]["fvd"] == {"all": [2.0, 2.1, 1.9]}


def test_seeds_have_the_same_digests_and_other_parameters_code_or_data_have_not():
    digests = seeds.of_run(_lock(4), SCORED)[0].stages  # type: ignore[arg-type]
    assert seeds.of_run(_lock(5), SCORED)[0].stages == digests  # type: ignore[arg-type]
    lock = _lock(5)
    lock["sft"]["params"]["params.yaml"]["scales.tiny.machine.processes"] = 2
    assert seeds.of_run(lock, SCORED)[0].stages == digests  # type: ignore[arg-type]
    changes = {"curate": ("deps", "data"), "base": ("deps", "stripped/code/base.txt"), "sft": ("params", "lr")}
    for stage, (part, name) in changes.items():
        lock = copy.deepcopy(_lock(5))
        if part == "params":
            lock[stage]["params"]["params.yaml"][name] = 2
        else:
            next(dep for dep in lock[stage]["deps"] if dep["path"] == name)["md5"] = "new"
        found = seeds.of_run(lock, SCORED)[0].stages  # type: ignore[arg-type]
        assert {one for one in found if found[one] != digests[one]} == {stage}


def test_an_arm_of_another_training_is_left_out(tmp_path):
    lock = _lock(4)
    lock["rl"] = _stage("rl", {"models/sft/vlm": "vlm 4"}, {"models/rl": "r"}, seed=0, train_seed=0)
    lock["answer@main"]["deps"].append({"path": "models/rl/vlm", "md5": "v"})
    found, reasons = seeds.of_run(lock, SCORED)  # type: ignore[arg-type]
    assert list(found.arms) == ["sft"] and reasons == {"main": "rl was run with train_seed 0"}
    assert "rl" not in found.stages
    lock = _lock(4)
    lock["score@main"]["deps"][0]["md5"] = "older"
    assert seeds.of_run(lock, SCORED)[1] == {"main": "score@main was run with another predictions/main"}  # type: ignore[arg-type]


def test_scores_that_no_stage_made_are_left_out_and_a_run_without_any_is_one_line():
    found, reasons = seeds.of_run(_lock(), {**SCORED, "theirs": _scores("theirs")})  # type: ignore[arg-type, dict-item]
    assert list(found.arms) == ["sft", "main"] and reasons == {"theirs": "score@theirs is not in dvc.lock"}
    with pytest.raises(UserError, match="no arm belongs to one run"):
        seeds.of_run(_lock(), {})
    with pytest.raises(UserError, match="sft is not there"):
        seeds.of_run({}, SCORED)  # type: ignore[arg-type]


def test_an_arm_of_a_folder_that_has_changed_since_is_left_out(tmp_path):
    """DVC's hash of a part of a folder comes from the cache's list of the whole."""
    files = [{"md5": "1", "relpath": "vdm/a"}, {"md5": "2", "relpath": "vlm/b"}, {"md5": "3", "relpath": "vlm/c"}]
    part = json.dumps([{"md5": "2", "relpath": "b"}, {"md5": "3", "relpath": "c"}], sort_keys=True)
    vlm = hashlib.md5(part.encode()).hexdigest() + ".dir"
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/cd.dir").write_text(json.dumps(files))
    lock = _lock()
    lock["sft"]["outs"] = [{"path": "models/sft", "md5": "abcd.dir"}]
    lock["answer@sft"]["deps"][0]["md5"] = vlm
    found, reasons = seeds.of_run(lock, SCORED, tmp_path)  # type: ignore[arg-type]
    assert list(found.arms) == ["sft"] and reasons == {"main": "answer@main was run with another models/sft/vlm"}


# ---- the table -----------------------------------------------------------------------------------------------
def _claim(table: seeds_table.SeedTable, first: str, second: str, metric: str) -> seeds_table.Claim:
    pair = (first, second, metric)
    return next(c for c in table.claims if (c.order.first, c.order.second, c.order.metric) == pair)


def test_verdicts_that_are_known(table):
    assert _claim(table, "sft", "stage1", "clip_v").verdict == "holds"
    assert _claim(table, "no_c2", "main", "clip_v").verdict == "does not hold"
    assert _claim(table, "stage1", "main", "clip_v").verdict == "undecided"
    assert _claim(table, "stage1", "main", "rouge_l").verdict == "equal within the interval"
    assert not any(one.order.first == "all_in_one" for one in table.claims), "an arm that no seed has"


def test_a_difference_is_the_mean_over_seeds_of_paired_differences(runs, table):
    one = _claim(table, "stage1", "main", "clip_v")
    each = {run.train_seed: (run.arms["main"] - run.arms["stage1"])["clip_v"].mean() for run in runs}
    assert one.each == pytest.approx(each) and one.ours.value == pytest.approx(np.mean(list(each.values())))
    assert one.ours.n == N and table.groups == 40
    assert one.spread.seed == pytest.approx(0.02**2, rel=0.9) and one.spread.seed > 20 * one.spread.group


def test_groups_of_one_size_have_the_interval_of_their_means(runs):
    table = seeds_table.build(runs, "predictive")
    values = np.stack([run.arms["main"]["clip_v"][20:].to_numpy().reshape(20, 2).mean(1) for run in runs])
    found, right = table.means["main", "clip_v"].ours, spread(values).interval(values.mean(), 40)
    assert (found.value, found.lo, found.hi) == pytest.approx((right.value, right.lo, right.hi))


def test_a_distance_of_seeds_that_agree_has_its_jackknifes_interval(tmp_path):
    """From the scores' features to the table: two seeds that agree leave the samples' own error."""
    features = np.random.default_rng(5).normal(size=(2, N, 3)) + np.array([0.5, 0.0])[:, None, None]
    values, parts = score.summarise(SAMPLES.assign(caption=""), {"fvd": features}, Resampling(resamples=20))
    one = SimpleNamespace(**{**vars(_scores("main")), "summary": {"metrics": values, **parts}})
    run = seeds.of_run(_lock(), {"main": one})[0]  # type: ignore[dict-item]
    table = seeds_table.build([run, replace(run, train_seed=5)])
    found, right = table.means["main", "fvd"].ours, values["all"]["fvd"]
    assert (found.value, found.lo, found.hi) == pytest.approx((right["value"], right["lo"], right["hi"]), rel=1e-3)


def test_an_arms_interval_holds_only_what_can_be(runs):
    rare = pd.Series(0.0, SAMPLES.index)
    rare[3] = 1.0
    rarely = [replace(run, arms={"main": run.arms["main"].assign(static=rare, video_event=1 - rare)}) for run in runs]
    table = seeds_table.build(rarely)
    static, event = (table.means["main", name].ours for name in ("static", "video_event"))
    assert (static.lo, event.hi) == (0.0, 1.0) and static.hi == pytest.approx(1 - event.lo) and 0.01 < static.hi < 0.1


def test_what_an_undecided_one_would_cost(table):
    """Its corrected verdict falls with so many seeds, and not with one less, all else being what it is."""
    one = _claim(table, "stage1", "main", "clip_v")
    equal = sum(claim.verdict == "equal within the interval" for claim in table.claims)
    assert equal == 3, "ROUGE-L of the arms with stage 1's captions: Holm's procedure has not taken them either"
    needed = 0.05 / (len(table.undecided) + equal)
    assert one.more is not None and one.more > 6
    assert one.spread.p_value(one.ours.value, one.more) <= needed < one.spread.p_value(one.ours.value, one.more - 1)
    assert _claim(table, "no_c2", "main", "static").more is None


def test_runs_that_vary_everything_are_in_no_mean(runs, table):
    alone = seeds_table.build(runs)
    assert alone.means["main", "clip_v"].ours == table.means["main", "clip_v"].ours
    assert list(table.means["main", "clip_v"].varied) == table.varied == ["seed 1, train seed 7"]
    assert "*everything: seed 1, train seed 7*" in seeds_markdown.markdown({"all": table})


def test_one_seed_has_no_interval_and_no_verdict():
    table = seeds_table.build([made_up(0)])
    assert np.isnan(table.means["main", "clip_v"].ours.lo)
    assert {one.verdict for one in table.claims} == {"not measured"}
    assert "need two seeds" in seeds_markdown.claims(table)


def test_an_arm_that_only_some_seeds_have(runs):
    some = [replace(run, arms={a: f for a, f in run.arms.items() if a != "no_c2"}) for run in runs[:4]] + runs[4:]
    table = seeds_table.build(some)
    assert list(table.means["no_c2", "clip_v"].each) == list(_claim(table, "no_c2", "main", "clip_v").each) == [4, 5]
    assert len(table.means["main", "clip_v"].each) == 6


def test_claims_of_arms_that_one_seed_has_are_told_and_not_corrected_for(runs):
    few = [replace(run, arms={a: f for a, f in run.arms.items() if a[:3] != "no_"}) for run in runs[1:]]
    table = seeds_table.build([runs[0], *few])
    text = seeds_markdown.claims(table)
    assert "r_c2 helps stage 2: too few seeds for ROUGE-L, FVD, CLIP-V, static." in text
    tested = sum(len(claim.each) == 6 for claim in table.claims)
    assert len(table.tested) == tested < len(table.claims) and f"corrected for the {tested} differences that" in text
    assert f"of {tested}." in text


def test_arms_that_choose_have_names_and_the_ceiling_is_called_one(runs):
    best = [replace(run, arms={**run.arms, "sft_oracle": run.arms["sft"]}) for run in runs]
    assert "| SFT, best by the oracle (ceiling) " in seeds_markdown.grid(seeds_table.build(best))


def test_a_picture_of_differences_says_which_side_is_better(table):
    (said,) = [text.get_text() for text in drawn.claims(table).texts if "better" in text.get_text()]
    assert "right of 0 is better" in said and not any("better" in t.get_text() for t in drawn.arms(table).texts)


def test_an_arm_that_no_layout_has_is_a_row_of_its_own_name(runs):
    table = seeds_table.build([replace(run, arms={**run.arms, "round2": run.arms["main"]}) for run in runs])
    assert table.arms[-1] == "round2" and "| round2 " in seeds_markdown.markdown({"all": table})
    assert drawn.arms(table).axes


def test_files_and_figures_of_the_table_and_of_none(runs, tmp_path):
    tables = seeds_markdown.write(runs, tmp_path)
    text = (tmp_path / "seeds.md").read_text()
    assert "Stage 1 improves on SFT: holds for CLIP-V" in text and "nan" not in text
    assert set(pd.read_csv(tmp_path / "seeds.csv")["kind"]) == {"procedural", "predictive", "all"} == set(tables)
    assert drawn.arms(tables["all"]).axes and drawn.claims(tables["all"]).axes
    assert seeds_markdown.write([], tmp_path) == {}
    assert seeds_markdown.NO_SEEDS in (tmp_path / "seeds.md").read_text()
    drawn.arms(None), drawn.claims(None)


def test_readme_shows_seeds_once_there_are_enough(tmp_path):
    line = {"kind": "all", "row": "main", "n": 60, "fvd_detector": "detector: x", "clip_v": 0.6}
    pd.DataFrame([line]).to_csv(tmp_path / "main.csv")
    (tmp_path / "main.md").write_text("# Main\n")
    for train_seed in range(3):
        text = report.headline(tmp_path)
        assert ("over trainings *and* samples" in text) is False and "60 held-out samples, 95 %" in text
        made_up(train_seed).save(Path(tmp_path) / "seeds")
    text = report.headline(tmp_path)
    assert "3 training seeds (0, 1, 2) on the same base models, 60 held-out samples in 40 groups" in text
    assert "| + stage 2: Joint-GRPO | 3 " in text and "Stage 1 improves on SFT: holds for CLIP-V" in text


# ---- with DVC ------------------------------------------------------------------------------------------------
MAKE = """
import json, sys
from pathlib import Path
import yaml
what, seed = sys.argv[1], yaml.safe_load(open("params.yaml"))["train_seed"]
for path in sys.argv[2:]:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = f"{what} {seed if what in ('sft', 'answer', 'score') else ''}"
    if path.endswith(".csv"):
        rows = [f"s{i},procedural,g{i},a,b,0.{i}{seed}" for i in range(5)]
        text = "\\n".join(["id,kind,group,truth,caption,clip_v", *rows])
    if path.endswith(".json"):
        text = json.dumps({"arm": "main", "metrics": {"all": {}}, "resampling": {}})
    Path(path).write_text(text)
"""
STAGES = {
    "curate": ([], ["triplets"], []),
    "base": (["triplets"], ["models/base"], ["seed"]),
    "sft": (["models/base", "triplets"], ["models/sft"], ["seed", "train_seed", "lr"]),
    "answer@main": (["models/sft"], ["predictions/main"], ["seed"]),
    "score@main": (["predictions/main"], ["results/scores/main.csv", "results/scores/main.json"], ["seed"]),
}


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository whose stages write a few bytes, run once and committed."""
    stages: dict[str, dict] = {}
    for name, (deps, outs, params) in STAGES.items():
        stage = name.partition("@")[0]
        body = {
            "cmd": f"{sys.executable} make.py {stage} {' '.join(outs)}",
            "deps": deps,
            "outs": outs,
            "params": params,
        }
        stages[stage] = {"foreach": ["main"], "do": body} if "@" in name else body
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "params.yaml").write_text("seed: 0\ntrain_seed: 0\nlr: 1\n")
    (tmp_path / "make.py").write_text(MAKE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(seeds, "parameters", lambda _: SimpleNamespace(evaluate=SimpleNamespace(metrics=[])))
    for command in (["git", "init", "-q"], ["git", "config", "user.email", "a@b"], ["git", "config", "user.name", "t"]):
        smoke.run(*command, cwd=tmp_path)
    smoke.dvc(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/triplets\n/models\n/predictions\n/results\n")
    smoke.dvc(tmp_path, "repro", "-q")
    smoke.commit(tmp_path, "first seed")
    return tmp_path


def test_experiments_are_kept_without_being_applied(repository):
    smoke.dvc(repository, "exp", "run", "-q", "--temp", "--name", "second", "-S", "train_seed=1")
    smoke.dvc(repository, "exp", "run", "-q", "--temp", "--name", "faster", "-S", "train_seed=2", "-S", "lr=2")
    lines = seeds.collect(repository)
    assert sorted(lines) == [
        "experiment faster: left out: sft has other code, parameters or data than this run",
        "experiment second: seed0_train1.json.gz, 1 arms",
        "this run: seed0_train0.json.gz, 1 arms",
    ]
    kept = seeds.load(repository / seeds.FOLDER)
    assert [run.train_seed for run in kept] == [0, 1] and kept[0].stages == kept[1].stages
    assert kept[1].arms["main"]["clip_v"].tolist() == [0.01, 0.11, 0.21, 0.31, 0.41]
    changed = smoke.run("git", "status", "--porcelain", cwd=repository).split()
    assert changed == ["??", "docs/"], "nothing else is written"
    more = replace(kept[0], arms={**kept[0].arms, "other": kept[0].arms["main"]})
    more.save(repository / seeds.FOLDER)
    assert f"{more.name}: stays as it is, with more arms of the same training" in seeds.collect(repository)
    replace(more, stages={**more.stages, "sft": "0" * 16}).save(repository / seeds.FOLDER)
    before = (repository / seeds.FOLDER / more.name).read_bytes()
    with pytest.raises(UserError, match=f"{more.name}: holds 2 arms of other code, .* this run's 1 take its place"):
        seeds.collect(repository)
    assert (repository / seeds.FOLDER / more.name).read_bytes() == before
    replace(kept[0], stages={**more.stages, "sft": "0" * 16}).save(repository / seeds.FOLDER)
    assert f"{more.name}: in the place of one of other code, parameters or data" in seeds.collect(repository)
    assert seeds.read(repository / seeds.FOLDER / more.name).stages == kept[0].stages
    replace(kept[0], shared={**more.shared, "triplets": "others"}).save(repository / seeds.FOLDER)
    seeds.collect(repository)
    assert list(seeds.load(repository / seeds.FOLDER)[0].arms) == ["main"], "of other data: made anew"


def test_what_the_readme_says_of_the_published_seeds():
    readme = " ".join((smoke.ROOT / "README.md").read_text(encoding="utf-8").split())
    runs = seeds.load(smoke.ROOT / seeds.FOLDER)
    table = seeds_table.build(runs)
    clear = [claim for claim in table.undecided if claim.ours.lo > 0 or claim.ours.hi < 0]
    against = 0
    for claim in clear:
        o = claim.order
        gap, better = orders.expected(o.first, o.second, o.metric, o.kind)
        against += claim.ours.value * (gap or better) < 0
    assert f"so {len(clear)} of the undecided ones exclude 0, {against} of them against the paper" in readme
    same = [run for run in runs if run.seed == 0]
    alone = {arm: np.mean([_alone(run.arms[arm]) for run in same]) for arm in ("sft", "stage1")}
    assert f"{alone['sft']:.0%} of SFT's captions and {alone['stage1']:.0%} of stage 1's".replace("%", " %") in readme
    first = next(run for run in same if run.train_seed == 0)
    one = [f"{_alone(first.arms[arm]):.0%}".rstrip("%") for arm in ("cascade", "sft", "main")]
    assert f"(alone mean it {one[0]}, {one[1]} and {one[2]} %)" in readme
    fvd = {arm: one.ours.value for (arm, metric), one in table.means.items() if metric == "fvd"}
    assert min(fvd, key=fvd.__getitem__) == "copy"


def _alone(captions: pd.DataFrame) -> float:
    """The share that fit the true event and no other."""
    return float((captions["caption_event"] * captions["caption_renderable"]).mean())
