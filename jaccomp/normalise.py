"""Normal form: `Spec -> Program`. No reduction inside a body, equal ones shared, dependency order, canonical names.

Each nested reduction, padded access and indicator becomes an equation of its own over the indices it depends on. A sum
that is added or scaled at the top of an equation stays there as a term. Names given to the parts that have none are
ordered by what they compute, so that neither spelling nor the order of SymPy's arguments shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sympy as sp

from jaccomp import notation
from jaccomp.canonical import canonical_equation, term_key
from jaccomp.domains import axis_ranges, proves
from jaccomp.errors import SpecError
from jaccomp.grammar import indices_of, range_of
from jaccomp.notation import Access, Index
from jaccomp.pieces import check_partition
from jaccomp.program import (
    AXES,
    Domain,
    Equation,
    Labels,
    Program,
    Scalar,
    Tensor,
    Term,
    equal,
    expand,
    in_range,
    map_terms,
    reads,
    size_symbol,
    term_accesses,
    value_symbol,
    verify,
)
from jaccomp.spec import Spec, WrittenEquation
from jaccomp.terms import Builder, Scope, expression, ranges_of, right_side


@dataclass(frozen=True, slots=True)
class Piece:
    """A written equation on its target's axes; `left` has the bound indices and the constraints of its left side."""

    written: WrittenEquation
    equation: Equation
    left: Term


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
    pieces: dict[str, list[Piece]] = {names[t]: [] for t in targets}
    for one in spec.equations:
        builder.what = f"layer {spec.name!r}, equation {one}"
        alone = sum(other.target == one.target for other in spec.equations) == 1
        pieces[names[one.target]].append(_equation(builder, one, tensors[names[one.target]], alone))
    equations = [_join(spec, tensors[name], group) for name, group in pieces.items()]
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
    program, origins = _assemble(program, builder, equations)
    _check_written_domains(spec, program, pieces, origins)
    return verify(program)


def _kind(dtype: str) -> Any:
    return "int64" if dtype == "int64" else "real"


def _constant(expr: sp.Expr, constants: Mapping[sp.Expr, sp.Expr]) -> sp.Expr:
    return expand(expr.xreplace(constants))


# ---------------------------------------------------------------------------------------------------------- equations


def _equation(builder: Builder, written: WrittenEquation, target: Tensor, alone: bool) -> Piece:
    """One written equation on the target's axes; an affine left side becomes constraints."""
    scope = Scope()
    for expr in written.indices:
        for index in _in_order(builder, expr):
            if index.name not in scope.symbols:
                scope = scope.enter(index.name, builder.symbol(), ())
    for index in _declared_indices(written):
        if index.name in scope.symbols:
            symbol = scope.symbols[index.name]
            scope = replace(scope, domain=(*scope.domain, *ranges_of(builder, symbol, index.start, index.stop, scope)))
    images = tuple(expression(builder, expr, scope) for expr in written.indices)
    where: dict[sp.Symbol, sp.Expr] = {}
    for axis, image in zip(AXES, images, strict=False):
        if image in scope.order and image not in where:
            where[image] = axis
    _check_inside(builder, written, target, scope)
    bound = tuple(s for s in scope.order if s not in where)
    links = tuple(equal(image, axis) for axis, image in zip(AXES, images, strict=False) if where.get(image) != axis)
    plain = axis_ranges(target)
    kept = tuple(c for c in (one.over(where) for one in scope.domain) if not proves(plain, c, depth=3))
    left = Term(sp.S.Zero, bound, (*kept, *(c.over(where) for c in links)))
    reducer, terms = right_side(builder, written.right, scope, whole=alone and not left.domain)
    moved = [term.over(where) for term in terms]
    rows = [Term(one.body, (*bound, *one.bound), (*left.domain, *one.domain)) for one in moved]
    return Piece(written, canonical_equation(Equation(target.name, AXES[: target.rank], tuple(rows), reducer)), left)


def _in_order(builder: Builder, expr: sp.Expr) -> list[Index]:
    """The indices of an image by their coefficients and ranges, not by their names."""
    if isinstance(expr, Index):
        return [expr]
    found = dict.fromkeys(indices_of(expr))
    spread = expand(expr)
    parts = {i: (spread.coeff(i), i.start, i.stop) for i in found}
    return sorted(found, key=lambda i: str([part.xreplace(builder.constants) for part in parts[i]]))


def _check_inside(builder: Builder, written: WrittenEquation, target: Tensor, scope: Scope) -> None:
    """A bare index on the left stays on the axis that it writes."""
    for axis, (expr, extent) in enumerate(zip(written.indices, target.shape, strict=True)):
        if not isinstance(expr, Index):
            continue
        if not all(proves(scope.domain, c) for c in in_range(scope.symbols[expr.name], extent)):
            raise SpecError(
                builder.what,
                f"index {expr.name} runs over {range_of(expr)}, but axis {axis} of {written.target.name!r} has extent "
                f"{written.target.shape[axis]}.",
                "Let it run over the extent of the axis that it writes.",
            )


def _declared_indices(written: WrittenEquation) -> tuple[Index, ...]:
    found: dict[Index, None] = {}
    for expr in written.indices:
        for node in sp.preorder_traversal(expr):
            if isinstance(node, Index):
                found.setdefault(node)
    return tuple(found)


# ----------------------------------------------------------------------------------------------------------- assembly


def _join(spec: Spec, target: Tensor, pieces: list[Piece]) -> Equation:
    """The pieces of one target as one equation, once their images are proved to partition it."""
    written = pieces[0].written
    check_partition(f"layer {spec.name!r}, equation {written}", target, [p.left for p in pieces], written.target.name)
    if len(pieces) == 1:
        return pieces[0].equation
    return Equation(target.name, AXES[: target.rank], tuple(row for p in pieces for row in p.equation.terms))


def _assemble(program: Program, builder: Builder, equations: list[Equation]) -> tuple[Program, dict[str, str]]:
    """All equations in dependency order, parts renamed `u0, u1, ...` by their content; and where each part is from."""
    waiting = list(builder.parts)
    names: dict[sp.Expr, sp.Expr] = {}
    done: list[Equation] = []
    tensors = list(program.tensors)
    available = set(program.inputs)
    pending = list(equations)
    origins: dict[str, str] = {}
    while waiting or pending:
        ready = [(t, _in_names(e, names)) for t, e in waiting if _settled(e, names, available)]
        if ready:
            tensor, equation = min(ready, key=lambda pair: str((pair[0].shape, pair[1].reducer, pair[1].terms)))
            name = f"u{len(origins)}"
            origins[name] = builder.origins[tensor.name]
            names[value_symbol(tensor.name, tensor.dtype)] = value_symbol(name, tensor.dtype)
            tensors.append(replace(tensor, name=name))
            done.append(replace(equation, target=name))
            available.add(name)
            waiting = [pair for pair in waiting if pair[0].name != tensor.name]
            continue
        settled = next(e for e in pending if _settled(e, names, available))
        done.append(_in_names(settled, names))
        available.add(settled.target)
        pending.remove(settled)
    return replace(program, tensors=tuple(tensors), equations=tuple(done)), origins


def _settled(equation: Equation, names: Mapping[sp.Expr, sp.Expr], available: set[str]) -> bool:
    known = {symbol.name for symbol in names}
    return all(name in available or name in known for name in reads(equation))


def _in_names(equation: Equation, names: Mapping[sp.Expr, sp.Expr]) -> Equation:
    """The equation with the parts that it reads renamed, its terms in one spelling and one order."""
    renamed = canonical_equation(map_terms(equation, lambda term: term.over(names)))
    return replace(renamed, terms=tuple(sorted(renamed.terms, key=term_key)))


def _check_written_domains(
    spec: Spec, program: Program, pieces: Mapping[str, list[Piece]], origins: Mapping[str, str]
) -> None:
    """Every read of a tensor written on part of its box lies in that part."""
    partial = {name: guards for name, group in pieces.items() if (guards := _written_domain(group))}
    if not partial:
        return
    written = {name: f"layer {spec.name!r}, equation {group[0].written}" for name, group in pieces.items()}
    for equation, term, access in _reads(program):
        if access.name not in partial:
            continue
        facts = (*axis_ranges(program.tensor(equation.target)), *term.domain)
        where = dict(zip(AXES, access.indices, strict=False))
        if not all(proves(facts, guard.over(where)) for guard in partial[access.name]):
            first = pieces[access.name][0].written
            raise SpecError(
                written.get(equation.target) or origins[equation.target],
                f"{first.target.name!r} is read outside the domain that its equation, with {first.left} on the left, "
                "writes.",
                "Read it over the same triangle, or write it everywhere.",
            )


def _reads(program: Program) -> Iterator[tuple[Equation, Term, Access]]:
    for equation in program.equations:
        for term in equation.terms:
            for access in term_accesses(term):
                yield equation, term, access


def _written_domain(pieces: list[Piece]) -> Domain:
    """The constraints on axes alone of a left side that stands alone: the triangle that it writes."""
    if len(pieces) > 1:
        return ()
    left = pieces[0].left
    return tuple(c for c in left.domain if not c.equality and not c.expr.free_symbols & set(left.bound))


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
