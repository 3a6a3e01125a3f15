"""A heat map of a Jacobian in numbers: blue below zero, orange above, and the deeper the larger."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from jaccomp.pictures.grid import LEFT, framed, grid, runs
from jaccomp.pictures.instance import Array, Instance
from jaccomp.pictures.picture import Picture, coloured, element, label, number, picture, quantity

LEVELS = 20
BAR = 224.0  # pixels of the legend


def heat(one: Instance) -> Picture:
    """Each entry as a square, its colour its sign, its strength its magnitude beside the largest, in 20 steps."""
    matrix = one.matrix
    shown = grid(matrix)
    finite = matrix[np.isfinite(matrix)]
    most = float(np.abs(finite).max(initial=0.0))
    level = _levels(shown.values, most)
    inside = [element("g", {"shape-rendering": "crispEdges"}, *_paths(level, ~np.isfinite(shown.values), shown.side))]
    title = f"{one.head} as a heat map"
    body, width, height = framed(one, shown, title, inside)
    legend = element("g", {"transform": f"translate({number(LEFT)} {number(height)})"}, *_legend(most))
    return picture(
        title, _described(one, matrix) + shown.note(), max(width, LEFT + BAR + 40), height + 44, body, legend
    )


def _described(one: Instance, matrix: Array) -> str:
    above, below = one.extents()
    finite = matrix[np.isfinite(matrix)]
    spread = f" Least {quantity(finite.min())}, greatest {quantity(finite.max())}." if finite.size else ""
    odd = matrix.size - finite.size
    words = f" {odd} are not finite." if odd else ""
    zeros = f" {np.count_nonzero(matrix)} of {matrix.size} entries are not zero.{words}"
    return f"{one.head}: rows {one.rows}, {above}; columns {one.columns}, {below}.{_note(one)}{spread}{zeros}"


def _note(one: Instance) -> str:
    return f" At {one.note}." if one.note else ""


def _levels(values: Array, most: float) -> Array:
    """-20 to 20: what is not zero is never 0."""
    share = np.where(np.isfinite(values), values, 0.0) / (most or 1.0)
    return np.asarray(np.sign(share) * np.ceil(np.abs(share) * LEVELS), dtype=np.int64)


def _paths(level: Array, other: Array, side: float) -> list[Element]:
    found = []
    for name, sign in (("negative", -1), ("positive", 1)):
        steps = [k for k in range(1, LEVELS + 1) if (level == sign * k).any()]
        paths = [element("path", {"fill-opacity": k / LEVELS, "d": runs(level == sign * k, side)}) for k in steps]
        found += [coloured(name, "fill", paths)] if paths else []
    if other.any():
        hatched = {"fill-opacity": 0.5, "stroke": "currentColor", "d": runs(other, side)}
        found.append(element("path", hatched))
    return found


def _legend(most: float) -> list[Element]:
    """The 41 steps, with the least, zero and the greatest under them."""
    side = BAR / (2 * LEVELS + 1)
    level = np.arange(-LEVELS, LEVELS + 1)[None, :]
    steps = _paths(level, np.zeros(level.shape, dtype=bool), side)
    outline = {"width": BAR, "height": side, "fill": "none", "stroke": "currentColor", "stroke-opacity": 0.6}
    ends = [(0.0, -most, "start"), (BAR / 2, 0.0, "middle"), (BAR, most, "end")]
    words = [label(quantity(v), x, side + 14, text_anchor=anchor, font_size=11) for x, v, anchor in ends]
    return [element("g", {"shape-rendering": "crispEdges"}, *steps), element("rect", outline), *words]
