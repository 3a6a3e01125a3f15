"""`check`: a layer's kernel against references that do not share its derivation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaccomp.layer import Layer
    from jaccomp.reference.report import Report


def check(layer: Layer | str, against: Layer | None = None, *, backend: str = "cython", seed: int = 0) -> Report:
    """The ladder of references, climbed with the layer's own kernel; `bool(report)` is `report.passed`.

    With `against`, the truth is another layer's equations: `jc.check(fast, against=reference)`.
    """
    from jaccomp import layers
    from jaccomp.compiling import compile
    from jaccomp.reference.ladder import check as climb

    written = layers.get(layer) if isinstance(layer, str) else layer
    kernel = compile(layer, backend=backend)
    return climb(written.spec, kernel, against=None if against is None else against.spec, seed=seed)
