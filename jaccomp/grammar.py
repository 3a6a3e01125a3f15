"""What may stand in an equation, and where; each refusal names equation, index or tensor, cause and remedy.

An expression is walked once with the indices in scope. A reduction's own indices shadow those of the same name outside;
the range of one may depend on another of the same reduction, in whichever order they are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sympy as sp
from sympy.functions.elementary.piecewise import ExprCondPair

from jaccomp.errors import SpecError
from jaccomp.notation import Access, ArgMaxOver, ArgMinOver, Index, Pad, Reduction, Scalar, Size, Tensor, is_integral

FUNCTIONS: tuple[type, ...] = (
    sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.asin, sp.acos, sp.atan, sp.atan2, sp.sinh, sp.cosh, sp.tanh, sp.asinh,
    sp.acosh, sp.atanh, sp.erf, sp.erfc, sp.Abs, sp.sign, sp.floor, sp.ceiling, sp.Max, sp.Min, sp.Mod, sp.Piecewise,
    sp.Heaviside, sp.KroneckerDelta, sp.coth, sp.sec, sp.csc, sp.cot, sp.sech, sp.csch,
)  # fmt: skip
CONDITIONS: tuple[type, ...] = (
    sp.core.relational.Relational, sp.And, sp.Or, sp.Not, sp.logic.boolalg.BooleanAtom,
)  # fmt: skip
STRUCTURE: tuple[type, ...] = (
    sp.Add, sp.Mul, sp.Pow, sp.Number, sp.NumberSymbol, sp.Sum, sp.Product, Access, Index, Tensor, Pad, Reduction,
    Scalar, Size, ExprCondPair, *CONDITIONS,
)  # fmt: skip
LIMIT_HOLDERS = (sp.Sum, sp.Product, Reduction)
DECLARE = "Declare it with jc.size, jc.index, jc.scalar or jc.tensor."
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
LETTERS = "ijklmnpq"

Limit = tuple[Any, sp.Expr, sp.Expr]


def limits(expr: sp.Expr) -> tuple[Limit, ...]:
    """(index, start, stop) of a reduction in an order in which each range needs only those before it.

    SymPy lists the innermost first, `MaxOver` the outermost; a range that depends on another index of the same
    reduction lies inside that one whichever way they are listed.
    """
    if isinstance(expr, Reduction):
        waiting = [(i, getattr(i, "start", sp.S.Zero), getattr(i, "stop", sp.S.Zero)) for i in expr.args[1]]
    else:
        waiting = [(one[0], one[1], one[2] + 1) for one in reversed(expr.limits)]
    done: list[Limit] = []
    while waiting:
        others = {index for index, _, _ in waiting}
        ready = next((one for one in waiting if not _needs(one) & (others - {one[0]})), waiting[0])
        waiting.remove(ready)
        done.append(ready)
    return tuple(done)


def _needs(limit: Limit) -> set[Index]:
    return {index for end in limit[1:] for index in indices_of(end)}


def indices_of(expr: sp.Basic) -> Iterator[Index]:
    """The indices of an expression in order of appearance; those inside another index's range are not among them."""
    if isinstance(expr, Index):
        yield expr
        return
    for one in expr.args:
        yield from indices_of(one)


def is_whole(expr: sp.Basic) -> bool:
    """Integer arithmetic: an integer made of integers, or the position of an extremum; no floor of a real tensor."""
    return is_integral(expr) and not any(_reals(expr))


def _reals(expr: sp.Basic) -> Iterator[sp.Basic]:
    if isinstance(expr, Access | Tensor | Scalar):
        if not expr.is_integer:
            yield expr
    elif not isinstance(expr, ArgMaxOver | ArgMinOver):
        for one in expr.args:
            yield from _reals(one)


def range_of(index: Index) -> str:
    return f"{index.start}..{index.stop - 1}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression stands: the equation for messages, the indices in scope, and what surrounds it."""

    what: str
    scope: dict[str, Index] = field(default_factory=dict)
    infinity: bool = False
    compared: bool = False

    def refuse(self, facts: str, remedy: str) -> SpecError:
        return SpecError(self.what, facts, remedy)


def check_left(what: str, target: Tensor, left: sp.Expr) -> Place:
    """The place that the right side stands in, with the indices of the left in scope. Raises `SpecError`."""
    place = Place(what)
    indices = left.indices if isinstance(left, Access) else ()
    if len(indices) != len(target.shape):
        raise place.refuse(
            f"{target.name!r} has {len(target.shape)} axes, the left side {len(indices)} indices.",
            f"Write {example(target)} on the left.",
        )
    for expr in indices:
        for node in sp.preorder_traversal(expr):
            if isinstance(node, Access):
                raise place.refuse(
                    f"the left side is indexed by data, {node}.",
                    "Write a sum over the source with KroneckerDelta(ids[n], v) instead.",
                )
        for index in indices_of(expr):
            known = place.scope.setdefault(index.name, index)
            if known != index:
                raise _two_ranges(place, known, index)
    for index in list(place.scope.values()):
        check(replace(place, what=f"{what}: range of {index.name}"), index.start)
        check(replace(place, what=f"{what}: range of {index.name}"), index.stop)
    bare = [e for e in indices if isinstance(e, Index)]
    for index in bare:
        if bare.count(index) > 1:
            raise place.refuse(
                f"index {index.name} stands twice on the left.", "Use two indices and a KroneckerDelta of them."
            )
    for expr in indices:
        check(place, expr)
    if isinstance(left, Access):
        check_axes(place, left)
    return place


def check(place: Place, expr: Any) -> None:
    """Raise `SpecError` unless every node of `expr` may stand where it does."""
    if isinstance(expr, Index):
        _check_index(place, expr)
    elif isinstance(expr, Tensor):
        if expr.shape:
            raise place.refuse(
                f"tensor {expr.name!r} of rank {len(expr.shape)} stands without indices.", f"Write {example(expr)}."
            )
    elif isinstance(expr, Access):
        _check_access(place, expr)
    elif expr in (sp.oo, -sp.oo):
        if not place.infinity:
            raise place.refuse("oo stands outside pad, Piecewise or a reducer.", "Give the finite value meant.")
    elif expr in (sp.nan, sp.zoo, sp.I):
        raise place.refuse(f"{expr} stands in it.", "Equations are real; write what it should be where that is known.")
    elif isinstance(expr, LIMIT_HOLDERS):
        _check_reduction(place, expr)
    else:
        _check_node(place, expr)


def _check_node(place: Place, expr: Any) -> None:
    if not isinstance(expr, FUNCTIONS + STRUCTURE):
        raise _unknown(place, expr)
    node: Any = expr
    if isinstance(expr, sp.Piecewise) and expr.args[-1][1] != sp.true and sp.Or(*(c for _, c in expr.args)) != sp.true:
        raise place.refuse(
            f"{expr} has no value where none of its conditions holds.", "End it with (value, True), as (0, True)."
        )
    extremum = isinstance(expr, sp.Max | sp.Min)
    infinity = isinstance(expr, Pad | sp.Piecewise | ExprCondPair) or (place.infinity and extremum)
    inside = replace(place, infinity=infinity, compared=place.compared or extremum)
    for one in node.args:
        check(inside, one)


def _unknown(place: Place, expr: Any) -> SpecError:
    if isinstance(expr, sp.Symbol | sp.Idx | sp.Indexed | sp.IndexedBase):
        return place.refuse(f"the symbol {expr} was not declared.", DECLARE)
    name = getattr(getattr(expr, "func", type(expr)), "__name__", type(expr).__name__)
    known = ", ".join(sorted(f.__name__ for f in FUNCTIONS))
    return place.refuse(f"{name} is a function that jaccomp does not know.", f"Known: {known}.")


def _check_index(place: Place, index: Index) -> None:
    known = place.scope.get(index.name)
    if known is None:
        raise place.refuse(
            f"index {index.name} is neither on the left nor bound.",
            f"SymPy's Max compares its arguments. For a maximum over {index.name} write "
            f"jc.MaxOver(x[n, {index.name}], {index.name})."
            if place.compared
            else f"Bind it, as in Sum(..., {index.name}), or put it on the left.",
        )
    if known != index:
        raise _two_ranges(place, known, index)


def _two_ranges(place: Place, known: Index, other: Index) -> SpecError:
    return place.refuse(
        f"index {other.name} has two ranges, {range_of(known)} and {range_of(other)}.",
        "Every index has one range: give the second another name.",
    )


def _check_reduction(place: Place, expr: Any) -> None:
    kind = type(expr).__name__
    bound = limits(expr)
    if not bound:
        raise place.refuse(f"{kind} has no index.", f"Name what it runs over: jc.{kind}(x[n, k], k).")
    inner = replace(place, scope=dict(place.scope), infinity=False)
    for index, start, stop in bound:
        if not isinstance(index, Index):
            raise place.refuse(
                f"{index} in {kind} is not an index.", "Declare it: jc.index('k', D), or jc.index('k', start, stop)."
            )
        for end in (start, stop):
            check(inner, end)
            if not is_whole(end):
                raise place.refuse(
                    f"{end}, an end of the range of {index.name}, is not an integer.",
                    "Divide with //, or declare an integer scalar.",
                )
        inner.scope[index.name] = index
    check(replace(inner, infinity=isinstance(expr, Reduction), compared=False), expr.args[0])


def _check_access(place: Place, access: Access) -> None:
    tensor = access.base
    if not isinstance(tensor, Tensor):
        raise place.refuse(f"{access} does not read a tensor.", "Declare it with jc.tensor.")
    if len(access.indices) != len(tensor.shape):
        raise place.refuse(
            f"{access} has {_counted(len(access.indices), 'index', 'indices')}, but {tensor.name!r} has "
            f"{_counted(len(tensor.shape), 'axis', 'axes')} {tuple(tensor.shape)}.",
            "Give one index for each axis.",
        )
    inside = replace(place, infinity=False, compared=False)
    for index in access.indices:
        check(inside, index)
    check_axes(place, access)


def check_axes(place: Place, access: Access) -> None:
    """Index expressions are integers; a bare index over one size does not read an axis of another."""
    for axis, (index, extent) in enumerate(zip(access.indices, access.base.shape, strict=True)):
        where = f"{ORDINALS[axis]} axis" if axis < len(ORDINALS) else f"axis {axis}"
        if isinstance(index, Access | Tensor) and not index.is_integer:
            raise place.refuse(
                f"{index}, the {where} of {access}, is a real tensor's value.",
                f"Declare {index.name!r} with dtype='int64'.",
            )
        if not is_whole(index):
            raise place.refuse(
                f"{index} in {access} is not an integer.", "Index with indices, sizes, int64 scalars and tensors."
            )
        mismatch = isinstance(index, Index) and isinstance(index.stop, Size) and isinstance(extent, Size)
        if mismatch and index.start == 0 and index.stop != extent:
            raise place.refuse(
                f"index {index.name} runs over {range_of(index)}, but the {where} of {access.base.name!r} has size "
                f"{extent}.",
                "Declare both with the same size, or use two indices.",
            )


def example(tensor: Tensor, given: Sequence[str] = ()) -> str:
    """`x[i, j]`: a tensor with an index for each of its axes."""
    names = [*given, *LETTERS[len(given) : len(tensor.shape)]]
    return f"{tensor.name}[{', '.join(names)}]" if tensor.shape else tensor.name


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
