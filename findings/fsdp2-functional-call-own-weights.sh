#!/usr/bin/env bash
# Package: PyTorch, torch.func.functional_call on a module under FSDP2 (torch.distributed.fsdp.fully_shard)
# Version: torch 2.15.0
# Date: 2026-11-29
# Behaviour: the module runs with its own weights once a plain forward pass has been: the hooks of fully_shard put the
#   gathered own parameters in the place of those that were given. A policy's log-probabilities and those of its
#   reference, computed so, are the same numbers and the KL term is 0 for ever; nothing is said. If functional_call comes
#   first, the given tensors are used and stay: the module has lost its own weights when the call is over.
# Around it: a second sharded module for the other weights.
# Output seen (one process; the weights given are zeros, so that the right output is 0):
#   plain module: given 0.0000, own -0.2802
#   fully_shard, after a forward pass: given -0.2802, own -0.2802
#   fully_shard, before one: given 0.0000, own 0.0000
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.4.6
cat >"$work/weights.py" <<'PY'
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.func import functional_call

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh, x = init_device_mesh("cpu", (1,)), torch.ones(1, 4)


def built(shard):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    for module in [*model, model] if shard else []:
        fully_shard(module, mesh=mesh)
    return model


def given(model):
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    return round(functional_call(model, zeros, (x,)).item(), 4)


def own(model):
    return round(model(x).item(), 4)


model = built(False)
plain = given(model), own(model)
model = built(True)
model(x)
after = given(model), own(model)
model = built(True)
first = given(model), own(model)
for name, values in (
    ("plain module", plain),
    ("fully_shard, after a forward pass", after),
    ("fully_shard, before one", first),
):
    print(f"{name}: given {values[0]:.4f}, own {values[1]:.4f}")
assert plain[0] == 0 != plain[1]
assert after == (plain[1], plain[1])
assert first == (0, 0)
dist.destroy_process_group()
PY
cd "$work"
venv/bin/python weights.py
