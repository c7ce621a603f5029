#!/usr/bin/env bash
# Package: DVC
# Version: dvc 3.67.1, PyYAML 6.0.3 (reads the parameter in the stage)
# Date: 2026-11-28
# Behaviour: the types of parameters do not count. Where params.yaml goes from 1 to 1.0, or to true, `dvc status` says
#   that all is up to date, `dvc repro` runs nothing, and `dvc exp run -S limit=1.0` makes an experiment that is shown
#   with 1.0 and holds the results of 1. To many programs the two are far apart: Lightning's limit_train_batches,
#   scikit-learn's max_features and others take 1 for one item and 1.0 for all of them. The comparison with dvc.lock is
#   Python's 1 == 1.0 == True. (By the same comparison a parameter of .nan has changed each time it is looked at.)
# Around it: `dvc repro --force`; in one's own program a share that is named as one (share: 100%, or a key of its own).
# Output seen:
#   limit 1, out.txt: int 1
#   limit 1.0: Data and pipelines are up to date.
#   limit true: Data and pipelines are up to date.
#   experiment with limit=1.0: params.yaml limit: 1.0, out.txt: int 1
#   limit 1.0, forced: float 1.0
#   limit .nan, just run: modified: limit
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
    limit = yaml.safe_load(file)["limit"]
with open("out.txt", "w") as file:
    file.write(f"{type(limit).__name__} {limit}")
PY
cat >dvc.yaml <<'YAML'
stages:
  train:
    cmd: python train.py
    deps: [train.py]
    params: [limit]
    outs: [out.txt]
YAML
echo 'limit: 1' >params.yaml
dvc repro --quiet
git add --all
git commit --quiet --message start
first=$(cat out.txt)
echo "limit 1, out.txt: $first"
echo 'limit: 1.0' >params.yaml
share=$(dvc status)
echo "limit 1.0: $share"
echo 'limit: true' >params.yaml
truth=$(dvc status)
echo "limit true: $truth"
git checkout --quiet params.yaml
dvc exp run --quiet --set-param limit=1.0
experiment="params.yaml $(cat params.yaml), out.txt: $(cat out.txt)"
echo "experiment with limit=1.0: $experiment"
dvc repro --quiet --force
forced=$(cat out.txt)
echo "limit 1.0, forced: $forced"
echo 'limit: .nan' >params.yaml
dvc repro --quiet
nan=$(dvc status | grep modified | xargs)
echo "limit .nan, just run: $nan"
same='Data and pipelines are up to date.'
[ "$first" = 'int 1' ] && [ "$share" = "$same" ] && [ "$truth" = "$same" ] &&
    [ "$experiment" = 'params.yaml limit: 1.0, out.txt: int 1' ] && [ "$forced" = 'float 1.0' ] &&
    [ "$nan" = 'modified: limit' ]
