"""Spec: a layer as its author wrote it, validated, plain and canonically serialisable.

What can be decided without index calculus is refused here, each refusal naming layer, equation and index; what needs it
(reads outside a written domain, pieces that do not partition their target) is refused by `normalise`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

from jaccomp import notation
from jaccomp.errors import SpecError
from jaccomp.notation import Access, Index, Pad, Reduction, Size, Tensor

FUNCTIONS: tuple[type, ...] = (
    sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.asin, sp.acos, sp.atan, sp.atan2, sp.sinh, sp.cosh, sp.tanh, sp.asinh,
    sp.acosh, sp.atanh, sp.erf, sp.erfc, sp.Abs, sp.sign, sp.floor, sp.ceiling, sp.Max, sp.Min, sp.Mod, sp.Piecewise,
    sp.Heaviside, sp.KroneckerDelta, sp.coth, sp.sec, sp.csc, sp.cot, sp.sech, sp.csch,
)  # fmt: skip
STRUCTURE: tuple[type, ...] = (
    sp.Add, sp.Mul, sp.Pow, sp.Number, sp.NumberSymbol, sp.Sum, sp.Product, Access, Index, Tensor, Pad, Reduction,
    notation.Scalar, Size, sp.Tuple, sp.functions.elementary.piecewise.ExprCondPair, sp.core.relational.Relational,
    sp.And, sp.Or, sp.Not, sp.logic.boolalg.BooleanAtom,
)  # fmt: skip
LIMIT_HOLDERS = (sp.Sum, sp.Product, Reduction)


@dataclass(frozen=True, slots=True)
class WrittenEquation:
    """`left = right` in the user's own notation: `left` an access or a tensor of rank 0, `right` any expression."""

    left: sp.Expr
    right: sp.Expr

    @property
    def target(self) -> Tensor:
        target: Tensor = self.left.base if isinstance(self.left, Access) else self.left
        return target

    @property
    def indices(self) -> tuple[sp.Expr, ...]:
        return self.left.indices if isinstance(self.left, Access) else ()

    def __str__(self) -> str:
        return f"{self.left} = {self.right}"


@dataclass(frozen=True, slots=True)
class Spec:
    """What a layer says: declarations, and its equations in the order given."""

    name: str
    inputs: tuple[Tensor, ...]
    scalars: tuple[notation.Scalar, ...]
    outputs: tuple[Tensor, ...]
    intermediates: tuple[Tensor, ...]
    sizes: tuple[Size, ...]
    equations: tuple[WrittenEquation, ...]
    doc: str = ""

    def serialise(self) -> str:
        """One text for one spec, the same in every process: what the cache's source key is made from."""
        lines = [f"layer {self.name}", f"doc {self.doc!r}"]
        lines += [f"size {s.name} {s.axes} {s.typical}" for s in self.sizes]
        lines += [f"scalar {s.name} {s.dtype} {s.default!r}" for s in self.scalars]
        for kind, tensors in (("input", self.inputs), ("inner", self.intermediates), ("output", self.outputs)):
            lines += [f"{kind} {t.name} {t.dtype} {t.shape}" for t in tensors]
        lines += [f"{sp.srepr(e.left)} = {sp.srepr(e.right)}" for e in self.equations]
        return "\n".join(lines)


def limits(expr: sp.Expr) -> tuple[tuple[Any, sp.Expr, sp.Expr], ...]:
    """(index, start, stop) of a reduction, outermost first."""
    if isinstance(expr, Reduction):
        return tuple((i, getattr(i, "start", sp.S.Zero), getattr(i, "stop", sp.S.Zero)) for i in expr.args[1])
    return tuple((limit[0], limit[1], limit[2] + 1) for limit in expr.limits)


def make_spec(
    name: str,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    equations: Sequence[Any],
    scalars: Sequence[Any] = (),
    doc: str = "",
) -> Spec:
    """A validated `Spec`. Raises `SpecError`, naming layer, equation and index."""
    what = f"layer {name!r}"
    if not isinstance(name, str):
        raise SpecError(what, "the name is not a string.", "The first argument of jc.Layer is its name.")
    notation.check_name("layer", name)
    _declared(what, "inputs", inputs, Tensor, "jc.tensor")
    _declared(what, "outputs", outputs, Tensor, "jc.tensor")
    _declared(what, "scalars", scalars, notation.Scalar, "jc.scalar")
    if not outputs:
        raise SpecError(what, "it has no output.", "Name at least one tensor in outputs=[...].")
    written = tuple(_written(what, one) for one in equations)
    targets = tuple(dict.fromkeys(e.target for e in written))
    spec = Spec(
        name,
        tuple(inputs),
        tuple(scalars),
        tuple(outputs),
        tuple(t for t in targets if t not in outputs),
        (),
        written,
        str(doc),
    )
    _check_tensors(what, spec, targets)
    for equation in written:
        _check_equation(f"{what}, equation {equation}", spec, equation)
    sizes = _sizes(spec)
    spec = Spec(spec.name, spec.inputs, spec.scalars, spec.outputs, spec.intermediates, sizes, spec.equations, spec.doc)
    _check_names(what, spec)
    _check_read(what, spec)
    return spec


def _declared(what: str, kind: str, given: Sequence[Any], cls: type, maker: str) -> None:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise SpecError(what, f"{kind} is {given!r}.", f"Pass a list: {kind}=[...], each made by {maker}.")
    for one in given:
        if not isinstance(one, cls):
            hint = " An access such as x[n, i] is not a tensor: name x itself." if isinstance(one, Access) else ""
            raise SpecError(what, f"{one!s:.80} in {kind} was not made by {maker}.{hint}", f"Declare it with {maker}.")


def _written(what: str, equation: Any) -> WrittenEquation:
    if isinstance(equation, bool | sp.logic.boolalg.BooleanAtom):
        raise SpecError(
            what,
            f"an equation is {equation}: SymPy had already decided it.",
            "Both sides were equal, or could never be. Write Eq(y[n, i], ...) with different sides.",
        )
    if not isinstance(equation, sp.Eq):
        raise SpecError(what, f"{equation!s:.120} is not an equation.", "Write sympy.Eq(target[indices], expression).")
    left, right = equation.lhs, equation.rhs
    if not (isinstance(left, Access) and isinstance(left.base, Tensor)) and not isinstance(left, Tensor):
        raise SpecError(
            f"{what}, equation {left} = {right}",
            f"the left side {left} is not an access.",
            "The left side names what is defined: Eq(y[n, i], ...), or Eq(loss, ...) of a tensor of rank 0.",
        )
    return WrittenEquation(left, exact(right))


def exact(expr: sp.Expr) -> sp.Expr:
    """Floats read as their shortest decimal: 0.5 is 1/2."""
    floats = expr.atoms(sp.Float)
    if not floats:
        return expr
    return expr.xreplace({f: _rational(f) for f in sorted(floats, key=str)})


def _rational(value: sp.Float) -> sp.Expr:
    number = float(value)
    if number != number:
        return sp.nan
    return sp.oo * sp.sign(value) if abs(number) == float("inf") else sp.Rational(repr(number))


def _check_tensors(what: str, spec: Spec, targets: Sequence[Tensor]) -> None:
    by_name: dict[str, Tensor] = {}
    for tensor in (*spec.inputs, *spec.outputs, *targets, *_tensors_read(spec)):
        if by_name.setdefault(tensor.name, tensor) != tensor:
            raise SpecError(
                what,
                f"two tensors are named {tensor.name!r}, of shapes {by_name[tensor.name].shape} and {tensor.shape}.",
                "Give one of them another name.",
            )
    for tensor in spec.inputs:
        if tensor in targets:
            raise SpecError(what, f"input {tensor.name!r} has an equation.", "An input is given by the caller.")
    for kind, group in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        for tensor in group:
            if list(group).count(tensor) > 1:
                raise SpecError(what, f"{tensor.name!r} stands twice in {kind}.", "Name it once.")
    for tensor in spec.outputs:
        if tensor not in targets:
            raise SpecError(what, f"output {tensor.name!r} has no equation.", f"Add Eq({tensor.name}[...], ...).")
    for tensor in _tensors_read(spec):
        if tensor not in targets and tensor not in spec.inputs:
            raise SpecError(
                what,
                f"{tensor.name!r} is read but never defined.",
                "Add it to inputs, or give it an equation.",
            )
    for tensor in (*spec.inputs, *targets):
        for extent in tensor.shape:
            if extent.has(Access, Index, Tensor):
                raise SpecError(
                    what,
                    f"the extent {extent} of {tensor.name!r} depends on data or on an index.",
                    "Extents are expressions in sizes and integer scalars; data-dependent output sizes are refused.",
                )


def _tensors_read(spec: Spec) -> tuple[Tensor, ...]:
    found: dict[Tensor, None] = {}
    for equation in spec.equations:
        for side in (equation.right, *equation.indices):
            for node in sp.preorder_traversal(side):
                if isinstance(node, Tensor):
                    found.setdefault(node)
    return tuple(found)


def _sizes(spec: Spec) -> tuple[Size, ...]:
    """Every size, in the order of inputs, outputs, intermediates, then equations."""
    found: dict[Size, None] = {}
    tensors = (*spec.inputs, *spec.outputs, *spec.intermediates)
    expressions = [e for t in tensors for e in t.shape] + [s for e in spec.equations for s in (e.left, e.right)]
    for expr in expressions:
        for node in sp.preorder_traversal(expr):
            if isinstance(node, Size):
                found.setdefault(node)
    return tuple(found)


def _check_names(what: str, spec: Spec) -> None:
    seen: dict[str, str] = {}
    kinds: Mapping[str, Sequence[Any]] = {
        "size": spec.sizes,
        "scalar": spec.scalars,
        "tensor": (*spec.inputs, *spec.outputs, *spec.intermediates),
    }
    for kind, group in kinds.items():
        for one in group:
            if one.name in seen:
                raise SpecError(
                    what, f"{one.name!r} names a {seen[one.name]} and a {kind}.", "Give one of them another name."
                )
            seen[one.name] = kind


def _check_read(what: str, spec: Spec) -> None:
    read = set(_tensors_read(spec))
    for tensor in (*spec.inputs, *spec.intermediates):
        if tensor not in read:
            kind = "input" if tensor in spec.inputs else "intermediate"
            one = f"{tensor.name}[n]" if tensor.shape else tensor.name
            raise SpecError(
                what,
                f"{kind} {tensor.name!r} is never read.",
                f"Python decides == before jaccomp sees it: {one} == c is False. "
                f"Write Eq({one}, c) or KroneckerDelta({one}, c).",
            )
    symbols: set[Any] = set()
    for equation in spec.equations:
        symbols |= equation.right.atoms(notation.Scalar) | equation.left.atoms(notation.Scalar)
    for tensor in (*spec.inputs, *spec.outputs, *spec.intermediates):
        for extent in tensor.shape:
            symbols |= extent.atoms(notation.Scalar)
    for equation in spec.equations:
        for index in sorted((equation.right.atoms(Index) | equation.left.atoms(Index)), key=str):
            symbols |= index.start.atoms(notation.Scalar) | index.stop.atoms(notation.Scalar)
    for scalar in spec.scalars:
        if scalar not in symbols:
            raise SpecError(what, f"scalar {scalar.name!r} is never read.", "Use it in an equation, or leave it out.")
    for symbol in sorted((s for s in symbols if s not in spec.scalars), key=str):
        raise SpecError(what, f"scalar {symbol.name!r} is used but not declared.", "Add it to scalars=[...].")


def _check_equation(what: str, spec: Spec, equation: WrittenEquation) -> None:
    target = equation.target
    if len(equation.indices) != len(target.shape):
        raise SpecError(what, f"{target.name!r} has {len(target.shape)} axes, the left side {len(equation.indices)}.",
                        "Give one index for each axis.")  # fmt: skip
    scope: dict[str, Index] = {}
    for expr in equation.indices:
        for node in sp.preorder_traversal(expr):
            if isinstance(node, Access):
                raise SpecError(
                    what,
                    f"the left side is indexed by data, {node}.",
                    "Write a sum over the source with KroneckerDelta(ids[n], v) instead.",
                )
        for index in _indices_of(expr):
            _enter(what, scope, index)
    for index in list(scope.values()):
        for end in (index.start, index.stop):
            _check_nodes(what, end, scope, allow_infinity=False)
    bare = [e for e in equation.indices if isinstance(e, Index)]
    if len(set(bare)) != len(bare):
        raise SpecError(what, "an index stands twice on the left.", "Use two indices and a KroneckerDelta.")
    _check_accesses(what, equation.left)
    if equation.right.has(sp.nan, sp.zoo) or equation.right.has(sp.I):
        raise SpecError(what, "the right side holds nan, zoo or the imaginary unit.", "Bodies are real expressions.")
    _check_nodes(what, equation.right, scope, allow_infinity=False)
    if target.dtype == "int64" and equation.right.is_integer is False:
        raise SpecError(what, f"{target.name!r} is int64 but the right side is not an integer.", "Use dtype='real'.")


def _indices_of(expr: sp.Expr) -> Iterator[Index]:
    """The indices of an expression in order of appearance; those inside another index's range are not among them."""
    if isinstance(expr, Index):
        yield expr
        return
    for one in expr.args:
        yield from _indices_of(one)


def _enter(what: str, scope: dict[str, Index], index: Index) -> None:
    known = scope.setdefault(index.name, index)
    if known != index:
        raise SpecError(
            what,
            f"index {index.name} has two ranges, {_range(known)} and {_range(index)}.",
            "Every index has one range: give the second another name.",
        )


def _range(index: Index) -> str:
    return f"{index.start}..{index.stop - 1}"


def _check_nodes(what: str, expr: Any, scope: dict[str, Index], allow_infinity: bool, inside_max: bool = False) -> None:
    if isinstance(expr, Index):
        known = scope.get(expr.name)
        if known is None:
            cause = (
                "SymPy's Max compares its arguments. For a maximum over k write jc.MaxOver(x[n, k], k)."
                if inside_max
                else f"Bind it, as in Sum(..., {expr.name}), or put it on the left."
            )
            raise SpecError(what, f"index {expr.name} is neither on the left nor bound.", cause)
        if known != expr:
            raise SpecError(
                what,
                f"index {expr.name} has two ranges, {_range(known)} and {_range(expr)}.",
                "Every index has one range: give the second another name.",
            )
        return
    if isinstance(expr, Tensor):
        if expr.shape:
            raise SpecError(
                what,
                f"tensor {expr.name!r} of rank {len(expr.shape)} stands without indices.",
                f"Write {expr.name}[{', '.join('ijklmnpq'[: len(expr.shape)])}].",
            )
        return
    if isinstance(expr, Access):
        _check_access(what, expr)
        for index in expr.indices:
            _check_nodes(what, index, scope, allow_infinity=False)
        return
    if expr in (sp.oo, -sp.oo):
        if not allow_infinity:
            raise SpecError(what, "oo stands outside pad, Piecewise or a reducer.", "Give the finite value meant.")
        return
    if isinstance(expr, LIMIT_HOLDERS):
        inner = dict(scope)
        for index, start, stop in limits(expr):
            if not isinstance(index, Index):
                raise SpecError(
                    what, f"{index} in {type(expr).__name__} is not an index.", "Declare it: jc.index('k', D)."
                )
            for end in (start, stop):
                _check_nodes(what, end, inner, allow_infinity=False)
            inner[index.name] = index
        _check_nodes(what, expr.args[0], inner, allow_infinity=isinstance(expr, Reduction))
        return
    if isinstance(expr, AppliedUndef) or not isinstance(expr, FUNCTIONS + STRUCTURE):
        name = type(expr).__name__
        if isinstance(expr, sp.Symbol):
            raise SpecError(
                what,
                f"the symbol {expr} was not declared.",
                "Declare it with jc.size, jc.index, jc.scalar or jc.tensor.",
            )
        known_names = ", ".join(sorted(f.__name__ for f in FUNCTIONS))
        raise SpecError(what, f"{name} is a function that jaccomp does not know.", f"Known: {known_names}.")
    infinity_next = isinstance(expr, Pad | sp.Piecewise | sp.functions.elementary.piecewise.ExprCondPair) or (
        allow_infinity and isinstance(expr, sp.Max | sp.Min)
    )
    node: Any = expr
    for one in node.args:
        _check_nodes(what, one, scope, infinity_next, inside_max or isinstance(expr, sp.Max | sp.Min))


def _check_access(what: str, access: Access) -> None:
    tensor = access.base
    if not isinstance(tensor, Tensor):
        raise SpecError(what, f"{access} does not read a tensor.", "Declare it with jc.tensor.")
    if len(access.indices) != len(tensor.shape):
        raise SpecError(
            what,
            f"{access} has {len(access.indices)} indices, but {tensor.name!r} has {len(tensor.shape)} axes "
            f"{tuple(tensor.shape)}.",
            "Give one index for each axis.",
        )
    _check_accesses(what, access)


def is_integral(expr: sp.Expr) -> bool:
    """Is the expression an integer for all values of what it reads? Floors are, whatever they divide by."""
    if isinstance(expr, sp.floor | sp.ceiling) or expr.is_integer:
        return True
    if isinstance(expr, sp.Add | sp.Mul | sp.Mod | sp.Max | sp.Min):
        return all(is_integral(one) for one in expr.args)
    return False


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def _check_accesses(what: str, access: sp.Expr) -> None:
    """Index expressions are integers; a bare index over one size does not read an axis of another."""
    if not isinstance(access, Access):
        return
    for axis, (index, extent) in enumerate(zip(access.indices, access.base.shape, strict=True)):
        where = f"{ORDINALS[axis]} axis" if axis < len(ORDINALS) else f"axis {axis}"
        if not isinstance(index, Access) and not is_integral(index):
            raise SpecError(
                what, f"{index} in {access} is not an integer.", "Index with indices, sizes, int64 scalars and tensors."
            )
        if isinstance(index, Access) and not index.is_integer:
            raise SpecError(
                what,
                f"{index}, the {where} of {access}, is a real tensor's value.",
                f"Declare {index.name!r} with dtype='int64'.",
            )
        mismatch = isinstance(index, Index) and isinstance(index.stop, Size) and isinstance(extent, Size)
        if mismatch and index.start == 0 and index.stop != extent:
            raise SpecError(
                what,
                f"index {index.name} runs over {_range(index)}, but the {where} of {access.name!r} has size {extent}.",
                "Declare both with the same size, or use two indices.",
            )
