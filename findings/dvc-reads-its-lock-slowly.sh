#!/usr/bin/env bash
# Package: DVC with ruamel.yaml
# Version: dvc 3.67.1, ruamel.yaml 0.18.16 and 0.19.1, ruamel.yaml.clib 0.2.15
# Date: 2026-11-29
# Behaviour: DVC reads dvc.lock and params.yaml with ruamel.yaml's "safe" loader, which is in C where ruamel.yaml.clib is
#   installed and in pure Python where it is not. ruamel.yaml 0.18 asked for clib by itself; 0.19 does not any more, nor
#   does DVC, so that a new environment reads the same dvc.lock several times slower. Nothing says so. A lock of 300
#   stages is read at every start and once more after each stage that has run.
# Around it: pip install ruamel.yaml.clib (0.19 still takes it, if it is there).
# Output seen (processor seconds to read a dvc.lock of 300 stages as DVC does, best of three):
#   ruamel.yaml 0.18.16: C parser True, 0.11
#   ruamel.yaml 0.19.1: C parser False, 0.69
#   ruamel.yaml 0.19.1 with ruamel.yaml.clib: C parser True, 0.15
#   the same values: True
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME="$work" DVC_NO_ANALYTICS=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet dvc==3.67.1 ruamel.yaml==0.18.16
cat >"$work/read.py" <<'PY'
import hashlib
import json
import time

import ruamel.yaml.main
from dvc.utils.serialize import parse_yaml



def outs(stage):
    return [{"path": f"models/{stage}/{i}", "hash": "md5", "md5": f"{i:032x}", "size": i} for i in range(4)]


stages = {f"train@{i}": {"cmd": f"python train.py {i}", "outs": outs(i)} for i in range(300)}
lock = {"schema": "2.0", "stages": stages}
yaml = ruamel.yaml.YAML()
with open("dvc.lock", "w") as file:
    yaml.dump(lock, file)
text, taken = open("dvc.lock").read(), []
for _ in range(3):
    start = time.process_time()
    found = parse_yaml(text, "dvc.lock")
    taken.append(time.process_time() - start)
value = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
print(ruamel.yaml.main.CParser is not None, round(min(taken), 2), value)
PY
cd "$work"
read -r c18 t18 v18 <<<"$(venv/bin/python read.py)"
echo "ruamel.yaml 0.18.16: C parser $c18, $t18"
venv/bin/pip uninstall --quiet --yes ruamel.yaml ruamel.yaml.clib
venv/bin/pip install --quiet ruamel.yaml==0.19.1
read -r c19 t19 v19 <<<"$(venv/bin/python read.py)"
echo "ruamel.yaml 0.19.1: C parser $c19, $t19"
venv/bin/pip install --quiet ruamel.yaml.clib==0.2.15
read -r c20 t20 v20 <<<"$(venv/bin/python read.py)"
echo "ruamel.yaml 0.19.1 with ruamel.yaml.clib: C parser $c20, $t20"
same=$([ "$v18" = "$v19" ] && [ "$v19" = "$v20" ] && echo True)
echo "the same values: $same"
[ "$c18 $c19 $c20" = "True False True" ] && [ "$same" = True ]
python3 -c "assert $t19 > 3 * max($t18, 0.01) and $t19 > 3 * max($t20, 0.01)"
