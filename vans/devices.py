"""Which device a process computes on, and why CUDA cannot be used where it cannot."""

from __future__ import annotations

import re
import warnings

import torch

from vans.errors import UserError


def device_of(name: str, rank: int) -> torch.device:
    """ "auto", "cpu" or "cuda" -> this rank's device; on a GPU torch's deterministic mode goes on with it.

    Where a kernel has no deterministic form torch warns and goes on. The mode needs CUBLAS_WORKSPACE_CONFIG, which
    `import vans` sets (vans/__init__.py). UserError where CUDA cannot be used, or there is no such GPU.
    """
    if name == "auto":
        name = "cpu" if no_cuda() else "cuda"
    if name == "cpu":
        return torch.device("cpu")
    if why := no_cuda():
        raise UserError(f"machine.device in params.yaml is cuda: {why}")
    if rank >= torch.cuda.device_count():
        raise UserError(
            f"machine.processes asks for GPU {rank}, this machine has {torch.cuda.device_count()}; "
            "lower machine.processes in params.yaml"
        )
    torch.use_deterministic_algorithms(True, warn_only=True)  # on CPUs everything here is
    return torch.device("cuda", rank)


def no_cuda() -> str:
    """Why CUDA cannot be used here, with what mends it; "" where it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is said in one line
        if torch.cuda.is_available():
            return ""
    if torch.version.cuda is None:
        return "this torch is built without CUDA; install a build with it, or write machine.device: cpu"
    try:
        if not torch.cuda._is_in_bad_fork():  # then it would speak of the fork; one is made where there is no GPU alone
            torch.cuda.init()
    except Exception as error:  # of several kinds: RuntimeError, AssertionError, torch's own
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    else:
        said = "no GPU is visible"
    if old := re.search(r"too old \(found version (\d+)\)", said):
        major, minor = divmod(int(old[1]) // 10, 100)
        return (
            f"the NVIDIA driver is too old: it is for CUDA {major}.{minor}, this torch for CUDA {torch.version.cuda}; "
            "update the driver, or install a torch built for it"
        )
    return f"{said.split('. ')[0].rstrip('.')}; see that nvidia-smi lists a GPU, or write machine.device: cpu"
