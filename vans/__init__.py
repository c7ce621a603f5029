"""Video-as-Answer: from an input video and a question to the video of the next event, with Joint-GRPO."""

__version__ = "0.1.0"
