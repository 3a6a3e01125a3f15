"""Result: what an analysis found, as a frozen dataclass that has a text for people and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class Result:
    """A base of frozen dataclasses whose fields are numbers, strings, arrays, and tuples or mappings of those."""

    LARGE: ClassVar[tuple[str, ...]] = ()  # fields as large as the model's tensors, which JSON leaves out

    @property
    def text(self) -> str:
        """What was found, for a person: a few lines."""
        return "\n".join(f"{one.name}  {getattr(self, one.name)}" for one in fields(self))

    def __str__(self) -> str:
        return self.text

    def plain(self) -> dict[str, Any]:
        """The fields as numbers, strings, lists and dicts; an infinity or a NaN is a string, as JSON has none.

        Fields in `LARGE` are left out.
        """
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self) if one.name not in self.LARGE}

    def json(self) -> str:
        """`plain` as JSON text."""
        return json.dumps(self.plain(), allow_nan=False)


@dataclass(frozen=True)
class Estimate(Result):
    """A number found from random probes, and its standard error; 0 where it is exact."""

    value: float
    error: float

    @property
    def text(self) -> str:
        return f"{self.value:.6g} ± {self.error:.2g}"

    def agrees(self, other: float, errors: float = 3.0) -> bool:
        """Is the other number within so many standard errors?"""
        return abs(self.value - other) <= errors * self.error


def mean(samples: Any) -> Estimate:
    """The mean of independent samples and its standard error; NaN where there is only one."""
    values = np.asarray(samples, float)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return Estimate(float(values.mean()), error)


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.plain()
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
