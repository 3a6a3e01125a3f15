"""What is certified of a Jacobian block holds of its numbers, and every form has the numbers of the dense block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp

import jaccomp as jc
from jaccomp import layers
from jaccomp.algebra.certificate import Certificate
from jaccomp.cli.target import targets
from jaccomp.jacobian import Jacobian
from jaccomp.layer import Layer
from jaccomp.reference import sampling

DRAWS: tuple[tuple[str, Callable[..., Iterator[dict[str, int]]], int, bool], ...] = (
    ("sizes all different", sampling.different, 1, False),
    ("sizes all equal", sampling.equal, 2, False),
    ("other scalars", sampling.different, 3, True),
)


def points(layer: Layer) -> Iterator[sampling.Sample]:
    """A layer at three generic points, as far as its sizes allow."""
    for label, sizes, seed, vary in DRAWS:
        rng = np.random.default_rng(seed)
        sample = sampling.draw(layer.spec, label, sizes(layer.spec, rng), rng, vary)
        if sample is not None:
            yield sample


def flat(dense: Any, rows: int) -> Any:
    return np.asarray(dense).reshape(rows, -1)


def numbers(sample: sampling.Sample) -> dict[sp.Expr, int]:
    known = {**sample.sizes, **sample.scalars}
    return {name: value for name, value in known.items() if isinstance(value, int)}


def value(formula: sp.Expr, sample: sampling.Sample) -> int:
    """A formula in the layer's sizes at those of a sample."""
    known = numbers(sample)
    return int(formula.xreplace({s: sp.Integer(known[s.name]) for s in formula.free_symbols}).doit())


EXAMPLES = Path(__file__).parent.parent / "examples"
WRITTEN = {
    f"{file}:{one.name}": one.load()
    for file in ("windows", "kernels", "experts", "conditioning", "objectives")
    for one in targets([str(EXAMPLES / f"{file}.py")])
}


@pytest.mark.parametrize("name", layers.names())
def test_the_certificate_and_every_form_agree_with_the_dense_block(name: str) -> None:
    check(layers.get(name))


@pytest.mark.parametrize("name", WRITTEN)
def test_so_do_those_of_layers_that_others_write(name: str) -> None:
    check(WRITTEN[name])


def check(layer: Layer) -> None:
    kernel = jc.compile(layer, backend="numpy")
    seen = 0
    for sample in points(layer):
        for (of, wrt), block in layer.jacobians().items():
            shape = kernel.shapes(**{k: np.shape(v) for k, v in sample.inputs.items()}, **integers(layer, sample))[of]
            rows = int(np.prod(shape, dtype=int))
            call = {**sample.inputs, **sample.scalars, **integers(layer, sample)}
            dense = flat(kernel.jacobian(**call, of=of, wrt=wrt), rows) if rows else np.zeros((0, 0))
            if dense.size == 0:
                continue
            agrees(block, block.certificate, dense, sample)
            forms_agree(kernel, block, call, dense, shape)
            seen += 1
    assert seen or not layer.jacobians()


def integers(layer: Layer, sample: sampling.Sample) -> dict[str, int]:
    whole = {s.name for s in layer.spec.scalars if s.dtype == "int64"}
    loose = set(sampling.loose_sizes(layer.spec))
    return {
        **{k: int(v) for k, v in sample.scalars.items() if k in whole},
        **{k: v for k, v in sample.sizes.items() if k in loose},
    }


def agrees(block: Jacobian, certificate: Certificate, dense: Any, sample: sampling.Sample) -> None:
    rank = np.linalg.matrix_rank(dense)
    stated = value(certificate.rank, sample)
    assert rank == stated if certificate.exact else rank <= stated
    assert np.count_nonzero(dense) <= value(certificate.entries, sample)
    words = certificate.words
    if words == "zero":
        assert not dense.any()
    if words == "identity":
        np.testing.assert_array_equal(dense, np.eye(len(dense)))
    if words == "diagonal":
        np.testing.assert_array_equal(dense, np.diag(np.diag(dense)))
    if words == "permutation":
        assert (np.sort(dense, axis=1)[:, :-1] == 0).all() and (dense.sum(axis=0) == 1).all()
    if words.endswith("selection") and certificate.storage == 0 and "bag" not in block.layer:
        assert set(np.unique(dense)) <= {0.0, 1.0}


def forms_agree(kernel: Any, block: Jacobian, call: dict[str, Any], dense: Any, shape: tuple[int, ...]) -> None:
    scale = np.abs(dense).max(initial=0.0) + 1e-300
    choice = {"of": block.of, "wrt": block.wrt}
    sparse = kernel.jacobian(**call, **choice, form="sparse")
    np.testing.assert_allclose(sparse.toarray(), dense, atol=1e-12 * scale)
    if block.certificate.form == "diagonal":
        diagonal = kernel.jacobian(**call, **choice, form="diagonal")
        assert diagonal.shape == shape
        np.testing.assert_allclose(np.diag(diagonal.ravel()), dense, atol=1e-12 * scale)
    if block.certificate.form in ("diagonal", "factors"):
        factors = kernel.jacobian(**call, **choice, form="factors")
        assert factors.shape == dense.shape
        np.testing.assert_allclose(factors.toarray(), dense, atol=1e-12 * scale)
        t, v = (np.random.default_rng(7).standard_normal(n) for n in dense.shape[::-1])
        np.testing.assert_allclose(factors.matvec(t), dense @ t, atol=1e-11 * scale * len(t))
        np.testing.assert_allclose(factors.rmatvec(v), v @ dense, atol=1e-11 * scale * len(v))
        assert factors.frobenius() == pytest.approx(np.linalg.norm(dense), rel=1e-9, abs=1e-9 * scale)
        assert factors.spectral_bound() >= np.linalg.norm(dense, 2) * (1 - 1e-12)
        if dense.shape[0] == dense.shape[1]:
            assert factors.trace() == pytest.approx(np.trace(dense), rel=1e-9, abs=1e-9 * scale * len(dense))


SECOND = {"gelu": "diagonal", "softmax": "factors", "rmsnorm": "factors", "embedding": "sparse", "maxpool1d": "sparse"}


@pytest.mark.parametrize("name", SECOND)
def test_so_do_those_of_layers_that_were_derived(name: str) -> None:
    layer, derived = layers.get(name), layers.get(name).vjp()
    kernel = jc.compile(derived, backend="numpy")
    forms = set()
    for sample in points(layer):
        shapes = {k: np.shape(v) for k, v in sample.inputs.items()}
        of = jc.compile(layer, backend="numpy").shapes(**shapes, **integers(layer, sample))
        rng = np.random.default_rng(11)
        seeds = {f"ct_{t.name}": rng.standard_normal(of[t.name]) for t in layer.spec.outputs}
        call = {**sample.inputs, **seeds, **sample.scalars, **integers(layer, sample)}
        for (target, source), block in derived.jacobians().items():
            shape = np.shape(sample.inputs[target.removeprefix("ct_")])
            rows = int(np.prod(shape, dtype=int))
            dense = flat(kernel.jacobian(**call, of=target, wrt=source), rows)
            agrees(block, block.certificate, dense, sample)
            forms_agree(kernel, block, call, dense, shape)
            forms.add(block.certificate.form)
    assert SECOND[name] in forms
