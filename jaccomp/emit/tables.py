"""Signature and programs -> the C tables that `templates/frame/` reads.

A code stands for an integer: a size, an integer scalar, or an expression, numbered in the order of first need.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from jaccomp.binding import SIDES, Apply, CornerForm, Extent, Name, ScanForm, Signature, Whole, names, text
from jaccomp.emit.bundle import ROLES, SUFFIXES, Bundle, Role
from jaccomp.errors import StageError
from jaccomp.program import Program

_MOST = 64  # sizes, scalars, slots of a kernel and tensors are members of 64-bit masks
_OPTIONS = ("out", "threads", "wrt", "of", "form")
_INFIX = {"add": " + ", "mul": " * "}
_CALLS = {"mod": "jc_wide_mod", "floordiv": "jc_wide_div", "max": "jc_wide_max", "min": "jc_wide_min"}


@dataclass(frozen=True, slots=True)
class Table:
    """A constant C array: its declaration up to `=`, and its rows, spelled."""

    declaration: str
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Adapter:
    """The uniform face of one kernel: the arguments it passes on, spelled over `a`, `v`, `c` and `threads`."""

    role: Role
    suffix: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """What of the frame depends on the layer: macros, arrays, expressions, and which kernel fills which place."""

    macros: tuple[tuple[str, str], ...]
    arrays: tuple[Table, ...]
    expressions: tuple[tuple[str, str], ...]
    adapters: tuple[Adapter, ...]
    kernels: tuple[tuple[int, int, Adapter], ...]


def c_string(value: str) -> str:
    """`value` as a C string literal in ASCII, with what is not printable in octal."""
    out = []
    for byte in value.encode():
        char = chr(byte)
        plain = 32 <= byte < 127 and char not in '"\\?'
        out.append(char if plain else f"\\{byte:03o}")
    return f'"{"".join(out)}"'


def c_expression(one: Extent, places: dict[str, int]) -> str:
    """An extent as a C expression of type `jc_wide` over `v`."""
    match one:
        case Whole(value):
            return f"(jc_wide){value}LL" if abs(value) < 2**62 else _too_large(value)
        case Name(name):
            return f"(jc_wide)v[{places[name]}]"
        case Apply("ceildiv", (a, b)):
            return f"-jc_wide_div(-({c_expression(a, places)}), {c_expression(b, places)}, bad)"
        case Apply("floordiv" | "mod" as op, (a, b)):
            return f"{_CALLS[op]}({c_expression(a, places)}, {c_expression(b, places)}, bad)"
        case Apply("add" | "mul" as op, args):
            return f"({_INFIX[op].join(c_expression(arg, places) for arg in args)})"
        case Apply(op, (first, *rest)):
            spelled = c_expression(first, places)
            for other in rest:
                spelled = f"{_CALLS[op]}({spelled}, {c_expression(other, places)})"
            return spelled
        case _:
            raise ValueError(f"{one!r} is not an extent")


def _too_large(value: int) -> str:
    raise StageError("emit", f"the extent {value} does not fit an index.")


@dataclass(slots=True)
class _Codes:
    """Numbers for integers: sizes, integer scalars, then expressions as they are met."""

    signature: Signature
    places: dict[str, int] = field(default_factory=dict)
    expressions: dict[Extent, str | None] = field(default_factory=dict)
    flat: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        whole = [one.name for one in self.signature.scalars if one.integer]
        self.places = {name: place for place, name in enumerate((*self.signature.sizes, *whole))}

    def code(self, one: Extent, where: str | None = None) -> int:
        if isinstance(one, Name):
            return self.places[one.name]
        if self.expressions.get(one) is None:
            self.expressions[one] = where
        return len(self.places) + list(self.expressions).index(one)

    def run(self, codes: Iterable[int]) -> int:
        """Where a run of codes starts."""
        start = len(self.flat)
        self.flat.extend(codes)
        return start

    def needs(self, one: Extent) -> int:
        return _mask(self.signature.sizes.index(name) for name in names(one) if name in self.signature.sizes)


def _mask(members: Iterable[int]) -> int:
    result = 0
    for member in members:
        result |= 1 << member
    return result


def tables(bundle: Bundle, signature: Signature) -> Tables:
    """The tables of a module. Raises `StageError` where a layer has more sizes or arrays than a mask has members."""
    codes = _Codes(signature)
    tensors = [one.name for one in signature.tensors]
    _check_limits(bundle, signature)
    tensor_rows = []
    for one in signature.tensors:
        at = codes.run(codes.code(e, f"{one.name}, axis {d}") for d, e in enumerate(one.shape))
        any_axis = -1 if one.any_axis is None else one.any_axis
        spelled = (c_string(one.name), c_string(one.spelled()), len(one.shape), at, any_axis, int(one.integer))
        tensor_rows.append(_row(*spelled))
    for one_program in signature.programs.values():
        for plain, where in one_program.extents:
            codes.code(plain, where)
    solution_rows = [
        _row(codes.code(s.extent), signature.sizes.index(s.size), codes.code(s.factor), codes.code(s.rest))
        for s in signature.solutions
    ]
    slots: list[str] = []
    corner_rows: list[str] = []
    scan_rows: list[str] = []
    program_rows: list[str] = []
    adapters: dict[tuple[Role, str], Adapter] = {}
    kernels: list[tuple[int, int, Adapter]] = []
    for place, role in enumerate(ROLES):
        serving = bundle.serving(role)
        program = bundle.programs.get(serving) if serving else None
        if serving is None or program is None:
            program_rows.append(_row(*[0] * 9, "{NULL, NULL}"))
            continue
        first, first_corner, first_scan = len(slots), len(corner_rows), len(scan_rows)
        form = signature.programs[role]
        slots += [
            _row(SIDES.index(one.side), tensors.index(one.name), hex(_mask(one.reads)) + "ull")
            for one in form.inputs + form.outputs
        ]
        corner_rows += [_corner(one, codes) for one in form.corners]
        scan_rows += [_scan(one, codes, tensors) for one in form.scans]
        program_rows.append(
            _row(
                len(program.inputs),
                len(program.outputs),
                first,
                first_corner,
                len(corner_rows) - first_corner,
                first_scan,
                len(scan_rows) - first_scan,
                int(any(bundle.needs_blas(serving, suffix) for suffix in SUFFIXES)),
                hex(_mask(k for k, one in enumerate(signature.scalars) if one.name in form.scalars)) + "ull",
                "{NULL, NULL}",
            )
        )
        for which, suffix in enumerate(SUFFIXES):
            if (serving, suffix) in bundle.kernels:
                adapter = adapters.setdefault((serving, suffix), _adapter(bundle, serving, suffix, program))
                kernels.append((place, which, adapter))
    expressions = tuple(codes.expressions)
    expression_rows = [
        _row(c_string(text(e)), c_string(where) if where else "NULL", f"{hex(codes.needs(e))}ull")
        for e, where in codes.expressions.items()
    ]
    free = [signature.any_sizes.index(s) if s in signature.any_sizes else -1 for s in signature.sizes]
    kept = [tensors.index(name) for name in signature.kept]
    inplace = [_row(*(tensors.index(bundle.label(name)) for name in pair)) for pair in bundle.inplace]
    if len(set(tensors)) < len(tensors):
        raise StageError(f"module {bundle.name!r}", "two of its arrays go by the same name.")
    keys = [*(t.name for t in signature.inputs), *(s.name for s in signature.scalars), *signature.sizes, *_OPTIONS]
    if len(set(keys)) < len(keys):
        raise StageError(f"module {bundle.name!r}", "an input, a scalar and a size go by the same name.")
    arrays = (
        Table("const char *const jc_key_names[JC_KEYS]", tuple(map(c_string, keys))),
        Table("const jc_tensor jc_tensors[JC_TENSORS + 1]", tuple(tensor_rows)),
        Table("const jc_scalar jc_scalars[JC_SCALARS + 1]", _scalar_rows(signature)),
        Table("const char *const jc_size_names[JC_SIZES + 1]", tuple(map(c_string, signature.sizes))),
        Table("const int jc_any_of[JC_SIZES + 1]", tuple(map(str, free))),
        Table("const jc_expression jc_expressions[JC_EXPRESSIONS + 1]", tuple(expression_rows)),
        Table("const jc_solution jc_solutions[JC_SOLUTIONS + 1]", tuple(solution_rows)),
        Table("const int jc_codes[JC_CODES + 1]", tuple(map(str, codes.flat))),
        Table("const jc_slot jc_slots[JC_SLOTS + 1]", tuple(slots)),
        Table("const jc_corner jc_corners[JC_CORNERS + 1]", tuple(corner_rows)),
        Table("const jc_scan jc_scans[JC_SCANS + 1]", tuple(scan_rows)),
        Table("const int jc_kept[JC_KEPT + 1]", tuple(map(str, kept))),
        Table("const int jc_inplace[JC_INPLACE + 1][2]", tuple(inplace)),
        Table("jc_program jc_programs[JC_PROGRAMS]", tuple(program_rows)),
    )
    counts = {
        "JC_SIZES": len(signature.sizes),
        "JC_ANYS": len(signature.any_sizes),
        "JC_SCALARS": len(signature.scalars),
        "JC_INTEGERS": sum(one.integer for one in signature.scalars),
        "JC_INPUTS": len(signature.inputs),
        "JC_OUTPUTS": len(signature.outputs),
        "JC_TENSORS": len(signature.tensors),
        "JC_KEPT": len(kept),
        "JC_EXPRESSIONS": len(expressions),
        "JC_SOLUTIONS": len(solution_rows),
        "JC_CODES": len(codes.flat),
        "JC_SLOTS": len(slots),
        "JC_CORNERS": len(corner_rows),
        "JC_SCANS": len(scan_rows),
        "JC_INPLACE": len(inplace),
        "JC_EXTENT_SCALARS": f"{hex(_mask(k for k, s in enumerate(signature.scalars) if s.integer))}ull",
    }
    macros = (
        ("JC_FRAME", "1"),
        *((("JC_BLAS", "1"),) if any(bundle.needs_blas(*key) for key in bundle.kernels) else ()),
        *((k, str(v)) for k, v in counts.items()),
    )
    spelled_expressions = tuple((text(e), c_expression(e, codes.places)) for e in expressions)
    return Tables(macros, arrays, spelled_expressions, tuple(adapters.values()), tuple(kernels))


def _row(*parts: object) -> str:
    return "{" + ", ".join(map(str, parts)) + "}"


def _check_limits(bundle: Bundle, signature: Signature) -> None:
    counts = {
        "sizes": len(signature.sizes),
        "scalars": len(signature.scalars),
        "arrays": len(signature.tensors),
        **{f"inputs of {role}": len(p.inputs) for role, p in bundle.programs.items()},
        **{f"outputs of {role}": len(p.outputs) for role, p in bundle.programs.items()},
    }
    for what, count in counts.items():
        if count >= _MOST:
            raise StageError(f"module {bundle.name!r}", f"{count} {what}, but a module holds at most {_MOST - 1}.")


def _scalar_rows(signature: Signature) -> tuple[str, ...]:
    rows, whole, real = [], 0, 0
    for one in signature.scalars:
        at = whole if one.integer else real
        whole, real = whole + one.integer, real + (not one.integer)
        default = 0 if one.default is None else one.default
        number = (f"{int(default)}LL", "0") if one.integer else ("0", _c_double(float(default)))
        rows.append(_row(c_string(one.name), int(one.integer), at, int(one.default is not None), *number))
    return tuple(rows)


def _c_double(value: float) -> str:
    if value != value:
        return "NAN"
    return {float("inf"): "INFINITY", float("-inf"): "-INFINITY"}.get(value, value.hex())


def _corner(one: CornerForm, codes: _Codes) -> str:
    guards = [codes.code(e) for e in one.ranges]
    low, high, size = (codes.code(e) for e in (one.low, one.high, one.extent))
    return _row(c_string(one.text), one.axis, low, high, size, codes.run(guards), len(guards))


def _scan(one: ScanForm, codes: _Codes, tensors: Sequence[str]) -> str:
    low, high, size = (codes.code(e) for e in (one.low, one.high, one.extent))
    return _row(
        c_string(one.text), SIDES.index(one.side), tensors.index(one.name), one.axis, low, high, size, int(one.computed)
    )


def _adapter(bundle: Bundle, role: Role, suffix: str, program: Program) -> Adapter:
    real = "float" if suffix == "f32" else "double"
    kind = {True: "int64_t", False: real}
    arguments = []
    for place, name in enumerate((*program.inputs, *program.outputs)):
        const = "const " if place < len(program.inputs) else ""
        arguments.append(f"<{const}{kind[program.tensor(name).dtype == 'int64']} *>a[{place}]")
    sizes = [s.name for s in bundle.base.sizes]
    arguments += [f"v[{sizes.index(s.name)}]" for s in program.sizes]
    whole = [s.name for s in bundle.base.scalars if s.dtype == "int64"]
    plain = [s.name for s in bundle.base.scalars if s.dtype != "int64"]
    for one in program.scalars:
        if one.dtype == "int64":
            arguments.append(f"v[{len(sizes) + whole.index(one.name)}]")
        else:
            arguments.append(f"<{real}>c[{plain.index(one.name)}]")
    return Adapter(role, suffix, (*arguments, "threads"))
