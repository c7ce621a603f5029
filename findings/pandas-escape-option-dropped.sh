#!/usr/bin/env bash
# Package: pandas (Styler)
# Version: pandas 3.1.1, Jinja2 3.1.6
# Date: 2026-11-28
# Behaviour: of two options of one kind, styler.format.precision still counts after a later call of .format() that
#   does not name it, but styler.format.escape is switched off by it: .format(na_rep="-") on a table of captions lets
#   their markup into the page raw, with the option still set. Row labels are not escaped by the option at all.
#   (DataFrame.to_html, of the same package, escapes everything unless told not to.)
# Around it: .format(..., escape="html") in each call, .format_index(escape="html").
# Output seen:
#   option alone:         cells escaped True, labels escaped False, digits 1.2
#   and .format(na_rep):  cells escaped False, labels escaped False, digits 1.2
#   DataFrame.to_html:    cells escaped True, labels escaped True, digits 1.23456
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pandas==3.1.1 Jinja2==3.1.6
cd "$work"
venv/bin/python - <<'PY'
import re
import sys

import pandas as pd

table = pd.DataFrame({"caption": ["<b>stir</b>"], "score": [1.23456]}, index=["<i>clip</i>"])


def look(name, html):
    escaped = "<b>stir" not in html, "<i>clip" not in html
    digits = re.search(r"1\.2\d*", html)[0]
    print(f"{name:21} cells escaped {escaped[0]}, labels escaped {escaped[1]}, digits {digits}")
    return *escaped, digits


with pd.option_context("styler.format.escape", "html", "styler.format.precision", 1):
    alone = look("option alone:", table.style.to_html())
    formatted = look("and .format(na_rep):", table.style.format(na_rep="-").to_html())
whole = look("DataFrame.to_html:", table.to_html())
as_described = alone == (True, False, "1.2") and formatted == (False, False, "1.2") and whole[:2] == (True, True)
sys.exit(0 if as_described else 1)
PY
