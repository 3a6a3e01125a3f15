"""The loops of a kernel as Cython functions.

For each nest a row function and a block function; for the kernel one function with the ABI that the module's frame
calls, which runs the blocks of each nest in parallel and combines partial sums in block order. Input: a kernel of the
loop IR. Output: Cython text.
"""

from __future__ import annotations

from jaccomp.emit.expressions import REAL, DType
from jaccomp.emit.nest import Nest
from jaccomp.emit.scope import Scope
from jaccomp.emit.templates import render
from jaccomp.lowering.ir import LEAVES, Buffer, Kernel, walk
from jaccomp.lowering.storage import node_accesses


def emit_kernel(kernel: Kernel, name: str, dtype: DType) -> str:
    """The cdef functions of a kernel in one dtype; `{name}_{dtype}` is the entry of the ABI."""
    scope = Scope(kernel, name, dtype)
    program = kernel.program
    functions = [Nest(scope, f).made() for f in kernel.functions]
    parameters = [f"{scope.pointer(n)} {scope.buffer_name(n)}" for n in (*program.inputs, *program.outputs)]
    parameters += [f"Py_ssize_t {scope.symbols[s]}" for s in program.sizes]
    for scalar in program.scalars:
        kind = "Py_ssize_t" if scalar.dtype == "int64" else REAL[dtype]
        parameters.append(f"{kind} {scope.symbols[scalar.symbol]}")
    declarations = [f"cdef Py_ssize_t {quotient} = {text}" for quotient, text in scope.quotients.items()]
    declarations += [f"cdef bint {scope.wants[o]} = {scope.buffer_name(o)} != NULL" for o in program.outputs]
    temporaries = [_temporary(scope, b, scope.wanted(_needs_of(kernel, b.name))) for b in kernel.temporaries]
    for buffer in kernel.temporaries:
        declarations.append(f"cdef {scope.real_type(buffer)} *{scope.buffer_name(buffer.name)} = NULL")
    for output, needs in kernel.fallbacks:
        others = scope.wanted([o for o in needs if o != output])
        own = kernel.buffer(output)
        temporaries.append(_temporary(scope, own, f"not {scope.wants[output]} and ({others})"))
    for nest in functions:
        declarations += nest.declarations
    return render(
        "kernel.pyx.j2",
        functions="".join(n.text for n in functions),
        name=name,
        dtype=dtype,
        parameters=", ".join([*parameters, "int threads"]),
        declarations=declarations,
        temporaries=temporaries,
        nests=[n.values for n in functions],
        combines=any(n.values["partials"] for n in functions),
    )


def _needs_of(kernel: Kernel, name: str) -> list[str]:
    found = {o for f in kernel.functions for n in walk(f.body) if isinstance(n, LEAVES)
             for o in n.needs if name in {a.name for a in node_accesses(n)}}  # fmt: skip
    return [o for o in kernel.program.outputs if o in found]


def _temporary(scope: Scope, buffer: Buffer, condition: str) -> dict[str, str]:
    return {
        "name": scope.buffer_name(buffer.name),
        "type": scope.real_type(buffer),
        "elements": scope.spelling.integer(buffer.elements),
        "condition": condition,
    }
