"""Spec: a layer as its author wrote it, validated, plain and canonically serialisable."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from jaccomp import notation


@dataclass(frozen=True, slots=True)
class WrittenEquation:
    """`left = right` in the user's own notation: `left` an access or a tensor of rank 0, `right` any expression."""

    left: sp.Expr
    right: sp.Expr


@dataclass(frozen=True, slots=True)
class Spec:
    """What a layer says: declarations, and its equations in the order given."""

    name: str
    inputs: tuple[notation.Tensor, ...]
    scalars: tuple[notation.Scalar, ...]
    outputs: tuple[notation.Tensor, ...]
    intermediates: tuple[notation.Tensor, ...]
    sizes: tuple[notation.Size, ...]
    equations: tuple[WrittenEquation, ...]
    doc: str = ""
