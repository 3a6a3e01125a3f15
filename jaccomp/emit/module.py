"""Bundle -> Source: the Cython text of a module, its frame around the kernels, and the one header beside it."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from itertools import product

from jaccomp.build.source import Source
from jaccomp.emit.bundle import ROLES, SUFFIXES, Bundle
from jaccomp.emit.declarations import declarations
from jaccomp.emit.docs import function_docs, literal, module_doc
from jaccomp.emit.expressions import REAL
from jaccomp.emit.signature import signature
from jaccomp.emit.tables import c_string, tables
from jaccomp.emit.templates import render, template_directory
from jaccomp.errors import StageError

HEADER = "jaccomp.h"
_PARTS = (
    "jaccomp_cpu.h",
    "jaccomp.h",
    "jaccomp_lanes.h",
    "jaccomp_windows.h.j2",
    "jaccomp_process.h",
    "jaccomp_product.h",
    "jaccomp_blas.h",
    "jaccomp_sums.h",
    "jaccomp_lines.h.j2",
    "jaccomp_tiles.h.j2",
)
_FRAME = ("state.h", "arguments.h", "sizes.h", "results.h", "calls.h", "module.h")
_WIDTH = 116


def emit_module(bundle: Bundle) -> Source:
    """The module's source: the same bytes for the same bundle. Raises `StageError` where parts do not fit together."""
    if not any(bundle.built(role) for role in ROLES):
        raise StageError(f"module {bundle.name!r}", "it has no kernel.")
    form = signature(bundle)
    view = tables(bundle, form)
    text = render(
        "module.pyx.j2",
        doc=literal(module_doc(bundle, form)),
        macros=view.macros,
        header=HEADER,
        arrays=[replace(one, rows=_lines(one.rows)) for one in view.arrays if one.rows],
        strings=[("jc_name", _in_literal(c_string(form.layer))), ("jc_call_text", _in_literal(c_string(form.call)))],
        expressions=view.expressions,
        prelude=bundle.prelude or declarations("\n".join(bundle.kernels.values()), HEADER),
        kernels=[bundle.kernels[key] for key in product(ROLES, SUFFIXES) if key in bundle.kernels],
        adapters=view.adapters,
        fillings=view.kernels,
        spec_hash=literal(bundle.spec_hash),
        formulas=[
            tuple(map(literal, (*key, one.text, one.latex, one.structure))) for key, one in bundle.formulas.items()
        ],
        docs=[(literal(name), literal(doc)) for name, doc in function_docs(bundle, form).items()],
    )  # fmt: skip
    return Source(bundle.name, text, ((HEADER, header()),))


def header() -> str:
    """The one header of every module: CPU guard, vector mathematics, memory, threads, matrix products; then the frame.

    Kernels include the first part; the frame is included again below them, once its tables are known.
    """
    frame = "\n".join((template_directory() / "frame" / part).read_text(encoding="utf-8") for part in _FRAME)
    return kernel_header() + "\n" + _once("JC_FRAME_INCLUDED", "defined(JC_FRAME) && ", frame)


def kernel_header() -> str:
    """The part of the header that kernels include."""
    parts = [render(part, types=tuple((REAL[d], d) for d in ("f32", "f64"))) for part in _PARTS]
    return _once("JC_HEADER_INCLUDED", "", "\n".join(parts).replace("#pragma once\n", ""))


def _once(guard: str, condition: str, c_text: str) -> str:
    """A part of the header that is read once, when its condition holds."""
    return f"#if {condition}!defined({guard})\n#define {guard}\n{c_text}#endif\n"


def _lines(rows: tuple[str, ...]) -> tuple[str, ...]:
    """The rows of a C array as lines: a structure has its own, numbers and names share one."""
    if rows[0].startswith("{"):
        return tuple(_in_literal(row) + "," for row in rows)
    return tuple(textwrap.wrap(", ".join(map(_in_literal, rows)), _WIDTH - 8, break_long_words=False))


def _in_literal(c_text: str) -> str:
    """C text as it must stand inside a Cython literal, which reads backslashes of its own."""
    return c_text.replace("\\", "\\\\")
