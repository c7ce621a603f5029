#!/usr/bin/env bash
# Package: jsonschema and rfc3987-syntax, under nbformat and so under papermill, nbclient and nbconvert
# Version: nbformat 5.11.1, jsonschema 4.26.0, rfc3987-syntax 1.1.0, lark 1.3.1, jupyter-events 0.12.1
# Date: 2026-11-29
# Behaviour: where JupyterLab is installed, `import nbformat` takes about ten times the processor time that it takes
#   without, and so does every papermill run. jupyter-events asks for jsonschema[format-nongpl], which installs
#   rfc3987-syntax; jsonschema imports that wherever it is, for the format "iri" alone; and it compiles its Earley
#   grammar with lark while it is imported, each time, without a cache. nbformat's schemas have no IRI.
# Around it: sys.modules["rfc3987_syntax"] = None before the import in a program that checks no IRI; one long-lived
#   process (or one that forks) in the place of many short ones.
# Output seen (processor seconds, best of three starts):
#   import nbformat, alone: 0.13
#   import nbformat, where jupyter-events is installed: 1.58
#   the same with rfc3987_syntax taken out: 0.18
#   an IRI is checked only with it: True False
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME="$work"
for env in alone lab; do
    python3 -m venv "$work/$env"
    "$work/$env/bin/pip" install --quiet nbformat==5.11.1 jsonschema==4.26.0
done
"$work/lab/bin/pip" install --quiet jupyter-events==0.12.1 rfc3987-syntax==1.1.0 lark==1.3.1
seconds() { # the best of three: what else the machine does counts little in processor time
    for _ in 1 2 3; do
        "$work/$1/bin/python" -c "
import sys, time
$2
import nbformat
print(round(time.process_time(), 2))"
    done | sort -n | head -1
}
without='sys.modules["rfc3987_syntax"] = None'
alone=$(seconds alone "")
lab=$(seconds lab "")
out=$(seconds lab "$without")
echo "import nbformat, alone: $alone"
echo "import nbformat, where jupyter-events is installed: $lab"
echo "the same with rfc3987_syntax taken out: $out"
knows() {
    "$work/lab/bin/python" -c "
import sys
$1
import jsonschema
print('iri' in jsonschema.FormatChecker.checkers)"
}
known="$(knows "") $(knows "$without")"
echo "an IRI is checked only with it: $known"
python3 -c "
alone, lab, out = $alone, $lab, $out
assert lab > 3 * alone and lab > 3 * out, (alone, lab, out)"
[ "$known" = 'True False' ]
