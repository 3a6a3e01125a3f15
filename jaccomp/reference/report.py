"""What a check found, row by row: a plain record, a table to read, JSON to process."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from jaccomp import display


@dataclass(frozen=True, slots=True)
class Row:
    """One rung at one sample: the worst entry's |error| / Σ|terms|, and the `c · eps` that it may reach."""

    layer: str
    dtype: str
    what: str
    reference: str
    sizes: str
    error: float
    tolerance: float
    passed: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The rows of one or several layers. `bool(report)` is `report.passed`; no rows, no evidence: not passed."""

    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        return bool(self.rows) and all(row.passed for row in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    def __add__(self, other: Report) -> Report:
        return Report(self.rows + other.rows)

    @property
    def failures(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.passed)

    def to_json(self) -> str:
        """`{"passed": bool, "rows": [...]}`; an error that is no number is the string "inf" or "nan"."""
        rows = [{key: _plain(value) for key, value in asdict(row).items()} for row in self.rows]
        return json.dumps({"passed": self.passed, "rows": rows}, indent=1)

    def summary(self) -> Report:
        """The worst row of each layer, dtype, what and reference: what a person reads first."""
        worst: dict[tuple[str, ...], Row] = {}
        for row in self.rows:
            key = (row.layer, row.dtype, row.what, row.reference)
            known = worst.get(key)
            if known is None or (known.passed, -_size(known.error)) > (row.passed, -_size(row.error)):
                worst[key] = row
        return Report(tuple(worst.values()))

    @property
    def table(self) -> tuple[tuple[str, ...], ...]:
        """A head and the rows, as text."""
        head = ("layer", "dtype", "what", "reference", "sizes", "error", "allowed", "")
        rows = (
            (r.layer, r.dtype, r.what, r.reference, r.sizes, f"{r.error:.1e}", f"{r.tolerance:.1e}",
             "ok" if r.passed else f"FAILED {r.note}".rstrip())
            for r in self.rows
        )  # fmt: skip
        return (head, *rows)

    @property
    def verdict(self) -> str:
        """The whole in words."""
        failed = len(self.failures)
        return "no rows" if not self.rows else "passed" if not failed else f"{failed} of {len(self.rows)} failed"

    def __str__(self) -> str:
        table = self.table
        widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
        return "\n".join([*lines, self.verdict])

    _repr_mimebundle_ = display.mimebundle


def _size(error: float) -> float:
    return math.inf if math.isnan(error) else error


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
