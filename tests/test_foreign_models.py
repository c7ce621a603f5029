"""Model folders from elsewhere: none gets its code run or asked for, whatever its files say; and no text ends a model's
reading by a sign of the model's own."""

import builtins
import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch.testing import assert_close
from transformers import AutoConfig

from tests import smoke
from vans.errors import UserError
from vans.models.clip import CLIP, words
from vans.models.load import vdm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.models.whole import companion
from vans.params import load
from vans.toy import world

WORDS = world.vocabulary()
AUTO = ("Config", "Model", "ModelForCausalLM", "Processor", "ImageProcessor", "VideoProcessor", "FeatureExtractor")
CODE = "open({mark!r}, 'a').write(__file__)\n\nclass X:\n    pass\n"


@pytest.fixture(scope="module")
def params():
    return load(smoke.ROOT, scale="tiny")


@pytest.fixture(scope="module")
def models(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    VLM.scratch(params.models.vlm.config, chat_tokenizer(WORDS), 0).save(folder / "vlm")
    VDM.scratch(params.models.vdm.config, text_tokenizer(WORDS), 0, **vdm_options(params)).save(folder / "vdm")
    CLIP.scratch(params.models.clip.config, text_tokenizer(WORDS), 0).save(folder / "clip")
    return folder


@pytest.fixture
def folder(models, tmp_path, monkeypatch):
    """Copies; nobody answers, nothing is fetched, no module is made of what they hold."""

    def never(*_args, **_options):
        raise AssertionError("asked, or fetched")

    monkeypatch.setattr(builtins, "input", never)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.dynamic_module_utils.get_class_in_module", never)
    return Path(shutil.copytree(models, tmp_path / "models"))


def loaders(folder, params):
    return {
        "vlm": lambda: VLM.load(folder / "vlm"),
        "vdm": lambda: VDM.load(folder / "vdm", **vdm_options(params)),
        "clip": lambda: CLIP.load(folder / "clip"),
        "config": lambda: companion(AutoConfig, folder / "vlm", "config", "get it"),
    }


def change(path, **more):
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


OWN = [
    *("vlm/config.json", "vlm/processor_config.json", "vdm/tokenizer/tokenizer_config.json"),
    "clip/tokenizer_config.json",
]


@pytest.mark.parametrize("which", ["vlm", "vdm", "clip", *OWN])
def test_a_folder_with_code_of_its_own_does_not_run_it(params, folder, tmp_path, which):
    """Every file names code; one of them also classes that no library has, so that nothing else could be meant."""
    mark = tmp_path / "ran"
    own = {f"Auto{name}": "evil.X" for name in AUTO} | {"AutoTokenizer": ["evil.X", "evil.X"]}
    named = {"tokenizer_class": "X", "processor_class": "X", "image_processor_type": "X", "video_processor_type": "X"}
    for path in (path for path in folder.rglob("*.json") if path.name not in ("tokenizer.json", "model_index.json")):
        path.with_name("evil.py").write_text(CODE.format(mark=str(mark)))
        change(path, auto_map=own)
    if which in OWN:
        change(folder / which, **named, **({"model_type": "evil"} if which.endswith("/config.json") else {}))
    config = json.loads((folder / "clip/open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "clip/open_clip_config.json").write_text(json.dumps(config))
    before = set(sys.modules)
    for name in ("vlm", "config") if which.startswith("vlm") else (which.partition("/")[0],):
        try:
            loaders(folder, params)[name]()
        except UserError as error:
            assert str(folder) in str(error) and len(str(error)) < 700
    assert not mark.exists() and not [name for name in set(sys.modules) - before if "evil" in name]


@pytest.mark.parametrize("template", ["{{ x.y.z }}", "{% for", "{{ ''.__class__.__mro__ }}", ""])
def test_a_chat_template_that_cannot_be_filled_in_is_one_line(folder, template):
    (folder / "vlm/chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match="chat template cannot be filled in") as caught:
        VLM.load(folder / "vlm").prompt("what happens next ?")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_a_folder_does_not_choose_the_kernel_of_attention(params, folder, key):
    for path in (folder / "vlm/config.json", folder / "vdm/text_encoder/config.json"):
        config = json.loads(path.read_text())
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            part[key] = "kernels-community/evil"
        path.write_text(json.dumps(config))
    for part in (VLM.load(folder / "vlm").model.config, loaders(folder, params)["vdm"]().text_encoder.config):
        assert part._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("section", "more", "message"),
    [
        ("text_cfg", {"hf_model_name": "someone/roberta"}, "hf_model_name from elsewhere"),
        ("vision_cfg", {"timm_model_name": "hf-hub:someone/vit"}, "timm_model_name from elsewhere"),
        ("vision_cfg", {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": True}, "from elsewhere"),
        ("text_cfg", {"hf_tokenizer_name": "someone/tokenizer"}, None),
        ("text_cfg", {"context_length": "long"}, "no CLIP weights"),
    ],
)
def test_a_clip_takes_no_part_from_elsewhere(folder, section, more, message):
    config = json.loads((folder / "clip/open_clip_config.json").read_text())
    config["model_cfg"][section] |= more
    (folder / "clip/open_clip_config.json").write_text(json.dumps(config))
    if message is None:
        CLIP.load(folder / "clip")
        return
    with pytest.raises(UserError, match=message):
        CLIP.load(folder / "clip")


# ------------------------------------------------------------------------------------------------ signs of models
SIGNS = ["</s>", "&lt;/s&gt;", "<end_of_text>"]


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_in_a_caption_ends_it_for_nobody(params, models, sign):
    """What stands behind it still counts: for the text encoder and for CLIP, whose feature is read at the end."""
    vdm, clip = loaders(models, params)["vdm"](), loaders(models, params)["clip"]()
    tokens = vdm.tokenizer
    for read in (vdm.embed, clip.text_features):
        one, other = (read([f"the cone {sign} {end}"]) for end in ("moves left", "moves right"))
        assert not torch.allclose(one, other)
        plain = read(["the cone moves left"])
        assert_close(read(["the cone moves left"]), plain)
    ids = tokens("the cone < /s> moves").input_ids
    assert ids.count(tokens.eos_token_id) == 1


@pytest.mark.parametrize("sign", [*SIGNS, "\uff1cend_of_text\uff1e", "&amp;amp;lt;end_of_text&amp;amp;gt;"])
def test_what_clips_own_tokenizer_makes_of_a_text_is_no_sign(sign):
    tokenizer = SimpleTokenizer()
    ids = tokenizer([words(f"the cone {sign} moves")])[0].tolist()
    assert ids.count(tokenizer.eot_token_id) == 1 and tokenizer.encode("moves")[0] in ids


def test_an_answer_to_learn_from_and_a_question_hold_no_sign(models):
    vlm = VLM.load(models / "vlm")
    for sign in ("<|im_end|>", "<|video_pad|>", "</s>", "<unk>"):
        with pytest.raises(UserError, match="an answer to learn from holds"):
            vlm.encode_answers([f"[Think] a [/Think] [Ans] b {sign} c [/Ans]"])
        with pytest.raises(UserError, match="the question holds"):
            vlm.prompt(f"what {sign} next ?")
