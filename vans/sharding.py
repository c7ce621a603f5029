"""A model's weights, gradients and optimiser cut up over the ranks (machine.shard), where they do not fit whole.

torch's FSDP2, `torch.distributed.fsdp.fully_shard`: of every tensor a rank keeps its share of the rows, as a DTensor. A
block is gathered for as long as it computes, and its gradients are averaged and cut up again in the backward pass.
Weights are gathered as they are: the arithmetic is that of whole weights, and the numbers differ by the order of sums.

What it asks for: all ranks call the model equally often, in the same order (`rounds`, `gathered`); and nothing looks at
the weights from outside: `torch.func.functional_call` would silently compute with the model's own (`Exchanged`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from vans.parallel import Ranks


def shard(model: nn.Module, blocks: Iterable[nn.Module], ranks: Ranks, whole: nn.Module | None = None) -> None:
    """Cut a model up in place: each of its blocks, then what is left.

    What trains must require gradients already, the optimiser is made afterwards. Tensors may lie on the CPU: each goes
    to the rank's device when it is cut. whole: a part that every rank keeps, such as one that is called by itself.
    """
    warnings.filterwarnings("ignore", ".*returned a view tensor")  # nothing changes it in place
    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    kept = set() if whole is None else set(whole.parameters())
    for part in (*blocks, model):  # the model's own rest is not left gathered: what changes it would not be seen
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=kept)


def over(params: Any, ranks: Ranks) -> Ranks | None:
    """The ranks over which the parameters have what trains cut up, None where it stays whole."""
    return ranks if params.machine.shard and ranks.size > 1 else None


def sharded(model: Any) -> bool:
    return isinstance(model, FSDPModule)


def mine(tensor: Tensor) -> Tensor:
    """This rank's rows of a tensor that is cut up, the tensor itself of another; they share their memory."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def rows(tensor: Tensor) -> tuple[int, int]:
    """[first, end) of this rank's rows of a tensor; of a whole one all."""
    count = tensor.shape[0] if tensor.ndim else 1
    if not isinstance(tensor, DTensor):
        return 0, count
    share = -(-count // tensor.device_mesh.size())  # as torch.chunk cuts
    first = min(tensor.device_mesh.get_local_rank() * share, count)
    return first, min(first + share, count)


def rounds(model: Any, count: int, size: int) -> Iterator[tuple[slice, bool]]:
    """(rows, True) of each batch of at most `size` of so many (at least one) rows.

    Of a model that is cut up every rank makes as many rounds as the one with the most: (rows, False) are the first ones
    once more, for the others' sake; what comes of them counts nothing.
    """
    own = [slice(first, first + size) for first in range(0, count, size)]
    yield from ((part, True) for part in own)
    if sharded(model):
        most = torch.tensor(len(own))
        dist.all_reduce(most, dist.ReduceOp.MAX)
        yield from ((own[0], False) for _ in range(int(most) - len(own)))


def update(optim: Optimizer, trained: Sequence[Tensor], ranks: Ranks, grad_clip: float) -> Tensor:
    """One step with the mean of all ranks' gradients; returns their norm [] before it was cut down to `grad_clip`.

    The gradients of tensors that are cut up have been averaged in the backward pass.
    """
    ranks.average_gradients(p for p in trained if not isinstance(p, DTensor))
    norm = torch.nn.utils.clip_grad_norm_(trained, grad_clip)
    optim.step()
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Whole on every rank meanwhile, for many small passes without gradient, of which each rank may make its own
    number."""
    parts: list[Any] = [part for part in model.modules() if sharded(part)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


class Exchanged:
    """A model that is cut up, with the values that its trainable tensors have now, whatever they become: for each call,
    without gradient, they change places with those of the day."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.pairs = [(p, mine(p).clone()) for p in model.parameters() if p.requires_grad]

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._exchange()
        try:
            return self.model(*args, **kwargs)
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for p, kept in self.pairs:
            here = mine(p)
            before = here.clone()
            here.copy_(kept)
            kept.copy_(before)
        torch.clear_autocast_cache()  # it knows a weight by its place, not by its value


def make_whole(model: nn.Module, keep: bool) -> None:
    """The opposite of `shard`, for saving: every tensor whole, on the CPU, of the ranks that keep them. The model is
    not to be called any more."""
    found: dict[int, nn.Parameter] = {}
    for part in model.modules():
        for name, p in part._parameters.items():
            if isinstance(p, DTensor):
                if id(p) not in found:
                    whole = p.detach().full_tensor()
                    whole = whole.cpu() if keep else whole.to("meta")
                    found[id(p)] = nn.Parameter(whole, requires_grad=p.requires_grad)
                part._parameters[name] = found[id(p)]
    for part in model.modules():
        if sharded(part):
            part.__class__ = type(part).__mro__[2]  # its own: classes' names are saved
