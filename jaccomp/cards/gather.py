"""A layer's derivation card: each field read off the stage that knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version

import sympy as sp

from jaccomp import pipeline
from jaccomp.algebra.certificate import certify
from jaccomp.algebra.counts import Count, elements, flops
from jaccomp.algebra.engine import RULES, Step
from jaccomp.algebra.limits import LARGEST, Limit, limits, overflows
from jaccomp.calculus.conventions import in_force
from jaccomp.calculus.scalar import Convention
from jaccomp.card import BlockCard, Card, CheckRecord, Cost, Line, Note, Residual, RuleFired
from jaccomp.cards.formulas import (
    count_line,
    equation_line,
    expression_line,
    jacobian_line,
    matrix_line,
    relation_line,
    written_line,
)
from jaccomp.cards.paths import chain_lines, local_lines
from jaccomp.cards.sources import source_parts
from jaccomp.cards.subject import Subject, arguments, shape_text, signature
from jaccomp.jacobian import Jacobian
from jaccomp.lowering.residuals import Halves
from jaccomp.matrix.form import Layout
from jaccomp.printing import expression_text, term_names
from jaccomp.program import Program, reads

BYTES = {"real": 4, "int64": 8}
"""Of one element, in a float32 call."""


def card(layer: Subject, checks: CheckRecord | None = None, layout: Layout = "numerator") -> Card:
    """The card of a layer; `checks` is the record of a run of its checks, where there was one."""
    derivation = pipeline.derive(layer.prepared, traced=True)
    halves, tangent = pipeline.halves(derivation), pipeline.tangent(layer.prepared)
    own = {equation.target for equation in layer.prepared.equations}
    jvp = pipeline.derive_jvp(layer.prepared)
    programs = {"forward": halves.forward, "fwd": halves.fwd, "bwd": halves.bwd, "jvp": tangent}
    if not halves.residuals:
        del programs["fwd"]
    return Card(
        name=layer.name,
        family=layer.family,
        doc=layer.doc,
        signature=signature(layer),
        version=version("jaccomp"),
        spec_hash=hashlib.sha256(layer.serialise().encode()).hexdigest(),
        arguments=arguments(layer),
        equations=equations(layer),
        intermediates=_lines(layer.prepared),
        local=local_lines(layer.prepared),
        chain=chain_lines(layer.prepared),
        blocks=tuple(_block(one, layout) for one in layer.jacobians().values()),
        rules=tuple(_fired(step) for step in derivation.steps),
        vjp=_lines(derivation.vjp, own),
        jvp=_lines(jvp, own),
        residuals=_residuals(layer, halves),
        costs=_costs(halves, tangent),
        conventions=conventions(layer, halves),
        domain=_domain(layer, halves),
        source=source_parts(programs),
        checks=checks,
    )


def conventions(layer: Subject, halves: Halves) -> tuple[Convention, ...]:
    """The published conventions that a layer's values or derivatives lean on."""
    return in_force(layer.program, halves.fwd, halves.bwd)


def equations(layer: Subject) -> tuple[Line, ...]:
    """As written; of a layer that was derived, its program."""
    return tuple(map(written_line, layer.spec.equations)) if layer.is_written else _lines(layer.program)


def _lines(program: Program, known: set[str] | frozenset[str] = frozenset()) -> tuple[Line, ...]:
    """The equations of a program but for those that are known already."""
    return tuple(equation_line(program, one) for one in program.equations if one.target not in known)


def _block(jacobian: Jacobian, layout: Layout) -> BlockCard:
    certificate = certify(jacobian.layout, jacobian.program.inputs)  # canonical sizes print as they are declared

    def text(formula: sp.Expr) -> str:
        return expression_text(jacobian.program.labels, formula, {})

    return BlockCard(
        of=jacobian.of,
        wrt=jacobian.wrt,
        line=jacobian_line(jacobian),
        matrix=matrix_line(jacobian, layout),
        layout=layout,
        structure=certificate.words,
        rank=("" if certificate.exact else "at most ") + text(certificate.rank),
        storage=text(certificate.storage),
        work=text(certificate.work),
        norm="" if jacobian.certificate.norm is None else f"at most {text(jacobian.certificate.norm)}",
    )


def _fired(step: Step) -> RuleFired:
    law = next(rule.law for rule in RULES if rule.name == step.rule)
    return RuleFired(step.rule, law, step.before, step.after)


# Residuals and costs


def _residuals(layer: Subject, halves: Halves) -> tuple[Residual, ...]:
    """What the backward half reads beside cotangents, in the order in which it comes to be."""
    reasons = dict(halves.reasons)
    read = {name for equation in halves.bwd.equations for name in reads(equation)}
    outputs = halves.forward.outputs
    given = [(n, "an input: that array itself, which must not be changed") for n in halves.forward.inputs if n in read]
    given += [(n, "an output: that array itself, which must not be changed") for n in outputs if n in read]
    label = halves.bwd.labels.name
    joint = {t.name: p for p in (halves.bwd, halves.fwd) for t in p.tensors}
    kept = [Residual(label(n), shape_text(layer, joint[n], n), True, why) for n, why in given]
    others = [
        Residual(label(n), shape_text(layer, joint[n], n), why.is_kept, str(why))
        for n, why in reasons.items()
        if n in joint
    ]
    return (*kept, *others)


def _costs(halves: Halves, tangent: Program) -> tuple[Cost, ...]:
    """Operations of the programs that kernels are made from, and bytes of what each reads and writes once."""
    programs = {"forward": halves.forward, "vjp": halves.bwd, "jvp": tangent}
    return tuple(
        Cost(name, count_line(one.labels, flops(one)), count_line(one.labels, _traffic(one)))  # type: ignore[arg-type]
        for name, one in programs.items()
    )


def _traffic(program: Program) -> Count:
    counted = elements(program, dict.fromkeys((*program.inputs, *program.outputs)))
    return Count(sp.Add(*(BYTES[dtype] * count for dtype, count in counted.items())))


# The domain


def _domain(layer: Subject, halves: Halves) -> tuple[Note, ...]:
    found = [_note(layer.prepared, one) for one in limits(layer.prepared, halves.forward, halves.bwd)]
    origin = {"overflow": halves.forward, "stabilised": layer.program}
    found += [_note(origin[one.kind], one) for one in overflows(layer.program, halves.forward)]
    first: dict[tuple[str, str], Note] = {}
    for note in found:
        first.setdefault((note.what, note.where.text), note)
    return tuple(first.values())


def _note(program: Program, limit: Limit) -> Note:
    equation = equation_line(program, limit.equation)
    names = term_names(program, limit.equation, limit.term)
    why = f"{limit.why}, in {equation.text}"
    if limit.unless:
        known = " or ".join(_spelled(program, one) for one in limit.unless)
        why += f"; never where {known}"
    if limit.where is None:
        return Note(limit.kind, Line(f"ties in {equation.text}", rf"\text{{ties in }} {equation.latex}"), why)
    if limit.kind in ("overflow", "stabilised"):
        return _overflow(program, limit, names, equation.text)
    return Note(limit.kind, relation_line(program.labels, limit.where, names), why)


def _overflow(program: Program, limit: Limit, names: Mapping[sp.Symbol, str], equation: str) -> Note:
    assert limit.where is not None
    exponent = expression_line(program.labels, limit.where.args[0], names)
    single, double = LARGEST["float32"], LARGEST["float64"]
    where = Line(f"{exponent.text} > {single}", f"{exponent.latex} > {single}")
    said = f"{limit.why} of float32 (of float64 beyond {double}), in {equation}"
    if limit.kind == "stabilised":
        said += "; computed in a form that does not overflow"
    return Note(limit.kind, where, said)


def _spelled(program: Program, condition: str) -> str:
    """`c0 > 0` in the user's name."""
    name, _, rest = condition.partition(" ")
    return f"{program.labels.name(name)} {rest}"
