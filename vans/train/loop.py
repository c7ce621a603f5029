"""Around the training loops: curves, histories of several parts, the batch's arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vans import files
from vans.parallel import processes


def write_curves(folder: Path, history: list[dict]) -> None:
    """History as dvclive's files (for `dvc plots` and `dvc exp show`), whole or not at all."""
    import pandas as pd
    from dvclive import Live

    with files.atomic_dir(folder) as partial:
        with Live(str(partial), dvcyaml=None, report=None, save_dvc_exp=False, monitor_system=False) as live:
            for row in history:
                live.step = row["step"]
                for key, value in row.items():
                    if key != "step":
                        live.log_metric(key, value)
                live.next_step()
        (partial / "plots/metrics").mkdir(parents=True, exist_ok=True)  # there even if nothing was trained
        table = pd.DataFrame(history) if history else pd.DataFrame({"step": []})
        table.to_csv(partial / "history.csv", index=False)


def columns(histories: Mapping[str, list[dict]]) -> list[dict]:
    """Histories of a stage's parts side by side: one row a step, with columns part/value."""
    rows: dict[int, dict] = {}
    for part, history in histories.items():
        for row in history:
            at = rows.setdefault(row["step"], {"step": row["step"]})
            at |= {f"{part}/{key}": value for key, value in row.items() if key != "step"}
    return [rows[step] for step in sorted(rows)]


def tell_batch(prompts: int, group_size: int, machine: Any, where: str) -> None:
    """Print the batch's arithmetic before a model is loaded: `group_size` answers of each prompt."""
    size = processes(machine)
    print(
        f"{where}: {prompts} prompts x {group_size} = {prompts * group_size} answers a step, "
        f"{prompts // size} prompts on each of {size} processes"
    )
