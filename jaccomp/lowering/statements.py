"""Equations to statements over free-running loops: what is assigned, accumulated, selected or contracted, and where.

Input: a program. Output: statements in dependency order. Each term becomes one, its equalities solved (`solve`); what a
statement does not cover of its target is filled first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import sympy as sp

from jaccomp.domains import axis_ranges, is_index_free, position
from jaccomp.lowering.affine import bounds_of, index_set, is_affine, slope
from jaccomp.lowering.contraction import is_product, sides
from jaccomp.lowering.solve import Solved, solve
from jaccomp.lowering.windows import Typical, Windowed, windowed
from jaccomp.notation import Access
from jaccomp.program import (
    Constraint,
    Equation,
    Program,
    Reducer,
    Tensor,
    Term,
    accesses,
    in_range,
    index_symbol,
    value_symbol,
)

IDENTITY: dict[str, sp.Expr] = {
    "sum": sp.S.Zero,
    "prod": sp.S.One,
    "max": sp.S.NegativeInfinity,
    "min": sp.S.Infinity,
    "argmax": sp.S.NegativeInfinity,
    "argmin": sp.S.Infinity,
}
Action = Literal["assign", "accumulate", "select", "contract"]
SHARE = 16
"""A result this many times smaller than inputs and outputs may be summed up in each block of iterations."""


@dataclass(frozen=True, slots=True)
class Product:
    """A statement that is a matrix product: its operands and the indices of its three sides.

    If `tiled`, it is a sum of products over boxes, for each iteration of the loops on no side. If `adds`, it is added
    to what is there; if not, to `onto`.
    """

    left: Access
    right: Access
    m: tuple[sp.Symbol, ...]
    n: tuple[sp.Symbol, ...]
    k: tuple[sp.Symbol, ...]
    alpha: sp.Expr
    tiled: bool = False
    adds: bool = False
    onto: Access | None = None

    def side(self, index: sp.Symbol) -> tuple[sp.Symbol, ...]:
        """The side that an index belongs to; none if the product is one of many over it."""
        return next((run for run in (self.m, self.n, self.k) if index in run), ())


@dataclass(frozen=True, slots=True)
class Statement:
    """`target (op)= value` for all `loops` in `domain` (affine inequalities) where `guards` hold.

    `loops` are unique to the statement. `injective`: no two iterations over the loops in the target's indices meet.
    `chosen` = (row, place): the loop `row` runs at `place` alone, which data chooses. A tile of it can own what is
    scattered to its rows.
    """

    target: Access
    action: Action
    reducer: Reducer
    value: sp.Expr
    loops: tuple[sp.Symbol, ...]
    domain: tuple[Constraint, ...]
    guards: tuple[Constraint, ...]
    injective: bool
    equation: Equation
    needs: tuple[str, ...] = ()
    extra: tuple[sp.Expr, ...] = ()
    product: Product | None = None
    chosen: tuple[sp.Symbol, sp.Expr] | None = None

    def over(self, where: Mapping[sp.Expr, sp.Expr]) -> Statement:
        product = self.product
        if product is not None:
            product = replace(
                product,
                left=product.left.xreplace(where),
                right=product.right.xreplace(where),
                m=_renamed(product.m, where),
                n=_renamed(product.n, where),
                k=_renamed(product.k, where),
                alpha=product.alpha.xreplace(where),
                onto=product.onto.xreplace(where) if product.onto is not None else None,
            )
        chosen = self.chosen
        if chosen is not None:
            chosen = (*_renamed(chosen[:1], where), chosen[1].xreplace(where))
        return replace(
            self,
            target=self.target.xreplace(where),
            value=self.value.xreplace(where),
            loops=_renamed(self.loops, where),
            domain=tuple(c.over(where) for c in self.domain),
            guards=tuple(c.over(where) for c in self.guards),
            extra=tuple(e.xreplace(where) for e in self.extra),
            product=product,
            chosen=chosen,
        )

    @property
    def writes(self) -> tuple[Access, ...]:
        return (self.target, *(e for e in self.extra[:2] if isinstance(e, Access)))

    def reads(self) -> tuple[Access, ...]:
        """Every access it reads; an accumulation reads its own target."""
        found: dict[Access, None] = {}
        expressions: list[sp.Expr] = [self.value, *self.extra, *(self.chosen or ())]
        expressions += [c.expr for c in (*self.domain, *self.guards)]
        expressions += list(self.target.indices)
        if self.action in ("accumulate", "select") or (self.product is not None and self.product.adds):
            expressions.append(self.target)
        if self.product is not None and self.product.onto is not None:
            expressions.append(self.product.onto)
        for expr in expressions:
            found.update(dict.fromkeys(accesses(expr)))
        return tuple(found)

    def target_indices(self) -> tuple[sp.Symbol, ...]:
        """The loops that choose where it writes: bare ones, and all affine ones if it is injective."""
        bare = {i for i in self.target.indices if i in self.loops}
        if self.injective:
            for index in self.target.indices:
                if is_affine(index, self.loops):
                    bare |= set(index_set(index, self.loops))
        return tuple(i for i in self.loops if i in bare)


def over_target(statement: Statement) -> Statement:
    """The statement over the loops of its target alone: what is set before a sum, or added when it is done."""
    axes = statement.target_indices()
    others = [i for i in statement.loops if i not in axes]
    return replace(
        statement, loops=axes, domain=tuple(c for c in statement.domain if not index_set(c.expr, others)), product=None
    )


def _renamed(symbols: tuple[sp.Symbol, ...], where: Mapping[sp.Expr, sp.Expr]) -> tuple[sp.Symbol, ...]:
    return tuple(where.get(s, s) for s in symbols)


def statements(program: Program, typical: Typical | None = None) -> tuple[tuple[Statement, ...], tuple[Tensor, ...]]:
    """Every equation as statements in dependency order, and the tensors that argmax and argmin need beside."""
    result: list[Statement] = []
    extra: list[Tensor] = []
    for equation in program.equations:
        made, tensors = _equation(program, equation, typical or {})
        extra += tensors
        result += made
    return tuple(_unique(s, k) for k, s in enumerate(result)), tuple(extra)


def _unique(statement: Statement, number: int) -> Statement:
    return statement.over({i: index_symbol(f"{i.name}.{number}") for i in statement.loops})


def _equation(program: Program, equation: Equation, typical: Typical) -> tuple[list[Statement], list[Tensor]]:
    target = program.tensor(equation.target)
    shapes = {t.name: t.shape for t in program.tensors}
    if is_product(equation, shapes, target):
        return [_product(equation, target, axis_ranges(target))], []
    rest: list[Term] = []
    tiled: list[Statement] = []
    for term in equation.terms:
        alone = replace(equation, terms=(term,))
        found = windowed(alone, target, shapes, typical) if not is_product(alone, shapes, target) else None
        if found is None:
            rest.append(term)
        else:
            tiled.append(_tiled(equation, target, found))
    onto = _read_bare(rest, equation)
    if tiled and (not rest or onto is not None) and not is_small(program, target, typical):
        tiled[0] = replace(tiled[0], product=replace(_of(tiled[0]), adds=False, onto=onto))
        return tiled, []
    made, tensors = _terms(replace(equation, terms=tuple(rest)), target)
    return [*made, *tiled], tensors


def _read_bare(terms: Sequence[Term], equation: Equation) -> Access | None:
    """Of terms that are one real access at axes of the target, that access.

    y[n,o] = b[o] + Σ_k ..   ->   b[o]
    """
    if len(terms) != 1 or terms[0].bound or terms[0].domain:
        return None
    body = terms[0].body
    if not isinstance(body, Access) or body.is_integer or not set(body.indices) <= set(equation.axes):
        return None
    return body


def is_small(program: Program, target: Tensor, typical: Typical) -> bool:
    """Is the target small enough, beside inputs and outputs, to be summed up in each of several blocks?"""
    named = [program.tensor(n) for n in (*program.inputs, *program.outputs)]
    size, capacity = (sp.Add(*(sp.Mul(*t.shape) for t in of)).xreplace(dict(typical)) for of in ([target], named))
    return bool(size.is_number and capacity.is_number and SHARE * size <= capacity)


def _of(statement: Statement) -> Product:
    assert statement.product is not None
    return statement.product


def _tiled(equation: Equation, target: Tensor, found: Windowed) -> Statement:
    product = Product(found.left, found.right, found.m, found.n, found.k, found.alpha, tiled=True, adds=True)
    loops = (*equation.axes, *found.k)
    value = found.left * found.right
    return Statement(
        target[equation.axes], "contract", "sum", value, loops, found.domain, (), True, equation, product=product
    )


def _terms(equation: Equation, target: Tensor) -> tuple[list[Statement], list[Tensor]]:
    """An equation as loops, term by term."""
    base = value_symbol(target.name, target.dtype)
    given = axis_ranges(target)
    solved = [solve(equation, term, given) for term in equation.terms]

    def make(one: Solved, assign: bool) -> Statement:
        made = Statement(
            Access(base, *one.store),
            "assign" if assign else "accumulate",
            equation.reducer,
            one.body,
            one.loops,
            one.domain,
            one.guards,
            one.injective,
            equation,
        )
        return made if assign or one.injective else _by_rows(made, target)

    def fill(of: Access, value: sp.Expr) -> Statement:
        return Statement(of, "assign", equation.reducer, value, equation.axes, given, (), True, equation)

    if equation.reducer in ("argmax", "argmin"):
        return _selection(equation, target, fill, given)
    whole = next((k for k, one in enumerate(solved) if _covers(one, equation, given)), None)
    if whole is None and _partition(solved, target):
        return [make(one, assign=True) for one in solved], []
    if whole is not None:
        rest = [one for k, one in enumerate(solved) if k != whole]
        return [make(solved[whole], assign=True), *(make(one, assign=False) for one in rest)], []
    first = fill(Access(base, *equation.axes), IDENTITY[equation.reducer])
    alone = len(solved) == 1 and solved[0].injective and all(_stores(solved[0], i) for i in solved[0].loops)
    return [first, *(make(one, assign=alone) for one in solved)], []


def _by_rows(statement: Statement, target: Tensor) -> Statement:
    """A scatter of whole rows with the row as a loop.

    table[ids[n], d] += y[n, d]  for n, d     ->   table[v, d] += y[n, d]  for n, d, v = ids[n]
    """
    indices = statement.target.indices
    data = [axis for axis, e in enumerate(indices) if e.has(Access)]
    if len(data) != 1 or indices[-1] not in statement.loops:
        return statement
    (axis,) = data
    row, place, inside = index_symbol(f"row{axis}"), indices[axis], in_range(indices[axis], target.shape[axis])
    return replace(
        statement,
        target=statement.target.xreplace({place: row}),
        loops=(*statement.loops, row),
        domain=(*statement.domain, *in_range(row, target.shape[axis])),
        guards=tuple(g for g in statement.guards if g not in inside),
        chosen=(row, place),
    )


def _stores(one: Solved, index: sp.Symbol) -> bool:
    return any(index in e.free_symbols and is_affine(e, one.loops) for e in one.store)


def _product(equation: Equation, target: Tensor, given: tuple[Constraint, ...]) -> Statement:
    found = sides(equation)
    (term,) = equation.terms
    assert found is not None and isinstance(found.left, Access)
    product = Product(found.left, found.right, found.m, found.n, found.k, found.alpha)
    domain = (*given, *(c for c in term.domain if c not in given))
    return Statement(
        target[equation.axes], "contract", "sum", found.left * found.right, (*equation.axes, *term.bound), domain, (),
        True, equation, product=product,
    )  # fmt: skip


def _selection(
    equation: Equation, target: Tensor, fill: object, given: tuple[Constraint, ...]
) -> tuple[list[Statement], list[Tensor]]:
    """An argmax or argmin: the best value so far, and where it was seen.

    Where each index begins at a bound of its own, the first place is known before anything is seen; else a flag tells
    whether anything was.
    """
    best = Tensor(f"{target.name}_best", target.shape)
    seen = Tensor(f"{target.name}_seen", target.shape, "int64")
    term, place = _by_offsets(equation.terms[0], position(equation.terms[0], given))
    one = solve(equation, term, given)
    where = one.store
    at = [t[where] for t in (target, best, seen)]
    axes = equation.axes
    zero = (sp.S.Zero, IDENTITY[equation.reducer], sp.S.Zero)
    made = [
        Statement(t[axes], "assign", equation.reducer, value, axes, given, (), True, equation)
        for t, value in zip((target, best, seen), zero, strict=True)
    ]
    made.append(
        Statement(
            at[0], "select", equation.reducer, one.body, one.loops, one.domain, one.guards, one.injective, equation,
            extra=(at[1], at[2], place),
        )
    )  # fmt: skip
    return made, [best, seen]


def _by_offsets(term: Term, place: sp.Expr) -> tuple[Term, sp.Expr]:
    """The term and a position in it, with each bound index that is a place in a window as an offset in it.

    {h : S i <= h < S i + K} x[h] at h   ->   {r : 0 <= r < K} x[S i + r] at S i + r
    """
    for index in term.bound:
        start = _window_start(term, index)
        is_place = all(e == index for a in accesses(term.body) for e in a.indices if index in e.free_symbols)
        if start is not None and is_place:
            where: dict[sp.Expr, sp.Expr] = {index: sp.expand(index + start)}
            domain = tuple(Constraint(sp.expand(c.expr.xreplace(where)), c.equality) for c in term.domain)
            term = Term(term.body.xreplace(where), term.bound, domain)
            place = sp.expand(place.xreplace(where))
    return term, place


def _window_start(term: Term, index: sp.Symbol) -> sp.Expr | None:
    """The lower bound of an index that moves with others while the upper one stays as far from it."""
    for low in term.lower_bounds(index):
        for high in term.upper_bounds(index):
            if is_index_free(sp.expand(high - low)) and not is_index_free(low) and not low.has(Access):
                return low
    return None


def _covers(one: Solved, equation: Equation, given: tuple[Constraint, ...]) -> bool:
    """A map over the whole target: nothing needs to be there before it."""
    return (
        one.store == equation.axes and one.loops == equation.axes and not one.guards and len(one.domain) == len(given)
    )


def _partition(solved: list[Solved], target: Tensor) -> bool:
    """Are the terms maps whose images meet each element of the target exactly once? A sufficient test.

    One axis is cut, in runs that follow each other (`h + H`) or in strides (`2j`, `2j + 1`); the others are whole.
    """
    pieces: list[tuple[int, sp.Expr, sp.Expr, sp.Expr]] = []
    for one in solved:
        if not one.injective or one.guards or any(e.has(Access) for e in one.store):
            return False
        cut = _cut(one, target)
        if cut is None:
            return False
        pieces.append(cut)
    if not pieces:
        return False
    axis = pieces[0][0]
    if any(p[0] != axis for p in pieces):
        return False
    strides = {p[3] for p in pieces}
    extent = target.shape[axis]
    if strides == {sp.S.One}:
        at: sp.Expr = sp.S.Zero
        waiting = list(pieces)
        while waiting:
            following = next((p for p in waiting if sp.expand(p[1] - at) == 0), None)
            if following is None:
                return False
            waiting.remove(following)
            at = following[2]
        return bool(sp.expand(at - extent) == 0)
    stride = next(iter(strides)) if len(strides) == 1 else None
    if stride is None or not stride.is_Integer or len(pieces) != stride:
        return False
    starts = {p[1] for p in pieces} == {sp.Integer(r) for r in range(int(stride))}
    return starts and all(sp.expand(p[2] - p[1] - extent) == 0 for p in pieces)


def _cut(one: Solved, target: Tensor) -> tuple[int, sp.Expr, sp.Expr, sp.Expr] | None:
    """(axis, first, end, stride) of the image of a map that takes every other axis whole."""
    result: tuple[int, sp.Expr, sp.Expr, sp.Expr] | None = None
    used: list[sp.Symbol] = []
    if len(one.loops) != target.rank:
        return None
    for axis, (store, extent) in enumerate(zip(one.store, target.shape, strict=True)):
        inside = index_set(store, one.loops)
        if len(inside) != 1 or inside[0] in used:
            return None
        (index,) = inside
        used.append(index)
        others = [i for i in one.loops if i != index]
        mine = [c for c in one.domain if index in c.expr.free_symbols]
        if any(index_set(c.expr, others) for c in mine):
            return None
        plain = set(in_range(index, extent))
        stride = slope(store, index)
        if stride is None:
            return None
        own = [c for c in mine if c not in plain] or mine
        lower, upper = bounds_of(index, own)
        lower = lower or (sp.S.Zero,)
        upper = upper or (extent,)
        if store == index and set(mine) == plain:
            continue
        if result is not None or len(lower) != 1 or len(upper) != 1:
            return None
        offset = sp.expand(store - stride * index)
        first = sp.expand(stride * lower[0] + offset)
        result = (axis, first, sp.expand(stride * upper[0] + offset), stride)
    return result
