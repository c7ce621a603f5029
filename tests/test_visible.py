"""A text with markup, formulas, control characters and signs of direction, through every place where one is shown."""

import io
import re
import sys
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from tests.test_seeds import made_up
from tests.test_show import CLIP, FakeTriplets, _group, _oracle_frame, scored  # noqa: F401
from vans import notebooks, spreadsheet, visible
from vans.cli import guarded
from vans.errors import UserError
from vans.params.rewards import Rewards
from vans.score.bootstrap import Interval
from vans.show import arms, curation, curves, groups, oracle, page, seeds, sheets, style, teaser, videos
from vans.show import tables as drawn
from vans.tables import compare, markdown, report, seeds_markdown, tables, terms
from vans.tables.seeds_table import build as build_seeds
from vans.tables.terms import Gain

TEXT = "<b id=x>&lt; $\\frac$ `c` | [a](x:y) \\|\n\n# h\x9b\x1b[2J\u202e\u2066z"
UNSEEN = "\x9b\x1b\u202e\u2066"


class Hostile(FakeTriplets):
    def row(self, name: str) -> dict:
        fields = ("question", "caption", "reasoning", "topic", "recipe_type", "condition", "kind")
        return {**super().row(name), **dict.fromkeys(fields, TEXT)}


def shown(text: str) -> bool:
    """Is TEXT in a page as words?"""
    return "<b id=x>" not in text and "&lt;b id=x&gt;" in text and not set(UNSEEN) & set(text)


def test_every_cell_list_and_gallery_of_a_notebook():
    frame = pd.DataFrame({TEXT: [TEXT, None]}, index=[TEXT, "b"]).rename_axis(index=TEXT, columns=TEXT)
    pages = [
        page.table(frame),
        page.bullets([TEXT]),
        videos.gallery([{TEXT: TEXT}], 3.0),
        videos.answers(Hostile(), ["a"], {TEXT: ([TEXT], CLIP[None])}, 3.0),
    ]
    for one in pages:
        assert shown(one._repr_html_()) and "tex2jax_ignore" in one.text
    drops = pd.DataFrame({"level": ["video"], "name": [TEXT], "reason": [TEXT]})
    several = pd.DataFrame({"split": ["train"], "kind": [TEXT], "question": [TEXT], "rl": [True], "k": [TEXT]})
    for plain in (frame, curation.reasons(drops), curation.variety(several), curation.shares(several, "k")):
        text = plain._repr_html_()
        assert "<b id=x>" not in text and "&lt;b id=x&gt;" in text and "tex2jax_ignore" in text
    styled = pd.DataFrame({"caption": [TEXT]}).style.to_html()
    assert "<b id=x>" not in styled and "&lt;b id=x&gt;" in styled and "tex2jax_ignore" in styled


def test_every_picture(scored):  # noqa: F811
    table = tables.build(f"{scored}/scores", tables.MAIN)
    history = pd.DataFrame({"step": range(4), TEXT: range(4)})
    gain = Gain(TEXT, TEXT, "b", None, Interval(1, 0, 2, 3), None, None)
    figures = [
        curves.bars({TEXT: 1}, TEXT, TEXT),
        curves.histogram({TEXT: [1, 2], "$\\q$": [2, 3]}, TEXT, TEXT),
        curves.curves(history, {TEXT: TEXT}, title=TEXT),
        oracle.blame_bars({TEXT: _oracle_frame()}),
        oracle.confusion({TEXT: _oracle_frame()}),
        sheets.triplets_sheet(Hostile(), ["a"]),
        sheets.answers_sheet(Hostile(), ["a"], {TEXT: ([TEXT], CLIP[None])}),
        teaser.teaser(CLIP, [teaser.Answer(TEXT, TEXT, CLIP)]),
        groups.rollout_group(_group(question=TEXT, truth=TEXT, answers=[TEXT] * 3, name=TEXT, notes=[TEXT]), TEXT),
        groups.rollout_group(_group(terms={TEXT: [1, 0, 1]}, clips=np.stack([CLIP] * 3), answers=[TEXT] * 3)),
        drawn.figure(replace(table, frame=table.frame.assign(title=TEXT))),
        drawn.differences(replace(table, orders=[replace(order, claim=TEXT) for order in table.orders])),
        drawn.gains([gain]),
    ]
    for figure in figures:
        assert style.png(figure, scale=0.3)
        texts = [text for text in figure.findobj(Text) if "id=x" in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts)
    assert arms.TITLES[TEXT] == TEXT


def inert(text: str) -> bool:
    """No tag, formula, code, link or heading has come of TEXT in Markdown."""
    found = [line for line in text.splitlines() if "id=x" in line]
    alive = re.compile(r"<b|&lt;b id=x>&lt;|(?<!\\)[`$]|(?<!\\)\]\(")
    heading = any(line.startswith("# h") for line in text.splitlines())
    return bool(found) and not any(map(alive.search, found)) and not heading and not set(UNSEEN) & set(text)


def test_every_markdown_table(scored, tmp_path, monkeypatch):  # noqa: F811
    table = tables.build(f"{scored}/scores", tables.MAIN)
    odd = {arm: replace(some, summary={**some.summary}) for arm, some in table.scores.items()}
    for arm, some in odd.items():
        some.summary["protocol"] = {"fvd": f"detector: {TEXT}, {arm}", TEXT: TEXT}
        some.summary["warnings"] = [TEXT]
    rows = tuple(replace(row, title=TEXT, note=TEXT) for row in table.layout.rows)
    orders = [replace(order, claim=TEXT) for order in table.orders]
    frame = table.frame.assign(title=TEXT, fvd_detector=f"detector: {TEXT}")
    whole = replace(table, scores={TEXT: odd["sft"], "main": odd["main"]}, frame=frame, orders=orders)
    whole = replace(whole, layout=replace(table.layout, rows=rows))
    gains = [Gain(TEXT, TEXT, "b", None, None, None, None)]
    markdown.write(whole, tmp_path, [terms.markdown(gains, {"b": TEXT})])
    text = (tmp_path / "main.md").read_text(encoding="utf-8")
    assert inert(text) and len([line for line in text.splitlines() if "id=x" in line]) > 20
    for grid in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in grid.splitlines()}) == 1, "no cell more"
    assert inert(report.headline(tmp_path)), "the README's part"
    (tmp_path / "other").mkdir()
    changed = replace(whole, frame=frame.assign(rouge_l=0.0, rouge_l_lo=0.0, rouge_l_hi=0.0))
    markdown.write(changed, tmp_path / "other")
    assert "<b id=x>" in str(compare.compare(tmp_path, tmp_path / "other")), "a terminal shows it as it is"


def test_the_table_over_seeds_and_its_pictures():
    table = build_seeds([made_up(0), made_up(1), made_up(7, seed=1)])
    claims = [replace(claim, order=replace(claim.order, claim=TEXT)) for claim in table.claims]
    odd = replace(table, claims=claims, varied=[TEXT], means={(TEXT, m): table.means["sft", m] for m in table.metrics})
    text = seeds_markdown.markdown({"all": odd})
    assert inert(text) and len([line for line in text.splitlines() if "id=x" in line]) > 3
    for figure in (seeds.arms(odd), seeds.claims(odd)):
        assert style.png(figure, scale=0.3)
        texts = [text for text in figure.findobj(Text) if "id=x" in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts)


def test_executed_notebooks_show_and_run_nothing(tmp_path):
    mark = "<b id=x>\x9b\u202e</b>"
    out = [
        nbformat.v4.new_output("stream", text=mark),
        nbformat.v4.new_output("display_data", {"text/plain": mark}),
        nbformat.v4.new_output("display_data", {"text/markdown": f"- {mark} `{mark}` [a](javascript:1)\n\n{mark}"}),
        nbformat.v4.new_output("display_data", {"text/markdown": f"{mark}\n\n&lt;b> **bold**"}),
        nbformat.v4.new_output("display_data", {"text/html": page.bullets([mark]).text}),
        nbformat.v4.new_output("error", ename="E", evalue=mark, traceback=[mark]),
    ]
    cells = [nbformat.v4.new_code_cell(f"# {mark}", outputs=out), nbformat.v4.new_markdown_cell(f"{mark} $x<b$")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    notebooks.write_html(tmp_path / "a.ipynb")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<b id" not in text and text.count("id=x") >= 8 and "javascript:1" not in text
    assert not set(UNSEEN) & set(text) and "<strong>bold</strong>" in text and "<p>&lt;b&gt; <strong>" in text


def test_what_a_terminal_would_obey_is_shown(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def command() -> None:
        print(f"caption: {TEXT} \x1b[31mred\x1b[0m\rbar\ttab äöü אב")
        raise UserError(f"a{UNSEEN}.csv: no")

    assert guarded(command) == 1
    assert out.getvalue().endswith("# h\\x9b\\x1b[2J\\u202e\\u2066z \x1b[31mred\x1b[0m\rbar\ttab äöü אב\n")
    assert err.getvalue() == "vans: a\\x9b\\x1b\\u202e\\u2066.csv: no\n"
    assert visible.words("a\r\n\x1b[31mb\ud800") == "a \\x1b[31mb\\ud800"


# ---------------------------------------------------------------- spreadsheets
CELLS = ["=1+1", "'=x", "''=x", "@sum", "-2", "+a", "\tx", "\rx", "\nx", "＝x", "it's", "'a", "a\rb", "NA", "007", ""]


def test_no_cell_is_a_formula_and_every_text_comes_back(tmp_path):
    frame = pd.DataFrame({"=name": CELLS, "n": np.linspace(-1, 1, len(CELLS))})
    (tmp_path / "a.csv").write_text(spreadsheet.write(frame), encoding="utf-8", newline="")
    raw = pd.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False)
    assert not any(text[:1] and text[0] in "=+-@\t\r\n＝" for text in [*raw.columns, *raw["'=name"]])
    again = spreadsheet.read(tmp_path / "a.csv", ["'=name"])
    assert list(again) == list(frame) and list(again["=name"]) == CELLS and np.allclose(again["n"], frame["n"])
    plain = pd.DataFrame({"a": ["x", "it's"], "n": [1.5, None]})
    assert spreadsheet.write(plain) == plain.to_csv(index=False, lineterminator="\n")


@pytest.mark.parametrize("name", ["=x:f", "-a/judge.sh", "+a/judge.sh", "@a/judge.sh"])
def test_no_column_of_a_history_is_a_formula(name):
    """A history's columns are the names of reward terms, its cells numbers."""
    with pytest.raises(ValueError, match="unknown term"):
        Rewards.model_validate({"stage1": {"full": {name: 1.0}}, "stage2": {}, "all_in_one": {}})
