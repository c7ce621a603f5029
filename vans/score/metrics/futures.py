"""What is told of the table of all samples: both futures of one input, videos that move, videos without an event."""

from functools import partial

import numpy as np
import pandas as pd

from vans.score.metric import metric
from vans.score.metrics.oracle import GROUP, STILL

share = partial(metric, unit="%", digits=1, claim=False, table=True)


def both(frame: pd.DataFrame, name: str) -> np.ndarray | None:
    """[N] Is column ``name`` 1 for every question that was asked about one input? Once for each input, nan elsewhere.

    Counts inputs (a group of predictive samples is one scene, seen alike) with several questions whose true events all
    differ: one answer for all of them is never right. As groups are resampled whole, the mean
    of this column is the share of such inputs, and its interval is theirs. None without the oracle.
    """
    if not {name, "event"} <= set(frame):
        return None
    values = pd.Series(np.nan, index=frame.index)
    for _, asked in frame[frame["kind"] == "predictive"].groupby("group"):
        if len(asked) > 1 and asked["event"].is_unique:
            values[asked.index[0]] = float((asked[name] == 1).all())
    return values.to_numpy()


about = "inputs asked with two questions, {} the true event for both; n counts inputs"


@share("both_captions", "both captions", better="up", about=about.format("whose captions may mean"), group=GROUP)
def both_captions(frame: pd.DataFrame) -> np.ndarray | None:
    return both(frame, "caption_event")


@share("both_futures", "both futures", better="up", about=about.format("whose videos show"), group=GROUP)
def both_futures(frame: pd.DataFrame) -> np.ndarray | None:
    return both(frame, "video_event")


@share("no_event", "no event", better="down", about="videos in which the oracle sees no event", group=GROUP)
def no_event(frame: pd.DataFrame) -> np.ndarray | None:
    return (frame["event_seen"] == "none").to_numpy(float) if "event_seen" in frame else None


@share(
    "dynamic",
    "dynamic degree",
    better="up",
    about=f"videos that move: at least {STILL:g} times as much visible change between frames as in the true video "
    "(after VBench's, with frame change in the place of optical flow and a threshold relative to the truth)",
)
def dynamic(frame: pd.DataFrame) -> np.ndarray | None:
    """nan where the true video does not move."""
    if not {"motion", "motion_gt"} <= set(frame):
        return None
    moves = (frame["motion"] >= STILL * frame["motion_gt"]).astype(float)
    return moves.where(frame["motion_gt"] > 0).to_numpy()
