#!/usr/bin/env bash
# Package: DVC
# Version: dvc 3.67.1, celery 5.7.0
# Date: 2026-11-30
# Behaviour: `dvc queue stop` typed right after `dvc queue start` has returned stops nothing. It reports the workers of
#   which it knows, none, with exit code 0; the workers are there but do not listen yet (they are still importing), and
#   celery's broadcast leaves no message for later. They then run every task in the queue.
# Around it: send the workers (pids in .dvc/tmp/exps/celery/dvc-exp-worker-*.json) SIGTERM, which ends one that begins.
# Output seen:
#   stopped at once: exit code 0; a while later Success Success
#   stopped by SIGTERM at once: a while later Queued Queued
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet dvc==3.67.1 dvc-task==0.40.2 celery==5.7.0
mkdir "$work/home"
export HOME="$work/home" PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$work/site"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
repository() {
    mkdir "$work/$1"
    cd "$work/$1"
    git init --quiet .
    git config user.name a
    git config user.email a@example.org
    dvc init --quiet
    echo 'seed: 0' >params.yaml
    printf 'stages:\n  one:\n    cmd: echo 1 > one.txt\n    params: [seed]\n    outs: [one.txt]\n' >dvc.yaml
    git add --all
    git commit --quiet --message start
    dvc exp run --quiet --queue --set-param 'seed=range(1,3)'
}
states() { # of both tasks, once nobody works any more and long enough after
    sleep 45
    dvc queue status 2>/dev/null | grep -o -E "Queued|Running|Success|Failed" | tr '\n' ' ' | sed 's/ $//'
}
repository first
dvc queue start --quiet --jobs 2
code=0
dvc queue stop --quiet || code=$?
stopped=$(states)
echo "stopped at once: exit code $code; a while later $stopped"
repository second
dvc queue start --quiet --jobs 2
sed -E 's/.*"pid": ([0-9]+).*/\1\n/' .dvc/tmp/exps/celery/dvc-exp-worker-*.json | xargs kill
told=$(states)
echo "stopped by SIGTERM at once: a while later $told"
[ "$code" = 0 ] && [ "$stopped" = "Success Success" ] && [ "$told" = "Queued Queued" ]
