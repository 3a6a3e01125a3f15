"""The examples' BERT: a small random one against NumPy and complex step; MiniLM's weights, where they are installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import bert
import minilm
import numpy as np
import pytest
from bert_numpy import sentence_vectors

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis.model import Linearisation, Model, dense
from jaccomp.errors import UsageError

DEPTH, WIDTH, WIDER, HEADS, VOCABULARY, PLACES, EPS = 2, 16, 24, 4, 30, 9, 1e-12
missing = [package for module, package in minilm.NEEDS.items() if find_spec(module) is None]
with_weights = pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


@cache
def tensors() -> dict[str, Any]:
    """A checkpoint of random weights."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}

    def affine(name: str, out: int, inside: int) -> None:
        found[f"{name}.weight"] = rng.standard_normal((out, inside)) / np.sqrt(inside)
        found[f"{name}.bias"] = rng.standard_normal(out)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = rng.uniform(0.5, 1.5, WIDTH)
        found[f"{name}.bias"] = rng.standard_normal(WIDTH)

    for name, rows in (("word", VOCABULARY), ("position", PLACES), ("token_type", 2)):
        found[f"embeddings.{name}_embeddings.weight"] = rng.standard_normal((rows, WIDTH))
    norm("embeddings.LayerNorm")
    for number in range(DEPTH):
        for stage, theirs in bert.CHECKPOINT.items():
            name = f"encoder.layer.{number}.{theirs}"
            if stage.startswith("norm"):
                norm(name)
            else:
                affine(name, WIDER if stage == "up" else WIDTH, WIDER if stage == "down" else WIDTH)
    return found


def model(backend: str) -> Model:
    return bert.sentence_model(tensors(), HEADS, EPS, backend=backend)


def batch() -> tuple[Any, Any, list[Any]]:
    """ids and mask of three sentences of 7, 4 and 1 tokens, and each one's own ids."""
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (3, 7))
    lengths = (7, 4, 1)
    mask = (np.arange(7) < np.array(lengths)[:, None]).astype(np.int64)
    return ids, mask, [row[:n] for row, n in zip(ids, lengths, strict=True)]


def one(backend: str) -> Linearisation:
    ids, mask, _ = batch()
    return model(backend).at(ids[:1, :5], mask[:1, :5])


def test_every_distinct_layer_is_compiled_once() -> None:
    made = model("numpy")
    kernels = made.kernels
    assert len(kernels) == 6 + 16 * DEPTH - 1
    assert len({id(kernel) for kernel in kernels.values()}) == len({p.layer.name for p in made.chain.stages}) == 11
    assert [made.chain.spec.inputs[k].name for k in (0, 12)] == ["ids", "mask"], "one mask for all layers and the mean"


@pytest.mark.parametrize("backend", ["cython", "numpy"])
def test_it_agrees_with_numpy_and_does_not_see_padding(backend: str) -> None:
    ids, mask, own = batch()
    expected = sentence_vectors(tensors(), own, HEADS, EPS)
    np.testing.assert_allclose(model(backend)(ids, mask), expected, rtol=0, atol=1e-12)


def test_single_precision_agrees_to_its_digits() -> None:
    ids, mask, own = batch()
    found = bert.sentence_model(tensors(), HEADS, EPS, np.float32)(ids, mask)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, sentence_vectors(tensors(), own, HEADS, EPS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("words_table", "embeddings.word_embeddings.weight"),
        ("layer0_q_W", "encoder.layer.0.attention.self.query.weight"),
        ("layer0_k_b", "encoder.layer.0.attention.self.key.bias"),
        ("layer1_up_W", "encoder.layer.1.intermediate.dense.weight"),
        ("layer1_norm1_g", "encoder.layer.1.attention.output.LayerNorm.weight"),
    ],
)
def test_its_vjp_is_the_transpose_of_complex_step(ours: str, theirs: str) -> None:
    ids, mask, own = batch()
    rng = np.random.default_rng(2)
    t, u = rng.standard_normal(tensors()[theirs].shape), rng.standard_normal((3, WIDTH))
    stepped = sentence_vectors({**tensors(), theirs: tensors()[theirs] + 1e-30j * t}, own, HEADS, EPS).imag / 1e-30
    found = model("cython").at(ids, mask).vjp({"y": u}, ours)
    scale = np.linalg.norm(u) * np.linalg.norm(stepped)
    if ours == "layer0_k_b":  # a softmax does not see what all keys share
        assert np.abs(stepped).max() < 1e-15 and np.abs(found).max() < 1e-14
    else:
        assert abs((found * t).sum() - (u * stepped).sum()) <= 1e-12 * scale


def test_layers_are_measured_as_their_matrices_are() -> None:
    at = one("numpy")
    names, ends = zip(*minilm.cuts(at.model).items(), strict=True)
    assert names == ("norm", "layer 1", "layer 2", "mean, unit")
    matrices = [dense(at.operator(end, start)) for start, end in pairwise(("words_y", *ends))]
    found = minilm.layers(at, probes=64, seed=1)
    ahead, back = np.eye(matrices[0].shape[1]), np.eye(matrices[-1].shape[0])
    for layer, matrix in zip(found, matrices, strict=True):
        np.testing.assert_allclose(layer.sigma, np.linalg.svd(matrix, compute_uv=False)[:3], rtol=1e-8)
        assert layer.residual < 1e-8 * layer.sigma[0]
        assert layer.frobenius.agrees(float(np.linalg.norm(matrix)), 4)
        ahead = matrix @ ahead
        assert layer.tangent.agrees(float(np.linalg.norm(ahead) / np.sqrt(ahead.shape[1])), 4)
    for layer, matrix in zip(reversed(found), reversed(matrices), strict=True):
        back = back @ matrix
        assert layer.cotangent.agrees(float(np.linalg.norm(back) / np.sqrt(len(back))), 4)
    table = minilm.layer_table([found, found], [1.0, 1.0])
    assert [line.split("  ")[0] for line in table.splitlines()[1:-1]] == list(names)


def test_plots_are_figures_of_what_was_found() -> None:
    pytest.importorskip("matplotlib")
    found = minilm.layers(one("numpy"), probes=4)
    left, _ = minilm.plot_layers([found]).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [layer.sigma[0] for layer in found])
    norms = np.array([1.0, 4.0, 2.0])
    influence = minilm.Influence("a b", ("[CLS]", "a", "[SEP]"), norms, norms, 1.0, np.ones((1, 3, 1)))
    assert "jacobian" not in influence.plain() and influence.plain()["norms"] == [1.0, 4.0, 2.0]
    (axes,) = minilm.plot_influence([influence]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["[CLS]", "a", "[SEP]"]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches[:3]], norms / 4)


def test_a_projection_and_its_heads_compile_as_one_layer() -> None:
    chain = jc.chain("heads", fc=L.linear, heads=bert.split_heads, act=L.tanh)
    rng = np.random.default_rng(0)
    x, W, b = rng.standard_normal((2, 5, 6)), rng.standard_normal((8, 6)), rng.standard_normal(8)
    (size,) = (p.sizes["H"] for p in chain.stages if "H" in p.sizes)
    y, pullback = jc.compile(chain).vjp(x, W, b, **{size: 4})
    expected = np.tanh(x @ W.T + b).reshape(2, 5, 4, 2).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    u = rng.standard_normal(y.shape)
    before = (u * (1 - expected**2)).transpose(0, 2, 1, 3).reshape(2, 5, 8)
    for found, wanted in zip(
        pullback(u), (before @ W, np.einsum("bto,btd->od", before, x), before.sum((0, 1))), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


def test_attention_survives_large_scores_and_ignores_what_is_masked() -> None:
    kernel = jc.compile(bert.padded_attention)
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 3, 5, 4))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    k[1, :, 3:] *= 1e6
    o, pullback = kernel.vjp(1e3 * q, k, v, mask)
    short = kernel(1e3 * q[1:, :, :, :], k[1:], v[1:], mask[1:])
    np.testing.assert_array_equal(o[1:], short)
    grads = pullback(np.ones_like(o))[:3]
    assert all(np.isfinite(g).all() for g in (o, *grads))
    assert all((g[1, :, 3:] == 0).all() for g in grads[1:])


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "NEEDS", {"no_such_module": "no-such-package"})
    with pytest.raises(UsageError, match=r"MiniLM: it needs no-such-package") as caught:
        minilm.Encoder()
    assert "pip install --no-deps no-such-package" in str(caught.value)


@with_weights
def test_minilm_agrees_with_numpy_and_with_its_documentation() -> None:
    found = minilm.agreement(minilm.Encoder())
    assert found.float64 < 1e-12 and found.float32 < 1e-5
    np.testing.assert_allclose(found.similarities, minilm.SIMILARITIES, rtol=0, atol=5.1e-5)


@with_weights
def test_minilm_hears_nouns_above_articles() -> None:
    encoder = minilm.Encoder()
    found = minilm.influence(encoder, "The cat sat on the mat.")
    norm = dict(zip(found.tokens, found.norms, strict=True))
    assert min(norm["cat"], norm["mat"]) > 1.5 * max(norm["the"], norm["."], norm["on"])
    u = np.random.default_rng(0).standard_normal(384)
    pulled = encoder.at(found.sentence).vjp({"y": u[None]}, "words_y")[0]
    np.testing.assert_allclose(np.einsum("o,otd->td", u, found.jacobian), pulled, atol=1e-5 * np.abs(pulled).max())
