"""A card as JSON: the fields of `jaccomp.card`, by their names and in their order, nothing else.

    {"schema": 1, "name": "softmax", ..., "blocks": [{"of": "y", "wrt": "x", "line": {"text": ..., "latex": ...}, ...}]}

A tuple is a list, a record an object, None is null; a number that is none is the string "inf" or "nan". One value a
line, so that a formula that changes shows as one line of a diff. `schema` goes up when a key is renamed or dropped.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from jaccomp.card import Card

SCHEMA = 1


def render(card: Card) -> str:
    """The card as one JSON document."""
    return json.dumps(record(card), indent=1, ensure_ascii=False) + "\n"


def record(card: Card) -> dict[str, Any]:
    """The card as plain data."""
    return {"schema": SCHEMA, **_plain(card)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
