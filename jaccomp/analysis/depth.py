"""By depth: the singular values of ∂tensor/∂input and the norms of cotangents.

Depth is counted in the tensors that every path passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.analysis.amplification import top
from jaccomp.analysis.result import Result
from jaccomp.analysis.segments import segments
from jaccomp.analysis.spectra import spectrum
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation
    from jaccomp.composition import Chain

Array = NDArray[Any]
WHOLE = 1 << 20  # entries of a Jacobian that is decomposed whole


@dataclass(frozen=True)
class Depths(Result):
    """At each of `tensors`, from the input on: a sample's singular values, `[samples, k]`, and cotangent norms.

    `singular_values[d]` are those of ∂tensors[d]/∂input, all of them where `whole[d]`, else the largest alone; the
    first, of the input by itself, stand as a single 1. `cotangents` [samples, depths] are root mean square norms
    ‖∂L/∂tensors[d]‖ over random unit cotangents of the output.
    """

    tensors: tuple[str, ...]
    singular_values: tuple[Array, ...]
    whole: tuple[bool, ...]
    cotangents: Array

    @property
    def text(self) -> str:
        lines = ["tensor           largest σ    median σ   cotangent"]
        for k, name in enumerate(self.tensors):
            s, g = self.singular_values[k], self.cotangents[:, k]
            middle = f"{np.median(s):9.4g}" if self.whole[k] else "        -"
            lines.append(f"{name:16} {np.median(s[:, 0]):9.4g}   {middle}   {np.median(g):9.4g}")
        return "\n".join(lines)


@dataclass(frozen=True)
class AtDepths:
    """One sample's."""

    singular_values: tuple[Array, ...]
    cotangents: Array


def cuts(chain: Chain, of: str, wrt: str) -> tuple[str, ...]:
    """The tensors that every path from `wrt` to `of` passes, both ends included."""
    return wrt, *(one.end for one in segments(chain, of, wrt))


def at_depths(at: Linearisation, of: str, wrt: str, *, draws: int, seed: int | tuple[int, ...]) -> AtDepths:
    """A sample's spectra and norms, with `draws` random cotangents. Raises `UsageError` for no draw."""
    if draws < 1:
        raise UsageError("norms by depth", f"{draws} draws were asked for.", "Ask for 1 or more.")
    rng = np.random.default_rng(seed)
    names = cuts(at.model.chain, of, wrt)
    values = [_values(at, name, wrt) for name in names[1:]]
    squares = np.zeros(len(names))
    for _ in range(draws):
        v = rng.standard_normal(at.values[of].shape).astype(at.values[of].dtype)
        known = at.cotangents({of: v / np.linalg.norm(v)}, wrt)
        squares += [float(np.vdot(known[name], known[name])) for name in names]
    return AtDepths((np.ones(1), *values), np.sqrt(squares / draws))


def _values(at: Linearisation, of: str, wrt: str) -> Array:
    linear = at.operator(of, wrt)
    if is_whole(at, of, wrt):
        return spectrum(linear).values
    return np.array([top(linear).value])


def is_whole(at: Linearisation, of: str, wrt: str) -> bool:
    return at.values[of].size * at.values[wrt].size <= WHOLE


def by_depth(names: tuple[str, ...], whole: tuple[bool, ...], parts: list[AtDepths]) -> Depths:
    """What samples come to."""
    spectra = tuple(np.stack([one.singular_values[k] for one in parts]) for k in range(len(names)))
    return Depths(names, spectra, whole, np.stack([one.cotangents for one in parts]))
