"""Word-level tokenizers for models trained from scratch; the paper's scale loads the real ones instead."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TAGS = ("[Think]", "[/Think]", "[Ans]", "[/Ans]")
PUNCTUATION = (".", ",", "?", ":", "'")
QWEN_SPECIALS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def _words(vocabulary: list[str], specials: list[str], fixed: list[str], eos: str | None) -> Tokenizer:
    """Split at white space, tags and punctuation; unknown words become <unk>."""
    words = specials + fixed + [w for w in sorted(set(vocabulary)) if w not in specials and w not in fixed]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"\[/?(?:Think|Ans)\]|[.,?:']"), behavior="isolated"),
        ]
    )
    if eos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {eos}", special_tokens=[(eos, words.index(eos))]
        )
    return tokenizer


def chat_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """For the VLM: Qwen's special tokens, the answer's tags and the words of `vocabulary`; pads on the left."""
    specials = ["<|endoftext|>", "<unk>", *QWEN_SPECIALS]
    fixed = [*TAGS, *PUNCTUATION, "system", "user", "assistant"]
    return PreTrainedTokenizerFast(
        tokenizer_object=_words(vocabulary, specials, fixed, None),
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(QWEN_SPECIALS),
        padding_side="left",
    )


def text_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """For umT5 and CLIP: `words </s>`, pad 0, </s> 1, <unk> 2 (umT5's own order); pads on the right."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_words(vocabulary, ["<pad>", "</s>", "<unk>"], list(PUNCTUATION), "</s>"),
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="</s>",
        padding_side="right",
    )
