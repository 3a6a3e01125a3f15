"""How arguments become sizes: the semantics of a call, in plain Python and without SymPy.

A `Signature` says what a layer's tensors, sizes and scalars are. Generated modules carry it as C tables, read by
`templates/frame/`; the NumPy backend binds with `jaccomp/arguments.py`. Both refuse the same calls
in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Operation = Literal["add", "mul", "floordiv", "ceildiv", "mod", "max", "min"]
Side = Literal["primal", "cotangent", "tangent"]
SIDES: tuple[Side, ...] = ("primal", "cotangent", "tangent")
_SIGNS: Mapping[str, str] = {"floordiv": "//", "mod": " % "}


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer."""

    value: int


@dataclass(frozen=True, slots=True)
class Name:
    """A size or an integer scalar, by the user's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """An operation on integers; `floordiv` and `mod` are Python's, `ceildiv` rounds up."""

    op: Operation
    args: tuple[Extent, ...]


Extent = Whole | Name | Apply


def value(extent: Extent, values: Mapping[str, int]) -> int:
    """The integer that `extent` is. Raises `ZeroDivisionError`, and `KeyError` for a name without a value."""
    match extent:
        case Whole(whole):
            return whole
        case Name(name):
            return values[name]
        case Apply(op, args):
            first, *rest = (value(one, values) for one in args)
            for other in rest:
                first = _apply(op, first, other)
            return first


def _apply(op: Operation, a: int, b: int) -> int:
    match op:
        case "add":
            return a + b
        case "mul":
            return a * b
        case "floordiv":
            return a // b
        case "ceildiv":
            return -(-a // b)
        case "mod":
            return a % b
        case "max":
            return max(a, b)
        case "min":
            return min(a, b)


def names(extent: Extent) -> tuple[str, ...]:
    """The names that `extent` is made of, each once, in order."""
    match extent:
        case Name(name):
            return (name,)
        case Apply(_, args):
            return tuple(dict.fromkeys(name for one in args for name in names(one)))
        case _:
            return ()


def text(extent: Extent, above: int = 0) -> str:
    """`extent` as Python spells it: `(H + 2*P - K)//S + 1`."""
    match extent:
        case Whole(whole):
            return str(whole) if whole >= 0 or not above else f"({whole})"
        case Name(name):
            return name
        case Apply("ceildiv", (a, b)):
            return f"ceil({text(a, 2)}/{text(b, 3)})"
        case Apply("max" | "min" as op, args):
            return f"{op}({', '.join(text(one) for one in args)})"
        case Apply("add", args):
            spelled = "".join(_signed(one, first=k == 0) for k, one in enumerate(args))
            return f"({spelled})" if above > 1 else spelled
        case Apply("mul", args):
            negative, positive = _negated(extent)
            spelled = "-" + text(positive, 2) if negative else "*".join(text(one, 3) for one in args)
            return f"({spelled})" if above > 2 else spelled
        case Apply(op, (a, b)):
            spelled = f"{text(a, 2)}{_SIGNS[op]}{text(b, 3)}"
            return f"({spelled})" if above > 2 else spelled
        case _:
            raise ValueError(f"{extent!r} is not an extent")


def _signed(one: Extent, first: bool) -> str:
    negative, positive = _negated(one)
    if negative:
        return ("-" if first else " - ") + text(positive, 2)
    return text(one, 1) if first else " + " + text(one, 1)


def _negated(one: Extent) -> tuple[bool, Extent]:
    """Whether `one` bears a minus, and what it is without."""
    match one:
        case Whole(whole) if whole < 0:
            return True, Whole(-whole)
        case Apply("mul", (Whole(-1), rest)):
            return True, rest
        case Apply("mul", (Whole(-1), *rest)):
            return True, Apply("mul", tuple(rest))
        case Apply("mul", (Whole(whole), *rest)) if whole < 0:
            return True, Apply("mul", (Whole(-whole), *rest))
        case _:
            return False, one


@dataclass(frozen=True, slots=True)
class Solution:
    """`extent = factor * size + rest`: how an axis of that extent determines `size`."""

    extent: Extent
    size: str
    factor: Extent
    rest: Extent


@dataclass(frozen=True, slots=True)
class TensorForm:
    """An array of the layer: its name, its extents, and the axis that stands for any number of axes, if one does."""

    name: str
    shape: tuple[Extent, ...]
    integer: bool = False
    any_axis: int | None = None

    def spelled(self) -> str:
        """`(N, 2*H)`."""
        inside = ", ".join(text(one) + ("..." if d == self.any_axis else "") for d, one in enumerate(self.shape))
        return f"({inside},)" if len(self.shape) == 1 else f"({inside})"


@dataclass(frozen=True, slots=True)
class ScalarForm:
    """A constant of a call; `default` is None where a call must pass it."""

    name: str
    integer: bool = False
    default: float | int | None = None


@dataclass(frozen=True, slots=True)
class SlotForm:
    """An argument of a kernel: whose primal, cotangent or tangent it is; of a result, the inputs that it needs."""

    side: Side
    name: str
    reads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CornerForm:
    """`text` reads `low` to `high` of `axis`, which has `extent`, unless one of `ranges` is empty."""

    text: str
    axis: int
    low: Extent
    high: Extent
    extent: Extent
    ranges: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class ScanForm:
    """Each element of the integer array `name`, plus `low` to `high`, must lie in the axis that `text` reads."""

    text: str
    side: Side
    name: str
    axis: int
    low: Extent
    high: Extent
    extent: Extent
    computed: bool


@dataclass(frozen=True, slots=True)
class ProgramForm:
    """A kernel as a call sees it: arguments, results, the scalars it must have, what is checked before it runs."""

    inputs: tuple[SlotForm, ...]
    outputs: tuple[SlotForm, ...]
    scalars: tuple[str, ...]
    corners: tuple[CornerForm, ...]
    scans: tuple[ScanForm, ...]
    extents: tuple[tuple[Extent, str], ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a call of a layer takes and gives, by the user's names.

    `residuals` are the arrays that the forward function keeps beside inputs and outputs; `kept` names all that the
    backward one reads, in order; `solutions` are what shapes can determine beside bare sizes; `required` the sizes that
    no input does. `programs` goes by role: forward, fwd, bwd, jvp.
    """

    layer: str
    inputs: tuple[TensorForm, ...]
    outputs: tuple[TensorForm, ...]
    residuals: tuple[TensorForm, ...]
    kept: tuple[str, ...]
    scalars: tuple[ScalarForm, ...]
    sizes: tuple[str, ...]
    any_sizes: tuple[str, ...]
    solutions: tuple[Solution, ...]
    required: tuple[str, ...]
    programs: Mapping[str, ProgramForm] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[TensorForm, ...]:
        return (*self.inputs, *self.outputs, *self.residuals)

    @property
    def call(self) -> str:
        """`rmsnorm(x, g)`: what messages begin with."""
        return f"{self.layer}({', '.join(one.name for one in self.inputs)})"
