"""The toy world's source videos, in the layouts of the real sources: `generate(out_dir, params)`.

    coin/COIN.json, coin/videos/<id>.avi                            procedural, subset training | testing
    youcook2/youcookii_annotations_trainval.json, youcook2/videos/  procedural, subset training | validation
    shorts/shorts.json, shorts/videos/                              predictive, films without timestamps

Every number is drawn from SHA-256 of (seed, names), so the bytes depend on nothing else. Some sources are bad
on purpose, as real ones are: annotated steps under 3 s, films that are too short, cut off, or there twice.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from vans.data.draw import Draw
from vans.errors import UserError
from vans.media import avi
from vans.toy import world
from vans.toy.render import (
    FLOORS,
    FPS,
    ONSETS,
    POSTER,
    POSTERS,
    SIZE,
    TRANSIENT,
    WALLS,
    Scene,
    background,
    render_event,
)

SHORT_STEP = 0.10  # share of annotated steps that are shorter than 3 s
YOUCOOK_SHARE = 0.3  # share of the procedural sources in YouCook2's layout
BAD_EVERY = 97  # of so many predictive training sources one is too short, one is cut off, one is there twice
SCALES = (0.92, 1.0, 1.08)
GRID = 4  # px: posters hang in rows and columns
RECIPE_TYPES = {"harbor": 101, "meadow": 102, "winter": 103}


def draw_scene(draw: Draw) -> Scene:
    """A scene: every part independent and uniform."""
    return Scene(
        shape=draw.of(world.SHAPES),
        colour=draw.of(world.COLOURS),
        x=14.0 + draw.below(9) / 2.0,
        scale=SCALES[draw.below(len(SCALES))],
        wall=draw.below(len(WALLS)),
        floor=draw.below(len(FLOORS)),
        poster=draw.below(len(POSTERS)),
        poster_x=GRID * draw.below((SIZE - POSTER) // GRID + 1),
        poster_y=GRID * draw.below(2),
    )


def draw_shot(draw: Draw, scene: Scene, event: str, short: bool = False) -> np.ndarray:
    """One segment with the event inside, after at least one rest frame.

    3.3 to 5 s; 3 s for a transient event, which begins at one of ONSETS. short: 2 to 2.7 s.
    """
    if event in TRANSIENT:
        start, length = (0, 6 + draw.below(3)) if short else (draw.of(ONSETS) - 1, 9)
        return render_event(scene, event, length, start)
    if short:
        return render_event(scene, event, 6 + draw.below(3), 0)
    length = 10 + draw.below(6)
    return render_event(scene, event, length, 1 + draw.below(length - 8))


def _empty_room(scene: Scene, frames: int) -> np.ndarray:
    return np.broadcast_to((background(scene) + 0.5).astype(np.uint8), (frames, SIZE, SIZE, 3))


def procedural_video(seed: int, name: str, steps: int, test: bool) -> tuple[np.ndarray, dict]:
    """Frames uint8 [T, 32, 32, 3] and {routine, scene, steps: [{start, end (s), event}]} of one episode."""
    draw = Draw(seed, name)
    scene = draw_scene(draw)
    routine = draw.of(tuple(world.ROUTINES))
    event = draw.of(world.EVENTS)
    short = [draw.chance(SHORT_STEP) for _ in range(steps)]
    if test:  # only the last step may be too short, so that every test episode gives a pair
        short = [False] * (steps - 1) + short[-1:]
    parts: list[np.ndarray] = []
    annotated = []
    at = 0
    for i in range(steps):
        gap = _empty_room(scene, draw.below(3))
        shot = draw_shot(draw, scene, event, short[i])
        at += len(gap)
        annotated.append(
            {"start": round(at / FPS, 3), "end": round((at + len(shot)) / FPS, 3), "event": event}
        )
        at += len(shot)
        parts += [gap, shot]
        event = world.successor(routine, event)
    return np.concatenate(parts), {"routine": routine, "scene": scene, "steps": annotated}


def predictive_scene(
    seed: int, name: str, surprise: float
) -> tuple[np.ndarray, dict, list[tuple[np.ndarray, dict]]]:
    """One scene and its two films: the same input shot, two conditions, two futures.

    Returns (input shot, {scene, event}, [(target shot, {condition, event}), ...]).
    """
    draw = Draw(seed, name)
    scene = draw_scene(draw)
    seen = draw.of(world.EVENTS)
    shot = draw_shot(draw, scene, seen)
    first = draw.below(len(world.CONDITIONS))
    other = (first + 1 + draw.below(len(world.CONDITIONS) - 1)) % len(world.CONDITIONS)
    futures: list[tuple[np.ndarray, dict]] = []
    for i in (first, other):
        condition = world.CONDITIONS[i]
        event = world.outcome(condition, scene.shape, draw.chance(surprise))
        if futures and event == futures[0][1]["event"]:  # the same scene must show two futures
            event = world.outcome(condition, scene.shape, event == world.outcome(condition, scene.shape))
        futures.append((draw_shot(draw, scene, event), {"condition": condition, "event": event}))
    return shot, {"scene": scene, "event": seen}, futures


def _write(path: Path, frames: np.ndarray, cut_off: bool = False) -> None:
    data = avi.encode(frames, FPS)
    path.write_bytes(data[: len(data) // 2] if cut_off else data)


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _procedural(out_dir: Path, params: Any) -> dict:
    coin: dict = {}
    youcook: dict = {}
    for split, count, steps in (("train", params.procedural_train, 5), ("test", params.procedural_test, 3)):
        for i in range(count):
            name = f"{split}{i:05d}"
            frames, facts = procedural_video(params.seed, f"procedural/{name}", steps, split == "test")
            shape = facts["scene"].shape
            steps_out = [
                {"id": str(n + 1), "segment": [s["start"], s["end"]], "label": world.label(shape, s["event"])}
                for n, s in enumerate(facts["steps"])
            ]
            number = RECIPE_TYPES[facts["routine"]]
            common = {"video_url": "", "duration": round(len(frames) / FPS, 3)}
            if Draw(params.seed, "layout", name).chance(YOUCOOK_SHARE):
                folder, key = "youcook2", f"yc_{name}"
                youcook[key] = {
                    "recipe_type": str(number),
                    "subset": "training" if split == "train" else "validation",
                    **common,
                    "annotations": [
                        {"id": int(str(s["id"])) - 1, "segment": s["segment"], "sentence": s["label"]}
                        for s in steps_out
                    ],
                }
            else:
                folder, key = "coin", f"co_{name}"
                coin[key] = {
                    "class": facts["routine"],
                    "recipe_type": number,
                    "subset": "training" if split == "train" else "testing",
                    "start": 0.0,
                    "end": common["duration"],
                    **common,
                    "annotation": steps_out,
                }
            _write(out_dir / folder / "videos" / f"{key}.avi", frames)
    _write_json(out_dir / "coin" / "COIN.json", {"database": coin})
    _write_json(out_dir / "youcook2" / "youcookii_annotations_trainval.json", {"database": youcook})
    names = "".join(f"{number},{routine}\n" for routine, number in RECIPE_TYPES.items())
    (out_dir / "youcook2" / "label_foodtype.csv").write_text(names, encoding="utf-8")
    return {"coin": len(coin), "youcook2": len(youcook)}


def _predictive(out_dir: Path, params: Any) -> dict:
    shorts: dict = {}
    black = np.zeros((2, SIZE, SIZE, 3), dtype=np.uint8)
    number = 0
    for split, count in (("train", params.predictive_train), ("test", params.predictive_test)):
        for i in range(count):
            scene_id = f"{split}{i:05d}"
            shot, seen, futures = predictive_scene(params.seed, f"predictive/{scene_id}", params.surprise)
            shape = seen["scene"].shape
            for letter, (target, facts) in zip("ab", futures, strict=True):
                key = f"sh_{scene_id}{letter}"
                number += 1
                bad = number % BAD_EVERY if split == "train" else -1
                frames = shot[:5] if bad == 40 else np.concatenate([shot, black, target])
                shorts[key] = {
                    "subset": "training" if split == "train" else "testing",
                    "scene": scene_id,
                    "condition": facts["condition"],
                    "duration": round(len(frames) / FPS, 3),
                    "shots": [world.label(shape, seen["event"]), world.label(shape, facts["event"])],
                }
                _write(out_dir / "shorts" / "videos" / f"{key}.avi", frames, cut_off=bad == 80)
                if bad == 20:
                    shorts[f"{key}_again"] = shorts[key]
                    _write(out_dir / "shorts" / "videos" / f"{key}_again.avi", frames)
    _write_json(out_dir / "shorts" / "shorts.json", {"database": shorts})
    return {"shorts": len(shorts)}


def generate(out_dir: str | Path, params: Any) -> dict:
    """Write the toy world's sources into an empty or absent folder; the same params give the same bytes.

    params: seed, procedural_train, procedural_test (videos), predictive_train, predictive_test (scenes, two
    films each), surprise (0..1). Returns the number of videos per source. Raises UserError if out_dir holds
    anything.
    """
    from vans.files import atomic_dir

    out_dir = Path(out_dir)
    if out_dir.exists() and any(out_dir.iterdir()):
        raise UserError(
            f"{out_dir} is not empty: it is left as it is; move it away to have the toy world there"
        )
    if out_dir.exists():
        out_dir.rmdir()
    with atomic_dir(out_dir) as partial:
        for name in ("coin", "youcook2", "shorts"):
            (partial / name / "videos").mkdir(parents=True)
        return {**_procedural(partial, params), **_predictive(partial, params)}


def verify(data_dir: str | Path, params: Any) -> dict:
    """Compare data_dir with what `generate` makes: {files, bytes, sha256, differing: [paths]}. Only reads."""
    import tempfile

    from vans.files import sha256_file, temporary

    data_dir = Path(data_dir)
    with tempfile.TemporaryDirectory(prefix=temporary("world")) as folder:
        fresh = Path(folder) / "data"
        generate(fresh, params)
        names = sorted(str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_file())
        theirs = sorted(str(p.relative_to(data_dir)) for p in data_dir.rglob("*") if p.is_file())
        differing = [
            n
            for n in names
            if not (data_dir / n).is_file() or (data_dir / n).read_bytes() != (fresh / n).read_bytes()
        ]
        differing += sorted(set(theirs) - set(names))
        total = hashlib.sha256("".join(f"{n} {sha256_file(fresh / n)}\n" for n in names).encode()).hexdigest()
        size = sum((fresh / n).stat().st_size for n in names)
    return {"files": len(names), "bytes": size, "sha256": total, "differing": differing}
