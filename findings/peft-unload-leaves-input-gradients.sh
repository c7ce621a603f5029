#!/usr/bin/env bash
# Package: peft and transformers, activation checkpointing on a vision-language model
# Version: peft 0.21.2, transformers 5.23.0, torch 2.15.0
# Date: 2026-11-29
# Behaviour: a model with activation checkpointing that gets an adapter makes the outputs of its input embeddings require a
#   gradient, by forward hooks; of a vision-language model the patch embedding of the vision tower, too. It does so twice,
#   and transformers remembers the second pair of hooks alone. unload() takes the adapter away and leaves all four, turning
#   checkpointing off leaves them, and disable_input_require_grads() removes two: with no parameter that could be trained
#   every forward pass builds a graph through the frozen tower and keeps its activations.
# Around it: torch.no_grad() around what is frozen, or removal of the hooks by hand.
# Output seen:
#   hooks before the adapter: 0, with it 4, after unload() 4, with checkpointing off 4
#   parameters that need a gradient: 0; the tower's output needs one: True
#   hooks after disable_input_require_grads(): 2; the tower's output needs a gradient: True
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME="$work" HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 transformers==5.23.0 peft==0.21.2 numpy==2.4.6
cat >"$work/hooks.py" <<'PY'
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
rope = {"type": "mrope", "mrope_section": [1, 1, 2]}
vision = dict(hidden_size=16, out_hidden_size=16, depth=1, num_heads=2, intermediate_size=16)
config = Qwen2_5_VLConfig(text_config={**text, "vocab_size": 64, "rope_scaling": rope}, vision_config=vision)
model = Qwen2_5_VLForConditionalGeneration(config).requires_grad_(False)


def hooks():
    return sum(len(module._forward_hooks) for module in model.modules())


def needs():
    pixels, grid = torch.zeros(4, 3 * 2 * 14 * 14), torch.tensor([[1, 2, 2]])
    found = model.model.visual(pixels, grid_thw=grid)
    found = found if isinstance(found, torch.Tensor) else found[0]
    return found.requires_grad


before = hooks()
assert not needs()
model.gradient_checkpointing_enable()
adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
with_it = hooks()
model = adapted.unload()
unloaded = hooks()
model.gradient_checkpointing_disable()
off = hooks()
print(f"hooks before the adapter: {before}, with it {with_it}, after unload() {unloaded}, with checkpointing off {off}")
trained, still = sum(p.requires_grad for p in model.parameters()), needs()
print(f"parameters that need a gradient: {trained}; the tower's output needs one: {still}")
model.disable_input_require_grads()
left, after = hooks(), needs()
print(f"hooks after disable_input_require_grads(): {left}; the tower's output needs a gradient: {after}")
assert (before, with_it, unloaded, off, left) == (0, 4, 4, 4, 2)
assert trained == 0 and still and after
PY
cd "$work"
venv/bin/python hooks.py 2>/dev/null
