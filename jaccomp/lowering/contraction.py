"""Matrix products, recognised by structure: a sum of a product of two accesses whose indices form contiguous runs.

    T[b.., m.., n..] = alpha Σ_{k..} L[b.., m.., k..] R[b.., k.., n..]      in any order of indices, transposes allowed

Each of m, n, k must be a run in the accesses that hold it: with strides s_1, s_2, ... and extents e_1, e_2, ...,
s_j = s_{j+1} e_{j+1}, so that the run is one index of a 2-D view. One of a view's two strides must be 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import sympy as sp

from jaccomp.domains import axis_ranges
from jaccomp.lowering.affine import bounds_of, flat_offset, index_set, slope
from jaccomp.lowering.windows import Shapes, windowed
from jaccomp.notation import Access
from jaccomp.program import (
    AXES,
    Constraint,
    Equation,
    Labels,
    Program,
    Tensor,
    Term,
    accesses,
    in_range,
)


@dataclass(frozen=True, slots=True)
class Sides:
    """The parts of a product: its two operands, constants, and the roles of its indices."""

    left: sp.Expr
    right: Access
    alpha: sp.Expr
    m: tuple[sp.Symbol, ...]
    n: tuple[sp.Symbol, ...]
    k: tuple[sp.Symbol, ...]


def sides(equation: Equation) -> Sides | None:
    """The two sides of an equation that is a product over two index sets, however its factors are written."""
    if equation.reducer != "sum" or len(equation.terms) != 1:
        return None
    (term,) = equation.terms
    if not term.bound or any(c.equality for c in term.domain):
        return None
    indices = (*equation.axes, *term.bound)
    constants = [f for f in sp.Mul.make_args(term.body) if not index_set(f, indices) and not f.has(Access)]
    factors = [f for f in sp.Mul.make_args(term.body) if f not in constants]
    choices: list[tuple[bool, Sides]] = []
    for right in factors:
        if not isinstance(right, Access) or not all(e.is_Symbol or not e.free_symbols for e in right.indices):
            continue
        rest = [f for f in factors if f is not right]
        left = sp.Mul(*rest)
        inside, outside = set(index_set(right, indices)), set(index_set(left, indices))
        m = tuple(i for i in equation.axes if i in outside and i not in inside)
        n = tuple(i for i in equation.axes if i in inside and i not in outside)
        both = all(b in inside and b in outside for b in term.bound)
        if not (m and n and both and inside | outside == set(indices)) or not accesses(left):
            continue
        k = tuple(sorted(term.bound, key=right.indices.index))
        choices.append((isinstance(left, Access), Sides(left, right, sp.Mul(*constants), m, n, k)))
    plain = [c for bare, c in choices if bare] or [c for _, c in choices]
    rows_first = [c for c in plain if equation.axes.index(c.m[0]) < equation.axes.index(c.n[0])]
    return next(iter([*rows_first, *plain]), None)


def boxes(equation: Equation, target: Tensor, shapes: Shapes) -> dict[sp.Symbol, tuple[sp.Expr, sp.Expr]] | None:
    """A range of each index in sizes alone that holds its domain; None if one has no such range.

    A bound index that only a triangle bounds has the range of the axis that it reads bare.
    """
    (term,) = equation.terms
    indices = (*equation.axes, *term.bound)
    domain = [*axis_ranges(target), *term.domain]
    result: dict[sp.Symbol, tuple[sp.Expr, sp.Expr]] = {}
    for index in indices:
        alone = [c for c in domain if index_set(c.expr, indices) == (index,) and not c.is_data]
        lower, upper = bounds_of(index, alone)
        if len(lower) == len(upper) == 1:
            result[index] = (lower[0], upper[0])
            continue
        read = [shapes[a.name][a.indices.index(index)] for a in accesses(term.body) if index in a.indices]
        if not read or len(lower) > 1 or len(upper) > 1:
            return None
        result[index] = (lower[0] if lower else sp.S.Zero, upper[0] if upper else read[0])
    return result


def mixed(equation: Equation) -> tuple[Constraint, ...]:
    """The constraints that relate two indices: a triangle."""
    (term,) = equation.terms
    indices = (*equation.axes, *term.bound)
    return tuple(c for c in term.domain if len(index_set(c.expr, indices)) > 1)


def is_product(equation: Equation, shapes: Shapes, target: Tensor) -> bool:
    """Can BLAS compute the equation as it stands, on whole arrays or on a tile of them?"""
    found = sides(equation)
    box = boxes(equation, target, shapes) if found is not None else None
    if found is None or box is None or not isinstance(found.left, Access) or mixed(equation):
        return False
    return views_fit(equation_access(equation, target), found.left, found.right, found, box, shapes)


def is_windowed(equation: Equation, shapes: Shapes, target: Tensor) -> bool:
    """Is it a sum of products over boxes that is no matrix product?"""
    return not is_product(equation, shapes, target) and windowed(equation, target, shapes) is not None


def equation_access(equation: Equation, target: Tensor) -> Access:
    return target[equation.axes]


def views_fit(
    target: Access,
    left: Access,
    right: Access,
    roles: Sides,
    box: Mapping[sp.Symbol, tuple[sp.Expr, sp.Expr]],
    shapes: Shapes,
) -> bool:
    """Is each operand a matrix with a unit stride in these index runs?"""
    extents = {i: sp.expand(high - low) for i, (low, high) in box.items()}
    target_view = view(target, roles.m, roles.n, extents, shapes)
    if target_view is None:
        return False
    return all(
        view(a, rows, columns, extents, shapes) is not None
        for a, rows, columns in ((left, roles.m, roles.k), (right, roles.k, roles.n))
    )


def view(
    access: Access,
    rows: Sequence[sp.Symbol],
    columns: Sequence[sp.Symbol],
    extents: Mapping[sp.Symbol, sp.Expr],
    shapes: Shapes,
) -> tuple[sp.Expr, sp.Expr] | None:
    """(row stride, column stride) of an access as a matrix, if its runs are contiguous and one stride is 1."""
    offset = flat_offset(access.indices, shapes[access.name])
    strides = [run_stride(offset, run, extents) for run in (rows, columns)]
    row, column = strides
    if row is None or column is None or (row != 1 and column != 1):
        return None
    return row, column


def run_stride(offset: sp.Expr, run: Sequence[sp.Symbol], extents: Mapping[sp.Symbol, sp.Expr]) -> sp.Expr | None:
    """The stride of a run of indices, slowest first, taken as one index; None if it is not contiguous."""
    following: sp.Expr | None = None
    innermost: sp.Expr | None = None
    for index in reversed(run):
        own = slope(offset, index)
        if own is None or own == 0:
            return None
        if following is None:
            innermost = own
        elif sp.expand(own - following) != 0:
            return None
        following = sp.expand(own * extents[index])
    return innermost


def name_operands(program: Program, outer: bool = True) -> Program:
    """Give the composite or triangular operand of a product an equation of its own.

    o[t,d] = Σ_{m <= t} e[t,m] / z[t] v[m,d]
        ->   o_left[t,m] = {m <= t} e[t,m] / z[t];  o[t,d] = Σ_m o_left[t,m] v[m,d]

    The new operand is 0 where the triangle leaves it out, so that a dense product is exact. Without `outer` no operand
    is made that is larger than everything it reads.
    """
    equations: list[Equation] = []
    new: list[Tensor] = []
    shapes = {t.name: t.shape for t in program.tensors}
    known: dict[tuple[object, ...], Access] = {}
    dense: list[Equation] = []
    for equation in program.equations:
        parts = _dense(equation, program.tensor(equation.target), shapes)
        if parts is None:
            dense.append(equation)
            continue
        tensor, whole, cut = parts
        new.append(tensor)
        shapes[tensor.name] = tensor.shape
        dense += [whole, cut]
    program = program.with_equations(dense, new)
    new = []
    for equation in program.equations:
        target = program.tensor(equation.target)
        split = _split(program, equation, target, shapes, outer)
        if split is None:
            equations.append(equation)
            continue
        product, operand = split
        if operand is None:
            equations.append(product)
            continue
        made, tensor = operand
        key = (tensor.shape, made.terms)
        if key in known:
            (term,) = product.terms
            body = term.body.xreplace(
                {a: _renamed(a, known[key]) for a in accesses(term.body) if a.name == tensor.name}
            )
            equations.append(replace(product, terms=(replace(term, body=body),)))
            continue
        known[key] = tensor[made.axes]
        new.append(tensor)
        shapes[tensor.name] = tensor.shape
        equations += [made, product]
    return program.with_equations(equations, new)


def split_terms(program: Program) -> Program:
    """One body for all maps of a sum, and an equation of its own for each product among its terms.

    y[n,o] = b[o] + c[o] + Σ_k x[n,k] W[o,k]
        ->   y_product[n,o] = Σ_k x[n,k] W[o,k];  y[n,o] = b[o] + c[o] + y_product[n,o]

    A product over windows stays: it is added to what is there.
    """
    shapes = {t.name: t.shape for t in program.tensors}
    equations: list[Equation] = []
    new: list[Tensor] = []
    for equation in program.equations:
        if len(equation.terms) < 2:
            equations.append(equation)
            continue
        target = program.tensor(equation.target)
        maps: list[sp.Expr] = []
        rest: list[Term] = []
        for term in equation.terms:
            alone = replace(equation, terms=(term,))
            if not term.bound and not term.domain:
                maps.append(term.body)
            elif sides(alone) is not None and not is_windowed(alone, shapes, target):
                tensor = Tensor(f"{target.name}_product{len(new)}", target.shape)
                new.append(tensor)
                equations.append(replace(alone, target=tensor.name))
                maps.append(tensor[equation.axes])
            else:
                rest.append(term)
        merged = (Term(sp.Add(*maps)),) if maps else ()
        equations.append(replace(equation, terms=(*merged, *rest)))
    return program.with_equations(equations, new)


def _dense(equation: Equation, target: Tensor, shapes: Shapes) -> tuple[Tensor, Equation, Equation] | None:
    """A product of which only a part is kept, as the whole product and the part.

    s[t,m] = {m <= t} Σ_d q[t,d] k[m,d]   ->   s_dense[t,m] = Σ_d q[t,d] k[m,d];  s[t,m] = {m <= t} s_dense[t,m]
    """
    if sides(equation) is None:
        return None
    (term,) = equation.terms
    kept = tuple(c for c in mixed(equation) if not index_set(c.expr, term.bound))
    if not kept:
        return None
    tensor = Tensor(f"{target.name}_dense", target.shape)
    whole = replace(
        equation, target=tensor.name, terms=(replace(term, domain=tuple(c for c in term.domain if c not in kept)),)
    )
    if not is_product(whole, {**shapes, tensor.name: tensor.shape}, tensor):
        return None
    return tensor, whole, replace(equation, terms=(Term(tensor[equation.axes], (), kept),))


def _renamed(access: Access, like: Access) -> Access:
    return Access(like.base, *access.indices)


def _split(
    program: Program, equation: Equation, target: Tensor, shapes: Shapes, outer: bool
) -> tuple[Equation, tuple[Equation, Tensor] | None] | None:
    """The product over plain ranges, with the new operand that makes it one unless there is one already."""
    found = sides(equation)
    if found is None or is_product(equation, shapes, target) or is_windowed(equation, shapes, target):
        return None
    (term,) = equation.terms
    box = boxes(equation, target, shapes)
    if box is None or any(low != 0 for low, _ in box.values()):
        return None
    triangle = mixed(equation)
    swap = any(index_set(c.expr, found.n) for c in triangle)
    composite: sp.Expr = found.right if swap else found.left
    kept: sp.Expr = found.left if swap else found.right
    rows = found.n if swap else found.m
    everything = (*equation.axes, *term.bound)
    if not isinstance(kept, Access) or not all(e.is_Symbol or not e.free_symbols for e in kept.indices):
        return None
    own = index_set(composite, everything)
    if not outer and not any(set(own) <= a.free_symbols for a in accesses(composite)):
        return None
    batch = tuple(i for i in own if i not in rows and i not in found.k)
    order = (*batch, *rows, *found.k)
    if any(not set(index_set(c.expr, everything)) <= set(order) for c in triangle):
        return None
    domain = tuple(c for b in term.bound for c in in_range(b, box[b][1], box[b][0]))
    if isinstance(composite, Access) and _is_zero_outside(program, composite, triangle):
        product = replace(equation, terms=(Term(term.body, term.bound, domain),))
        return (product, None) if is_product(product, shapes, target) else None
    tensor = Tensor(f"{target.name}_left", tuple(box[i][1] for i in order))
    where = dict(zip(order, AXES, strict=False))
    operand = Equation(tensor.name, AXES[: len(order)], (Term(composite, (), triangle).over(where),))
    product = replace(equation, terms=(Term(found.alpha * kept * tensor[order], term.bound, domain),))
    trial = {**shapes, tensor.name: tensor.shape}
    return (product, (operand, tensor)) if is_product(product, trial, target) else None


def _is_zero_outside(program: Program, operand: Access, triangle: Sequence[Constraint]) -> bool:
    """Is the operand defined as 0 wherever the triangle fails?"""
    definition = program.definition(operand.name)
    if definition is None or definition.reducer != "sum" or len(definition.terms) != 1:
        return False
    if len(set(operand.indices)) != len(operand.indices) or not all(i.is_Symbol for i in operand.indices):
        return False
    where: dict[sp.Expr, sp.Expr] = dict(zip(operand.indices, definition.axes, strict=True))
    return all(c.over(where) in definition.terms[0].domain for c in triangle)


def extend_labels(labels: Labels, new: Sequence[Tensor]) -> Labels:
    """Labels that name derived operands after their product, each its own: y_product, y_product2."""
    names = dict(labels.names)
    for tensor in new:
        for suffix in ("_left", "_dense", "_product", "_again"):
            stem, found, _ = tensor.name.partition(suffix)
            if found and tensor.name not in names:
                wish = labels.name(stem) + suffix
                taken = set(names.values())
                names[tensor.name] = next(w for k in count(1) if (w := wish if k == 1 else f"{wish}{k}") not in taken)
                break
    return replace(labels, names=names)
