"""The same instructions on every CPU, and what is recorded of the machine."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from vans import cpu
from vans.errors import UserError
from vans.tables import machines, report

ROOT = Path(__file__).resolve().parents[1]
V2 = "sse4_2 ssse3 popcnt"
V3 = f"{V2} avx2 fma bmi1 bmi2 f16c movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"
NAMES = (cpu.VARIABLE, *cpu.CAPS, cpu.NUMPY)


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Nothing set, and a CPU with AVX-512."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what `cap` sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(cpu.sys, "platform", "linux")
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    cpu.CPUINFO.write_text(f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {V4}\n\nprocessor\t: 1\nmodel name\t: B\n")
    return monkeypatch


@pytest.mark.parametrize(
    "flags, numpy",
    [(V3, None), (V4, "X86_V4"), (f"{V4} avx512_vbmi2", "X86_V4 AVX512_ICL"),
     (f"{V4} avx512_vbmi2 avx512_fp16", "X86_V4 AVX512_ICL AVX512_SPR")],
)  # fmt: skip
def test_no_library_goes_beyond_avx2(flags, numpy):
    caps = cpu.caps_of({"flags": flags})
    assert caps.pop(cpu.NUMPY, None) == numpy and caps == cpu.CAPS


@pytest.mark.parametrize("fields", [{}, {"flags": V2}, {"Features": "fp asimd"}])
def test_where_there_is_no_avx2_nothing_is_set(fields):
    assert cpu.caps_of(fields) == {}


def test_what_the_user_sets_stays(bare):
    bare.setenv(cpu.VARIABLE, "portable")
    bare.setenv("MKL_CBWR", "AUTO")
    cpu.cap()
    assert {name: os.environ[name] for name in cpu.CAPS} == {**cpu.CAPS, "MKL_CBWR": "AUTO"}
    assert cpu.describe(2, 1)["caps"]["MKL_CBWR"] == "AUTO"


@pytest.mark.parametrize("said", [None, "native"])
def test_native_leaves_the_libraries_alone(bare, said):
    if said:
        bare.setenv(cpu.VARIABLE, said)
    cpu.cap()
    assert not set(NAMES[1:]) & set(os.environ)


def test_what_cannot_be_set_is_one_line(bare):
    bare.setenv(cpu.VARIABLE, "avx9")
    with pytest.raises(SystemExit, match="VANS_ISA is avx9; set it to portable or native"):
        cpu.cap()
    bare.setenv(cpu.VARIABLE, "portable")
    cpu.CPUINFO.write_text(f"flags : {V2}\n")
    with pytest.raises(SystemExit, match="portable needs Linux on an x86-64 CPU with AVX2; set it to native"):
        cpu.cap()


def test_the_description_is_of_the_machine_and_names_no_place(bare):
    found = cpu.describe(2, 1)
    assert (found["cpu"], found["instructions"], found["processes"], found["threads"]) == ("A CPU", "x86-64-v4", 2, 1)
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    assert "/" not in json.dumps(found)


@pytest.mark.skipif(not cpu.caps_of(cpu._cpuinfo()), reason="portable needs Linux on an x86-64 CPU with AVX2")
def test_the_libraries_hear_it():
    """Set before the first of them is imported, and workers and kernels inherit it."""
    code = """
import sys, vans
assert not {"numpy", "torch"} & set(sys.modules)
import torch
from numpy._core._multiarray_umath import __cpu_features__ as features
print(torch.backends.cpu.get_cpu_capability(), [name for name in vans.cpu.NUMPY_BEYOND if features.get(name)])
"""
    bare = {name: value for name, value in os.environ.items() if name not in NAMES}
    bare |= {"PYTHONPATH": str(ROOT), cpu.VARIABLE: "portable"}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("AVX2 []", "")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_imports_vans_first(path):
    """It is opened in JupyterLab, too, whose kernel may know no more than VANS_ISA."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    imports = [each for cell in cells for each in ast.parse(cell).body if isinstance(each, ast.Import | ast.ImportFrom)]
    assert isinstance(imports[0], ast.Import) and imports[0].names[0].name == "vans"


# ---------------------------------------------------------------- which machine


def machine(**other) -> dict:
    plain = {"cpu": "A", "instructions": "x86-64-v4", "caps": {}, "processes": 2, "threads": 1, "system": "Linux"}
    return plain | {"python": "3.11.7", "torch": "2", "numpy": "2", "scipy": "1"} | other


def test_a_stage_is_recorded_with_the_machine_that_ran_it_last(tmp_path):
    for stage, cpu_name in (("03_sft", "A"), ("04_stage1.full", "A"), ("04_stage1.full", "B"), ("05_stage2.main", "B")):
        machines.record(tmp_path, stage, machine(cpu=cpu_name))
    found = {each["cpu"]: each["stages"] for each in machines.read(tmp_path)}
    assert found == {"A": ["03_sft"], "B": ["04_stage1.full", "05_stage2.main"]}
    machines.record(tmp_path, "03_sft", machine(cpu="B"))
    assert [each["cpu"] for each in machines.read(tmp_path)] == ["B"]


def test_the_comparison_says_which_machines(tmp_path):
    ours, theirs = machine(stages=["03_sft"]), machine(stages=[], cpu="B", caps={"MKL_CBWR": "COMPATIBLE"})
    said = machines.text([ours], [theirs])
    assert "measured on A (x86-64-v4, Linux), 2 processes of 1 threads, python 3.11.7, torch 2" in said
    assert "published on B" in said and "caps: MKL_CBWR=COMPATIBLE" in said
    assert said.endswith("they differ in: caps, cpu")
    assert machines.text([ours], [ours]).endswith("the same kind of machine")
    assert machines.text([], [ours]).startswith("measured on a machine that nobody recorded")


@pytest.mark.parametrize("text", ["{", "{}x", "[1]", '[{"cpu": "A"}]', '{"cpu": 1}'])
def test_a_broken_record_is_one_line(tmp_path, text):
    (tmp_path / machines.NAME).write_text(text)
    with pytest.raises(UserError, match="machine.json: not a list of machines"):
        machines.read(tmp_path)


def test_the_record_is_published_with_the_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    machines.record(tmp_path / "results", "03_sft", machine())
    (tmp_path / "results/main.md").write_text("# Table\n")
    (tmp_path / "results/main.csv").touch()
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n")
    monkeypatch.setattr(report, "headline", lambda folder: "")
    report.publish()
    assert [each["stages"] for each in machines.read(tmp_path / "docs/results")] == [["03_sft"]]
    (tmp_path / "results" / machines.NAME).unlink()
    report.publish()
    assert machines.read(tmp_path / "docs/results") == []
