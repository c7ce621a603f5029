"""What calls will take and cost, and what they did.

Tokens before a call: a quarter of the text's UTF-8 bytes, `image_tokens` for each picture, `answer_tokens` for
the answer (`max_tokens` where the most is meant). Money: tokens x price, prices per million tokens, in whatever
currency they are given. Afterwards the endpoint's own `usage` counts.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vans.errors import UserError
from vans.llm.cache import Cache, Reply
from vans.llm.limits import Stopped

MILLION = 1_000_000


def text_tokens(text: str) -> int:
    """About how many tokens a text takes."""
    return -(-len(text.encode()) // 4)


def price(llm: Any, input: int, output: int) -> float:
    """What so many tokens cost; 0 where no price is given."""
    return (input * (llm.price_input or 0.0) + output * (llm.price_output or 0.0)) / MILLION


@dataclass(frozen=True)
class Estimate:
    """Of calls that are still to be made. output_most: if every answer is as long as it may be."""

    calls: int
    input: int
    output: int
    output_most: int
    cost: float
    cost_most: float
    priced: bool

    def __str__(self) -> str:
        tokens = f"{count(self.input)} tokens in, {count(self.output)} (at most {count(self.output_most)}) out"
        money = f"cost {self.cost:.2f}, at most {self.cost_most:.2f}" if self.priced else "no prices given"
        return f"{self.calls} calls, about {tokens}; {money}"


def estimate(llm: Any, inputs: list[int]) -> Estimate:
    """Calls with so many tokens in, each."""
    calls, tokens = len(inputs), sum(inputs)
    output, most = calls * llm.answer_tokens, calls * llm.max_tokens
    priced = llm.price_input is not None and llm.price_output is not None
    return Estimate(calls, tokens, output, most, price(llm, tokens, output), price(llm, tokens, most), priced)


def count(number: int) -> str:
    """1234567 -> 1.23 M."""
    for size, name in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= size:
            return f"{number / size:.3g}{name}"
    return str(number)


class Meter:
    """Counts calls, tokens and money, and lets nothing begin that the budget may not cover.

    The budget is for everything in the cache's file. A call reserves the most that it can cost; what is reserved
    by calls under way comes back when they end.
    """

    def __init__(self, llm: Any, cache: Cache, section: str = "curate.llm") -> None:
        self.llm, self.cache, self.section = llm, cache, section
        self.calls = self.input = self.output = self.lost = 0
        self.cost = 0.0
        self._reserved = 0.0
        self._change = threading.Condition()

    @contextmanager
    def room(self, input: int, stop: threading.Event) -> Iterator[None]:
        """Hold the most that a call may cost while it is under way. UserError if the budget has no room for it."""
        most = price(self.llm, input, self.llm.max_tokens)
        with self._change:
            while self.llm.budget is not None:
                if stop.is_set():
                    raise Stopped
                spent = self.cache.spent().cost
                if spent + self._reserved + most <= self.llm.budget:
                    break
                if not self._reserved:
                    raise UserError(
                        f"params.yaml: {self.section}.budget: {spent:.2f} of {self.llm.budget:.2f} are spent and the "
                        f"next call may cost {most:.4f}; what is paid for is kept: raise the budget and run again"
                    )
                self._change.wait(timeout=1.0)
            self._reserved += most
        try:
            yield
        finally:
            with self._change:
                self._reserved -= most
                if self._reserved < 1e-12:
                    self._reserved = 0.0
                self._change.notify_all()

    def paid(self, key: str, task: str, model: str, reply: Reply) -> None:
        """An answer has arrived: count it, and keep it unless its key is ""."""
        cost = price(self.llm, reply.input, reply.output)
        self.cache.put(key, task, model, reply, cost)
        self._add(reply.input, reply.output, cost, 0)

    def may_be_paid(self, input: int) -> None:
        """No answer has arrived, but the endpoint may have worked: count the estimate, to be on the safe side."""
        cost = price(self.llm, input, self.llm.answer_tokens)
        self.cache.lost(input, self.llm.answer_tokens, cost)
        self._add(input, self.llm.answer_tokens, cost, 1)

    def _add(self, input: int, output: int, cost: float, lost: int) -> None:
        with self._change:
            self.calls, self.lost = self.calls + 1, self.lost + lost
            self.input, self.output, self.cost = self.input + input, self.output + output, self.cost + cost
