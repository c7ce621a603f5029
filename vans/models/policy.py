"""The VLM as a policy over tokens: answers are sampled, and given answers are scored.

Sampling and log-probabilities belong together here, because the policy ratio is only right if both speak of the
same distribution: log-probs are of softmax(logits / temperature) with special tokens suppressed, dropout off.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import LogitsProcessorList

from vans.models.decoding import decoder
from vans.models.engine import Engine
from vans.models.grammar import Grammar, WithinTemplate
from vans.models.packing import Packed, pack
from vans.models.positions import positions
from vans.models.prompts import arguments, in_parts, pick
from vans.models.sampling import Draws, Suppress, joined, named_by
from vans.sharding import gathered, sharded
from vans.template import check_words


@dataclass
class Completions:
    """Answers: ids [B, L] (padded on the right), mask [B, L] (1 up to and including the end token), texts; of sampled
    ones the log-probability of each token as it was drawn (before top-p) [B, L] float32, 0 where masked.
    """

    ids: Tensor
    mask: Tensor
    texts: list[str]
    drawn: Tensor | None = None

    def rows(self, some: list[int]) -> Completions:
        """Some of the answers, padded as all are."""
        drawn = None if self.drawn is None else self.drawn[some]
        return Completions(self.ids[some], self.mask[some], [self.texts[row] for row in some], drawn)


class Policy:
    """Answers of a Qwen2.5-VL, optionally under a LoRA adapter: see `vans.models.vlm.VLM`."""

    model: Any
    tokenizer: Any
    autocast_dtype: torch.dtype | None
    position_rule: str  # see vans/models/positions.py
    sample_batch: int  # answers at once
    decoding: str  # see vans/models/decoding.py
    engine: Engine | None  # what samples in its place
    see: Any

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def autocast(self, cache: bool = True):
        """bf16 arithmetic over float32 adapters where the scale asks for it. cache: are cast weights kept meanwhile?"""
        if self.autocast_dtype is None:
            return nullcontext()
        cache = cache and not sharded(self.model)  # else all its layers would be kept, cast, as they are gathered
        return torch.autocast(self.device.type, dtype=self.autocast_dtype, cache_enabled=cache)

    @contextmanager
    def merged(self):
        """The adapter added to the weights, where they are float32: a token costs a third of the calls.

        The weights come back as they were, bit for bit. In bfloat16 it is left out: what a young adapter adds is less
        than half a step of most weights and would be rounded away: the model sampled would be the one without it. A
        model that is cut up over ranks is gathered meanwhile, and not merged.
        """
        if sharded(self.model):
            with gathered(self.model):
                yield
            return
        layers = [layer for layer in self.model.modules() if isinstance(layer, LoraLayer)]
        weights = [layer.get_base_layer().weight for layer in layers]
        before = [weight.data for weight in weights] if all(w.dtype == torch.float32 for w in weights) else []
        try:
            for layer, weight, data in zip(layers, weights, before, strict=False):
                weight.data = data.clone()
                layer.merge()  # type: ignore[operator]
            yield
        finally:
            for layer, weight, data in zip(layers, weights, before, strict=False):
                layer.unmerge()  # type: ignore[operator]
                weight.data = data

    def positions(self, inputs) -> tuple[Tensor, Tensor]:
        """(places [3, N, S], next [N]) of N prompts: see vans/models/positions.py."""
        return positions(inputs, self.model.config, self.position_rule)

    def special_ids(self) -> list[int]:
        """Tokens that an answer may never hold (a sampled video token would crash the next forward pass)."""
        ids = set(self.tokenizer.all_special_ids) | {
            i for t, i in self.tokenizer.get_added_vocab().items() if t.startswith("<|")
        }
        config = self.model.config
        ids |= {config.image_token_id, config.video_token_id}
        return sorted(ids - {self.tokenizer.eos_token_id})

    # ------------------------------------------------------------------ sampling
    @cached_property
    def barred(self) -> Suppress:
        """-inf at what an answer may never hold."""
        return Suppress(self.special_ids(), self.device)

    @cached_property
    def grammar(self) -> Grammar:
        """The answer's template over this model's tokens."""
        return Grammar(self.tokenizer, self.model.config.get_text_config().vocab_size, self.special_ids())

    @torch.no_grad()
    def sample(
        self,
        inputs,
        *,
        seeds: list[tuple],
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        within_template: bool = False,
        hub_defaults: bool = False,
    ) -> Completions:
        """One answer per seed; with G seeds per prompt row, `seeds` is ordered prompt-major and rows are repeated.

        Exact ancestral sampling with one generator per answer, so that an answer depends on its own seed and not on
        what else is in the batch: at most `sample_batch` rows are sampled at once, whole prompts where they fit.
        temperature 0 decodes greedily. within_template: only
        tokens that keep to the answer's template, which is whole within max_new_tokens (UserError if it has no room);
        the log-probs here know nothing of it, so rollouts go without. hub_defaults: with the repetition penalty and the
        top-k that the model's own folder (or transformers, by default) names; rollouts go without, too.
        """
        rows = inputs["input_ids"].shape[0]
        if len(seeds) % rows:
            raise ValueError(f"{len(seeds)} seeds for {rows} prompts")
        times, eos = len(seeds) // rows, self.tokenizer.eos_token_id
        if self.engine is not None and not (within_template or hub_defaults):
            given: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
            return self.from_engine(inputs, *self.engine.sample(self, inputs, seeds, **given), temperature, top_p)
        if len(seeds) > self.sample_batch:
            options: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
            options |= {"within_template": within_template, "hub_defaults": hub_defaults}
            parts = [
                self.sample(pick(inputs, which), seeds=seeds[some], **options)
                for which, some in in_parts(rows, times, self.sample_batch)
            ]
            return joined(parts, self.tokenizer.pad_token_id)
        processors = LogitsProcessorList()
        if within_template:  # first: the likeliest k are then of those that keep to it
            processors.append(WithinTemplate(self.grammar, eos, max_new_tokens))
        if hub_defaults:
            processors += named_by(self.model.generation_config, inputs["input_ids"].repeat_interleave(times, 0))
        draw = Draws(seeds, max_new_tokens, temperature, top_p, self.device)
        with self.autocast(), self.merged():  # each prompt is read once, and its keys and values are every answer's
            places, following = self.positions(inputs)
            out = self.model(**arguments(inputs), position_ids=places, use_cache=True, logits_to_keep=1)
            logits = out.logits.repeat_interleave(times, 0)
            place = following[None, :, None].expand(3, -1, 1)  # [3, P, 1]
            step = decoder(self, out.past_key_values, inputs["attention_mask"], place, times, max_new_tokens)
            ids, drawn = inputs["input_ids"].new_empty(len(seeds), 0), []
            ended = torch.zeros(len(seeds), dtype=torch.bool, device=ids.device)
            while True:
                scores = self.barred(ids, logits[:, -1].float())  # [N, V]
                token = draw(processors(ids, scores), ids.shape[1])
                drawn.append((scores / (temperature or 1.0)).log_softmax(-1).gather(1, token[:, None]))
                token = token.masked_fill(ended, self.tokenizer.pad_token_id)[:, None]
                ids, ended = torch.cat([ids, token], 1), ended | (token[:, 0] == eos)
                if ids.shape[1] == max_new_tokens or (ids.shape[1] % step.look == 0 and ended.all()):
                    break
                logits = step(token)
        ended = (ids == eos).long().cumsum(1)
        mask = ((ended == 0) | ((ended == 1) & (ids == eos))).long()
        longest = int(mask.sum(1).max())  # nobody looks at every token whether all have ended
        ids, mask, logp = ids[:, :longest], mask[:, :longest], torch.cat(drawn, 1)[:, :longest]
        return Completions(ids, mask, self.decode(ids, mask), logp.masked_fill(mask == 0, 0.0))

    def from_engine(
        self, inputs, ids: list[list[int]], logp: list[list[float]], temperature: float, top_p: float
    ) -> Completions:
        """What vLLM drew, as answers; its log-probabilities only where they are of the whole distribution."""
        answers = self.padded(ids)
        texts = self.decode(answers.ids, answers.mask)
        if temperature == 0 or top_p < 1:
            return Completions(answers.ids, answers.mask, texts)
        drawn = torch.zeros(answers.ids.shape, device=self.device)
        for row, values in zip(drawn, logp, strict=True):
            row[: len(values)] = torch.tensor(values)
        assert self.engine is not None
        if not self.engine.checked:
            seen = inputs if "video_features" in inputs else self.see(inputs)
            self.engine.check(self.log_probs(seen, answers, temperature), drawn, answers.mask)
        return Completions(answers.ids, answers.mask, texts, drawn)

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Token ids -> texts without padding and end token."""
        rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
        return [
            self.tokenizer.decode([t for t in row if t != self.tokenizer.eos_token_id], skip_special_tokens=False)
            for row in rows
        ]

    def encode_answers(self, texts: list[str]) -> Completions:
        """Given answers as completions (for SFT): ids and mask with the end token, padded on the right.

        UserError for one that holds a sign of the model's own: it would teach to end there.
        """
        for text in texts:
            check_words(text, "an answer to learn from", self.tokenizer.all_special_tokens)
        eos = self.tokenizer.eos_token_id
        return self.padded([[*self.tokenizer(t, add_special_tokens=False).input_ids, eos] for t in texts], texts)

    def padded(self, rows: list[list[int]], texts: Sequence[str] = ()) -> Completions:
        """Tokens of answers, the end token included, as completions padded on the right."""
        length = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([r + [pad] * (length - len(r)) for r in rows], device=self.device)
        mask = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows], device=self.device)
        return Completions(ids, mask, list(texts))

    # ------------------------------------------------------------------ log-probabilities
    def packed(self, inputs, completions: Completions, of: Sequence[int] | None = None) -> Packed:
        """The answers of each prompt behind it in one sequence (vans/models/packing.py).

        of: the row of the prompt of each answer; None: B = prompts x G, prompt-major.
        """
        ids, mask, rows = completions.ids, completions.mask, len(inputs["input_ids"])
        of = [n * rows // len(ids) for n in range(len(ids))] if of is None else of
        return pack(inputs, *self.positions(inputs), ids, mask, self.tokenizer.pad_token_id, of)

    def log_probs(
        self,
        inputs,
        completions: Completions,
        temperature: float = 1.0,
        model: nn.Module | None = None,
        suppress=True,
        of: Sequence[int] | None = None,
        packed: Packed | None = None,
    ) -> Tensor:
        """log pi(token | prompt, tokens before) float32 [B, L], zero where masked.

        of: as in `packed`, which may be given where the same answers are scored several times.
        """
        ids = completions.ids
        packed = self.packed(inputs, completions, of) if packed is None else packed
        if packed.inputs["attention_mask"] is not None and self.model.config._attn_implementation != "sdpa":
            raise ValueError(f"the tree mask is for sdpa, not for {self.model.config._attn_implementation}")
        with self.autocast():
            out = (model or self.model)(**arguments(packed.inputs), use_cache=False, logits_to_keep=packed.keep)
            logits = out.logits.flatten(0, 1)[packed.come].float()  # [K, V]
        if suppress:
            logits = self.barred(ids, logits)
        logp = torch.log_softmax(logits / max(temperature, 1e-6), dim=-1)
        chosen = logp.gather(1, ids[packed.rows, packed.at][:, None])[:, 0]  # [K]
        return logits.new_zeros(ids.shape).index_put((packed.rows, packed.at), chosen)
