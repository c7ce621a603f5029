#!/usr/bin/env bash
# Package: PyTorch, torch.func.functional_call with torch.utils.checkpoint
# Version: torch 2.15.0
# Date: 2026-11-29
# Behaviour: functional_call runs a module with other parameters than its own. If the module recomputes its activations
#   (checkpoint, use_reentrant=False, as transformers and diffusers do), the backward pass comes after the call has put
#   the module's own parameters back, and the recomputation takes those. The output is right, the gradients are those at
#   a mixture of both sets of parameters, and nothing is said: the recomputed tensors have the shapes that are expected.
# Around it: recompute nothing inside of functional_call, or load the other parameters into the module.
# Output seen (y = b * tanh(a * x) at x = 1; own a = 0.5, b = 1; given a = 2, b = 3):
#   by hand: y 2.8921, dy/da 0.2120, dy/db 0.9640
#   kept: y 2.8921, dy/da 0.2120, dy/db 0.9640
#   recomputed: y 2.8921, dy/da 0.7864, dy/db 0.4621
#   dy/db is tanh of the own a, 0.4621
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.4.6
cat >"$work/gradients.py" <<'PY'
import math

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    def __init__(self, recompute):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(1.0))
        self.recompute = recompute

    def plain(self, x):
        return self.b * torch.tanh(self.a * x)

    def forward(self, x):
        return checkpoint(self.plain, x, use_reentrant=False) if self.recompute else self.plain(x)


def told(name, y, da, db):
    print(f"{name}: y {y:.4f}, dy/da {da:.4f}, dy/db {db:.4f}")
    return [round(v, 4) for v in (y, da, db)]


t = math.tanh(2.0)
hand = told("by hand", 3 * t, 3 * (1 - t * t), t)
found = {}
for name, recompute in (("kept", False), ("recomputed", True)):
    given = {k: torch.tensor(v, requires_grad=True) for k, v in (("a", 2.0), ("b", 3.0))}
    y = functional_call(Block(recompute), given, (torch.tensor(1.0),))
    y.backward()
    found[name] = told(name, y.item(), given["a"].grad.item(), given["b"].grad.item())
own = round(math.tanh(0.5), 4)
print(f"dy/db is tanh of the own a, {own}")
assert found["kept"] == hand
assert found["recomputed"][0] == hand[0] and found["recomputed"][2] == own != hand[2]
PY
cd "$work"
venv/bin/python -W error gradients.py
