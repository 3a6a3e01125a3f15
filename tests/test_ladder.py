"""The ladder: right kernels pass it, wrong ones do not, and derived programs agree with complex step twice over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sympy as sp

import jaccomp.notation as jc
from jaccomp import layers
from jaccomp.calculus.functions import HalfStep, Step
from jaccomp.calculus.vjp import jvp, vjp
from jaccomp.compiling import compile as compile_layer
from jaccomp.errors import UsageError
from jaccomp.layer import Layer
from jaccomp.program import Program, Term, map_terms
from jaccomp.reference import sampling
from jaccomp.reference.interpreted import Interpreted, solve_sizes
from jaccomp.reference.interpreter import evaluate
from jaccomp.reference.ladder import TOLERANCE, KernelLike, cases, check, examine
from jaccomp.reference.mutants import all_mutants
from jaccomp.reference.report import Report, Row
from jaccomp.reference.scalars import COMPLEX_STEP
from jaccomp.reference.truth import entries, truth

N, D, E = jc.size("N D E")
n, d, e, k = jc.index("n", N), jc.index("d", D), jc.index("e", E), jc.index("k", D)
x, w, y = jc.tensor("x", N, D), jc.tensor("w", E, D), jc.tensor("y", N, E)
score, kept = jc.tensor("score", N, E), jc.tensor("kept", N, D)
ids = jc.tensor("ids", N, dtype="int64")
eps = jc.scalar("eps", default=0.5)

LINEAR = Layer("linear", inputs=[x, w], outputs=[y], equations=[sp.Eq(y[n, e], sp.Sum(x[n, k] * w[e, k], k))])
CHOSEN = Layer(
    "chosen",
    inputs=[x, w, ids],
    scalars=[eps],
    outputs=[y, kept],
    equations=[
        sp.Eq(score[n, e], sp.tanh(sp.Sum(x[n, k] * w[e, k], k)) + eps),
        sp.Eq(y[n, e], score[n, e] / (1 + sp.Abs(score[n, e]))),
        sp.Eq(kept[n, d], sp.Max(x[n, d], 0) * w[ids[n], d]),
    ],
)
LAYERS = [
    LINEAR,
    CHOSEN,
    *(layers.get(name) for name in ("rmsnorm", "embedding", "conv2d", "maxpool2d", "cross_entropy")),
]


class Spoilt:
    """A right kernel, but for one thing: `forward`, `vjp` or `jvp` passes through `spoil`."""

    def __init__(self, kernel: KernelLike, what: str, spoil: Callable[[Any], Any]) -> None:
        self.kernel, self.what, self.spoil = kernel, what, spoil

    def _maybe(self, what: str, value: Any) -> Any:
        return self.spoil(value) if what == self.what else value

    def forward(self, *inputs: Any, **constants: Any) -> Any:
        return self._maybe("forward", self.kernel.forward(*inputs, **constants))

    def vjp(self, *inputs: Any, **constants: Any) -> Any:
        value, pullback = self.kernel.vjp(*inputs, **constants)
        return value, lambda dy: tuple(self._maybe("vjp", one) for one in pullback(dy))

    def jvp(self, inputs: Any, tangents: Any, **constants: Any) -> Any:
        value, tangent = self.kernel.jvp(inputs, tangents, **constants)
        return value, self._maybe("jvp", tangent)


def ulps(count: float) -> Callable[[Any], Any]:
    """Every number larger by `count` units in the last place of one."""
    return lambda value: None if value is None else value * (1 + count * np.finfo(value.dtype).eps)


def quick(layer: Layer, kernel: KernelLike, **options: Any) -> Report:
    return check(layer.spec, kernel, edges=False, **options)


# Right and wrong kernels


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_interpreted_derivatives_pass_every_rung_but_where_only_stable_forms_can(layer: Layer) -> None:
    report = check(layer.spec, Interpreted(layer.program))
    assert {row.dtype for row in report.rows} == {"float32", "float64"}
    assert {row.what for row in report.rows} == {"forward", "vjp", "jvp", "transpose"}
    unstable = {"large"} if layer.name == "cross_entropy" else set()
    assert {row.sizes.split()[0] for row in report.failures} <= unstable, str(report)
    assert max(row.error / row.tolerance for row in report.rows if row.passed) < 0.5


@pytest.mark.parametrize("what", ["forward", "vjp", "jvp"])
def test_a_relative_error_beyond_the_tolerance_fails_its_rung(what: str) -> None:
    kernel = Interpreted(LINEAR.program)
    assert quick(LINEAR, Spoilt(kernel, what, ulps(1)))
    failed = quick(LINEAR, Spoilt(kernel, what, ulps(1e3)))
    assert {row.what for row in failed.failures} - {"transpose"} == {what}
    assert {row.dtype for row in failed.failures} == {"float32", "float64"}


def test_maps_that_are_not_transposed_to_each_other_fail() -> None:
    def swapped(value: Any) -> Any:
        return value[::-1].copy() if value.ndim else value

    report = quick(LINEAR, Spoilt(Interpreted(LINEAR.program), "vjp", swapped))
    assert {"vjp", "transpose"} <= {row.what for row in report.failures}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value[..., None],
        lambda value: np.full_like(value, np.nan),
        lambda value: np.full_like(value, np.inf),
        lambda value: value.astype(np.complex128),
    ],
    ids=["shape", "nan", "infinite", "dtype"],
)
def test_wrong_shapes_dtypes_and_numbers_that_are_none_fail(spoil: Callable[[Any], Any]) -> None:
    assert not quick(LINEAR, Spoilt(Interpreted(LINEAR.program), "forward", spoil))


def test_an_exception_is_a_failed_row_with_its_message() -> None:
    def refuse(_: Any) -> Any:
        raise ValueError("not today")

    report = quick(LINEAR, Spoilt(Interpreted(LINEAR.program), "forward", refuse))
    failed = [row for row in report.failures if row.what == "forward"]
    assert failed and all("ValueError: not today" in row.note for row in failed)
    assert "not today" in str(report)


def test_a_cotangent_for_an_integer_input_fails() -> None:
    report = quick(CHOSEN, Spoilt(Interpreted(CHOSEN.program), "vjp", lambda one: np.zeros(1) if one is None else one))
    assert {row.what for row in report.failures} == {"vjp"}


def test_nan_must_propagate_and_infinity_be_the_right_one() -> None:
    kernel = Interpreted(LINEAR.program)
    report = check(LINEAR.spec, Spoilt(kernel, "forward", np.nan_to_num))
    assert {"nan", "infinite"} & {row.sizes.split()[0] for row in report.failures}
    assert check(LINEAR.spec, kernel)


def test_relu_of_half_at_the_kink_fails_at_ties_only() -> None:
    z = jc.tensor("z", N, D)
    relu = Layer("relu", inputs=[x], outputs=[z], equations=[sp.Eq(z[n, d], sp.Max(x[n, d], 0))])
    right = Interpreted(relu.program)
    assert check(relu.spec, right)
    (wrong,) = [
        m.program
        for m in all_mutants(right.backward)
        if m.kind == "function" and m.after is not None and m.after.body.has(HalfStep) and m.before.body.has(Step)
    ]
    report = check(relu.spec, Interpreted(relu.program, wrong))
    assert {row.sizes.split()[0] for row in report.failures} <= {"ties", "zeros"} and report.failures


# Against another layer


def test_a_layer_is_checked_against_the_equations_of_another() -> None:
    other = Layer("other", inputs=[w, x], outputs=[y], equations=[sp.Eq(y[n, e], sp.Sum(w[e, d] * x[n, d], d))])
    kernel = Interpreted(LINEAR.program)
    assert quick(LINEAR, kernel, against=other.spec)
    twice = Layer("twice", inputs=[w, x], outputs=[y], equations=[sp.Eq(y[n, e], sp.Sum(2 * w[e, d] * x[n, d], d))])
    assert not quick(LINEAR, kernel, against=twice.spec)


def test_layers_that_do_not_correspond_are_refused() -> None:
    z = jc.tensor("z", N, D)
    relu = Layer("relu", inputs=[x], outputs=[z], equations=[sp.Eq(z[n, d], sp.Max(x[n, d], 0))])
    with pytest.raises(UsageError, match=r"inputs are \['x', 'w'\] and \['x'\]"):
        quick(LINEAR, Interpreted(LINEAR.program), against=relu.spec)
    both = Layer("both", inputs=[x, w], outputs=[y, z], equations=[*_equations(LINEAR), *_equations(relu)])
    with pytest.raises(UsageError, match="different numbers of outputs"):
        quick(LINEAR, Interpreted(LINEAR.program), against=both.spec)


def _equations(layer: Layer) -> list[sp.Eq]:
    return [sp.Eq(one.left, one.right) for one in layer.spec.equations]


def _tail(skipped: int) -> Layer:
    """What follows the first `skipped` entries: sizes below that have no such layer."""
    i, long, tail = jc.index("i", N - skipped), jc.tensor("long", N), jc.tensor("tail", N - skipped)
    return Layer("tail", inputs=[long], outputs=[tail], equations=[sp.Eq(tail[i], long[i + skipped] ** 2)])


def test_sizes_are_sought_that_the_extents_allow() -> None:
    layer = _tail(30)
    report = check(layer.spec, Interpreted(layer.program))
    assert report and any(row.sizes.startswith("different") for row in report.rows)


def test_a_layer_without_sizes_is_an_error() -> None:
    layer = _tail(10**6)
    with pytest.raises(UsageError, match="no sizes were found"):
        check(layer.spec, Interpreted(layer.program))


def test_a_size_that_no_input_determines_is_required() -> None:
    grouped = layers.get("groupnorm").program
    with pytest.raises(UsageError, match="no input determines"):
        solve_sizes(grouped, {"x0": (2, 6, 1, 1), "x1": (6,), "x2": (6,)}, {})
    assert sampling.loose_sizes(layers.get("groupnorm").spec) == ("G", "K")
    assert sampling.loose_sizes(layers.get("rope").spec) == ()


# Cases, samples, truth


def test_cases_are_the_same_for_a_seed_and_cover_the_edges() -> None:
    first, again = list(cases(CHOSEN.spec, 3)), list(cases(CHOSEN.spec, 3))
    labels = [case.sample.label for case in first]
    assert labels == [case.sample.label for case in again]
    assert {"different", "equal", "ones", "empty", "wide", "ties", "zeros", "large", "subnormal", "nan"} <= set(labels)
    for one, two in zip(first, again, strict=True):
        assert all(np.array_equal(one.sample.inputs[name], two.sample.inputs[name], equal_nan=True) for name in "xw")
    sizes = {case.sample.label: list(case.sample.sizes.values()) for case in first}
    assert len(set(sizes["different"])) == 3 and len(set(sizes["equal"])) == 1 and set(sizes["ones"]) == {1}
    assert any(0 in case.sample.sizes.values() for case in first)


def test_samples_stay_where_the_equations_are_defined() -> None:
    p, out = jc.tensor("p", N), jc.tensor("picked", N)
    layer = Layer(
        "entropy",
        inputs=[p],
        outputs=[out],
        equations=[sp.Eq(out[n], sp.log(p[n]) + sp.sqrt(1 - p[n]) + sp.asin(p[n]))],
    )
    for case in cases(layer.spec):
        if case.sample.label in ("different", "equal", "wide"):
            assert np.isfinite(case.truth.values["picked"]).all()
            assert case.sample.kinds["p"] == "unit"


def test_integer_inputs_lie_in_what_they_index() -> None:
    for case in cases(CHOSEN.spec):
        rows = case.sample.inputs["ids"]
        assert rows.dtype == np.int64 and (rows.size == 0 or (rows.min() >= 0 and rows.max() < case.sample.sizes["E"]))


def test_the_truth_takes_to_mpmath_where_float64_overflows() -> None:
    z = jc.tensor("z", N)
    v = jc.tensor("v", N)
    layer = Layer("soft", inputs=[v], outputs=[z], equations=[sp.Eq(z[n], sp.log(1 + sp.exp(v[n])))])
    sample = sampling.Sample("here", {"N": 2}, {}, {"v": np.array([1e4, 0.5])}, {"v": "normal"})
    seeds = entries(layer.spec, sample, 8, np.random.default_rng(0))
    found = truth(layer.spec, sample, seeds)
    assert found.method.startswith("mpmath") and found.values["z"][0] == 1e4
    assert np.allclose(found.slopes["z"], np.diag([1.0, 1 / (1 + np.exp(-0.5))]), rtol=1e-15)
    assert truth(layer.spec, sample.replaced("near", {"v": np.zeros(2)}), seeds).method == "complex step"


# The report


ROW = Row("l", "float64", "vjp", "complex step", "N=1", 1e-16, 1e-14, True)


def test_where_a_value_overflows_in_float32_alone_its_derivative_is_not_asked_for_there() -> None:
    z, g = jc.tensor("z", E, D), jc.tensor("g", E)
    distance = sp.Sum((x[n, k] - z[e, k]) ** 2, k)
    steep = Layer("rbf", inputs=[x, z, g], outputs=[y], equations=[sp.Eq(y[n, e], sp.exp(-g[e] * distance))])
    report = check(steep.spec, compile_layer(steep, backend="numpy"), seed=0)
    assert report.passed, [row for row in report.rows if not row.passed]
    assert any(row.dtype == "float32" and row.what == "jvp" for row in report.rows)


def test_a_report_passes_if_all_its_rows_do_and_there_are_some() -> None:
    bad = Row("l", "float32", "vjp", "complex step", "N=2", float("inf"), 1e-6, False, "why")
    assert Report((ROW,)) and not Report((ROW, bad)) and not Report(())
    assert (Report((ROW,)) + Report((bad,))).failures == (bad,)
    parsed = json.loads(Report((ROW, bad)).to_json())
    assert parsed["passed"] is False and parsed["rows"][1]["error"] == "inf"
    assert list(parsed["rows"][0])[:8] == [
        "layer",
        "dtype",
        "what",
        "reference",
        "sizes",
        "error",
        "tolerance",
        "passed",
    ]
    assert "FAILED why" in str(Report((bad,))) and str(Report((ROW,))).endswith("passed")
    assert str(Report(())).endswith("no rows")


def test_a_summary_keeps_the_worst_row_of_each_kind() -> None:
    worse = Row("l", "float64", "vjp", "complex step", "N=9", 1e-15, 1e-14, True)
    failed = Row("l", "float64", "vjp", "complex step", "N=0", 1e-17, 0.0, False)
    assert Report((ROW, worse)).summary().rows == (worse,)
    assert Report((ROW, failed, worse)).summary().rows == (failed,)


def test_the_published_tolerance_is_within_what_was_promised() -> None:
    assert TOLERANCE <= 64
    row = examine(LINEAR.spec, next(cases(LINEAR.spec)), Interpreted(LINEAR.program), "float32", rungs=["forward"])[0]
    assert row.tolerance == TOLERANCE * 2.0**-23


# Derived programs, once and twice

DERIVED = [
    "rmsnorm", "embedding", "conv2d", "causal_attention", "lstm_cell", "maxpool2d", "groupnorm", "glu", "rope",
    "softmax", "layernorm", "batchnorm", "cross_entropy", "gelu", "conv_transpose1d", "concat", "weightnorm",
]  # fmt: skip


@pytest.mark.parametrize("name", DERIVED)
def test_the_vjp_and_its_own_vjp_agree_with_complex_step(name: str) -> None:
    """The VJP of the layer, and that of its VJP, entry by entry to 1e-12 of Σ|terms|."""
    spec, program = layers.get(name).spec, layers.get(name).program
    rng = np.random.default_rng(5)
    sample = sampling.draw(spec, "twice", sampling.small(spec, rng), rng)
    assert sample is not None
    constants = {
        **{ours.name: sample.sizes[s.name] for ours, s in zip(program.sizes, spec.sizes, strict=True)},
        **{ours.name: sample.scalars[s.name] for ours, s in zip(program.scalars, spec.scalars, strict=True)},
    }
    arrays = {ours: sample.inputs[t.name] for ours, t in zip(program.inputs, spec.inputs, strict=True)}
    for one in (program, vjp(program)):
        for name_ in one.inputs:
            if name_ not in arrays:
                arrays[name_] = rng.standard_normal(sampling.extents(one.tensor(name_).shape, constants))
        _agrees(one, arrays, constants, rng)


def magnitudes(program: Program, derived: Program) -> Program:
    """`derived` with every addend of what it adds to `program` replaced by its absolute value: its Σ|terms|."""
    own = {e.target for e in program.equations}

    def absolute(term: Term) -> Term:
        return replace(term, body=sp.Add(*(sp.Abs(one) for one in sp.Add.make_args(sp.expand(term.body)))))

    return derived.with_equations(
        e if e.target in own or e.reducer != "sum" else map_terms(e, absolute) for e in derived.equations
    )


def _agrees(program: Program, arrays: Mapping[str, np.ndarray], constants: Mapping[str, Any], rng: Any) -> None:
    derived, pushed = vjp(program), jvp(program)
    real = [name for name in program.inputs if program.tensor(name).dtype == "real"]
    outputs = [name for name in program.outputs if program.tensor(name).dtype == "real"]
    values = evaluate(program, arrays, constants, constants)
    extra = [name for name in derived.inputs if name not in program.inputs]
    seeds = {out: rng.standard_normal(values[out].shape) for out in outputs}
    named = {mark: seeds[out] for mark, out in zip(extra, outputs, strict=True)}
    pulled = evaluate(derived, {**arrays, **named}, constants, constants)
    positive = {mark: abs(seed) for mark, seed in named.items()}
    terms = evaluate(magnitudes(program, derived), {**arrays, **positive}, constants, constants)
    along = {name: np.zeros(arrays[name].shape) for name in real}
    directions = [name for name in pushed.inputs if name not in program.inputs]
    for name, result in zip(real, derived.outputs, strict=True):
        flat = arrays[name].reshape(-1)
        for position in rng.permutation(flat.size)[:6]:
            moved = flat.astype(complex)
            moved[position] += 1j * COMPLEX_STEP
            stepped = evaluate(
                program, {**arrays, name: moved.reshape(arrays[name].shape)}, constants, constants, dtype=complex
            )
            column = {out: stepped[out].imag / COMPLEX_STEP for out in outputs}
            expected = sum((seeds[out] * column[out]).sum() for out in outputs)
            error = abs(pulled[result].reshape(-1)[position] - expected)
            assert error <= 1e-12 * terms[result].reshape(-1)[position] + 1e-300
            unit = {**along, name: np.eye(flat.size)[position].reshape(arrays[name].shape)}
            tangents = {mark: unit[one] for mark, one in zip(directions, real, strict=True)}
            forward = evaluate(pushed, {**arrays, **tangents}, constants, constants)
            parts = evaluate(magnitudes(program, pushed), {**arrays, **tangents}, constants, constants)
            for mark, out in zip(pushed.outputs[len(program.outputs) :], outputs, strict=True):
                assert np.all(abs(forward[mark] - column[out]) <= 1e-12 * parts[mark] + 1e-300)


def test_rows_say_what_they_did_not_ask_and_nothing_unasked_counts_as_passed() -> None:
    """The mean over no columns is 0/0: no value is asked there, no transposed map, and the row says so."""
    mean = jc.tensor("mean", N)
    layer = Layer("mean", inputs=[x], outputs=[mean], equations=[sp.Eq(mean[n], sp.Sum(x[n, k], k) / D)])
    rows = [row for row in check(layer.spec, Interpreted(layer.program)).rows if row.sizes.endswith("D=0")]
    free = [row for row in rows if "asked only" in row.note]
    assert {row.what for row in free} >= {"forward", "jvp"}
    assert not any(row.what == "transpose" and row.sizes == free[0].sizes for row in rows)
