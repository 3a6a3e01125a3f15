"""Layer: a spec with its verbs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jaccomp.normalise import normalise
from jaccomp.program import Program
from jaccomp.spec import Spec, make_spec


class Layer:
    """A layer written as equations. Raises `SpecError` when it cannot be what its author meant."""

    def __init__(
        self,
        name: str,
        *,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        equations: Sequence[Any],
        scalars: Sequence[Any] = (),
        doc: str = "",
    ) -> None:
        self.spec: Spec = make_spec(name, inputs, outputs, equations, scalars, doc)

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def program(self) -> Program:
        """The layer in normal form."""
        return normalise(self.spec)
