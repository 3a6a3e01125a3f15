"""Programs -> Signature: extents from SymPy to plain data, and which axes determine which sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sympy as sp

from jaccomp.binding import (
    Apply,
    CornerForm,
    Extent,
    Name,
    Operation,
    ProgramForm,
    ScalarForm,
    ScanForm,
    Side,
    Signature,
    SlotForm,
    Solution,
    TensorForm,
    Whole,
    names,
)
from jaccomp.emit.access_checks import corners, scans
from jaccomp.emit.bundle import ROLES, Bundle, Role
from jaccomp.errors import StageError
from jaccomp.program import Program, Tensor, reads

Label = Callable[[str], str]


def extent(expr: sp.Expr, label: Label) -> Extent:
    """An integer expression in sizes and integer scalars as plain data. Raises `StageError` for another function."""
    match expr:
        case sp.Integer():
            return Whole(int(expr))
        case sp.Symbol():
            return Name(label(expr.name))
        case sp.floor():
            return _quotient("floordiv", expr.args[0], label)
        case sp.ceiling():
            return _quotient("ceildiv", expr.args[0], label)
        case sp.Mod():
            return Apply("mod", (extent(expr.args[0], label), extent(expr.args[1], label)))
        case sp.Max() | sp.Min():
            op: Operation = "max" if isinstance(expr, sp.Max) else "min"
            return Apply(op, tuple(extent(one, label) for one in sorted(expr.args, key=sp.default_sort_key)))
        case sp.Abs():
            one = extent(expr.args[0], label)
            return Apply("max", (one, Apply("mul", (Whole(-1), one))))
    if sp.fraction(sp.together(expr))[1] != 1:
        return _quotient("floordiv", expr, label)
    match expr:
        case sp.Add():
            return Apply("add", tuple(extent(one, label) for one in _positive_first(expr.as_ordered_terms())))
        case sp.Mul():
            return Apply("mul", tuple(extent(one, label) for one in expr.as_ordered_factors()))
        case sp.Pow(args=(base, sp.Integer() as power)) if 0 < power <= 16:
            return Apply("mul", (extent(base, label),) * int(power))
    raise StageError("emit", f"the extent {expr} is not made of sums, products, floor, ceiling, Mod, Max and Min.")


def _quotient(op: str, expr: sp.Expr, label: Label) -> Extent:
    numerator, denominator = sp.fraction(sp.together(expr))
    over, under = extent(sp.expand(numerator), label), extent(sp.expand(denominator), label)
    if under == Whole(1):
        return over
    return Apply("ceildiv" if op == "ceildiv" else "floordiv", (over, under))


def _positive_first(terms: Sequence[sp.Expr]) -> list[sp.Expr]:
    return sorted(terms, key=lambda one: bool(one.could_extract_minus_sign()))


def solutions(shapes: Sequence[sp.Expr], sizes: Sequence[sp.Symbol], label: Label) -> tuple[Solution, ...]:
    """How each extent that is linear in a size, and no size by itself, determines it."""
    found: list[Solution] = []
    for expr in dict.fromkeys(shapes):
        for size in sizes:
            flat = sp.expand(expr)
            if expr == size or size not in flat.free_symbols:
                continue
            rest = flat.xreplace({size: sp.S.Zero})
            factor = sp.expand((flat - rest) / size)
            if size in factor.free_symbols or factor.has(sp.zoo, sp.nan) or rest.has(sp.zoo, sp.nan):
                continue
            found.append(Solution(extent(expr, label), label(size.name), extent(factor, label), extent(rest, label)))
    return tuple(found)


def required(inputs: Sequence[Tensor], sizes: Sequence[sp.Symbol]) -> tuple[str, ...]:
    """The canonical names of the sizes that a call must pass, where each one given determines all that it can."""
    shapes = [extent for one in inputs for extent in one.shape]
    rules = solutions(shapes, sizes, str)
    known = {extent.name for extent in shapes if extent in sizes}
    asked: list[str] = []
    while True:
        progress = True
        while progress:
            more = {
                r.size for r in rules if {*names(r.factor), *names(r.rest)} & {s.name for s in sizes} <= known
            } - known
            progress = bool(more)
            known |= more
        unknown = [s.name for s in sizes if s.name not in known]
        if not unknown:
            return tuple(asked)
        asked.append(unknown[0])
        known.add(unknown[0])


def slot(bundle: Bundle, name: str) -> tuple[Side, str]:
    """Whose primal, cotangent or tangent a canonical name is. Raises `StageError` where it is nobody's."""
    base = bundle.base
    own = (*base.inputs, *base.outputs, *bundle.residuals)
    if name in own:
        return "primal", name
    for primal in sorted(own, key=len, reverse=True):
        mark = name.removesuffix(primal)
        if mark != name and mark.endswith("_"):
            if mark[:-1].rstrip("0123456789") == "ct":
                return "cotangent", primal
            if mark[:-1].rstrip("0123456789") == "t":
                return "tangent", primal
    raise StageError(
        f"module {bundle.name!r}", f"{name!r} is no tensor of the layer, nor a cotangent or tangent of one."
    )


def declared(bundle: Bundle, name: str) -> Tensor:
    """The declaration of a layer's tensor in whichever program has it."""
    for program in bundle.programs.values():
        for one in program.tensors:
            if one.name == name:
                return one
    raise StageError(f"module {bundle.name!r}", f"no program declares {name!r}.")


def kept(bundle: Bundle) -> tuple[str, ...]:
    """The canonical names of what the backward function reads, cotangents apart."""
    if "bwd" not in bundle.programs:
        return ()
    return tuple(name for name in bundle.programs["bwd"].inputs if slot(bundle, name)[0] == "primal")


def any_sizes(bundle: Bundle) -> tuple[str, ...]:
    """The canonical names of the sizes that stand for any number of axes."""
    return bundle.any_axes or bundle.base.any_axes


def needed_inputs(program: Program, output: str) -> tuple[str, ...]:
    """The inputs that an output depends on."""
    needed = {output}
    for equation in reversed(program.equations):
        if equation.target in needed:
            needed.update(reads(equation))
    return tuple(name for name in program.inputs if name in needed)


def program_form(bundle: Bundle, role: Role) -> ProgramForm:
    """How a call sees the kernel of a role."""
    program, label = bundle.programs[role], bundle.label

    def plain(expr: sp.Expr) -> Extent:
        return extent(expr, label)

    def place(name: str, needs: tuple[str, ...]) -> SlotForm:
        side, primal = slot(bundle, name)
        return SlotForm(side, label(primal), tuple(map(program.inputs.index, needs)))

    computed = frozenset(name for name in program.inputs if name not in bundle.base.inputs)
    scanned = [(one, *slot(bundle, one.ids)) for one in scans(program, computed)]
    return ProgramForm(
        inputs=tuple(place(name, ()) for name in program.inputs),
        outputs=tuple(place(name, needed_inputs(program, name)) for name in program.outputs),
        scalars=_scalars(bundle, program),
        corners=tuple(
            CornerForm(
                text=one.text,
                axis=one.axis,
                low=plain(one.low),
                high=plain(one.high),
                extent=plain(one.extent),
                ranges=tuple(map(plain, one.ranges)),
            )
            for one in corners(program)
        ),
        scans=tuple(
            ScanForm(
                text=one.text,
                side=side,
                name=label(primal),
                axis=one.axis,
                low=plain(one.low),
                high=plain(one.high),
                extent=plain(one.extent),
                computed=one.computed,
            )
            for one, side, primal in scanned
        ),
        extents=tuple(
            (plain(e), f"{label(one.name)}, axis {d}")
            for one in program.tensors
            for d, e in enumerate(one.shape)
            if not isinstance(e, sp.Symbol | sp.Integer)
        ),
    )


def _scalars(bundle: Bundle, program: Program) -> tuple[str, ...]:
    """The scalars that a call must know: what the program reads, and the integer ones, which extents may hold."""
    bodies = [x for e in program.equations for t in e.terms for x in (t.body, *(c.expr for c in t.domain))]
    read = set().union(*(x.free_symbols for x in bodies))
    return tuple(bundle.label(s.name) for s in bundle.base.scalars if s.dtype == "int64" or s.symbol in read)


def signature(bundle: Bundle) -> Signature:
    """What a call of the layer takes and gives. Raises `StageError` where programs do not fit together."""
    base = bundle.base
    label = bundle.label
    inputs, outputs = base.inputs, base.outputs
    free = any_sizes(bundle)

    def form(name: str) -> TensorForm:
        tensor = declared(bundle, name)
        at = [d for d, e in enumerate(tensor.shape) if isinstance(e, sp.Symbol) and e.name in free]
        if len(at) > 1:
            raise StageError(
                f"module {bundle.name!r}", f"{label(name)!r} has two axes that stand for any number of axes."
            )
        shape = tuple(extent(e, label) for e in tensor.shape)
        return TensorForm(label(name), shape, tensor.dtype == "int64", at[0] if at else None)

    tensors = [declared(bundle, name) for name in (*inputs, *outputs, *bundle.residuals)]
    serving = {role: one for role in ROLES if (one := bundle.serving(role))}
    forms = {one: program_form(bundle, one) for one in dict.fromkeys(serving.values())}
    asked = required([declared(bundle, name) for name in inputs], base.sizes)
    return Signature(
        layer=bundle.layer or bundle.name,
        inputs=tuple(map(form, inputs)),
        outputs=tuple(map(form, outputs)),
        residuals=tuple(map(form, bundle.residuals)),
        kept=tuple(label(name) for name in kept(bundle)),
        scalars=tuple(ScalarForm(label(s.name), s.dtype == "int64", s.default) for s in base.scalars),
        sizes=tuple(label(s.name) for s in base.sizes),
        any_sizes=tuple(label(name) for name in free),
        solutions=solutions([e for t in tensors for e in t.shape], base.sizes, label),
        required=tuple(map(label, asked)),
        programs={role: forms[one] for role, one in serving.items()},
    )
