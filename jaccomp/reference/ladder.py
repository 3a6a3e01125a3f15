"""The ladder: what a kernel must satisfy, against references that do not share its derivation.

1. forward       every output entry, against the equations as they were written
2. vjp, jvp      every entry, against complex step through the written equations (mpmath where that overflows)
3. transpose     <v, J t> = <vᵀ J, t>, at sizes beyond a vector's width too
4. edges         sizes 0 and 1, all equal, all different; ties and kinks; ±inf and nan; subnormals; large magnitudes

An entry passes if its error is at most `c · eps · Σ|terms|`, with `c = TOLERANCE` for every layer, dtype and rung. eps
is the spacing of the dtype at 1 (2⁻²³, 2⁻⁵²) and Σ|terms| the magnitude that `bounded.py` defines; of a cotangent
`Σ_f |ct_f| terms(∂f/∂a)`, of a tangent `Σ_a terms(∂f/∂a) |t_a|`. A row shows the worst entry's error / Σ|terms|. Below
the smallest normal number an absolute error of that size is nobody's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaccomp.errors import UsageError
from jaccomp.reference import sampling
from jaccomp.reference.report import Report, Row
from jaccomp.reference.sampling import Sample, draw, real_inputs
from jaccomp.reference.scalars import Array
from jaccomp.reference.truth import Truth, entries, truth
from jaccomp.spec import Spec

TOLERANCE = 16.0
DTYPES = ("float32", "float64")
MOST_SEEDS = 64  # Jacobian columns taken at one sample
WIDE_SEEDS = 12  # the same at wide sizes
EXACT_SEEDS = 8  # and in mpmath, whose numbers are Python objects


class KernelLike(Protocol):
    """The surface of a compiled layer that the ladder climbs."""

    def forward(self, *inputs: Any, **constants: Any) -> Any: ...

    def vjp(self, *inputs: Any, **constants: Any) -> Any: ...

    def jvp(self, inputs: Any, tangents: Any, **constants: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Case:
    """A sample with its truth, and what is asked of it: derivatives too, or the forward values alone."""

    sample: Sample
    truth: Truth
    derivatives: bool
    dtypes: tuple[str, ...] = DTYPES


def check(
    spec: Spec,
    kernel: KernelLike,
    *,
    against: Spec | None = None,
    dtypes: Sequence[str] = DTYPES,
    seed: int = 0,
    edges: bool = True,
) -> Report:
    """Climb the ladder with the kernel of `spec`. With `against`, the truth is that of another layer's equations.

    Raises `UsageError` where the other layer's inputs or outputs do not correspond, or no sizes fit the layer.
    """
    reference = spec if against is None else against
    if against is not None:
        _correspond(spec, against)
    rows: list[Row] = []
    for case in cases(reference, seed, edges):
        for dtype in dtypes:
            if dtype in case.dtypes:
                rows += examine(spec, case, kernel, dtype, reference=reference)
    if not rows:
        raise UsageError(
            f"check of layer {spec.name!r}",
            "no sizes were found at which its extents are >= 0 and its reads inside their tensors.",
            "Sizes up to some hundreds were tried. Bind those that must be larger: layer.bind(N=1000).",
        )
    return Report(tuple(rows))


def _correspond(spec: Spec, against: Spec) -> None:
    what = f"check of {spec.name!r} against {against.name!r}"
    ours, theirs = [t.name for t in spec.inputs], [t.name for t in against.inputs]
    if sorted(ours) != sorted(theirs):
        raise UsageError(what, f"the inputs are {ours} and {theirs}.", "Give them the same names.")
    if len(spec.outputs) != len(against.outputs):
        raise UsageError(what, "they have different numbers of outputs.", "Outputs correspond in order.")


# Cases


def cases(spec: Spec, seed: int = 0, edges: bool = True) -> Iterator[Case]:
    """The samples of a layer, each with its truth; the same for the same seed in every process."""
    for label, make in _plans(spec, edges):
        rng = np.random.default_rng([seed, sum(map(ord, label))])
        sample = make(spec, rng)
        if sample is None:
            continue
        exact = label in ("large", "subnormal")
        most = EXACT_SEEDS if exact else WIDE_SEEDS if label == "wide" or len(spec.sizes) > 5 else MOST_SEEDS
        seeds = entries(spec, sample, most, rng)
        finite = label not in ("infinite", "nan")
        if not finite:
            seeds = {name: np.zeros((*s.shape[:-1], 1)) for name, s in seeds.items()}
        dtypes = ("float64",) if label == "subnormal" else DTYPES
        yield Case(sample, truth(spec, sample, seeds, exact, underflow=label == "subnormal"), finite, dtypes)


Plan = Callable[[Spec, np.random.Generator], Sample | None]


def _plans(spec: Spec, edges: bool) -> Iterator[tuple[str, Plan]]:
    yield "different", lambda s, rng: draw(s, "different", sampling.different(s, rng), rng)
    yield "equal", lambda s, rng: draw(s, "equal", sampling.equal(s, rng), rng, vary=True)
    if not edges:
        return
    for scalar in (s.name for s in spec.scalars if s.dtype == "int64"):
        yield (
            f"next {scalar}",
            lambda s, rng, n=scalar: draw(s, f"next {n}", sampling.different(s, rng), rng, only=n),  # type: ignore[misc]
        )
    yield "ones", lambda s, rng: draw(s, "ones", sampling.one(s, rng), rng)
    for size in spec.sizes:
        yield (
            f"no {size.name}",
            lambda s, rng, n=size.name: draw(s, "empty", sampling.with_zero(s, rng, [n]), rng),  # type: ignore[misc]
        )
    if len(spec.sizes) > 1:
        every = [s.name for s in spec.sizes]
        yield "nothing", lambda s, rng: draw(s, "empty", sampling.with_zero(s, rng, every), rng)
    yield "wide", lambda s, rng: draw(s, "wide", sampling.wide(s, rng), rng)
    for label, change in CHANGES.items():
        yield label, lambda s, rng, to=change, what=label: _changed(s, rng, what, to)  # type: ignore[misc]


def _changed(
    spec: Spec, rng: np.random.Generator, label: str, change: Callable[[np.random.Generator, Array], Array] | None
) -> Sample | None:
    """A small sample whose real inputs, where any number will do, are changed."""
    sample = draw(spec, label, sampling.small(spec, rng), rng)
    if sample is None:
        return None
    free = [name for name in real_inputs(spec) if sample.kinds[name] == "normal"]
    if not free or not any(sample.inputs[name].size for name in free):
        return None
    if change is None:
        return sample.replaced(label, {n: sampling.tied(spec, sample, sample.inputs[n], rng) for n in free})
    return sample.replaced(label, {name: change(rng, sample.inputs[name]) for name in free})


def _large(rng: np.random.Generator, values: Array) -> Array:
    """Half the entries up to ±10⁴."""
    far = _exact(np.clip(values * 4096.0, -1e4, 1e4))
    return np.asarray(np.where(rng.random(values.shape) < 0.5, values, far))


def _subnormal(rng: np.random.Generator, values: Array) -> Array:
    return np.asarray(values * 2.0**-1030)


def _one_of(*chosen: float) -> Callable[[np.random.Generator, Array], Array]:
    def change(rng: np.random.Generator, values: Array) -> Array:
        if values.size == 0:
            return values
        flat: Array = values.reshape(-1).copy()
        flat[int(rng.integers(flat.size))] = chosen[int(rng.integers(len(chosen)))]
        return flat.reshape(values.shape)

    return change


CHANGES: Mapping[str, Callable[[np.random.Generator, Array], Array] | None] = {
    "ties": None,  # sampling.tied
    "zeros": lambda rng, values: values * 0.0,
    "large": _large,
    "subnormal": _subnormal,
    "infinite": _one_of(np.inf, -np.inf),
    "nan": _one_of(np.nan),
}


# Rungs


def examine(
    spec: Spec, case: Case, kernel: KernelLike, dtype: str, reference: Spec | None = None, rungs: Sequence[str] = ()
) -> list[Row]:
    """The rows of one case in one dtype: forward, vjp, jvp, transpose, or those of them named in `rungs`."""
    climb = _Climb(spec, case, kernel, dtype, reference or spec)
    wanted = rungs or ("forward", "vjp", "jvp", "transpose")
    rows: list[Row] = []
    if "forward" in wanted:
        rows.append(climb.row("forward", climb.forward))
    if case.derivatives and real_inputs(spec) and any(t.dtype == "real" for t in spec.outputs):
        steps = {"vjp": climb.vjp, "jvp": climb.jvp, "transpose": climb.transpose}
        if not climb.is_finite():
            # Its two sums would be nan: a row that asks nothing must not be counted as one that passed.
            del steps["transpose"]
        rows += [climb.row(what, step) for what, step in steps.items() if what in wanted]
    return rows


class _Climb:
    """One kernel at one case in one dtype."""

    def __init__(self, spec: Spec, case: Case, kernel: KernelLike, dtype: str, reference: Spec) -> None:
        self.spec, self.case, self.kernel, self.reference = spec, case, kernel, reference
        self.dtype = np.dtype(dtype)
        self.eps, self.tiny = float(np.finfo(self.dtype).eps), float(np.finfo(self.dtype).tiny)
        sample = case.sample
        self.inputs = tuple(
            sample.inputs[t.name].astype(np.int64 if t.dtype == "int64" else self.dtype) for t in spec.inputs
        )
        scalars = {s.name: sample.scalars[s.name] for s in spec.scalars if s.name in sample.scalars}
        loose = {name: sample.sizes[name] for name in sampling.loose_sizes(spec) if name in sample.sizes}
        self.constants = {**scalars, **loose}
        rng = np.random.default_rng([7, *sample.sizes.values()])
        truth = case.truth
        # Directions are exact in float32, so that they are the same in both dtypes.
        self.outputs = [(ours.name, theirs.name) for ours, theirs in zip(spec.outputs, reference.outputs, strict=True)]
        self.cotangents = {
            theirs: _exact(rng.standard_normal(truth.values[theirs].shape))
            for _, theirs in self.outputs
            if theirs in truth.slopes
        }
        batch = max((s.shape[-1] for s in truth.seeds.values()), default=1)
        self.weights = _exact(rng.standard_normal(batch))
        self.tangents = {name: seeds @ self.weights for name, seeds in truth.seeds.items()}

    def is_finite(self) -> bool:
        """Whether the truth has a finite value, derivative and magnitude everywhere."""
        truth = self.case.truth
        parts = (*truth.values.values(), *truth.slopes.values(), *truth.slope_terms.values())
        return all(bool(np.isfinite(part).all()) for part in parts)

    def row(self, what: str, step: Callable[[], float]) -> Row:
        """The row of a rung; an exception is a failure with its message."""
        limit, note = TOLERANCE * self.eps, ""
        self.asked = self.bounded = 0
        try:
            error = step()
            if self.bounded < self.asked:
                note = f"{self.asked - self.bounded} of {self.asked} entries asked only to be finite or free"
        except Exception as problem:
            error, note = float("inf"), f"{type(problem).__name__}: {problem}".splitlines()[0]
        method = "the transposed map" if what == "transpose" else self.case.truth.method
        if what == "forward":
            method = "written equations" + (", mpmath" if "mpmath" in method else "")
        return Row(
            self.spec.name, self.dtype.name, what, method, str(self.case.sample), error, limit, error <= limit, note
        )

    def forward(self) -> float:
        got = self.results(self.kernel.forward(*self.inputs, **self.constants))
        worst = 0.0
        for (_, name), value in zip(self.outputs, got, strict=True):
            expected = self.case.truth.values[name]
            if name not in self.case.truth.terms:
                worst = max(worst, 0.0 if np.array_equal(value, expected) else float("inf"))
            else:
                worst = max(worst, self.distance(value, expected, self.case.truth.terms[name]))
        return worst

    def vjp(self) -> float:
        truth = self.case.truth
        pulled = self.pull()
        worst = 0.0
        for tensor, got in zip(self.spec.inputs, pulled, strict=True):
            if tensor.dtype == "int64":
                worst = worst if got is None else float("inf")
                continue
            seeds = truth.seeds[tensor.name]
            if np.shape(got) != seeds.shape[:-1]:
                return float("inf")
            mine = seeds.any(axis=tuple(range(seeds.ndim - 1)))
            picked = (
                np.argmax(seeds.reshape(-1, seeds.shape[-1]), axis=0) if seeds.size else np.zeros(0, dtype=np.int64)
            )
            columns = np.asarray(got, dtype=np.float64).reshape(-1)[picked]
            expected, terms = np.zeros(seeds.shape[-1]), np.zeros(seeds.shape[-1])
            for name, ct in self.cotangents.items():
                over = tuple(range(ct.ndim))
                with np.errstate(all="ignore"):
                    expected += (ct[..., None] * truth.slopes[name]).sum(axis=over)
                    terms += (abs(ct)[..., None] * truth.slope_terms[name]).sum(axis=over)
            if mine.any():
                worst = max(worst, self.distance(columns[mine], expected[mine], terms[mine], derivative=True))
        return worst

    def jvp(self) -> float:
        truth = self.case.truth
        values, tangents = self.push()
        worst = 0.0
        for (_, name), value, tangent in zip(self.outputs, values, tangents, strict=True):
            if name not in truth.slopes:
                continue
            worst = max(worst, self.distance(value, truth.values[name], truth.terms[name]))
            with np.errstate(all="ignore"):
                expected, terms = truth.slopes[name] @ self.weights, truth.slope_terms[name] @ abs(self.weights)
            # Where the value itself is infinite or nan in this dtype, its derivative means nothing.
            with np.errstate(over="ignore"):
                expected = np.where(np.isfinite(truth.values[name].astype(self.dtype)), expected, np.nan)
            worst = max(worst, self.distance(tangent, expected, terms, derivative=True))
        return worst

    def transpose(self) -> float:
        """`<v, J t>` and `<vᵀ J, t>` of the kernel's own two maps; the terms are those of the truth."""
        truth = self.case.truth
        _, tangents = self.push()
        pulled = self.pull()
        left = right = terms = 0.0
        with np.errstate(all="ignore"):  # what the kernel got wrong is for the report to say
            for (_, name), tangent in zip(self.outputs, tangents, strict=True):
                if name in self.cotangents:
                    ct = self.cotangents[name]
                    left += float((ct * np.asarray(tangent, dtype=np.float64)).sum())
                    terms += float((abs(ct) * (truth.slope_terms[name] @ abs(self.weights))).sum())
            for tensor, got in zip(self.spec.inputs, pulled, strict=True):
                if tensor.dtype == "real":
                    right += float((np.asarray(got, dtype=np.float64) * self.tangents[tensor.name]).sum())
        return self.distance(np.asarray(left), np.asarray(right), np.asarray(terms), derivative=True)

    # Calls

    def pull(self) -> tuple[Any, ...]:
        _, pullback = self.kernel.vjp(*self.inputs, **self.constants)
        seeds = [self.cast(self.cotangents.get(name)) for _, name in self.outputs]
        pulled = pullback(seeds[0] if len(seeds) == 1 else tuple(seeds))
        return tuple(pulled) if isinstance(pulled, tuple | list) else (pulled,)

    def push(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        along = tuple(self.cast(self.tangents.get(t.name)) for t in self.spec.inputs)
        values, tangents = self.kernel.jvp(self.inputs, along, **self.constants)
        return self.results(values), self.results(tangents)

    def results(self, values: Any) -> tuple[Any, ...]:
        return tuple(values) if len(self.outputs) > 1 else (values,)

    def cast(self, values: Array | None) -> Array | None:
        return None if values is None else values.astype(self.dtype)

    def distance(self, got: Any, expected: Array, terms: Array, derivative: bool = False) -> float:
        """The largest |got - expected| / Σ|terms|; an infinity must be the same on both sides.

        Beyond the largest number of the dtype, infinity is right. A nan must be answered by nan where an input is one;
        elsewhere it says that the equations as written have no value there (0 · inf, at an empty size), so that any
        will do. A derivative is asked for only where it is finite.
        """
        got = np.asarray(got)
        self.asked += expected.size
        self.bounded += int((np.isfinite(expected) & np.isfinite(terms)).sum())
        if got.shape != expected.shape or (got.dtype != self.dtype and got.dtype != np.float64):
            return float("inf")
        if got.size == 0:
            return 0.0
        with np.errstate(all="ignore"):
            wide = got.astype(np.float64)
            reached = expected.astype(self.dtype).astype(np.float64)
            finite = np.isfinite(reached)
            strict = ~finite if self.case.sample.label == "nan" else np.isinf(reached)
            if not derivative and not np.array_equal(wide[strict], reached[strict], equal_nan=True):
                return float("inf")
            if not np.isfinite(wide[finite]).all():
                return float("inf")
            scale = np.maximum(terms[finite], self.tiny / self.eps)
            return float((abs(wide[finite] - expected[finite]) / scale).max(initial=0.0))


def _exact(values: Any) -> Array:
    """Numbers that float32 holds exactly, in float64."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)
