"""Metrics of answers on disk, with intervals."""
