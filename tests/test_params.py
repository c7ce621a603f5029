"""params.yaml as typed objects: what is right is read, what is wrong is one line that names key and fix."""

import copy
import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from vans.typed import above, between, build, choice

from vans.errors import UserError
from vans.params import find_root, from_dict, load, read

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tree():
    return copy.deepcopy(read(ROOT / "params.yaml"))


def test_the_committed_file_is_right_at_every_scale():
    for scale in read(ROOT / "params.yaml")["scales"]:
        assert load(ROOT, scale).scale == scale


def test_top_level_and_scale_sections_are_put_together(tree):
    params = from_dict(tree)
    assert params.stage1.reward == tree["stage1"]["reward"]
    assert params.video.frames == tree["scales"][tree["scale"]]["clip"]["frames"]


def test_resolved_is_plain_and_holds_only_the_current_scale(tree):
    resolved = from_dict(tree).resolved()
    assert yaml.safe_load(yaml.safe_dump(resolved["world"])) == tree["world"]
    assert "scales" not in resolved and resolved["scale"] == tree["scale"]


def test_objects_are_frozen(tree):
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_dict(tree).clip.frames = 5  # type: ignore[misc]


def _set(tree, path, value):
    *folders, name = path.split(".")
    for folder in folders:
        tree = tree[folder]
    if value is ...:
        del tree[name]
    else:
        tree[name] = value


WRONG = [
    ("scales.tiny.clip.hieght", 32, "scales.tiny.clip.hieght: unknown key; did you mean height"),
    ("scales.tiny.clip.height", ..., "scales.tiny.clip.height: missing; add it (a whole number from 8 up)"),
    ("scales.tiny.clip", ..., "scales.tiny.clip: missing"),
    ("scales.tiny.clip", 3, "scales.tiny.clip: must hold keys with values, not 3"),
    ("scales.tiny.clip.frames", 8, "scales.tiny.clip: frames must be 4k + 1"),
    ("scales.tiny.clip.frames", 9.0, "scales.tiny.clip.frames: 9.0 is not a whole number"),
    ("scales.tiny.clip.fps", 0, "scales.tiny.clip.fps: 0.0 is out of range; use a number above 0"),
    ("scales.tiny.clip.fps", float("nan"), "scales.tiny.clip.fps: nan is not a number"),
    ("scales.tiny.models.vlm.rpeo", None, "scales.tiny.models.vlm.rpeo: unknown key; did you mean repo"),
    ("scales.tiny.models.vlm.revision", 5, "scales.tiny.models.vlm.revision: 5 is not a text or null"),
    ("scales.tiny.stage1.reward", "full", "reward stands in stage1 and in scales.tiny.stage1"),
    ("scales.tiny.seed", 1, "seed stands at the top and in scales.tiny"),
    ("world.surprise", 1.5, "world.surprise: 1.5 is out of range; use a number from 0 to 1"),
    ("world.surprise", "1e-2", "write it with a point and a sign, like 1.0e-02"),
    ("world.seed", True, "world.seed: True is not a whole number from 0 up"),
    ("world.sed", 1, "world.sed: unknown key; did you mean seed"),
    ("world.zzzzzz", 1, "world.zzzzzz: unknown key; valid keys are seed"),
    ("stage2.reward", "no_c1", "stage2.reward: 'no_c1' is unknown; use full, no_c2 or no_v2"),
    ("scale", "tinny", "scale: 'tinny' is unknown; use tiny"),
    ("scales", ..., "scales: missing"),
    ("seed", -1, "seed: -1 is out of range; use a whole number from 0 up"),
]


@pytest.mark.parametrize("path, value, message", WRONG, ids=[f"{w[0]}={w[1]}" for w in WRONG])
def test_wrong_values_are_one_clear_line(tree, path, value, message):
    if path.startswith("scales.tiny.stage1"):
        tree["scales"]["tiny"].setdefault("stage1", {})
    _set(tree, path, value)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        from_dict(tree)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("params.yaml: ")


@pytest.mark.parametrize("side", ["height", "width"])
def test_h264_takes_even_sides_only(tree, side):
    tree["scales"]["tiny"]["clip"][side] = 33
    assert getattr(from_dict(tree).clip, side) == 33
    tree["scales"]["tiny"]["curate"]["codec"] = "h264"
    with pytest.raises(UserError, match="clip is .* but curate.codec: h264 needs an even height and width; make both"):
        from_dict(tree)


def test_a_mistake_in_another_scale_is_found_too(tree):
    tree["scales"]["other"] = copy.deepcopy(tree["scales"]["tiny"])
    assert from_dict(tree, "other").scale == "other"
    del tree["scales"]["other"]["clip"]["fps"]
    with pytest.raises(UserError, match=r"scales\.other\.clip\.fps: missing"):
        from_dict(tree, "tiny")


@pytest.mark.parametrize("text", ["a: [1", "just text", "", "a: \x00"])
def test_a_file_that_is_not_yaml(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="params.yaml"):
        load(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="missing; get it back"):
        load(tmp_path)


def test_the_root_is_found_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    assert find_root() == tmp_path
    assert find_root(ROOT / "tests") == ROOT


def test_no_root_is_a_user_error(tmp_path):
    if any((folder / "dvc.yaml").exists() for folder in tmp_path.parents):
        pytest.skip("a dvc.yaml above the temporary folder")
    with pytest.raises(UserError, match=r"no dvc\.yaml here or above"):
        find_root(tmp_path)


@dataclasses.dataclass(frozen=True)
class Example:
    sizes: tuple[int, ...] = between(1, 9)
    rate: float | None = above(0, 1)
    mode: str = choice("a")
    switch: bool = choice(True, False)
    free: dict = dataclasses.field(default_factory=dict)


GOOD = {"sizes": [1, 2], "rate": None, "mode": "a", "switch": False}


def test_lists_options_and_defaults():
    made = build(Example, GOOD, {})
    assert made == Example(sizes=(1, 2), rate=None, mode="a", switch=False, free={})
    assert build(Example, {**GOOD, "rate": 1}, {}).rate == 1.0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sizes": 3}, "sizes: 3 is not a list, each a whole number from 1 to 9"),
        ({"sizes": [0]}, "sizes: 0 is out of range; use a whole number from 1 to 9"),
        ({"sizes": ["1"]}, "sizes: '1' is not a whole number from 1 to 9"),
        ({"rate": 0}, "rate: 0.0 is out of range; use a number above 0 to 1"),
        ({"mode": "b"}, "mode: 'b' is unknown; use a"),
        ({"switch": 1}, "switch: 1 is not true or false"),
        ({"free": []}, "free: [] is not a section of keys with values"),
    ],
)
def test_lists_options_and_defaults_that_are_wrong(change, message):
    with pytest.raises(UserError, match=re.escape(message)):
        build(Example, {**GOOD, **change}, {})


def test_a_key_is_named_where_it_stands():
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["stage2"]["reward"] = "no_c3"
    with pytest.raises(UserError, match=r"params\.yaml: stage2\.reward: 'no_c3' is unknown"):
        from_dict(tree)
    tree["stage2"]["reward"] = "full"
    tree["scales"]["tiny"]["stage2"]["steps"] = 0
    with pytest.raises(UserError, match=r"scales\.tiny\.stage2\.steps: 0 is out of range"):
        from_dict(tree)


def test_batches_that_the_processes_cannot_share_are_refused():
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["scales"]["tiny"]["sft"]["vlm"]["batch"] = 3
    with pytest.raises(UserError, match=r"sft\.vlm\.batch is 3, which 2 processes"):
        from_dict(tree)
