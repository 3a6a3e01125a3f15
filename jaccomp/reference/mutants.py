"""Mutants: derived programs with one seeded defect each, and which of them the ladder lets through.

A row of `MUTATIONS` is a kind of mistake that a compiler could make. A mutant that passes every rung is a survivor; it
is excused only with a proof that it means the same: the changed bodies are equal expressions, also once the equalities
of the domain are solved; the dropped or loosened constraint follows from the others; nothing live was changed; or,
last, both programs agree to rounding at all sizes up to 3 on generic and on tied inputs, which two different analytic
bodies do with probability 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import sympy as sp

from jaccomp.calculus import functions as fn
from jaccomp.domains import axis_ranges, proves, solve_equalities
from jaccomp.errors import JaccompError
from jaccomp.notation import Access
from jaccomp.program import Constraint, Equation, Program, Term, accesses, live
from jaccomp.reference import sampling
from jaccomp.reference.interpreted import Interpreted
from jaccomp.reference.interpreter import evaluate
from jaccomp.reference.ladder import Case, examine
from jaccomp.reference.scalars import Array
from jaccomp.spec import Spec

Which = Literal["forward", "backward", "tangent"]
RUNG: Mapping[Which, str] = {"forward": "forward", "backward": "vjp", "tangent": "jvp"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A program with one defect: of which kind, where, and the terms before and after (none: dropped)."""

    kind: str
    description: str
    program: Program
    target: str
    before: Term
    after: Term | None


@dataclass(frozen=True, slots=True)
class Site:
    """One term of one equation of a program."""

    program: Program
    equation: Equation
    position: int

    @property
    def term(self) -> Term:
        return self.equation.terms[self.position]

    def with_term(self, term: Term | None) -> Program:
        terms = list(self.equation.terms)
        terms[self.position : self.position + 1] = [] if term is None else [term]
        mutated = replace(self.equation, terms=tuple(terms))
        return replace(
            self.program, equations=tuple(mutated if e is self.equation else e for e in self.program.equations)
        )


Change = Callable[[Site], Iterator[tuple[str, Term | None]]]


def _sign(site: Site) -> Iterator[tuple[str, Term | None]]:
    yield f"minus {site.term.body}", replace(site.term, body=-site.term.body)


def _scale(site: Site) -> Iterator[tuple[str, Term | None]]:
    yield f"0.1 % more of {site.term.body}", replace(site.term, body=site.term.body * sp.Rational(1001, 1000))


def _drop_term(site: Site) -> Iterator[tuple[str, Term | None]]:
    if site.equation.reducer == "sum":
        yield f"without the term {site.term.body}", None


def _drop_part(site: Site) -> Iterator[tuple[str, Term | None]]:
    """One summand, or one factor, of the body less."""
    for kind in (sp.Add, sp.Mul):
        if isinstance(site.term.body, kind) and not site.term.body.is_number:
            for k, part in enumerate(site.term.body.args):
                rest = kind(*site.term.body.args[:k], *site.term.body.args[k + 1 :])
                yield f"without {part} in {site.term.body}", replace(site.term, body=rest)


def _swap_indices(site: Site) -> Iterator[tuple[str, Term | None]]:
    """One read at another index of the same range; where two stand in one access, the two exchanged."""
    ranges = _ranges(site)
    for access in accesses(site.term.body):
        for here in dict.fromkeys(i for i in access.indices if i in ranges):
            for there in ranges:
                if there == here or ranges[there] != ranges[here]:
                    continue
                swapped = access.xreplace({here: there, there: here})
                if swapped != access:
                    yield _body(site, access, swapped)


def _shift_index(site: Site) -> Iterator[tuple[str, Term | None]]:
    for access in accesses(site.term.body):
        for k, index in enumerate(access.indices):
            moved = Access(access.base, *access.indices[:k], index + 1, *access.indices[k + 1 :])
            yield _body(site, access, moved)


def _shift_bound(site: Site) -> Iterator[tuple[str, Term | None]]:
    for k, constraint in enumerate(site.term.domain):
        for by in (-1, 1):
            moved = Constraint(constraint.expr + by, constraint.equality)
            domain = (*site.term.domain[:k], moved, *site.term.domain[k + 1 :])
            yield f"{moved} for {constraint}", replace(site.term, domain=domain)


def _drop_constraint(site: Site) -> Iterator[tuple[str, Term | None]]:
    for k, constraint in enumerate(site.term.domain):
        yield f"without {constraint}", replace(site.term, domain=(*site.term.domain[:k], *site.term.domain[k + 1 :]))


REPLACED: Mapping[type, type] = {
    sp.exp: fn.Expm1,
    sp.log: fn.Log1p,
    sp.sin: sp.cos,
    sp.cos: sp.sin,
    sp.tanh: sp.atan,
    sp.atan: sp.tanh,
    sp.erf: sp.tanh,
    sp.Abs: sp.sign,
    sp.sign: sp.Abs,
    sp.Max: sp.Min,
    sp.Min: sp.Max,
    fn.Sigmoid: sp.tanh,
    fn.Softplus: fn.Sigmoid,
    fn.Log1p: sp.log,
    fn.Expm1: sp.exp,
    fn.Step: fn.HalfStep,
    fn.HalfStep: fn.Step,
    fn.InverseRoot: sp.sqrt,
}


def _function(site: Site) -> Iterator[tuple[str, Term | None]]:
    """Another function, or another power, in one place."""
    for node in _nodes(site.term.body):
        other = REPLACED.get(type(node))
        if other is not None:
            yield _body(site, node, other(*node.args))
        elif isinstance(node, sp.Pow) and node.exp.is_Rational:
            yield _body(site, node, node.base ** (node.exp + 1))


def _operand(site: Site) -> Iterator[tuple[str, Term | None]]:
    """Another tensor of the same shape and kind."""
    declared = site.program.declarations()
    known = _known_before(site)
    for access in accesses(site.term.body):
        mine = declared[access.name]
        for name in known:
            other = declared[name]
            if name != access.name and other.shape == mine.shape and other.dtype == mine.dtype:
                yield _body(site, access, other[access.indices])


MUTATIONS: Mapping[str, Change] = {
    "sign": _sign,
    "scale": _scale,
    "drop term": _drop_term,
    "drop part": _drop_part,
    "swap indices": _swap_indices,
    "shift index": _shift_index,
    "shift bound": _shift_bound,
    "drop constraint": _drop_constraint,
    "function": _function,
    "operand": _operand,
}


def _body(site: Site, old: sp.Expr, new: sp.Expr) -> tuple[str, Term]:
    return f"{new} for {old} in {site.term.body}", replace(site.term, body=site.term.body.xreplace({old: new}))


def _nodes(expr: sp.Expr) -> Iterator[sp.Expr]:
    yield from dict.fromkeys(node for node in sp.preorder_traversal(expr) if isinstance(node, sp.Expr))


def _known_before(site: Site) -> list[str]:
    names = list(site.program.inputs)
    for equation in site.program.equations:
        if equation.target == site.equation.target:
            break
        names.append(equation.target)
    return names


def _ranges(site: Site) -> dict[sp.Expr, tuple[Any, ...]]:
    """The range of each index of a site: its lower and upper ends as they are written."""
    target = site.program.tensor(site.equation.target)
    given = Term(sp.S.Zero, (), (*axis_ranges(target), *site.term.domain))
    indices = (*site.equation.axes, *site.term.bound)
    return {i: (tuple(given.lower_bounds(i)), tuple(given.upper_bounds(i))) for i in indices}


def all_mutants(program: Program) -> Iterator[Mutant]:
    """Every mutant of what is live in a program, in the order of its equations, terms and the table."""
    program = live(program)
    for equation in program.equations:
        for position in range(len(equation.terms)):
            site = Site(program, equation, position)
            for kind, change in MUTATIONS.items():
                for what, term in change(site):
                    if term != site.term:
                        mutated = site.with_term(term)
                        yield Mutant(kind, f"{equation.target}: {what}", mutated, equation.target, site.term, term)


def mutants(program: Program, seed: int = 0, count: int = 40) -> tuple[Mutant, ...]:
    """At most `count` mutants chosen by `seed`, as evenly over the kinds as there are any."""
    rng = np.random.default_rng(seed)
    by_kind: dict[str, list[Mutant]] = {kind: [] for kind in MUTATIONS}
    for mutant in all_mutants(program):
        by_kind[mutant.kind].append(mutant)
    queues = [[group[k] for k in rng.permutation(len(group))] for group in by_kind.values()]
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return tuple(itertools.islice((m for m in rounds if m is not None), count))


# Which survive


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the mutants of one program: the caught, the excused with their proofs, the survivors."""

    caught: tuple[Mutant, ...]
    equivalent: tuple[tuple[Mutant, str], ...]
    survivors: tuple[Mutant, ...]

    @property
    def rate(self) -> float:
        """Of the mutants that mean something else, the part that is caught."""
        different = len(self.caught) + len(self.survivors)
        return 1.0 if different == 0 else len(self.caught) / different

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.caught + other.caught, self.equivalent + other.equivalent, self.survivors + other.survivors)

    def __str__(self) -> str:
        lines = [f"caught {len(self.caught)}, equivalent {len(self.equivalent)}, survived {len(self.survivors)}"]
        lines += [f"  equivalent, {proof}: [{m.kind}] {m.description}" for m, proof in self.equivalent]
        lines += [f"  SURVIVED: [{m.kind}] {m.description}" for m in self.survivors]
        return "\n".join(lines)


def judge(
    spec: Spec,
    programs: Mapping[Which, Program],
    which: Which,
    changed: Sequence[Mutant],
    cases: Sequence[Case],
) -> Outcome:
    """Let each mutant of `programs[which]` climb the cases in float64 until one catches it.

    Cases that the unchanged program does not pass are left out: they would catch anything.
    """
    rung = (RUNG[which],)

    def passes(program: Program, case: Case) -> bool:
        kernel = _kernel(programs, which, program)
        return all(row.passed for row in examine(spec, case, kernel, "float64", rungs=rung))

    useful = [case for case in cases if passes(programs[which], case)]
    caught: list[Mutant] = []
    equivalent: list[tuple[Mutant, str]] = []
    survivors: list[Mutant] = []
    for mutant in changed:
        if not all(passes(mutant.program, case) for case in useful):
            caught.append(mutant)
            continue
        proof = equivalence(programs[which], mutant, spec)
        if proof is None:
            survivors.append(mutant)
        else:
            equivalent.append((mutant, proof))
    return Outcome(tuple(caught), tuple(equivalent), tuple(survivors))


def _kernel(programs: Mapping[Which, Program], which: Which, program: Program) -> Interpreted:
    chosen = {**programs, which: program}
    return Interpreted(chosen["forward"], chosen["backward"], chosen["tangent"])


def equivalence(program: Program, mutant: Mutant, spec: Spec) -> str | None:
    """Why a mutant means the same as the program it came from, or None if no proof was found."""
    if all(e.target != mutant.target for e in live(program).equations):
        return "no output needs it"
    if mutant.after is not None:
        given = axis_ranges(program.tensor(mutant.target))
        if _equal(mutant.before, mutant.after, given):
            return "the terms are equal"
        before, after = (solve_equalities(t, given) for t in (mutant.before, mutant.after))
        if before is not None and after is not None and _equal(before, after, given):
            return "the terms are equal once their equalities are solved"
    return _same_values(program, mutant.program, spec)


def _equal(left: Term, right: Term, given: Sequence[Constraint]) -> bool:
    """The same bound indices, bodies that are equal expressions, and each domain following from the other."""
    if left.bound != right.bound or (left.body != right.body and sp.expand(left.body - right.body) != 0):
        return False
    return _implies(left, right, given) and _implies(right, left, given)


def _implies(left: Term, right: Term, given: Sequence[Constraint]) -> bool:
    return all(c in left.domain or (not c.is_data and proves((*given, *left.domain), c)) for c in right.domain)


def _same_values(program: Program, other: Program, spec: Spec, seed: int = 1) -> str | None:
    """Both at sizes from 0 to 3 (to 40 if there is one size), at most at 60 of them, on generic and on tied inputs."""
    rng = np.random.default_rng(seed)
    names = [s.name for s in spec.sizes]
    combinations = list(itertools.product(range(4 if len(names) > 1 else 40), repeat=min(len(names), 8)))
    chosen = [combinations[k] for k in rng.permutation(len(combinations))[:60]]
    tried = 0
    for values in chosen:
        vary = bool(rng.integers(2))
        sample = sampling.draw(spec, "equivalence", iter([dict(zip(names, values, strict=False))]), rng, vary)
        if sample is None:
            continue
        for tied in (False, True):
            arrays = _arrays(program, spec, sample, rng, tied)
            if not _agree(program, other, arrays, sample, spec):
                return None
            tried += 1
    return f"both agree at {tried} samples" if tried >= 4 else None


def _arrays(
    program: Program, spec: Spec, sample: sampling.Sample, rng: np.random.Generator, tied: bool
) -> dict[str, Array]:
    """Inputs of a derived program: those of the layer, and cotangents or tangents of its own shapes."""
    layer = dict(zip(program.inputs, (sample.inputs[t.name] for t in spec.inputs), strict=False))
    constants = _constants(program, spec, sample)
    arrays: dict[str, Array] = {}
    for name in program.inputs:
        if name in layer:
            real = program.tensor(name).dtype == "real"
            arrays[name] = sampling.tied(spec, sample, layer[name], rng) if tied and real else layer[name]
        else:
            arrays[name] = rng.standard_normal(sampling.extents(program.tensor(name).shape, constants))
    return arrays


def _constants(program: Program, spec: Spec, sample: sampling.Sample) -> dict[str, Any]:
    sizes = {canonical.name: sample.sizes[s.name] for canonical, s in zip(program.sizes, spec.sizes, strict=True)}
    scalars = {ours.name: sample.scalars[s.name] for ours, s in zip(program.scalars, spec.scalars, strict=True)}
    return {**sizes, **scalars}


def _agree(program: Program, other: Program, arrays: Mapping[str, Array], sample: sampling.Sample, spec: Spec) -> bool:
    constants = _constants(program, spec, sample)
    results: list[dict[str, Array] | None] = []
    for one in (program, other):
        try:
            results.append(evaluate(one, arrays, constants, constants))
        except (JaccompError, ArithmeticError, ValueError):
            results.append(None)
    first, second = results
    if first is None or second is None:
        return first is second
    return all(
        np.allclose(first[name], second[name], rtol=1e-12, atol=1e-14, equal_nan=True) for name in program.outputs
    )
