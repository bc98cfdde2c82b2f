"""Figures as SVG, in the colours of the page, light or dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK, QUIET, RULE = "#1b1f24", "#5d6672", "#dfe3e8"
PALETTE = {  # role → light and dark colour; light colours are unique, because `themed` replaces them by role
    "ink": (INK, "#e8eaed"),
    "quiet": (QUIET, "#9aa4b1"),
    "rule": (RULE, "#2f353d"),
    "dask": ("#2563c9", "#78a9ff"),
    "spark": ("#d1640a", "#f5a35c"),
    "local": ("#7a5bb8", "#b79cf0"),
    "plain": ("#6f7782", "#a3abb6"),
    "peer": ("#b4bac3", "#58606b"),
    "start-up": ("#c3c9d2", "#4a525d"),
    "listing": ("#8f9aa8", "#7b8695"),
    "featurize": ("#2a68cf", "#6fa2fb"),
    "fit": ("#158577", "#45c2b1"),
    "transform": ("#8a3ea8", "#cc8ce6"),
    "write": ("#c9860c", "#efbb52"),
    "shutdown": ("#d9dde3", "#3a414a"),
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
}


def drawn(draw: Callable[[float], Figure], width: float, name: str) -> str:
    """Return a plot as the text of an SVG file.

    Parameters
    ----------
    draw : callable
        Draws the figure for a width in inches.
    width : float
        Width in inches.
    name : str
        Unique within a page, because element ids are derived from it.
    """
    text = StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        draw(width).savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, svg[svg.index("<svg") :])


def themed(svg: str, label: str) -> str:
    """Return an SVG for inlining: it fills its container and uses the CSS variables of the page as colours."""
    for role, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{role})")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    attributes = f'{box[0]} role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg"'
    svg = re.sub(r"<svg\b[^>]*>", f'<svg {attributes} xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
