"""Simplification: a table of named rules, applied in a fixed order, with a trace, under an operation budget.

A rule is `State -> State` and never makes a program dearer; `simplify` runs the table until nothing changes. Only the
equations that are not `given` are rewritten: the definitions of the layer stay what its author wrote, and are what the
derived equations are rewritten in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import sympy as sp

from jaccomp.algebra import naming, sums
from jaccomp.algebra.cost import FUNCTION_WEIGHT, operations, program_cost
from jaccomp.algebra.examples import EXAMPLES, Example
from jaccomp.algebra.factoring import collected, expansion
from jaccomp.algebra.relations import Relation, relations, substitute
from jaccomp.domains import axis_ranges, select, solve_equalities
from jaccomp.printing import equation_text
from jaccomp.program import (
    Equation,
    Program,
    Tensor,
    Term,
    live,
    map_terms,
    reads,
    tidy,
    verify,
)

LARGEST_ROUNDS = 4
BUDGET = 4_000  # operations of all bodies worked on; what is left unsimplified beyond it is still right


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that fired: the equations before it, and what they became."""

    rule: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(slots=True)
class Budget:
    """What may still be done, in operations of bodies that are worked on; one for a whole simplification."""

    left: int = BUDGET

    def allows(self, expr: sp.Expr) -> bool:
        """Is there enough left to work on an expression? What that costs is taken."""
        self.left -= operations(expr) + expansion(expr)
        return self.left > 0


@dataclass(slots=True)
class State:
    """A program on its way, the names of its given equations, and what may still be done."""

    program: Program
    given: frozenset[str]
    budget: Budget = field(default_factory=Budget)

    @property
    def derived(self) -> frozenset[str]:
        return frozenset(e.target for e in self.program.equations) - self.given


Action = Callable[[State], Program]


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table: what it does, by which law, why it cannot go on for ever, and an example that is run."""

    name: str
    law: str
    ends: str
    action: Action
    example: Example


def _each(state: State, change: Callable[[Equation], Equation]) -> tuple[Equation, ...]:
    return tuple(e if e.target in state.given else change(e) for e in state.program.equations)


def eliminate_deltas(state: State) -> Program:
    program = state.program
    scanned = frozenset(name for name in program.inputs if program.tensor(name).dtype == "int64")

    def change(equation: Equation) -> Equation:
        given = axis_ranges(program.tensor(equation.target))
        terms = [select(t, scanned) if equation.reducer == "sum" else t for t in equation.terms]
        solved = [solve_equalities(term, given) for term in terms]
        if equation.reducer != "sum":
            return replace(equation, terms=tuple(tidy(t) for t in solved if t is not None) or equation.terms)
        rows = [tidy(t) for t in solved if t is not None and t.body != 0]
        return replace(equation, terms=sums.merged(rows))

    return program.with_equations(change(e) for e in program.equations)


def split_sums(state: State) -> Program:
    program = state.program
    shared = sums.Shared(program, "r")
    outputs = set(program.outputs)
    changed = {
        e.target: sums.split(program, e, shared, e.target in outputs) if e.target in state.derived else e
        for e in program.equations
    }
    return _with(state, list(changed.values()), shared.new)


def inline_maps(state: State) -> Program:
    program = state.program
    for _ in range(len(program.equations)):
        counts = naming.readers(program)
        where = {
            e.target: e
            for e in program.equations
            if e.target in state.derived and e.target not in program.outputs and naming.is_pointwise(e)
        }
        after = []
        for equation in program.equations:
            if equation.target in state.derived:
                opened = naming.inline(program, equation, where, counts)
                equation = replace(opened, terms=sums.merged(opened.terms)) if opened.reducer == "sum" else opened
            after.append(equation)
        following = prune(program.with_equations(after), state.given)
        if following.equations == program.equations:
            break
        program = following
    return program


def known_sums(state: State) -> Program:
    program = state.program
    known = sums.known_sums(program, state.given)

    def change(equation: Equation) -> Equation:
        folded = sums.fold_known(program, equation, state.given, known)
        if folded is not None and operations(folded.terms[0].body if folded.terms else sp.S.Zero) <= 4:
            return folded
        return sums.exchange(program, equation, known) or equation

    return prune(program.with_equations(ordered_with(program, list(_each(state, change)), [])), state.given)


def collect(state: State) -> Program:
    def body(term: Term) -> Term:
        return replace(term, body=collected(term.body)) if state.budget.allows(term.body) else term

    return state.program.with_equations(_each(state, lambda e: map_terms(e, body)))


def name_invariants(state: State) -> Program:
    program = state.program
    names = naming.Names(program, "a")
    changed = [naming.name_invariants(program, e, names) if e.target in state.derived else e for e in program.equations]
    return _with(state, changed, names.new)


def absorb_scales(state: State) -> Program:
    return naming.absorb(state.program, state.derived)


def named_quantities(state: State) -> Program:
    """Each relation in turn is put into all derived equations, and kept if they do not become dearer."""
    program = state.program
    names = [e.target for e in program.equations if e.target in state.given]
    best = _weight(state, program)
    known = relations(program, names)
    for _ in range(LARGEST_ROUNDS):
        before = program
        for relation in known:
            if state.budget.left <= 0:
                return program
            candidate = _related(replace_program(state, program), relation)
            if candidate is None:
                continue
            weight = _weight(state, candidate)
            if weight < best:
                program, best = candidate, weight
        if program is before:
            break
    return program


def replace_program(state: State, program: Program) -> State:
    return State(program, state.given, state.budget)


def _related(state: State, relation: Relation) -> Program | None:
    """The program with one relation put into its derived equations and tidied; None if it does not occur."""
    program = state.program

    def change(equation: Equation) -> Equation:
        facts = axis_ranges(program.tensor(equation.target))
        return map_terms(equation, lambda t: _flat(state, substitute(relation, t, facts), t))

    after = _each(state, change)
    if after == program.equations:
        return None
    state = replace_program(state, program.with_equations(after))
    return collect(replace_program(state, settle(state)))


def settle(state: State) -> Program:
    """Split sums, inline maps and fold known sums until nothing changes."""
    program = state.program
    for _ in range(LARGEST_ROUNDS):
        before = program.equations
        for action in (split_sums, inline_maps, known_sums):
            program = action(replace_program(state, program))
        if program.equations == before:
            break
    return program


def _flat(state: State, term: Term, before: Term) -> Term:
    if term is before or not state.budget.allows(term.body):
        return term
    return replace(term, body=collected(term.body))


def _weight(state: State, program: Program) -> tuple[float, int]:
    """What a form is judged by: its operations and those of the nameless sums that it has to keep, then its reads."""
    derived = frozenset(e.target for e in program.equations) - state.given
    read = {name for e in program.equations if e.target in derived for name in reads(e)}
    nameless = frozenset(name for name in read & state.given if naming.is_unnamed(name))
    return program_cost(program, FUNCTION_WEIGHT, derived | nameless), len(read)


def _with(state: State, equations: list[Equation], new: list[tuple[Tensor, Equation]]) -> Program:
    tensors = [t for t, _ in new]
    everything = ordered_with(state.program, [*equations, *(e for _, e in new)], tensors)
    return prune(state.program.with_equations(everything, tensors), state.given)


def prune(program: Program, given: frozenset[str]) -> Program:
    """Drop derived equations that no output needs; the given ones stay, as what others are rewritten in."""
    needed = set(program.outputs)
    kept: list[Equation] = []
    for equation in reversed(program.equations):
        if equation.target in given or equation.target in needed:
            kept.append(equation)
            if equation.target in needed:
                needed.update(reads(equation))
    return program.with_equations(reversed(kept))


def ordered_with(program: Program, equations: list[Equation], new: list[Tensor]) -> tuple[Equation, ...]:
    """Dependency order: new equations stand right before their first reader."""
    by_name = {e.target: e for e in equations}
    done: dict[str, Equation] = {}

    def place(equation: Equation) -> None:
        for name in reads(equation):
            if name in by_name and name not in done:
                place(by_name[name])
        done.setdefault(equation.target, equation)

    fresh = {t.name for t in new}
    for equation in equations:
        if equation.target not in fresh:
            place(equation)
    return tuple(done.values())


RULES: tuple[Rule, ...] = (
    Rule(
        "eliminate-delta",
        "Σ_{b : b = e} f(b) = f(e), with b's range carried to e",
        "one bound index and one equality fewer",
        eliminate_deltas,
        EXAMPLES["eliminate-delta"],
    ),
    Rule("split-sum", "Σ_b c B[b] = c Σ_b B[b]", "every sum is a pure one after it", split_sums, EXAMPLES["split-sum"]),
    Rule(
        "inline-map",
        "a map read where it repeats no work is its definition",
        "one equation fewer",
        inline_maps,
        EXAMPLES["inline-map"],
    ),
    Rule(
        "known-sum",
        "Σ_k x[k] = D mean; Σ_m p[m] Σ_d a[d] v[m,d] = Σ_d a[d] o[d]",
        "one sum fewer, or one that is a factor cheaper",
        known_sums,
        EXAMPLES["known-sum"],
    ),
    Rule(
        "named-quantity",
        "a definition y = exp(x)/Z also says exp(x) = y Z",
        "the cost of the derived equations falls",
        named_quantities,
        EXAMPLES["named-quantity"],
    ),
    Rule("collect", "a c + b c = (a + b) c", "operations fall", collect, EXAMPLES["collect"]),
    Rule(
        "name-invariant",
        "what a row shares is computed once per row",
        "bodies hold no narrower part",
        name_invariants,
        EXAMPLES["name-invariant"],
    ),
    Rule(
        "absorb-scale",
        "a = c Σ_k B[k] = Σ_k c B[k], hoisted again when lowered",
        "one equation fewer",
        absorb_scales,
        EXAMPLES["absorb-scale"],
    ),
)
ORDER = (
    *("eliminate-delta", *("split-sum", "inline-map", "known-sum") * 3),
    *("collect", "named-quantity", "collect", "name-invariant", "absorb-scale"),
)


def simplify(program: Program, given: frozenset[str] = frozenset(), trace: list[Step] | None = None) -> Program:
    """The program with its equations outside `given` simplified by `RULES`; what fired is appended to `trace`."""
    table = {rule.name: rule for rule in RULES}
    state = State(program, given)
    for name in ORDER:
        before = state.program
        after = table[name].action(state)
        if trace is not None and after.equations != before.equations:
            trace.append(_step(name, before, after))
        state.program = after
    return verify(live(state.program))


def _step(rule: str, before: Program, after: Program) -> Step:
    old, new = set(before.equations), set(after.equations)
    return Step(
        rule,
        tuple(equation_text(before, e) for e in before.equations if e not in new),
        tuple(equation_text(after, e) for e in after.equations if e not in old),
    )
