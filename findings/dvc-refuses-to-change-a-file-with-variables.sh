#!/usr/bin/env bash
# Package: DVC
# Version: dvc 3.67.1
# Date: 2026-11-29
# Behaviour: a dvc.yaml with a variable anywhere (`cmd: echo ${scale}`), which DVC runs as it should, can be changed
#   neither by `dvc exp run -S dvc.yaml:key=value` nor by `dvc freeze`. The first resolves the whole file by omegaconf,
#   which does not know DVC's variables ("Interpolation key 'scale' not found"), although the key that is set holds none;
#   the second says "cannot dump a parametrized stage". So no experiment can be queued with a stage frozen.
# Around it: write `frozen: true` into the file by an editor, queue, and take it out again.
# Output seen:
#   with a variable, set: ERROR: unexpected error - Interpolation key 'scale' not found
#   with a variable, freeze: ERROR: failed to freeze 'one' - cannot dump a parametrized stage: 'one'
#   without one: Queued
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet dvc==3.67.1
mkdir "$work/home" "$work/repo"
export HOME="$work/home" PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$work/site"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
cd "$work/repo"
git init --quiet .
dvc init --quiet
echo 'scale: small' >params.yaml
cat >dvc.yaml <<'YAML'
stages:
  one:
    cmd: echo ${scale} > one.txt
    outs: [one.txt]
  two:
    cmd: echo 2 > two.txt
    outs: [two.txt]
YAML
dvc repro --quiet
git add --all
git commit --quiet --message start
[ "$(cat one.txt)" = small ]
override='dvc.yaml:+stages.two.frozen=true'
set_it=$(dvc exp run --queue --set-param "$override" 2>&1 | grep -o "ERROR: unexpected error - Interpolation key .scale. not found" || true)
echo "with a variable, set: $set_it"
freeze=$(dvc freeze one 2>&1 | grep ERROR || true)
echo "with a variable, freeze: $freeze"
git checkout --quiet .
sed -i 's/\${scale}/small/' dvc.yaml
git commit --quiet --all --message "no variable"
without=$(dvc exp run --queue --set-param "$override" 2>&1 | grep -o "Queued" || true)
echo "without one: $without"
[ "$set_it" = "ERROR: unexpected error - Interpolation key 'scale' not found" ] &&
    [ "$freeze" = "ERROR: failed to freeze 'one' - cannot dump a parametrized stage: 'one'" ] && [ "$without" = Queued ]
