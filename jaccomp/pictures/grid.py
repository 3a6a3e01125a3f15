"""What the pictures of a matrix share: its squares as paths, its frame, and fewer squares where it is large."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from jaccomp.pictures.instance import Array, Instance
from jaccomp.pictures.picture import element, label, number, width_of

MOST = 96  # squares in a row or a column
LARGEST = 384.0  # pixels of the longer side
SQUARE = 22.0  # pixels of a side of a square, at most
LEFT, TOP = 34.0, 46.0


@dataclass(frozen=True, slots=True)
class Grid:
    """The shown squares of a matrix, how many of its entries each stands for, and the side of one in pixels."""

    values: Array
    step: tuple[int, int]
    side: float

    @property
    def width(self) -> float:
        return self.side * int(self.values.shape[1])

    @property
    def height(self) -> float:
        return self.side * int(self.values.shape[0])

    def note(self) -> str:
        """What a square stands for, where it is not one entry."""
        down, across = self.step
        if self.step == (1, 1):
            return ""
        return f" Each square is the entry of largest magnitude among {down} by {across}."


def grid(matrix: Array) -> Grid:
    """The matrix, or where it has more than `MOST` rows or columns, of each tile the entry of largest magnitude."""
    rows, columns = matrix.shape
    down, across = (max(1, -(-length // MOST)) for length in (rows, columns))
    shown = _largest(matrix, down, across)
    longer = max(*shown.shape, 1)
    return Grid(shown, (down, across), min(SQUARE, LARGEST / longer))


def _largest(matrix: Array, down: int, across: int) -> Array:
    """Of each tile the entry of largest magnitude, with its sign; what is not finite counts as larger than all."""
    if (down, across) == (1, 1) or 0 in matrix.shape:
        return matrix
    rows, columns = (-(-n // step) for n, step in zip(matrix.shape, (down, across), strict=True))
    padded = np.zeros((rows * down, columns * across))
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    tiles = padded.reshape(rows, down, columns, across).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    size = np.where(np.isfinite(tiles), np.abs(tiles), np.inf)
    return np.asarray(np.take_along_axis(tiles, size.argmax(-1)[..., None], axis=-1)[..., 0])


def squares(where: Array, side: float) -> str:
    """A path over the squares where a mask holds, one by one."""
    inset = side / 10
    length = number(side - 2 * inset)
    places = zip(*np.nonzero(where), strict=True)
    corners = (f"M{number(column * side + inset)} {number(row * side + inset)}" for row, column in places)
    return "".join(f"{corner}h{length}v{length}h-{length}z" for corner in corners)


def runs(where: Array, side: float) -> str:
    """A path over the squares where a mask holds, neighbours in a row as one."""
    parts = []
    for row, line in enumerate(where):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            length = number(float(stop - start) * side)
            parts.append(f"M{number(start * side)} {number(row * side)}h{length}v{number(side)}h-{length}z")
    return "".join(parts)


def framed(one: Instance, shown: Grid, title: str, inside: Iterable[Element]) -> tuple[Element, float, float]:
    """The squares in their frame, with title and axes; its width and height."""
    above, below = one.extents()
    frame = {"width": max(shown.width, 1.0), "height": max(shown.height, 1.0)}
    outline = element("rect", {**frame, "fill": "none", "stroke": "currentColor", "stroke-opacity": 0.6})
    columns = f"columns {one.columns}: {below} →"
    rows = f"rows {one.rows}: {above} ↓"
    across = f"translate({number(LEFT)} {number(TOP)})"
    # A long text beside a short matrix goes on below it.
    turned = element("g", {"transform": f"translate({number(LEFT - 20)} {number(TOP)}) rotate(90)"},
                     label(rows, 0, 0, font_size=11))  # fmt: skip
    body = element(
        "g",
        {},
        label(title, 8, 18, font_size=13, font_weight="bold"),
        label(columns, LEFT, TOP - 8, font_size=11),
        turned,
        element("g", {"transform": across}, *inside, outline),
    )
    width = max(LEFT + shown.width, LEFT + width_of(columns, 11), 8 + width_of(title, 13)) + 12
    return body, width, TOP + max(shown.height, width_of(rows, 11)) + 14
