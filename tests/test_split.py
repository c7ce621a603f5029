"""`vans split`: a list of held-out samples from annotations alone, and curation that takes it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests import smoke
from tests.data_helpers import curate_params, world_params
from vans import cli, code
from vans.data import split
from vans.data.curate import curate
from vans.data.split import Sample, choose, digest, shares
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.params import load
from vans.toy import world


def steps(*lengths: float, key: str = "label") -> list[dict]:
    """Annotated steps of these lengths, one after the other."""
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    times = zip(ends, lengths, strict=True)
    return [{"id": str(n), "segment": [e - s, e], key: f"step {n}"} for n, (e, s) in enumerate(times)]


@pytest.fixture
def data(tmp_path) -> Path:
    """COIN, YouCook2, ActivityNet Captions and own videos in their layouts, annotations alone."""
    coin = {f"coin{n}": {"subset": "testing", "class": "MakeTea", "annotation": steps(4, 4, 4)} for n in range(9)}
    coin["seen"] = {"subset": "training", "class": "MakeTea", "annotation": steps(4, 4)}
    coin["short"] = {"subset": "testing", "class": "MakeTea", "annotation": steps(4, 2, 4)}  # no pair has both
    coin["open"] = {"class": "MakeTea", "annotation": steps(4, 4)}  # COIN says nothing of it
    torn = steps(4, 4, 4)
    torn[1]["segment"] = [9, 3]
    coin["torn"] = {"subset": "testing", "class": "MakeTea", "annotation": torn}
    cook = {
        f"cook{n}": {"subset": "validation", "recipe_type": "1", "annotations": steps(5, 5, key="sentence")}
        for n in range(3)
    }
    cook["coin0"] = cook["cook0"]  # the same video as COIN's
    net = {
        f"v_net{n}": {"duration": 20, "timestamps": [[0, 5], [5, 9], [9, 20]], "sentences": ["a", "b", "c"]}
        for n in range(4)
    }
    files = {
        "a/COIN.json": {"database": coin},
        "b/youcookii_annotations_trainval.json": {"database": cook},
        "c/val_1.json": {k: net[k] for k in ("v_net0", "v_net1", "v_net2")},
        "c/train.json": {"v_net3": net["v_net3"]},
        "d/x.json": {
            "events": [{"start": 0, "end": 4, "text": "a"}, {"start": 4, "end": 8, "text": "b"}],
            "subset": "test",
        },
    }
    for name, tree in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tree))
    (tmp_path / "data/d/x.mp4").write_bytes(b"")
    return tmp_path / "data"


def test_the_list_follows_its_rule(data):
    found = choose(data, 400)
    videos = {kind: [f"{s.dataset}/{s.video}" for s in found if s.kind == kind] for kind in split.KINDS}
    assert videos["procedural"] == [*(f"COIN/coin{n}" for n in range(9)), *(f"YouCook2/cook{n}" for n in range(3))]
    assert videos["predictive"] == [f"ActivityNet Captions/v_net{n}" for n in range(3)]
    assert {(s.input, s.target) for s in found if s.dataset == "COIN"} == {("0", "1"), ("1", "2")}, "drawn, either"
    assert all(int(s.target) == int(s.input) + 1 for s in found)
    few = choose(data, 4)
    assert [s.dataset for s in few if s.kind == "procedural"] == ["COIN", "COIN", "YouCook2", "YouCook2"]
    assert set(few) < set(found) and len(few) == 4 + 3


def test_the_list_depends_on_annotations_alone(data, tmp_path):
    """Not on folders' names or on which videos are there; a changed annotation of a test video changes it."""
    found = choose(data, 5)
    assert digest(found) == digest(list(reversed(found)))
    (data / "a").rename(data / "z")
    (data / "z/coin3.mp4").write_bytes(b"no video")
    assert choose(data, 5) == found
    tree = json.loads((data / "z/COIN.json").read_text())
    del tree["database"]["seen"]
    (data / "z/COIN.json").write_text(json.dumps(tree))
    assert choose(data, 5) == found
    for n in range(9):
        tree["database"][f"coin{n}"]["annotation"] = steps(4, 2, 4, 4)
    (data / "z/COIN.json").write_text(json.dumps(tree))
    assert {(s.input, s.target) for s in choose(data, 5) if s.dataset == "COIN"} == {("2", "3")}


def test_shares():
    assert shares({"a": 300, "b": 3000}, 400) == {"a": 200, "b": 200}
    assert shares({"a": 3000, "b": 50, "c": 3000}, 400) == {"a": 175, "b": 50, "c": 175}
    assert shares({"a": 2, "b": 3}, 400) == {"a": 2, "b": 3} and shares({"a": 9, "b": 9}, 5) == {"a": 2, "b": 3}
    assert shares({}, 400) == {}


def test_the_digest_is_of_the_lines_by_hand():
    one = Sample("procedural", "COIN", "x", "1", "2")
    import hashlib

    assert digest([one]) == hashlib.sha256(b"vans-split-1\nprocedural\tCOIN\tx\t1\t2").hexdigest()[:16]


def test_a_list_that_is_not_whole_is_one_line(data, tmp_path):
    path, samples = tmp_path / "list.json", choose(data, 2)
    split.write(path, samples)
    assert split.read(path) == samples
    tree = json.loads(path.read_text())
    for change, said in (
        ({"samples": tree["samples"][1:]}, "was changed: its samples have the digest"),
        ({"rule": "mine"}, "is of the rule 'mine', not vans-split-1"),
        ({"samples": [{"video": "x"}]}, r"is no list of `vans split` \(TypeError\)"),
        ({"samples": 3}, r"is no list of `vans split` \(TypeError\)"),
    ):
        path.write_text(json.dumps(tree | change))
        with pytest.raises(UserError, match=said) as caught:
            split.read(path)
        assert "\n" not in str(caught.value)
    twice = [*samples, samples[0]]
    split.write(path, twice)
    with pytest.raises(UserError, match="names a video twice"):
        split.read(path)
    path.write_text("[")
    with pytest.raises(UserError, match="JSONDecodeError"):
        split.read(path)
    with pytest.raises(UserError, match=r"gone\.json: curate\.held_out: missing; write it again"):
        split.read(tmp_path / "gone.json")


# ---- in curation ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    world.generate(folder / "data", world_params(8, 6, 6, 4))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(smoke.ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--samples", "0"], "--samples 0: so many of each kind, one or more"),
        (["--samples", "-3"], "--samples -3: so many of each kind, one or more"),
        (["-o", "data"], "data: is a folder; name a file in it"),
    ],
)
def test_a_list_that_cannot_be_made_is_one_line_and_leaves_nothing(toy, monkeypatch, capsys, given, said):
    monkeypatch.chdir(toy)
    before = sorted(path.name for path in toy.iterdir())
    assert cli.main(["split", *given]) == 1
    assert capsys.readouterr().err == f"vans: {said}\n"
    assert sorted(path.name for path in toy.iterdir()) == before


def test_curation_holds_out_what_the_list_names(toy, monkeypatch, capsys):
    monkeypatch.chdir(toy)
    assert cli.main(["split", "--samples", "3", "-o", "held.json"]) == 0
    said = capsys.readouterr().out
    samples = split.read("held.json")
    assert "procedural: 3 (COIN " in said and "predictive: 3 (short films 3)" in said
    assert f"digest: {digest(samples)}" in said
    gone = next(s for s in samples if s.dataset == "COIN")
    moved = toy / "data/coin/videos" / f"{gone.video}.avi"
    kept = moved.read_bytes()
    moved.unlink()
    try:
        report = curate("data", "triplets", curate_params(held_out="held.json"), progress=False)
    finally:
        moved.write_bytes(kept)
    frame = Triplets("triplets").frame
    test = frame[frame["split"] == "test"]
    assert report["held_out"] == {"list": digest(samples), "samples": 6, "made": 5, "missing": [f"COIN/{gone.video}"]}
    assert {name.split("/")[1] for name in test["video"]} == {s.video for s in samples} - {gone.video}
    assert len(test) == test["video"].nunique() == 5
    named = {s.video: f"{s.input}-{s.target}" for s in samples if s.input}
    for row in test.itertuples():
        video = row.video.split("/")[1]
        assert video not in named or row.id.endswith(f"{video}-{named[video]}")
    dropped = pd.read_csv("triplets/dropped.csv")
    reasons = set(dropped["reason"])
    assert {split.UNLISTED, split.OTHER} <= reasons
    usual = curate("data", "usual", curate_params(), progress=False)
    train = [set(Triplets(folder).select(split="train")) for folder in ("triplets", "usual")]
    assert train[0] == train[1] and "held_out" not in usual, "training is the same"


def test_a_listed_video_of_the_training_half_is_held_out(toy, monkeypatch):
    monkeypatch.chdir(toy)
    first = next(iter(json.loads(Path("data/coin/COIN.json").read_text())["database"]))
    assert first.startswith("co_train")
    split.write("own.json", [Sample("procedural", "COIN", first, "2", "3")])
    curate("data", "own", curate_params(held_out="own.json"), progress=False)
    frame = Triplets("own").frame
    assert frame.loc[frame["split"] == "test", "video"].tolist() == [f"coin/{first}"]


def test_what_a_list_holds_decides_curation(tmp_path):
    params = load(smoke.ROOT).with_(curate={"held_out": "list.json"})
    none = code.of_curation(params, tmp_path)
    (tmp_path / "list.json").write_text("1")
    one = code.of_curation(params, tmp_path)
    (tmp_path / "list.json").write_text("2")
    assert len({none, one, code.of_curation(params, tmp_path), code.of_curation(load(smoke.ROOT), tmp_path)}) == 4


# ---- skipped steps -------------------------------------------------------------------------------------------
def test_a_pair_across_a_dropped_step_tells_it(toy, monkeypatch):
    """In the toy world a tenth of the steps are too short; those between two others add a training pair each."""
    monkeypatch.chdir(toy)
    plain = curate("data", "plain", curate_params(), progress=False)
    report = curate("data", "more", curate_params(skipped_steps=True), progress=False)
    before, after = (pd.read_parquet(f"{name}/manifest.parquet").set_index("id") for name in ("plain", "more"))
    assert "skipped" not in before and "skipped_steps" not in plain, "off: no column, the same file"
    added = after[after["skipped"]]
    assert list(after.index[~after["skipped"]]) == list(before.index) and set(added["split"]) == {"train"}
    assert report["skipped_steps"] == len(added) == report["pairs"]["kept"] - plain["pairs"]["kept"] > 0
    assert report["pairs"]["in"] == report["pairs"]["kept"] + sum(report["pairs"]["dropped"].values())
    told = {}
    for file, key, label in (
        ("coin/COIN.json", "annotation", "label"),
        ("youcook2/youcookii_annotations_trainval.json", "annotations", "sentence"),
    ):
        for name, entry in json.loads(Path("data", file).read_text())["database"].items():
            told[f"{file.split('/')[0]}/{name}"] = [step[label] for step in entry[key]]
    words = set(world.vocabulary())
    for row in added.itertuples():
        labels = told[row.video]
        at = labels.index(row.input_sentence)
        assert row.target_sentence == labels[at + 2] and row.question.startswith(f"{labels[at + 1]} ")
        middle, following = (world.read_label(labels[at + n]) for n in (1, 2))
        assert middle is not None and following is not None
        assert world.successor(row.topic, middle[1]) == following[1] and world.GERUND[middle[1]] in row.reasoning
        assert following[1] in world.caption_events(row.caption) and set(row.question.split()) <= words


def test_a_told_step_is_known_and_a_step_that_comes_again_is_no_answer():
    from vans.data.annotate import Refused, Request, rules

    request = Request("x", "procedural", "making tea", "boil water", "pour the tea", told="warm the pot")
    written = rules(request, 0, 0.0)
    assert written.question == "warm the pot. What is the next step of making tea?"
    assert written.reasoning.startswith("The video shows: boil water. Then comes: warm the pot. ")
    with pytest.raises(Refused, match="every question gives the answer away"):
        rules(Request("x", "procedural", "making tea", "boil water", "warm the pot", told="warm the pot"), 0, 0.0)
    again = Request("x", "procedural", "tea", "boil water", "pour hot tea", told="pour cold tea")
    assert rules(again, 0, 0.0).question.startswith("pour cold tea. "), "what is told gives nothing away"


def test_an_llm_is_told_the_step_and_asked_as_before_without_one():
    from vans.data.annotate import Request
    from vans.data.annotate.llm import _labels

    told = _labels(Request("x", "procedural", "tea", "boil", "pour", told="warm the pot"))["topic"]
    assert told.startswith("tea; between ") and told.endswith(": warm the pot")
    assert _labels(Request("x", "procedural", "tea", "boil", "pour")) == {"topic": "tea", "input_label": "boil"}
