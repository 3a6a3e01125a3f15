"""Spec: a layer as its author wrote it, validated, plain and canonically serialisable.

What can be decided without index calculus is refused here and in `grammar`, each refusal naming layer, equation and
index; what needs it (reads outside a written domain, pieces that do not partition their target) by `normalise`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy as sp
from sympy.printing.str import StrPrinter

from jaccomp import display, notation
from jaccomp.errors import SpecError
from jaccomp.grammar import DECLARE, check, check_left, example, is_whole
from jaccomp.notation import Access, Index, Size, Tensor

SINGLE = 24  # bits of precision of a float32


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
        printer = _Printer()
        return f"{printer.doprint(self.left)} = {printer.doprint(self.right)}"

    _repr_mimebundle_ = display.mimebundle


class _Printer(StrPrinter):  # type: ignore[misc]
    """SymPy's own, but for the arguments of Max and Min: it keeps them unordered, so short ones come first here."""

    def _print_extremum(self, expr: sp.Expr) -> str:
        texts = sorted((self._print(one) for one in expr.args), key=lambda text: (len(text), text))
        return f"{type(expr).__name__}({', '.join(texts)})"

    _print_Max = _print_Min = _print_extremum


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
    if not isinstance(doc, str):
        raise SpecError(what, f"doc is {doc!r:.80}.", "Pass a string.")
    if isinstance(equations, str) or not isinstance(equations, Sequence):
        raise SpecError(what, f"equations is {equations!s:.80}.", "Pass a list: equations=[Eq(...), ...].")
    written = tuple(_written(what, one, k, len(equations)) for k, one in enumerate(equations))
    targets = tuple(dict.fromkeys(e.target for e in written))
    inner = tuple(t for t in targets if t not in outputs)
    spec = Spec(name, tuple(inputs), tuple(scalars), tuple(outputs), inner, (), written, doc)
    _check_tensors(what, spec, targets)
    for equation in written:
        _check_equation(f"{what}, equation {equation}", equation)
    _check_order(what, spec)
    spec = replace(spec, sizes=_sizes(spec))
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


def _written(what: str, equation: Any, position: int, count: int) -> WrittenEquation:
    if isinstance(equation, bool | sp.logic.boolalg.BooleanAtom):
        raise SpecError(
            f"{what}, equation {position + 1} of {count}",
            f"it is {equation}: SymPy, or Python, had already decided it.",
            "Eq of equal sides is True; of what can never be equal (nan, oo, a fraction for an int64 tensor) False, "
            "and so is ==. Write Eq(y[n, i], ...) of a real expression.",
        )
    if not isinstance(equation, sp.Eq):
        raise SpecError(
            f"{what}, equation {position + 1} of {count}",
            f"{equation!s:.120} is not an equation.",
            "Write sympy.Eq(target[indices], expression).",
        )
    left, right = equation.lhs, equation.rhs
    if not (isinstance(left, Access) and isinstance(left.base, Tensor)) and not isinstance(left, Tensor):
        raise SpecError(
            f"{what}, equation {left} = {right}",
            f"the left side {left} is not an access.",
            "The left side names what is defined: Eq(y[n, i], ...), or Eq(loss, ...) of a tensor of rank 0.",
        )
    return WrittenEquation(left, exact(right))


def _check_equation(what: str, equation: WrittenEquation) -> None:
    target = equation.target
    place = check_left(what, target, equation.left)
    check(place, equation.right)
    if target.dtype == "int64" and not is_whole(equation.right):
        raise SpecError(
            what,
            f"{target.name!r} is int64, but the right side is not integer arithmetic.",
            "Integers come from indices, int64 tensors, floor and ArgMaxOver; declare it real for anything else.",
        )


def _check_order(what: str, spec: Spec) -> None:
    """No tensor is defined by itself, at once or through others."""
    needs: dict[Tensor, dict[Tensor, WrittenEquation]] = {}
    for equation in spec.equations:
        read = [node for node in sp.preorder_traversal(equation.right) if isinstance(node, Tensor)]
        needs.setdefault(equation.target, {}).update(dict.fromkeys(read, equation))
    for target, reads in needs.items():
        if target in reads:
            raise SpecError(
                f"{what}, equation {reads[target]}",
                f"{target.name!r} is defined by itself: a recurrence over an index.",
                "Recurrences are refused for now: write one step as a layer and loop over it.",
            )
    settled: set[Tensor] = set()
    waiting = dict(needs)
    while ready := [t for t, read in waiting.items() if not any(r in waiting and r not in settled for r in read)]:
        settled.update(ready)
        waiting = {t: read for t, read in waiting.items() if t not in settled}
    if not waiting:
        return
    path = [next(iter(waiting))]
    while True:
        following = next(r for r in waiting[path[-1]] if r in waiting)
        if following in path:
            break
        path.append(following)
    circle = path[path.index(following) :]
    raise SpecError(
        f"{what}, equation {waiting[circle[0]][(*circle, circle[0])[1]]}",
        f"{', '.join(repr(t.name) for t in circle)} depend on each other in a cycle.",
        "Each tensor is defined from inputs and from tensors defined without it.",
    )


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
    if abs(number) == float("inf"):
        return sp.oo * sp.sign(value)
    return sp.Rational(repr(number) if value._prec > SINGLE else _shortest_single(number))


def _shortest_single(number: float) -> str:
    """The shortest decimal that is `number` in float32, as a NumPy float32 comes: 0.1, not 0.10000000149."""
    texts = (f"{number:.{digits}g}" for digits in range(1, 10))
    return next(t for t in texts if struct.unpack("f", struct.pack("f", float(t)))[0] == number)


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
            for symbol in sorted(extent.free_symbols, key=str):
                if isinstance(symbol, sp.Symbol) and not isinstance(symbol, Size | notation.Scalar):
                    raise SpecError(
                        what, f"the symbol {symbol} in an extent of {tensor.name!r} was not declared.", DECLARE
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
    """Every size, in the order of inputs, outputs, intermediates, then equations, whatever the sizes are called.

    Of an expression with several new ones, as `G*K`, the order waits for an extent or a range that has them one by one.
    """
    tensors = (*spec.inputs, *spec.outputs, *spec.intermediates)
    sides = [side for e in spec.equations for side in (e.left, e.right)]
    ranges = [end for side in sides for node in _nodes(side, Index) for end in (node.start, node.stop)]
    extents = [e for t in tensors for e in t.shape]
    found: dict[Size, None] = {}
    for expressions in (extents, extents, ranges, ranges):
        for expr in expressions:
            new = [size for size in _nodes(expr, Size) if size not in found]
            if len(set(new)) == 1:
                found.setdefault(new[0])
    rest = dict.fromkeys(size for expr in (*extents, *ranges, *sides) for size in _nodes(expr, Size))
    rest = {size: None for size in rest if size not in found}
    if len(rest) > 1:
        known = {size: sp.Symbol(f"s{k}") for k, size in enumerate(found)}
        blank = {**known, **dict.fromkeys(rest, sp.Symbol("other"))}
        signs = {
            size: sorted(str(e.xreplace({**blank, size: sp.Symbol("this")})) for e in extents if e.has(size))
            for size in rest
        }
        rest = dict.fromkeys(sorted(rest, key=lambda size: str(signs[size])))
    return (*found, *rest)


def _nodes(expr: sp.Basic, kind: type) -> list[Any]:
    return [node for node in sp.preorder_traversal(expr) if isinstance(node, kind)]


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
    # What Python's == dropped is an integer tensor, and may have dropped others with it.
    for tensor in sorted((*spec.inputs, *spec.intermediates), key=lambda t: t.dtype != "int64"):
        if tensor not in read:
            one = example(tensor, _letters(spec, tensor))
            kind = "input" if tensor in spec.inputs else "intermediate"
            remedy = "" if tensor.dtype == "int64" else "Read it in an equation, or leave it out. "
            raise SpecError(
                what,
                f"{kind} {tensor.name!r} is never read.",
                f"{remedy}Python decides == before jaccomp sees it: {one} == c is False. "
                f"Write Eq({one}, c) or KroneckerDelta({one}, c).",
            )
    symbols: dict[notation.Scalar, None] = {}
    for tensor in (*spec.inputs, *spec.outputs, *spec.intermediates):
        for extent in tensor.shape:
            symbols |= _scalars_in(extent)
    for equation in spec.equations:
        symbols |= {**_scalars_in(equation.right), **_scalars_in(equation.left)}
    for scalar in spec.scalars:
        if scalar not in symbols:
            raise SpecError(what, f"scalar {scalar.name!r} is never read.", "Use it in an equation, or leave it out.")
    for scalar in symbols:
        if scalar not in spec.scalars:
            raise SpecError(what, f"scalar {scalar.name!r} is used but not declared.", "Add it to scalars=[...].")


def _letters(spec: Spec, tensor: Tensor) -> list[str]:
    """The names of indices that run over a tensor's axes, as far as the layer has them."""
    found: list[str] = []
    for extent in tensor.shape:
        nodes = (node for e in spec.equations for side in (e.left, e.right) for node in sp.preorder_traversal(side))
        fits = (n.name for n in nodes if isinstance(n, Index) and n.stop == extent and n.name not in found)
        name = next(fits, None)
        if name is None:
            break
        found.append(name)
    return found


def _scalars_in(expr: sp.Expr) -> dict[notation.Scalar, None]:
    return {node: None for node in sp.preorder_traversal(expr) if isinstance(node, notation.Scalar)}
