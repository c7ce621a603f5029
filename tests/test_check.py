"""`vans check`: each check says what is wrong and what mends it; the smoke run runs every stage, without a warning."""

import importlib
import io
import re
import shutil
import warnings
from types import SimpleNamespace

import pytest

import vans
from tests import smoke
from vans import check, cli
from vans.errors import UserError
from vans.grid import Grid
from vans.params import load


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with parameters, grid and pins."""
    for name in ("params.yaml", "dvc.yaml", "requirements.txt"):
        shutil.copyfile(smoke.ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_packages_are_compared_with_their_pins(root):
    pins = root / "requirements.txt"
    pins.write_text("# pinned\npyyaml>=1\nnot-for-here==1 ; sys_platform == 'nowhere'\n")
    assert "1 packages as pinned" in check.environment(root)
    pins.write_text("pyyaml==0.0.1\nno-such-package==1\n")
    with pytest.raises(UserError, match=r"pyyaml is [\d.]+, not 0.0.1; no-such-package is missing, not 1; `make"):
        check.environment(root)


def test_every_scale_cell_and_arm_is_read(root):
    assert re.match(r"scales tiny, paper \(now tiny\); \d+ cells, \d+ arms", check.all_parameters(root))
    path = root / "dvc.yaml"
    path.write_text(path.read_text().replace("reward: no_t1}", "reward: no_such}"))
    with pytest.raises(UserError, match="no_such"):
        check.all_parameters(root)


def test_data_is_compared_with_its_pin(root, monkeypatch):
    with pytest.raises(UserError, match="data/ is missing; `vans world`"):
        check.data(root)
    (root / "data").mkdir()
    (root / "data/x.avi").write_bytes(b"12")
    codes = [1, 0]
    monkeypatch.setattr("vans.setup._dvc", lambda *arguments, **options: codes.pop(0))
    with pytest.raises(UserError, match="not what data.dvc pins; `dvc add data`"):
        check.data(root)
    assert check.data(root).startswith("data/ is what data.dvc pins")
    (root / "elsewhere").mkdir()
    (root / "data/late").symlink_to(root / "elsewhere")
    with pytest.raises(UserError, match="data/late: is a link to a folder, and DVC does not see"):
        check.data(root)


def test_weights_are_made_here_or_to_be_downloaded_or_wrong(root, monkeypatch):
    assert check.weights(root) == "all trained from scratch"
    model = SimpleNamespace(repo="some/model", revision="0" * 40)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert check._where("vlm", model, root) == "some/model will be downloaded"
    snapshot = root / "hub/models--some--model/snapshots" / model.revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert check._where("vlm", model, root) == "some/model will be downloaded"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="models.vlm: some/model is not here and HF_HUB_OFFLINE is set"):
        check._where("vlm", model, root)
    (snapshot / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"model.safetensors: not whole: 0 bytes, its header says otherwise; get it"):
        check._where("vlm", model, root)
    (snapshot / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert check._where("vlm", model, root) == "some/model is here"
    with pytest.raises(UserError, match=r"models.vlm.repo: \./none: no folder with safetensors"):
        check._where("vlm", SimpleNamespace(repo="./none", revision=None), root)
    with pytest.raises(UserError, match="models.vlm.repo: .*correct it in params.yaml"):
        check._where("vlm", SimpleNamespace(repo="a/b/c", revision=None), root)


def test_space_is_estimated_by_what_will_be_trained(root, monkeypatch):
    assert check.space(load(root), root) == check.TOY_RUN
    (root / "data").mkdir()
    (root / "data/x.avi").write_bytes(b"1" * 10)
    assert check.space(load(root), root) == check.TOY_RUN + 30
    paper = load(root, "paper")  # SFT and stage 2 of the main chain keep a DiT; the grid is off
    assert check.space(paper, root) == 30 + check.DOWNLOADS + check.TRAINING + 2 * 2 * check.DIT
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(UserError, match=r"1\.50 GB are needed and 0\.00 GB are free"):
        check.disk(root)


def test_one_line_a_check_and_the_exit_code(root, monkeypatch, capsys):
    def fails(root):
        raise UserError("one; do this")

    names = ("environment", "all_parameters", "data", "weights", "disk", "smoke")
    for name in names:
        monkeypatch.setattr(check, name, lambda root: "well")
    assert cli.main(["check"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["ok"] * 6
    monkeypatch.setattr(check, "data", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main(["check"])
    said = capsys.readouterr().out
    assert ended.value.code == 1 and "data         FAILED  one; do this\n" in said and "smoke        ok" in said
    monkeypatch.setattr(check, "environment", fails)
    assert not check.check(root)
    assert "smoke        -" in capsys.readouterr().out


def test_the_smoke_run_runs_every_stage_and_no_library_warns(root, monkeypatch, capfd):
    said = io.StringIO()
    monkeypatch.setattr(check, "io", SimpleNamespace(StringIO=lambda: said))
    with warnings.catch_warnings():
        for kind in (FutureWarning, UserWarning, RuntimeWarning):  # what Python shows by itself
            warnings.simplefilter("error", kind)
        importlib.reload(vans)  # its filters again, before these
        told = check.smoke(root)
    names = re.findall(r"([a-z]\w+) \d+", told)
    trained = ["world", "curate", "base", "sft", "stage1", "stage2", "all_in_one"]
    assert names == [*trained, "answer", "systems", "systems_answer", "score"]
    written = said.getvalue() + "".join(capfd.readouterr())
    assert "all_in_one: 1 prompts" in written and "warning" not in written.lower()


def test_a_cell_with_steps_of_its_own_is_tried_for_one_step_too(root):
    path = root / "dvc.yaml"
    path.write_text(path.read_text().replace("reward: full}", "reward: full, steps: 500}"))
    assert Grid(load(root), root).cell("stage1", "full").steps == 500
    found = check.stages(check.small(root), root, root)
    assert [found[stage].args[1].steps for stage in ("stage1", "stage2", "all_in_one")] == [None] * 3  # type: ignore[attr-defined]


def test_what_a_stage_said_before_it_failed_is_shown(root, monkeypatch, capsys):
    def fails():
        print("reading\nclips")
        raise ValueError("no such codec")

    monkeypatch.setattr(check, "stages", lambda params, root, folder: {"curate": fails})
    with pytest.raises(UserError, match="curate: ValueError: no such codec"):
        check.smoke(root)
    assert capsys.readouterr().out == "reading\nclips\n"
