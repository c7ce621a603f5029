#!/usr/bin/env bash
# Package: DVC and PyYAML, where they meet
# Version: dvc 3.67.1, PyYAML 6.0.3
# Date: 2026-11-28
# Behaviour: `dvc exp run -S lr=5.0e-5` writes the value into params.yaml as 5e-05, a number to DVC (YAML 1.2) but
#   text to PyYAML's safe_load (YAML 1.1 asks for a dot), with which a stage usually reads its parameters. The same
#   5.0e-5 typed into the file by hand is a number to both. So a setting that works by hand fails, or is compared and
#   printed as text, as soon as it comes from a sweep, and only for values below 0.0001 of one digit (1.5e-05 has its
#   dot).
# Output seen:
#   by hand:  lr: 5.0e-5 -> float
#   by DVC:   lr: 5e-05 -> str
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet dvc==3.67.1 PyYAML==6.0.3
mkdir "$work/home" "$work/repo"
export HOME="$work/home" PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$work/site"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
cd "$work/repo"
git init --quiet .
dvc init --quiet
cat >train.py <<'PY'
import yaml

with open("params.yaml") as file:
    text = file.read()
with open("seen.txt", "w") as file:
    file.write(f"{text.strip()} -> {type(yaml.safe_load(text)['lr']).__name__}")
PY
cat >dvc.yaml <<'YAML'
stages:
  train:
    cmd: python train.py
    params: [lr]
    outs:
      - seen.txt: {cache: false}
YAML
echo 'lr: 5.0e-5' >params.yaml
git add --all
git commit --quiet --message start
python train.py
by_hand=$(cat seen.txt)
echo "by hand:  $by_hand"
sed -i 's/5.0e-5/0.001/' params.yaml
dvc exp run --quiet --set-param lr=5.0e-5
by_dvc=$(cat seen.txt)
echo "by DVC:   $by_dvc"
[ "$by_hand" = 'lr: 5.0e-5 -> float' ] && [ "$by_dvc" = 'lr: 5e-05 -> str' ]
