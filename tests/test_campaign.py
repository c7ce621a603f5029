"""A short campaign of kills, full disks and pairs, on a training that costs nothing (benchmarks/campaign.py)."""

import json
import os
import subprocess
import sys

import pytest

from tests import smoke


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_whatever_is_killed_or_full_ends_in_the_same_bytes(tmp_path):
    parts = ["--only", "kills,aimed,disk,pairs", "--kills", "14", "--aimed", "8", "--disk", "6", "--pairs", "3"]
    command = [sys.executable, "benchmarks/campaign.py", "--stages", "loop", *parts, "--folder", tmp_path]
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "out.json")],
        cwd=smoke.ROOT,
        env=smoke.environment(smoke.ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["wrong"] == [] and found["figures"]["kills"]["same bytes"] >= 14
    assert found["figures"]["disk"]["line"] >= 3 and found["figures"]["pairs"] == {"pairs": 3, "faults": 0}


def test_figures_are_written_also_where_nobody_reads_along(tmp_path):
    """Standard output is closed, as by `| head`."""
    command = [sys.executable, "benchmarks/hostile.py", "--cases", "6", "--out", str(tmp_path / "out.json")]
    reader, writer = os.pipe()
    os.close(reader)
    subprocess.run(command, cwd=smoke.ROOT, env=smoke.environment(smoke.ROOT), stdout=writer, check=True)
    os.close(writer)
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found) == 6 and all(counts["cases"] == 1 for counts in found.values())
