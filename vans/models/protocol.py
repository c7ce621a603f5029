"""How an answer is made: as here, or as the method's release makes it. All that differs between the two stands here.

`protocol_of(params)` gives the values that apply, each used at one place:

| difference | used by |
|---|---|
| references | `VDM.pick_references` |
| frames, pixels | `VLM.inputs`, `vans.answer.watch` |
| seconds | `VLM.inputs` |
| system | `VLM.prompt` |
| negative_prompt | `VDM.negative_prompt` |
| decoding | `Protocol.drawing`, for answers (also stage 2's anchors) |
| whole_text | `Protocol.caption` |
| cleaning of captions | no field: both clean as diffusers' pipeline (`VDM.embed`) |
| spaces | `vans.template.answer_text`, for what SFT teaches |
| half | `VDM.lowered`, for answers |
| tile | `VDM.lowered`, for answers |
| one_seed | `vans.answer.draw.render` |

Read from the release's repository (revision 4a931a8). Its texts stay there: its prompts are read from your copy of it.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vans.errors import UserError
from vans.files import check_readable
from vans.template import parse_answer

# Where its two prompts stand, each the one text that this name is given in this file.
PROMPTS = {"system_prompt": "vans/models_mllm/agent_mllm.py", "negative_prompt": "inference.py"}
ANSWER = re.compile(r"\[Ans\](.*?)\[/Ans\]", re.DOTALL)


@dataclass(frozen=True)
class Protocol:
    """The twelve differences; the values are ours."""

    system: str = ""  # models.vlm.system
    negative_prompt: str = ""  # models.vdm.negative_prompt
    references: str = "nearest"  # the n evenly spread places among the latents: rounded to the nearest, or "down"
    frames: int | None = None  # pictures that the VLM sees, both ends included; None: all of the clip
    pixels: int | None = None  # of a picture at most, in the video's own shape; None: as the clip is
    seconds: float | None = None  # of a step of the VLM's temporal grid; None: the true ones
    decoding: dict[str, Any] | None = None  # None: as the section `generate` says
    whole_text: bool = False  # is an answer without [Ans] a caption as a whole?
    spaces: bool = True  # around the tags of an answer to learn from
    half: bool = False  # weights, latents and time step in bfloat16
    tile: tuple[int, int] | None = None  # latents of a tile of the VAE (stride: half of it), in bfloat16; None: whole
    one_seed: bool = False  # the same noise for the video of every sample

    def drawing(self, generate: Any) -> dict[str, Any]:
        """How an answer is drawn: arguments of `VLM.sample`. generate: the section of the parameters."""
        g = generate
        own = {"max_new_tokens": g.max_new_tokens, "temperature": g.temperature, "top_p": g.top_p}
        return own if self.decoding is None else self.decoding

    def caption(self, text: str) -> str | None:
        """The caption that an answer is taken to say; None: none."""
        if not self.whole_text:
            return parse_answer(text)[1]
        found = ANSWER.search(text)
        return found[1].strip() if found else text


RELEASE = Protocol(
    references="down",
    frames=6,
    pixels=768 * 28**2,
    seconds=1.0,
    decoding={"max_new_tokens": 1024, "temperature": 0.7, "top_p": 0.9, "hub_defaults": True},
    whole_text=True,
    spaces=False,
    half=True,
    tile=(30, 52),
    one_seed=True,
)


def protocol_of(params: Any) -> Protocol:
    """The values of `models.protocol`; a number in models.vlm.frames counts in either.

    UserError if the release's prompts cannot be read (`models.prompts`).
    """
    if params.models.protocol == "release":
        system, negative = prompts(params.models.prompts)
        found = replace(RELEASE, system=system, negative_prompt=negative)
    else:
        found = Protocol(params.models.vlm.system, params.models.vdm.negative_prompt)
    frames = params.models.vlm.frames
    return found if frames is None else replace(found, frames=frames)


def prompts(source: str | Path) -> tuple[str, str]:
    """The release's system and negative prompt: from a checkout of its repository, of which nothing is run, or from a
    JSON file {"system_prompt": ..., "negative_prompt": ...}. UserError in one line.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        texts = {name: _given(path / file, name) for name, file in PROMPTS.items()}
    else:
        try:
            tree = json.loads(_read(path))
        except ValueError as error:
            raise UserError(f"{path}: models.prompts: no JSON ({error}); name a checkout of the release") from error
        texts = {name: {tree.get(name)} if isinstance(tree, dict) else set() for name in PROMPTS}
    for name, found in texts.items():
        if len(found) != 1 or not all(isinstance(text, str) and text for text in found):
            raise UserError(f"{path}: models.prompts: holds not one text {name}, but {len(found)}; get it anew")
    (system,), (negative,) = texts.values()
    return system, negative


def _given(path: Path, name: str) -> set[Any]:
    """The texts that a Python file gives a name: as default of an argument, in a call, or by assignment."""
    try:
        tree = ast.parse(_read(path))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: models.prompts: no Python ({error}); get the checkout anew") from error
    given: list[tuple[str | None, Any]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            names = [argument.arg for argument in (*node.posonlyargs, *node.args)]
            given += zip(names[len(names) - len(node.defaults) :], node.defaults, strict=True)
            given += zip((argument.arg for argument in node.kwonlyargs), node.kw_defaults, strict=True)
        elif isinstance(node, ast.keyword):
            given.append((node.arg, node.value))
        elif isinstance(node, ast.Assign):
            given += [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
    values = [value.value for own, value in given if own == name and isinstance(value, ast.Constant)]
    return {value for value in values if isinstance(value, str) and value}


def _read(path: Path) -> str:
    if not check_readable(path).exists():
        raise UserError(
            f"{path}: missing; models.prompts must name your copy of the release's repository, whose prompts "
            "models.protocol: release takes"
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: models.prompts: not UTF-8; get it anew") from error
