"""Normal form: `Spec -> Program`. No reduction inside a body, equal ones shared, dependency order, canonical names.

Each nested reduction, padded access and indicator becomes an equation of its own over the indices it depends on. A sum
that is added or scaled at the top of an equation stays there as a term. Names given to the parts that have none are
ordered by what they compute, so that neither spelling nor the order of SymPy's arguments shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sympy as sp

from jaccomp import notation
from jaccomp.domains import axis_ranges, hull, proves
from jaccomp.errors import SpecError
from jaccomp.grammar import limits
from jaccomp.notation import Access, Index, Pad, Reduction
from jaccomp.pieces import check_partition
from jaccomp.program import (
    AXES,
    Constraint,
    Domain,
    Equation,
    Labels,
    Program,
    Reducer,
    Scalar,
    Tensor,
    Term,
    equal,
    expand,
    in_range,
    index_symbol,
    map_terms,
    reads,
    size_symbol,
    term_accesses,
    tidy,
    value_symbol,
    verify,
)
from jaccomp.spec import Spec, WrittenEquation

NESTED: Mapping[type, Reducer] = {
    sp.Product: "prod",
    notation.MaxOver: "max",
    notation.MinOver: "min",
    notation.ArgMaxOver: "argmax",
    notation.ArgMinOver: "argmin",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """The indices in force: canonical symbols by name, outermost first, with the constraints of their ranges."""

    symbols: Mapping[str, sp.Symbol] = field(default_factory=dict)
    order: tuple[sp.Symbol, ...] = ()
    domain: Domain = ()

    def enter(self, name: str, symbol: sp.Symbol, ranges: Iterable[Constraint]) -> Scope:
        return Scope({**self.symbols, name: symbol}, (*self.order, symbol), (*self.domain, *ranges))


@dataclass(slots=True)
class Builder:
    """The program under construction; the only mutable thing here."""

    what: str
    constants: dict[sp.Expr, sp.Expr]
    tensors: dict[str, Tensor]
    parts: list[tuple[Tensor, Equation]] = field(default_factory=list)
    known: dict[tuple[Any, ...], str] = field(default_factory=dict)
    symbols: int = 0

    def symbol(self) -> sp.Symbol:
        self.symbols += 1
        return index_symbol(f"_{self.symbols}")

    def part(self, terms: Sequence[Term], scope: Scope, reducer: Reducer, dtype: str = "real") -> sp.Expr:
        """A tensor of its own for `terms` over the indices in scope that they depend on, read where it is needed."""
        used = [s for s in scope.order if any(s in _free(term) for term in terms)]
        guards = tuple(c for c in scope.domain if c.expr.free_symbols & set(used) and _inside(c, scope, used))
        box = Term(sp.S.Zero, scope.order, scope.domain)
        extents = tuple(hull(box, s, ())[1] + 1 for s in used)
        where = dict(zip(used, AXES, strict=False))
        tensor = Tensor(f"_part{len(self.parts)}", extents, "int64" if dtype == "int64" else "real")
        plain = axis_ranges(tensor)
        guard = tuple(g for c in guards if not proves(plain, g := c.over(where), depth=2))
        rows = tuple(tidy(replace(t.over(where), domain=(*t.over(where).domain, *guard))) for t in terms)
        key = (reducer, rows, extents, dtype)
        if key in self.known:
            tensor = replace(tensor, name=self.known[key])
        else:
            self.known[key] = tensor.name
            self.tensors[tensor.name] = tensor
            self.parts.append((tensor, Equation(tensor.name, AXES[: tensor.rank], rows, reducer)))
        return tensor[tuple(used)]


def _free(term: Term) -> set[sp.Symbol]:
    found = set(term.body.free_symbols)
    for constraint in term.domain:
        found |= constraint.expr.free_symbols
    return found - set(term.bound)


def _inside(constraint: Constraint, scope: Scope, used: Sequence[sp.Symbol]) -> bool:
    return all(s in used for s in constraint.expr.free_symbols if s in scope.order)


def normalise(spec: Spec) -> Program:
    """The program of a spec. Raises `SpecError` where a read or a piece cannot be proved to be well defined."""
    constants: dict[sp.Expr, sp.Expr] = {s: size_symbol(f"s{k}") for k, s in enumerate(spec.sizes)}
    constants.update({s: value_symbol(f"c{k}", s.dtype) for k, s in enumerate(spec.scalars)})
    targets = tuple(dict.fromkeys(e.target for e in spec.equations))
    names = {t: f"x{k}" for k, t in enumerate(spec.inputs)} | {t: f"v{k}" for k, t in enumerate(targets)}
    tensors = {
        names[t]: Tensor(names[t], tuple(_constant(e, constants) for e in t.shape), _kind(t.dtype)) for t in names
    }
    builder = Builder(f"layer {spec.name!r}", constants, dict(tensors))
    constants.update({t: value_symbol(name, t.dtype) for t, name in names.items()})
    written: dict[str, list[Equation]] = {}
    for one in spec.equations:
        builder.what = f"layer {spec.name!r}, equation {one}"
        written.setdefault(names[one.target], []).append(_equation(builder, one, tensors[names[one.target]]))
    equations = [_join(spec, builder, tensors[name], pieces) for name, pieces in written.items()]
    program = Program(
        name=spec.name,
        sizes=tuple(constants[s] for s in spec.sizes),
        scalars=tuple(Scalar(constants[s].name, _kind(s.dtype), s.default) for s in spec.scalars),
        inputs=tuple(names[t] for t in spec.inputs),
        outputs=tuple(names[t] for t in spec.outputs),
        tensors=tuple(tensors[n] for n in names.values()),
        equations=(),
        labels=_labels(spec, names, constants),
        typical=tuple(s.typical for s in spec.sizes),
        any_axes=tuple(constants[s].name for s in spec.sizes if s.axes == "any"),
        doc=spec.doc,
    )
    program = _assemble(program, builder, equations)
    _check_written_domains(spec, program)
    return verify(program)


def _kind(dtype: str) -> Any:
    return "int64" if dtype == "int64" else "real"


def _constant(expr: sp.Expr, constants: Mapping[sp.Expr, sp.Expr]) -> sp.Expr:
    return expand(expr.xreplace(constants))


# ---------------------------------------------------------------------------------------------------------- equations


def _equation(builder: Builder, written: WrittenEquation, target: Tensor) -> Equation:
    """One written equation as an equation on the target's axes; an affine left side becomes constraints."""
    scope = Scope()
    where: dict[sp.Symbol, sp.Expr] = {}
    for expr in written.indices:
        for index in sorted(expr.atoms(Index), key=lambda i: i.name) if not isinstance(expr, Index) else (expr,):
            if index.name not in scope.symbols:
                scope = scope.enter(index.name, builder.symbol(), ())
    for index in _declared_indices(written):
        if index.name in scope.symbols:
            ranges = _ranges(builder, scope.symbols[index.name], index.start, index.stop, scope)
            scope = Scope(scope.symbols, scope.order, (*scope.domain, *ranges))
    images = tuple(_expr(builder, expr, scope) for expr in written.indices)
    for axis, image in zip(AXES, images, strict=False):
        if image in scope.order and image not in where:
            where[image] = axis
    bound = [s for s in scope.order if s not in where]
    links = tuple(equal(image, axis) for axis, image in zip(AXES, images, strict=False) if where.get(image) != axis)
    reducer, terms = _right(builder, written.right, scope)
    plain = axis_ranges(target)
    domain = tuple(c.over(where) for c in scope.domain)
    kept = tuple(c for c in domain if not proves(plain, c, depth=3))
    rows = []
    for term in terms:
        moved = term.over(where)
        rows.append(
            tidy(Term(moved.body, (*bound, *moved.bound), (*kept, *(c.over(where) for c in links), *moved.domain)))
        )
    return Equation(target.name, AXES[: target.rank], tuple(rows), reducer)


def _declared_indices(written: WrittenEquation) -> tuple[Index, ...]:
    found: dict[Index, None] = {}
    for expr in written.indices:
        for node in sp.preorder_traversal(expr):
            if isinstance(node, Index):
                found.setdefault(node)
    return tuple(found)


def _right(builder: Builder, expr: sp.Expr, scope: Scope) -> tuple[Reducer, list[Term]]:
    """The right side as terms of one reducer; a reduction that does not need every index becomes a part."""
    kind = NESTED.get(type(expr))
    if kind is not None:
        term = _reduction(builder, expr, scope)
        if set(scope.order) <= _free(term):
            return kind, [term]
    return "sum", _terms(builder, expr, scope, top=True)


def _terms(builder: Builder, expr: sp.Expr, scope: Scope, top: bool) -> list[Term]:
    """`expr` as a sum of terms: what is linear in sums, zero-padded accesses and indicators is taken apart."""
    found: list[Term] = []
    for addend in sp.Add.make_args(expr):
        factors = sp.Mul.make_args(addend)
        sums = [f for f in factors if isinstance(f, sp.Sum)]
        if len(sums) == 1:
            rest = sp.Mul(*(f for f in factors if f is not sums[0]))
            inner = _sum(builder, sums[0], scope)
            if top and all(set(scope.order) <= _free(t) for t in inner):
                outer = _product(builder, rest, scope)
                found += [Term(outer.body * t.body, t.bound, (*outer.domain, *t.domain)) for t in inner]
                continue
        found.append(_product(builder, addend, scope))
    return _gather_plain(found)


def _gather_plain(terms: list[Term]) -> list[Term]:
    """Terms without bound indices over the same domain as one term."""
    bodies: dict[Domain, list[sp.Expr]] = {}
    for term in terms:
        if not term.bound:
            bodies.setdefault(term.domain, []).append(term.body)
    found: list[Term] = []
    for term in terms:
        if term.bound:
            found.append(term)
        elif term.domain in bodies:
            found.append(Term(sp.Add(*bodies.pop(term.domain)), (), term.domain))
    return found


def _product(builder: Builder, expr: sp.Expr, scope: Scope) -> Term:
    """One addend: zero-padded accesses and deltas among its factors become constraints."""
    body: list[sp.Expr] = []
    domain: list[Constraint] = []
    for factor in sp.Mul.make_args(expr):
        if isinstance(factor, Pad) and factor.args[1] == 0:
            access = _plain_access(builder, factor.args[0], scope)
            if access is not None:
                body.append(access)
                domain += _inside_tensor(builder, access, scope)
                continue
        if isinstance(factor, sp.KroneckerDelta):
            left, right = (_expr(builder, a, scope) for a in factor.args[:2])
            domain.append(equal(left, right))
            continue
        body.append(_expr(builder, factor, scope))
    return Term(sp.Mul(*body), (), tuple(domain))


def _sum(builder: Builder, expr: sp.Expr, scope: Scope) -> list[Term]:
    inner, bound, domain = _bind(builder, expr, scope)
    body = sp.expand_mul(expr.args[0]) if expr.args[0].has(sp.KroneckerDelta, Pad) else expr.args[0]
    if isinstance(body, sp.Add) and not body.has(sp.KroneckerDelta, Pad):
        return [Term(_expr(builder, body, inner), bound, domain)]
    return [Term(t.body, bound, (*domain, *t.domain)) for t in _terms(builder, body, inner, top=False)]


def _bind(builder: Builder, expr: sp.Expr, scope: Scope) -> tuple[Scope, tuple[sp.Symbol, ...], Domain]:
    """The scope inside a reduction, and its indices as they are listed; what a range reads is in scope before it."""
    inner = scope
    listed = list(expr.args[1]) if isinstance(expr, Reduction) else [limit[0] for limit in expr.limits]
    bound: list[tuple[int, sp.Symbol]] = []
    domain: list[Constraint] = []
    for index, start, stop in limits(expr):
        symbol = builder.symbol()
        ranges = _ranges(builder, symbol, start, stop, inner)
        inner = inner.enter(index.name, symbol, ranges)
        bound.append((listed.index(index), symbol))
        domain += ranges
    return inner, tuple(symbol for _, symbol in sorted(bound, key=lambda pair: pair[0])), tuple(domain)


def _reduction(builder: Builder, expr: sp.Expr, scope: Scope) -> Term:
    """A maximum, minimum, product or argument of one: padding with the neutral infinity becomes a constraint."""
    inner, bound, domain = _bind(builder, expr, scope)
    body = expr.args[0]
    neutral = -sp.oo if isinstance(expr, notation.MaxOver | notation.ArgMaxOver) else sp.oo
    if isinstance(body, Pad) and body.args[1] == neutral and not isinstance(expr, sp.Product):
        access = _plain_access(builder, body.args[0], inner)
        if access is not None:
            return Term(access, bound, (*domain, *_inside_tensor(builder, access, inner)))
    return Term(_expr(builder, body, inner), bound, domain)


# -------------------------------------------------------------------------------------------------------- expressions


def _expr(builder: Builder, expr: Any, scope: Scope) -> Any:
    """A user's expression in canonical symbols, with every nested reduction replaced by a read of its part."""
    if isinstance(expr, Index):
        return scope.symbols[expr.name]
    if expr in builder.constants and not isinstance(expr, notation.Tensor):
        return builder.constants[expr]
    if isinstance(expr, notation.Tensor):
        return Access(builder.constants[expr])
    if isinstance(expr, Access):
        return _access(builder, expr, scope)
    if isinstance(expr, sp.Sum):
        return builder.part(_sum(builder, expr, scope), scope, "sum")
    kind = NESTED.get(type(expr))
    if kind is not None:
        dtype = "int64" if kind in ("argmax", "argmin") else "real"
        return builder.part([_reduction(builder, expr, scope)], scope, kind, dtype)
    if isinstance(expr, Pad):
        return _pad(builder, expr, scope)
    if isinstance(expr, sp.KroneckerDelta):
        left, right = (_expr(builder, a, scope) for a in expr.args[:2])
        return builder.part([Term(sp.S.One, (), (equal(left, right),))], scope, "sum")
    if not expr.args:
        return expr
    if isinstance(expr, sp.Piecewise):
        return sp.Piecewise(*((_expr(builder, v, scope), _expr(builder, c, scope)) for v, c in expr.args))
    return expr.func(*(_expr(builder, one, scope) for one in expr.args))


def _access(builder: Builder, expr: Access, scope: Scope) -> sp.Expr:
    """A read; an index with a floor or a remainder of indices becomes a constraint on an index of its own."""
    indices, bound, links = [], [], []
    for one in expr.indices:
        index = _expr(builder, one, scope)
        index, extra = _without_floor(builder, index)
        indices.append(expand(index) if not index.has(Access) else index)
        bound += [s for s, _ in extra]
        links += [c for _, pair in extra for c in pair]
    access = Access(builder.constants[expr.base], *indices)
    if not bound:
        return access
    extents = builder.tensors[access.name].shape
    for index, extent in zip(indices, extents, strict=True):
        if any(s in index.free_symbols for s in bound):
            links += in_range(index, extent)
    ranges = tuple(links)
    dtype = "int64" if access.is_integer else "real"
    return builder.part([Term(access, tuple(bound), tuple(dict.fromkeys(ranges)))], scope, "sum", dtype)


def _without_floor(
    builder: Builder, expr: sp.Expr
) -> tuple[sp.Expr, list[tuple[sp.Symbol, tuple[Constraint, Constraint]]]]:
    """`floor(e/c)` of indices as a new index q with `c q <= e < c q + c`; `Mod(e, c)` as `e - c q`."""
    extra: list[tuple[sp.Symbol, tuple[Constraint, Constraint]]] = []
    if isinstance(expr, Access):
        return expr, extra
    for node in [n for n in sp.postorder_traversal(expr) if isinstance(n, sp.Mod | sp.floor)]:
        argument, divisor = node.args if isinstance(node, sp.Mod) else _quotient(node.args[0])
        if not any(s.name.startswith("_") for s in argument.free_symbols) or argument.has(Access):
            continue
        q = builder.symbol()
        remainder = expand(argument - divisor * q)
        extra.append((q, in_range(remainder, divisor)))
        expr = expr.xreplace({node: q if isinstance(node, sp.floor) else remainder})
    return expr, extra


def _quotient(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """`e/c` as (e, c) with integer coefficients."""
    numerator, denominator = sp.fraction(sp.together(expr))
    return expand(numerator), denominator


def _plain_access(builder: Builder, expr: Access, scope: Scope) -> Access | None:
    """The read, unless it needed a part."""
    access = _access(builder, expr, scope)
    return access if isinstance(access, Access) and access.base == builder.constants[expr.base] else None


def _inside_tensor(builder: Builder, access: Access, scope: Scope) -> tuple[Constraint, ...]:
    """What must hold for a padded access to lie in its tensor, less what the ranges in scope imply."""
    extents = builder.tensors[access.name].shape
    ranges = (c for i, extent in zip(access.indices, extents, strict=True) for c in in_range(i, extent))
    return tuple(c for c in ranges if not proves(scope.domain, c, depth=3))


def _pad(builder: Builder, expr: Pad, scope: Scope) -> sp.Expr:
    access = _plain_access(builder, expr.args[0], scope)
    if access is None:
        raise SpecError(
            builder.what,
            f"the padded access {expr.args[0]} divides an index.",
            "Name the divided read in an equation of its own, and pad that.",
        )
    inside = _inside_tensor(builder, access, scope)
    if not inside:
        return access
    value = _expr(builder, expr.args[1], scope)
    if value in (sp.oo, -sp.oo):
        return builder.part([Term(access, (), inside)], scope, "max" if value == -sp.oo else "min")
    terms = [Term(access - value, (), inside)]
    return builder.part(terms if value == 0 else [*terms, Term(value)], scope, "sum")


def _ranges(builder: Builder, symbol: sp.Symbol, start: sp.Expr, stop: sp.Expr, scope: Scope) -> tuple[Constraint, ...]:
    """`start <= symbol < stop`, a maximum at the start and a minimum at the stop taken apart."""
    low, high = _expr(builder, start, scope), _expr(builder, stop, scope)
    if low.has(sp.Min) or high.has(sp.Max) or low.has(Access) or high.has(Access):
        raise SpecError(
            builder.what,
            f"the range {start}..{stop - 1} starts at a minimum, stops at a maximum, or reads a tensor.",
            "A range starts at integer expressions or their Max, and stops at integer expressions or their Min.",
        )
    lows = [_affine(symbol - one) for one in _arguments(low, sp.Max)]
    highs = [_affine(one - 1 - symbol) for one in _arguments(high, sp.Min)]
    return (*lows, *highs)


def _arguments(expr: sp.Expr, kind: type) -> list[sp.Expr]:
    """`Max(a, b) + c` as [a + c, b + c]."""
    nodes = sorted(expr.atoms(kind), key=str)
    if not nodes:
        return [expand(expr)]
    return [expand(expr.xreplace({nodes[0]: one})) for one in nodes[0].args]


def _affine(expr: sp.Expr) -> Constraint:
    """`expr >= 0` without floors of indices: `floor(e/c) + r >= 0` is `e + c r >= 0`."""
    expr = expand(expr)
    for node in sorted(expr.atoms(sp.floor), key=str):
        if not any(s.name.startswith("_") for s in node.free_symbols):
            continue
        numerator, divisor = _quotient(node.args[0])
        rest = expr - expr.coeff(node) * node
        if expr.coeff(node) == 1:
            return Constraint(expand(numerator + divisor * rest))
        if expr.coeff(node) == -1:
            return Constraint(expand(divisor * (rest + 1) - numerator - 1))
    return Constraint(expr)


# ----------------------------------------------------------------------------------------------------------- assembly


def _join(spec: Spec, builder: Builder, target: Tensor, pieces: list[Equation]) -> Equation:
    """The pieces of one target as one equation, once their images are proved to partition it."""
    written = [e for e in spec.equations if builder.constants[e.target].name == target.name]
    what = f"layer {spec.name!r}, equation {written[0]}"
    check_partition(what, target, pieces, written[0].target.name)
    if len(pieces) == 1:
        return pieces[0]
    rows: list[Term] = []
    for piece in pieces:
        if piece.reducer != "sum":
            part = Tensor(f"_part{len(builder.parts)}", target.shape, target.dtype)
            builder.tensors[part.name] = part
            (term,) = piece.terms
            links = tuple(c for c in term.domain if c.equality)
            builder.parts.append((part, replace(piece, target=part.name)))
            rows.append(tidy(Term(part[piece.axes], term.bound, tuple(term.domain) if links else term.domain)))
        else:
            rows += piece.terms
    return Equation(target.name, AXES[: target.rank], tuple(rows))


def _assemble(program: Program, builder: Builder, equations: list[Equation]) -> Program:
    """All equations in dependency order, parts renamed `u0, u1, ...` by their content."""
    waiting = list(builder.parts)
    names: dict[sp.Expr, sp.Expr] = {}
    done: list[Equation] = []
    tensors = list(program.tensors)
    available = set(program.inputs)
    pending = list(equations)
    count = 0
    while waiting or pending:
        ready = [(t, map_terms(e, lambda row: _renamed(row, names))) for t, e in waiting]
        ready = [(t, e) for t, e in ready if set(reads(e)) <= available]
        if ready:
            tensor, equation = min(ready, key=lambda pair: str((pair[0].shape, pair[1].reducer, pair[1].terms)))
            name = f"u{count}"
            count += 1
            names[value_symbol(tensor.name, tensor.dtype)] = value_symbol(name, tensor.dtype)
            tensors.append(replace(tensor, name=name))
            done.append(replace(equation, target=name))
            available.add(name)
            waiting = [pair for pair in waiting if pair[0].name != tensor.name]
            continue
        settled = [e for e in pending if set(reads(map_terms(e, lambda row: _renamed(row, names)))) <= available]
        if not settled:
            _refuse_cycle(program, pending)
        done.append(map_terms(settled[0], lambda row: _renamed(row, names)))
        available.add(settled[0].target)
        pending.remove(settled[0])
    return replace(program, tensors=tuple(tensors), equations=tuple(done))


def _renamed(term: Term, names: Mapping[sp.Expr, sp.Expr]) -> Term:
    return term.over(names) if names else term


def _refuse_cycle(program: Program, pending: list[Equation]) -> None:
    named = [program.labels.name(e.target) for e in pending]
    first = pending[0]
    if first.target in reads(first):
        raise SpecError(
            f"layer {program.name!r}",
            f"{named[0]!r} is defined by itself: a recurrence over an index.",
            "Recurrences are refused for now: write one step as a layer and loop over it.",
        )
    raise SpecError(
        f"layer {program.name!r}",
        f"{', '.join(map(repr, named))} depend on each other in a cycle, or on themselves through a recurrence.",
        "Each tensor is defined from inputs and tensors defined without it.",
    )


def _check_written_domains(spec: Spec, program: Program) -> None:
    """Every read of a tensor written on part of its box lies in that part."""
    partial = {e.target: e for e in program.equations if e.target[0] == "v" and _guards(e)}
    if not partial:
        return
    for equation in program.equations:
        for term in equation.terms:
            facts = (*axis_ranges(program.tensor(equation.target)), *term.domain)
            for access in term_accesses(term):
                source = partial.get(access.name)
                if source is None:
                    continue
                where = dict(zip(source.axes, access.indices, strict=True))
                for guard in _guards(source):
                    if not proves(facts, guard.over(where)):
                        label = program.labels.name
                        raise SpecError(
                            f"layer {spec.name!r}, equation of {label(equation.target)!r}",
                            f"{label(access.name)!r} is read outside the domain that its equation writes.",
                            "Read it over the same triangle, or write it everywhere.",
                        )


def _guards(equation: Equation) -> tuple[Constraint, ...]:
    """The constraints on axes alone that every term of an equation shares."""
    axes = set(equation.axes)
    shared: list[Constraint] | None = None
    for term in equation.terms:
        own = [
            c
            for c in term.domain
            if not c.equality and c.expr.free_symbols & axes and not c.expr.free_symbols & set(term.bound)
        ]
        shared = own if shared is None else [c for c in shared if c in own]
    return tuple(shared or ())


def _labels(spec: Spec, names: Mapping[notation.Tensor, str], constants: Mapping[sp.Expr, sp.Expr]) -> Labels:
    """The user's words: names, the axes of tensors as first read at free indices, the indices seen over each extent."""
    words = {name: t.name for t, name in names.items()}
    constant_symbols: tuple[Any, ...] = (*spec.sizes, *spec.scalars)
    words.update({constants[s].name: s.name for s in constant_symbols})
    axes: dict[str, tuple[str, ...]] = {}
    summed: dict[str, tuple[str, ...]] = {}
    ranges: dict[sp.Expr, dict[str, None]] = {}
    for equation in spec.equations:
        free = {str(i) for expr in equation.indices for i in expr.atoms(Index)}
        for side in (equation.left, equation.right):
            nodes: list[Any] = list(sp.preorder_traversal(side))
            for node in nodes:
                if isinstance(node, Index):
                    extent = node.stop if node.start == 0 else node
                    if not extent.has(Index):
                        ranges.setdefault(_constant(extent, constants), {}).setdefault(node.name)
                if isinstance(node, Access) and all(isinstance(i, Index) for i in node.indices):
                    letters: tuple[str, ...] = tuple(str(i) for i in node.indices)
                    if node.base in names and len(set(letters)) == len(letters):
                        (axes if free.issuperset(letters) else summed).setdefault(names[node.base], letters)
    return Labels(words, {**summed, **axes}, tuple((extent, tuple(found)) for extent, found in ranges.items()))
