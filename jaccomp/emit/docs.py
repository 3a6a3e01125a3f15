"""Bundle and signature -> the docstrings of a module and of its functions, which start with the call's signature."""

from __future__ import annotations

import re

from jaccomp.binding import Signature, TensorForm
from jaccomp.emit.bundle import SUFFIXES, Bundle

_DTYPES = {"f32": "float32", "f64": "float64"}
_RAISES = """\
Raises:
    TypeError: a dtype that does not serve, or float dtypes that differ; a missing scalar or size.
    ValueError: shapes that do not fit together, or an out that does not fit its result.
    IndexError: an id, or an index, outside its axis.
"""


def literal(value: str) -> str:
    """`value` as a triple-quoted literal: printable characters as they are, all others escaped."""
    out = []
    for char in value:
        if char == "\n":
            out.append(char)
        elif char == "\\":
            out.append("\\\\")
        elif char.isprintable():
            out.append(char)
        else:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}")
    return '"""' + re.sub(r'"(?="|$)', r"\"", "".join(out)) + '"""'


def module_doc(bundle: Bundle, signature: Signature) -> str:
    """What `help(module)` says first: the layer, its equations, its Jacobian."""
    parts = (_title(bundle, signature), _equations(bundle), _jacobian(bundle))
    return _encodable("\n\n".join(part for part in parts if part) + "\n")


def function_docs(bundle: Bundle, signature: Signature) -> dict[str, str]:
    """The docstring of each function that the module has, by name."""
    scalars = [one.name + ("" if one.default is None else f"={one.default!r}") for one in signature.scalars]
    sizes = list(signature.required)
    inputs = [one.name for one in signature.inputs]
    docs: dict[str, str] = {}

    def add(name: str, first: list[str], keywords: list[str], body: list[str]) -> None:
        spelled = ", ".join([*first, *(["*", *keywords] if keywords else [])])
        docs[name] = _encodable(f"{name}({spelled})\n--\n\n" + "\n\n".join(part for part in body if part) + "\n")

    title, equations, jacobian = _title(bundle, signature), _equations(bundle), _jacobian(bundle)
    constants = [*scalars, *sizes]
    arguments = _arguments(bundle, signature)
    results = "Returns " + _results(signature) + "."
    if bundle.serving("forward"):
        add(
            "forward", inputs, [*constants, "out=None", "threads=None"], [title, equations, arguments, results, _RAISES]
        )
    if bundle.serving("fwd") and bundle.built("bwd"):
        pulled = "pullback(dy, wrt=None) gives " + _cotangents(signature) + "."
        add(
            "vjp",
            inputs,
            [*constants, "wrt=None", "out=None", "threads=None"],
            [
                f"The outputs of {signature.layer}, and the function that pulls cotangents back through it.",
                jacobian,
                arguments,
                f"Returns (outputs, pullback). {pulled}",
                "A pullback may be called many times and from many threads; it needs its inputs unmodified.",
                _RAISES,
            ],
        )
        kept = ", ".join(signature.kept) or "nothing"
        add(
            "fwd",
            inputs,
            [*constants, "wrt=None", "out=None", "threads=None"],
            [
                f"The outputs of {signature.layer}, and what bwd needs: the named tuple Residuals of {kept}.",
                arguments,
                "Returns (outputs, residuals).",
                _RAISES,
            ],
        )
        add(
            "bwd",
            ["res", "dy", "/", "wrt=None"],
            [
                *(f"{one.name}=None" for one in signature.scalars),
                *(f"{s}=None" for s in sizes),
                "out=None",
                "threads=None",
            ],
            [
                f"The cotangents of the inputs of {signature.layer}.",
                jacobian,
                "res is what fwd returned. Of a plain tuple of the same arrays, the scalars that the backward function "
                "reads and the sizes\nthat no array determines are required keywords.",
                f"Returns {_cotangents(signature)}.",
                _RAISES,
            ],
        )
    if bundle.built("jvp"):
        add(
            "jvp",
            ["primals", "tangents", "/"],
            [*constants, "threads=None"],
            [
                f"The outputs of {signature.layer} and their tangents, J t.",
                jacobian,
                f"primals and tangents are tuples for ({', '.join(inputs)}{',' if len(inputs) == 1 else ''}); "
                "None as a tangent means zero.",
                arguments,
                "Returns (outputs, tangents of the outputs).",
                _RAISES,
            ],
        )
    if (bundle.serving("fwd") and bundle.built("bwd")) or bundle.built("jvp"):
        add(
            "jacobian",
            inputs,
            [*constants, "of=None", "wrt=None", "form='dense'", "threads=None"],
            [
                "The dense Jacobian of one output with respect to one real input: axes of `of`, then of `wrt`.",
                jacobian,
                arguments,
                "Refused above 1 GiB.",
                _RAISES,
            ],
        )
    whole = [
        one.name + ("" if one.default is None else f"={one.default!r}") for one in signature.scalars if one.integer
    ]
    add(
        "shapes",
        [f"{name}=None" for name in inputs],
        [*whole, *sizes],
        [
            f"The shapes of the outputs and residuals of {signature.layer}, from those of its inputs.",
            "Returns a dictionary from names to tuples.",
        ],
    )
    add(
        "release_memory",
        [],
        [],
        [
            "Give the idle memory of this process's modules back to the system; the number of bytes.",
            "Arrays of 32 KiB and more are made of blocks that serve the next results once an array is dropped. At\n"
            "most JACCOMP_IDLE_BYTES of them lie idle: by default 1 GiB, or an eighth of the machine's memory if that\n"
            "is less.",
        ],
    )
    return docs


def _encodable(doc: str) -> str:
    """A text that C can hold: a function's docstring ends at a NUL, and is UTF-8."""
    return "".join("\N{REPLACEMENT CHARACTER}" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in doc)


def _title(bundle: Bundle, signature: Signature) -> str:
    return f"{signature.layer}: {bundle.doc}" if bundle.doc else signature.layer


def _indented(lines: list[str]) -> str:
    return "\n".join("    " + line for line in lines)


def _equations(bundle: Bundle) -> str:
    return _indented([line for one in bundle.equations for line in one.split("\n")])


def _jacobian(bundle: Bundle) -> str:
    if not bundle.formulas:
        return ""
    lines = [f.text + (f"    ({f.structure})" if f.structure else "") for f in bundle.formulas.values()]
    return "Jacobian:\n" + _indented([line for one in lines for line in one.split("\n")])


def _reals(bundle: Bundle) -> str:
    built = [_DTYPES[s] for s in SUFFIXES if any((role, s) in bundle.kernels for role in bundle.programs)]
    return " or ".join(built)


def _arguments(bundle: Bundle, signature: Signature) -> str:
    lines = [
        f"{one.name}: {_shape(one)}, {'int64 or int32' if one.integer else _reals(bundle)}" for one in signature.inputs
    ]
    for scalar in signature.scalars:
        default = "" if scalar.default is None else f", {scalar.default!r} by default"
        lines.append(f"{scalar.name}: {'an int' if scalar.integer else 'a real number'}{default}")
    lines += [f"{name}: an int, the size {name}" for name in signature.required]
    return "Args:\n" + _indented(lines)


def _shape(one: TensorForm) -> str:
    return one.spelled() if one.shape else "a number or an array of rank 0"


def _results(signature: Signature) -> str:
    each = [f"{one.name} {one.spelled()}" + (", int64" if one.integer else "") for one in signature.outputs]
    return each[0] if len(each) == 1 else "the named tuple Outputs of " + ", ".join(each)


def _cotangents(signature: Signature) -> str:
    each = ["None" if one.integer else f"ct_{one.name} {one.spelled()}" for one in signature.inputs]
    return "a tuple: " + ", ".join(each)
