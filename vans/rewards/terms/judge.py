"""What a multimodal LLM says of the video, in [0, 1]; from any OpenAI-compatible endpoint (`judge` in params.yaml).

It is shown `frames` pictures of the input clip and of the video, question and caption (judge.md), and is asked for

- `mode: yes_no`: the probability of "yes", p(yes) / (p(yes) + p(no)) at the answer's word, where the endpoint gives
  log-probabilities (as VQAScore asks, Lin et al. 2024); else 1 for the word yes and 0 for no;
- `mode: grade`: a number from 0 to 10, by which 10 is 1.

An answer that does not come, is declined, cannot be read `attempts` times or holds the endpoint's key is no score
(None); a rollout's answer without a caption earns 0, unasked. Equal questions of a rollout are asked once; nothing but
what was spent is kept, in the file `cache`, so that a budget holds for all processes and runs. A rollout of which
nothing could be scored is dropped as a whole.
"""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from vans.llm import answers, prompts
from vans.llm.cache import Cache, Reply
from vans.llm.client import DECLINES, KEY_INSIDE, Ask, Client, Unanswered
from vans.llm.cost import Meter, text_tokens
from vans.llm.pictures import data_url, pictures
from vans.params import find_root
from vans.rewards.outside import Failed, report
from vans.rewards.rollout import Rollout

PROMPT = Path(__file__).with_suffix(".md")
LIKELIEST = 5  # alternatives of a word that are asked for
FORMS = {  # further fields of a request, best first
    "yes_no": ({"logprobs": True, "top_logprobs": LIKELIEST}, {"logprobs": True}, {}),
    "grade": answers.forms("judge", answers.GRADE),
}
WORDS = {"yes": 1.0, "no": 0.0}


class judge:
    """params: judge (an endpoint's settings, and mode). Raises UserError if there is no key, or no safe address."""

    needs = "video"

    def __init__(self, params: Any) -> None:
        self.llm = params.judge
        meter = Meter(self.llm, Cache(find_root() / Path(self.llm.cache).expanduser()), "judge")
        self.client = Client(self.llm, "judge", meter, safe="the run goes on from its last checkpoint", patient=True)

    def __call__(self, rollout: Rollout) -> list[list[float | None]]:
        """[P][G] scores in [0, 1], None where there is none. UserError: no call can succeed, or the budget is spent."""
        places = {(p, g): self._key(rollout, p, g) for p, g in rollout.rendered.nonzero().tolist()}
        todo = {key: place for place, key in reversed(places.items())}
        scores: dict[str, float | None] = dict.fromkeys(todo)
        why: list[str] = []
        for attempt in range(self.llm.attempts):
            asked = [self._ask(rollout, *place, attempt) for place in todo.values()]
            replies = dict(zip(todo, self.client.ask(asked), strict=True)) if asked else {}
            for key, reply in replies.items():
                try:
                    scores[key] = self._score(reply)
                except Lost as error:
                    why.append(str(error))
                    del todo[key]
                except ValueError as error:  # unreadable: once more
                    why += [str(error)] if attempt + 1 == self.llm.attempts else []
                else:
                    del todo[key]
        if scores and all(value is None for value in scores.values()):  # the zeros of the others are no sign of life
            raise Failed(f"none of {len(scores)} answers; {why[-1]}")
        report("judge", why, len(scores))
        count = range(rollout.shape[1])
        return [[scores[places[p, g]] if (p, g) in places else 0.0 for g in count] for p in range(rollout.shape[0])]

    def _ask(self, rollout: Rollout, p: int, g: int, attempt: int) -> Ask:
        prompt = prompts.load(PROMPT)
        values = {"question": rollout.questions[p], "caption": rollout.captions[p][g]}
        user = prompt.fill("user", **values) + "\n\n" + prompt.fill(self.llm.mode.replace("_", " "))

        def content() -> list[dict]:
            clips = {"input": rollout.inputs[p], "video": rollout.videos[p, g]}
            return prompts.content(user, lambda name: self._shown(clips[name]))

        system = prompt.fill("system")
        tokens = text_tokens(system + user) + 2 * self.llm.frames * self.llm.image_tokens
        temperature = self.llm.temperature if attempt else 0.0
        return Ask("", "judge", system, content, tokens, temperature, FORMS[self.llm.mode])

    def _shown(self, frames: Tensor) -> list[str]:
        return [data_url(picture) for picture in pictures(frames.numpy(), self.llm.frames, self.llm.side)]

    def _score(self, reply: Reply | Unanswered) -> float:
        """Raises Lost, or ValueError where another answer may be readable."""
        if isinstance(reply, Unanswered):
            raise Lost(f"the endpoint {reply.why} ({reply.detail})")
        if reply.finish == KEY_INSIDE:
            raise Lost("an answer holds the endpoint's key")
        if reply.finish in DECLINES:
            raise Lost("the model declined")
        if self.llm.mode == "grade":
            grade = answers.read(reply.text, answers.GRADE)["grade"]
            if not 0 <= grade <= 10:
                raise ValueError(f"grade was {grade:g}, not from 0 to 10")
            return grade / 10
        return yes(reply)

    @staticmethod
    def _key(rollout: Rollout, p: int, g: int) -> str:
        """Of all that is shown: question, caption, pictures."""
        made = hashlib.sha256(repr((rollout.questions[p], rollout.captions[p][g])).encode())
        made.update(rollout.inputs[p].numpy().tobytes())
        made.update(rollout.videos[p, g].numpy().tobytes())
        return made.hexdigest()


class Lost(Exception):
    """There is no score, and asking again gives none."""


def yes(reply: Reply) -> float:
    """The probability of "yes" in an answer of one word. Raises ValueError if it says neither yes nor no."""
    for likeliest in reply.likely:
        if _word(next(iter(likeliest), "")) not in WORDS:  # the token that stands there is the first
            continue
        mass = dict.fromkeys(WORDS, 0.0)
        for token, value in likeliest.items():
            if (word := _word(token)) in mass:
                mass[word] += math.exp(value)
        if total := sum(mass.values()):
            return mass["yes"] / total
    found = {word for word in re.findall(r"[a-z]+", reply.text.lower()) if word in WORDS}
    if len(found) != 1:
        raise ValueError("the answer said neither yes nor no")
    return WORDS[found.pop()]


def _word(token: str) -> str:
    return re.sub(r"[^a-z]", "", token.lower())
