"""Structure certificates: what the deltas and coefficients of a Jacobian block prove of it. No number is looked at.

    zero, identity, permutation, diagonal, diagonal + rank k, rank k, Kronecker, selection, Toeplitz, banded,
    triangular, gradient, dense, and block diagonal over axes that every term ties

Each comes with the rank that the structure allows, the entries that can differ from zero, and the numbers to store and
the multiply-adds for a product with a vector in the form that keeps fewest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.algebra.entries import Entries, entries
from jaccomp.algebra.layout import Label, Layout, Part, Pattern, Product, Structure, labels_of, over_places
from jaccomp.calculus.functions import Finite, HalfStep, Step
from jaccomp.notation import Access
from jaccomp.program import Constraint, expand

Form = str  # "diagonal", "factors", "sparse", "dense"
STEPLIKE = (Step, HalfStep, Finite, sp.Piecewise, sp.Max, sp.Min, sp.sign)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is certain of a block, in the program's sizes.

    `words` say it for people; `form` is the cheapest form that holds it. `rank` bounds the numerical rank, and is equal
    to it where `exact`, for generic inputs and sizes above 1. `entries` bounds the entries that are not 0; `storage` is
    how many numbers `form` keeps, `work` the multiply-adds of one product with a vector. `norm`, where it is one, is a
    number that the spectral norm never exceeds, whatever the input.
    """

    words: str
    form: Form
    rank: sp.Expr
    exact: bool
    entries: sp.Expr
    storage: sp.Expr
    work: sp.Expr
    norm: sp.Expr | None = None

    def over(self, words: Mapping[sp.Expr, sp.Expr]) -> Certificate:
        """The certificate with its sizes replaced."""
        formulas = ("rank", "entries", "storage", "work")
        return replace(self, **{name: getattr(self, name).xreplace(dict(words)) for name in formulas})


def certify(structure: Structure, inputs: Sequence[str]) -> Certificate:
    """The certificate of a block's structure; `inputs` are the tensors that can be any, by canonical names."""
    layout, parts = structure.layout, structure.parts
    if not parts:
        return Certificate("zero", "sparse", sp.S.Zero, True, sp.S.Zero, sp.S.Zero, sp.S.Zero)
    facts = [_facts(part, structure, inputs) for part in parts]
    shared = layout.volume(row for row, _ in structure.ties)
    rows, columns = layout.volume(_inner_rows(structure)), layout.volume(_inner_columns(structure))
    ranks = [one.rank for one in facts]
    summed = [] if any(rank.has(sp.Min) for rank in ranks) else [sp.Add(*ranks)]
    form = _form(structure, facts)
    everything = layout.volume(layout.row_labels) * layout.volume(layout.column_labels)
    return Certificate(
        _words(structure, facts),
        form,
        shared * _least([rows, columns, *(summed if len(facts) > 1 else ranks)]),
        len(facts) == 1 and facts[0].exact,
        shared * rows * columns if any(one.fills for one in facts) else sp.Add(*(one.entries for one in facts)),
        everything if form == "dense" else _storage(structure, facts),
        everything if form == "dense" else sp.Add(*(one.work for one in facts)),
    )


def _inner_rows(structure: Structure) -> list[Label]:
    tied = {row for row, _ in structure.ties}
    return [label for label in structure.layout.row_labels if label not in tied]


def _inner_columns(structure: Structure) -> list[Label]:
    tied = {column for _, column in structure.ties}
    return [label for label in structure.layout.column_labels if label not in tied]


def _form(structure: Structure, facts: Sequence[_Facts]) -> Form:
    if all(one.kind in ("identity", "diagonal") for one in facts):
        return "diagonal"
    if all(isinstance(part, Product) for part in structure.parts):
        return "factors"
    return "sparse" if structure.ties or not any(one.fills for one in facts) else "dense"


def _storage(structure: Structure, facts: Sequence[_Facts]) -> sp.Expr:
    """The numbers of the distinct arrays of all products, and of each pattern."""
    layout = structure.layout
    kept: dict[sp.Expr, sp.Expr] = {}
    for part in structure.parts:
        for array in arrays(part, layout) if isinstance(part, Product) else ():
            labels = labels_of(array, layout)
            kept.setdefault(over_places(array, labels), layout.volume(labels))
    return sp.Add(*kept.values(), *(one.storage for one in facts))


def _least(bounds: Iterable[sp.Expr]) -> sp.Expr:
    """The least of bounds; 1 is below every size that is not 0, where a bound says nothing."""
    found = list(dict.fromkeys(expand(one) for one in bounds))
    if sp.S.One in found:
        return sp.S.One
    kept = [one for one in found if not any(one != other and _is_below(other, one) for other in found)]
    return kept[0] if len(kept) == 1 else sp.Min(*kept)


def _is_below(small: sp.Expr, large: sp.Expr) -> bool:
    """Is it plainly no larger: every addend of the difference has a positive coefficient?"""
    return all(c > 0 for c in expand(large - small).as_coefficients_dict().values())


# One part


@dataclass(frozen=True, slots=True)
class _Facts:
    """A part: its kind and rank within a block over the common ties; entries, work and storage in all.

    `fills` says that any entry of a block may differ from 0; the arrays of products are counted apart.
    """

    kind: str
    rank: sp.Expr
    exact: bool
    entries: sp.Expr
    work: sp.Expr
    storage: sp.Expr = sp.S.Zero
    fills: bool = False


def _facts(part: Part, structure: Structure, inputs: Sequence[str]) -> _Facts:
    return _of_product(part, structure, inputs) if isinstance(part, Product) else _of_pattern(part, structure)


def _of_product(part: Product, structure: Structure, inputs: Sequence[str]) -> _Facts:
    layout = structure.layout
    common = {row for row, _ in structure.ties}
    tied = {row for row, _ in part.ties}
    rows = [label for label in layout.row_labels if label not in tied]
    columns = [label for label in layout.column_labels if label not in {c for _, c in part.ties}]
    points = layout.volume([*layout.row_labels, *columns])
    within = layout.volume(label for label in tied if label not in common)
    generic = not any(f.has(*STEPLIKE) for f in part.factors)
    if not rows and not columns:
        ones = all(f == 1 for f in part.factors)
        return _Facts("identity" if ones else "diagonal", within, generic, points, points)
    link = linking(part, layout)
    if link is None:
        full = _least([layout.volume(rows), layout.volume(columns)])
        exact = generic and within == 1 and _is_free(part, inputs)
        return _Facts("dense", within * full, exact, points, points * layout.volume(part.bound), fills=True)
    inner = layout.volume(link)
    work = inner * layout.volume([*tied, *rows]) + inner * layout.volume([*tied, *columns])
    kind = "rank" if within == 1 else "dense"
    return _Facts(kind, within * inner, generic and not link and within == 1, points, work, fills=True)


def _is_free(part: Product, inputs: Sequence[str]) -> bool:
    """Is it one read of an input at distinct labels, so that it can be any matrix?"""
    reads = [f for f in part.factors if f.free_symbols and not f.is_number]
    labels = [list(f.indices) for f in reads if isinstance(f, Access) and f.name in inputs]
    return (
        len(reads) == len(labels) == 1 and all(i.is_Symbol for i in labels[0]) and len(set(labels[0])) == len(labels[0])
    )


def linking(part: Product, layout: Layout) -> tuple[Label, ...] | None:
    """The bound labels that join factors of rows with factors of columns; None where one factor sees both."""
    tied = {row for row, _ in part.ties}
    rows = set(layout.row_labels) - tied
    columns = set(layout.column_labels)
    row_side = [f for f in part.factors if f.free_symbols & rows]
    column_side = [f for f in part.factors if f.free_symbols & columns]
    if any(f in column_side for f in row_side):
        return None
    seen = {b for f in row_side for b in f.free_symbols} & {b for f in column_side for b in f.free_symbols}
    return tuple(b for b in part.bound if b in seen)


def arrays(part: Product, layout: Layout) -> tuple[sp.Expr, ...]:
    """The factors as arrays: one that sees no more labels than another is multiplied into it; numbers are none.

    g[c] · rstd[n] · xhat[n,c,h]   ->   (g[c] rstd[n] xhat[n,c,h])
    """
    factors = sorted((f for f in part.factors if not f.is_number), key=lambda f: -len(labels_of(f, layout)))
    kept: list[sp.Expr] = []
    for factor in factors:
        seen = set(labels_of(factor, layout))
        home = next((k for k, one in enumerate(kept) if seen <= set(labels_of(one, layout))), None)
        if home is None:
            kept.append(factor)
        else:
            kept[home] = kept[home] * factor
    return tuple(kept)


def _of_pattern(part: Pattern, structure: Structure) -> _Facts:
    layout = structure.layout
    found = entries(part, layout)
    kind = _pattern(part, found, layout)
    rank = _least([layout.volume(_inner_rows(structure)), layout.volume(_inner_columns(structure))])
    return _Facts(kind, rank, False, found.count, found.count, found.numbers, fills=kind == "dense")


def _pattern(part: Pattern, found: Entries, layout: Layout) -> str:
    """What a part with other constraints is called."""
    term = part.term
    shifts = [c for c in term.domain if c.equality and not c.is_data]
    guards = [c for c in term.domain if _sees(c, layout.row_labels) and _sees(c, layout.column_labels)]
    if any(c.is_data for c in term.domain):
        return "selection"
    if shifts and term.body.is_number and not any(b in c.expr.free_symbols for c in shifts for b in term.bound):
        return "permutation" if _is_onto(found, layout) else "selection"
    if shifts or any(label not in layout.extents for label in found.box):
        rows = {s for index in found.rows for s in index.free_symbols}
        moving = rows & {s for index in found.columns for s in index.free_symbols} - {row for row, _ in part.ties}
        return "banded" if found.value.body.free_symbols & moving else "Toeplitz"
    if guards and all(_is_triangle(c, layout) for c in guards):
        return "triangular"
    return "dense"


def _is_onto(found: Entries, layout: Layout) -> bool:
    """Is each row and each column met just once, whatever the sizes?"""
    rows, columns = layout.volume(layout.row_labels), layout.volume(layout.column_labels)
    return not found.conditions and expand(rows - columns) == 0 and expand(found.count - rows) == 0


def _sees(constraint: Constraint, labels: Sequence[Label]) -> bool:
    return bool(constraint.expr.free_symbols & set(labels))


def _is_triangle(constraint: Constraint, layout: Layout) -> bool:
    """`row >= column`, shifted or not: an inequality between one label of each side with slopes 1 and -1."""
    sides = [
        [s for s in side if s in constraint.expr.free_symbols] for side in (layout.row_labels, layout.column_labels)
    ]
    if [len(side) for side in sides] != [1, 1]:
        return False
    return {constraint.expr.coeff(side[0]) for side in sides} == {sp.S.One, sp.S.NegativeOne}


# Words


def _words(structure: Structure, facts: Sequence[_Facts]) -> str:
    layout = structure.layout
    kinds = list(dict.fromkeys(one.kind for one in facts))
    if not layout.rows:
        return "gradient"
    if not layout.columns:
        return "column"
    tied = structure.ties
    if kinds in (["identity"], ["diagonal"]):
        return kinds[0] if _in_order(structure) else "permutation" if kinds == ["identity"] else "permuted diagonal"
    inner = _named(kinds, facts)
    if not tied:
        return inner
    seen = {s for part in structure.parts for s in _seen(part)}
    unseen = [row for row, _ in tied if row not in seen]
    if len(unseen) == len(tied):
        return f"Kronecker: I ⊗ {inner}"
    return f"block diagonal: I ⊗ {inner}" if unseen else f"block diagonal: {inner}"


def _in_order(structure: Structure) -> bool:
    """Do ties join the first axis with the first, the second with the second, and so on?"""
    layout = structure.layout
    partner = dict(structure.ties)
    return [partner.get(label) for label in layout.row_labels] == list(layout.column_labels)


def _seen(part: Part) -> set[sp.Symbol]:
    if isinstance(part, Product):
        return {s for f in part.factors for s in f.free_symbols}
    found = set(part.term.body.free_symbols)
    for constraint in part.term.domain:
        found |= constraint.expr.free_symbols
    return found


def _named(kinds: Sequence[str], facts: Sequence[_Facts]) -> str:
    diagonal = [k for k in kinds if k in ("identity", "diagonal")]
    others = [k for k in kinds if k not in diagonal]
    rank = expand(sp.Add(*(one.rank for one in facts if one.kind == "rank")))
    if others == ["rank"] and rank.is_number:
        return f"diagonal + rank {rank}" if diagonal else f"rank {rank}"
    if others == ["rank"]:
        return "diagonal + low rank" if diagonal else "low rank"
    for kind in ("selection", "permutation", "Toeplitz", "triangular"):
        if others == [kind]:
            return kind if kind in ("triangular", "selection") or not diagonal else "banded"
    if others and all(k in ("selection", "permutation", "Toeplitz", "banded") for k in others):
        return "banded" if "banded" in others or "Toeplitz" in others or len(facts) > 1 else "selection"
    return "dense" if others else "diagonal"
