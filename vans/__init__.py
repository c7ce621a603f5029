"""Video-as-Answer: from an input video and a question to the video of the next event, with Joint-GRPO."""

import os
import warnings

# Whoever imports vans passes here: commands, kernels of notebooks, worker processes. peft asks transformers' models for
# this old name whenever it puts an adapter on one, and transformers says each time that it is old.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

# What torch's deterministic mode on a GPU needs (vans.devices), read when cuBLAS is first used.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

__version__ = "0.1.0"

from vans import cpu, warm  # noqa: E402

cpu.cap()
warm.as_told()
