"""Subtitles (.srt, .vtt) into cues: each that a file names is read once, or is lost for a reason.

pysubs2 reads times and takes away the markup (tags, {\\an8}). It is chosen among the kept libraries because a cue is to
it what follows a line with two times, so that no blank line, number or arrow out of place hides one; webvtt-py and srt
go by blank lines and arrows, and pass over the rest without a word. What it does not know is prepared here: times that
cannot be read (it takes them for text, and -1 s for 1 s), comments and identifiers of WebVTT, times of single words,
entities, a caption whose last line is a number, and lines that roll: automatic captions show each two or three times.
"""

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pysubs2 import SSAFile
from pysubs2.formats.subrip import SubripFormat
from pysubs2.time import TIMESTAMP

from vans.data.sources.values import seconds

BRIDGE = 0.05  # s; a cue up to this length only keeps lines on the screen
LONGEST = 99 * 3600  # s; what SubRip can write
NO_TIMES = "a cue whose times cannot be read"
NO_WORDS = "a cue without words"
BACKWARDS = "a cue ends before it starts"
AGAIN = "says again what the cue before it says"
CLOCK = r"(?:\d+:)?\d+:\d+(?:[.,]\d+)?"
ARROW = re.compile(r"[-=~]\s*>")
TIMES = re.compile(rf"\s*({CLOCK})\s*([-=~\s]*>+|[-=~]+|\s)\s*({CLOCK})(\s.*)?")
HINT = re.compile(r"\d|>|&gt|[\u2192\u21d2\u27a1\u27f6\u279c\u279d\u2794]")  # of a line with times: most have none
WORD_TIME = re.compile(r"<\d+:[\d:.,]+>")
TAG = re.compile(r"<[^>]*>")
NUMBER = re.compile(r"\s*\ufeff?#?(\d{1,6})[.:]?\s*")
ABOUT = re.compile(r"\s*\ufeff?(WEBVTT|NOTE|STYLE|REGION)\b")  # blocks of WebVTT that name no cue
ARROWS = str.maketrans(dict.fromkeys("\u2192\u21d2\u27a1\u27f6\u279c\u279d\u2794", "->"))


@dataclass
class Cue:
    """What a file names. start, end: s. lines: what it says. number: its own, if it has one.

    lost: why it is no event ('' if it is one). again: for nothing but having been said, so that those around it are
    neighbours all the same.
    """

    start: float = 0.0
    end: float = 0.0
    lost: str = ""
    lines: list[str] = field(default_factory=list)
    number: int | None = None
    again: bool = False


def cues(content: str, vtt: bool) -> list[Cue]:
    """All cues of subtitles, in the file's order. ValueError if there is none. vtt: WebVTT (else SubRip)."""
    lines = re.sub(r"\r\n?", "\n", content).split("\n")
    blocks = [block for block in _blocks(lines) if any(line.strip() for line in block)]
    out: list[Cue] = []
    for n, block in enumerate(blocks):
        ahead = blocks[n + 1][0] if n + 1 < len(blocks) else None
        _read(block, out, vtt, ahead is None or _timing(ahead) is not None)
    if not out:
        raise ValueError("the subtitles hold no cue")
    _plain(out)
    _once(out, rolling=WORD_TIME.search(content) is not None)
    return out


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """What stands between empty lines. A line of spaces is none: automatic captions have them inside cues."""
    block: list[str] = []
    for line in lines:
        if line:
            block.append(line)
        else:
            yield block
            block = []
    yield block


def _read(block: list[str], out: list[Cue], vtt: bool, ends: bool) -> None:
    """Add the cues of a block to those before it. ends: times follow it, or nothing."""
    timings = [_timing(line) for line in block]
    first = next((n for n, timing in enumerate(timings) if timing), len(block))
    number = NUMBER.fullmatch(block[0])
    if first == len(block) and ((vtt and ABOUT.match(block[0])) or (number and first == 1 and ends)):
        return
    if vtt and first < len(block):
        block[:first] = [""] * first  # identifiers
    elif (number and first > 1) or (first == len(block) and (vtt or number or not out)):
        out.append(Cue(lost=NO_TIMES, number=int(number[1]) if number else None))
        block[0] = "" if number else block[0]
    coming: int | None = None  # number of the next cue of the block, from its end on
    lines: list[tuple[str, int | None]] = []
    for n in range(len(block) - 1, -1, -1):
        digits = NUMBER.fullmatch(block[n])
        ahead = timings[n + 1] if n + 1 < len(block) else None
        lines.append((block[n], coming))
        if digits and ahead:
            ahead.number = coming = int(digits[1])
            lines[-1] = ("", coming)
    for n, (line, coming) in enumerate(reversed(lines)):
        digits = None if vtt or n + 1 == len(block) or not out else NUMBER.fullmatch(line)
        if timing := timings[n]:
            out.append(timing)
        elif digits and out[-1].number == int(digits[1]) - 1 and (coming is None or coming > int(digits[1])):
            out.append(Cue(lost=NO_TIMES, number=int(digits[1])))
        elif line.strip() and out:
            out[-1].lines.append(line)


def _timing(line: str) -> Cue | None:
    """The cue that a line with times begins; None if it is no such line, however badly written."""
    if not HINT.search(line):
        return None
    plain = unicodedata.normalize("NFKC", html.unescape(TAG.sub("", line.translate(ARROWS))))
    plain = "".join("-" if unicodedata.category(c) == "Pd" or c == "\u2212" else c for c in plain if not _hidden(c))
    plain = re.sub(r"(?<=\d)\s*([:.,])\s*(?=\d)", r"\1", plain)
    times = TIMES.fullmatch(plain)
    if times and (">" in times[2] or (not times[4] and all(re.search("[.,]", times[n]) for n in (1, 3)))):
        try:
            start, end = seconds(times[1]), seconds(times[3])
        except ValueError:
            return Cue(lost=NO_TIMES)
        return Cue(start, end, BACKWARDS if end < start else "") if max(start, end) < LONGEST else Cue(lost=NO_TIMES)
    digits = sum(c.isdigit() for c in plain)
    line = WORD_TIME.sub("", line)
    meant = "-->" in plain or any(len(TIMESTAMP.findall(text)) == 2 for text in (line, plain))
    meant = meant or bool(ARROW.search(plain) and digits >= 4 and re.search(r"\d[:;.,]\d", plain))
    meant = meant or (digits >= 10 and plain.count(":") >= 2 and not any(c.isalpha() for c in plain))
    return Cue(lost=NO_TIMES) if meant else None


def _hidden(char: str) -> bool:
    """Marks of direction, byte order and the like."""
    return unicodedata.category(char) == "Cf"


def _plain(found: Sequence[Cue]) -> None:
    """Put what pysubs2 reads into the cues: they are written for it without anything that it takes amiss."""
    text: list[str] = []
    for cue in found:
        start, end = (SubripFormat.ms_to_timestamp(round(1000 * t)) for t in (cue.start, cue.end))
        shown = (WORD_TIME.sub("", line) for line in cue.lines)
        text += ["", "0", f"{start} --> {end}", *shown]  # it takes a last line of digits for the next cue's number
    events = SSAFile.from_string("\n".join([*text, "", "0"]), format_="srt")
    for cue, event in zip(found, events, strict=True):
        cue.start, cue.end = event.start / 1000, event.end / 1000
        lines = (" ".join(line.split()) for line in html.unescape(TAG.sub("", event.plaintext)).split("\n"))
        cue.lines = [line for line in lines if any(unicodedata.category(c)[0] not in "ZC" for c in line)]


def _once(found: Sequence[Cue], rolling: bool) -> None:
    """Leave each line to the cue that shows it first, where lines roll; what says nothing is lost."""
    before: list[str] = []
    new: list[list[str]] = []
    for cue in found:
        new.append(cue.lines[_repeated(before, cue.lines) :])
        before = cue.lines or before
    bridges = any(c.lines and not rest and _brief(c) for c, rest in zip(found, new))
    shared = sum(0 < len(rest) < len(c.lines) for c, rest in zip(found, new))
    rolling = rolling or bridges or 2 * shared > len(found)
    shown: Cue | None = None  # the event before, unless something is lost since
    for cue, rest in zip(found, new):
        if cue.lost:
            shown = None
        elif rolling and not rest and (cue.lines or _brief(cue)):
            cue.lost, cue.again = AGAIN, True
            if shown and 0 <= cue.start - shown.end <= BRIDGE:
                shown.end = max(shown.end, cue.end)
        elif not cue.lines:
            cue.lost, shown = NO_WORDS, None
        elif rolling:
            if shown and shown.start < cue.start < shown.end:
                shown.end = cue.start
            cue.lines, shown = rest, cue


def _repeated(before: Sequence[str], lines: Sequence[str]) -> int:
    """How many of the first lines are the last ones of the cue before."""
    return next((n for n in range(len(lines), 0, -1) if list(before[-n:]) == list(lines[:n])), 0)


def _brief(cue: Cue) -> bool:
    return cue.end - cue.start <= BRIDGE + 1e-6
