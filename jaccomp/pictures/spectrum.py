"""The singular values of a Jacobian in numbers, on a linear and on a logarithmic scale."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

import numpy as np

from jaccomp.errors import UsageError
from jaccomp.pictures.instance import Array, Instance
from jaccomp.pictures.picture import Picture, coloured, element, label, number, picture, quantity, width_of

LARGEST = 1024  # of the shorter side: its singular values take a second or so
WIDE, HIGH = 260.0, 190.0
LEFT, TOP, BETWEEN = 62.0, 56.0, 84.0
DOT = 3.0


def spectrum(one: Instance) -> Picture:
    """Dots in falling order. Raises `UsageError` where entries are not finite or the matrix is too large."""
    matrix = one.matrix
    what = f"spectrum of {one.head}"
    if not np.isfinite(matrix).all():
        raise UsageError(what, "some of its entries are not finite.", "Choose an input at which the layer is finite.")
    if min(matrix.shape) > LARGEST:
        rows, columns = matrix.shape
        raise UsageError(what, f"it is {rows} by {columns}, larger than {LARGEST} either way.", "Choose smaller sizes.")
    values = np.linalg.svd(matrix, compute_uv=False) if matrix.size else np.zeros(0)
    rank = _rank(values, matrix.shape)
    most = float(values.max(initial=0.0)) or 1.0
    linear = [(k, v / _above(most)) for k, v in enumerate(values)]
    low, high = _decades(values[:rank])
    kept = [(k, (math.log10(v) - low) / (high - low)) for k, v in enumerate(values[:rank])]
    gone = f", {len(values) - rank} numerical zeros left out" if rank < len(values) else ""
    panels = [
        _panel("linear", LEFT, linear, _ticks(most), len(values)),
        _panel(f"logarithmic{gone}", LEFT + WIDE + BETWEEN, kept, _powers(low, high), len(values)),
    ]
    title = f"{one.head}: singular values"
    width = LEFT + 2 * WIDE + BETWEEN + 20
    body = [label(title, 8, 18, font_size=13, font_weight="bold"), *panels]
    return picture(title, _described(one, values, rank), max(width, width_of(title, 13)), TOP + HIGH + 46, *body)


def _described(one: Instance, values: Array, rank: int) -> str:
    at = f" At {one.note}." if one.note else ""
    if not len(values):
        return f"{one.head} has no entries.{at}"
    spread = f" The largest is {quantity(values[0])}, the smallest {quantity(values[-1])}."
    condition = (
        f" The largest over the smallest that counts is {quantity(values[0] / values[rank - 1])}." if rank else ""
    )
    return f"The {len(values)} singular values of {one.head}; numerical rank {rank}.{spread}{condition}{at}"


def _rank(values: Array, shape: tuple[int, ...]) -> int:
    """How many are larger than rounding alone can make them, as NumPy's matrix_rank counts."""
    limit = values.max(initial=0.0) * max(*shape, 1) * np.finfo(float).eps
    return int((values > limit).sum())


def _above(most: float) -> float:
    return _ticks(most)[-1][1]


def _ticks(most: float) -> list[tuple[float, float, str]]:
    """(share of the axis, value, text) at round values from 0 to the first that is not below `most`."""
    rough = most / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * f for f in (1, 2, 2.5, 5, 10) if size * f >= rough * (1 - 1e-9))
    count = math.ceil(most / step * (1 - 1e-9))
    return [(k / count, k * step, quantity(k * step)) for k in range(count + 1)]


def _decades(values: Array) -> tuple[int, int]:
    """The powers of ten around the values; where all are one power, those on both its sides."""
    if not len(values):
        return 0, 1
    low, high = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
    return (low, high) if high > low else (low - 1, low + 1)


def _powers(low: int, high: int) -> list[tuple[float, float, str]]:
    step = -(-(high - low) // 6)
    return [((p - low) / (high - low), 10.0**p, f"1e{p}".replace("-", "−")) for p in range(low, high + 1, step)]


def _panel(
    name: str, left: float, dots: list[tuple[int, float]], ticks: list[tuple[float, float, str]], count: int
) -> Element:
    """Axes, their ticks, and a dot for each (number, share of the height)."""
    step = WIDE / max(count, 1)
    lines = [
        element("path", {"d": f"M0 {number(HIGH * (1 - share))}h{number(WIDE)}", "stroke-opacity": 0.18})
        for share, _, _ in ticks
    ]
    words = [label(text, -7, HIGH * (1 - share) + 4, text_anchor="end", font_size=11) for share, _, text in ticks]
    numbers = [1, *([count] if count > 1 else [])]
    below = [label(str(k), (k - 0.5) * step, HIGH + 16, text_anchor="middle", font_size=11) for k in numbers]
    axes = element("path", {"d": f"M0 0V{number(HIGH)}H{number(WIDE)}", "stroke-opacity": 0.7})
    radius = max(min(DOT, step / 2), 1.0)
    marks = [element("circle", {"cx": (k + 0.5) * step, "cy": HIGH * (1 - share), "r": radius}) for k, share in dots]
    return element(
        "g",
        {"transform": f"translate({number(left)} {number(TOP)})"},
        element("g", {"fill": "none", "stroke": "currentColor"}, *lines, axes),
        coloured("accent", "fill", marks),
        label(name, 0, -14, font_size=11),
        label("number", WIDE / 2, HIGH + 32, text_anchor="middle", font_size=11),
        *words,
        *below,
    )
