"""The Jacobian of a chain as a product: how loose the bound of its factors' norms is, and what it does in the long run.

    ‖J_L ... J_1‖ <= ‖J_L‖ ... ‖J_1‖ <= c_L ... c_1

Norms are of the segments between the chain's cuts (`segments`); the c are bounds that certificates prove for every
input, or that the kept structure of a factor gives at this one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log, prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaccomp.analysis.result import Result
from jaccomp.analysis.segments import Segment, layers, segments
from jaccomp.analysis.spectra import as_operator, finite, singular_values
from jaccomp.composition import Placed
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Bound:
    """A number that a spectral norm does not exceed. `always` says that it holds for every input, not only this one."""

    value: float
    always: bool


@dataclass(frozen=True, slots=True)
class FactorNorm:
    """The norm of one segment's Jacobian, its residual, and the bound that its structure gives, where it gives one."""

    name: str
    norm: float
    residual: float
    bound: Bound | None


@dataclass(frozen=True)
class ProductBound(Result):
    """Norms of the factors, the input's first, beside the norm of their product."""

    factors: tuple[FactorNorm, ...]
    norm: float
    residual: float

    @property
    def product(self) -> float:
        """‖J_L‖ ... ‖J_1‖."""
        return prod(one.norm for one in self.factors)

    @property
    def looseness(self) -> float:
        """How many times the product of norms exceeds the norm of the product; at least 1."""
        if self.norm == 0:
            return float("inf") if self.product else 1.0
        return self.product / self.norm

    @property
    def bound(self) -> float | None:
        """The product of the bounds, or None where a factor has none."""
        found = [one.bound.value for one in self.factors if one.bound is not None]
        return prod(found) if len(found) == len(self.factors) else None

    def plain(self) -> dict[str, Any]:
        return {**super().plain(), "product": self.product, "looseness": self.looseness, "bound": self.bound}

    @property
    def text(self) -> str:
        width = max(len(one.name) for one in self.factors)
        lines = [f"{'factor':<{width}}  norm        bound"]
        for one in self.factors:
            said = "none" if one.bound is None else f"{one.bound.value:.4g}" + (" always" if one.bound.always else "")
            lines.append(f"{one.name:<{width}}  {one.norm:<10.4g}  {said}")
        lines.append(
            f"product of norms {self.product:.4g}, norm of the product {self.norm:.4g} (residual {self.residual:.1e}): "
            f"{self.looseness:.3g} times"
        )
        return "\n".join(lines)


def product_bound(
    at: Linearisation,
    of: str | None = None,
    wrt: str | None = None,
    *,
    by: Literal["segments", "layers"] = "segments",
    seed: int = 0,
) -> ProductBound:
    """Each factor's spectral norm against that of the product ∂of/∂wrt; `by="layers"` joins what follows a weight.

    Raises what `singular_values` and `segments` do.
    """
    target, source = of or at.model.outputs[-1], wrt or at.model.inputs[0]
    parts = (layers if by == "layers" else segments)(at.model.chain, target, source)
    found = []
    for one in parts:
        top = singular_values(at.operator(one.end, one.start), 1, seed=seed)
        found.append(FactorNorm(one.name, float(top.values[0]), float(top.residuals[0]), segment_bound(at, one)))
    whole = singular_values(at.operator(target, source), 1, seed=seed)
    return ProductBound(tuple(found), float(whole.values[0]), float(whole.residuals[0]))


def segment_bound(at: Linearisation, segment: Segment) -> Bound | None:
    """The sum over a segment's paths of the products of its stages' bounds, or None where a stage has none."""
    total, always = 0.0, True
    for path in at.model.chain.paths(segment.end, segment.start):
        found = [stage_bound(at, placed, output, own) for placed, output, own in path]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            return None
        total += prod(one.value for one in known)
        always &= all(one.always for one in known)
    return Bound(total, always)


def stage_bound(at: Linearisation, placed: Placed, output: str, own: str) -> Bound | None:
    """A bound of a stage's block: what its certificate proves, else what its form gives at this point.

    Of a form it is the least of ‖J‖_F and √(‖J‖₁ ‖J‖_∞), which is exact for a diagonal. A block that is only dense has
    none, nor has one whose form cannot be evaluated.
    """
    certificate = placed.layer.jacobian(output, own).certificate
    if certificate.norm is not None:
        return Bound(float(certificate.norm), True)
    if certificate.form not in ("diagonal", "factors"):
        return None
    call = tuple(at.values[placed.inputs[t.name]] for t in placed.layer.spec.inputs)
    kernel = at.model.kernels[placed.name]
    try:
        factored = kernel.jacobian(*call, of=output, wrt=own, form="factors", **at.model.own(placed))
    except ValueError:
        return None
    return Bound(float(factored.spectral_bound()), False)


# In the long run


@dataclass(frozen=True)
class Lyapunov(Result):
    """The rates λ₁ >= λ₂ >= ... at which a product of Jacobians stretches, per factor, with their standard errors.

    Errors are those of means over batches of consecutive factors, since neighbours may depend on each other: about 20
    batches of 40 factors or more; of fewer, every factor counts as independent.
    """

    exponents: Array
    errors: Array
    factors: int
    skipped: int

    @property
    def text(self) -> str:
        lines = [f"  {value:+.6g} ± {error:.2g}" for value, error in zip(self.exponents, self.errors, strict=True)]
        first = self.exponents[0]
        said = f"the first grows {exp(first):.4g} times a factor" if first < log(np.finfo(float).max) else "unbounded"
        return "\n".join([f"Lyapunov exponents over {self.factors} factors: {said}", *lines])


def lyapunov(factors: Iterable[Any], count: int = 1, *, skip: int = 0, seed: int = 0) -> Lyapunov:
    """The first Lyapunov exponents of ... J₃ J₂ J₁ by repeated QR (Benettin et al., 1980).

    `factors` are operators or matrices in the order in which they act, any iterable of them. The first `skip` align the
    frame and are not counted. Raises `UsageError` where none is left, `count` exceeds their sides, one does not fit the
    one before it, or a product is not finite.
    """
    frame: Array | None = None
    logs: list[Array] = []
    for k, given in enumerate(factors):
        one = as_operator(given)
        if not 1 <= count <= min(one.shape):
            raise UsageError(
                "Lyapunov exponents",
                f"{count} were asked for, and factor {k} has shape {one.shape}.",
                "Ask for as many as every factor has rows and columns.",
            )
        if frame is None:
            start = np.random.default_rng(seed).standard_normal((one.shape[1], count)).astype(one.dtype)
            frame = np.linalg.qr(start)[0]
        if one.shape[1] != len(frame):
            raise UsageError(
                "Lyapunov exponents",
                f"factor {k} has shape {one.shape}, and the one before it {len(frame)} rows.",
                "Pass factors in the order in which they act.",
            )
        frame, r = np.linalg.qr(finite(one.matmat, frame))
        with np.errstate(divide="ignore"):
            logs.append(np.log(np.abs(np.diag(r)).astype(float)))
    counted = np.array(logs[max(skip, 0) :])
    if not len(counted):
        raise UsageError("Lyapunov exponents", f"{len(logs)} factors, {skip} skipped.", "Pass more factors.")
    length = max(1, len(counted) // 20) if len(counted) >= 40 else 1
    groups = np.array([chunk.mean(axis=0) for chunk in np.array_split(counted, len(counted) // length)])
    with np.errstate(invalid="ignore"):
        error = groups.std(axis=0, ddof=1) / np.sqrt(len(groups)) if len(groups) > 1 else np.full(count, np.nan)
        exponents = counted.mean(axis=0)
    order = np.argsort(-exponents, kind="stable")
    return Lyapunov(exponents[order], error[order], len(counted), skip)


def depth_exponents(
    at: Linearisation, of: str | None = None, wrt: str | None = None, count: int = 1, *, skip: int = 0, seed: int = 0
) -> Lyapunov:
    """The Lyapunov exponents of a deep or unrolled chain, a factor for each of its layers."""
    parts = layers(at.model.chain, of or at.model.outputs[-1], wrt or at.model.inputs[0])
    return lyapunov((at.operator(one.end, one.start) for one in parts), count, skip=skip, seed=seed)
