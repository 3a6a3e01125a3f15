"""The textbook's derivatives: the same numbers, in no more operations, and in the textbook's matrix notation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
from dense import assert_close, jacobian
from golden_files import compare, identity_path
from identities import IDENTITIES, Identity
from matrix_values import dense, world
from points import Point

import jaccomp as jc
from jaccomp.algebra.cost import operations
from jaccomp.jacobian import Jacobian
from jaccomp.matrix.form import LAYOUTS, Layout, MatrixForm, matrix_form
from jaccomp.reference.sampling import loose_sizes

Array = Any
each_identity = pytest.mark.parametrize("identity", IDENTITIES.values(), ids=str)


def block(identity: Identity) -> Jacobian:
    return identity.layer.jacobian(of=identity.of, wrt=identity.wrt)


def form(identity: Identity, layout: Layout = "numerator") -> MatrixForm:
    one = block(identity)
    found = matrix_form(one._program, one._block, one._letters, layout)
    assert found is not None
    return found


def close(found: Array, expected: Array) -> None:
    size = np.abs(expected).max(initial=0.0)
    assert found.shape == expected.shape
    assert_close(found, (expected.ravel(), np.abs(expected).ravel() + size))


def entry_operations(expr: sp.Expr) -> int:
    """Operations of one addend of every sum; a δ is a number that is read, and an index costs nothing."""
    deltas = sorted(expr.atoms(sp.KroneckerDelta), key=str)
    read = {one: jc.tensor(f"delta{k}", 1)[0] for k, one in enumerate(deltas)}
    sums = {one: one.function for one in expr.atoms(sp.Sum)}
    indices = {one: one.args[0] for one in expr.atoms(jc.notation.Index)}
    return operations(expr.xreplace(sums).xreplace(read).xreplace(indices))


def test_there_are_as_many_as_are_promised() -> None:
    assert len(IDENTITIES) >= 120


@each_identity
def test_the_numbers_are_the_textbook_s(identity: Identity) -> None:
    point = Point(identity.layer, identity.case)
    names = {point.program.labels.name(name): name for name in (*point.program.inputs, *point.program.outputs)}
    found = jacobian(point, point.program, point.inputs)[names[identity.of], names[identity.wrt]]
    expected = np.asarray(identity.block(*point.inputs.values(), **identity.case.scalars), dtype=float)
    close(found.reshape(expected.shape), expected)
    kernel = jc.compile(identity.layer, backend="numpy")
    label = point.program.labels.name
    scalars = {label(key): value for key, value in point.scalars.items()}
    loose = {label(key): value for key, value in point.sizes.items()}
    sizes = {key: value for key, value in loose.items() if key in loose_sizes(identity.layer.spec)}
    compiled = kernel.jacobian(*point.inputs.values(), of=identity.of, wrt=identity.wrt, **scalars, **sizes)
    close(compiled, expected)


@each_identity
def test_an_entry_has_no_more_operations_than_the_textbook_s(identity: Identity) -> None:
    assert entry_operations(block(identity).expr) <= operations(identity.entry)


@pytest.mark.parametrize("layout", LAYOUTS)
@each_identity
def test_a_matrix_form_is_the_textbook_s_block(identity: Identity, layout: Layout) -> None:
    point = Point(identity.layer, identity.case)
    expected = np.asarray(identity.block(*point.inputs.values(), **identity.case.scalars), dtype=float)
    found = form(identity, layout)
    close(dense(found, world(identity.layer, point, found)), expected)


@each_identity
def test_a_matrix_form_reads_as_in_a_textbook(identity: Identity, update_goldens: bool) -> None:
    found, turned = form(identity), form(identity, "denominator")
    lines = [found.statement, found.latex_statement, turned.statement]
    compare(identity_path(identity.name), "\n".join(lines) + "\n", update_goldens)
