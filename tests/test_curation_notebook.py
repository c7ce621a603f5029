"""Notebook 01 and its tables on data sets of every kind: people decide from them whether to train."""

import json
import sqlite3
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from tests import smoke
from tests.llm_server import Server, good, said
from tests.test_annotate import ECHOES, KEY, TEXTS
from vans.data.annotate.llm import ECHOED
from vans.llm.secret import Secret
from vans.media import video
from vans.notebooks import write_html
from vans.params import read
from vans.show import curation

NOTEBOOK = smoke.ROOT / "notebooks" / "01_data_curation.ipynb"


def put_own(folder, name, subset, seed, steps=3, **more):
    """A video of so many steps, each of its own pictures, with its sidecar."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (12 * steps, 8, 8, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    video.write(folder / f"{name}.avi", frames, 3.0)
    events = [{"start": 4 * i, "end": 4 * i + 4, "text": f"she does thing {i} of {name}"} for i in range(steps)]
    (folder / f"{name}.json").write_text(json.dumps({"events": events, "subset": subset, **more}))


@pytest.mark.parametrize(
    ("subsets", "told"),
    [
        (("testing", "testing"), "no triplet to train on"),
        (("training", "training"), "no triplet is held out"),
        (("training", "testing"), "rules wrote the texts of"),
    ],
)
def test_the_notebook_runs_and_speaks_plainly_whatever_is_missing(subsets, told, tmp_path, monkeypatch, capsys):
    tree = read(smoke.ROOT / "params.yaml")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (tmp_path / "dvc.yaml").touch()
    for seed, subset in enumerate(subsets):
        put_own(tmp_path / "data" / "own", f"v{seed}", subset, seed, kind=("procedural", "predictive")[seed])
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    said = capsys.readouterr().out
    assert told in said and f"{len(names['frame'])} triplets from 2 of 2 videos" in said
    assert set(names["frame"]["split"]) == {subset.removesuffix("ing") for subset in subsets}
    assert ("curate.rl asks for" in said) == ("training" in subsets)


def test_no_byte_below_the_root_holds_the_key(tmp_path, monkeypatch, capfd):
    """An endpoint that echoes it in every form, in texts, choices and checks: nothing that notebook 01 writes or prints
    has any of them; the triplets of the other answers are made."""
    monkeypatch.setenv("VANS_API_KEY", KEY)
    tree, forms = read(smoke.ROOT / "params.yaml"), iter([*ECHOES.values()])

    def behave(call):
        if call.task == "write" and call.number % 2:
            return said(next(forms, json.dumps(TEXTS)))
        if call.task != "write" and call.number in (0, 7):
            return said(json.dumps({"usable": True, "picture": 1, "why": KEY[::-1], "leaks": False}))
        return good(call)

    for seed, subset in enumerate(("training", "testing")):
        put_own(tmp_path / "data" / "own", f"v{seed}", subset, seed, steps=60)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with Server(behave) as server:
        tree["scales"]["tiny"]["curate"] |= {"annotator": "openai"}
        tree["scales"]["tiny"]["curate"]["llm"] |= {"url": server.url, "model": "toy", "attempts": 1, "concurrency": 1}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        shell = InteractiveShell()
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                with capture_output() as seen:
                    assert shell.run_cell(cell.source).success
                outputs = [nbformat.v4.new_output("display_data", show.data) for show in seen.outputs]
                cell.outputs = [nbformat.v4.new_output("stream", text=seen.stdout + seen.stderr), *outputs]
        (tmp_path / "executed").mkdir()
        nbformat.write(notebook, tmp_path / "executed/01_data_curation.ipynb")
        write_html(tmp_path / "executed/01_data_curation.ipynb")
    assert next(forms, None) is None, "every form was echoed"
    report = json.loads((tmp_path / "triplets/report.json").read_text())
    assert report["pairs"]["dropped"][ECHOED] >= len(ECHOES) and report["triplets"]["all"] > 10
    secret = Secret(KEY)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert {".parquet", ".sqlite", ".tar", ".csv", ".json", ".ipynb", ".html"} <= kinds
    captured = capfd.readouterr()
    assert not secret.inside(captured.out) and not secret.inside(captured.err)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert not any(map(secret.inside, text_of(path))), path
    with sqlite3.connect(tmp_path / "plant.sqlite") as base:
        base.execute("CREATE TABLE a (b TEXT)")
        base.execute("INSERT INTO a VALUES (?)", (KEY[::-1],))
    pd.DataFrame({"a": [KEY.encode().hex()]}).to_parquet(tmp_path / "plant.parquet")
    assert all(any(map(secret.inside, text_of(tmp_path / f"plant.{kind}"))) for kind in ("sqlite", "parquet"))


def text_of(path):
    """A file's bytes as text, and what its format packs away."""
    yield path.read_bytes().decode("latin-1")
    if path.suffix == ".parquet":
        yield pd.read_parquet(path).to_json(force_ascii=False)
    if path.suffix == ".sqlite":
        with sqlite3.connect(path) as base:
            yield "\n".join(base.iterdump())


def manifest(**columns):
    base = {"split": ["train"] * 3 + ["test"], "style": "written", "rl": [True, True, False, False]}
    base["rl_score"] = [0.9, 0.8, 0.1, 0.5]
    return pd.DataFrame(base | columns)


def report(kept=4, dropped=None, **more):
    dropped = dropped or {}
    return {"videos": {"in": kept + sum(dropped.values()), "kept": kept, "dropped": dropped}, **more}


def settings(rl=2, agreement="clip"):
    return SimpleNamespace(curate=SimpleNamespace(rl=rl, agreement=agreement))


def test_no_concern_is_said_as_well():
    (line,) = curation.concerns(manifest(), report(), settings())
    assert line.startswith("nothing stands out")


@pytest.mark.parametrize(
    ("about", "line"),
    [
        ({"frame": manifest(split="test")}, "no triplet to train on: all that was kept is held out"),
        (
            {"frame": manifest(split="test"), "report": report(leaks={"dropped_from_training": 3})},
            "no triplet to train on: 3 training videos went, too like held-out ones",
        ),
        ({"frame": manifest(rl_score=0.7)}, "all RL scores are equal"),
        (
            {"report": report(9, {"annotation not readable (is not JSON)": 1}, details=["own/x: is not JSON"])},
            "1 annotations could not be read: own/x: is not JSON",
        ),
        ({"frame": manifest(split="train")}, "no triplet is held out"),
        ({"report": report(1, {"a": 2, "b": 3})}, "5 of 6 videos were dropped, most often: b"),
        ({"params": settings(rl=9)}, "the RL subset has 2 triplets where curate.rl asks for 9"),
        ({"frame": manifest(style=["plain", "flowery", "given", "written"])}, "rules wrote the texts of 2 triplets"),
        ({"params": settings(agreement="none")}, "nobody has measured whether captions fit"),
        ({"report": report(not_read={"count": 2, "files": ["a/b.json (x)"]})}, "2 files were not read: a/b.json"),
    ],
)
def test_each_concern(about, line):
    given = {"frame": manifest(), "report": report(), "params": settings()} | about
    said = curation.concerns(**given)
    assert len(said) == 1 and said[0].startswith(line)


def test_the_toy_world_may_have_its_texts_from_rules():
    frame = manifest(style="plain")
    assert curation.concerns(frame, report(), settings(agreement="none"), toy=True)[0].startswith("nothing stands out")


def test_segment_lengths_by_outcome_the_kept_ones_first():
    outcomes = ["kept", "a", "a", "b", "c", "d", "kept"]
    ends = [3.0, 1, 2, 3, 4, 5, np.nan]
    segments = pd.DataFrame({"start": 0.0, "end": ends, "outcome": outcomes})
    found = curation.segment_lengths(segments, most=2)
    assert next(iter(found)) == "kept" and list(found["kept"]) == [3] and list(found["a"]) == [1, 2]
    assert sum(len(some) for some in found.values()) == 6 and len(found["dropped for other reasons"]) == 2
    assert curation.segment_lengths(segments[segments["outcome"] == "none"]) == {}


def test_counts_variety_and_leaks_are_those_of_the_manifest():
    level = {"in": 3, "kept": 1, "dropped": {"a": 2}}
    made = dict.fromkeys(("videos", "segments", "pairs"), level)
    assert (curation.counts(made).loc["pairs"] == [3, 1, 2]).all()
    frame = pd.DataFrame(
        {
            "kind": ["procedural", "procedural", "predictive"],
            "question": ["what now ?", "what now ?", "why ?"],
            "split": ["train", "test", "train"],
            **{"video": ["a", "b", "c"], "scene": ["s", "t", "s2"], "group": ["a", "a", "c"]},
        }
    )
    table = curation.variety(frame)
    assert table.loc["procedural", "share distinct"] == 0.5 and table.loc["predictive", "words, mean"] == 2
    told = {"near_duplicate": 0.4, "across_the_split": {"nearest": None, "test_video": "b"}}
    facts = curation.leaks(frame, {"leaks": told})["leak report"]
    assert facts["groups in training and in test"] == 1 and facts["videos in training and in test"] == 0
    assert facts["kept groups of near-duplicates of several scenes"] == 1
    assert facts["counts as the same up to a distance of"] == 0.4 and facts["across the split: nearest"] == "—"


def test_rl_terms_and_shares_with_and_without_triplets():
    rows = {"agreement": [0.2, None], "motion": [0.1, 0.0], "caption_words": [9, 9], "questions_refused": [0, 1]}
    train = pd.DataFrame(rows | {"rl": [True, False], "rl_score": [0.8, 0.5], "topic": ["a", "b"]})
    table = curation.rl_terms(train, 0.2)
    assert table.loc["taken", "agreement"] == 0.5 and table.loc["refused", "self_check"] == 0.5
    assert table.loc["refused", "triplets"] == 1 and np.isnan(table.loc["refused", "agreement"])
    assert curation.shares(train, "topic").to_dict() == {
        "training": {"a": 50.0, "b": 50.0},
        "RL subset": {"a": 100.0, "b": 0.0},
    }
    assert curation.rl_terms(train[:0], 0.2).empty and curation.shares(train[:0], "topic").empty


def test_reasons_are_ordered_by_how_many_they_are():
    names = [("video", "a", "odd"), ("pair", "p", "short"), *(("video", n, "broken") for n in "bcde")]
    table = curation.reasons(pd.DataFrame(names, columns=["level", "name", "reason"]))
    assert table["reason"].tolist() == ["broken", "odd", "short"] and table["count"].tolist() == [4, 1, 1]
    assert table.loc[0, "first"] == "b, c, d"
    assert list(curation.by_size({"a": 1, "b": 3, "c": 3})) == ["b", "c", "a"]
