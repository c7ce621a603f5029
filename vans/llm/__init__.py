"""Language models behind an OpenAI-compatible endpoint: one client for the annotators and for the reward `judge`.

net.py: which addresses may be sent a key; http.py: one POST with a deadline; client.py: many calls at once, retried,
limited (limits.py) and paid for (cost.py, cache.py); secret.py: no key in anything that comes back; prompts.py and
answers.py: prompt files, and what a model wrote as fields.
"""
