"""What the oracle saw: true event against event in the video, and where answers go wrong."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vans.show.style import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, RED, THEME, new_figure
from vans.toy.oracle import STATIC
from vans.toy.render import EVENTS

BLAME = {
    "right": ("caption right, video right", GREEN),
    "lucky": ("caption vague or wrong, video right", BLUE),
    "vdm": ("caption right, video wrong", ORANGE),
    "vague": ("caption fits two events, video wrong", FAINT),
    "vlm": ("caption wrong, video wrong", RED),
}


def blame(frame: pd.DataFrame) -> pd.Series:
    """The share of each way to be right or wrong, from the columns event, event_named and event_seen.

    A caption is right if it names the true event and no other; vague if it names the true event and others. A system
    that writes none (without event_named) is put down to the VLM that it lacks.
    """
    told = frame["event_named"].fillna("") if "event_named" in frame else [""] * len(frame)
    named = [set(str(text).split("|")) for text in told]
    exact = np.array([events == {event} for events, event in zip(named, frame["event"], strict=True)], bool)
    holds = np.array([event in events for events, event in zip(named, frame["event"], strict=True)], bool)
    seen = (frame["event"] == frame["event_seen"]).to_numpy()
    parts = {
        "right": exact & seen,
        "lucky": ~exact & seen,
        "vdm": exact & ~seen,
        "vague": holds & ~exact & ~seen,
        "vlm": ~holds & ~seen,
    }
    return pd.Series({name: float(part.mean()) if len(frame) else 0.0 for name, part in parts.items()})


def blame_bars(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """One stacked bar an arm: who is to blame for a wrong video."""
    with matplotlib.rc_context(THEME):
        figure = new_figure(1000, 76 + 28 * len(frames))
        axes = figure.add_subplot()
        for place, frame in enumerate(frames.values()):
            left = 0.0
            for name, share in blame(frame).items():
                words, colour = BLAME[str(name)]
                axes.barh(-place, share, left=left, height=0.64, color=colour, label=words if place == 0 else None)
                if share >= 0.04:
                    text = f"{100 * share:.0f} %"
                    axes.text(left + share / 2, -place, text, ha="center", va="center", color="white", fontsize=8)
                left += share
        axes.set_yticks([-place for place in range(len(frames))], list(frames))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        for side in ("bottom", "left"):
            axes.spines[side].set_visible(False)
        figure.legend(loc="lower center", ncols=len(BLAME), fontsize=7.5, handlelength=0.9, columnspacing=1.2)
        figure.tight_layout(pad=0.6, rect=(0, 26 / (76 + 28 * len(frames)), 1, 1))
    return figure


def confusion(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """One matrix an arm: rows the true event, columns the event in the video, counts in the cells."""
    names = [*EVENTS, STATIC]
    with matplotlib.rc_context(THEME):
        figure = new_figure(340 * len(frames) + 40, 330)
        for place, (title, frame) in enumerate(frames.items()):
            axes = figure.add_subplot(1, len(frames), place + 1)
            counts = pd.crosstab(frame["event"], frame["event_seen"])
            counts = counts.reindex(index=EVENTS, columns=names, fill_value=0).to_numpy()
            share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            for row, column in np.argwhere(counts):
                ink = "white" if share[row, column] > 0.5 else MUTED
                text = str(counts[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink)
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
            axes.set_yticks(range(len(EVENTS)), EVENTS if place == 0 else [""] * len(EVENTS))
            axes.tick_params(length=0)
            axes.set_title(title)
            axes.set_xlabel("event in the video")
            if place == 0:
                axes.set_ylabel("true event")
            for spine in axes.spines.values():
                spine.set_visible(False)
        figure.tight_layout(pad=0.6)
    return figure
