"""The words a user writes layers with: `size`, `index`, `tensor`, `scalar`, `pad`, `MaxOver`, `MinOver`.

Each is a SymPy object that keeps its shape, dtype and range in its arguments, so that it prints, hashes and pickles as
SymPy's own do. SymPy only writes and prints here: its `doit`, `diff` and `subs` over indices are wrong (sympy#21891,
#13994), and jaccomp never calls them. Names are checked when they are declared; everything else when the layer is.
"""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Callable
from typing import Any, ClassVar

import sympy as sp
from sympy.core.symbol import Str
from sympy.multipledispatch import dispatch

from jaccomp import display
from jaccomp.errors import SpecError

RESERVED = frozenset({"out", "wrt", "threads", "of", "form"})
DTYPES = ("real", "int64")
LONGEST_NAME = 100  # names become those of files, which have a longest one, with endings of their own


def check_name(kind: str, name: str) -> str:
    """`name`, if generated code and call signatures can carry it; else a `SpecError` that says why not."""
    what = f"{kind} {name!r}"
    if not name.isidentifier():
        raise SpecError(
            what,
            "the name is not a Python identifier.",
            "Letters, digits and underscores, not starting with a digit, can stand in a call and in generated code.",
        )
    if len(name) > LONGEST_NAME:
        raise SpecError(
            f"{kind} {name[:20]!r}...", f"the name has {len(name)} characters.", f"{LONGEST_NAME} are the most."
        )
    plain = unicodedata.normalize("NFKC", name)
    if plain != name:
        raise SpecError(
            what,
            f"Python reads the name as {plain!r} in a call, so no call could pass it.",
            f"Call it {plain!r}.",
        )
    if keyword.iskeyword(name):
        raise SpecError(
            what, "the name is a Python keyword, so no call could pass it.", f"Call it {name + '_'!r}, say."
        )
    if name in RESERVED:
        raise SpecError(
            what,
            "the name is an argument of every compiled function.",
            f"Reserved: {', '.join(sorted(RESERVED))}, ct_*, t_* and names that start with an underscore.",
        )
    if name.startswith(("ct_", "t_", "_")):
        raise SpecError(
            what,
            "names that start with ct_, t_ or an underscore are jaccomp's: cotangents, tangents and internals.",
            f"Call it {name.lstrip('_').removeprefix('ct_').removeprefix('t_') or 'x'!r}, say.",
        )
    return name


def _declare(kind: str, names: str, make: Callable[[str], Any]) -> Any:
    """One object for one name, a tuple for several, as `sympy.symbols` splits them."""
    if not isinstance(names, str) or not names.strip():
        raise SpecError(
            f"{kind} {names!r}", "that is not a name.", f"Pass a string: jc.{kind}('a', ...), or 'a b' for two."
        )
    return sp.symbols(names, cls=lambda name, **_: make(name))


class Size(sp.Symbol):
    """A symbolic extent, an integer >= 0 bound only when a compiled function is called.

    `axes="any"` stands for any number of leading axes; `typical` is the value used where costs must be compared.
    """

    __slots__ = ("axes", "typical")
    axes: str
    typical: int

    def __new__(cls, name: str, axes: str = "one", typical: int = 64) -> Size:
        obj: Size = sp.Symbol.__xnew__(cls, name, integer=True, nonnegative=True)
        obj.axes = axes
        obj.typical = typical
        return obj

    def _hashable_content(self) -> tuple[Any, ...]:
        return (self.name, self.axes, str(self.typical))

    def __reduce__(self) -> tuple[Any, ...]:
        return Size, (self.name, self.axes, self.typical)

    def __getnewargs_ex__(self) -> tuple[Any, ...]:
        return (self.name, self.axes, self.typical), {}


class Scalar(sp.Symbol):
    """A constant of one call, passed by keyword; `dtype="int64"` ones may stand in extents, ranges and accesses."""

    __slots__ = ("default", "dtype")
    default: float | int | None
    dtype: str

    def __new__(cls, name: str, default: float | int | None = None, dtype: str = "real") -> Scalar:
        facts: dict[str, bool] = {"integer": True} if dtype == "int64" else {"real": True}
        obj: Scalar = sp.Symbol.__xnew__(cls, name, **facts)
        obj.default = default
        obj.dtype = dtype
        return obj

    def _hashable_content(self) -> tuple[Any, ...]:
        return (self.name, repr(self.default), self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return Scalar, (self.name, self.default, self.dtype)

    def __getnewargs_ex__(self) -> tuple[Any, ...]:
        return (self.name, self.default, self.dtype), {}


class Index(sp.Idx):
    """A name that runs over `start..stop-1`; its arguments are (symbol, Tuple(start, stop - 1)).

    An `Idx`, because `sympy.Sum(body, k)` reads the range of no other class; its comparisons stay symbolic.
    """

    def __new__(cls, symbol: sp.Symbol, bounds: sp.Tuple) -> Index:
        obj: Index = sp.Expr.__new__(cls, symbol, bounds)
        return obj

    @property
    def start(self) -> sp.Expr:
        return self.args[1][0]

    @property
    def stop(self) -> sp.Expr:
        return self.args[1][1] + 1

    __lt__ = sp.Expr.__lt__
    __le__ = sp.Expr.__le__
    __gt__ = sp.Expr.__gt__
    __ge__ = sp.Expr.__ge__

    def _latex(self, printer: Any) -> str:
        return str(printer.doprint(self.args[0]))

    def _pretty(self, printer: Any) -> Any:
        return printer._print(self.args[0])


def _undecided(lhs: sp.Expr, rhs: sp.Expr) -> None:
    """SymPy decides comparisons of an Idx by its own range, but a Sum may give it other limits: leave them open."""


_undecided.__name__ = "_eval_is_ge"
for _pair in ((Index, Index), (Index, sp.Number), (sp.Number, Index)):
    dispatch(*_pair)(_undecided)


class Tensor(sp.Expr):
    """A named array; its arguments are (symbol, shape, dtype). Of rank 0 it is written bare, else with indices."""

    is_commutative = True
    __iter__: ClassVar[None] = None
    _repr_mimebundle_ = display.mimebundle

    def __new__(cls, symbol: sp.Symbol, shape: sp.Tuple, dtype: Str) -> Tensor:
        obj: Tensor = sp.Expr.__new__(cls, symbol, shape, dtype)
        return obj

    @property
    def name(self) -> str:
        return str(self.args[0].name)

    @property
    def shape(self) -> tuple[sp.Expr, ...]:
        return tuple(self.args[1])

    @property
    def dtype(self) -> str:
        return str(self.args[2].name)

    def _eval_is_real(self) -> bool:
        return True

    def _eval_is_integer(self) -> bool | None:
        return True if self.dtype == "int64" else None

    def __getitem__(self, where: Any) -> Access:
        indices = where if isinstance(where, tuple) else (where,)
        return Access(self, *(_index_expression(self.name, one) for one in indices))

    def _sympystr(self, printer: Any) -> str:
        return self.name

    def _latex(self, printer: Any) -> str:
        return str(printer.doprint(self.args[0]))

    def _pretty(self, printer: Any) -> Any:
        return printer._print(self.args[0])


def _index_expression(name: str, one: Any) -> sp.Expr:
    """What stands between the brackets of an access, as SymPy's; slices, texts, truths and floats are refused."""
    try:
        expr = None if isinstance(one, bool | slice | str) or one is None else sp.sympify(one, strict=True)
    except sp.SympifyError:
        expr = None
    if not isinstance(expr, sp.Expr):
        raise SpecError(
            f"tensor {name!r}",
            f"{one!r} is not an index expression.",
            "Name an index for each axis: jc.index('i', N).",
        )
    if expr.has(sp.Float):
        raise SpecError(
            f"tensor {name!r}", f"the index {expr} holds a float.", "Index with integers; divide with //, or floor."
        )
    return expr


class Access(sp.Expr):
    """A tensor read at index expressions: (tensor or canonical symbol, index, ...); integer if the tensor is."""

    is_commutative = True
    _repr_mimebundle_ = display.mimebundle

    def __new__(cls, base: sp.Expr, *indices: sp.Expr) -> Access:
        obj: Access = sp.Expr.__new__(cls, base, *indices)
        return obj

    @property
    def base(self) -> Any:
        return self.args[0]

    @property
    def name(self) -> str:
        return str(self.args[0].name)

    @property
    def indices(self) -> tuple[sp.Expr, ...]:
        return tuple(self.args[1:])

    def _eval_is_real(self) -> bool:
        return True

    def _eval_is_integer(self) -> bool | None:
        return True if self.args[0].is_integer else None

    def _sympystr(self, printer: Any) -> str:
        inside = ", ".join(printer.doprint(i) for i in self.indices)
        return f"{self.name}[{inside}]" if inside else self.name

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        base = printer.doprint(sp.Symbol(self.name))
        inside = ",".join(printer.doprint(i) for i in self.indices)
        if not inside:
            return base if exp is None else f"{base}^{{{exp}}}"
        spelled = f"{{{base}}}_{{{inside}}}"
        return spelled if exp is None else f"{spelled}^{{{exp}}}"

    def _pretty(self, printer: Any) -> Any:
        return printer._print(sp.Symbol(self._sympystr(sp.StrPrinter())))


class Pad(sp.Expr):
    """The access, or `value` where the access lies outside its tensor."""

    is_commutative = True

    def __new__(cls, access: sp.Expr, value: sp.Expr) -> Pad:
        obj: Pad = sp.Expr.__new__(cls, access, value)
        return obj

    def _eval_is_extended_real(self) -> bool:
        return True


class Reduction(sp.Expr):
    """`MaxOver(body, k, ...)` and its kin: (body, Tuple(index, ...))."""

    is_commutative = True
    reducer: ClassVar[str] = ""

    def __new__(cls, body: Any, *indices: Any) -> Reduction:
        flat = indices[0] if len(indices) == 1 and isinstance(indices[0], sp.Tuple) else sp.Tuple(*indices)
        obj: Reduction = sp.Expr.__new__(cls, sp.sympify(body, strict=True), flat)
        return obj

    def _eval_is_extended_real(self) -> bool:
        return True

    def _sympystr(self, printer: Any) -> str:
        inside = ", ".join(printer.doprint(i) for i in self.args[1])
        return f"{type(self).__name__}({printer.doprint(self.args[0])}, {inside})"

    def _latex(self, printer: Any) -> str:
        inside = ",".join(printer.doprint(i) for i in self.args[1])
        return rf"\{self.reducer}_{{{inside}}} {printer.parenthesize(self.args[0], 40)}"


class MaxOver(Reduction):
    """The maximum of `body` over indices, beside SymPy's `Sum` and `Product`; SymPy's `Max` compares its arguments."""

    reducer = "max"


class MinOver(Reduction):
    """The minimum of `body` over indices."""

    reducer = "min"


class ArgMaxOver(Reduction):
    """The position (an integer) of the first maximum of `body` over one index."""

    reducer = "argmax"
    is_integer = True


class ArgMinOver(Reduction):
    """The position (an integer) of the first minimum of `body` over one index."""

    reducer = "argmin"
    is_integer = True


def size(names: str, *, axes: str = "one", typical: int = 64) -> Any:
    """Declare sizes: `N, D = jc.size("N D")`. `axes="any"`: any number of leading axes, flattened.

    `typical` is a representative value, used only where costs are compared. Raises `SpecError` for an unusable name.
    """
    if axes not in ("one", "any"):
        raise SpecError(f"size {names!r}", f"axes is {axes!r}.", "It is 'one' (the default) or 'any'.")
    if isinstance(typical, bool) or not isinstance(typical, int) or typical < 1:
        raise SpecError(f"size {names!r}", f"typical is {typical!r}.", "It is a representative extent, an int >= 1.")
    return _declare("size", names, lambda name: Size(check_name("size", name), axes, typical))


def scalar(names: str, *, default: float | int | None = None, dtype: str = "real") -> Any:
    """Declare scalars, constants of a call: `eps = jc.scalar("eps", default=1e-6)`.

    `dtype` is "real" or "int64". A learnable scalar is a tensor of rank 0. Raises `SpecError`.
    """
    dtype = {"float64": "real", "float32": "real"}.get(dtype, dtype)
    if dtype not in DTYPES:
        raise SpecError(f"scalar {names!r}", f"dtype is {dtype!r}.", "It is 'real' or 'int64'.")
    if isinstance(default, bool) or not isinstance(default, int | float | None) or default != default:
        raise SpecError(f"scalar {names!r}", f"the default {default!r} is not a number.", "Pass an int or a float.")
    if dtype == "int64" and default is not None and not isinstance(default, int):
        raise SpecError(f"scalar {names!r}", f"the default {default!r} is not an integer.", "Its dtype is int64.")
    return _declare("scalar", names, lambda name: Scalar(check_name("scalar", name), default, dtype))


def is_integral(expr: sp.Basic) -> bool:
    """Is the expression an integer for all values of what it reads? Floors are, whatever they divide by."""
    if isinstance(expr, sp.floor | sp.ceiling | sp.KroneckerDelta) or getattr(expr, "is_integer", False):
        return True
    if isinstance(expr, sp.Piecewise):
        return all(is_integral(value) for value, _ in expr.args)
    if isinstance(expr, sp.Add | sp.Mul | sp.Mod | sp.Max | sp.Min | sp.Abs):
        return all(is_integral(one) for one in expr.args)
    return False


def _extent(what: str, value: Any) -> sp.Expr:
    """An integer expression, else a `SpecError`."""
    try:
        extent = None if isinstance(value, bool | str) else sp.sympify(value, strict=True)
    except sp.SympifyError:
        extent = None
    if not isinstance(extent, sp.Expr):
        raise SpecError(what, f"{value!r} is not an integer expression.", "Write it in sizes and integers.")
    if isinstance(extent, Scalar) and extent.dtype != "int64":
        raise SpecError(what, f"the scalar {value} is not an integer.", "Declare it with dtype='int64'.")
    if extent.has(sp.Float) or not (is_integral(extent) or extent.is_Symbol):
        raise SpecError(what, f"{value} is not an integer expression.", "Divide with //, or declare an integer scalar.")
    return extent


def index(names: str, *bounds: Any) -> Any:
    """Declare indices: `jc.index("i", N)` runs over 0..N-1, `jc.index("m", lo, hi)` over lo..hi-1.

    The ends are integer expressions in sizes, integer scalars and other indices: `jc.index("m", t + 1)` is causal.
    Raises `SpecError`.
    """
    if len(bounds) not in (1, 2):
        raise SpecError(f"index {names!r}", f"{len(bounds)} bounds were given.", "Write index(name, stop) or "
                        "index(name, start, stop).")  # fmt: skip
    start, stop = (0, bounds[0]) if len(bounds) == 1 else bounds
    what = f"index {names!r}"
    low, high = _extent(what, start), _extent(what, stop)
    return _declare(
        "index", names, lambda name: Index(sp.Symbol(check_name("index", name), integer=True), sp.Tuple(low, high - 1))
    )


def tensor(names: str, *shape: Any, dtype: str = "real") -> Any:
    """Declare tensors: `x, y = jc.tensor("x y", N, D)`; without a shape, of rank 0. `dtype` is "real" or "int64".

    Extents may be expressions, as `2*H`. Raises `SpecError`.
    """
    dtype = {"float64": "real", "float32": "real", "int32": "int64"}.get(dtype, dtype)
    if dtype not in DTYPES:
        raise SpecError(f"tensor {names!r}", f"dtype is {dtype!r}.", "It is 'real' or 'int64'.")
    extents = [_extent(f"tensor {names!r}", one) for one in shape]
    for extent in extents:
        if extent.is_negative:
            raise SpecError(f"tensor {names!r}", f"the extent {extent} is negative.", "An extent is at least 0.")
    facts: dict[str, bool] = {"integer": True} if dtype == "int64" else {"real": True}
    return _declare(
        "tensor",
        names,
        lambda name: Tensor(sp.Symbol(check_name("tensor", name), **facts), sp.Tuple(*extents), Str(dtype)),
    )


def pad(access: Any, value: Any = 0) -> Pad:
    """`access`, or `value` (0, a number, `-oo`) where an index of it lies outside its tensor. Raises `SpecError`."""
    if not isinstance(access, Access):
        raise SpecError("pad", f"{access} is not an access.", "Write jc.pad(x[n, i - 1], value=0).")
    try:
        outside = sp.sympify(value, strict=True)
    except sp.SympifyError:
        outside = None
    if isinstance(value, bool) or not isinstance(outside, sp.Expr):
        raise SpecError("pad", f"the value {value!r} is not a number.", "Write a number, an expression, oo or -oo.")
    return Pad(access, outside)
