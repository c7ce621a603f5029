"""The method's released weights: in and out, whole or refused; and everything that starts from them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tests import release_files, smoke
from vans import cli, files
from vans.answer import ask
from vans.answer.arm import identity, predict
from vans.data.curate import curate
from vans.errors import UserError
from vans.grid import Arm, Cell, Grid
from vans.media import video
from vans.models import protocol
from vans.models.clip import CLIP
from vans.models.load import load_dit, load_vdm, load_vlm, vdm_options
from vans.models.release import bring, send
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.models.whole import CONFIG, WEIGHTS
from vans.parallel import Ranks
from vans.params import load
from vans.toy import world
from vans.train import stage1, stage2

WORDS = world.vocabulary()
OWN: dict[str, Path | None] = {"vlm": None, "vdm": None}
QUESTION = ["what happens next if the wind blows ?"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository with base models that know nothing, and the release of others, beside it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("root")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(smoke.ROOT / name, folder / name)
    smoke.shrink(folder / "params.yaml")
    params = load(folder)
    vlm = VLM.scratch(params.models.vlm.config, chat_tokenizer(WORDS), 0)
    vdm = VDM.scratch(params.models.vdm.config, text_tokenizer(WORDS), 0, **vdm_options(params))
    vlm.save(folder / "models/base/vlm")
    vdm.save(folder / "models/base/vdm")
    for p in vdm.dit.parameters():
        torch.nn.init.normal_(p, std=0.05)
    adapted = release_files.lora(vlm)
    release_files.write(folder / "given", release_files.vlm_file(adapted), release_files.vdm_file(vdm))
    return folder


@pytest.fixture(scope="module")
def params(root):
    return load(root)


@pytest.fixture
def given(root):
    """The two files' tensors."""
    return {kind: load_file(root / f"given/checkpoints/{kind}.safetensors") for kind in ("vlm", "vdm")}


@pytest.fixture
def imported(root, params):
    bring(root / "given", root / "models/release", params, root / "models/base")
    return root


def clips():
    scene = world.Scene(shape="cone", colour="blue")
    return torch.from_numpy(world.render_event(scene, "left"))[None]


def same_files(a: Path, b: Path) -> bool:
    return all((a / f"checkpoints/{k}.safetensors").read_bytes() == (b / f"checkpoints/{k}.safetensors").read_bytes()
               for k in ("vlm", "vdm"))  # fmt: skip


# ------------------------------------------------------------------------------------------------- and back
PREFIXES = [
    ("pipe.mllm.mllm_backbone.", "dit.", torch.float32),
    ("mllmagent.mllm_backbone.", "pipe.dit.", torch.bfloat16),
    ("mllm_backbone.", "model.diffusion_model.", torch.float16),
    ("", "", torch.float32),
]


@pytest.mark.parametrize("vlm, vdm, dtype", PREFIXES)
def test_what_has_not_been_trained_goes_back_to_the_byte(root, params, tmp_path, given, vlm, vdm, dtype):
    renamed = [
        {key.replace("pipe.mllm.mllm_backbone.", vlm): tensor for key, tensor in given["vlm"].items()},
        {vdm + key.removeprefix("dit."): tensor for key, tensor in given["vdm"].items()},
    ]
    source = release_files.write(tmp_path / "in", renamed[0], renamed[1], dtype)
    bring(source, tmp_path / "models", params, root / "models/base")
    send(tmp_path / "out", tmp_path / "models", OWN)
    assert same_files(source, tmp_path / "out")
    dit = load_dit(tmp_path / "models/vdm").state_dict()
    assert {tensor.dtype for tensor in dit.values()} == {torch.float32} and len(dit) == len(given["vdm"])


def test_a_file_of_another_writer_goes_back_to_the_byte(root, params, tmp_path, given):
    (tmp_path / "in/checkpoints").mkdir(parents=True)
    for kind, tensors in given.items():
        release_files.by_hand(tmp_path / f"in/checkpoints/{kind}.safetensors", tensors)
    bring(tmp_path / "in", tmp_path / "models", params, root / "models/base")
    send(tmp_path / "out", tmp_path / "models", OWN)
    assert same_files(tmp_path / "in", tmp_path / "out")


def test_either_file_alone_and_the_commands(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    monkeypatch.setattr(files, "FORGOTTEN", 0.0)
    (root / "models/.release.partial-ffff-1").mkdir()  # of an import that was killed
    for kind, name in (("vlm", "other.safetensors"), ("vdm", "vdm.safetensors")):  # the name says nothing
        shutil.copyfile(root / f"given/checkpoints/{kind}.safetensors", tmp_path / name)
        assert cli.main(["import", str(tmp_path / name)]) == 0
        assert capsys.readouterr().out == f"{kind}: {root}/models/release/{kind}\n"
    assert cli.main(["import", str(root / "given/checkpoints")]) == 0  # over the earlier one
    assert sorted(p.name for p in (root / "models/release").rglob("*")) == sorted(
        ["vlm", "vdm", "transformer", "config.json", "diffusion_pytorch_model.safetensors", CONFIG, WEIGHTS]
        + ["release.json"] * 2
    )
    assert cli.main(["export", str(tmp_path / "out")]) == 0
    assert same_files(root / "given", tmp_path / "out")
    assert cli.main(["export", str(tmp_path / "out")]) == 1
    assert "vlm.safetensors: is there; choose another folder" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "x"), "--vlm", "stage1/none"]) == 1
    assert "models/stage1/none/vlm: adapter_model.safetensors is missing" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "x"), "--vdm", "stage2/none"]) == 1
    assert "models/stage2/none/vdm/transformer: no DiT here" in capsys.readouterr().err
    assert list((tmp_path / "x/checkpoints").iterdir()) == [], "neither, so that it can be asked for again"
    shutil.rmtree(root / "models/release/vdm")
    assert cli.main(["export", str(tmp_path / "y")]) == 0 and not (tmp_path / "y/checkpoints/vdm.safetensors").exists()
    assert cli.main(["export", str(tmp_path / "z"), "--vdm", "release"]) == 1
    assert "release.json: missing, so nothing says" in capsys.readouterr().err
    shutil.rmtree(root / "models/release")


# --------------------------------------------------------------------------------------------------- refused
def first(tensors, part=""):
    return next(key for key in tensors if part in key)


def without(part):
    return lambda t: {key: tensor for key, tensor in t.items() if part not in key}


def changed(part, change):
    return lambda t: {**t, (key := first(t, part)): change(t[key]).contiguous()}


def added(name, like=""):
    return lambda t: {**t, name(t): t[first(t, like)].clone()}


def nan_in(tensor):
    return tensor.index_fill(0, torch.tensor([0]), float("nan"))


def rank_4(tensors):
    return {k: (t[:4] if "lora_A" in k else t[:, :4]).contiguous() for k, t in tensors.items()}


def swapped(tensors):
    """norm3 under the name that diffusers gives it."""
    return {k.replace(".norm3.", ".norm2."): t for k, t in tensors.items()}


WRONG = [
    ("vlm", without("visual"), "18 tensors are missing .such as base_model.model.model.visual"),
    ("vlm", without(".layers.1."), "14 tensors are missing"),
    ("vlm", without("blocks.0.mlp.up_proj.lora_B"), "1 tensors are missing .*up_proj.lora_B"),
    ("vlm", added(lambda t: "pipe.mllm.mllm_backbone.more.lora_A"), "1 fit nowhere .such as pipe.mllm.*more"),
    ("vlm", lambda t: {f"x.{k}": v for k, v in t.items()}, "74 tensors are missing .*74 fit nowhere .such as x.pipe"),
    ("vlm", lambda t: {k.removeprefix("pipe."): v for k, v in t.items()}, "74 tensors are missing"),
    ("vlm", lambda t: {k.replace("model.layers", "model.language_model.layers"): v for k, v in t.items()}, "56 fit no"),
    ("vlm", added(lambda t: first(t).replace(".default", "")), "are the same tensor"),
    ("vlm", rank_4, r"is \[4, \d+\], but \[8, \d+\] in this model with rank 8"),
    ("vlm", changed("visual", nan_in), "holds nan or inf"),
    ("vlm", changed("lora_B", lambda t: t * float("inf")), "holds nan or inf"),
    ("vlm", changed("", lambda t: t.to(torch.int8)), "is of type I8; use F32, F16, BF16"),
    ("vdm", without("blocks.3."), "27 tensors are missing"),
    ("vdm", without("head.modulation"), "1 tensors are missing .such as scale_shift_table"),
    ("vdm", swapped, "8 tensors are missing .* 8 fit nowhere .such as dit.blocks.0.norm2"),
    ("vdm", added(lambda t: "blocks.0.self_attn.q.weight", "self_attn.q.w"), "1 fit nowhere"),
    ("vdm", added(lambda t: "dit.blocks.0.attn1.to_q.weight", "blocks.0.self_attn.q.w"), "are the same tensor"),
    ("vdm", added(lambda t: "dit.motion_encoder.enc.net_app.convs.0.1.bias"), "1 fit nowhere .*motion_encoder"),
    ("vdm", added(lambda t: "dit.face_adapter.linear1_kv.weight"), "1 fit nowhere .*face_adapter"),
    ("vdm", changed("ffn.0.bias", lambda t: t[:-1]), r"dit.*ffn.0.bias is \[511\], but \[512\] in this model"),
    ("vdm", changed("patch_embedding.weight", nan_in), "holds nan or inf"),
    ("vdm", lambda t: {"x": torch.zeros(2)}, "123 tensors are missing .* 1 fit nowhere"),
]


@pytest.mark.parametrize("kind, change, message", WRONG, ids=[f"{kind}-{i}" for i, (kind, *_) in enumerate(WRONG)])
def test_a_file_that_does_not_fit_is_one_line(root, params, tmp_path, given, kind, change, message):
    path = tmp_path / f"{kind}.safetensors"
    save_file(change(given[kind]), path)
    with pytest.raises(UserError, match=rf"{kind}\.safetensors: .*{message}") as caught:
        bring(path, tmp_path / "models", params, root / "models/base")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert [p.name for p in tmp_path.rglob("*")] == [path.name]


def test_what_is_no_safetensors_is_refused_and_never_unpickled(root, params, tmp_path, monkeypatch):
    source = shutil.copytree(root / "given", tmp_path / "in")
    file = source / "checkpoints/vlm.safetensors"
    whole, out = file.read_bytes(), tmp_path / "models"
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("unpickled"))

    def refused(path, message, out=out):
        with pytest.raises(UserError, match=message) as caught:
            bring(path, out, params, root / "models/base")
        assert "\n" not in str(caught.value)

    torch.save({"a": torch.zeros(1)}, tmp_path / "vlm.pt")
    refused(tmp_path / "vlm.pt", "vlm.pt: only .safetensors are read, nothing is unpickled")
    shutil.copyfile(tmp_path / "vlm.pt", tmp_path / "renamed.safetensors")
    refused(tmp_path / "renamed.safetensors", "renamed.safetensors: no safetensors, or damaged")
    refused(tmp_path / "none.safetensors", "missing; name the folder with checkpoints/")
    refused(tmp_path, "vlm.safetensors: missing; get it, or name the other file alone")
    for damaged in (b"", whole[:7], whole[: len(whole) // 2], whole[:-1], whole + b"x"):
        file.write_bytes(damaged)
        refused(source, "vlm.safetensors: no safetensors, or damaged")
    shutil.copyfile(source / "checkpoints/vdm.safetensors", file)
    refused(source, "vlm.safetensors: holds what vdm.safetensors should")
    file.write_bytes(whole)
    with pytest.raises(UserError, match="no VLM config here.*scale `tiny` trains its own.* is for `scale: paper`"):
        bring(file, out, params, tmp_path / "none")
    with pytest.raises(UserError, match="transformer: no DiT config here"):
        bring(source / "checkpoints/vdm.safetensors", out, params, tmp_path / "none")
    assert not out.exists()
    refused(source, "base: is there and was not imported; choose another folder", root / "models")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    refused(source, "are needed and")


def test_an_import_that_fails_leaves_the_earlier_one(imported, params, monkeypatch):
    before = {p: p.read_bytes() for p in (imported / "models/release").rglob("*") if p.is_file()}
    monkeypatch.setattr("vans.models.release._write_dit", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(UserError, match="no space left"):
        bring(imported / "given", imported / "models/release", params, imported / "models/base")
    assert before == {p: p.read_bytes() for p in (imported / "models/release").rglob("*") if p.is_file()}


# ---------------------------------------------------------------------------------------------- the same models
def test_the_imported_vlm_is_the_released_one(imported, params):
    """Merged into the tower, W + 4 B A is rounded once where peft adds 4 B (A x) to W x: float32's last bits apart."""
    theirs = release_files.lora(load_vlm(params, imported / "models/base"))
    mine = load_vlm(params, imported / "models/base", imported / "models/release/vlm")
    again = PeftModel.from_pretrained(load_vlm(params, imported / "models/base").model, imported / "models/release/vlm")
    inputs = mine.inputs(clips(), QUESTION, 3.0)
    with torch.no_grad():
        wanted = theirs(**inputs).logits
        logits = mine.model(**inputs).logits
        assert torch.equal(again(**inputs).logits, wanted), "peft alone loads the same, vision part included"
    assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    without_vision = load_vlm(params, imported / "models/base").model(**inputs).logits
    assert (without_vision - wanted).abs().max() > 100 * (logits - wanted).abs().max()
    trained = mine.train_lora()
    names = [name for name, p in mine.model.named_parameters() if p.requires_grad]
    assert len(trained) == 56 and all("language_model" in name for name in names)
    assert not [name for name, _ in mine.network.visual.named_parameters() if "lora_" in name]
    assert "video_features" in mine.see(inputs)  # a frozen tower's features are shared


def test_the_vision_part_counts_and_is_refused_where_it_is_not_whole(imported, params, tmp_path):
    base = imported / "models/base"
    plain, mine = (load_vlm(params, base, a) for a in (None, imported / "models/release/vlm"))
    tensors = load_file(imported / "models/release/vlm" / WEIGHTS)
    name = "base_model.model.model.visual.blocks.2.mlp.down_proj"
    product = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    was, now = (vlm.network.visual.blocks[2].mlp.down_proj.weight for vlm in (plain, mine))
    assert_close(now - was, 4 * product, rtol=0, atol=1e-6)
    folder = shutil.copytree(imported / "models/release/vlm", tmp_path / "vlm")
    for change, message in (
        (without("visual"), "18 tensors are missing"),
        (changed(".visual.", nan_in), "holds nan or inf"),
        (changed(".visual.", lambda t: t[:, :-1]), "does not fit"),
    ):
        save_file(change(tensors), folder / WEIGHTS)
        with pytest.raises(UserError, match=message):
            load_vlm(params, base, folder)


def test_half_precision_is_rounded_once(imported, params):
    half = params.with_(machine={"dtype": "bfloat16"})
    plain, mine = (load_vlm(half, imported / "models/base", a) for a in (None, imported / "models/release/vlm"))
    exact = load_vlm(params, imported / "models/base", imported / "models/release/vlm")
    was, now, true = (v.network.visual.blocks[0].mlp.up_proj.weight for v in (plain, mine, exact))
    of_base = load_vlm(params, imported / "models/base").network.visual.blocks[0].mlp.up_proj.weight
    assert now.dtype == torch.bfloat16
    assert torch.equal(now, (was.float() + (true - of_base)).bfloat16())


def test_the_imported_dit_is_the_released_one_bit_for_bit(imported, params, given):
    vdm = load_vdm(params, imported / "models/base", imported / "models/release/vdm")
    other = load_vdm(params, imported / "models/base")
    state = vdm.dit.state_dict()
    mapped = release_files.vdm_file(vdm)
    assert mapped.keys() == given["vdm"].keys() and len(state) == len(mapped)
    assert all(torch.equal(mapped[name], given["vdm"][name]) for name in mapped)
    other.dit.load_state_dict(state)
    z, text = torch.randn(1, *vdm.latent_shape(9, 32, 32)), vdm.embed(["the cone moves"])
    with torch.no_grad():
        a, b = (m.velocity(z, torch.tensor([0.7]), text, z[:, :, :3]) for m in (vdm, other))
    assert torch.equal(a, b) and a.abs().max() > 0


# ------------------------------------------------------------------------------------------- what starts from it
def with_row(root, stage, text):
    path = root / "dvc.yaml"
    lines = (smoke.ROOT / "dvc.yaml").read_text().splitlines(keepends=True)
    at = lines.index(f"  {stage}:\n") + 1
    assert lines[at] == "    foreach:\n"
    path.write_text("".join([*lines[: at + 1], f"      {text}\n", *lines[at + 1 :]]))
    return Grid(load(root), root)


def test_an_arm_and_a_cell_may_name_the_release(root):
    shutil.rmtree(root / "models/release", ignore_errors=True)
    grid = with_row(root, "answer", "release: {vlm: release, vdm: release}")
    assert grid.arm("main").vlm == "stage1/full"  # the others go on
    line = "dvc.yaml: answer: release: vlm: models/release/vlm is not there; make it with `vans import PATH`"
    with pytest.raises(UserError, match=f"^{line}$"):
        grid.arm("release")
    (root / "models/release/vlm").mkdir(parents=True)
    with pytest.raises(UserError, match="answer: release: vdm: models/release/vdm is not there"):
        grid.arm("release")
    (root / "models/release/vdm").mkdir()
    assert grid.arm("release") == Arm("release", "release", "release")
    grid = with_row(root, "stage2", "after: {vlm: stage1/full, vdm: release, reward: full}")
    assert grid.cell("stage2", "after").vdm_folder == "models/release/vdm"
    with pytest.raises(UserError, match="'relaese' is unknown; did you mean release"):
        with_row(root, "answer", "release: {vlm: relaese, vdm: release}")
    with_row(root, "answer", "release: {vlm: release, vdm: release}")
    shutil.rmtree(root / "models/release")


def test_answers_and_both_stages_start_from_the_import(imported, params, tmp_path, monkeypatch):
    root = imported
    world.generate(root / "data", params.world)
    curate(root / "data", root / "triplets", params)
    CLIP.scratch(params.models.clip.config, text_tokenizer(WORDS), 0).save(root / "models/base/clip")
    preset = {"graded": {"tests.reward_terms:graded": {"weight": 1.0}}}
    params = params.with_(rewards=dict.fromkeys(("stage1", "stage2"), preset))
    first, second = (
        Cell("stage1", "new", "release", "release", "graded", steps=1),
        Cell("stage2", "new", "stage1/new", "release", "graded", steps=1),
    )
    history = stage1.train(params, first, root)
    assert len(history) == 1 and (root / "models/stage1/new/vlm" / WEIGHTS).is_file()
    stage2.train(params, second, root)
    out = predict(params, Arm("release", "release", "release"), root)
    assert len(list((out / "videos").iterdir())) == 8
    with_row(root, "answer", "release: {vlm: release, vdm: release}")
    monkeypatch.chdir(root)
    video.write(root / "x.avi", clips()[0].numpy(), 3.0)
    assert cli.main(["answer", "x.avi", *QUESTION, "--arm", "release", "-o", "x.mp4"]) == 0

    # the same as the release answers: held-out samples, and a video of its own shape
    monkeypatch.setattr(
        protocol,
        "RELEASE",
        replace(protocol.RELEASE, decoding={**(protocol.RELEASE.decoding or {}), "max_new_tokens": 12}),
    )
    copy = release_files.checkout(tmp_path / "copy")
    theirs = params.with_(models={"protocol": "release", "prompts": str(copy)})
    before = [p.read_bytes() for p in sorted(out.rglob("*.*"))]
    assert predict(theirs, Arm("release", "release", "release"), root) == out
    assert before != [p.read_bytes() for p in sorted(out.rglob("*.*"))]
    monkeypatch.setattr(ask, "load", lambda _: theirs)
    assert cli.main(["answer", "x.avi", *QUESTION, "--arm", "release", "-o", "y.mp4"]) == 0
    assert (root / "y.mp4").is_file()

    # batches that were made with other prompts are not gone on with
    of = theirs, root, Ranks(0, 1, torch.device("cpu")), Arm("release", "release", "release")
    known = identity(*of)
    release_files.checkout(copy, inference="def main(pipe):\n    pipe(negative_prompt='moving')\n")
    assert identity(*of) != known

    # what was trained goes out in the release's layout; the vision part as it came
    assert cli.main(["export", str(tmp_path / "out"), "--vlm", "stage1/new", "--vdm", "stage2/new"]) == 0
    for kind in ("vlm", "vdm"):
        was, now = (load_file(f / f"checkpoints/{kind}.safetensors") for f in (root / "given", tmp_path / "out"))
        assert was.keys() == now.keys()
        stayed = {name for name in was if torch.equal(was[name], now[name])}
        assert stayed == {name for name in was if ".visual." in name}
    bring(tmp_path / "out", tmp_path / "again", params, root / "models/base")
    tuned = [
        load_vlm(params, root / "models/base", f / "vlm") for f in (root / "models/stage1/new", tmp_path / "again")
    ]
    inputs = tuned[0].inputs(clips(), QUESTION, 3.0)
    a, b = (vlm.model(**inputs).logits for vlm in tuned)
    assert torch.equal(a, b)

    # an adapter that did not start from the release has no vision part, or another rank
    vlm = load_vlm(params, root / "models/base")
    vlm.add_lora(8, 32, 0).save_lora(tmp_path / "own/vlm")
    with pytest.raises(UserError, match="vlm: not the whole adapter of the release .*: 18 tensors are missing"):
        send(tmp_path / "x", root / "models/release", {**OWN, "vlm": tmp_path / "own/vlm"})
    settings = json.loads((tmp_path / "own/vlm" / CONFIG).read_text())
    (tmp_path / "own/vlm" / CONFIG).write_text(json.dumps({**settings, "lora_alpha": 16}))
    with pytest.raises(UserError, match=r"r and lora_alpha are \(8, 16\); a release's are 8 and 32"):
        send(tmp_path / "x", root / "models/release", {**OWN, "vlm": tmp_path / "own/vlm"})
