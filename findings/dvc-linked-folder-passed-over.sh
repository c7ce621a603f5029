#!/usr/bin/env bash
# Package: DVC
# Version: dvc 3.67.1
# Date: 2026-11-28
# Behaviour: in a folder given to `dvc add`, a link to a FILE is hashed and kept like a file, but a link to a FOLDER
#   (clips on a larger disk, say) is passed over: none of its files are counted, `dvc status` stays "up to date"
#   whatever happens behind it, and after a checkout elsewhere the clips are not there. No word at any step; the same
#   link given to `dvc add` by itself is refused.
# Output seen:
#   files tracked: 2 of 4
#   one more clip behind the link: Data and pipelines are up to date.
#   after dvc checkout: one.mp4 own.mp4
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet dvc==3.67.1
mkdir "$work/home" "$work/repo" "$work/store" "$work/store/clips"
export HOME="$work/home" PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$work/site"
cd "$work/repo"
git init --quiet .
dvc init --quiet
echo a >../store/clips/a.mp4
echo b >../store/clips/b.mp4
echo one >../store/one.mp4
mkdir data
echo own >data/own.mp4
ln -s ../../store/one.mp4 data/one.mp4
ln -s ../../store/clips data/clips
dvc add --quiet data
tracked=$(sed -n 's/ *nfiles: //p' data.dvc)
echo "files tracked: $tracked of $(find -L data -type f | wc -l)"
echo c >../store/clips/c.mp4
status=$(dvc status)
echo "one more clip behind the link: $status"
rm -r data
dvc checkout --quiet
after=$(ls data | xargs)
echo "after dvc checkout: $after"
[ "$tracked" = 2 ] && [ "$status" = 'Data and pipelines are up to date.' ] && [ "$after" = 'one.mp4 own.mp4' ]
