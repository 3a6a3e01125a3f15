"""Card: all that is known of one layer and of what was derived from it, as plain data to be rendered or compared.

`layer.card()` gathers it; `card.as_("markdown")` renders it. Every field is text, a number, or a tuple of such records,
and all of it follows from the layer alone, but for `checks`, which tells of one run on one machine and is there when
asked for. A formula is a `Line`: as a person types it and as LaTeX, both complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from jaccomp import display
from jaccomp.calculus.scalar import Convention
from jaccomp.errors import UsageError
from jaccomp.matrix.form import Layout

FORMATS: Mapping[str, str] = {
    "text": "jaccomp.cards.text",
    "markdown": "jaccomp.cards.markdown",
    "latex": "jaccomp.cards.latex",
    "html": "jaccomp.cards.html",
    "json": "jaccomp.cards.json",
}
"""A card's formats, each with the module whose `render(card)` writes it."""

Role = Literal["input", "scalar", "output"]
Limit = Literal["not differentiable", "undefined", "overflow", "stabilised"]


@dataclass(frozen=True, slots=True)
class Line:
    """A formula: `text` in Unicode on one line, `latex` for mathematics mode, without dollar signs."""

    text: str
    latex: str


@dataclass(frozen=True, slots=True)
class Argument:
    """What a call takes or gives: `shape` is text such as `[N, D]`, empty at rank 0; `default` empty where none is."""

    name: str
    role: Role
    dtype: str
    shape: str
    latex: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class BlockCard:
    """One block ∂of/∂wrt in index form and, where its structure allows, as a matrix in the layout that is stated.

    `structure` is in words; `rank`, `storage` (numbers), `work` (multiply-adds of a product with a vector) and `norm`
    (the spectral one) are texts in the sizes, empty where nothing is stated.
    """

    of: str
    wrt: str
    line: Line
    matrix: Line | None
    layout: Layout
    structure: str
    rank: str = ""
    storage: str = ""
    work: str = ""
    norm: str = ""


@dataclass(frozen=True, slots=True)
class RuleFired:
    """A rule of the simplifier's table that changed the derivation: its law, and the equations before and after."""

    name: str
    law: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Residual:
    """An array that the backward function reads beside cotangents: `kept` by the forward one, or computed again."""

    name: str
    shape: str
    kept: bool
    why: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What one function does, in the sizes: arithmetic operations, and bytes of its arguments and results."""

    function: Literal["forward", "vjp", "jvp"]
    flops: Line
    bytes: Line


@dataclass(frozen=True, slots=True)
class Note:
    """A limit of the layer's domain: `what` kind of limit, `where` it lies, and `why`, with the equation it is in."""

    what: Limit
    where: Line
    why: str


@dataclass(frozen=True, slots=True)
class SourcePart:
    """The generated code of one loop nest, the function it is part of, and the equations that it computes."""

    function: str
    equations: tuple[str, ...]
    code: str


@dataclass(frozen=True, slots=True)
class CheckRow:
    """The worst case of one rung: `error` is |error| / Σ|terms|, `tolerance` what it may reach."""

    dtype: str
    what: str
    reference: str
    sizes: str
    error: float
    tolerance: float
    passed: bool


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """One run of the ladder of references: when (UTC), with what, over how many cases; `worst` is error / tolerance."""

    date: str
    versions: tuple[tuple[str, str], ...]
    cases: int
    worst: float
    passed: bool
    rows: tuple[CheckRow, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """A layer's derivation card. `family` is empty for a layer that is not of the library."""

    name: str
    family: str
    doc: str
    signature: str
    version: str
    spec_hash: str
    arguments: tuple[Argument, ...]
    equations: tuple[Line, ...]
    intermediates: tuple[Line, ...]
    local: tuple[Line, ...]
    chain: tuple[Line, ...]
    blocks: tuple[BlockCard, ...]
    rules: tuple[RuleFired, ...]
    vjp: tuple[Line, ...]
    jvp: tuple[Line, ...]
    residuals: tuple[Residual, ...]
    costs: tuple[Cost, ...]
    conventions: tuple[Convention, ...]
    domain: tuple[Note, ...]
    source: tuple[SourcePart, ...]
    checks: CheckRecord | None = None

    def as_(self, format: str) -> str:
        """The whole card in one of `FORMATS`. Raises `UsageError` for another."""
        if format not in FORMATS:
            what, known = f"card of {self.name!r} as {format!r}", ", ".join(FORMATS)
            raise UsageError(what, "there is no such format.", f"Choose from {known}.")
        text: str = import_module(FORMATS[format]).render(self)
        return text

    def __str__(self) -> str:
        return self.as_("text")

    _repr_mimebundle_ = display.mimebundle
