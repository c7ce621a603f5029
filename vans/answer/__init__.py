"""Answers: captions and videos of an arm on held-out samples, or of one question about one video."""
