"""Bundle -> Source: the Cython text of a module, its frame around the kernels, and the one header beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import jinja2

from jaccomp.build.source import Source
from jaccomp.emit.bundle import ROLES, SUFFIXES, Bundle
from jaccomp.emit.docs import function_docs, literal, module_doc
from jaccomp.emit.signature import signature
from jaccomp.emit.tables import c_string, tables
from jaccomp.errors import StageError

HEADER = "jaccomp.h"
_PARTS = ("jaccomp_cpu.h", "jaccomp.h", "jaccomp_frame.h")


def emit_module(bundle: Bundle) -> Source:
    """The module's source: the same bytes for the same bundle. Raises `StageError` where its parts do not fit together."""
    if not any(bundle.built(role) for role in ROLES):
        raise StageError(f"module {bundle.name!r}", "it has no kernel.")
    form = signature(bundle)
    view = tables(bundle, form)
    text = _environment().get_template("module.pyx.j2").render(
        doc=literal(module_doc(bundle, form)),
        macros=view.macros,
        header=HEADER,
        arrays=[replace(one, rows=tuple(map(_in_literal, one.rows))) for one in view.arrays],
        strings=[("jc_name", _in_literal(c_string(form.layer))), ("jc_call_text", _in_literal(c_string(form.call)))],
        expressions=view.expressions,
        prelude=bundle.prelude,
        kernels=[bundle.kernels[role, suffix] for role in ROLES for suffix in SUFFIXES if (role, suffix) in bundle.kernels],
        adapters=view.adapters,
        fillings=view.kernels,
        spec_hash=literal(bundle.spec_hash),
        formulas=[
            tuple(literal(part) for part in (*key, one.text, one.latex, one.structure)) for key, one in bundle.formulas.items()
        ],
        docs=[(literal(name), literal(doc)) for name, doc in function_docs(bundle, form).items()],
    )  # fmt: skip
    return Source(bundle.name, text, ((HEADER, header()),))


def header() -> str:
    """The one header of every module: the CPU guard, the vector mathematics, the frame."""
    folder = _templates()
    return "\n".join(Path(folder, part).read_text(encoding="utf-8") for part in _PARTS if Path(folder, part).exists())


def _in_literal(c_text: str) -> str:
    """C text as it must stand inside a Cython literal, which reads backslashes of its own."""
    return c_text.replace("\\", "\\\\")


def _templates() -> Path:
    """The templates, beside the package in a checkout and inside it once installed."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
