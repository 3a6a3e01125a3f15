"""Lowering: what the loop IR of a program looks like, and that it does not depend on hash seeds or labels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sympy as sp
import test_emit_loops as cases

from jaccomp import layers
from jaccomp.calculus.vjp import vjp
from jaccomp.emit.plans import prepared
from jaccomp.errors import StageError
from jaccomp.lowering import lower
from jaccomp.lowering.affine import bounds_of, flat_offset, is_mixed_radix, slope
from jaccomp.lowering.collapse import collapse
from jaccomp.lowering.flatten import flatten
from jaccomp.lowering.ir import (
    Accumulate,
    Assign,
    Block,
    CeilDiv,
    Contract,
    FloorDiv,
    Guard,
    Kernel,
    Loop,
    LowerBound,
    Scatter,
    UpperBound,
    Within,
    verify,
    walk,
)
from jaccomp.lowering.relieve import LARGE, relieve
from jaccomp.lowering.shift import from_zero
from jaccomp.lowering.statements import statements
from jaccomp.lowering.tiling import OWNED_ELEMENTS, OWNERS
from jaccomp.lowering.unravel import unravel
from jaccomp.lowering.windows import windowed
from jaccomp.notation import Access
from jaccomp.pipeline import halves
from jaccomp.program import (
    AXES,
    Constraint,
    Equation,
    Program,
    Tensor,
    Term,
    bound_symbol,
    equal,
    in_range,
    scalar_map,
    size_symbol,
)

N, D, H, K = (size_symbol(f"s{k}") for k in range(4))
i, j = AXES[:2]
b, c = bound_symbol(0), bound_symbol(1)


def products(kernel: Kernel) -> list[Contract]:
    return [n for f in kernel.functions for n in walk(f.body) if isinstance(n, Contract)]


def scratch(kernel: Kernel) -> dict[str, tuple[sp.Expr, ...]]:
    return {x.name: x.shape for f in kernel.functions for x in f.scratch}


def test_bounds_come_from_coefficients_of_any_sign() -> None:
    assert bounds_of(i, [Constraint(i - b)]) == ((b,), ())
    assert bounds_of(i, [Constraint(N - 1 - i)]) == ((), (N,))
    assert bounds_of(i, [Constraint(2 * i - b)]) == ((CeilDiv(b, 2),), ())
    assert bounds_of(i, [Constraint(b - 2 * i)]) == ((), (FloorDiv(b, 2) + 1,))
    s = sp.Symbol("c0", integer=True)
    assert bounds_of(i, [Constraint(b - s * i)]) == ((LowerBound(-s, b),), (UpperBound(-s, b),))


def test_slopes_are_of_affine_expressions_only() -> None:
    assert slope(D * i + j + 2, i) == D
    assert slope(Access(sp.Symbol("x0", integer=True), i) + j, i) is None
    assert slope(i**2, i) is None
    assert slope(i * j, i) == j
    assert flat_offset((i, j), (N, D)) == D * i + j


def test_mixed_radix_is_injective_on_its_box() -> None:
    boxes = {b: (sp.S.Zero, N), c: (sp.S.Zero, D)}
    assert is_mixed_radix(b * D + c, (b, c), boxes)
    assert not is_mixed_radix(b * H + c, (b, c), boxes)
    assert not is_mixed_radix(b + c, (b, c), boxes)
    assert is_mixed_radix(2 * b, (b,), boxes)


def test_layer_norm_is_one_loop_over_rows_with_scalars() -> None:
    kernel = lower(cases.layernorm())
    (nest,) = kernel.functions
    assert [loop.upper for loop in nest.parallel] == [(N,)]
    assert kernel.temporaries == ()
    assert all(shape == () for shape in scratch(kernel).values())


def test_the_vjp_of_layer_norm_reduces_over_rows_in_blocks_and_keeps_no_full_temporary() -> None:
    kernel = lower(vjp(cases.layernorm()))
    assert kernel.temporaries == ()
    rows = kernel.functions[-1]
    assert {p.target for p in rows.partials} == {"ct_x1", "ct_x2"}
    assert all(shape in ((), (D,)) for shape in scratch(kernel).values())


def test_batch_norm_takes_its_channels_outermost() -> None:
    (nest,) = lower(cases.batchnorm()).functions
    assert nest.parallel[0].upper == (D,)


def test_attention_contracts_its_scores_to_tiles() -> None:
    kernel = lower(cases.attention())
    assert len(products(kernel)) == 2
    assert kernel.temporaries == ()
    assert all(shape == () or shape == (D,) or shape[0].is_Integer for shape in scratch(kernel).values())


def test_the_weights_of_a_dense_layer_are_reduced_by_their_owner() -> None:
    kernel = lower(vjp(cases.dense()))
    assert {n.target.name for n in products(kernel)} >= {"ct_x0", "ct_x1"}
    assert all("ct_x1" not in {p.target for p in f.partials} for f in kernel.functions)


def backward_of_dense(name: str, ct_h: Equation, *read: Tensor) -> Kernel:
    """ct_x = ct_h W and ct_W = ct_hᵀ x, of a cotangent that `ct_h` computes from what it reads."""
    x, w, made = Tensor("x0", (N, D)), Tensor("x1", (H, D)), Tensor(ct_h.target, (N, H))
    ct_x, ct_w = Tensor("ct_x0", (N, D)), Tensor("ct_x1", (H, D))
    rows = Equation("ct_x0", (i, j), (Term(made[i, b] * w[b, j], (b,), in_range(b, H)),))
    columns = Equation("ct_x1", (i, j), (Term(made[b, i] * x[b, j], (b,), in_range(b, N)),))
    return lower(cases.program(name, (x, w, *read, made, ct_x, ct_w), ct_h, rows, columns))


def test_a_cotangent_that_two_products_need_is_computed_in_each_and_never_kept_whole() -> None:
    h, ct = Tensor("x2", (N, H)), Tensor("ct_v1", (N, H))
    slope = scalar_map("ct_v0", 2, ct[i, j] * (1 - sp.tanh(h[i, j]) ** 2))
    kernel = backward_of_dense("dense_bwd", slope, h, ct)
    assert kernel.temporaries == ()
    assert all(not {N, H} <= set(shape) for shape in scratch(kernel).values())


def test_the_cotangent_of_logits_is_never_kept_whole() -> None:
    """What labels subtract is put at its place in one nest, and chosen at every place in the tiles of the other."""
    p, labels, ct = Tensor("x2", (N, H)), Tensor("x3", (N,), "int64"), Tensor("x4", (N,))
    put = Term(-ct[i,], (), (Constraint(labels[i,] - j, equality=True),))
    ct_z = Equation("ct_v0", (i, j), (Term(ct[i,] * sp.exp(p[i, j])), put))
    kernel = backward_of_dense("logits_bwd", ct_z, p, labels, ct)
    assert kernel.temporaries == ()
    assert all(not {N, H} <= set(shape) for shape in scratch(kernel).values())


def test_rows_of_a_product_that_are_read_again_come_in_larger_tiles_where_there_are_many() -> None:
    x, w, h, y = Tensor("x0", (N, D)), Tensor("x1", (H, D)), Tensor("v0", (N, H)), Tensor("v1", (N,))
    equations = (
        Equation("v0", (i, j), (Term(x[i, b] * w[j, b], (b,), in_range(b, D)),)),
        Equation("v1", (i,), (Term(sp.exp(h[i, b]), (b,), in_range(b, H)),)),
    )
    program = cases.program("rows", (x, w, h, y), *equations)
    for rows, step in ((512, 64), (4096, 128)):
        typical = tuple(rows if s == N else 512 for s in program.sizes)
        assert lower(replace(program, typical=typical)).functions[0].parallel[0].step == step


def test_a_cotangent_in_pieces_is_computed_tile_by_tile_in_both_nests() -> None:
    kernel = lower(cases.cell())
    assert kernel.temporaries == ()
    tiles = [x.shape for f in kernel.functions for x in f.scratch if len(x.shape) == 2]
    assert len(tiles) == 2 and all(shape[0].is_Integer for shape in tiles)
    assert sum(shape[1].is_Integer for shape in tiles) == 1


def test_the_tile_of_a_large_operand_has_few_rows() -> None:
    x, w, z, y = Tensor("x0", (N, D)), Tensor("x1", (H, D, D)), Tensor("x2", (N, D)), Tensor("v0", (N, H))
    body = x[i, b] * w[j, b, c] * z[i, c]
    product = Equation("v0", (i, j), (Term(body, (b, c), (*in_range(b, D), *in_range(c, D))),))
    program = replace(cases.program("form", (x, w, z, y), product), typical=(512,) * 3)
    assert all(shape[0].is_Integer and shape[0] <= 8 for shape in scratch(lower(program)).values() if len(shape) > 2)


def test_what_a_sum_does_not_change_multiplies_it_once() -> None:
    (nest,) = lower(cases.weighted()).functions
    values = [n.value for n in walk(nest.body) if isinstance(n, Accumulate)]
    read = [{a.name for a in v.atoms(Access)} for v in values]
    assert read == [{"x0"}, {"x0", "x1"}], "a triangle of loops may be empty where no test outside it can tell"
    guards = {n.constraints for n in walk(nest.body) if isinstance(n, Guard) and n.constraints}
    assert guards == {(Constraint(D - 1),)}


def test_an_activation_follows_its_product_tile_by_tile() -> None:
    (nest,) = lower(cases.dense()).functions
    assert nest.parallel[-1].mode == "tile"
    assert any(isinstance(n, Contract) for n in walk(nest.body))


def test_a_tile_of_rows_owns_what_is_scattered_to_them() -> None:
    """Each tile is zeroed in one run, and goes through all the ids for those that name a row of it."""
    (nest,) = lower(vjp(cases.embedding())).functions
    (tile,) = nest.parallel
    assert (tile.mode, tile.upper) == ("tile", (cases.K,))
    assert str(tile.step) == f"Greatest(CeilDiv({cases.K}, {OWNERS}), CeilDiv({OWNED_ELEMENTS}, {D}))"
    zero, rows = nest.body.nodes
    assert isinstance(zero, Loop) and zero.upper == ((tile.stop - tile.index) * D,)
    assert isinstance(rows, Loop) and rows.upper == (N,)
    (guard,) = rows.body.nodes
    place = Access(sp.Symbol("x0", integer=True), rows.index)
    assert isinstance(guard, Guard)
    assert guard.constraints == (Constraint(place - tile.index), Constraint(tile.stop - 1 - place))
    assert any(isinstance(n, Scatter) for n in walk(guard))


def test_a_scatter_of_single_elements_runs_in_parallel_only_over_bare_axes() -> None:
    """Counting ids: a row is one element, and so little work that going through all the ids for a tile is more."""
    ids, count = Tensor("x0", (N, H), "int64"), Tensor("v0", (N, D))
    term = Term(sp.S.One, (b,), (*in_range(b, H), equal(ids[i, b], j)))
    kernel = lower(cases.program("count", (ids, count), Equation("v0", (i, j), (term,))))
    nest = next(f for f in kernel.functions if any(isinstance(n, Scatter) for n in walk(f.body)))
    assert [loop.upper for loop in nest.parallel] == [(N,)]


def test_a_strided_sum_bounds_its_loops_when_it_runs() -> None:
    """y[n,h] = Σ_r x[n,S h + r - P]: S and P are unknown until the call."""
    given = cases.convolution()
    x, y = given.tensor("x0"), given.tensor("v0")
    stride, padding = (scalar.symbol for scalar in given.scalars)
    at = stride * j + c - padding
    pool = Equation("v0", (i, j), (Term(x[i, sp.S.Zero, at], (c,), (*in_range(c, K), *in_range(at, H))),))
    kernel = lower(cases.program("pool", (x, y), pool, scalars=given.scalars))
    loops = [n for f in kernel.functions for n in walk(f.body) if isinstance(n, Loop)]
    assert any(isinstance(e, LowerBound) for loop in loops for e in loop.lower)


def test_a_convolution_whose_weights_are_one_row_is_summed_in_tiles() -> None:
    """y[n,h] = Σ_{c,r} x[n,c,S h + r - P] w[c,r]: no output channel shares what is read."""
    kernel = lower(cases.convolution())
    (product,) = [n for f in kernel.functions for n in walk(f.body) if isinstance(n, Contract)]
    assert product.tiled and bool(product.m.indices) != bool(product.n.indices)


def test_a_product_of_one_row_without_windows_stays_in_loops() -> None:
    """y[n] = Σ_m A[n,m] x[m]: the loop over m reads memory once, in its order."""
    a, x, y = Tensor("x0", (N, D)), Tensor("x1", (D,)), Tensor("v0", (N,))
    term = Term(a[i, b] * x[b,], (b,), in_range(b, D))
    kernel = lower(cases.program("matvec", (a, x, y), Equation("v0", (i,), (term,))))
    assert not any(isinstance(n, Contract) for f in kernel.functions for n in walk(f.body))


def test_what_data_count_is_stored_where_they_say() -> None:
    """y[n,h,w] = Σ_m {h W + w = at[n,m]} x[n,m]: the place in a row-major array is the number itself, undivided."""
    at, x, y = Tensor("x0", (N, D), "int64"), Tensor("x1", (N, D)), Tensor("v0", (N, H, K))
    domain = (*in_range(b, D), equal(j * K + AXES[2], at[i, b]))
    kernel = lower(cases.program("placed", (at, x, y), Equation("v0", (i, j, AXES[2]), (Term(x[i, b], (b,), domain),))))
    ((scatter, guard),) = [(n.body.nodes[0], n) for f in kernel.functions for n in walk(f.body) if isinstance(n, Guard)]
    assert isinstance(scatter, Scatter) and not scatter.target.has(FloorDiv)
    assert len(guard.constraints) == 2 and not any(c.expr.has(FloorDiv) for c in guard.constraints)


def test_what_data_count_of_two_arrays_is_taken_from_both() -> None:
    """y[n] = Σ_kl {k L + l = at[n]} a[k] b[l]: each is read at its digit."""
    at, left, right = Tensor("x0", (N,), "int64"), Tensor("x1", (H,)), Tensor("x2", (K,))
    domain = (*in_range(b, H), *in_range(c, K), equal(b * K + c, at[i,]))
    equation = Equation("v0", (i,), (Term(left[b,] * right[c,], (b, c), domain),))
    kernel = lower(cases.program("picked", (at, left, right, Tensor("v0", (N,))), equation))
    loops = [n for f in kernel.functions for n in walk(f.body) if isinstance(n, Loop)]
    assert not any("b" in loop.index.name for loop in loops)


LONG = replace(cases.windows(), typical=(8, 16, 1024, 3))


def test_a_sum_through_windows_is_summed_in_register_tiles() -> None:
    """It is added to the bias, in parts of the samples and, where those are few, of each sample."""
    (nest,) = lower(LONG).functions
    (sum_,) = [n for n in walk(nest.body) if isinstance(n, Contract)]
    s, p, q = (scalar.symbol for scalar in cases.windows().scalars)
    (window,) = sum_.left.atoms(Within)
    at, r = sum_.m.indices[-1], sum_.k.indices[-1]
    assert sum_.tiled and not sum_.adds and sum_.onto is not None and sum_.onto.name == LONG.inputs[2]
    assert window.args == (s * at + q * r - p, 1, H)
    assert [loop.mode for loop in nest.parallel] == ["tile", "tile"]
    assert nest.parallel[0].upper == (N,)


def test_weights_that_all_parts_read_alike_are_prepared_once() -> None:
    """Those of the sum and of its cotangent by the samples; its cotangent by the weights reads nothing twice."""
    kernels = [lower(LONG), lower(vjp(LONG))]
    found = [one for kernel in kernels for f in kernel.functions for one in prepared(f, kernel.program)]
    assert [one.operand.name for one in found] == [LONG.inputs[1]] * 2


def test_what_an_equality_decides_is_read_through_a_window() -> None:
    """ct_x[n,c,h] = Σ_{o,i,r : S i + Q r = h + P} ct_y[n,o,i] w[o,c,r]: i is the quotient, where there is one."""
    kernel = lower(vjp(LONG))
    s, p, q = (scalar.symbol for scalar in cases.windows().scalars)
    (nest,) = [f for f in kernel.functions if any(isinstance(n, Contract) for n in walk(f.body))]
    into_x, into_w = products(kernel)
    (window,) = into_x.left.atoms(Within)
    at, r = into_x.m.indices[-1], into_x.k.indices[-1]
    place, step, _ = window.args
    assert step == s and sp.expand(place - (at + p - q * r)) == 0 and not into_x.adds
    assert {partial.target for partial in nest.partials} == {into_w.target.name, "ct_x2"}


def test_a_triangle_is_no_window() -> None:
    x, y, z = Tensor("x0", (N, D)), Tensor("x1", (D, H)), Tensor("v0", (N, H))
    domain = (*in_range(b, D), Constraint(i - b))
    triangle = Equation("v0", (i, j), (Term(x[i, b] * y[b, j], (b,), domain),))
    shapes = {t.name: t.shape for t in (x, y, z)}
    assert windowed(triangle, z, shapes) is None
    plain = replace(triangle, terms=(Term(x[i, b] * y[b, j], (b,), in_range(b, D)),))
    found = windowed(plain, z, shapes)
    assert found is not None and (found.m, found.n, found.k, found.batch) == ((i,), (j,), (b,), ())


def test_pieces_that_partition_the_target_are_not_zeroed_first() -> None:
    made, _ = statements(cases.parity())
    assert [s.action for s in made] == ["assign", "assign"]


def test_a_one_hot_is_stored_at_its_position() -> None:
    made, _ = statements(cases.one_hot())
    assert made[-1].action == "accumulate" and made[-1].target.has(Access)
    assert len(made[-1].loops) == 1


def test_an_elementwise_program_runs_over_one_flat_index() -> None:
    x, g, y = Tensor("x0", (N, D)), Tensor("x1", ()), Tensor("v0", (N, D))
    kernel = lower(cases.program("scale", (x, g, y), scalar_map("v0", 2, x[i, j] * g[()])))
    (nest,) = kernel.functions
    assert [loop.upper for loop in nest.parallel] == [(N * D,)]


def test_axes_that_are_always_read_together_are_one_loop() -> None:
    x, m, y = Tensor("x0", (N, D, H)), Tensor("v0", (N,)), Tensor("v1", (N, D, H))
    i, j, k = AXES[:3]
    mean = Equation("v0", (i,), (Term(x[i, b, c], (b, c), (*in_range(b, D), *in_range(c, H))),))
    short = collapse(cases.program("centre", (x, m, y), mean, scalar_map("v1", 3, x[i, j, k] - m[i,])))
    assert [t.shape for t in short.tensors] == [(N, D * H), (N,), (N, D * H)]
    first, second = short.equations
    assert first.terms == (Term(Access(x[()].base, i, b), (b,), in_range(b, D * H)),)
    assert second.body == Access(x[()].base, i, j) - m[i,]


@pytest.mark.parametrize(
    "body",
    [
        Access(sp.Symbol("x0", real=True), i, j) + Access(sp.Symbol("x1", real=True), j),
        Access(sp.Symbol("x0", real=True), i, j) * j,
        Access(sp.Symbol("x0", real=True), i, j) + Access(sp.Symbol("x0", real=True), i, D - 1 - j),
        Access(sp.Symbol("x2", real=True), i, j),
        Access(sp.Symbol("x2", real=True), i, j + 1),
    ],
    ids=["broadcast", "position", "reversed", "part of a wider axis", "shifted"],
)
def test_axes_that_one_read_keeps_apart_stay_apart(body: sp.Expr) -> None:
    tensors = Tensor("x0", (N, D)), Tensor("x1", (D,)), Tensor("x2", (N, D + 1)), Tensor("v0", (N, D))
    program = cases.program("apart", tensors, scalar_map("v0", 2, body))
    assert collapse(program).tensor("v0").shape == (N, D)


def test_a_restricted_axis_stays_apart() -> None:
    x, y = Tensor("x0", (N, D)), Tensor("v0", (N, D))
    triangle = Equation("v0", (i, j), (Term(x[i, j], (), (Constraint(i - j),)),))
    program = cases.program("triangle", (x, y), triangle)
    assert collapse(program) == program


def test_collapsing_keeps_what_data_says() -> None:
    """ids[n, t] reads both axes, and still chooses the row when they are one."""
    ids, y, table = Tensor("x0", (N, D), "int64"), Tensor("x1", (N, D, H)), Tensor("v0", (K, H))
    scatter = Term(y[b, c, j], (b, c), (*in_range(b, N), *in_range(c, D), equal(ids[b, c], i)))
    short = collapse(cases.program("scatter", (ids, y, table), Equation("v0", (i, j), (scatter,))))
    (term,) = short.equations[0].terms
    one = Tensor("x0", (N * D,), "int64")
    assert term.domain == (*in_range(b, N * D), equal(one[b,], i))


def test_unravelling_keeps_what_data_says() -> None:
    x, kind, m = Tensor("x0", (N, D * H)), Tensor("x1", (D * H,), "int64"), Tensor("v0", (N, D))
    chosen = Term(x[i, b + j * H], (b,), (*in_range(b, H), equal(kind[b + j * H,], i)))
    whole = Term(x[i, c], (c,), (*in_range(c, D * H), equal(kind[c,], i)))
    program = grouped(Equation("v0", (i, j), (chosen,)), kind, m, Tensor("v1", (N,)))
    program = replace(program, equations=(*program.equations, Equation("v1", (i,), (whole,))), outputs=("v0", "v1"))
    one, two = (e.terms[0] for e in unravel(program).equations)
    long = Tensor("x1", (D, H), "int64")
    assert equal(long[j, b], i) in one.domain
    assert equal(long[b, c], i) in two.domain and set(in_range(b, D)) <= set(two.domain)


def grouped(equation: Equation, *more: Tensor) -> Program:
    """A program over x0[n, g*K + k] and one statistic of each group."""
    tensors = (Tensor("x0", (N, D * H)), *more)
    return cases.program("grouped", tensors, equation)


@pytest.mark.parametrize("large", [True, False])
def test_a_large_sum_does_not_wait_for_a_computed_factor(large: bool) -> None:
    """a[i] = Σ_b r[i] x[b,i] is the factor times a sum, where there is an addend; a small one stays."""
    x, r, a = Tensor("x0", (N, D)), Tensor("v0", (D,)), Tensor("v1", (D,))
    rest = Equation("v0", (i,), (Term(x[b, i] ** 2, (b,), in_range(b, N)),))
    scaled = Equation("v1", (i,), (Term(r[i,] * x[b, i], (b,), in_range(b, N)),))
    program = cases.program("scaled", (x, r, a), rest, scaled)
    relieved = relieve(program, {N: sp.Integer(LARGE if large else LARGE - 1)})
    if not large:
        assert relieved == program
        return
    total = Tensor("v1_total", (D,))
    assert relieved.equations == (
        rest,
        Equation("v1_total", (i,), (Term(x[b, i], (b,), in_range(b, N)),)),
        Equation("v1", (i,), (Term(r[i,] * total[i,], (), (Constraint(N - 1),)),)),
    )


def test_a_sum_over_shared_exponentials_joins_the_pass_that_computes_them() -> None:
    """Softmax's VJP goes over a row for its maximum, for the exponentials and both sums, and for the result."""
    kernel = lower(halves(layers.get("softmax").vjp().derivation).forward)
    (nest,) = kernel.functions
    assert len([n for n in nest.body.nodes if isinstance(n, Loop)]) == 3
    assert [b.name for b in nest.scratch if b.place == "scratch"] == ["shared0"]


def test_the_variance_and_what_waits_for_the_mean_alone_share_a_pass() -> None:
    """Batch norm's VJP goes over the batch for the mean, for all that needs it, and for the result."""
    kernel = lower(halves(layers.get("batchnorm").vjp().derivation).forward)
    (nest,) = kernel.functions
    passes = [n for n in walk(nest.body) if isinstance(n, Loop) and any(isinstance(m, Loop) for m in n.body.nodes)]
    assert len(passes) == 3


def test_few_groups_leave_the_samples_parallel() -> None:
    """One group of each sample is an iteration: parallel over the groups alone, a single group would be serial."""
    backward = lower(halves(layers.get("groupnorm").derivation).bwd)
    nest = backward.functions[-1]
    samples, channels, *_ = backward.program.tensor("ct_x0").shape
    assert [loop.upper for loop in nest.parallel] == [(samples,), (channels,)]
    assert [p.target for p in nest.partials] == ["ct_x1", "ct_x2"]


def test_of_choices_with_enough_iterations_the_one_in_the_order_of_memory_is_taken() -> None:
    """A plane of each sample and channel: the samples lead, though the channels alone are enough."""
    nest = lower(halves(layers.get("instancenorm").derivation).bwd).functions[-1]
    samples, channels, *_ = nest.parallel
    assert samples.upper == (size_symbol("s0"),) and channels.upper == (size_symbol("s1"),)
    assert [p.target for p in nest.partials] == ["ct_x1", "ct_x2"]


def test_an_axis_that_is_read_by_digits_is_two_axes() -> None:
    x, m = Tensor("x0", (N, D * H)), Tensor("v0", (N, D))
    mean = Equation("v0", (i, j), (Term(x[i, b + j * H], (b,), in_range(b, H)),))
    long = unravel(grouped(mean, m))
    assert long.tensor("x0").shape == (N, D, H)
    assert long.equations[0].terms == (Term(x[i, j, b], (b,), in_range(b, H)),)


def test_the_group_that_an_index_lies_in_is_its_first_digit() -> None:
    x, m, y = Tensor("x0", (N, D * H)), Tensor("x1", (N, D)), Tensor("v0", (N, D * H))
    group = (*in_range(b, D), Constraint(j - b * H), Constraint(b * H + H - 1 - j))
    centred = Equation("v0", (i, j), (Term(x[i, j] - m[i, b], (b,), group),))
    long = unravel(grouped(centred, m, y))
    k = AXES[2]
    assert [t.shape for t in long.tensors] == [(N, D, H), (N, D), (N, D, H)]
    assert long.equations == (scalar_map("v0", 3, x[i, j, k] - m[i, j]),)


def test_a_grouped_product_is_a_product_for_each_group() -> None:
    """y[n, g*K + d] = Σ_k w[g,d,k] x[n, g*H + k], as the delta that stores it leaves it."""
    x, w, y = Tensor("x0", (N, D * H)), Tensor("x1", (D, K, H)), Tensor("v0", (N, D * K))
    group = (*in_range(b, D), *in_range(c, H), Constraint(j - b * K), Constraint(b * K + K - 1 - j))
    grouped = Equation("v0", (i, j), (Term(w[b, j - b * K, c] * x[i, c + b * H], (b, c), group),))
    kernel = lower(cases.program("grouped", (x, w, y), grouped))
    (product,) = products(kernel)
    groups, rows, columns = kernel.functions[0].parallel
    assert (groups.upper, rows.upper, columns.upper) == ((D,), (N,), (K,))
    assert product.k.extents == (H,) and product.n.extents == (columns.stop - columns.index,)


def test_a_product_of_few_rows_has_tiles_of_columns_too() -> None:
    """y[n,o] = b[o] + Σ_k x[n,k] W[o,k]"""
    x, w, bias, y = Tensor("x0", (N, D)), Tensor("x1", (K, D)), Tensor("x2", (K,)), Tensor("v0", (N, K))
    affine = Equation("v0", (i, j), (Term(bias[(j,)]), Term(w[j, b] * x[i, b], (b,), in_range(b, D))))
    kernel = lower(cases.program("affine", (x, w, bias, y), affine))
    rows, columns = kernel.functions[0].parallel
    assert (rows.upper, columns.upper) == ((N,), (K,))
    (scratch,) = kernel.functions[0].scratch
    assert scratch.shape == (rows.step, columns.step)


def test_two_products_of_one_sum_have_names_of_their_own() -> None:
    """y[n,o] = Σ_k x[n,k] W[o,k] + Σ_k h[n,k] U[o,k]: the comments above the loops tell one from the other."""
    x, w, h, u = (Tensor(f"x{k}", (K, D) if k % 2 else (N, D)) for k in range(4))
    both = Equation("v0", (i, j), tuple(Term(r[j, b] * s[i, b], (b,), in_range(b, D)) for s, r in ((x, w), (h, u))))
    kernel = lower(cases.program("recurrent", (x, w, h, u, Tensor("v0", (N, K))), both))
    named = [kernel.program.labels.name(t.name) for t in kernel.program.tensors if "_product" in t.name]
    assert named == ["v0_product", "v0_product2"]


def test_sums_over_the_rows_of_a_product_leave_it_its_columns() -> None:
    """ct_x[n,k] = Σ_o ct_y[n,o] W[o,k];  ct_b[o] = Σ_n ct_y[n,o]"""
    ct_y, w = Tensor("x0", (N, D)), Tensor("x1", (D, K))
    ct_x, ct_b = Tensor("v0", (N, K)), Tensor("v1", (D,))
    product = Equation("v0", (i, j), (Term(ct_y[i, b] * w[b, j], (b,), in_range(b, D)),))
    total = Equation("v1", (i,), (Term(ct_y[b, i], (b,), in_range(b, N)),))
    kernel = lower(cases.program("both", (ct_y, w, ct_x, ct_b), product, total))
    multiplies = [f for f in kernel.functions if any(isinstance(n, Contract) for n in walk(f.body))]
    assert [(len(f.parallel), f.partials) for f in multiplies] == [(2, ())]


def test_a_product_for_each_group_beside_a_sum_over_all_is_a_loop_of_products() -> None:
    """ct_q[n,h,t,k] = Σ_m ct_s[n,h,t,m] k[n,h,m,k];  ct_bias[n,m] = Σ_ht ct_s[n,h,t,m]"""
    n, h, t, m = AXES[:4]
    ct_s, key = Tensor("x0", (N, H, D, D)), Tensor("x1", (N, H, D, K))
    ct_q, ct_bias = Tensor("v0", (N, H, D, K)), Tensor("v1", (N, D))
    product = Equation("v0", (n, h, t, m), (Term(ct_s[n, h, t, b] * key[n, h, b, m], (b,), in_range(b, D)),))
    total = Equation("v1", (n, h), (Term(ct_s[n, b, c, h], (b, c), (*in_range(b, H), *in_range(c, D))),))
    kernel = lower(cases.program("biased", (ct_s, key, ct_q, ct_bias), product, total))
    (made,) = products(kernel)
    loops = [node for f in kernel.functions for node in walk(f.body) if isinstance(node, Loop)]
    assert [loop.mode for loop in loops if loop.upper == (H,) and made in walk(loop.body)] == ["serial"]


def test_sums_of_rows_are_taken_in_two_levels() -> None:
    """y[i] = Σ_b x[b,i], 128 rows to a part"""
    x, y = Tensor("x0", (N, D)), Tensor("v0", (D,))
    kernel = lower(cases.program("columns", (x, y), Equation("v0", (i,), (Term(x[b, i], (b,), in_range(b, N)),))))
    (function,) = kernel.functions
    (parts,) = [n for n in walk(function.body) if isinstance(n, Loop) and n.mode == "tile"]
    assert (parts.step, parts.upper) == (128, (N,))
    (part,) = function.scratch
    assert part.shape == (function.parallel[0].step,)


@pytest.mark.parametrize(
    "body",
    [
        Access(sp.Symbol("x0", real=True), i, b + j * H) * Access(sp.Symbol("x0", real=True), i, j),
        Access(sp.Symbol("x0", real=True), i, b + j),
        Access(sp.Symbol("x0", real=True), i, D * H - 1 - b - j * H),
    ],
    ids=["a part of it as well", "a window", "reversed"],
)
def test_an_axis_that_one_read_takes_otherwise_stays_one(body: sp.Expr) -> None:
    equation = Equation("v0", (i, j), (Term(body, (b,), in_range(b, H)),))
    program = grouped(equation, Tensor("v0", (N, D)))
    assert unravel(program) == program


def test_statements_that_run_seldom_do_not_choose_the_loops() -> None:
    """A statistic of each sample would rather have the channels innermost, but is one of many thousand iterations."""
    x, m, s, y = Tensor("x0", (N, D, H, H)), Tensor("v0", (N, D)), Tensor("v1", (D,)), Tensor("v2", (N, D, H, H))
    h, w = AXES[2:4]
    over = (*in_range(b, H), *in_range(c, H))
    mean = Equation("v0", (i, j), (Term(x[i, j, b, c], (b, c), over),))
    total = Equation("v1", (i,), (Term(m[b, i], (b,), in_range(b, N)),))
    centred = scalar_map("v2", 4, x[i, j, h, w] - m[i, j] * s[j,])
    (nest,) = lower(cases.program("stats", (x, m, s, y), mean, total, centred)).functions
    assert [(loop.mode, loop.upper) for loop in nest.parallel] == [("parallel", (D,))]


def test_what_rows_far_apart_read_again_is_made_ready_for_a_tile_of_them() -> None:
    """Rows of a table are read by rows of x that are n apart in memory: the loop over n goes around a tile of them."""
    x, a, y = Tensor("x0", (N, D, 2 * H)), Tensor("x1", (D, H)), Tensor("v0", (N, D, 2 * H))
    at = (*in_range(b, H), equal(AXES[2], 2 * b)), (*in_range(b, H), equal(AXES[2], 2 * b + 1))
    turned = (Term(x[i, j, 2 * b + k] * sp.cos(a[j, b]), (b,), at[k]) for k in (0, 1))
    (nest,) = lower(cases.program("turned", (x, a, y), Equation("v0", AXES[:3], tuple(turned)))).functions
    (tile,) = nest.parallel
    table, rows = (n for n in nest.body.nodes if isinstance(n, Loop))
    assert (tile.mode, tile.upper, rows.upper) == ("tile", (D,), (N,)) and tile.stop is not None
    assert table.upper == rows.body.nodes[0].upper == ((tile.stop - tile.index) * H,)  # type: ignore[union-attr]
    assert [b.place for b in nest.scratch] == ["scratch"]


def test_a_row_that_goes_on_where_the_one_before_it_ends_is_no_loop() -> None:
    v0, x0, x1 = (sp.Symbol(name, real=True) for name in ("v0", "x0", "x1"))
    zero = (sp.S.Zero,)

    def rows(target: sp.Expr, value: sp.Expr) -> Block:
        inner = Loop(j, zero, (D,), Block((Assign(Access(v0, target), value),)))
        return Block((Loop(i, (sp.S(3),), (N,), Block((inner,))),))

    flat = Assign(Access(v0, 3 * D + H + j), Access(x0, 6 * D + 2 * j))
    once = Loop(j, zero, (D * (N - 3),), Block((flat,)))
    assert flatten(rows(H + D * i + j, Access(x0, 2 * D * i + 2 * j))) == Block((once,))
    for value in (Access(x0, H * i + j), i + Access(x0, D * i + j), Access(x0, Access(x1, D * i + j))):
        assert flatten(rows(D * i + j, value)) == rows(D * i + j, value)


def test_the_parts_of_a_result_are_one_loop_from_zero_on() -> None:
    x, y = Tensor("x0", (N, 2 * H)), Tensor("v0", (N, H))
    gate = cases.program("gate", (x, y), scalar_map("v0", 2, x[i, j] * sp.tanh(x[i, j + H])))
    (nest,) = lower(vjp(gate)).functions
    (loop,) = (n for n in walk(nest.body) if isinstance(n, Loop))
    assert (loop.lower, loop.upper) == ((0,), (H,))
    first, second = (n.target.indices[0] for n in loop.body.nodes if isinstance(n, Assign))
    assert sp.expand(second - first) in (H, -H)


def test_a_part_that_something_else_reads_stays_where_it_lies() -> None:
    x, h, y = Tensor("x0", (N, H)), Tensor("v0", (N, 2 * H)), Tensor("v1", (N, 2 * H))
    at = (*in_range(b, H), equal(j, b)), (*in_range(b, H), equal(j, b + H))
    halves_ = Equation(
        "v0", (i, j), tuple(Term(f(x[i, b]), (b,), a) for f, a in zip((sp.sin, sp.cos), at, strict=True))
    )
    both = cases.program("both", (x, h, y), halves_, scalar_map("v1", 2, h[i, j] ** 2), outputs=("v0", "v1"))
    made, _ = statements(both, {})
    assert from_zero(made) == made


def test_an_exponential_that_two_equations_take_is_computed_once() -> None:
    (nest,) = lower(cases.attention()).functions
    functions = [n for n in walk(nest.body) if isinstance(n, Assign) and n.value.has(sp.exp)]
    assert len(functions) == 1


def test_a_triangle_cuts_the_products_of_a_tile() -> None:
    assert all(n.n.is_cut or n.m.is_cut or n.k.is_cut for n in products(lower(cases.attention())))


def test_a_kernel_prints_as_loops() -> None:
    text = str(lower(cases.softmax()))
    assert text.splitlines()[0] == "kernel softmax(x0) -> v3"
    assert "parallel" in text and "sum=" in text


def test_a_kernel_with_an_undeclared_buffer_is_refused() -> None:
    kernel = lower(cases.gates())
    with pytest.raises(StageError, match="not declared"):
        verify(replace(kernel, buffers=()))


@pytest.mark.parametrize(
    "make", [cases.layernorm, cases.attention, cases.groups, cases.windows], ids=lambda m: m.__name__
)
def test_the_ir_and_the_text_are_the_same_under_every_hash_seed(make: Callable[[], Program]) -> None:
    code = (
        "import test_emit_loops as cases\n"
        "from jaccomp.calculus.vjp import vjp\n"
        "from jaccomp.emit.loops import emit_kernel\n"
        "from jaccomp.lowering import lower\n"
        f"program = cases.{make.__name__}()\n"
        "for one in (program, vjp(program)):\n"
        "    kernel = lower(one)\n"
        "    print(kernel, emit_kernel(kernel, 'k', 'f32'))\n"
    )
    here = Path(__file__).parent
    outputs = set()
    for seed in ("0", "1", "77"):
        path = os.pathsep.join([str(here), str(here.parent)])
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        outputs.add(done.stdout)
    assert len(outputs) == 1
