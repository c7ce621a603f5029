"""The mathematics of Joint-GRPO: what both stages share (core), the flow SDE of stage 2, and the rewards."""
