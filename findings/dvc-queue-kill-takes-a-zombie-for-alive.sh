#!/usr/bin/env bash
# Package: DVC (dvc-task)
# Version: dvc 3.67.1, dvc-task 0.40.2
# Date: 2026-11-30
# Behaviour: a queued experiment's worker and process are killed (out of memory, kill -9). Where orphans are reaped,
#   `dvc queue kill NAME` finds no process and marks the task Failed. Where they stay zombies, as in a container whose
#   first process waits for nobody (docker run without --init), the signal is taken for delivered: it prints "has been
#   killed" each time, and `dvc queue status` says Running.
# Around it: run the container with --init; or write a returncode into .dvc/tmp/exps/run/REV/REV.json, then `dvc queue kill`.
# Output seen:
#   orphans are reaped: nothing said, then Failed
#   orphans stay zombies: has been killed, then Running;with a returncode in its notes: Failed;
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet dvc==3.67.1 dvc-task==0.40.2 celery==5.7.0
mkdir "$work/home"
export HOME="$work/home" PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$work/site"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
cat >"$work/task.sh" <<'SH'
set -eu
mkdir "$1"
cd "$1"
git init --quiet .
git config user.name a
git config user.email a@example.org
dvc init --quiet
echo 'seed: 0' >params.yaml
printf 'stages:\n  one:\n    cmd: echo $$ > %s && exec sleep 600\n    params: [seed]\n    outs: [one.txt]\n' "$1.pid" >dvc.yaml
git add --all
git commit --quiet --message start
dvc exp run --quiet --queue --set-param seed=1 --name mine
dvc queue start --quiet --jobs 1
until [ -s "$1.pid" ]; do sleep 0.5; done
worker=$(sed -E 's/.*"pid": ([0-9]+).*/\1/' .dvc/tmp/exps/celery/dvc-exp-worker-1.json)
runner=$(sed -E 's/.*"pid": ([0-9]+).*/\1/' .dvc/tmp/exps/run/*/*.json | head -1)
kill -9 "$worker" "$(ps -o ppid= -p "$worker")" "$runner" "$(cat "$1.pid")" 2>/dev/null || true
sleep 3
state() { dvc queue status | grep mine | grep -o -E "Queued|Running|Success|Failed"; }
say() { dvc queue kill mine 2>&1 | grep -o -E "has been killed|ERROR.*" || true; }
said=$(say)
echo "${said:-nothing said}, then $(state)"
if [ "$(state)" = Running ]; then
    for notes in .dvc/tmp/exps/run/*/*.json; do sed -i 's/"returncode": null/"returncode": -1/' "$notes"; done
    say >/dev/null
    echo "with a returncode in its notes: $(state)"
fi
SH
cat >"$work/heir.py" <<'PY'
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become children of this process (PR_SET_CHILD_SUBREAPER) …
command = subprocess.Popen(sys.argv[2:])
if sys.argv[1] == "reaps":
    while os.wait()[0] != command.pid:  # … which waits for them
        pass
else:
    command.wait()  # … or does not
PY
reaped=$(python3 "$work/heir.py" reaps bash "$work/task.sh" "$work/first")
echo "orphans are reaped: $reaped"
zombies=$(python3 "$work/heir.py" does-not bash "$work/task.sh" "$work/second" | tr '\n' ';')
echo "orphans stay zombies: $zombies"
[ "$reaped" = "nothing said, then Failed" ] &&
    [ "$zombies" = "has been killed, then Running;with a returncode in its notes: Failed;" ]
