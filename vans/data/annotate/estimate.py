"""What annotating a data set will take, before anything is decoded or asked: `vans estimate`.

Calls: one for each segment (choose), two for each pair (write, check). Segments and pairs are counted from the
annotations of the videos that are there; one whose shots are still to be found counts as `shots` of them. Shots that
turn out too short, texts that have to be written again and answers that are kept from before are not known yet: the
first and the last make it less, the second makes it more, `attempts` times as much at most. How tokens and money are
estimated: cost.py.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from vans.data import sources
from vans.data.annotate.llm import load
from vans.data.records import Record
from vans.llm.cost import Estimate, estimate, text_tokens

WORDS = 600  # characters that labels, topic, question and caption add to a prompt


@dataclass(frozen=True)
class Work:
    """segments: of which a clip is chosen; pairs: to write about; guessed: videos whose shots are not known."""

    segments: int
    pairs: int
    guessed: int = 0


def count(data_dir: str | Path, params: Any, shots: int) -> Work:
    """The work in a data folder, from its annotations alone. UserError as `vans.data.sources.discover`."""
    segments = pairs = guessed = 0
    for record in sources.discover(data_dir).records:
        if record.path is None and not (record.given and all(None not in g.files for g in record.given)):
            continue  # its video is missing
        guessed += record.segments is None and not record.given
        lengths = _given(record) if record.given else dict(enumerate(_lengths(record, shots)))
        long = {id: length >= params.curate.min_segment for id, length in lengths.items()}
        segments += sum(long.values())
        if record.given:
            pairs += sum(g.texts is None and long[g.input_id] and long[g.target_id] for g in record.given)
        else:
            pairs += sum(a and b for a, b in pairwise(long.values()))
            if params.curate.skipped_steps and record.split == "train":
                each = list(long.values())
                pairs += sum(a and c and not b for a, b, c in zip(each, each[1:], each[2:]))
    return Work(segments, pairs, guessed)


def _given(record: Record) -> dict[str, float]:
    """Length of each segment that a given pair names, s: inf for a file of its own, 0 for what cannot be cut."""
    known = {s.id: s.end - s.start for s in record.segments or ()} if record.path is not None else {}
    out: dict[str, float] = {}
    for given in record.given:
        for id, file in zip((given.input_id, given.target_id), given.files, strict=True):
            out.setdefault(id, known.get(id, 0.0) if file is None else float("inf"))
    return out


def _lengths(record: Record, shots: int) -> list[float]:
    """Lengths of a video's segments in order, s; shots that nobody has measured count as long enough."""
    if record.segments is not None:
        return [s.end - s.start for s in sorted(record.segments, key=lambda s: s.start) if not s.black]
    return [float("inf")] * (shots if record.labels is None else len(record.labels))


def expected(llm: Any, work: Work) -> dict[str, Estimate]:
    """Estimates by task, each asked once, and all together."""
    pictures = {"choose": llm.choose_frames, "write": 2 * llm.frames, "check": 0}
    calls = {"choose": work.segments, "write": work.pairs, "check": work.pairs}
    tokens = {task: _prompt(task) + llm.image_tokens * shown for task, shown in pictures.items()}
    inputs = {task: [tokens[task]] * calls[task] for task in calls}
    together = [tokens for each in inputs.values() for tokens in each]
    return {**{task: estimate(llm, each) for task, each in inputs.items()}, "all": estimate(llm, together)}


def _prompt(task: str) -> int:
    prompt = load(task)
    return text_tokens(prompt.parts["system"].template + prompt.parts["user"].template) + WORDS // 4


def describe(params: Any, work: Work) -> str:
    """The estimate as lines for people."""
    llm, name = params.curate.llm, params.curate.annotator
    guessed = f" ({work.guessed} videos with a guessed number of shots among them)" if work.guessed else ""
    lines = [f"{work.segments} segments, {work.pairs} pairs to write about{guessed}"]
    if name == "rules":
        lines.append("curate.annotator is rules: nothing is asked, nothing is paid; for another annotator it would be:")
    found = expected(llm, work)
    lines += [f"{task:>7}: {each}" for task, each in found.items()]
    lines.append(f"answers that cannot be used are asked for again, up to {llm.attempts} times in all")
    if llm.price_input is None or llm.price_output is None:
        lines.append("for money, set price_input and price_output (per million tokens) in curate.llm of params.yaml")
    total = found["all"]
    minutes = total.calls / (llm.requests_per_minute or float("inf"))
    minutes = max(minutes, (total.input + total.output) / (llm.tokens_per_minute or float("inf")))
    if minutes:
        lines.append(f"at the limits of requests and tokens per minute: {minutes / 60:.1f} hours at least")
    return "\n".join(lines)
