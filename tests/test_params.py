"""params.yaml as typed objects: what is right is read, what is wrong is one line that names key and fix."""

import copy
import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ruamel.yaml import YAML

from vans.errors import UserError
from vans.grid import Grid
from vans.params import Params, find_root, from_dict, load, read

ROOT = Path(__file__).resolve().parents[1]
TREE = read(ROOT / "params.yaml")


@pytest.fixture
def tree():
    return copy.deepcopy(TREE)


def test_the_committed_file_is_right_at_every_scale():
    for scale in read(ROOT / "params.yaml")["scales"]:
        assert load(ROOT, scale).scale == scale


def test_top_level_and_scale_sections_are_put_together(tree):
    params = from_dict(tree)
    assert params.stage1.reward == tree["stage1"]["reward"]
    assert params.video.frames == tree["scales"][tree["scale"]]["video"]["frames"]
    assert params.stage2.lr == tree["defaults"]["stage2"]["lr"]


def test_resolved_is_plain_and_holds_only_the_current_scale(tree):
    resolved = from_dict(tree).resolved()
    assert yaml.safe_load(yaml.safe_dump(resolved["world"])) == tree["world"]
    assert "scales" not in resolved and resolved["scale"] == tree["scale"]


def test_objects_are_frozen(tree):
    with pytest.raises(ValidationError, match="frozen"):
        from_dict(tree).video.frames = 5  # type: ignore[misc]


def _set(tree, path, value):
    *folders, name = path.split(".")
    for folder in folders:
        tree = tree[folder]
    if value is ...:
        del tree[name]
    else:
        tree[name] = value


WRONG = [
    ("scales.tiny.video.hieght", 32, "scales.tiny.video.hieght: unknown key; did you mean height"),
    ("scales.tiny.video.height", ..., "scales.tiny.video.height: missing; add it (a whole number from 8 up)"),
    ("scales.tiny.video", ..., "scales.tiny.video.frames: missing; add it (a whole number from 1 up)"),
    ("scales.tiny.video", 3, "scales.tiny.video: must hold keys with values, not 3"),
    ("scales.tiny.video.frames", 8, "scales.tiny.video.frames: 8 does not fit the models"),
    ("scales.tiny.video.frames", 9.5, "scales.tiny.video.frames: 9.5 is not a whole number"),
    ("scales.tiny.video.fps", 0, "scales.tiny.video.fps: 0.0 is out of range; use a number above 0"),
    ("scales.tiny.video.fps", float("nan"), "scales.tiny.video.fps: nan is not a number"),
    ("scales.tiny.models.vlm.rpeo", None, "scales.tiny.models.vlm.rpeo: unknown key; did you mean repo"),
    ("scales.tiny.models.vlm.revision", 5, "scales.tiny.models.vlm.revision: 5 is not a text or null"),
    ("scales.tiny.stage1.reward", "full", "reward stands in stage1 and in scales.tiny.stage1"),
    ("scales.tiny.seed", 1, "seed stands at the top and in scales.tiny"),
    ("world.surprise", 1.5, "world.surprise: 1.5 is out of range; use a number from 0 to 1"),
    ("world.surprise", "little", "world.surprise: 'little' is not a number from 0 to 1"),
    ("world", ..., "world: missing; add it (a section with seed,"),
    ("defaults.stage2.lr", "5e", "defaults.stage2.lr: '5e' is not a number above 0"),
    ("defaults.stage2.lrr", 1.0, "defaults.stage2.lrr: unknown key; did you mean lr"),
    ("defaults.seed", 1, "seed stands at the top and in defaults"),
    ("scales.tiny.base.each.lr", 0, "scales.tiny.base.each.lr: 0.0 is out of range"),
    ("scales.tiny.base.each.lrr", 1, "scales.tiny.base.each.lrr: unknown key; did you mean lr"),
    ("rewards.stage1.full.vv1", 1.0, "rewards.stage1.full.vv1: unknown term; use "),
    ("rewards.stage1.full.v1", "one", "rewards.stage1.full.v1: 'one' is not a number"),
    ("rewards.stage1.full.v1", True, "rewards.stage1.full.v1: True is not a number"),
    ("rewards.stage1.full.v1", float("nan"), "rewards.stage1.full.v1: nan is not a number"),
    ("rewards.stage1.full.v1", {"wieght": 1.0}, "rewards.stage1.full.v1.wieght: unknown key; did you mean weight"),
    ("rewards.stage1.full.v1", {"weight": 1, "timeout": 0}, "rewards.stage1.full.v1.timeout: 0.0 is out of range"),
    ("rewards.stage1.full.v1", {"weight": 1, "needs": "x"}, "v1.needs: 'x' is unknown; use text or video or null"),
    ("rewards.stage1.full", {}, "rewards.stage1.full: holds no term with a weight"),
    ("rewards.stage1.full", {"t1": 0, "v1": 0}, "rewards.stage1.full: holds no term with a weight"),
    ("defaults.evaluate.metrics", ["rouge_l"], "defaults.evaluate.metrics: 'rouge_l' is no metric of your own; write"),
    ("rewards.stage1.full", 1, "rewards.stage1.full: 1 is not a section of keys with values"),
    ("stage1.reward", "no_v2", "stage1.reward: 'no_v2' is unknown; use full, no_t1 or no_v1"),
    ("scales.tiny.stage2.train_steps", 6, "stage2.train_steps: 6 is out of range; use a whole number from 0 to 5"),
    ("defaults.stage1.guidance_stop", 1.5, "stage1.guidance_stop: 1.5 is out of range; use a number from 0 to 1"),
    ("defaults.stage2.guidance_start", 1.1, "stage2.guidance_start: 1.1 is out of range; use a number from 0 to 1"),
    ("defaults.stage1.explore_size", 8, "stage1.explore_size: 8 is not more than group_size; use more, or 0 for none"),
    ("scales.tiny.models.vdm.references", 6, "models.vdm.references: 6 is more than the 5 latents of a video of 9"),
    ("scales.tiny.curate.agreement", "clip", "scales.tiny.curate.agreement: clip needs models.clip.repo"),
    ("defaults.curate.rl_weights.visual_gain", 1.0, "curate.rl_weights.visual_gain: is CLIP's opinion; use 0.0, or"),
    ("scales.tiny.stage2.prompts", 3, "stage2.prompts is 3, which 2 processes cannot share evenly"),
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
    tree["scales"]["tiny"]["video"][side] = 33
    config = tree["scales"]["tiny"]["models"]["vdm"]["config"]
    config["vae"]["scale_factor_spatial"], config["dit"]["patch_size"] = 1, [1, 1, 1]
    assert getattr(from_dict(tree).video, side) == 33
    tree["scales"]["tiny"]["curate"]["codec"] = "h264"
    with pytest.raises(UserError, match="video is .* but curate.codec: h264 needs an even height and width; make both"):
        from_dict(tree)


def test_a_mistake_in_another_scale_is_found_too(tree):
    tree["scales"]["other"] = copy.deepcopy(tree["scales"]["tiny"])
    assert from_dict(tree, "other").scale == "other"
    del tree["scales"]["other"]["video"]["fps"]
    with pytest.raises(UserError, match=r"scales\.other\.video\.fps: missing"):
        from_dict(tree, "tiny")


@pytest.mark.parametrize("text", ["a: [1", "just text", "", "a: \x00"])
def test_a_file_that_is_not_yaml(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="params.yaml"):
        load(tmp_path)


def test_the_grid_is_read_as_dvc_reads_it(tmp_path):
    """YAML 1.2: `on` is a name, 08 is 8, and a key that stands twice is refused."""
    text = (ROOT / "dvc.yaml").read_text()
    row = "      full: {vlm: sft, vdm: sft, reward: full}\n      no_t1:"
    assert text.count(row) == 1
    path = tmp_path / "dvc.yaml"
    path.write_text(text.replace(row, f"      on: {{vlm: sft, vdm: sft, reward: full, steps: 08}}\n{row}"))
    assert Grid(load(ROOT), tmp_path).cell("stage1", "on").steps == 8
    path.write_text(text.replace(row, row.replace("no_t1:", "full:")))
    with pytest.raises(UserError, match='dvc.yaml: not valid YAML: .*duplicate key "full"'):
        Grid(load(ROOT), tmp_path)
    path.write_text("stages: 3")
    with pytest.raises(UserError, match="dvc.yaml: stages: missing; get it back with `git checkout dvc.yaml`"):
        Grid(load(ROOT), tmp_path)


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


@pytest.mark.parametrize("size", [8, 10, 12, 32, 33, 36, 352, 353, 360, 640, 720])
@pytest.mark.parametrize("space, patch", [(4, 2), (8, 2), (16, 2), (8, 1), (8, 4)])
def test_sizes_that_do_not_fit_any_configured_model_are_refused_with_the_nearest_that_fit(tree, space, patch, size):
    config = tree["scales"]["tiny"]["models"]["vdm"]["config"]
    config["vae"]["scale_factor_spatial"], config["dit"]["patch_size"] = space, [1, patch, patch]
    tree["scales"]["tiny"]["video"] |= {"height": size, "width": 64 * 3}
    unit = space * patch
    if size % unit == 0:
        assert from_dict(tree).video.height == size
        return
    fit = [str(n) for n in (size // unit * unit, size // unit * unit + unit) if n]
    nearest = rf"scales\.tiny\.video\.height: {size} does not fit .* nearest are {' or '.join(fit)}$"
    with pytest.raises(UserError, match=nearest):
        from_dict(tree)


@pytest.mark.parametrize("time, patch", [(1, 1), (2, 1), (4, 1), (4, 2), (8, 1)])
def test_frames_fit_when_their_latents_fill_the_patches(tree, time, patch):
    vdm = tree["scales"]["tiny"]["models"]["vdm"]
    vdm["references"] = 1
    vdm["config"]["vae"]["scale_factor_temporal"], vdm["config"]["dit"]["patch_size"] = time, [patch, 2, 2]
    for frames in range(1, 40):
        tree["scales"]["tiny"]["video"]["frames"] = frames
        if (frames - 1) % time == 0 and ((frames - 1) // time + 1) % patch == 0:
            assert from_dict(tree).video.frames == frames
        else:
            with pytest.raises(UserError, match=rf"video\.frames: {frames} does not fit .* the nearest are \d+"):
                from_dict(tree)


def test_a_model_in_a_folder_tells_its_own_factors_and_wans_hold_otherwise(tree, tmp_path):
    tree["scales"]["paper"]["video"] |= {"height": 360}
    with pytest.raises(UserError, match=r"paper\.video\.height: 360 .* multiple of 16; the nearest are 352 or 368"):
        from_dict(tree)
    for part, config in (("vae", {"scale_factor_spatial": 16}), ("transformer", {"patch_size": [1, 2, 2]})):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    tree["scales"]["paper"]["models"]["vdm"]["repo"] = str(tmp_path)
    with pytest.raises(UserError, match=r"paper\.video\.height: 360 .* multiple of 32; the nearest are 352 or 384"):
        from_dict(tree)


@pytest.mark.parametrize("number", [5e-5, 1e-5, 1e-20, 0.1, 1.0, 1e16, 123456789.0, 1e22, 2.5e300, 7])
def test_every_number_that_dvc_writes_is_read_as_that_number(tmp_path, number):
    """DVC writes params.yaml by ruamel's round trip; a text that is a number, quoted or in YAML 1.1, counts too."""
    round_trip, text = YAML(), io.StringIO()
    tree = round_trip.load((ROOT / "params.yaml").read_text())
    tree["defaults"]["stage2"]["lr"] = number
    round_trip.dump(tree, text)
    (tmp_path / "params.yaml").write_text(text.getvalue())
    assert load(tmp_path).stage2.lr == float(number)
    for spelled in (repr(number), f"{number:e}", f"{number:.17E}", f"+{number!r}"):
        tree = copy.deepcopy(TREE)
        tree["defaults"]["stage2"]["lr"] = spelled
        assert from_dict(tree).stage2.lr == float(spelled)


@pytest.mark.parametrize("text, value", [("1e-5", 1e-5), ("5e-05", 5e-5), ("1E5", 1e5), (".5", 0.5), ("1_000", 1000)])
def test_numbers_by_hand(tmp_path, text, value):
    lines = (ROOT / "params.yaml").read_text()
    assert lines.count("    lr: 5.0e-5\n    clip_range") == 1
    (tmp_path / "params.yaml").write_text(
        lines.replace("    lr: 5.0e-5\n    clip_range", f"    lr: {text}\n    clip_range")
    )
    assert load(tmp_path).stage2.lr == value


def test_a_refused_override_says_how_to_get_the_file_back(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("reward: full", "reward: no_x"))
    with pytest.raises(UserError, match="'no_x' is unknown; use full, no_t1 or no_v1$"):
        load(tmp_path)
    monkeypatch.setenv("DVC_EXP_NAME", "any")
    with pytest.raises(UserError, match="or no_v1 .`git checkout params.yaml` takes back what -S wrote"):
        load(tmp_path)


@pytest.mark.parametrize(
    "term", ["v2", "my.module:reward", "./judge.sh", "/opt/judge", "https://a.example/r", "motion"]
)
def test_terms_of_ones_own(tree, term):
    tree["rewards"]["stage1"]["mine"] = {term: -0.5, "t1": {"weight": "1e-1", "needs": "text", "timeout": 5}}
    tree["stage1"]["reward"] = "mine"
    preset = from_dict(tree).rewards.stage1["mine"]
    assert preset[term].weight == -0.5 and preset[term].needs is None
    assert (preset["t1"].weight, preset["t1"].needs, preset["t1"].timeout) == (0.1, "text", 5.0)


@pytest.mark.parametrize(
    "term",
    ["V1", "judge.sh", "a b:c", "x:", "https://me:hush@a.example", "http://far.example/x", "ftp://a.example/x", ""],
)
def test_terms_that_lead_nowhere(tree, term):
    tree["rewards"]["stage1"]["full"][term] = 1.0
    with pytest.raises(UserError, match=r"rewards\.stage1\.full[.:]") as caught:
        from_dict(tree)
    said = str(caught.value)
    assert "hush" not in said and "plain_http" not in said, "a secret, and a key that a term does not have"


def test_a_scale_goes_over_the_defaults_and_each_over_neither(tree):
    tree["defaults"]["base"]["each"] = {"lr": 1.0, "warmup": 3}
    tree["defaults"]["stage1"]["steps"] = 7
    base = from_dict(tree, "tiny").base
    assert (base.vae.lr, base.vlm.lr, base.vae.warmup) == (0.03, 0.02, 20)
    assert from_dict(tree).stage1.steps == tree["scales"]["tiny"]["stage1"]["steps"]
    del tree["scales"]["tiny"]["stage1"]["steps"]
    assert from_dict(tree).stage1.steps == 7


def test_every_section_stands_at_both_places(tree):
    """DVC can only watch keys that exist, so that a changed default makes a stage stale."""
    for scale in tree["scales"].values():
        assert list(scale) == list(tree["defaults"])


def test_other_values_in_a_cell():
    params = load(ROOT, "tiny")
    assert params.stage1.with_(steps=5, lr="1e-5").steps == 5 and params.stage1.steps != 5
    changed = params.with_(stage1={"steps": 5}, models={"vdm": {"references": 2}})
    assert changed.stage1 == params.stage1.with_(steps=5) and changed.models.vdm.shift == params.models.vdm.shift
    alone = params.with_(rewards={"stage1": {"full": {"t1": 2.0}, "mine": {"v1": 1.0}}}, stage1={"reward": "mine"})
    assert set(alone.rewards.stage1["full"]) == {"t1"} and set(alone.rewards.stage1) == {
        "full",
        "no_t1",
        "no_v1",
        "mine",
    }
    assert params.with_(stage1=params.stage1.with_(steps=5)) == params.with_(stage1={"steps": 5})
    for change, message in (
        ({"stage1": {"steps": 0}}, "stage1.steps: 0 is out of range; use a whole number from 1 up"),
        ({"stage1": {"stpes": 1}}, "stage1.stpes: unknown key; did you mean steps?"),
        ({"stage1": {"reward": "x"}}, "stage1.reward: 'x' is unknown; use full, no_t1 or no_v1"),
        ({"video": {"height": 36}}, "video.height: 36 does not fit the models"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            params.with_(**change)
    with pytest.raises(UserError, match="steps: True is not a whole number from 1 up"):
        params.stage1.with_(steps=True)


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_resolved_parameters_cross_to_other_processes(scale):
    params = load(ROOT, scale)
    assert Params.from_resolved(json.loads(json.dumps(params.resolved()))) == params
    assert pickle.loads(pickle.dumps(params)) == params


def test_parameters_are_read_without_heavy_libraries():
    heavy = "{'torch', 'transformers', 'diffusers', 'pandas', 'scipy', 'av'}"
    code = f"import sys; from vans.params import load; load(); print(sorted({heavy} & set(sys.modules)))"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_key_is_named_where_it_stands():
    tree = copy.deepcopy(TREE)
    tree["stage2"]["reward"] = "no_c3"
    with pytest.raises(UserError, match=r"params\.yaml: stage2\.reward: 'no_c3' is unknown"):
        from_dict(tree)
    tree["stage2"]["reward"] = "full"
    tree["scales"]["tiny"]["stage2"]["steps"] = 0
    with pytest.raises(UserError, match=r"scales\.tiny\.stage2\.steps: 0 is out of range"):
        from_dict(tree)


def test_batches_that_the_processes_cannot_share_are_refused():
    tree = copy.deepcopy(TREE)
    tree["scales"]["tiny"]["sft"]["vlm"]["batch"] = 3
    with pytest.raises(UserError, match=r"sft\.vlm\.batch is 3, which 2 processes"):
        from_dict(tree)


def test_a_model_of_others_without_a_revision_may_be_a_misspelt_endpoint():
    params = load(ROOT)
    with pytest.raises(UserError, match="arms.cascade.vlm_revision: needs a pinned revision .* is vlm: endpoint meant"):
        params.with_(arms={"cascade": {"vlm": "endpiont"}})
    with pytest.raises(UserError, match=r"arms.cascade.vdm_revision: .* any word\)$"):
        params.with_(arms={"cascade": {"vdm": "Wan-AI/X"}})
