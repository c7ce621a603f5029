"""Words for notebooks as HTML: everything in them is escaped, so that a caption, a question or a file name with markup
is shown and never run. (A pandas Styler escapes nothing by itself, Markdown takes HTML for HTML.)
"""

import html
from collections.abc import Iterable

import pandas as pd

from vans.visible import visible


class Page:
    """A piece of HTML that notebooks show; dollars in it are no formulas."""

    def __init__(self, text: str) -> None:
        self.text = f'<div class="tex2jax_ignore">{visible(text)}</div>'

    def _repr_html_(self) -> str:
        return self.text


def table(frame: pd.DataFrame, digits: int = 3, index: bool = True) -> Page:
    """A table of words and numbers, with ``digits`` after the point; a dash where there is nothing."""
    with pd.option_context("display.max_colwidth", None):
        return Page(frame.to_html(index=index, na_rep="—", float_format=f"{{:.{digits}f}}".format, border=0))


def bullets(lines: Iterable[str]) -> Page:
    """A list."""
    return Page("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>")
