"""Programs of tensor equations: the one type that a layer, its VJP, its JVP and every chain of them share.

    program    = inputs, scalars, sizes -> outputs, by equations in dependency order, one for each other tensor
    equation   = target[axes] = reducer over the terms
    term       = {bound : domain} body
    domain     = constraints `e >= 0` or `e == 0`, affine in indices; an equality may read one integer tensor

The terms of a sum are added; any other reducer has one term; "none" is a sum of one term without bound indices. An axis
runs over the target's whole extent, which its terms do not repeat; a bound index has its range among the constraints.
An empty sum is 0: a target that a triangular or strided term leaves out is 0 there.

Names are canonical (`x0`, `v3`, `ct_x0`; sizes `s0`; scalars `c0`; axes `i0`; bound indices `b0`), so that no order
anywhere depends on what a user called a thing. `Labels` keeps what to print.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import sympy as sp

from jaccomp import display
from jaccomp.errors import StageError
from jaccomp.notation import Access

Reducer = Literal["sum", "max", "min", "prod", "argmax", "argmin"]
REDUCERS: tuple[Reducer, ...] = ("sum", "max", "min", "prod", "argmax", "argmin")
Kind = Literal["real", "int64"]


def size_symbol(name: str) -> sp.Symbol:
    return sp.Symbol(name, integer=True, nonnegative=True)


def index_symbol(name: str) -> sp.Symbol:
    return sp.Symbol(name, integer=True)


def value_symbol(name: str, dtype: str) -> sp.Symbol:
    return sp.Symbol(name, integer=True) if dtype == "int64" else sp.Symbol(name, real=True)


def expand(expr: sp.Expr) -> sp.Expr:
    """SymPy's expansion, but of no argument of a floor: `floor((H - K)/S)` stays one division."""
    floors = expr.atoms(sp.floor) if expr.has(sp.floor) else ()
    if not floors:
        return sp.expand(expr)
    aside = {f: sp.Symbol(f"_floor{k}", integer=True) for k, f in enumerate(sorted(floors, key=sp.default_sort_key))}
    return sp.expand(expr.xreplace(aside)).xreplace({symbol: f for f, symbol in aside.items()})


AXES: tuple[sp.Symbol, ...] = tuple(index_symbol(f"i{k}") for k in range(64))


def bound_symbol(position: int) -> sp.Symbol:
    return index_symbol(f"b{position}")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A declared array: canonical name, extents in sizes and integer scalars, and "real" or "int64"."""

    name: str
    shape: tuple[sp.Expr, ...]
    dtype: Kind = "real"

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __getitem__(self, indices: tuple[sp.Expr, ...]) -> Access:
        return Access(value_symbol(self.name, self.dtype), *indices)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A constant of one call. `default` is None where a call must pass it."""

    name: str
    dtype: Kind = "real"
    default: float | int | None = None

    @property
    def symbol(self) -> sp.Symbol:
        return value_symbol(self.name, self.dtype)


@dataclass(frozen=True, slots=True)
class Constraint:
    """`expr == 0` if `equality`, else `expr >= 0`; affine in indices, or an equality that reads one integer tensor."""

    expr: sp.Expr
    equality: bool = False

    @property
    def is_data(self) -> bool:
        return bool(self.expr.has(Access))

    def over(self, where: Mapping[sp.Expr, sp.Expr]) -> Constraint:
        return Constraint(self.expr.xreplace(where), self.equality)


def at_least(left: sp.Expr, right: sp.Expr) -> Constraint:
    """`left >= right`."""
    return Constraint(expand(left - right))


def equal(left: sp.Expr, right: sp.Expr) -> Constraint:
    """`left == right`."""
    return Constraint(expand(left - right), equality=True)


def in_range(index: sp.Expr, stop: sp.Expr, start: sp.Expr = sp.S.Zero) -> tuple[Constraint, Constraint]:
    """`start <= index < stop`."""
    return at_least(index, start), at_least(stop - 1, index)


Domain = tuple[Constraint, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """`{bound : domain} body`: the body is a scalar expression in accesses, sizes, scalars and indices."""

    body: sp.Expr
    bound: tuple[sp.Symbol, ...] = ()
    domain: Domain = ()

    def over(self, where: Mapping[sp.Expr, sp.Expr]) -> Term:
        """Replace indices or accesses in body and domain at once; the caller keeps bound names apart."""
        return Term(
            self.body.xreplace(where),
            tuple(where.get(b, b) for b in self.bound),
            tuple(c.over(where) for c in self.domain),
        )

    def lower_bounds(self, index: sp.Symbol) -> list[sp.Expr]:
        """Expressions e with `index >= e`, of unit coefficient, in the order of the domain."""
        return [index - c.expr for c in self.domain if not c.equality and c.expr.coeff(index) == 1]

    def upper_bounds(self, index: sp.Symbol) -> list[sp.Expr]:
        """Expressions e with `index < e`, of unit coefficient, in the order of the domain."""
        return [index + c.expr + 1 for c in self.domain if not c.equality and c.expr.coeff(index) == -1]


@dataclass(frozen=True, slots=True)
class Equation:
    """`target[axes] = reducer over terms`; axes are `AXES[:rank]`."""

    target: str
    axes: tuple[sp.Symbol, ...]
    terms: tuple[Term, ...]
    reducer: Reducer = "sum"

    @property
    def is_map(self) -> bool:
        """No reduction and no condition: the target is its one body."""
        return self.reducer == "sum" and len(self.terms) == 1 and not self.terms[0].bound and not self.terms[0].domain

    @property
    def body(self) -> sp.Expr:
        """The body of the only term."""
        (term,) = self.terms
        return term.body


def scalar_map(target: str, rank: int, body: sp.Expr) -> Equation:
    return Equation(target, AXES[:rank], (Term(body),))


DERIVED = re.compile(r"(?:ct|t)[0-9]*_")
"""What the name of a cotangent or a tangent starts with: `ct_`, `t_`, of a second differentiation `ct2_`, `t2_`."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What to print for canonical names, for the axes of a tensor, and for an index over a given extent."""

    names: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: tuple[tuple[sp.Expr, tuple[str, ...]], ...] = ()

    def name(self, canonical: str) -> str:
        """The user's name; of a cotangent or tangent, that of its primal with the prefix."""
        mark = DERIVED.match(canonical)
        if canonical not in self.names and mark:
            return mark[0] + self.name(canonical.removeprefix(mark[0]))
        return self.names.get(canonical, canonical)

    def with_new(self, names: Iterable[str]) -> Labels:
        """Labels that call new tensors by their own names, or by ones that nothing else has."""
        known = dict(self.names)
        for name in names:
            label = name
            while label in known.values():
                label += "_"
            known[name] = label
        return replace(self, names=known)

    def axis_names(self, canonical: str) -> tuple[str, ...] | None:
        """The user's names for the axes of a tensor; a cotangent or tangent has those of its primal."""
        mark = DERIVED.match(canonical)
        if canonical not in self.axes and mark:
            return self.axis_names(canonical.removeprefix(mark[0]))
        return self.axes.get(canonical)


@dataclass(frozen=True, slots=True)
class Program:
    """Equations in dependency order, with everything they name declared in `tensors` (inputs first)."""

    name: str
    sizes: tuple[sp.Symbol, ...]
    scalars: tuple[Scalar, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    equations: tuple[Equation, ...]
    labels: Labels = Labels()
    typical: tuple[int, ...] = ()
    any_axes: tuple[str, ...] = ()
    doc: str = ""

    def tensor(self, name: str) -> Tensor:
        for one in self.tensors:
            if one.name == name:
                return one
        raise KeyError(name)

    def definition(self, name: str) -> Equation | None:
        for equation in self.equations:
            if equation.target == name:
                return equation
        return None

    def definitions(self) -> dict[str, Equation]:
        return {equation.target: equation for equation in self.equations}

    def declarations(self) -> dict[str, Tensor]:
        return {one.name: one for one in self.tensors}

    def with_equations(self, equations: Iterable[Equation], new: Iterable[Tensor] = ()) -> Program:
        """The program with these equations; declarations of tensors no longer defined are dropped."""
        kept = tuple(equations)
        defined = {e.target for e in kept} | set(self.inputs)
        return replace(self, equations=kept, tensors=tuple(t for t in (*self.tensors, *new) if t.name in defined))

    _repr_mimebundle_ = display.mimebundle


@lru_cache(maxsize=1 << 16)
def accesses(expr: sp.Expr) -> tuple[Access, ...]:
    """The distinct accesses of an expression, in the order of its canonical traversal, those in indices included."""
    found: dict[Access, None] = {}
    for node in sp.preorder_traversal(expr):
        if isinstance(node, Access):
            found.setdefault(node)
    return tuple(found)


def term_accesses(term: Term) -> tuple[Access, ...]:
    found = dict.fromkeys(accesses(term.body))
    for constraint in term.domain:
        found.update(dict.fromkeys(accesses(constraint.expr)))
    return tuple(found)


def reads(equation: Equation) -> tuple[str, ...]:
    """The names of the tensors that an equation reads, domains included, each once."""
    return tuple(dict.fromkeys(a.name for term in equation.terms for a in term_accesses(term)))


def hoisted(term: Term) -> tuple[sp.Expr, sp.Expr]:
    """A term's body as (factor that no bound index changes, the rest)."""
    if not term.bound:
        return sp.S.One, term.body
    bound = set(term.bound)
    factors = sp.Mul.make_args(term.body)
    outside = [f for f in factors if not f.free_symbols & bound]
    return sp.Mul(*outside), sp.Mul(*(f for f in factors if f.free_symbols & bound))


def map_terms(equation: Equation, change: Callable[[Term], Term]) -> Equation:
    return replace(equation, terms=tuple(change(term) for term in equation.terms))


def live(program: Program) -> Program:
    """Drop equations that no output needs."""
    needed = set(program.outputs)
    kept: list[Equation] = []
    for equation in reversed(program.equations):
        if equation.target in needed:
            kept.append(equation)
            needed.update(reads(equation))
    return program.with_equations(reversed(kept))


def ordered(equations: Iterable[Equation], defined: Iterable[str]) -> tuple[Equation, ...]:
    """Equations in dependency order, otherwise in the order given; a cycle raises `StageError`."""
    waiting, known, done = list(equations), set(defined), []
    while waiting:
        targets = {e.target for e in waiting}
        ready = next((e for e in waiting if not (set(reads(e)) & targets)), None)
        if ready is None:
            raise StageError("program", f"equations depend on each other in a cycle: {sorted(targets)}.")
        waiting.remove(ready)
        known.add(ready.target)
        done.append(ready)
    return tuple(done)


def fresh_bounds(term: Term, first: int) -> Term:
    """The term with its bound indices renamed to `b{first}`, `b{first+1}`, ..."""
    return term.over({b: bound_symbol(first + k) for k, b in enumerate(term.bound)})


def tidy(term: Term) -> Term:
    """The term with bound indices renamed `b0, b1, ...` in their order and duplicate constraints dropped."""
    aside = term.over({b: index_symbol(f"_{k}") for k, b in enumerate(term.bound)})
    renamed = aside.over({b: bound_symbol(k) for k, b in enumerate(aside.bound)})
    return replace(renamed, domain=tuple(dict.fromkeys(renamed.domain)))


def instantiate(equation: Equation, indices: tuple[sp.Expr, ...], first: int) -> tuple[Term, ...]:
    """The terms of `equation` at `indices`, their bound indices renamed from `b{first}` on."""
    at = dict(zip(equation.axes, indices, strict=True))
    return tuple(fresh_bounds(term, first).over(at) for term in equation.terms)


def next_bound(*terms: Term) -> int:
    """The first position whose bound symbol none of the terms uses."""
    used = [int(b.name[1:]) for term in terms for b in _symbols(term) if b.name[0] == "b" and b.name[1:].isdigit()]
    return max(used, default=-1) + 1


def _symbols(term: Term) -> Iterator[sp.Symbol]:
    yield from term.body.free_symbols
    yield from term.bound
    for constraint in term.domain:
        yield from constraint.expr.free_symbols


def verify(program: Program) -> Program:
    """`program`, if it is well formed; else a `StageError` naming the equation: names, ranks, order, domains."""
    declared = program.declarations()
    known = set(program.inputs)
    constants = {*program.sizes, *(s.symbol for s in program.scalars)}
    for equation in program.equations:
        what = f"program {program.name!r}, equation of {equation.target!r}"
        target = declared.get(equation.target)
        if target is None or equation.axes != AXES[: target.rank]:
            raise StageError(what, "the target is undeclared or its axes do not fit its rank.")
        if equation.target in known:
            raise StageError(what, "the target is defined twice.")
        if equation.reducer not in REDUCERS or (equation.reducer != "sum" and len(equation.terms) != 1):
            raise StageError(what, f"reducer {equation.reducer!r} with {len(equation.terms)} terms.")
        for term in equation.terms:
            _verify_term(what, term, equation, declared, known, constants)
        known.add(equation.target)
    for name in program.outputs:
        if name not in known:
            raise StageError(f"program {program.name!r}", f"output {name!r} has no equation.")
    return program


def _verify_term(
    what: str,
    term: Term,
    equation: Equation,
    declared: Mapping[str, Tensor],
    known: set[str],
    constants: set[sp.Symbol],
) -> None:
    indices = {*equation.axes, *term.bound}
    if len(indices) != len(equation.axes) + len(term.bound):
        raise StageError(what, "a bound index is also an axis.")
    for access in term_accesses(term):
        if access.name not in known:
            raise StageError(what, f"{access} is read before it is defined.")
        if len(access.indices) != declared[access.name].rank:
            raise StageError(
                what, f"{access} has {len(access.indices)} indices, its tensor {declared[access.name].rank}."
            )
    bases = {a.base for a in term_accesses(term)}
    for expr in (term.body, *(c.expr for c in term.domain)):
        stray = expr.free_symbols - indices - constants - bases
        if stray:
            raise StageError(what, f"{sorted(map(str, stray))} are neither axes nor bound in {expr}.")
    for bound in term.bound:
        if not any(bound in c.expr.free_symbols for c in term.domain):
            raise StageError(what, f"bound index {bound} has no range.")
