"""Blind human evaluation: people compare answers without knowing whose they are, and what their votes say."""
