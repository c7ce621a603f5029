"""The release's two files as tests need them: of toy models, in the exact layout and names of the published ones."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from vans.models.vdm import VDM
from vans.models.vlm import VLM

SUFFIXES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WAN = [  # diffusers -> Wan; in this order, the first that fits
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    (".attn1.to_out.0.", ".self_attn.o."),
    (".attn2.to_out.0.", ".cross_attn.o."),
    *((f".attn{i}.to_{x}.", f".{kind}_attn.{x}.") for i, kind in ((1, "self"), (2, "cross")) for x in "qkv"),
    *((f".attn{i}.norm_{x}.", f".{kind}_attn.norm_{x}.") for i, kind in ((1, "self"), (2, "cross")) for x in "qk"),
    (".ffn.net.0.proj.", ".ffn.0."),
    (".ffn.net.2.", ".ffn.2."),
    (".norm2.", ".norm3."),
    (".scale_shift_table", ".modulation"),
    ("scale_shift_table", "head.modulation"),
    ("proj_out.", "head.head."),
    ("patch_embedding.", "patch_embedding."),
]


def lora(vlm: VLM, seed: int = 3, rank: int = 8):
    """The VLM's network under a LoRA as the release has it, unmerged, in language and vision; peft's own model."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=32, target_modules=SUFFIXES, task_type="CAUSAL_LM")
    adapted = get_peft_model(vlm.model, config).eval()
    for name, p in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.05)
    return adapted


def vlm_file(adapted, prefix: str = "pipe.mllm.mllm_backbone.") -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in get_peft_model_state_dict(adapted).items():
        old = name.replace(".model.model.language_model.layers.", ".model.model.layers.")
        old = old.replace(".model.model.visual.", ".model.visual.")
        old = old.replace("lora_A.weight", "lora_A.default.weight").replace("lora_B.weight", "lora_B.default.weight")
        found[prefix + old] = tensor.detach().clone()
    return found


def vdm_file(vdm: VDM, prefix: str = "dit.") -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in vdm.dit.state_dict().items():
        new, old = next(pair for pair in WAN if pair[0] in name)
        found[prefix + name.replace(new, old)] = tensor.detach().clone()
    return found


def write(folder: Path, vlm: dict, vdm: dict, dtype: torch.dtype = torch.float32) -> Path:
    """A folder with checkpoints/, as it is downloaded."""
    (folder / "checkpoints").mkdir(parents=True)
    for name, tensors in (("vlm", vlm), ("vdm", vdm)):
        lowered = {key: tensor.to(dtype) for key, tensor in tensors.items()}
        save_file(lowered, folder / f"checkpoints/{name}.safetensors", metadata={"format": "pt", "who": name})
    return folder


def by_hand(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A file of another writer: tensors in their own order, names in another, spaces, metadata at the end."""
    entries, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().numpy().tobytes()
        entries[name] = {"shape": list(tensor.shape), "dtype": "F32", "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header = json.dumps({**dict(reversed(entries.items())), "__metadata__": {"step": "7"}}, indent=1).encode()
    header += b" " * (-len(header) % 8 + 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


PROMPTS = {  # a checkout of its repository, as far as the prompts go; in our words
    "vans/models_mllm/agent_mllm.py": (
        "import torch\n\nraise RuntimeError('this code is not run')\n\n\nclass Config:\n"
        "    def __init__(self, name='x', *, system_prompt: str = 'think , then answer', **more):\n"
        "        self.system_prompt = system_prompt\n"
    ),
    "inference.py": "def main(pipe):\n    pipe(prompt='p', negative_prompt='still', seed=0)\n",
}


def checkout(folder: Path, **changed: str) -> Path:
    for name, text in PROMPTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(changed.get(Path(name).stem, text))
    return folder
