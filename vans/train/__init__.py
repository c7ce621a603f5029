"""Training: base models, SFT, stage 1, stage 2, all in one stage. Each loop is resumable and runs on N processes."""
