"""A Jacobian block in numbers, with the words that a picture of it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Instance:
    """`values[rows..., columns...]` of ∂of/∂wrt; the first `rank` axes are those of `of`.

    `rows` and `columns` read like `y[n,i]`; `note` says at which sizes and inputs the values were taken.
    """

    of: str
    wrt: str
    rows: str
    columns: str
    rank: int
    values: Array
    note: str = ""

    @property
    def head(self) -> str:
        return f"∂{self.of}/∂{self.wrt}"

    @property
    def matrix(self) -> Array:
        """The entries as rows × columns, both in row-major order."""
        shape = self.values.shape
        above = int(np.prod(shape[: self.rank], dtype=np.int64))
        return np.asarray(self.values, dtype=float).reshape(above, int(np.prod(shape[self.rank :], dtype=np.int64)))

    def extents(self) -> tuple[str, str]:
        """`3 × 5` for rows and for columns."""
        sides = (self.values.shape[: self.rank], self.values.shape[self.rank :])
        above, below = (" × ".join(map(str, side)) or "1" for side in sides)
        return above, below
