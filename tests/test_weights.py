"""Saved weights: whole or refused in one line, readable by all who may read the rest, and by diffusers' pipeline."""

import json
import os
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tests import smoke
from vans import files
from vans.errors import UserError
from vans.models.clip import CLIP
from vans.models.detector import ToyDetector
from vans.models.flow import ode_step, sigmas
from vans.models.load import load_dit, vdm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.models.whole import CONFIG, WEIGHTS, adapter_tensors
from vans.params import load
from vans.toy import world
from vans.toy.render import EVENTS, SHAPES

WORDS = world.vocabulary()


@pytest.fixture(scope="module")
def params():
    return load(smoke.ROOT, scale="tiny")


@pytest.fixture(scope="module")
def vdm(params):
    return VDM.scratch(params.models.vdm.config, text_tokenizer(WORDS), 0, **vdm_options(params))


@pytest.fixture(scope="module")
def saved(vdm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vdm")
    vdm.save(folder)
    return folder


def base(params):
    return VLM.scratch(params.models.vlm.config, chat_tokenizer(WORDS), 0)


# -------------------------------------------------------------------------------------------------- adapters
@pytest.fixture
def adapter(params, tmp_path):
    """A saved adapter whose B matrices are not 0."""
    vlm = base(params).add_lora(4, 8, 0)
    for name, p in vlm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    vlm.save_lora(tmp_path / "vlm")
    return tmp_path / "vlm"


def test_a_whole_adapter_loads_to_the_same_tensors_and_trains(params, adapter):
    vlm = base(params).load_lora(adapter)
    mine, file = get_peft_model_state_dict(vlm.model), load_file(adapter / WEIGHTS)
    assert mine.keys() == file.keys()
    assert all(torch.equal(mine[name], file[name]) for name in file)
    trained = [name for name, p in vlm.model.named_parameters() if p.requires_grad]
    assert len(trained) == len(file) and all("lora_" in name for name in trained)
    ids = tokenizer_ids(vlm.tokenizer, "the cone moves to the left and stays .")
    assert not torch.allclose(vlm.model(ids).logits, base(params).model(ids).logits)


def tokenizer_ids(tokenizer, text):
    return tokenizer(text, return_tensors="pt").input_ids


def test_an_adapter_with_dropout_answers_without(params, adapter):
    settings = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**settings, "lora_dropout": 0.5}))
    vlm = base(params).load_lora(adapter)
    vlm.model.train()
    ids = tokenizer_ids(vlm.tokenizer, "the cone moves")
    assert_close(vlm.model(ids).logits, vlm.model(ids).logits, rtol=0, atol=0)


def renamed(tensors, old, new):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def half(tensors):
    return {name: tensor for name, tensor in tensors.items() if ".layers.0." in name}


def with_one(tensors, change):
    first = sorted(tensors)[0]
    return {**tensors, first: change(tensors[first])}


def nan_in(tensor):
    return tensor.index_fill(0, torch.tensor([0]), float("nan"))


TENSORS = {
    "other names of the layers": (
        lambda t: renamed(t, "language_model.layers", "blocks"),
        r"\d+ tensors are missing.*",
    ),
    "no prefix": (lambda t: renamed(t, "base_model.model.", ""), "missing"),
    "of the released weights": (lambda t: renamed(t, "base_model.model.", "pipe.mllm.mllm_backbone."), "missing"),
    "half of the layers": (half, r"42 tensors are missing \(such as "),
    "none": (lambda t: {}, "56 tensors are missing"),
    "one more": (lambda t: {**t, "base_model.model.more.lora_A.weight": torch.zeros(2)}, "1 fit nowhere .*more"),
    "another rank": (lambda t: {n: x[:2] if "lora_A" in n else x[:, :2] for n, x in t.items()}, "rank 4"),
    "another size": (lambda t: {n: torch.cat([x, x], 1) for n, x in t.items()}, "but .* in this model"),
    "nan": (lambda t: with_one(t, nan_in), "holds nan or inf"),
    "inf": (lambda t: with_one(t, lambda x: x.fill_(float("inf"))), "holds nan or inf"),
    "integers": (lambda t: {n: x.to(torch.int8) for n, x in t.items()}, "int8, not of floating point"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_an_adapter_that_does_not_fit_is_one_line(params, adapter, kind):
    change, message = TENSORS[kind]
    save_file({n: x.contiguous() for n, x in change(load_file(adapter / WEIGHTS)).items()}, adapter / WEIGHTS)
    with pytest.raises(UserError, match=rf"vlm.*{message}") as caught:
        base(params).load_lora(adapter)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def settings(**changed):
    def change(folder):
        old = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**old, **changed}))

    return change


def cut(share):
    def change(folder):
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[: int(len(data) * share)])

    return change


FOLDERS = {
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "adapter_model.safetensors is missing"),
    "no settings": (lambda f: (f / CONFIG).unlink(), "adapter_config.json is missing"),
    "half a file": (cut(0.5), "damaged"),
    "nearly whole": (cut(0.999), "damaged"),
    "empty": (cut(0), "damaged"),
    "a text": (write(WEIGHTS, b"not a file of tensors"), "damaged"),
    "a pickle": (write(WEIGHTS, b"\x80\x04\x95" + bytes(90)), "damaged"),
    "settings cut": (write(CONFIG, b'{"r": 4'), "does not fit"),
    "settings a list": (write(CONFIG, b"[]"), "another type than LoRA"),
    "another type": (settings(peft_type="IA3"), "another type than LoRA"),
    "rank 8": (settings(r=8), "rank 8"),
    "rank 0": (settings(r=0), "does not fit"),
    "rank of text": (settings(r="four"), "does not fit"),
    "no such modules": (settings(target_modules=["nowhere"]), "does not fit"),
    "fewer modules": (settings(target_modules=["q_proj"]), "fit nowhere"),
    "dora": (settings(use_dora=True), "missing"),
    "alpha of nan": (settings(lora_alpha=float("nan")), "lora_alpha is no number"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_damaged_adapter_is_one_line(params, adapter, kind):
    change, message = FOLDERS[kind]
    change(adapter)
    with pytest.raises(UserError, match=rf"vlm.*{message}") as caught:
        base(params).load_lora(adapter)
    assert "\n" not in str(caught.value)


def test_weights_that_may_not_be_read_are_told_as_such(adapter, saved, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith(".safetensors"))
    with pytest.raises(UserError, match="adapter_model.safetensors: you may not read it; .*chmod a\\+r"):
        adapter_tensors(adapter)
    with pytest.raises(UserError, match="diffusion_pytorch_model.safetensors: you may not read it"):
        load_dit(saved)


# ------------------------------------------------------------------------------------------------ other weights
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {f"dit.{n}": x for n, x in t.items()}, "123 tensors are missing .* 123 fit nowhere .*dit"),
        (lambda t: dict(sorted(t.items())[:60]), "63 tensors are missing"),
        (lambda t: {**t, "more": torch.zeros(2)}, "1 fit nowhere"),
        (lambda t: with_one(t, nan_in), "holds nan or inf"),
        (lambda t: with_one(t, lambda x: x[:1].contiguous()), "no DiT weights here"),
    ],
    ids=["prefix", "half", "more", "nan", "shape"],
)
def test_a_dit_that_does_not_fit_is_one_line(vdm, tmp_path, change, message):
    vdm.dit.save_pretrained(tmp_path / "transformer")
    path = tmp_path / "transformer/diffusion_pytorch_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=message) as caught:
        load_dit(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_half_a_file_of_each_part_is_one_line(params, saved, tmp_path, part):
    vdm = VDM.load(saved, **vdm_options(params))
    vdm.save(tmp_path)
    (path,) = (tmp_path / part).glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{part}: no VDM weights here"):
        VDM.load(tmp_path, **vdm_options(params))
    tensors = dict(sorted(load_file(saved / part / path.name).items())[1:])
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{part}: not the whole VDM of this model: 1 tensors are missing"):
        VDM.load(tmp_path, **vdm_options(params))


def test_half_a_judge_is_one_line(params, tmp_path):
    torch.manual_seed(0)
    ToyDetector(5, 8, 16).save(tmp_path / "detector")
    CLIP.scratch(params.models.clip.config, text_tokenizer(WORDS), 0).save(tmp_path / "clip")
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="not a whole detector"):
        ToyDetector.load(tmp_path / "detector")
    with pytest.raises(UserError, match="no CLIP weights"):
        CLIP.load(tmp_path / "clip")


def test_saved_weights_have_the_permissions_of_other_files(params, vdm, adapter, tmp_path):
    vdm.save(tmp_path / "vdm")
    vlm = base(params)
    vlm.save(tmp_path / "base")
    CLIP.scratch(params.models.clip.config, text_tokenizer(WORDS), 0).save(tmp_path / "clip")
    ToyDetector(5, 8, 16).save(tmp_path / "detector")
    with files.atomic_dir(tmp_path / "stage") as partial:
        (partial / "deep").mkdir()
        save_file({"x": torch.zeros(1)}, partial / "deep/x.safetensors")
    (tmp_path / "plain").touch()
    expected = (tmp_path / "plain").stat().st_mode
    found = {path: path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()}
    assert len([path for path in found if path.suffix == ".safetensors"]) == 8
    assert {path for path, mode in found.items() if mode != expected} == set()


# ------------------------------------------------------------------------------------------------- the pipeline
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", [3, 8, 50])
def test_the_pipelines_scheduler_applies_the_shift_once(vdm, tmp_path, shift, steps):
    VDM(vdm.dit, vdm.vae, vdm.text_encoder, vdm.tokenizer, 3, shift, 24, "").save(tmp_path)
    scheduler = DPMSolverMultistepScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    assert_close(scheduler.sigmas.double(), sigmas(steps, shift), rtol=0, atol=1.1e-3)  # Wan's grid begins at 0.999


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_real_pipeline_generates_what_the_vdm_generates(vdm, saved, guidance, caplog):
    pipe = WanPipeline.from_pretrained(saved)
    pipe.set_progress_bar_config(disable=True)
    assert "Expected types" not in caplog.text
    text, negative, steps = "the  cone moves &amp; grows to the left .", "ball", 6
    shape = vdm.latent_shape(9, 32, 32)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    asked = {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": steps, "guidance_scale": guidance}
    asked |= {"negative_prompt": negative, "max_sequence_length": vdm.max_text}
    theirs = pipe(prompt=text, latents=noise, output_type="latent", **asked).frames
    embedded, against = vdm.embed([text]).detach(), vdm.embed([negative]).detach()
    x, times = noise, pipe.scheduler.timesteps  # whole numbers of 1000: the library rounds them down
    for i, (now, then) in enumerate(pairwise(pipe.scheduler.sigmas.tolist())):
        with torch.no_grad():
            v = vdm.guided_velocity(x, times[i : i + 1] / 1000, embedded, None, guidance, against)
        x = ode_step(x, v, now, then)
    assert_close(theirs, x, rtol=1e-3, atol=1e-3)
    none = torch.zeros(1, shape[0], 0, *shape[2:])
    mine = vdm.render_latents(embedded, none, noise, steps, guidance, against)
    assert (theirs - mine).abs().mean() < 0.05 * (mine - noise).abs().mean()
    pictures = pipe(prompt=text, latents=noise, output_type="np", **asked).frames
    assert pictures.shape == (1, 9, 32, 32, 3)
    assert abs((pictures * 255).round() - vdm.decode(x).numpy()).max() <= 1


# -------------------------------------------------------------------------------------------------- clean texts
def test_captions_are_cleaned_as_the_pipeline_cleans_them(vdm, saved):
    pipe = WanPipeline.from_pretrained(saved)
    for text in (
        "the  cone\n moves ",
        "the cone &amp; ball",
        "&lt;ball&gt; &amp;amp; it",
        "the co\u00adne",
        "ｂａｌｌ，",
    ):
        theirs, _ = pipe.encode_prompt(text, None, False, max_sequence_length=vdm.max_text)
        assert_close(vdm.embed([text]), theirs)
    assert_close(vdm.embed(["the  cone\tmoves &#46;"]), vdm.embed(["the cone moves ."]), rtol=0, atol=0)


def test_toy_captions_are_clean_already():
    styles = ("plain", "flowery")
    texts = {world.caption(shape, event, style) for shape in SHAPES for event in EVENTS for style in styles}
    assert len(texts) > 20 and all(prompt_clean(text) == text for text in texts)
