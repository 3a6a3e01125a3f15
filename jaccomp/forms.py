"""The forms in which a Jacobian block is kept: programs for the numbers of each, and how those become an object.

    form         what is computed                                   what comes back
    diagonal     the diagonal                                       an array shaped as the output
    factors      each distinct factor of each product, once         `structured.Factored`
    sparse       the value of each entry that can differ from 0     scipy.sparse.csr_array

The numbers come from a program of the layer's own inputs, compiled like any other, so they cost what they count; where
they lie is said by the block's constraints alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import sympy as sp

from jaccomp.algebra.certificate import arrays
from jaccomp.algebra.entries import Entries, entries
from jaccomp.algebra.layout import Label, Product, Structure, labels_of
from jaccomp.domains import stays_inside
from jaccomp.errors import UsageError
from jaccomp.jacobian import Jacobian
from jaccomp.notation import Access
from jaccomp.program import (
    AXES,
    Equation,
    Program,
    Tensor,
    Term,
    accesses,
    bound_symbol,
    live,
    term_accesses,
)
from jaccomp.reference import indices
from jaccomp.structured import Array, Factored, Part

FORMS = ("dense", "diagonal", "sparse", "factors", "operator")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a call knows: integers by canonical name of size and scalar, arrays by canonical name, results in order."""

    constants: Mapping[str, int]
    arrays: Mapping[str, Array]
    results: Sequence[Array]
    of_shape: tuple[int, ...]
    wrt_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def integer(self, expr: sp.Expr) -> int:
        return int(indices.integer(expr, lambda leaf: self.constants[leaf.name]))


@dataclass(frozen=True, slots=True)
class Plan:
    """A program whose outputs are the numbers of one form, and the function that makes the object of them.

    `program` is None where there is nothing to compute: an identity, a selection by an integer input.
    """

    program: Program | None
    assemble: Callable[[Numbers], Any]


def plan(jacobian: Jacobian, form: str, inputs: Sequence[str]) -> Plan:
    """The plan of a block for "diagonal", "factors" or "sparse"; `inputs` are the layer's, by canonical names.

    Raises `UsageError` where the block has no such form.
    """
    structure = jacobian.layout
    what = f"jacobian of {jacobian.of!r} by {jacobian.wrt!r} of {jacobian.layer}, form={form!r}"
    if form == "sparse":
        return _sparse(jacobian, structure, inputs)
    patterns = [part for part in structure.parts if not isinstance(part, Product)]
    if form == "diagonal" and jacobian.certificate.form != "diagonal":
        raise UsageError(what, f"it is not diagonal: {jacobian.structure}.", _offer(jacobian))
    if patterns:
        raise UsageError(what, f"it is no sum of products of factors: {jacobian.structure}.", _offer(jacobian))
    return _factored(jacobian, structure, inputs, diagonal=form == "diagonal")


def _offer(jacobian: Jacobian) -> str:
    return (
        f"Its cheapest form is {jacobian.certificate.form!r}; 'sparse', 'operator' and 'dense' serve for every block."
    )


# Programs for numbers


class _Values:
    """The values that a form needs, each distinct one an output of one program."""

    def __init__(self, jacobian: Jacobian, inputs: Sequence[str]) -> None:
        self.base, self.inputs = jacobian.program, inputs
        self.seen: dict[object, int] = {}
        self.equations: list[Equation] = []
        self.tensors: list[Tensor] = []

    def add(self, term: Term, labels: Sequence[Label], extents: Mapping[Label, sp.Expr]) -> int:
        """The output that holds a term over labels; one that is there already serves again."""
        where: dict[sp.Expr, sp.Expr] = {
            **dict(zip(labels, AXES, strict=False)),
            **{b: bound_symbol(k) for k, b in enumerate(term.bound)},
        }
        moved = term.over(where)
        shape = tuple(extents[label] for label in labels)
        key = (moved, shape)
        if key not in self.seen:
            name = f"entries{len(self.tensors)}"
            self.seen[key] = len(self.tensors)
            self.tensors.append(Tensor(name, shape))
            self.equations.append(Equation(name, AXES[: len(shape)], (moved,)))
        return self.seen[key]

    def program(self, integers: Sequence[str]) -> Program | None:
        """A program of the layer's inputs with the values, then the integer tensors, as its outputs."""
        computed = tuple(name for name in integers if name not in self.inputs)
        if not self.equations and not computed:
            return None
        seeds = [name for name in self.base.inputs if name not in self.inputs]
        return live(
            replace(
                self.base,
                name=f"{self.base.name}_jacobian",
                inputs=tuple(self.inputs),
                outputs=(*(t.name for t in self.tensors), *computed),
                equations=(*self.base.equations, *self.equations),
                tensors=(*(t for t in self.base.tensors if t.name not in seeds), *self.tensors),
                labels=self.base.labels.with_new(t.name for t in self.tensors),
            )
        )


# Diagonal and factors


def _factored(jacobian: Jacobian, structure: Structure, inputs: Sequence[str], *, diagonal: bool) -> Plan:
    layout, values = structure.layout, _Values(jacobian, inputs)
    drafts: list[tuple[float, list[tuple[tuple[Label, ...], int]], Product]] = []
    for part in structure.parts:
        assert isinstance(part, Product)
        scale = sp.Mul(*(f for f in part.factors if f.is_number))
        factors = []
        for array in arrays(part, layout):
            labels = labels_of(array, layout)
            factors.append((labels, values.add(Term(array), labels, layout.extents)))
        drafts.append((float(scale), factors, part))
    numbers = {label: place for place, label in enumerate(layout.extents)}

    def assemble(call: Numbers) -> Any:
        rows = tuple(numbers[label] for label in layout.row_labels)
        extents = {numbers[label]: max(0, call.integer(extent)) for label, extent in layout.extents.items()}
        parts = []
        for scale, factors, part in drafts:
            where = {column: numbers[row] for row, column in part.ties}
            held = []
            for labels, place in factors:
                own = tuple(numbers[label] for label in labels)
                held.append((own, np.asarray(call.results[place]).reshape([extents[one] for one in own])))
            columns = tuple(where.get(label, numbers[label]) for label in layout.column_labels)
            parts.append(Part(scale, tuple(held), rows, columns))
        own = tuple(numbers[label] for label in layout.column_labels)
        found = Factored(call.of_shape, call.wrt_shape, rows, own, tuple(parts), extents, call.dtype)
        return found.diagonal() if diagonal else found

    return Plan(values.program(()), assemble)


# Sparse


@dataclass(frozen=True, slots=True)
class _Placed:
    """The entries of one part, the labels that its values are kept over, and which output has them; None: a number."""

    entries: Entries
    labels: tuple[Label, ...]
    output: int | None


def _sparse(jacobian: Jacobian, structure: Structure, inputs: Sequence[str]) -> Plan:
    values = _Values(jacobian, inputs)
    placed = [_placed(entries(part, structure.layout), values) for part in structure.parts]
    positions = [e for one in placed for e in (*one.entries.rows, *one.entries.columns)]
    integers = tuple(dict.fromkeys(a.name for e in positions for a in accesses(e)))
    computed = [name for name in integers if name not in inputs]
    block = jacobian.block
    axes = [values.base.tensor(name).shape for name in (block.seed, block.output)]
    count = len(values.tensors)

    def assemble(call: Numbers) -> Any:
        from scipy.sparse import coo_array

        tables = {name: np.asarray(call.results[count + k]) for k, name in enumerate(computed)}
        tables |= {name: call.arrays[name] for name in integers if name not in computed}
        shaped = {n: t.reshape([call.integer(e) for e in values.base.tensor(n).shape]) for n, t in tables.items()}
        of, wrt = ([call.integer(extent) for extent in shape] for shape in axes)
        found = [_points(one, call, shaped, (of, wrt)) for one in placed]
        rows, columns, data = ([one[k] for one in found] for k in range(3))
        where = _concatenated(rows, np.dtype(np.int64)), _concatenated(columns, np.dtype(np.int64))
        return coo_array((_concatenated(data, call.dtype), where), shape=(prod(of), prod(wrt))).tocsr()

    return Plan(values.program(integers), assemble)


def _concatenated(parts: Sequence[Array], kind: np.dtype[Any]) -> Array:
    return np.concatenate([np.zeros(0, kind), *parts])


def _placed(one: Entries, values: _Values) -> _Placed:
    if one.value.body.is_number and not one.value.bound:
        return _Placed(one, (), None)
    safe = _reads_inside(values.base, one)
    guard = () if safe else one.conditions
    sees = {s for c in guard for s in c.expr.free_symbols}
    labels = tuple(label for label in one.box if label in one.seen or label in sees)
    term = Term(one.value.body, one.value.bound, (*one.value.domain, *guard))
    return _Placed(one, labels, values.add(term, labels, one.extents))


def _reads_inside(program: Program, one: Entries) -> bool:
    """Do all reads of the value lie inside their tensors, whether or not the conditions hold?"""
    facts = [*one.ranges, *one.value.domain]
    return all(stays_inside(a, program.tensor(a.name).shape, facts) for a in term_accesses(one.value))


def _points(
    one: _Placed, call: Numbers, tables: Mapping[str, Array], axes: tuple[Sequence[int], Sequence[int]]
) -> tuple[Array, Array, Array]:
    """Flat row, flat column and value of each entry of one part."""
    own = one.entries
    lengths = [max(0, call.integer(own.extents[label])) for label in own.box]
    grid = {
        label.name: np.arange(length).reshape([-1 if k == place else 1 for k in range(len(lengths))])
        for place, (label, length) in enumerate(zip(own.box, lengths, strict=True))
    }

    def leaf(expr: sp.Expr) -> Any:
        if isinstance(expr, Access):
            table = tables[expr.name]
            where = (np.asarray(value(i)) for i in expr.indices)
            return table[tuple(np.clip(w, 0, max(n - 1, 0)) for w, n in zip(where, table.shape, strict=True))]
        return grid[expr.name] if expr.name in grid else call.constants[expr.name]

    def value(expr: sp.Expr) -> Any:
        return indices.integer(expr, leaf)

    mask = np.ones([1] * len(lengths), dtype=bool)
    if 0 in lengths:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, call.dtype)
    for condition in own.conditions:
        found = value(condition.expr)
        mask = mask & (found == 0 if condition.equality else found >= 0)
    for expr, extent in own.read:
        found = value(expr)
        if np.any(mask & ((found < 0) | (found >= call.integer(extent)))):
            raise IndexError(f"{expr} lies outside its axis of {call.integer(extent)}.")
    numbers = np.asarray(float(own.value.body)) if one.output is None else call.results[one.output]
    spans = [length if label in one.labels else 1 for label, length in zip(own.box, lengths, strict=True)]
    every = np.broadcast_to(mask, lengths)
    rows, columns = (
        _flat([value(e) for e in side], extents) for side, extents in zip((own.rows, own.columns), axes, strict=True)
    )
    data = np.asarray(numbers, call.dtype).reshape(spans)
    kept = [np.broadcast_to(array, lengths)[every] for array in (rows, columns, data)]
    return kept[0], kept[1], kept[2]


def _flat(where: Sequence[Any], extents: Sequence[int]) -> Array:
    flat: Any = np.int64(0)
    for index, extent in zip(where, extents, strict=True):
        flat = flat * extent + index
    return np.asarray(flat, dtype=np.int64)
