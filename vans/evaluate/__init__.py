"""Scores from predictions on disk, intervals, tables and comparisons."""
