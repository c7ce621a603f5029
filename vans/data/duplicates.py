"""Near-duplicates: the same video under another name, re-encoded, rescaled, slightly cropped or trimmed.

A video's fingerprint (fingerprint.py) is eight pictures, evenly spread over it, each thinned to 8 x 8 colours.
Two fingerprints' distance is sqrt(2 - 2 r), r their correlation over all those numbers: 0 for the same video,
about 1.4 for two that have nothing in common, blind to brightness and contrast. `curate.near_duplicate` is
the distance up to which two videos count as one; what it should be depends on how alike a world's videos are.

Pairs are found without comparing all with all, and none is missed: an orthonormal transform (DCT) keeps
distances, so that a few of its coefficients bound them from below; a k-d tree over those gives the candidates,
and each candidate is then measured in full. Where the tree leaves too many, a matrix product over more
coefficients takes its place, and pairs of what hangs together already are passed over.

A dark or plain video has a flat fingerprint, which says nothing: it is compared with none. If a test video is
flat, too, flat training videos might be the same and are left out, for a reason of their own.

Nor does a fingerprint tell that one file is a part of another. Where names are video ids, as on YouTube, equal
names in any folders are one video. And files that are clips cut out of a video are compared with the segments of the
videos across the split, each of which has a fingerprint of its own.

Across the split the training side gives way: official test subsets cannot move, the test set does not change
when training data is added, and nothing is lost, since the test side still has the video. A scene with such
a video leaves training as a whole.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from vans.data.fingerprint import FRAMES, GRID
from vans.data.records import Record
from vans.errors import UserError

FLAT = 4.0  # 0..255; contrast below this is noise: no content
COEFFICIENTS = 16  # of the transform, for the tree
MORE = 96  # of them, where the tree leaves too many candidates
SOME = 64  # points from which the number of candidates is estimated
ROWS = 512  # points whose distances to all others are bounded at once
CANDIDATES = 300_000  # the nearest pair is searched no further than this many candidates
MANY = 2_000_000  # candidates held in memory at once
NEAR = "near-duplicate of a test video"
UNCLEAR = "too dark or plain to be told from a test video that is so, too"
WORDS = r"[A-Z]?[a-z]+(?:[_-][A-Z]?[a-z]+)*[_-]?\d*|[A-Za-z]*\d{0,2}[_-]+\d+|[A-Za-z]*\d{3,}|[a-z_-]*\d*|[\d_-]+"
ID = re.compile(rf"(?!(?:{WORDS})$)[\w-]{{11}}", re.ASCII)  # YouTube's; Living_Room, IMG_1234567 are none


def vectors(prints: np.ndarray) -> np.ndarray:
    """Fingerprints [n, ...] as float32 [n, D] whose Euclidean distances are the distances of the module."""
    points = np.empty((len(prints), prints[:1].size or 1), dtype=np.float32)
    for rows, whole in _in_parts(prints):
        whole -= whole.mean(axis=1, keepdims=True)
        contrast = np.sqrt(np.square(whole).mean(axis=1, keepdims=True))
        points[rows] = whole / (np.maximum(contrast, FLAT) * np.float32(np.sqrt(whole.shape[1])))
    return points


def flat(prints: np.ndarray) -> np.ndarray:
    """Which fingerprints [n, ...] say nothing: bool [n]."""
    found = np.zeros(len(prints), dtype=bool)
    for rows, whole in _in_parts(prints):
        found[rows] = whole.std(axis=1) < FLAT
    return found


def _in_parts(prints: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Some rows at a time, which the processor's cache can hold, as float32 [rows, D]."""
    for at in range(0, len(prints), ROWS):
        part = prints[at : at + ROWS]
        yield slice(at, at + ROWS), part.reshape(len(part), -1).astype(np.float32)


class Search:
    """All pairs of points of one set, or of two, that are at most `radius` apart."""

    def __init__(self, points: np.ndarray, axes: np.ndarray | None = None) -> None:
        """points: `vectors`. axes: the other set's, where two are searched; default: where these differ most."""
        self.points = points
        parts = dctn(points.reshape(-1, FRAMES, GRID, GRID, 3), axes=(1, 2, 3), norm="ortho")
        parts = parts.reshape(len(points), -1)
        self.axes = np.argsort(-parts.var(axis=0), kind="stable")[:MORE] if axes is None else axes
        self.parts = parts[:, self.axes]
        self.tree = cKDTree(self.parts[:, :COEFFICIENTS])

    def pairs(self, radius: float) -> tuple[np.ndarray, np.ndarray, int]:
        """([n, 2] indices i < j, [n] distances, number of pairs that were measured).

        Of more than MANY candidates only so many pairs that the same points hang together.
        """
        reach = _wider(radius)
        if self.candidates(self, radius) > 2 * MANY:
            return self._linked(radius)
        found = self.tree.query_pairs(reach, output_type="ndarray").reshape(-1, 2)
        return *self._measured(self, found, radius), len(found)

    def _linked(self, radius: float) -> tuple[np.ndarray, np.ndarray, int]:
        part = np.arange(len(self.points))  # what each point hangs together with
        kept, far, measured = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.float32)], 0
        for found in self._near(self, _wider(radius)):
            found = found[(found[:, 0] < found[:, 1]) & (part[found[:, 0]] != part[found[:, 1]])]
            measured += len(found)
            found, distance = self._measured(self, found, radius)
            if len(found):
                part = _connected(part[found], len(part))[part]
                kept.append(found)
                far.append(distance)
        return np.concatenate(kept), np.concatenate(far), measured

    def candidates(self, other: "Search", radius: float) -> float:
        """About how many pairs the tree would leave to be measured; from some points of this set."""
        some = self.tree.data[:: max(1, len(self.points) // SOME)]
        found = other.tree.query_ball_point(some, _wider(radius), return_length=True)
        return float(np.mean(found)) * len(self.points)

    def _near(self, other: "Search", reach: float) -> Iterator[np.ndarray]:
        """Pairs [n, 2] whose coefficients are near, in order of the first, not too many at a time."""
        crowded = self.candidates(other, reach) > MANY
        return self._by_product(other, reach) if crowded else self._by_tree(other, reach)

    def _by_product(self, other: "Search", reach: float) -> Iterator[np.ndarray]:
        """By a matrix product over many coefficients: its time does not depend on how crowded the points are."""
        squares = np.square(other.parts).sum(axis=1)
        rows = max(1, min(ROWS, 8 * MANY // len(other.points)))
        for at in range(0, len(self.points), rows):
            some, skip = self.parts[at : at + rows], at if other is self else 0  # a set's own pairs once
            square = np.square(some).sum(axis=1)[:, None] + squares[skip:] - 2 * some @ other.parts[skip:].T
            near = np.argwhere(square <= reach**2 + 1e-4) + (at, skip)  # float32 squares of up to 2
            yield from (near[i : i + MANY] for i in range(0, len(near), MANY))

    def _by_tree(self, other: "Search", reach: float) -> Iterator[np.ndarray]:
        rows = max(1, MANY // len(other.points))
        for at in range(0, len(self.points), rows):
            near = other.tree.query_ball_point(self.tree.data[at : at + rows], reach)
            first = np.repeat(np.arange(at, at + len(near)), [len(row) for row in near])
            second = np.concatenate([np.array(row, dtype=np.int64) for row in near])
            yield np.stack([first, second], axis=1)

    def across(self, other: "Search", radius: float) -> tuple[np.ndarray, np.ndarray, int]:
        """As `pairs`, all of them; first index into this set, second into the other."""
        kept, far, measured = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.float32)], 0
        for found in self._near(other, _wider(radius)):
            measured += len(found)
            found, distance = self._measured(other, found, radius)
            kept.append(found)
            far.append(distance)
        return np.concatenate(kept), np.concatenate(far), measured

    def _measured(self, other: "Search", found: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Which of these pairs are near: ([n, 2], [n] distances). Most are refused by their first coefficients."""
        found = found[_measure(self.parts, other.parts, found) <= _wider(radius)]
        distance = _measure(self.points, other.points, found)
        return found[distance <= radius], distance[distance <= radius]


def _connected(edges: np.ndarray, size: int) -> np.ndarray:
    """Edges [n, 2] between `size` points -> the number of each point's component, [size]."""
    joined = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(size, size))
    return connected_components(joined, directed=False)[1]


def _wider(radius: float) -> float:
    return radius * (1 + 1e-4) + 1e-5  # float32 coefficients


def _measure(first: np.ndarray, second: np.ndarray, found: np.ndarray) -> np.ndarray:
    parts = [found[at : at + 50_000] for at in range(0, len(found), 50_000)]
    measured = [np.linalg.norm(first[p[:, 0]] - second[p[:, 1]], axis=1) for p in parts]
    return np.concatenate(measured) if measured else np.zeros(0, dtype=np.float32)


def _owned(prints: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints of some records, [n_i, ...] each: (whose each is, [n]; all of them, [n, ...])."""
    everything = np.concatenate([*prints, np.zeros((0, FRAMES, GRID, GRID, 3), np.uint8)])
    return np.repeat(np.arange(len(prints)), [len(p) for p in prints]), everything


def inside(
    records: Sequence[Record], cut: Sequence[np.ndarray], parts: Sequence[np.ndarray], radius: float
) -> tuple[np.ndarray, int]:
    """Which cut files of one side of the split are near a segment of the other: ([n, 2] records, pairs measured).

    cut: of each record the fingerprints of its cut files [n_i, ...]; parts: of its segments [m_i, ...].
    """
    edges, measured = [np.zeros((0, 2), dtype=np.int64)], 0
    for files, segments in (("test", "train"), ("train", "test")):
        sides = []
        for split, prints in ((files, cut), (segments, parts)):
            owner, everything = _owned([p if r.split == split else p[:0] for r, p in zip(records, prints, strict=True)])
            clear = ~flat(everything)
            sides.append((owner[clear], everything[clear]))
        if all(len(owner) for owner, _ in sides):
            there = Search(vectors(sides[1][1]))
            found, _, count = Search(vectors(sides[0][1]), there.axes).across(there, radius)
            edges.append(np.stack([sides[0][0][found[:, 0]], sides[1][0][found[:, 1]]], axis=1))
            measured += count
    return np.unique(np.concatenate(edges), axis=0), measured


def groups(
    records: Sequence[Record], prints: Sequence[np.ndarray], radius: float, joined: np.ndarray | None = None
) -> tuple[list[str], dict]:
    """Which videos are one: near-duplicates, equal video ids, what hangs together so, and videos of one scene.

    prints: each record's fingerprints [n_i, ...]. joined: [n, 2] records that are one, too. Scenes join videos of
    the same split only (a scene on both sides is an error of the data, not a near-duplicate). Returns each record's
    group, named after its first video, and {videos, pairs_measured, near_pairs}; where there are any, same_id and
    not_comparable (videos).
    """
    owner, everything = _owned(prints)
    clear = ~flat(everything)
    owner, everything = owner[clear], everything[clear]
    first: dict[Any, int] = {}
    same = np.array([first.setdefault(p.tobytes(), i) for i, p in enumerate(everything)])
    distinct = np.array(sorted(first.values()))  # equal ones are found without measuring
    pairs, measured = np.zeros((0, 2), dtype=np.int64), 0
    if len(distinct):
        near, _, measured = Search(vectors(everything[distinct])).pairs(radius)
        pairs = np.concatenate([owner[distinct[near]], np.stack([owner[same], owner], axis=1)])
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    if joined is not None:
        pairs = np.unique(np.concatenate([pairs, joined]), axis=0)
    ids: dict[str, int] = {}
    named = [(ids.setdefault(id, i), i) for i, r in enumerate(records) if (id := video_id(r.name))]
    scene: dict[Any, int] = {}
    scenes = [(scene.setdefault((r.split, r.scene), i), i) for i, r in enumerate(records)]
    numbers = _connected(np.concatenate([pairs, np.array(named + scenes)]), len(records))
    names: dict[int, str] = {}
    for record, number in zip(records, numbers, strict=True):
        names.setdefault(number, record.title)
    facts = {"videos": len(records), "pairs_measured": measured, "near_pairs": len(pairs)}
    rare = {"same_id": len(named) - len(ids), "not_comparable": len(records) - len(np.unique(owner))}
    return [names[number] for number in numbers], facts | {name: count for name, count in rare.items() if count}


def video_id(name: str) -> str:
    """The YouTube id that a video's name ends in ('' if it has none): <id>, v_<id>, <collection>/<id>."""
    last = name.rpartition("/")[2]
    return next((id for id in (last, last.removeprefix("v_")) if ID.fullmatch(id)), "")


def unclear(records: Sequence[Record], prints: Sequence[np.ndarray]) -> set[str]:
    """Titles of the training videos of which nothing can be compared, if a test video is such a one, too."""
    owner, everything = _owned(prints)
    says = np.bincount(owner, ~flat(everything), len(records))
    plain = [r for r, count in zip(records, says, strict=True) if not count]
    tested = any(r.split == "test" for r in plain)
    return {r.title for r in plain if tested and r.split == "train"}


def leaking(records: Sequence[Record], group: Sequence[str]) -> set[str]:
    """Titles of the training videos that must go: whatever shares a group with a test video."""
    tested = {g for r, g in zip(records, group, strict=True) if r.split == "test"}
    return {r.title for r, g in zip(records, group, strict=True) if r.split == "train" and g in tested}


def why(title: str, records: Sequence[Record], prints: Sequence[np.ndarray], group: Sequence[str]) -> str:
    """One line: the nearest test video of a dropped training video's group and their distance."""
    at = next(i for i, r in enumerate(records) if r.title == title)
    tests = [i for i, r in enumerate(records) if r.split == "test" and group[i] == group[at]]
    here = vectors(prints[at])
    apart = {i: float(np.linalg.norm(here[:, None] - vectors(prints[i])[None], axis=-1).min()) for i in tests}
    near = min(tests, key=lambda i: apart[i])
    id = video_id(records[at].name)
    same = ", the same video id" if id and id == video_id(records[near].name) else ""
    return f"{title}: dropped from training, in one group with {records[near].title} (distance {apart[near]:.3f}{same})"


def proof(test: dict[str, np.ndarray], train: dict[str, np.ndarray], radius: float) -> dict:
    """Measure what is left: the nearest two videos across the split.

    test, train: title -> fingerprints; flat ones are passed over. Returns {pairs_measured, nearest, test_video,
    train_video}; nearest is None, and `farther_than` says how far it was searched, where too many pairs would have
    to be measured. Raises UserError if two are nearer than radius.
    """
    none = {"pairs_measured": 0, "nearest": None, "test_video": None, "train_video": None}
    names, points = [], []
    for side in (test, train):
        owner, everything = _owned(list(side.values()))
        clear = ~flat(everything)
        names.append(np.array(list(side))[owner[clear]])
        points.append(vectors(everything[clear]))
    if not all(map(len, points)):
        return none
    there = Search(points[1])
    here = Search(points[0], there.axes)
    looked = radius
    while True:
        found, distance, measured = here.across(there, looked)
        if len(found):
            best = int(np.argmin(distance))
            pair = (str(names[0][found[best, 0]]), str(names[1][found[best, 1]]))
            break
        if looked > 2 or here.candidates(there, 1.5 * looked) > CANDIDATES:
            return none | {"pairs_measured": measured, "farther_than": round(looked, 4)}
        looked *= 1.5
    if distance[best] <= radius:
        raise UserError(f"{pair[1]} (training) is a near-duplicate of {pair[0]} (test); please report this")
    nearest = round(float(distance[best]), 4)
    return {"pairs_measured": measured, "nearest": nearest, "test_video": pair[0], "train_video": pair[1]}
