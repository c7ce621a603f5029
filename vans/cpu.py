"""The same bytes on every x86-64 CPU that has AVX2: VANS_ISA=portable in the environment.

ATen, oneDNN, MKL, OpenBLAS and NumPy look at the CPU and take the widest instructions that it has; MKL looks at its
maker, too. Wider registers add in another order, so that the last bits differ, and training carries them on. `cap`
tells each library the same, by the environment (processes that are started inherit it), before any of them is imported:
`import vans` calls it. What the user has set stays. It is slower (docs/scales.md), so the default is native: each
library's own choice.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

VARIABLE, KINDS = "VANS_ISA", ("native", "portable")
CAPS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # the one mode that Intel's CPUs and others share
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's and SciPy's
    "OPENBLAS_NUM_THREADS": "1",  # in a kernel that no stage has started, as there
}
THREADS = ("OPENBLAS_NUM_THREADS",)  # no cap of instructions; headless stages always set it
NUMPY = "NPY_DISABLE_CPU_FEATURES"
NUMPY_BEYOND = {"X86_V4": "avx512f", "AVX512_ICL": "avx512_vbmi2", "AVX512_SPR": "avx512_fp16"}  # and the CPU's flag
LEVELS = {  # the instructions that each level adds, by their names in /proc/cpuinfo
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"},
    "x86-64-v2": {"sse4_2", "popcnt", "ssse3"},
}
CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("torch", "numpy", "scipy")


def cap() -> None:
    """Where the user asks for it, set every cap that is not set yet; a CPU without AVX2 cannot take part."""
    kind = os.environ.get(VARIABLE, "native")
    if kind not in KINDS:
        sys.exit(f"vans: the environment variable {VARIABLE} is {kind}; set it to portable or native")
    if kind == "native":
        return
    if not (caps := caps_of(_cpuinfo())):
        sys.exit(f"vans: {VARIABLE}=portable needs Linux on an x86-64 CPU with AVX2; set it to native")
    for name, value in caps.items():
        os.environ.setdefault(name, value)


def caps_of(cpu: dict[str, str]) -> dict[str, str]:
    """What `cap` sets on this CPU, given its fields in /proc/cpuinfo."""
    flags = set(cpu.get("flags", "").split())
    if not flags >= LEVELS["x86-64-v3"]:
        return {}
    beyond = [name for name, flag in NUMPY_BEYOND.items() if flag in flags]  # NumPy warns of one that is not there
    return {**CAPS, **({NUMPY: " ".join(beyond)} if beyond else {})}


def caps_set() -> dict[str, str]:
    """The caps as the environment has them now, the user's own included."""
    return {name: os.environ[name] for name in (*CAPS, NUMPY) if name in os.environ and name not in THREADS}


def describe(processes: int, threads: int) -> dict[str, Any]:
    """What of this machine decides last bits: CPU, instructions, caps as they are set, processes, versions."""
    cpu = _cpuinfo()
    flags = set(cpu.get("flags", "").split())
    level = next((name for name, needed in LEVELS.items() if flags >= needed), platform.machine())
    return {
        "cpu": cpu.get("model name") or platform.processor() or "unknown",
        "instructions": level,
        "caps": caps_set(),
        "processes": processes,
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def _cpuinfo() -> dict[str, str]:
    """The first CPU's fields; empty where the system has no such file."""
    if not sys.platform.startswith("linux") or not CPUINFO.exists():
        return {}
    first = CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    return dict(re.findall(r"^(.+?)\s*:\s*(.*)$", first, re.MULTILINE))
