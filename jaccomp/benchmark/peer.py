"""What every peer is asked: the same problem, the same arrays, one mode at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jaccomp.benchmark.cases import Array, Mode, Problem
from jaccomp.benchmark.timing import Entry

Arrays = tuple[NDArray[Any], ...]


class Unsupported(Exception):
    """A peer has nothing to show in a row and mode: the reason."""


@dataclass(frozen=True, slots=True)
class Given:
    """A problem with its arrays: inputs in the layer's order, and a cotangent for each output that gets one."""

    problem: Problem
    inputs: Arrays
    cotangents: Arrays

    @property
    def real(self) -> Arrays:
        return tuple(self.inputs[k] for k in self.problem.real)


class Peer(Protocol):
    """One way to compute the rows. `entries` gives what is timed, of which the fastest counts; it may compile."""

    name: str

    def version(self) -> str: ...

    def entries(self, given: Given, mode: Mode) -> list[Entry]: ...


def draw(problem: Problem, seed: int = 0) -> Given:
    """The arrays of a problem, the same in every process."""
    generator = np.random.default_rng(seed)
    return Given(
        problem,
        tuple(_drawn(generator, one) for one in problem.inputs),
        tuple(_drawn(generator, one) for one in problem.outputs),
    )


def _drawn(generator: np.random.Generator, one: Array) -> NDArray[Any]:
    if one.below is not None:
        return generator.integers(0, one.below, one.shape)
    drawn = generator.standard_normal(one.shape, dtype=np.float32)
    return np.asarray(drawn * np.float32(one.scale), np.float32)


def spread(problem: Problem, real: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """The inputs with the real ones replaced: what a function of the real ones alone calls the whole one with."""
    replaced = dict(zip(problem.real, real, strict=True))
    return [replaced.get(k, one) for k, one in enumerate(inputs)]


def of_real(problem: Problem, function: Callable[..., Any], inputs: Sequence[Any]) -> Callable[..., Any]:
    """`function` of the real inputs alone, integer ones fixed."""
    return lambda *real: function(*spread(problem, real, inputs), **problem.keywords)
