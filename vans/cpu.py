"""The same bytes on every x86-64 CPU that has AVX2: no library takes wider instructions than these.

ATen, oneDNN, MKL, OpenBLAS and NumPy look at the CPU and take the widest instructions that it has; MKL looks at its
maker, too. Wider registers add in another order, so that the last bits differ, and training carries them on. `cap`
tells each library the same, by the environment (processes that are started inherit it), before any of them is imported:
`import vans` calls it. What the user has set stays; VANS_ISA=native leaves all of them alone.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

VARIABLE, KINDS = "VANS_ISA", ("portable", "native")
CAPS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # the one mode that Intel's CPUs and others share
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's and SciPy's
}
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
    """Set every cap that is not set yet; nothing on a CPU without AVX2, where there is no choice."""
    kind = os.environ.get(VARIABLE, "portable")
    if kind not in KINDS:
        sys.exit(f"vans: the environment variable {VARIABLE} is {kind}; set it to portable or native")
    if kind == "portable":
        for name, value in caps_of(_cpuinfo()).items():
            os.environ.setdefault(name, value)


def caps_of(cpu: dict[str, str]) -> dict[str, str]:
    """What `cap` sets on this CPU, given its fields in /proc/cpuinfo."""
    flags = set(cpu.get("flags", "").split())
    if not flags >= LEVELS["x86-64-v3"]:
        return {}
    beyond = [name for name, flag in NUMPY_BEYOND.items() if flag in flags]  # NumPy warns of one that is not there
    return {**CAPS, **({NUMPY: " ".join(beyond)} if beyond else {})}


def describe(processes: int, threads: int) -> dict[str, Any]:
    """What of this machine decides last bits: CPU, instructions, caps as they are set, processes, versions."""
    cpu = _cpuinfo()
    flags = set(cpu.get("flags", "").split())
    level = next((name for name, needed in LEVELS.items() if flags >= needed), platform.machine())
    return {
        "cpu": cpu.get("model name") or platform.processor() or "unknown",
        "instructions": level,
        "caps": {name: os.environ[name] for name in (*CAPS, NUMPY) if name in os.environ},
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
