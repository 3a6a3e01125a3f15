"""Seeded samples of a layer: sizes that its extents allow, scalars, and inputs where its equations are defined.

Nothing is declared for the sake of testing. Sizes and integer inputs are tried against the equations themselves and
drawn again where a read falls outside a tensor; real inputs are made positive, or kept inside the unit interval, where
the equations give no finite value otherwise. All values are exact in float32, so that one truth serves both dtypes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from jaccomp import notation as jc
from jaccomp.errors import JaccompError, StageError, UsageError
from jaccomp.reference import indices, written
from jaccomp.reference.plain import Plain
from jaccomp.reference.scalars import Array
from jaccomp.spec import Spec

DIFFERENT = (3, 4, 2, 5, 6, 7, 8, 9)
TRIES = 60
COMFORTABLE = 1 << 14  # entries of the largest Jacobian block that a person looks at first
MODEST = (3, 5, 4, 2, 3, 4, 2)
HANDY_TRIES = 120
Kind = Callable[[np.random.Generator, tuple[int, ...]], Array]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def _positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return 0.25 + abs(rng.standard_normal(shape))


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.05, 0.95, shape)


KINDS: Mapping[str, Kind] = {"normal": _normal, "positive": _positive, "unit": _unit}


@dataclass(frozen=True, slots=True)
class Sample:
    """One call of a layer: every name bound. `kinds` says from which distribution each real input was drawn."""

    label: str
    sizes: Mapping[str, int]
    scalars: Mapping[str, float | int]
    inputs: Mapping[str, Array]
    kinds: Mapping[str, str]

    def replaced(self, label: str, inputs: Mapping[str, Array]) -> Sample:
        return Sample(label, self.sizes, self.scalars, {**self.inputs, **inputs}, self.kinds)

    def __str__(self) -> str:
        return f"{self.label} " + ", ".join(f"{name}={value}" for name, value in self.sizes.items())


def tied(spec: Spec, sample: Sample, values: Array, rng: np.random.Generator) -> Array:
    """Values drawn from few: 0 and ±1, and the constants that the layer's own kinks may lie at."""
    numbers = {0.0, 1.0}
    for equation in spec.equations:
        for node in equation.right.atoms(sp.Max, sp.Min, sp.Piecewise, sp.Abs, sp.sign, sp.Heaviside):
            numbers |= {float(leaf) for leaf in node.atoms(sp.Rational) if abs(leaf) <= 16}
            numbers |= {float(sample.scalars[s.name]) for s in node.atoms(jc.Scalar) if s.name in sample.scalars}
    signed = sorted({s * n for s in (1.0, -1.0) for n in numbers} | {a - b for a in numbers for b in numbers})
    exact = [v for v in signed if v == float(np.float32(v))]
    # Each of them at least once, where there is room.
    return np.asarray(rng.permutation(np.resize(rng.permutation(exact), values.size)).reshape(values.shape))


def real_inputs(spec: Spec) -> tuple[str, ...]:
    return tuple(t.name for t in spec.inputs if t.dtype == "real")


def forward(spec: Spec, sample: Sample) -> dict[str, Array]:
    """Every output and intermediate in float64, integer ones in int64."""
    inputs = {t.name: sample.inputs[t.name] if t.dtype == "int64" else sample.inputs[t.name][..., None]
              for t in spec.inputs}  # fmt: skip
    values = written.evaluate(spec, inputs, sample.sizes, sample.scalars, arithmetic=Plain(np.float64))
    whole = {t.name for t in (*spec.outputs, *spec.intermediates) if t.dtype == "int64"}
    return {name: value if name in whole else value[..., 0] for name, value in values.items()}


def draw(
    spec: Spec,
    label: str,
    candidates: Iterator[dict[str, int]],
    rng: np.random.Generator,
    vary: bool = False,
    only: str = "",
) -> Sample | None:
    """The first sample whose sizes the layer allows, or None.

    Scalars have their defaults; if `vary`, others; if `only` names an integer one, the next integer for that one.
    """
    for sizes in itertools.islice(candidates, TRIES):
        for scalars in _scalars(spec, vary, only):
            sample = _inputs(spec, label, sizes, scalars, rng)
            if sample is not None:
                return sample
    return None


def different(spec: Spec, rng: np.random.Generator) -> Iterator[dict[str, int]]:
    """Sizes all different: small ones in order, then in any order, then larger ones."""
    names = [s.name for s in spec.sizes]
    pool = (
        (13,) if len(names) == 1 else DIFFERENT if len(names) < 5 else (2, 3, 1, 4, 5, 6, 7, *range(8, len(names) + 1))
    )
    yield dict(zip(names, pool, strict=False))
    for attempt in itertools.count():
        if attempt % 4 == 3:
            yield {name: int(rng.integers(1, 2 ** (4 + attempt // 8))) for name in names}
            continue
        pool = (*pool, max(pool, default=0) + 1)
        width = int(rng.integers(len(names), len(pool) + 1))
        yield dict(zip(names, map(int, rng.permutation(pool[:width])), strict=False))


def equal(spec: Spec, _: np.random.Generator) -> Iterator[dict[str, int]]:
    for value in (3, 4, 2, 5, 6, 1) if len(spec.sizes) > 1 else (9, 8, 6, 4, 1):
        yield {s.name: value for s in spec.sizes}


def one(spec: Spec, _: np.random.Generator) -> Iterator[dict[str, int]]:
    yield {s.name: 1 for s in spec.sizes}


def small(spec: Spec, rng: np.random.Generator) -> Iterator[dict[str, int]]:
    """Few points, for what is evaluated in mpmath."""
    names = [s.name for s in spec.sizes]
    pool = (18, 19) if len(names) < 2 else (2, 3) if len(names) < 4 else (1, 2, 3)
    while True:
        yield {name: int(rng.choice(pool)) for name in names}


def with_zero(spec: Spec, rng: np.random.Generator, empty: Sequence[str]) -> Iterator[dict[str, int]]:
    for sizes in itertools.islice(small(spec, rng), 8):
        yield {**sizes, **dict.fromkeys(empty, 0)}


def wide(spec: Spec, rng: np.random.Generator) -> Iterator[dict[str, int]]:
    """Extents beyond a vector's width and no multiple of it; of many sizes only some, at random."""
    names = [s.name for s in spec.sizes]
    pools = {0: (), 1: (67,), 2: (67, 37), 3: (37, 19, 11), 4: (17, 11, 7, 5)}
    pool = pools.get(len(names), (17, 3, 2, 4, 2, *[1] * (len(names) - 5)))
    yield dict(zip(names, pool, strict=True))
    while True:
        yield dict(zip(names, map(int, rng.permutation(pool)), strict=True))


def handy(spec: Spec) -> Sample:
    """Small sizes, scalars and kinds of inputs that the layer allows: no axis of one element, no block that is large.

    Where no drawn sizes are such, the first that the layer allows.
    """
    rng = np.random.default_rng(0)
    fallback: Sample | None = None
    for sizes in itertools.islice(_modest(spec, rng), HANDY_TRIES):
        found = draw(spec, "handy", iter([sizes]), rng)
        if found is not None and _is_handy(spec, found):
            return found
        fallback = fallback or found
    if fallback is None:
        raise UsageError(f"layer {spec.name!r}", "no small sizes were found that it allows.", "Bind some of its sizes.")
    return fallback


def _is_handy(spec: Spec, one: Sample) -> bool:
    constants = {**one.sizes, **one.scalars}
    above, below = ([extents(t.shape, constants) for t in side] for side in (spec.outputs, spec.inputs))
    largest = max(math.prod(shape) for shape in above) * max(math.prod(shape) for shape in below)
    return largest <= COMFORTABLE and all(length > 1 for shape in (*above, *below) for length in shape)


def _modest(spec: Spec, rng: np.random.Generator) -> Iterator[dict[str, int]]:
    names = [s.name for s in spec.sizes]
    if len(names) < len(MODEST):
        yield dict(zip(names, (12,) if len(names) == 1 else MODEST, strict=False))
    for attempt in itertools.count():
        yield {name: int(rng.integers(2, 6 if attempt < HANDY_TRIES / 2 else 4)) for name in names}


def extents(shape: Sequence[sp.Expr], constants: Mapping[str, Any]) -> tuple[int, ...]:
    """A shape in numbers."""
    return tuple(max(0, int(indices.integer(e, lambda leaf: constants[leaf.name]))) for e in shape)


def loose_sizes(spec: Spec) -> tuple[str, ...]:
    """The sizes that no input determines, bare or as the one unknown of a linear extent: required keywords."""
    extents = [e for t in spec.inputs for e in t.shape]
    known = {e for e in extents if e in spec.sizes}
    for _ in spec.sizes:
        for extent in extents:
            unknown = [s for s in spec.sizes if s in extent.free_symbols and s not in known]
            if len(unknown) == 1 and sp.Poly(extent, unknown[0]).degree() == 1 and not extent.has(sp.floor, sp.ceiling):
                known.add(unknown[0])
    return tuple(s.name for s in spec.sizes if s not in known)


def _scalars(spec: Spec, vary: bool, only: str) -> Iterator[dict[str, float | int]]:
    """Defaults, or values beside them; where there is none, 1 or 2 for an integer and 3/4 for a real scalar."""
    plain = {s.name: s.default if s.default is not None else (1 if s.dtype == "int64" else 0.75) for s in spec.scalars}
    if only:
        yield {**plain, only: plain[only] + 1}
        return
    if vary:
        moved = {s.name: plain[s.name] + 1 if s.dtype == "int64" else plain[s.name] * 1.25 for s in spec.scalars}
        whole = [s.name for s in spec.scalars if s.dtype == "int64"]
        yield moved
        for name in reversed(whole):
            yield {**moved, **{other: plain[other] for other in whole if other != name}}
        yield {**moved, **{name: plain[name] for name in whole}}
    yield plain
    if any(s.dtype == "int64" and s.default is None for s in spec.scalars):
        yield {s.name: 2 if s.dtype == "int64" and s.default is None else plain[s.name] for s in spec.scalars}


def _inputs(
    spec: Spec, label: str, sizes: dict[str, int], scalars: dict[str, float | int], rng: np.random.Generator
) -> Sample | None:
    constants = {**sizes, **scalars}
    tensors = (*spec.inputs, *spec.outputs, *spec.intermediates)
    try:
        if any(int(indices.integer(e, lambda leaf: constants[leaf.name])) < 0 for t in tensors for e in t.shape):
            return None
        shapes = written.shapes(spec, sizes, scalars)
    except (JaccompError, ZeroDivisionError):
        return None
    seed = int(rng.integers(1 << 31))
    best: Sample | None = None
    for kinds in _assignments(real_inputs(spec)):
        for limits in _limits(spec, constants):
            if any(t.dtype == "int64" and limits[t.name] < 1 and 0 not in shapes[t.name] for t in spec.inputs):
                return None  # an axis without elements has no position that these ids could name
            inner = np.random.default_rng(seed)
            inputs = {}
            for tensor in spec.inputs:
                shape = shapes[tensor.name]
                if tensor.dtype == "int64":
                    inputs[tensor.name] = inner.integers(0, max(limits[tensor.name], 1), shape)
                else:
                    inputs[tensor.name] = KINDS[kinds[tensor.name]](inner, shape).astype(np.float32).astype(np.float64)
            sample = Sample(label, sizes, scalars, inputs, kinds)
            try:
                values = forward(spec, sample)
            except StageError:
                continue
            best = best or sample
            if all(np.isfinite(v).all() for v in values.values()):
                return sample
            break
        else:
            return None
    return best


def _assignments(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Distributions for the inputs: normal for all, then for all but one, then for fewer, then one for all."""
    yield dict.fromkeys(names, "normal")
    for kind in ("positive", "unit"):
        for count in range(1, min(len(names), 3) + 1):
            for chosen in itertools.combinations(names, count):
                yield {name: kind if name in chosen else "normal" for name in names}
        yield dict.fromkeys(names, kind)


def _limits(spec: Spec, constants: Mapping[str, Any]) -> Iterator[dict[str, int]]:
    """Exclusive bounds for integer inputs: what they index or are compared with, then smaller ones."""
    whole = [t.name for t in spec.inputs if t.dtype == "int64"]
    first = {name: _limit(spec, name, constants) for name in whole}
    yield first
    if whole:
        least = min((v for v in constants.values() if isinstance(v, int)), default=1)
        yield dict.fromkeys(whole, least)
        yield dict.fromkeys(whole, 1)


def _limit(spec: Spec, name: str, constants: Mapping[str, Any]) -> int:
    known = [e for e in stops(spec, name) if all(s.name in constants for s in e.free_symbols)]
    return min((int(indices.integer(e, lambda leaf: constants[leaf.name])) for e in known), default=3)


def stops(spec: Spec, name: str) -> tuple[sp.Expr, ...]:
    """What an integer input must stay below, in sizes and scalars: axes it indexes, ranges it is compared with."""

    def is_it(expr: sp.Basic) -> bool:
        return isinstance(expr, jc.Access | jc.Tensor) and expr.name == name

    found: list[sp.Expr] = []
    for equation in spec.equations:
        for node in sp.preorder_traversal(equation.right):
            if isinstance(node, jc.Access):
                found += [extent for at, extent in zip(node.indices, node.base.shape, strict=True) if is_it(at)]
            elif isinstance(node, sp.KroneckerDelta | sp.Eq | sp.Ne) and any(map(is_it, node.args)):
                found += [i.stop for i in node.args if isinstance(i, jc.Index)]
    return tuple(dict.fromkeys(e for e in found if not e.has(jc.Index, jc.Access)))
