"""vLLM in the place of our own sampler (`machine.sampler: vllm`), where it is installed; no part of the pinned set.

It gets the prompt's text, the clip's pictures with their rate, and the adapter of the moment as a LoRA of its own
(merged into bfloat16 weights, what a young adapter adds would be rounded away). It gives back token ids and the
log-probability that it drew each with; stage 1 logs by how much ours differ (`sampler_gap`), and the first answers are
checked here, since positions and pictures are made by its own code. It takes random numbers of its own, so that its
answers are others than ours.

Written by vLLM's documentation (0.11 to 0.18) and tested against a stand-in of its interface; never run with vLLM.
Not by it: answers within the template and those with a model's own decoding defaults, which our sampler draws.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.distributed as dist
from peft import PeftModel
from torch import Tensor

from vans.errors import UserError
from vans.models.whole import CONFIG
from vans.rng import seed_of

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters that vLLM has room for
NEVER = -100.0  # added to the logit of a token that may not be drawn; the most that vLLM takes
TEXT = 1024  # tokens by which a prompt may be longer than the first one
MOST = 0.1  # mean difference of a token's log-probability from which the two do not read the same prompt


def check_installed() -> None:
    """UserError where vLLM cannot be used."""
    if find_spec("vllm") is None:
        raise UserError(
            "machine.sampler is vllm, which is not installed here; pip install vllm (into an environment of its own "
            "torch, on a CUDA GPU), or write machine.sampler: vans"
        )


class Engine:
    """vLLM of one process, started with the first answers; between calls it gives the GPU's memory back.

    source, revision: of the base model. memory: share of the GPU's that it may take. most: answers at once.
    """

    def __init__(self, source: str | Path, revision: str | None, memory: float, most: int):
        check_installed()
        self.source, self.revision, self.memory, self.most = str(source), revision, memory, most
        self.llm: Any = None
        self.adapters = 0  # handed over so far
        self.checked = False

    def _start(self, policy: Any, length: int) -> None:
        if policy.position_rule != "largest":
            raise UserError("machine.sampler: vllm places text behind a video by models.vlm.positions: largest alone")
        if policy.vision:
            raise UserError(
                "machine.sampler: vllm takes adapters of the language model, and this one has a vision part, too; "
                "write machine.sampler: vans"
            )
        options: dict[str, Any] = {}
        if dist.is_initialized() and dist.get_world_size() > 1:  # an engine in each process, in the group that is there
            options["distributed_executor_backend"] = "external_launcher"
            place = {"RANK": dist.get_rank(), "WORLD_SIZE": dist.get_world_size(), "LOCAL_RANK": policy.device.index}
            os.environ.update({name: str(value or 0) for name, value in place.items()})  # not those of who started it
            os.environ.setdefault("MASTER_ADDR", "localhost")
            os.environ.setdefault("MASTER_PORT", "0")
        else:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process
        if isinstance(policy.model, PeftModel):
            rank = policy.model.peft_config["default"].r
            room = next((room for room in RANKS if room >= rank), rank)
            options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
        self.llm = importlib.import_module("vllm").LLM(
            model=self.source,
            revision=self.revision,
            dtype=str(next(policy.model.parameters()).dtype).removeprefix("torch."),
            seed=0,
            max_model_len=length,
            max_num_seqs=self.most,
            gpu_memory_utilization=self.memory,
            limit_mm_per_prompt={"image": 0, "video": 1},
            generation_config="vllm",  # not the model's own
            logprobs_mode="processed_logprobs",  # of what is drawn from, temperature and all
            enable_sleep_mode=True,
            **options,
        )

    def sample(
        self, policy: Any, inputs: Any, seeds: list[tuple], *, max_new_tokens: int, temperature: float, top_p: float
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Token ids and their log-probabilities of an answer per seed, prompt-major: see `Policy.sample`."""
        if self.llm is None:
            self._start(policy, inputs["input_ids"].shape[1] + TEXT + max_new_tokens)
        else:
            self.llm.wake_up()
        vllm = importlib.import_module("vllm")
        shown, times = inputs["shown"], len(seeds) // len(inputs["shown"])
        requests = [
            {
                "prompt": prompt["text"],
                "multi_modal_data": {"video": prompt["clip"]},
                "mm_processor_kwargs": {"fps": prompt["fps"], "do_sample_frames": False},
            }
            for prompt in shown
            for _ in range(times)
        ]
        barred = dict.fromkeys(policy.special_ids(), NEVER)
        told: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "logprobs": 0}
        told |= {"logit_bias": barred, "stop_token_ids": [policy.tokenizer.eos_token_id], "detokenize": False}
        draws = [vllm.SamplingParams(seed=seed_of(*seed), **told) for seed in seeds]
        with tempfile.TemporaryDirectory() as folder:
            found = self.llm.generate(requests, draws, use_tqdm=False, lora_request=self._adapter(policy, Path(folder)))
        self.llm.sleep(level=1)
        answers = [request.outputs[0] for request in found]
        ids = [list(answer.token_ids) for answer in answers]
        logp = [
            [at[token].logprob for token, at in zip(answer.token_ids, answer.logprobs, strict=True)]
            for answer in answers
        ]
        return ids, logp

    def _adapter(self, policy: Any, folder: Path) -> Any:
        """The adapter as it is now, as vLLM reads one: by the names of its layers, not by a pattern of them."""
        if not isinstance(policy.model, PeftModel):
            return None
        policy.save_lora(folder)
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        layers = sorted(policy.model.targeted_module_names)
        (folder / CONFIG).write_text(json.dumps(settings | {"target_modules": layers}), encoding="utf-8")
        self.adapters += 1
        request = importlib.import_module("vllm.lora.request").LoRARequest
        return request(f"adapter-{self.adapters}", self.adapters, str(folder))

    def check(self, ours: Tensor, theirs: Tensor, mask: Tensor) -> None:
        """UserError where the log-probabilities of its first answers [N, L] are not ours."""
        if self.checked:
            return
        self.checked = True
        gap = (ours - theirs).abs()[mask.bool()]
        mean, most = gap.mean().item(), gap.max().item()
        print(f"vllm: log-probabilities of tokens differ from ours by {mean:.2g} on average, {most:.2g} at most")
        if not mean < MOST:
            raise UserError(
                f"machine.sampler: vllm: its log-probabilities differ from ours by {mean:.2g} on average: this version "
                "reads the video or its times otherwise; use another one, or machine.sampler: vans"
            )
