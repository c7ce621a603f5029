"""One look for all pictures: palette, type sizes, a canvas measured in pixels, and how figures are saved."""

import base64
import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from vans.files import atomic_write_bytes

DPI = 100  # figures are laid out so that one unit is one pixel
MARGIN = 8  # pixels around a canvas
INK, MUTED, FAINT, LINE, WASH = "#1f2933", "#66717f", "#98a2ae", "#dde2e7", "#f5f7f9"
BLUE, ORANGE, GREEN, PURPLE, TEAL, RED = "#3b76af", "#e8833a", "#4f9d69", "#8a6bbf", "#3a9da6", "#c8504b"

ARM_COLOURS = {
    "copy": FAINT,
    "sft": "#8fb0cf",
    "stage1": BLUE,
    "main": ORANGE,
    "ceiling": "#b9c7b0",
    "ceiling_main": "#9db38f",
}
TERM_COLOURS = {
    "format": PURPLE,
    "t1": BLUE,
    "v1": GREEN,
    "v2": GREEN,
    "c2": TEAL,
    "reward": INK,
    "total": INK,
}
FONT = {"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "svg.hashsalt": "vans"}
FONT |= {"text.parse_math": False}  # a dollar sign in a caption, a topic or a file name is a dollar sign
AXES = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
THEME: Any = FONT | AXES
GLYPH = 0.54  # mean width of a letter, in font sizes


class Picture(Figure):
    """A figure that is tied to no window and shows itself in notebooks, whatever backend is set there."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        width, height = (round(side * DPI) for side in self.get_size_inches())
        data = base64.b64encode(png(self, scale=1.5)).decode()
        return {"image/png": data, "text/plain": repr(self)}, {"image/png": {"width": width, "height": height}}


def new_figure(width: float, height: float) -> Picture:
    """An empty white figure of width x height pixels."""
    with matplotlib.rc_context(THEME):
        figure = Picture(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, scale: float = 2.0) -> bytes:
    """The figure as PNG, ``scale`` times its size in pixels, without dates or version names in it."""
    file = io.BytesIO()
    with matplotlib.rc_context(THEME):
        figure.savefig(file, format="png", dpi=DPI * scale, metadata={"Software": None})
    return file.getvalue()


def save(figure: Figure, path: str | Path, scale: float = 2.0, colours: int = 256) -> None:
    """Write the figure as a PNG of at most ``colours`` colours (a third of the bytes), whole or not at all."""
    picture = Image.open(io.BytesIO(png(figure, scale))).convert("RGB")
    few = picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    few.save(file, format="PNG", optimize=True)
    atomic_write_bytes(path, file.getvalue())


class Canvas:
    """A page in pixels, the origin at the upper left, on which pictures, words and bars are put."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = new_figure(width + 2 * MARGIN, height + 2 * MARGIN)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(-MARGIN, width + MARGIN), ylim=(height + MARGIN, -MARGIN))
        self.axes.axis("off")

    def image(self, pixels: np.ndarray, x: float, y: float, width: float, height: float) -> None:
        """uint8 [H, W, 3], enlarged without smoothing."""
        extent = (x, x + width, y + height, y)
        self.axes.imshow(pixels, extent=extent, interpolation="nearest", aspect="auto", zorder=2)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 12,
        colour: str = INK,
        bold: bool = False,
        width: float | None = None,
        lines: int = 4,
        align: str = "left",
    ) -> float:
        """Words with their upper edge at y, font size in pixels; wrapped to ``width``; returns the lower
        edge."""
        wrapped = wrap(words, size, width, lines) if width else [words]
        for number, line in enumerate(wrapped):
            self.axes.text(
                x,
                y + size + number * 1.35 * size,
                line,
                fontsize=size * 72 / DPI,
                fontfamily="DejaVu Sans",
                color=colour,
                weight="bold" if bold else "normal",
                ha=align,
                va="baseline",
                parse_math=False,  # the canvas may be drawn on outside of THEME
                zorder=4,
            )
        return y + len(wrapped) * 1.35 * size

    def box(self, x: float, y: float, width: float, height: float, colour: str, radius: float = 0) -> None:
        """A filled rectangle."""
        style = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
        patch = FancyBboxPatch((x, y), width, height, style, facecolor=colour, edgecolor="none", zorder=1)
        self.axes.add_patch(patch)

    def rule(self, y: float, x: float = 0, width: float | None = None, colour: str = LINE) -> None:
        """A thin horizontal line."""
        end = self.width if width is None else x + width
        self.axes.plot([x, end], [y, y], color=colour, linewidth=0.8, zorder=1, solid_capstyle="butt")


def wrap(words: str, size: float, width: float, lines: int) -> list[str]:
    """Break words into at most ``lines`` lines of about ``width`` pixels; what does not fit ends in an
    ellipsis."""
    found = textwrap.wrap(" ".join(words.split()), max(8, int(width / (GLYPH * size)))) or [""]
    if len(found) > lines:
        found = [*found[: lines - 1], f"{found[lines - 1].rstrip(' .')} …"]
    return found
