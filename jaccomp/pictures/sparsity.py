"""The pattern of a Jacobian in numbers: which entries are not zero."""

from __future__ import annotations

import numpy as np

from jaccomp.pictures.grid import framed, grid, runs, squares
from jaccomp.pictures.instance import Instance
from jaccomp.pictures.picture import Picture, coloured, element, picture

APART = 6.0  # pixels of a square that is drawn by itself


def sparsity(one: Instance) -> Picture:
    """A square for each entry that is not zero."""
    matrix = one.matrix
    shown = grid(matrix != 0)
    spell = squares if shown.side >= APART else runs
    inside = [coloured("accent", "fill", [element("path", {"d": spell(shown.values != 0, shown.side)})])]
    title = f"{one.head}: entries that are not zero"
    body, width, height = framed(one, shown, title, inside)
    above, below = one.extents()
    count = int(np.count_nonzero(matrix))
    part = f", {100 * count / matrix.size:.3g} %" if matrix.size else ""
    at = f" At {one.note}." if one.note else ""
    tile = " by ".join(map(str, shown.step))
    coarse = (
        "" if shown.step == (1, 1) else f" Each square stands for {tile} entries, of which at least one is not zero."
    )
    description = (
        f"{one.head}: rows {one.rows}, {above}; columns {one.columns}, {below}.{at} "
        f"{count} of {matrix.size} entries are not zero{part}.{coarse}"
    )
    return picture(title, description, width, height, body)
