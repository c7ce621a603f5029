"""Folders, adapters, predictions, notebooks, texts and servers that mean harm, or were damaged: each ends in one clear
line or is read right, and an annotator's key is in no file.

    python benchmarks/hostile.py [--cases 1200] [--seed 0]

Prints for each kind: cases, refused in one line, right, tracebacks (with the first of them), and files that appeared
outside of where they may. The same seed gives the same cases.
"""

import argparse
import csv
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.data_helpers import curate_params, world_params
from tests.fuzz_helpers import damaged, damaged_rows, damaged_text, damaged_value
from tests.llm_server import Answer, Call, Server, failed, good, said
from vans import code, notebooks, template
from vans.answer import predictions
from vans.data import manifest
from vans.data.annotate import Annotation, Request, endpoint
from vans.data.curate import curate
from vans.data.stream import Stream
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.files import atomic_write_text, temporary, usual_permissions
from vans.llm import answers
from vans.llm.limits import Timer
from vans.models.whole import CONFIG, WEIGHTS, load_adapter
from vans.params import load
from vans.show import page
from vans.tables.markdown import grid_of
from vans.toy import world
from vans.visible import terminal

NASTY: list[Any] = ["", "../../outside", "/etc/passwd", "a/b", "..", ".hidden", "a\nb", "a\0b", "\u202etxt", "x" * 300]
NASTY += ["<|im_end|>", "</s>", "[/Ans]", "<script>x</script>", "=1+1", "00000.tar", "../00000.tar", "00000.tar\n"]
NASTY += ["shards", "99999.tar", None, -1, 0, 1, 2**62, -(2**62), 511, 0.5, float("nan"), float("inf"), True, "train"]
SIGNS = ["<|video_pad|>", "<|IM_END|>", "</s>", "<s>", "<pad>", "<extra_id_7>", "<end_of_text>", "<<|x|>"]
KEY = "sk-n0b0dys/own+key-1"
Case = Callable[[Path, random.Random], None]  # raises UserError, or is right; AssertionError where it is not


class Hostile:
    """The cases of each kind over one small sound world in `root`."""

    def __init__(self, root: Path) -> None:
        self.root, self.sound = root, root / "sound"
        world.generate(root / "data", world_params(3, 2, 3, 2))
        curate(root / "data", self.sound, curate_params(), progress=False)
        self.frame = pd.read_parquet(self.sound / "manifest.parquet")
        self.save_adapter(root / "adapter")
        self.notebook = json.loads(next(Path("notebooks").glob("07*.ipynb")).read_text(encoding="utf-8"))

    # ------------------------------------------------------------------------------------------------ triplets
    def triplets(self, folder: Path, draw: random.Random) -> None:
        """A manifest with cells, rows or columns that no curation writes; or a file that is damaged."""
        frame = self.frame.copy().astype(object)
        for _ in range(draw.randint(1, 2)):
            name, row = draw.choice(list(frame.columns)), draw.randrange(len(frame))
            what = draw.random()
            if what < 0.6:
                frame.loc[frame.index[row], name] = draw.choice(NASTY)
            elif what < 0.7:
                frame = frame.drop(columns=name)
            elif what < 0.8:
                frame = pd.concat([frame, frame.iloc[[row]]], ignore_index=True)
            elif what < 0.9:
                frame[name] = frame[draw.choice(list(frame.columns))]
            else:
                frame[name] = [draw.choice(NASTY)] * len(frame)
        folder.mkdir()
        path = folder / "manifest.parquet"
        for name in frame:  # the type of before where every cell still has it
            try:
                frame[name] = frame[name].astype(self.frame[name].dtype)
            except (TypeError, ValueError, OverflowError):
                frame[name] = frame[name].map(lambda value: value if value is None else str(value))
        frame.to_parquet(path)
        if draw.random() < 0.15:
            path.write_bytes(damaged(path.read_bytes(), draw))
        shutil.copytree(self.sound / "shards", folder / "shards")
        if draw.random() < 0.15:
            shard = next((folder / "shards").iterdir())
            shard.write_bytes(damaged(shard.read_bytes(), draw))
        triplets = Triplets(folder)
        names = triplets.select()
        assert all((folder / name).resolve().parent == folder.resolve() for name in [*names, *triplets.frame["shard"]])
        assert set(triplets.frame.columns) == set(manifest.COLUMNS) and len(set(names)) == len(names)
        assert not template.special_tokens(" ".join(triplets.frame["question"] + triplets.frame["caption"]))
        batch = next(iter(Stream(folder, 4, (0,), epochs=1)))
        assert np.array_equal(batch["target"].numpy(), triplets.clips(batch["id"], "target"))

    # ------------------------------------------------------------------------------------------------ adapters
    @staticmethod
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({f"l{i}": nn.ModuleDict({"q_proj": nn.Linear(8, 8)}) for i in range(2)})

    def save_adapter(self, folder: Path) -> None:
        adapted: Any = get_peft_model(self.model(), LoraConfig(r=4, target_modules=["q_proj"]))  # type: ignore[arg-type]
        adapted.save_pretrained(str(folder), safe_serialization=True)
        usual_permissions(folder)

    def adapter(self, folder: Path, draw: random.Random) -> None:
        """Tensors of another shape, type or name, nan in them, settings of something else, damaged files."""
        shutil.copytree(self.root / "adapter", folder)
        tensors = load_file(folder / WEIGHTS)
        name = draw.choice(sorted(tensors))
        what = draw.randrange(8)
        if what == 0:
            tensors[name] = tensors[name].index_fill(0, torch.tensor([0]), draw.choice((float("nan"), float("inf"))))
        elif what == 1:
            tensors[name] = tensors[name].to(draw.choice((torch.int8, torch.int64, torch.bool)))
        elif what == 2:
            tensors[name] = tensors[name][: draw.randint(0, 3)].contiguous()
        elif what == 3:
            tensors[draw.choice((name + ".x", "../x", "base_model.model." + name))] = tensors.pop(name)
        elif what == 4:
            del tensors[name]
        save_file(tensors, folder / WEIGHTS)
        settings = json.loads((folder / CONFIG).read_text())
        if what == 5:
            settings[draw.choice(sorted(settings))] = draw.choice(NASTY)
        elif what == 6:
            settings = damaged_value(settings, draw)
        (folder / CONFIG).write_text(json.dumps(settings))
        if what == 7:
            path = folder / draw.choice((WEIGHTS, CONFIG))
            path.write_bytes(damaged(path.read_bytes(), draw))
        loaded = load_adapter(self.model(), folder)
        assert all(p.isfinite().all() for p in loaded.parameters())

    # --------------------------------------------------------------------------------------------- predictions
    def predictions(self, folder: Path, draw: random.Random) -> None:
        """captions.csv in other encodings, with rows, quotes and cells out of place; videos that are none."""
        names = list(self.frame["id"][:3])
        cells = [[name, draw.choice(("a, b", 'c "d"', "=e")), "f"] for name in names]
        rows = damaged_rows([["id", "caption", "text"], *cells], draw)
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        (folder / "videos").mkdir(parents=True)
        (folder / predictions.CAPTIONS).write_bytes(damaged_text(out.getvalue(), draw))
        data = Triplets(self.sound).file(names[0], "target")
        for name in names:
            content = damaged(data, draw) if draw.random() < 0.2 else data
            (folder / "videos" / f"{name}.avi").write_bytes(content)
        found = predictions.open_folder(folder, names)
        assert found.ids == names and all(path.parent == folder / "videos" for path in found.paths.values())
        assert found.clips(names, (9, 32, 32))[0].shape == (3, 9, 32, 32, 3)

    # ----------------------------------------------------------------------------------------------- notebooks
    def notebooks(self, folder: Path, draw: random.Random) -> None:
        """Cells without source, tags of null, values swapped, bytes damaged."""
        folder.mkdir()
        tree = json.loads(json.dumps(self.notebook))
        cell = draw.choice(tree["cells"])
        if draw.random() < 0.5:
            cell["metadata"] = draw.choice(({"tags": None}, None, {"tags": []}))
        if draw.random() < 0.4:
            cell.pop("source", None)
        if draw.random() < 0.4:
            tree = damaged_value(tree, draw)
        data = json.dumps(tree).encode()
        (folder / "a.ipynb").write_bytes(damaged(data, draw) if draw.random() < 0.3 else data)
        notebooks.strip(folder, folder / "out")
        code.of_notebook(folder / "out/a.ipynb")
        code.of_notebook(folder / "a.ipynb")

    # --------------------------------------------------------------------------------------------------- texts
    def texts(self, folder: Path, draw: random.Random) -> None:
        """Questions and captions with signs of the models' own, markup and signs that cannot be seen."""
        pieces = [*SIGNS, "cone", "&lt;", "<b>", "|", "\n", "`", "$x$", "\u202e", "\x9b"]
        parts = [draw.choice(pieces) for _ in range(6)]
        text = "".join(parts) if draw.random() < 0.5 else " ".join(parts)
        assert not template.special_tokens(template.plain(text)), text
        assert not set("\u202e\x9b") & set(answers.clean(text))
        shown = page.table(pd.DataFrame({text: [text]}))._repr_html_() + page.bullets([text])._repr_html_()
        assert "<b>" not in shown and "<|" not in shown
        lines = grid_of([text, "n"], [[text, text]]).splitlines()
        assert len(lines) == 3 and all(line.replace("\\|", "").count("|") == 3 for line in lines), lines
        try:
            found = answers.read(json.dumps({"question": text, "reasoning": "a", "caption": text}), answers.WRITE)
        except ValueError as error:
            raise UserError(str(error)) from error
        assert not template.special_tokens(found["caption"])

    # ------------------------------------------------------------------------------------------------- servers
    def servers(self, folder: Path, draw: random.Random) -> None:
        """An annotators' endpoint of which most answers are cut, damaged, of another shape, errors, or hold the key."""
        folder.mkdir()
        seed, params = draw.random(), load(Path.cwd(), "tiny")
        asked = [Request(f"r{i}", "procedural", "tea", "pour the water", f"event{i}") for i in range(4)]
        with Server(lambda call: misbehaved(call, random.Random(f"{seed} {call.text} {call.number}"))) as server:
            llm = params.curate.llm.with_(url=server.url, model="toy", timeout=20.0, retries=2, cache="answers.sqlite")
            params = params.with_(curate={"annotator": "openai", "llm": llm})
            made = endpoint.OpenAI(params, folder, progress=False, clock=NoTime()).write(asked)
        assert len(made) == len(asked)
        for one in made:
            text = f"{one.question} {one.reasoning} {one.caption}" if isinstance(one, Annotation) else str(one)
            assert not template.special_tokens(text) and not set("\u202e\x9b\n") & set(text), one
            assert KEY not in text and KEY[::-1] not in text and len(text) < 9000, one
        kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert KEY.encode() not in kept and KEY[::-1].encode() not in kept


class NoTime(Timer):
    """Waits for nothing."""

    def sleep(self, seconds: float, stop: Any) -> None:
        pass


def misbehaved(call: Call, draw: random.Random) -> Answer:
    """What an endpoint of many faults says."""
    told = json.loads(json.loads(good(call).data)["choices"][0]["message"]["content"])
    field = draw.choice(list(told))
    echo = draw.choice((KEY, json.dumps(KEY).replace("/", "\\/"), "".join(f"\\u{ord(c):04x}" for c in KEY), KEY[::-1]))
    whole = good(call)
    says = draw.choice(
        (
            lambda: whole,
            lambda: failed(
                draw.choice((400, 401, 404, 429, 500, 503)), f"no {KEY}", Retry_After=draw.choice(("0", "x"))
            ),
            lambda: Answer(whole.data, cut=draw.randrange(len(whole.data))),
            lambda: Answer(damaged(whole.data, draw)),
            lambda: Answer(json.dumps(damaged_value(json.loads(whole.data), draw)).encode()),
            lambda: said(damaged_value(told, draw)),
            lambda: said({**told, field: draw.choice(NASTY + SIGNS)}),
            lambda: said({**told, field: f"{told[field]} {draw.choice(SIGNS)} \u202e\x9b<b>$x$</b>"}),
            lambda: said(json.dumps({**told, field: "@"}).replace("@", echo)),
            lambda: said(json.dumps(told), finish=draw.choice(("length", "content_filter", "tool_calls"))),
            lambda: said(draw.choice((None, "", "[" * 9999, "I cannot.", f"```json\n{json.dumps(told)}\n```"))),
            lambda: Answer(b"<html>Bad Gateway</html>", 200),
        )
    )
    try:
        return says()
    except (ValueError, RecursionError):  # a damaged value that is no JSON: too deep, or within itself
        return Answer(b"[" * 9999)


KINDS = ("triplets", "adapter", "predictions", "notebooks", "texts", "servers")


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1200, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the counts as JSON")
    given = parser.parse_args(arguments)
    found: dict[str, dict[str, Any]] = {}
    os.environ["VANS_API_KEY"] = KEY  # of this process alone
    with tempfile.TemporaryDirectory(prefix=temporary("hostile")) as place:
        root = Path(place) / "root"
        hostile = Hostile(root)
        for kind in KINDS:
            counts: Counter[str] = Counter()
            first = ""
            for number in range(given.cases // len(KINDS)):
                folder = root / f"{kind}-{number}"
                try:
                    getattr(hostile, kind)(folder, random.Random(f"{given.seed} {kind} {number}"))
                    counts["right"] += 1
                except UserError as error:
                    counts["one line" if "\n" not in str(error) and len(str(error)) < 1000 else "long"] += 1
                except Exception as error:
                    counts["tracebacks"] += 1
                    first = first or f"{number}: {type(error).__name__}: {str(error)[:300]}"
                shutil.rmtree(folder, ignore_errors=True)
            outside = [path.name for path in Path(place).iterdir() if path != root]
            found[kind] = {"cases": counts.total(), **counts, "outside": outside, "first": first}
            print(f"{kind:12} {found[kind]}", flush=True)
    if given.out:
        atomic_write_text(given.out, json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
