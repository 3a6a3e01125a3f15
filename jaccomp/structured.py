"""Jacobians that are kept by their structure: a sum of products of small arrays, and what has a closed form there.

    J[r, c] = Σ_parts scale [ties] Σ_bound Π factors[labels]

An axis of rows, of columns or of a sum is a label, a small int; rows and columns that are tied share one. The arrays
come from a compiled kernel; only NumPy is needed here, and SciPy for sparse matrices and operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Labels = tuple[int, ...]
LARGEST_DENSE = 1 << 30  # bytes


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """`scale Σ Π factors` over the row labels `rows` and the column labels `columns`; a tied column has its row's."""

    scale: float
    factors: tuple[tuple[Labels, Array], ...]
    rows: Labels
    columns: Labels

    def transposed(self, columns: Labels) -> Part:
        """The part with rows and columns exchanged, ties named as `columns`, what columns are called without ties."""
        moved = self.relabelled(dict(zip(self.columns, columns, strict=True)))
        return replace(moved, rows=moved.columns, columns=moved.rows)

    def relabelled(self, where: Mapping[int, int]) -> Part:
        def named(labels: Labels) -> Labels:
            return tuple(where.get(one, one) for one in labels)

        factors = tuple((named(labels), array) for labels, array in self.factors)
        return Part(self.scale, factors, named(self.rows), named(self.columns))


@dataclass(frozen=True, eq=False)
class Factored:
    """A Jacobian of `of_shape` by `wrt_shape` as a sum of parts over labels; `extents` are how far each label runs.

    It multiplies vectors, transposes, and knows its trace, its Frobenius norm and a bound of its spectral norm without
    ever being dense. Where it is block diagonal with blocks that are diagonal plus low rank, it also knows its
    log-determinant, solves linear systems and is inverted, by Woodbury's identity (Woodbury, 1950).
    """

    of_shape: tuple[int, ...]
    wrt_shape: tuple[int, ...]
    rows: Labels
    columns: Labels
    parts: tuple[Part, ...]
    extents: Mapping[int, int]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the flat matrix."""
        return prod(self.of_shape), prod(self.wrt_shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the distinct arrays that are kept."""
        arrays = {array.ctypes.data: array for part in self.parts for _, array in part.factors}
        return sum(array.nbytes for array in arrays.values())

    @property
    def T(self) -> Factored:
        return replace(
            self,
            of_shape=self.wrt_shape,
            wrt_shape=self.of_shape,
            rows=self.columns,
            columns=self.rows,
            parts=tuple(part.transposed(self.columns) for part in self.parts),
        )

    def matvec(self, t: ArrayLike) -> Array:
        """J t: `t` is shaped as the input, or flat; so is the result, as the output."""
        given = np.asarray(t)
        total = np.zeros(self.of_shape, np.result_type(self.dtype, given.dtype))
        for part in self.parts:
            total += self._applied(part, given).reshape(self.of_shape)
        return total.reshape(-1) if given.shape == (self.shape[1],) else total

    def rmatvec(self, v: ArrayLike) -> Array:
        """vᵀ J: `v` is shaped as the output, or flat."""
        return self.T.matvec(v)

    def __matmul__(self, other: ArrayLike) -> Array:
        given = np.asarray(other)
        if given.ndim == 2 and given.shape[0] == self.shape[1] and given.shape != self.wrt_shape:
            return np.stack([self.matvec(column) for column in given.T], axis=1)
        return self.matvec(given)

    def toarray(self) -> Array:
        """The dense matrix, rows by columns. Raises `ValueError` beyond 1 GiB."""
        rows, columns = self.shape
        if rows * columns * self.dtype.itemsize > LARGEST_DENSE:
            raise ValueError(
                f"a dense matrix of {rows} by {columns} needs more than {LARGEST_DENSE >> 20} MiB. "
                "Use matvec, or smaller sizes."
            )
        dense = np.zeros((rows, columns), self.dtype)
        for part in self.parts:
            labels = (*part.rows, *part.columns)
            where = tuple(dict.fromkeys(labels))
            box = dense.reshape([self.extents[one] for one in labels])
            tied = np.einsum(box, list(labels), list(where)) if labels else box
            tied += part.scale * self._filled(part.factors, where)
        return dense

    def diagonal(self) -> Array:
        """Of a block that is diagonal, its diagonal, shaped as the output. Raises `ValueError` for any other."""
        if any(part.rows != part.columns for part in self.parts):
            raise ValueError("it is not diagonal; use toarray().")
        total = np.zeros(self.of_shape, self.dtype)
        for part in self.parts:
            total += part.scale * self._filled(part.factors, part.rows).reshape(self.of_shape)
        return total

    def trace(self) -> float:
        """The sum of J[r, r] over the flat rows. Raises `ValueError` where it is not square."""
        self._square("the trace")
        if not self._aligned:
            return float(np.trace(self.toarray()))
        total = 0.0
        for part in self.parts:
            where = _joined([*zip(part.rows, part.columns, strict=True)])
            one = part.relabelled(where)
            total += part.scale * float(self._filled(one.factors, (), {*one.rows}))
        return total

    def frobenius(self) -> float:
        """The Frobenius norm."""
        return float(np.sqrt(max(sum(self._products()), 0.0)))

    def _products(self) -> list[float]:
        """⟨p, q⟩ of all pairs of parts: their sum is ‖J‖_F²."""
        return [a.scale * b.scale * self._inner(a, b) for a in self.parts for b in self.parts]

    def spectral_bound(self) -> float:
        """A bound of the spectral norm: the least of ‖J‖_F and √(‖J‖₁ ‖J‖_∞), as row and column sums bound them.

        For softmax it is at most 1/2 whatever the input.
        """
        sums = [self._row_sums(), self.T._row_sums()]
        largest = [float(one.max(initial=0.0)) for one in sums]
        products = self._products()
        lost = 16 * float(np.finfo(self.dtype).eps) * sum(map(abs, products))  # where parts cancel
        return float(np.sqrt(min(max(sum(products), 0.0) + lost, largest[0] * largest[1])))

    def logdet(self) -> tuple[Array, Array]:
        """(sign, log|det|) of each block, by the determinant lemma. Raises `ValueError` where the form has none."""
        d, u, v = self._blocks("the log-determinant")
        with np.errstate(divide="ignore", invalid="ignore"):
            core = _capacitance(d, u, v)
            sign, log = np.linalg.slogdet(core)
            lemma = np.prod(np.sign(d), axis=1) * sign, np.log(np.abs(d)).sum(axis=1) + log
        broken = (d == 0).any(axis=1)
        for block in np.flatnonzero(broken):  # the lemma divides by d
            lemma[0][block], lemma[1][block] = np.linalg.slogdet(np.diag(d[block]) + u[block] @ v[block].T)
        return lemma

    def solve(self, b: ArrayLike) -> Array:
        """t with J t = b, by Woodbury's identity. Raises `LinAlgError` where a block is singular."""
        return self.inverse().matvec(b)

    def inverse(self) -> Factored:
        """J⁻¹ in the same form: diagonal plus the same rank. Raises `LinAlgError` where a block is singular."""
        d, u, v = self._blocks("the inverse")
        core = _capacitance(d, u, v)
        condition = np.linalg.cond(core) if core.size else np.zeros(len(d))
        limit = 1 / (np.finfo(d.dtype).eps * max(d.shape[1], 1))
        bad = (d == 0).any(axis=1) | ~(condition < limit)
        if bad.any():
            raise np.linalg.LinAlgError(
                f"block {int(np.flatnonzero(bad)[0])} of {len(d)} is singular to working precision: it has no inverse. "
                "Solve in the least-squares sense with scipy.sparse.linalg.lsqr on form='operator'."
            )
        left = u / d[:, :, None]
        right = np.linalg.solve(core.transpose(0, 2, 1), (v / d[:, :, None]).transpose(0, 2, 1)).transpose(0, 2, 1)
        return self._of_blocks(1 / d, -left, right)

    # -- blocks of diagonal plus low rank

    @cached_property
    def _common(self) -> Labels:
        """The labels that every part ties."""
        first, *others = [set(part.rows) & set(part.columns) for part in self.parts] or [set()]
        shared = first.intersection(*others)
        return tuple(label for label in self.rows if label in shared)

    @property
    def _aligned(self) -> bool:
        """Do rows and columns run over labels of the same extents in the same order?"""
        return [self.extents[one] for one in self.rows] == [self.extents[one] for one in self.columns]

    def _blocks(self, what: str) -> tuple[Array, Array, Array]:
        """d [blocks, m], u and v [blocks, m, k] with J = diag(d) + u vᵀ in each block."""
        self._square(what)
        common = self._common
        inner = tuple(one for one in self.rows if one not in common)
        blocks, m = prod(self.extents[one] for one in common), prod(self.extents[one] for one in inner)
        d = np.zeros((blocks, m), self.dtype)
        us, vs = [np.zeros((blocks, m, 0), self.dtype)], [np.zeros((blocks, m, 0), self.dtype)]
        places = {row: place for place, row in enumerate(self.rows)}
        for part in self.parts:
            if part.rows == part.columns:
                d += part.scale * self._filled(part.factors, (*common, *inner)).reshape(blocks, m)
                continue
            columns = tuple(part.columns[places[one]] for one in inner)
            bound = tuple({b: None for labels, _ in part.factors for b in labels if b not in (*part.rows, *columns)})
            row_side = [f for f in part.factors if set(f[0]) & set(inner) or not set(f[0]) & {*columns, *bound}]
            column_side = [f for f in part.factors if not any(f is one for one in row_side)]
            separate = not any(set(f[0]) & set(columns) for f in row_side)
            if (
                not separate
                or not self._aligned
                or any(part.columns[places[c]] != c for c in part.columns if c in places)
            ):
                raise ValueError(f"{what} has a closed form only for diagonal plus low rank; use numpy on toarray().")
            us.append(part.scale * self._filled(row_side, (*common, *inner, *bound)).reshape(blocks, m, -1))
            vs.append(self._filled(column_side, (*common, *columns, *bound)).reshape(blocks, m, -1))
        return d, np.concatenate(us, axis=2), np.concatenate(vs, axis=2)

    def _of_blocks(self, d: Array, u: Array, v: Array) -> Factored:
        """The same layout with these blocks."""
        rows, common = self.rows, self._common
        inner = tuple(one for one in rows if one not in common)
        fresh = max(self.extents, default=0) + 1
        columns = tuple(one if one in common else fresh + k for k, one in enumerate(rows))
        rank = fresh + len(rows)
        extents = {**self.extents, **{c: self.extents[r] for r, c in zip(rows, columns, strict=True)}, rank: u.shape[2]}
        lead = [self.extents[one] for one in common]
        span = [self.extents[one] for one in inner]
        own = tuple(c for r, c in zip(rows, columns, strict=True) if r in inner)
        low = (
            ((*common, *inner, rank), u.reshape(*lead, *span, -1)),
            ((*common, *own, rank), v.reshape(*lead, *span, -1)),
        )
        parts = (
            Part(1.0, (((*common, *inner), d.reshape(*lead, *span)),), rows, rows),
            Part(1.0, low, rows, columns),
        )
        return replace(self, columns=columns, parts=parts, extents=extents)

    # -- contractions

    def _applied(self, part: Part, t: Array) -> Array:
        vector = t.reshape([self.extents[one] for one in part.columns])
        return part.scale * self._filled([*part.factors, (part.columns, vector)], part.rows)

    def _filled(self, factors: Sequence[tuple[Labels, Array]], wanted: Labels, also: set[int] | None = None) -> Array:
        """The contraction of factors over `wanted`; labels of `also` that no factor sees count as often as they run."""
        seen = {label for labels, _ in factors for label in labels}
        kept = [label for label in wanted if label in seen]
        operands: list[Any] = []
        for labels, array in factors:
            operands += [array, list(labels)]
        value = np.einsum(*operands, kept, optimize=len(factors) > 2) if factors else np.ones((), self.dtype)
        times = prod(self.extents[label] for label in (also or ()) if label not in seen)
        spread = np.asarray(value).reshape([self.extents[label] if label in seen else 1 for label in wanted])
        return np.broadcast_to(times * spread, [self.extents[label] for label in wanted])

    def _inner(self, one: Part, other: Part) -> float:
        """⟨one, other⟩ over all entries: rows joined with rows, columns with columns."""
        base = max(self.extents, default=0) + 1
        apart = {
            label: base + label for label in {*other.rows, *other.columns, *(x for f in other.factors for x in f[0])}
        }
        moved = other.relabelled(apart)
        where = _joined([*zip(one.rows, moved.rows, strict=True), *zip(one.columns, moved.columns, strict=True)])
        left, right = one.relabelled(where), moved.relabelled(where)
        spans = {**self.extents, **{apart[x]: n for x, n in self.extents.items() if x in apart}}
        both = replace(self, extents=spans)
        return float(both._filled([*left.factors, *right.factors], (), {*left.rows, *left.columns}))

    def _row_sums(self) -> Array:
        """Bounds of Σ_c |J[r, c]|: exact signs where a diagonal meets low rank, absolute values elsewhere."""
        ones = np.ones(self.wrt_shape, self.dtype)
        try:
            d, u, v = self._blocks("row sums")
        except ValueError:
            return self._absolute().matvec(ones).reshape(-1)
        own = np.abs(u) * np.abs(v)
        others = np.abs(u) * np.abs(v).sum(axis=1, keepdims=True) - own
        return np.asarray(np.abs(d + (u * v).sum(axis=2)) + others.sum(axis=2)).reshape(-1)

    def _absolute(self) -> Factored:
        parts = (
            replace(p, scale=abs(p.scale), factors=tuple((labels, np.abs(a)) for labels, a in p.factors))
            for p in self.parts
        )
        return replace(self, parts=tuple(parts))

    def _square(self, what: str) -> None:
        if self.shape[0] != self.shape[1]:
            raise ValueError(f"{what} needs a square matrix, but this one is {self.shape[0]} by {self.shape[1]}.")

    def __repr__(self) -> str:
        kept = self.nbytes
        return f"<Factored {self.shape[0]} by {self.shape[1]}, {len(self.parts)} parts, {kept} bytes>"


def _capacitance(d: Array, u: Array, v: Array) -> Array:
    """I + vᵀ d⁻¹ u of each block."""
    return np.asarray(np.eye(u.shape[2], dtype=d.dtype) + np.einsum("bmi,bmj->bij", v / d[:, :, None], u))


def _joined(pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Label -> the one that stands for all it is joined with."""
    where: dict[int, int] = {}

    def root(label: int) -> int:
        while label in where:
            label = where[label]
        return label

    for one, other in pairs:
        a, b = root(one), root(other)
        if a != b:
            where[max(a, b)] = min(a, b)
    return {label: root(label) for label in where}


def operator(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: Any,
    forward: Callable[[Array], Array],
    backward: Callable[[Array], Array],
    forward_columns: Callable[[Array], Array] | None = None,
    backward_columns: Callable[[Array], Array] | None = None,
) -> Any:
    """A SciPy `LinearOperator`: `matvec` is the JVP, `rmatvec` the VJP, on flat vectors.

    `matmat` and `rmatmat` are `forward_columns` and `backward_columns` where given, else column by column.
    """
    from scipy.sparse.linalg import LinearOperator

    (of, wrt), kind = shapes, np.dtype(dtype)

    def flat(function: Callable[[Array], Array], shape: tuple[int, ...]) -> Callable[[Array], Array]:
        return lambda x: np.asarray(function(np.asarray(x, kind).reshape(shape))).reshape(-1)

    def columns(function: Callable[[Array], Array] | None) -> Callable[[Array], Array] | None:
        return None if function is None else lambda x: np.asarray(function(np.asarray(x, kind)))

    return LinearOperator(
        shape=(prod(of), prod(wrt)),
        matvec=flat(forward, wrt),
        rmatvec=flat(backward, of),
        matmat=columns(forward_columns),
        rmatmat=columns(backward_columns),
        dtype=kind,
    )
