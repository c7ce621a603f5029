"""Subtitles: every cue is read once or dropped for a reason, and no pair spans one that is lost."""

import html
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from vans.data.ledger import VIDEO_LOST
from vans.data.records import Found, Record
from vans.data.sources import discover
from vans.data.sources.subtitles import AGAIN, BACKWARDS, NO_TIMES, NO_WORDS, cues

SRT = ["00:00:00,000 --> 00:00:05,000", "00:00:05,000 --> 00:00:10,000", "00:00:10,000 --> 00:00:15,000"]
SAID = ["open the door", "walk inside", "sit down"]


def srt(second=SRT[1], said=SAID, between="\n"):
    times = [SRT[0], second, SRT[2]]
    return between.join(f"{n}\n{time}\n{text}\n" for n, (time, text) in enumerate(zip(times, said), start=1))


def read(text, vtt=False):
    return [c.lost or (c.start, c.end, " ".join(c.lines)) for c in cues(text, vtt)]


WHOLE = [(0.0, 5.0, "open the door"), (5.0, 10.0, "walk inside"), (10.0, 15.0, "sit down")]


def put(folder: Path, **sidecars: str) -> Found:
    """A source of videos (nothing is decoded when it is read) and their subtitles."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in sidecars.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.mp4").write_bytes(b"")
        (folder / f"{stem}.{suffix}").write_text(text, encoding="utf-8", newline="")
    return discover(folder.parent)


def neighbours(record: Record) -> list[tuple[str, str]]:
    """Labels of the pairs that curation will try to cut."""
    ordered = sorted(record.segments or (), key=lambda s: s.start)
    labels = {s.id: s.label for s in ordered}
    if record.given:
        return [(labels[g.input_id], labels[g.target_id]) for g in record.given]
    return [(a.label, b.label) for a, b in pairwise(ordered) if a.id not in record.torn]


@pytest.mark.parametrize(
    "arrow", ["->", "-- >", "- ->", "–>", "—>", "→", "=>", "--&gt;", "−−>", "-->>", "~>", "-", " "]
)
def test_an_arrow_of_another_kind_is_read(arrow):
    assert read(srt(SRT[1].replace("-->", arrow))) == WHOLE


@pytest.mark.parametrize(
    "line",
    [
        *("00: 00:05 ,000 --> 00:00:10,000", "0:00:05,000-->0:00:10,000", "００:00:05,000 --> 00:00:10,000"),
        *("\u200e00:00:05,000 --> 00:00:10,000\u200f", "00:05,000 --> 00:10.0 X1:10 Y1:20", "00:00:05 --> 00:00:10"),
    ],
)
def test_times_in_other_forms_are_read(line):
    assert read(srt(line)) == WHOLE


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-00:00:05,000 --> 00:00:10,000", NO_TIMES),
        ("\u221200:00:05,000 -> 00:00:10,000", NO_TIMES),
        ("00:00:05,000 --> -00:00:10,000", NO_TIMES),
        ("00:00:10,000 --> 00:00:05,000", BACKWARDS),
        ("00:00:05,000 -->", NO_TIMES),
        ("--> 00:00:10,000", NO_TIMES),
        ("OO:OO:O5,OOO --> OO:OO:1O,OOO", NO_TIMES),
        ("OO:OO:O5,OOO -> OO:OO:1O,OOO", NO_TIMES),
        ("00:00:05:000 --> 00:00:10:000", NO_TIMES),
        ("00:00:05,00000:00:10,000", NO_TIMES),
        ("999:00:05,000 --> 999:00:10,000", NO_TIMES),
        ("what", NO_TIMES),
    ],
)
@pytest.mark.parametrize("between", ["\n", "", " \n"])
def test_times_that_cannot_be_read_lose_their_cue_alone_and_both_pairs(tmp_path, line, why, between):
    assert read(srt(line, between=between)) == [WHOLE[0], why, WHOLE[2]]
    found = put(tmp_path / "own", x_srt=srt(line, between=between))
    assert found.dropped == [("segment", "own/x:2", why)] and found.ledger.entered["segment"] == 3
    assert [s.id for s in found.records[0].segments or ()] == ["1", "3"] and neighbours(found.records[0]) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{\\an8}a <i>b</i> <font color='red'>c</font>", "a b c"),
        ("Tom &amp; Jerry&nbsp;&lt;3", "Tom & Jerry <3"),
        ("In the year\n1984", "In the year 1984"),
        ("1984", "1984"),
        ("one\n \ntwo", "one two"),
        ("one\n\ntwo", "one two"),
        ("at 10:30, or 11:45", "at 10:30, or 11:45"),
        (">> JOHN: 2024, at 10:30", ">> JOHN: 2024, at 10:30"),
        ("- who?\n- me", "- who? - me"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_captions_are_plain_text(text, shown, place):
    said = [text if n == place else other for n, other in enumerate(SAID)]
    assert [c[2] for c in read(srt(said=said))] == [shown if n == place else other for n, other in enumerate(SAID)]


def test_a_caption_without_words_is_lost():
    for nothing in ("", " ", "<i></i>", "&nbsp;", "\u200b"):
        assert read(srt(said=["a", nothing, "c"]))[1] == NO_WORDS


def test_what_is_no_cue_of_webvtt_is_passed_over_and_what_is_one_is_not():
    text = (
        "WEBVTT - a title\nKind: captions\n\nNOTE by hand\nin two lines\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:00.000 --> 00:05.000 line:0\n<v Ann>open the door\n\nNOTE more\n\n2\n00:05.000 --> 00:10.000\n"
        "<c.loud>walk</c> inside&lrm;\n\n00:10.000 -> 00:15.000\nsit down\n\nwhat is this\n"
    )
    assert read(text, vtt=True)[::2] == WHOLE[::2] and read(text, vtt=True)[3] == NO_TIMES
    assert read(text, vtt=True)[1] == (5.0, 10.0, "walk inside\u200e")


def rolling(said, words=True):
    """As automatic captions are written: each line is shown under the one before it, then alone for 10 ms."""
    out = ["WEBVTT", "Kind: captions", ""]
    for n, line in enumerate(said):
        head, *rest = line.split()
        spoken = head + "".join(f"<00:00:{5 * n + 1:02d}.500><c> {word}</c>" for word in rest) if words else line
        out += [
            f"00:00:{5 * n:02d}.000 --> 00:00:{5 * n + 4:02d}.990 align:start",
            said[n - 1] if n else " ",
            spoken,
            "",
        ]
        out += [f"00:00:{5 * n + 4:02d}.990 --> 00:00:{5 * n + 5:02d}.000 align:start", line, " ", ""]
    return "\n".join(out)


@pytest.mark.parametrize("words", [True, False])
def test_lines_that_roll_are_events_once(tmp_path, words):
    assert [c[2] for c in read(rolling(SAID, words), vtt=True)[::2]] == SAID
    found = put(tmp_path / "own", x_vtt=rolling(SAID, words), y_srt=srt(said=["no", "no", "yes"]))
    rolled, told = found.records
    assert [(s.start, s.end, s.label) for s in rolled.segments or ()] == WHOLE
    assert neighbours(rolled) == list(pairwise(SAID)) and rolled.torn == ()
    assert [why for _, _, why in found.dropped] == [AGAIN] * 3 and found.ledger.entered["segment"] == 9
    assert neighbours(told) == [("no", "no"), ("no", "yes")], "said twice, not shown twice"
    torn = rolling(SAID, words).replace("00:00:05.000 --> 00:00:09.990", "-00:00:05.000 --> 00:00:09.990")
    (record, _) = put(tmp_path / "own", x_vtt=torn).records
    assert [s.label for s in record.segments or ()] == SAID[::2] and neighbours(record) == []


def cases() -> Path:
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "cases" / "README.md").is_file():
            return parent / "shared" / "cases"
    pytest.skip("no folder of cases here")


def test_the_cases(tmp_path):
    text = {
        path.name: path.read_text(encoding="utf-8") for path in cases().iterdir() if path.suffix in (".srt", ".vtt")
    }
    assert [c[2] for c in read(text["youtube_auto.vtt"], vtt=True) if c != AGAIN] == [
        *("first we peel the carrot", "then we slice it", "now it goes in the pot"),
    ]
    for name in ("arrow_single.srt", "arrow_unicode.srt", "no_blank_lines.srt"):
        assert read(text[name]) == WHOLE
    assert read(text["negative.srt"]) == [WHOLE[0], NO_TIMES, WHOLE[2]]
    found = put(tmp_path / "own", **{name.replace(".", "_"): content for name, content in text.items()})
    pairs = {record.name: neighbours(record) for record in found.records}
    assert len(pairs["youtube_auto"]) == len(pairs["arrow_single"]) == 2 and pairs["negative"] == []


# -------------------------------------------------------------------------------------------------------- mutants
MUTANTS = 2000
EVENTS = 8


def mutant(draw: random.Random) -> tuple[str, str, list[str], set[int]]:
    """(suffix, text, what its cues say, cues whose timing line is not as it should be)."""
    vtt, auto = draw.random() < 0.4, draw.random() < 0.15
    said = [f"event {word} {draw.choice(('&', 'is 7', 'goes on', '<3 '))}".strip() for word in "abcdefgh"]
    if auto:
        text = rolling(said, draw.random() < 0.5)
        bad = set(draw.sample(range(EVENTS), draw.choice((0, 0, 1))))
        for n in bad:
            right = f"00:00:{5 * n:02d}.000 --> 00:00:{5 * n + 4:02d}.990"
            text = text.replace(right, damaged(right, draw))
        return "vtt", text, said, bad
    bad = set(draw.sample(range(EVENTS), draw.choice((0, 1, 1, 2, 3))))
    numbered = not vtt or draw.random() < 0.5
    first, step = draw.choice(((1, 1), (0, 1), (7, 1), (1, 0), (1, 3)))
    close = draw.random() < 0.25 and step == 1 and not vtt
    blocks = []
    for n, line in enumerate(said):
        time = ["", *(f"00:00:{5 * t:02d}{'.' if vtt else ','}000" for t in (n, n + 1))]
        right = f"{time[1]} --> {time[2]}"
        words = [html.escape(line)] if draw.random() < 0.6 else html.escape(line).split()
        words[0] = draw.choice(("", "{\\an8}", "<i>", "<font color=red>")) + words[0]
        if draw.random() < 0.2 and not close:
            words.insert(draw.randrange(len(words)) if len(words) > 1 else 0, " ")
        head = [f"{first + step * n}"] if numbered else []
        timing = [damaged(right, draw)] if n in bad else [right]
        if n in bad and numbered and draw.random() < 0.1:
            timing = []
        blocks.append("\n".join([*head, *timing, *words]))
    text = (
        ("WEBVTT\n\n" if vtt else "") + ("\n" if close else draw.choice(("\n\n", "\n\n", "\n\n\n"))).join(blocks) + "\n"
    )
    return "vtt" if vtt else "srt", text.replace("\n", draw.choice(("\n", "\r\n"))), said, bad


def damaged(line: str, draw: random.Random) -> str:
    """A timing line as it is written by mistake."""
    start, end = line.split(" --> ")
    space = draw.randrange(1, len(start))
    arrow = draw.choice(("->", "-- >", "–>", "—>", "→", "=>", "- ->", "--&gt;", "−>", "~>", "-", "", "--", ">>"))
    return draw.choice(
        [
            *(f"{start} {arrow} {end}", f"{start}{arrow}{end}", f"-{line}", f"\u2212{line}", f"- {line}"),
            *(f"{start} --> -{end}", f"{start[:space]} {start[space:]} --> {end}", f"{end} --> {start}"),
            *(f"{start} -->", f"--> {end}", "-->", line.replace("0", "O"), line.replace(":", ";"), f"{line}{end}"),
            *(line.replace(":", "."), line.replace(",", ":"), f"\u200f{line}\u200e", f"9{line}", f"{line} --> {end}"),
            *(line.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789:"}), line.replace(":", " : ")),
        ]
    )


def test_mutants_are_in_the_books_and_no_pair_spans_a_lost_cue(tmp_path):
    draw = random.Random(11)
    made = {f"m{number:04d}": mutant(draw) for number in range(MUTANTS)}
    found = put(tmp_path / "own", **{f"{name}_{suffix}": text for name, (suffix, text, _, _) in made.items()})
    records = {record.name: record for record in found.records}
    assert len(records) == MUTANTS
    lost: dict[str, Counter[str]] = {name: Counter() for name in made}
    for title, _, _, _, why in found.ledger.segments:
        lost[title.removeprefix("own/")][why] += 1
    read_all = pairs = 0
    for name, (_, text, said, bad) in made.items():
        record, repeats = records[name], lost[name].pop(AGAIN, 0)
        labels = [s.label for s in record.segments or ()]
        assert len(labels) + lost[name].total() == EVENTS, (text, labels, lost[name])
        assert repeats in (0, EVENTS), text
        assert set(labels) <= set(said) and len(set(labels)) == len(labels), (text, labels)
        assert {said.index(label) for label in labels} >= set(range(EVENTS)) - bad, (text, labels)
        for a, b in neighbours(record):
            assert said.index(b) == said.index(a) + 1, (text, a, b)
            pairs += 1
        read_all += len(labels) == EVENTS
    assert VIDEO_LOST not in {why for _, _, why in found.dropped}
    assert found.ledger.entered["segment"] == len(found.ledger.segments) + sum(
        len(r.segments or ()) for r in found.records
    )
    assert read_all > MUTANTS / 3 and pairs > 3 * MUTANTS
