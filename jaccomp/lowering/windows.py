"""Sums of products of two accesses that are no matrix product: their indices overlap, as those of a convolution do.

    y[n,o,i,j] = Σ_{c,r,s} w[o,c,r,s] x[n,c,S i + r - P,S j + s - P]      where both places lie in x
        ->   m = (o), n = (n,i,j), k = (c,r,s), x[n,c,Within(S i + r - P, 1, H),Within(S j + s - P, 1, W)]

An axis that is cut, or that an equality decides, becomes a window: it is read at place / step where that is a whole
number of its extent, and is 0 elsewhere. So every loop runs over a box, and the places are affine in all of them.
Where there are windows, one operand may share all of its axes with the other, as the kernel of one channel does.

    ct_x[n,c,h,w] = Σ_{o,k,r : S k + r = h + P} ..ct_y[n,o,k,..]   ->   Σ_{o,r} ..ct_y[n,o,Within(h + P - r, S, OH),..]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.domains import axis_ranges
from jaccomp.lowering.affine import bounds_of, index_set, is_affine, slope
from jaccomp.lowering.ir import Within
from jaccomp.notation import Access
from jaccomp.program import Constraint, Equation, Tensor

MOST_LOOPS = 16
MOST_WINDOWS = 8
"""What a plan of `jaccomp_tiles.h` has room for."""

Shapes = Mapping[str, tuple[sp.Expr, ...]]
Typical = Mapping[sp.Expr, sp.Expr]


@dataclass(frozen=True, slots=True)
class Windowed:
    """A sum of products over boxes: its operands, its loops, and which of them the target takes from which operand."""

    left: Access
    right: Access
    alpha: sp.Expr
    m: tuple[sp.Symbol, ...]
    n: tuple[sp.Symbol, ...]
    k: tuple[sp.Symbol, ...]
    batch: tuple[sp.Symbol, ...]
    domain: tuple[Constraint, ...]

    @property
    def loops(self) -> tuple[sp.Symbol, ...]:
        return (*self.batch, *self.m, *self.n, *self.k)


def windowed(equation: Equation, target: Tensor, shapes: Shapes, typical: Typical | None = None) -> Windowed | None:
    """The equation as a sum over boxes that each operand shares with the target; None if it is no such sum.

    Asked of what BLAS cannot compute. `typical` sizes choose between indices that an equality may be solved for.
    """
    found = _operands(equation, target)
    if found is None:
        return None
    (term,) = equation.terms
    state = _State(found, (*equation.axes, *term.bound), (*axis_ranges(target), *term.domain))
    solved = _without_equalities(state, term.bound, typical or {})
    cut = _with_windows(solved, shapes) if solved is not None else None
    if cut is None or not _runs_over_boxes(cut):
        return None
    constants = [f for f in sp.Mul.make_args(term.body) if f not in found]
    return _with_roles(cut, equation.axes, sp.Mul(*constants))


@dataclass(frozen=True, slots=True)
class _State:
    """A sum on its way to boxes: the two operands, the loops left, and the constraints that still hold them."""

    operands: tuple[Access, ...]
    loops: tuple[sp.Symbol, ...]
    domain: tuple[Constraint, ...]


def _operands(equation: Equation, target: Tensor) -> tuple[Access, ...] | None:
    """The two real accesses whose product is summed, beside constants."""
    if equation.reducer != "sum" or len(equation.terms) != 1 or target.dtype != "real":
        return None
    (term,) = equation.terms
    if not term.bound or any(c.is_data for c in term.domain):
        return None
    factors = [f for f in sp.Mul.make_args(term.body) if f.has(Access) or index_set(f, (*equation.axes, *term.bound))]
    found = tuple(f for f in factors if isinstance(f, Access) and not f.is_integer)
    if len(found) != 2 or len(factors) != 2 or any(i.has(Access) for f in found for i in f.indices):
        return None
    return found


def _without_equalities(state: _State, bound: Sequence[sp.Symbol], typical: Typical) -> _State | None:
    """Each equality solved for the longest index that one axis alone reads, which becomes a window; else for a unit."""
    while any(c.equality for c in state.domain):
        equality = next(c for c in state.domain if c.equality)
        inside = [b for b in bound if b in state.loops and b in equality.expr.free_symbols]
        bare = [b for b in inside if _is_read_once(state, b, equality)]
        unit = [b for b in inside if slope(equality.expr, b) in (1, -1)]
        if bare:
            index = max(bare, key=lambda b: _typically(_extent(state, b), typical))
            state = _through_window(state, index, equality)
        elif unit:
            state = _substituted(state, unit[0], equality)
        else:
            return None
    return state


def _is_read_once(state: _State, index: sp.Symbol, equality: Constraint) -> bool:
    """Does the index stand bare on one axis, in this equality and in its own range from 0, and nowhere else?"""
    places = [e for a in state.operands for e in a.indices if index in e.free_symbols]
    others = [c for c in state.domain if index in c.expr.free_symbols and c != equality]
    step = slope(equality.expr, index)
    lower, upper = bounds_of(index, others)
    return (
        places == [index]
        and step is not None
        and not index_set(step, state.loops)
        and all(index_set(c.expr, state.loops) == (index,) for c in others)
        and lower == (0,)
        and len(upper) == 1
    )


def _extent(state: _State, index: sp.Symbol) -> sp.Expr:
    _, upper = bounds_of(index, [c for c in state.domain if not c.equality])
    return upper[0]


def _typically(expr: sp.Expr, typical: Typical) -> float:
    value = expr.xreplace(dict(typical))
    return float(value) if value.is_number else 0.0


def _through_window(state: _State, index: sp.Symbol, equality: Constraint) -> _State:
    step = slope(equality.expr, index)
    assert step is not None
    sign = -1 if step.could_extract_minus_sign() else 1
    place = sp.expand(-sign * (equality.expr - step * index))
    where: dict[sp.Expr, sp.Expr] = {index: Within(place, sp.expand(sign * step), _extent(state, index))}
    return _State(
        tuple(a.xreplace(where) for a in state.operands),
        tuple(i for i in state.loops if i != index),
        tuple(c for c in state.domain if index not in c.expr.free_symbols),
    )


def _substituted(state: _State, index: sp.Symbol, equality: Constraint) -> _State:
    step = slope(equality.expr, index)
    where: dict[sp.Expr, sp.Expr] = {index: sp.expand(index - equality.expr / step)}
    kept = (c for c in state.domain if c != equality)
    domain = (Constraint(sp.expand(c.expr.xreplace(where)), c.equality) for c in kept)
    return _State(
        tuple(_expanded(a.xreplace(where)) for a in state.operands),
        tuple(i for i in state.loops if i != index),
        tuple(c for c in domain if not (c.expr.is_number and (c.expr == 0 if c.equality else c.expr >= 0))),
    )


def _expanded(access: Access) -> Access:
    return Access(access.base, *(sp.expand(i) for i in access.indices))


def _with_windows(state: _State, shapes: Shapes) -> _State | None:
    """Constraints that keep an axis in its array become windows of the axis."""
    domain = list(state.domain)
    operands = []
    for access in state.operands:
        indices = list(access.indices)
        for axis, (place, extent) in enumerate(zip(access.indices, shapes[access.name], strict=True)):
            ends = {sp.expand(place), sp.expand(extent - 1 - place)}
            mine = [c for c in domain if sp.expand(c.expr) in ends]
            if not mine or place.is_Symbol or isinstance(place, Within):
                continue
            domain = [c for c in domain if c not in mine]
            indices[axis] = Within(place, sp.S.One, extent)
        operands.append(Access(access.base, *indices))
    windows = [i for a in operands for i in a.indices if isinstance(i, Within)]
    return replace(state, operands=tuple(operands), domain=tuple(domain)) if len(windows) <= MOST_WINDOWS else None


def _runs_over_boxes(state: _State) -> bool:
    """Has every loop one range in sizes alone, and is every place affine in the loops?"""
    if len(state.loops) > MOST_LOOPS or any(len(index_set(c.expr, state.loops)) != 1 for c in state.domain):
        return False
    for index in state.loops:
        lower, upper = bounds_of(index, [c for c in state.domain if index in c.expr.free_symbols])
        if len(lower) != 1 or len(upper) != 1:
            return False
    places = [i.args[0] if isinstance(i, Within) else i for a in state.operands for i in a.indices]
    return all(is_affine(place, state.loops) for place in places)


def _has_windows(state: _State) -> bool:
    return any(i.has(Within) for a in state.operands for i in a.indices)


def _with_roles(state: _State, axes: Sequence[sp.Symbol], alpha: sp.Expr) -> Windowed | None:
    left, right = state.operands
    inside, outside = left.free_symbols, right.free_symbols
    if any(i not in inside and i not in outside for i in state.loops):
        return None
    m = tuple(i for i in axes if i not in outside)
    n = tuple(i for i in axes if i not in inside)
    k = tuple(i for i in state.loops if i not in axes)
    both = all(set(k) & side for side in (inside, outside))
    if not k or not ((m and n) or ((m or n) and both and _has_windows(state))):
        return None
    batch = tuple(i for i in axes if i in inside and i in outside)
    return Windowed(left, right, alpha, m, n, k, batch, state.domain)
