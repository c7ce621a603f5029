"""GPUs as their makers' data sheets give them: memory, dense bfloat16 peak, bandwidth of the memory."""

from __future__ import annotations

from dataclasses import dataclass

from vans.errors import UserError, one_of


@dataclass(frozen=True)
class GPU:
    """memory: GB; peak: TFLOP/s in bfloat16 without sparsity (TF32, the VAE's, has half); bandwidth: TB/s. cuda: words
    by which its name in CUDA is known."""

    name: str
    memory: int
    peak: float
    bandwidth: float
    cuda: tuple[str, ...]

    @property
    def usable(self) -> float:
        """Bytes that a plan may fill: nine tenths, the rest is for CUDA's context, libraries and fragments."""
        return 0.9e9 * self.memory


GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("a100-40", 40, 312, 1.56, ("A100", "40GB")),
        GPU("a100-80", 80, 312, 2.04, ("A100", "80GB")),
        GPU("h100", 80, 989, 3.35, ("H100",)),  # SXM
        GPU("h200", 141, 989, 4.8, ("H200",)),
        GPU("l40s", 48, 362, 0.86, ("L40S",)),
        GPU("rtx-6000-48", 48, 364, 0.96, ("RTX 6000 Ada",)),
        GPU("b200", 180, 2250, 8.0, ("B200",)),
    )
}


def gpu(name: str) -> GPU:
    """One of the table; UserError for another name."""
    if name not in GPUS:
        raise UserError(f"--gpu {name}: is unknown; use {one_of(GPUS)}")
    return GPUS[name]


def found(cuda: str) -> GPU | None:
    """The one that CUDA calls so ("NVIDIA H100 80GB HBM3"), None where the table does not have it."""
    return next((gpu for gpu in GPUS.values() if all(word in cuda for word in gpu.cuda)), None)
