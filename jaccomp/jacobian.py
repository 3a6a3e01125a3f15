"""Jacobian: a block ∂of/∂wrt as a person reads it, as SymPy writes it, and as a blackboard matrix.

    ∂y[n,i]/∂x[m,j] = δ(n,m) rstd[n] g[i] (δ(i,j) - (1 + xhat[n,i] xhat[n,j])/D)

The expression is in the layer's own quantities and Kronecker deltas; a sum that has no name is written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any

import sympy as sp
from sympy.core.symbol import Str

from jaccomp import display, notation
from jaccomp.algebra.blocks import Block
from jaccomp.algebra.bounds import spectral_bound
from jaccomp.algebra.certificate import Certificate, certify
from jaccomp.algebra.factoring import collected
from jaccomp.algebra.layout import Structure, read
from jaccomp.domains import digits, is_index
from jaccomp.errors import UsageError
from jaccomp.latex_names import latex_access, latex_name
from jaccomp.matrix.form import Layout, MatrixForm, matrix_form
from jaccomp.notation import Access, Index
from jaccomp.printing import ADD, axis_letters, expression_text
from jaccomp.printing_latex import formula_latex
from jaccomp.program import Constraint, Equation, Labels, Program, Tensor, Term, accesses, expand, instantiate

PARTNERS = {"n": "m", "i": "j", "t": "s", "b": "a", "c": "d", "h": "g", "k": "l", "o": "p", "v": "w"}
FALLBACK = ("m", "j", "l", "p", "q", "r", "s", "u", "w", "z", "e", "f")
LARGEST_EXPLICIT = 10_000  # entries


class Jacobian:
    """One block: `J[n, i, m, j]` is ∂of[n,i]/∂wrt[m,j]; `str`, `sympy.latex` and `explicit()` print it."""

    def __init__(self, layer: str, program: Program, block: Block) -> None:
        self.layer = layer
        self._program = program
        self._block = block
        of, wrt = program.tensor(block.seed), program.tensor(block.output)
        self.of: str = program.labels.name(block.of)
        self.wrt: str = program.labels.name(block.wrt)
        self.shape: tuple[sp.Expr, ...] = tuple(e.xreplace(self._words()) for e in (*of.shape, *wrt.shape))
        rows = axis_letters(program.labels, of)
        columns = _partners(dict(zip(rows, of.shape, strict=True)), axis_letters(program.labels, wrt), wrt.shape)
        self._letters: tuple[str, ...] = (*rows, *columns)
        self._symbols: tuple[sp.Symbol, ...] = (*block.rows, *block.columns)

    @property
    def program(self) -> Program:
        """The VJP that the block was read off, whose quantities its terms speak of."""
        return self._program

    @property
    def block(self) -> Block:
        """Its terms, in deltas as constraints, by canonical names."""
        return self._block

    @cached_property
    def layout(self) -> Structure:
        """The block over the labels that its terms tie, in the program's own symbols."""
        of, wrt = self._program.tensor(self._block.seed), self._program.tensor(self._block.output)
        return read(self._block, of.shape, wrt.shape)

    @cached_property
    def certificate(self) -> Certificate:
        """What its deltas and coefficients prove: structure, rank, entries, storage and work, in the layer's sizes."""
        found = replace(certify(self.layout, self._program.inputs), norm=spectral_bound(self.layout, self._program))
        return found.over(self._words())

    @property
    def structure(self) -> str:
        """The certificate in words: diagonal, block diagonal, diagonal plus rank 1, Kronecker, a selection, dense."""
        return self.certificate.words

    @cached_property
    def indices(self) -> tuple[Index, ...]:
        """The indices of rows and columns, each over its axis."""
        return tuple(
            Index(sp.Symbol(letter, integer=True), sp.Tuple(sp.S.Zero, extent - 1))
            for letter, extent in zip(self._letters, self.shape, strict=True)
        )

    @cached_property
    def expr(self) -> sp.Expr:
        """The block at `indices`, as a SymPy expression."""
        where: dict[sp.Expr, sp.Expr] = dict(zip(self._symbols, self.indices, strict=True))
        rename = _Reader(self._program, self._words())
        return collected(sp.Add(*(rename.term(t, where, self._letters) for t in self._block.terms)))

    def __getitem__(self, where: Any) -> sp.Expr:
        at = where if isinstance(where, tuple) else (where,)
        if len(at) != len(self.indices):
            raise UsageError(
                f"jacobian of {self.of!r} by {self.wrt!r}",
                f"{len(at)} indices were given for {len(self.indices)} axes.",
                f"Write J[{', '.join(self._letters)}]: the axes of {self.of}, then those of {self.wrt}.",
            )
        values = [sp.sympify(one, strict=True) for one in at]
        return _replace_free(self.expr, dict(zip(self.indices, values, strict=True)))

    def trace(self) -> sp.Expr:
        """Σ J[r, r] as a SymPy expression, where rows and columns have one shape; raises `UsageError` elsewhere."""
        rank = len(self._block.rows)
        rows, columns = self.shape[:rank], self.shape[rank:]
        if rows != columns:
            raise UsageError(
                f"trace of the jacobian of {self.of!r} by {self.wrt!r}",
                f"rows have shape {rows}, columns {columns}.",
                "Only a block of equal shapes has one.",
            )
        at = self.indices[:rank]
        limits = [(index, sp.S.Zero, extent - 1) for index, extent in zip(at, rows, strict=True)]
        entry = self[(*at, *at)]
        return sp.Sum(entry, *reversed(limits)) if limits else entry

    def explicit(self) -> Any:
        """All entries; sizes must be numbers: `layer.bind(N=1, D=3)`.

        The blackboard matrix, a SymPy Matrix of rows by columns, where `of` and `wrt` have one axis each once axes of
        one element are dropped (the row of a scalar, the column by one); else a SymPy Array, axes of `of` then of
        `wrt`.
        """
        if not all(extent.is_Integer for extent in self.shape):
            raise UsageError(
                f"jacobian of {self.of!r} by {self.wrt!r}",
                f"its shape {self.shape} is symbolic.",
                "Bind the sizes first: layer.bind(N=1, D=3).jacobian().explicit().",
            )
        extents = [int(extent) for extent in self.shape]
        entries = 1
        for extent in extents:
            entries *= extent
        if entries > LARGEST_EXPLICIT:
            raise UsageError(
                f"jacobian of {self.of!r} by {self.wrt!r}",
                f"it has {entries} entries, more than {LARGEST_EXPLICIT}.",
                "Bind smaller sizes, or evaluate kernel.jacobian(...) numerically.",
            )
        values = [
            _unrolled(_replace_free(self.expr, dict(zip(self.indices, map(sp.Integer, at), strict=True))))
            for at in product(*map(range, extents))
        ]
        if not extents:
            return values[0]
        rank = len(self._block.rows)
        sides = [[e for e in side if e != 1] for side in (extents[:rank], extents[rank:])]
        if all(len(side) <= 1 for side in sides):
            rows, columns = (side[0] if side else 1 for side in sides)
            return sp.ImmutableMatrix(rows, columns, values)
        return sp.ImmutableDenseNDimArray(values, tuple(extents))

    def matrix(self, layout: Layout = "numerator") -> MatrixForm | None:
        """The block in the notation of matrices, `diag(y) - y yᵀ`; None where its structure has none.

        Rows are those of `of` in numerator layout, those of `wrt` in denominator layout. Raises `UsageError`.
        """
        return matrix_form(self._program, self._block, self._letters, layout)

    @property
    def head(self) -> str:
        """`∂y[n,i]/∂x[m,j]`."""
        rank = len(self._block.rows)
        return f"∂{_read(self.of, self._letters[:rank])}/∂{_read(self.wrt, self._letters[rank:])}"

    def __str__(self) -> str:
        return f"{self.head} = {self.text}"

    def __repr__(self) -> str:
        return f"<Jacobian {self}>"

    @cached_property
    def text(self) -> str:
        """The right side of `str`."""
        return _spelled(self.expr, self._letters[: len(self._block.rows)])

    def _latex(self, printer: Any) -> str:
        rank = len(self._block.rows)
        spelled = [latex_name(letter) for letter in self._letters]
        above, below = latex_access(self.of, spelled[:rank]), latex_access(self.wrt, spelled[rank:])
        right = formula_latex(self.expr, self._letters[:rank])
        return rf"\frac{{\partial {above}}}{{\partial {below}}} = {right}"

    _repr_mimebundle_ = display.mimebundle

    def _words(self) -> dict[sp.Expr, sp.Expr]:
        """Canonical constants as symbols with the user's names."""
        label = self._program.labels.name
        words: dict[sp.Expr, sp.Expr] = {s: notation.Size(label(s.name)) for s in self._program.sizes}
        for one in self._program.scalars:
            words[one.symbol] = notation.Scalar(label(one.name), one.default, one.dtype)
        return words


def _partners(rows: Mapping[str, sp.Expr], columns: Sequence[str], extents: Sequence[sp.Expr]) -> tuple[str, ...]:
    """Letters for the columns that no row has: m beside n, j beside i, over the same extent."""
    used = list(rows)
    for letter, extent in zip(columns, extents, strict=True):
        beside = [PARTNERS[r] for r, e in rows.items() if e == extent and r in PARTNERS]
        choices = (*beside, letter, PARTNERS.get(letter, letter), *FALLBACK, *(f"{letter}{k}" for k in range(2, 99)))
        used.append(next(c for c in choices if c not in used))
    return tuple(used[len(rows) :])


def _read(name: str, letters: Sequence[str]) -> str:
    return f"{name}[{','.join(letters)}]" if letters else name


class _Reader:
    """From canonical expressions to the user's notation."""

    def __init__(self, program: Program, words: Mapping[sp.Expr, sp.Expr]) -> None:
        self.program = program
        self.words = words
        self.definitions = program.definitions()

    def term(self, term: Term, where: Mapping[sp.Expr, sp.Expr], taken: Sequence[str]) -> sp.Expr:
        """A term as a product of deltas and its body, under a Sum where it has bound indices, a case where guarded."""
        inner = dict(where)
        limits = []
        deltas: list[sp.Expr] = []
        names = list(taken)
        domain = list(term.domain)
        for digit in digits(term, (*term.bound, *where)):
            low, high = digit.constraints
            if low not in domain or high not in domain:
                continue
            domain = [c for c in domain if c not in (low, high)]
            value = self.expr(digit.floor, inner, names)
            if digit.index in inner:
                deltas.append(sp.KroneckerDelta(inner[digit.index], value))
            else:
                inner[digit.index] = value
        for bound in term.bound:
            if bound in inner:
                domain = [c for c in domain if c.equality or not _is_range(c, bound)]
                continue
            letter = next(c for c in (*FALLBACK, *(f"k{k}" for k in range(99))) if c not in names)
            names.append(letter)
            low_end, high_end = term.lower_bounds(bound)[0], term.upper_bounds(bound)[0]
            ends_said = (expand(bound - low_end), expand(high_end - 1 - bound))
            domain = [c for c in domain if c.equality or c.expr not in ends_said]
            ends = sp.Tuple(self.expr(low_end, inner, names), self.expr(high_end - 1, inner, names))
            inner[bound] = Index(sp.Symbol(letter, integer=True), ends)
            limits.append((inner[bound], *ends))
        factors = [*(self.expr(one, inner, names) for one in sp.Mul.make_args(term.body)), *deltas]
        conditions = []
        for constraint in domain:
            left, right = self.sides(constraint, inner, names)
            if constraint.equality:
                factors.append(sp.KroneckerDelta(left, right))
            else:
                conditions.append(sp.Le(right, left))
        summed = {limit[0] for limit in limits}
        outside = sp.Mul(*(f for f in factors if not f.atoms(Index) & summed))
        inside = sp.Mul(*(f for f in factors if f.atoms(Index) & summed))
        if any(c.atoms(Index) & summed for c in conditions):
            inside, conditions = sp.Piecewise((inside, sp.And(*conditions)), (sp.S.Zero, True)), []
        sign = -1 if outside.could_extract_minus_sign() else 1
        body = sign * outside * (sp.Sum(inside, *reversed(limits)) if limits else sp.S.One)
        return sign * (sp.Piecewise((body, sp.And(*conditions)), (sp.S.Zero, True)) if conditions else body)

    def sides(self, constraint: Constraint, where: Mapping[sp.Expr, sp.Expr], names: Sequence[str]) -> tuple[Any, Any]:
        positive = [a for a in sp.Add.make_args(constraint.expr) if not a.could_extract_minus_sign()]
        negative = [-a for a in sp.Add.make_args(constraint.expr) if a.could_extract_minus_sign()]
        return self.expr(sp.Add(*positive), where, names), self.expr(sp.Add(*negative), where, names)

    def expr(self, expr: sp.Expr, where: Mapping[sp.Expr, sp.Expr], taken: Sequence[str]) -> sp.Expr:
        replaced: dict[sp.Expr, sp.Expr] = {**self.words, **where}
        for access in accesses(expr):
            if access not in replaced:
                replaced[access] = self.read(access, where, taken)
        return expr.xreplace(replaced)

    def read(self, access: Access, where: Mapping[sp.Expr, sp.Expr], taken: Sequence[str]) -> sp.Expr:
        """A read by the user's name; of a tensor without one, what it is defined to be."""
        definition = self.definitions.get(access.name)
        if definition is not None and access.name not in self.program.labels.names and _is_written_out(definition):
            at = [self.expr(i, where, taken) for i in access.indices]
            return self.written_out(definition, at, taken)
        tensor = self.program.tensor(access.name)
        return Access(self.tensor(tensor), *(self.expr(i, where, taken) for i in access.indices))

    def written_out(self, definition: Equation, at: Sequence[sp.Expr], taken: Sequence[str]) -> sp.Expr:
        stand_ins = tuple(sp.Symbol(f"_{500 + k}", integer=True) for k in range(len(at)))
        names = [*taken, *(s.name for one in at for s in one.atoms(sp.Symbol))]
        where = dict(zip(stand_ins, at, strict=True))
        return sp.Add(*(self.term(t, where, names) for t in instantiate(definition, stand_ins, 700)))

    def tensor(self, tensor: Tensor) -> notation.Tensor:
        name = self.program.labels.name(tensor.name)
        facts: dict[str, bool] = {"integer": True} if tensor.dtype == "int64" else {"real": True}
        shape = sp.Tuple(*(e.xreplace(dict(self.words)) for e in tensor.shape))
        return notation.Tensor(sp.Symbol(name, **facts), shape, Str(tensor.dtype))


def _is_range(constraint: Constraint, index: sp.Symbol) -> bool:
    """Does the constraint bound that index alone? Its value was found to lie there."""
    return constraint.expr.coeff(index) in (1, -1) and [s for s in constraint.expr.free_symbols if is_index(s)] == [
        index
    ]


def _is_written_out(definition: Equation) -> bool:
    return definition.reducer == "sum"


def _replace_free(expr: sp.Expr, where: Mapping[sp.Expr, sp.Expr]) -> sp.Expr:
    """Replace indices, but not those that a Sum inside binds."""
    if expr in where:
        return where[expr]
    if not expr.args or isinstance(expr, Index | notation.Tensor):
        return expr
    inner = where
    if isinstance(expr, sp.Sum):
        bound = {limit[0] for limit in expr.limits}
        inner = {k: v for k, v in where.items() if k not in bound}
    return expr.func(*(_replace_free(a, inner) for a in expr.args))


def _unrolled(expr: sp.Expr) -> sp.Expr:
    """Sums over numeric ranges as sums of their values; SymPy's own `doit` is wrong on empty ones."""
    if not expr.args or isinstance(expr, Index | notation.Tensor):
        return expr
    if isinstance(expr, sp.Sum):
        *outer, (index, low, high) = [tuple(limit) for limit in expr.limits]
        if low.is_Integer and high.is_Integer:
            inner = sp.Sum(expr.function, *outer) if outer else expr.function
            values: Iterator[int] = iter(range(int(low), int(high) + 1))
            return sp.Add(*(_unrolled(_replace_free(inner, {index: sp.Integer(v)})) for v in values))
    return expr.func(*(_unrolled(a) for a in expr.args))


def _spelled(expr: sp.Expr, rows: Sequence[str]) -> str:
    """A user-level expression as text: the row's side of a delta first, sums with their indices."""
    return expression_text(Labels(), _plain(expr, frozenset(rows)), {}, ADD)


def _under(expr: sp.Sum) -> str:
    """The indices of a sum, with those ends that other indices set: `j`, `{j ≤ n}`."""
    parts = []
    for index, low, high in expr.limits:
        below = f"{low} ≤ " if low.atoms(Index) else ""
        above = f" ≤ {high}" if high.atoms(Index) else ""
        parts.append(f"{below}{index}{above}")
    text = ",".join(reversed(parts))
    return f"{{{text}}}" if "≤" in text else text


def _plain(expr: Any, rows: frozenset[str]) -> Any:
    """Indices and tensors as symbols, so that the program printer spells them; sums and deltas stay as they read."""
    if isinstance(expr, Index):
        return sp.Symbol(str(expr), integer=True)
    if isinstance(expr, Access):
        return Access(sp.Symbol(expr.name, real=True), *(_plain(i, rows) for i in expr.indices))
    if isinstance(expr, sp.Sum):
        return sp.Function("Σ_" + _under(expr))(_plain(expr.function, rows))
    if isinstance(expr, sp.KroneckerDelta):
        sides = sorted(expr.args[:2], key=lambda side: not any(str(i) in rows for i in side.atoms(Index)))
        return sp.Function("δ")(*(_plain(side, rows) for side in sides))
    if not expr.args:
        return expr
    return expr.func(*(_plain(a, rows) for a in expr.args))
