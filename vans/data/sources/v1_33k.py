"""V1-33K: next_event_prediction.json, a list of {video_path: "video_dataset/<collection>/<id>.mp4",
events: [{scene: "Scene 1", description}], video_split: {scenes_timestep: [{"Scene 2": ..., start, end}, ...],
split_caption: {caption_part1, caption_part2}}}; the scenes on both sides of the split have times.

The whole videos are in video_dataset/, their first parts in first_part_video/ (and second parts in
second_part_video/) under the same names. A video is cut at its scenes' times; without usable times its two part
files are the pair. Where no scene is said to have times, and there are no parts, it is searched for shots. Videos of
futurebench.json are test videos.
"""

from collections.abc import Iterator
from typing import Any

from vans.data.ledger import VIDEO_LOST
from vans.data.records import Given, Record
from vans.data.sources.source import Missing, Source, SourceLayout
from vans.data.sources.values import MALFORMED, composed, read_json, segment, text
from vans.errors import UserError

FILE, BENCH = "next_event_prediction.json", "futurebench.json"
NO_TIMES, IN_PARTS = "a scene without times", "its video is taken in its two parts"
PARTS = ("first_part_video", "second_part_video")


def entries(source: Source) -> Iterator[tuple[str, tuple[dict, str]]]:
    """(<collection>/<id>, (entry, subset))."""
    bench = source.folder / BENCH
    held_out = {name_of(e) for e in _list(bench)} if bench.is_file() else set()
    if not held_out:
        source.tell(BENCH, ValueError("not there or empty: which videos are held out is drawn by their names"))
    for number, entry in enumerate(_list(source.folder / FILE), start=1):
        if name := name_of(entry):
            yield name, (entry, "test" if name in held_out else "")
        else:
            source.odd(f"{FILE}:#{number}", "an entry without video_path")


def name_of(entry: Any) -> str:
    """The video's path without its first folder and suffix; '' if the entry has none."""
    path = entry.get("video_path") if isinstance(entry, dict) else None
    inner = composed(path).replace("\\", "/").partition("/")[2] if isinstance(path, str) else ""
    stem, dot, _ = inner.rpartition(".")
    return stem if dot else inner


def record(source: Source, name: str, found: tuple[dict, str]) -> Record:
    """One video."""
    entry, subset = found
    whole = source.videos.find(f"video_dataset/{name}") or source.videos.find(name)
    if whole is not None and set(PARTS) & set(whole.relative_to(source.folder).parts):
        whole = None  # a part is not the whole
    parts = tuple(source.videos.find(f"{part}/{name}") for part in PARTS)
    split = entry["video_split"]
    captions = split.get("split_caption") or {}
    sentences = (text(captions.get("caption_part1")), text(captions.get("caption_part2")))
    scenes = split.get("scenes_timestep")
    told = {text(e.get("scene")): e.get("description") for e in entry.get("events") or () if isinstance(e, dict)}
    if whole is not None and scenes and (_has_times(scenes) or None in parts):
        events = source.events(name, _in_order(scenes, told), lambda e, n: _scene(e, told))
        return source.record(name, "predictive", subset=subset, path=whole, events=events)
    why = IN_PARTS if None not in parts else NO_TIMES if whole is not None else VIDEO_LOST
    items = scenes if isinstance(scenes, list) else ()
    named = dict.fromkeys([*told, *(_name(item) for item in items if isinstance(item, dict))])
    source.events(name, [Missing(scene.replace(" ", ""), why) for scene in named], lambda e, n: _scene(e, told))
    if None not in parts:
        source.enter("pair", f"{name}:part1-part2")
        given = Given("part1", "part2", None, sentences, (parts[0], parts[1]))
        return source.record(name, "predictive", subset=subset, path=whole, look=False, given=(given,))
    return source.record(name, "predictive", subset=subset, path=whole, look=False)


def _scene(item: dict, told: dict[str, Any]) -> tuple[str, Any, Any]:
    """(id, [start, end], label) of a scene: times beside its name, under its name, or as the text of its name."""
    name = _name(item)
    inner = item if "start" in item else item[name]
    times = [inner["start"], inner["end"]] if isinstance(inner, dict) else inner
    return name.replace(" ", ""), times, told[name]


def _name(item: dict) -> str:
    return next((key for key in item if key.lower().startswith("scene")), "")


def _in_order(scenes: Any, told: dict[str, Any]) -> Any:
    """The scenes that may have times, and among them those that are only told of; what is no list as it is."""
    if not isinstance(scenes, list):
        return scenes
    places = {_name(item): n for n, item in enumerate(scenes) if isinstance(item, dict)}
    out: list[Any] = []
    at = 0
    for name in told:
        if name not in places:
            out.append(Missing(name.replace(" ", ""), NO_TIMES))
        elif places[name] >= at:
            out += scenes[at : places[name] + 1]
            at = places[name] + 1
    return out + scenes[at:]


def _has_times(scenes: Any) -> bool:
    """Are there two scenes that can be cut?"""
    usable = 0
    for item in scenes if isinstance(scenes, list) else ():
        try:
            name, times, _ = _scene(item, dict.fromkeys(item))
            segment(name, times, "")
            usable += 1
        except MALFORMED:
            continue
    return usable > 1


def _list(path: Any) -> list:
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: is not a list of entries; replace it")
    return content


V1_33K = SourceLayout("V1-33K", (FILE,), entries, record, more=(BENCH,))
