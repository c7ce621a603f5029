#!/usr/bin/env bash
# Package: rouge-score
# Version: rouge-score 0.1.2
# Date: 2026-11-28
# Behaviour: its tokenizer keeps a-z and 0-9 and makes a gap of everything else, letters and digits of the rest of
#   Unicode too. So signs that carry the meaning are not compared: half a cup is as good as three quarters, minus 18
#   degrees as plus 18, and a caption that says more in another script loses nothing. What is written in another script
#   alone has no words at all: a sentence scored against itself gets 0, as does the best of all models, and the mean
#   over a data set of several languages says how much of it is in Latin letters. No warning at any time.
# Around it: RougeScorer(..., tokenizer=...) with a tokenizer of one's own.
# Output seen (ROUGE-L):
#   1.000  'Add ½ cup of flour' for 'Add ¾ cup of flour'
#   1.000  'Freeze at -18 °C' for 'Freeze at 18 °C'
#   1.000  'Chop the onion' for 'Chop the onion и лук'
#   0.000  '切洋葱' for '切洋葱'
#   0.000  'Нарежьте лук' for 'Нарежьте лук'
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet rouge-score==0.1.2
cd "$work"
PYTHONIOENCODING=utf-8 venv/bin/python - <<'PY'
import sys

from rouge_score.rouge_scorer import RougeScorer

scorer = RougeScorer(["rougeL"])
pairs = {
    ("Add ½ cup of flour", "Add ¾ cup of flour"): 1,
    ("Freeze at -18 °C", "Freeze at 18 °C"): 1,
    ("Chop the onion", "Chop the onion и лук"): 1,
    ("切洋葱", "切洋葱"): 0,
    ("Нарежьте лук", "Нарежьте лук"): 0,
}
as_described = True
for (answer, truth), expected in pairs.items():
    score = scorer.score(truth, answer)["rougeL"].fmeasure
    print(f"{score:.3f}  {answer!r} for {truth!r}")
    as_described &= score == expected
sys.exit(0 if as_described else 1)
PY
