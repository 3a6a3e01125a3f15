"""Every error that jaccomp raises on purpose: what was being processed, the facts, the cause, the remedy."""

from __future__ import annotations


class JaccompError(Exception):
    """The base of them all. `str(error)` is `what: facts`, then the remedy on a line of its own."""

    def __init__(self, what: str, facts: str, remedy: str = "") -> None:
        self.what = what
        self.facts = facts
        self.remedy = remedy
        super().__init__(f"{what}: {facts}" + (f"\n  {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[type[JaccompError], tuple[str, str, str]]:
        return type(self), (self.what, self.facts, self.remedy)


class SpecError(JaccompError, ValueError):
    """A layer that cannot be what its author meant; names the layer, the equation and the index."""


class DerivativeError(JaccompError, ValueError):
    """A derivative that is not known: an unknown function, or an integer tensor where a real one is needed."""


class StageError(JaccompError, RuntimeError):
    """A stage left something untrue behind it: a defect of jaccomp, never of the user's layer."""


class BuildError(JaccompError, RuntimeError):
    """The compiler, its headers or the cache did not do what the build needs."""


class UsageError(JaccompError, ValueError):
    """An argument of the public interface or of the command line that cannot be served."""
