"""Devices: why CUDA cannot be used is told as it is; deterministic mode wherever a stage can start."""

import subprocess
import sys

import pytest
import torch

from tests import smoke
from vans import notebooks
from vans.devices import device_of, no_cuda
from vans.errors import UserError
from vans.parallel import launch
from vans.params import load

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: ..."
)
NONE = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver."


@pytest.fixture
def cuda(monkeypatch):
    """cuda(gpus, error): a machine with so many GPUs, or on which CUDA's start fails with this text."""
    before = torch.are_deterministic_algorithms_enabled()

    def fails(error: str):
        raise RuntimeError(error)

    def machine(gpus: int, error: str = "", built: str | None = "13.2") -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "init", lambda: fails(error) if error else None)
        monkeypatch.setattr(torch.version, "cuda", built)

    yield machine
    torch.use_deterministic_algorithms(before)


def test_why_there_is_no_cuda(cuda):
    for error, built, said in (
        (TOO_OLD, "13.2", "the NVIDIA driver is too old: it is for CUDA 11.4, this torch for CUDA 13.2; update the"),
        (TOO_OLD.replace("11040", "12080"), "13.2", "it is for CUDA 12.8, this torch"),
        (NONE, "13.2", "Found no NVIDIA driver on your system; see that nvidia-smi lists a GPU, or write machine.dev"),
        ("", "13.2", "no GPU is visible; see that"),
        (TOO_OLD, None, "this torch is built without CUDA; install a build with it, or write machine.device: cpu"),
    ):
        cuda(0, error, built)
        assert said in no_cuda()
        assert device_of("auto", 0) == torch.device("cpu")
        with pytest.raises(UserError, match="^machine.device in params.yaml is cuda: ") as caught:
            device_of("cuda", 0)
        assert said in str(caught.value) and "lower machine.processes" not in str(caught.value)


def test_a_fork_speaks_of_the_gpu_and_not_of_the_fork(cuda, monkeypatch):
    cuda(0, "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, ...")
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert no_cuda() == "no GPU is visible; see that nvidia-smi lists a GPU, or write machine.device: cpu"


def test_processes_beyond_the_gpus_that_work(cuda):
    cuda(2)
    assert no_cuda() == "" and device_of("cuda", 1) == device_of("auto", 1) == torch.device("cuda", 1)
    with pytest.raises(UserError, match="asks for GPU 2, this machine has 2; lower machine.processes"):
        device_of("cuda", 2)


def test_a_gpu_is_deterministic_whoever_asks_for_it(cuda):
    cuda(1)
    for name in ("auto", "cuda"):
        torch.use_deterministic_algorithms(False)
        device_of(name, 0)
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    device_of("cpu", 0)
    assert not torch.are_deterministic_algorithms_enabled()


def test_cublas_sums_in_one_order_in_plain_python_ranks_and_kernels():
    tell = "import os, vans; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"

    def plain(given: dict[str, str]) -> str:
        env = {k: v for k, v in smoke.environment(smoke.ROOT).items() if k != "CUBLAS_WORKSPACE_CONFIG"} | given
        return subprocess.run([sys.executable, "-c", tell], env=env, capture_output=True, text=True).stdout.strip()

    assert plain({}) == ":4096:8"
    assert plain({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}) == ":16:8"  # one's own stays
    assert plain(notebooks.environment(smoke.ROOT)) == ":4096:8"  # what kernels and servers of forks get
    machine = load(smoke.ROOT).machine.with_(device="cpu", processes=2)
    assert launch("tests.ranks:cublas_of", machine) == [":4096:8"] * 2
