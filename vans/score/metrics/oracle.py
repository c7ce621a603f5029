"""What the toy world's oracle reads in captions and pixels. Its truth is read from pixels too: the event from the
target clip, colour and shape from the input clip. Other data has none of this.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from vans.score.batch import Batch
from vans.score.metric import metric
from vans.toy import oracle, world
from vans.toy.render import SIZE

STILL = 0.5  # of the true amplitude
GROUP = "What the oracle reads in captions and videos"
COLUMNS = (
    *("event", "event_named", "event_seen", "caption_event", "caption_renderable"),
    *("video_event", "identity", "static"),
)


def can_read(captions: Sequence[str], clips: np.ndarray) -> bool:
    """True if every ground-truth caption is a sentence of the toy world and the clips, no single pictures, have its
    size."""
    fits = clips.shape[1] > 1 and clips.shape[2:4] == (SIZE, SIZE)
    return fits and all(world.caption_events(text) for text in captions)


def readings(batch: Batch) -> dict[str, list] | None:
    """Per sample: what the oracle sees in target, answer and input, and whether the caption names it; of answers
    without captions or without videos what the rest tells.

    static: no event is seen, and the object changes less than STILL times as much as in the true video (an event too
    blurred to be read is not a still picture).
    """
    if not batch.toy:
        return None
    true = oracle.read(batch.targets)
    found: dict[str, list] = {"event": [reading.event for reading in true]}
    if batch.captions is not None:
        named = [world.caption_events(text) for text in batch.captions]
        found |= {
            "event_named": ["|".join(sorted(events)) for events in named],
            "caption_event": [float(t.event in events) for t, events in zip(true, named, strict=True)],
            "caption_renderable": [float(len(events) == 1) for events in named],
        }
    if batch.videos is not None:
        seen, given = oracle.read(batch.videos), oracle.read(batch.inputs)
        both = list(zip(seen, true, strict=True))
        kept = [(a.colour, a.shape) == (b.colour, b.shape) for a, b in zip(seen, given, strict=True)]
        found |= {
            "event_seen": [reading.event for reading in seen],
            "video_event": [float(a.event == b.event) for a, b in both],
            "identity": [float(same) for same in kept],
            "static": [float(a.event == "none" and a.change < STILL**2 * b.change) for a, b in both],
        }
    return {name: found[name] for name in COLUMNS if name in found}


share = partial(metric, unit="%", digits=1, needs=(), group=GROUP)
about = "captions that may mean the true event (a flowery one fits two)"
share("caption_event", "caption event", better="up", about=about)(readings)
about = "captions that name exactly one event"
share("caption_renderable", "renderable", better="up", about=about, claim=False)(readings)
share("video_event", "video event", better="up", about="videos in which the oracle sees the true event")(readings)
about = "videos that keep the input's colour and shape"
share("identity", "identity", better="up", about=about, claim=False)(readings)
share("static", "static", better="down", about="no event, and less than half of the true change")(readings)
