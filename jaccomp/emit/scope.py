"""What all functions of one kernel share: C names, types, which outputs are wanted, and how equations are commented.

Input: a kernel of the loop IR, its name and a dtype. Output: text of these parts, for the functions of the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import sympy as sp

from jaccomp.emit.expressions import REAL, DType, Spelling
from jaccomp.emit.names import Names
from jaccomp.emit.quotients import quotients
from jaccomp.lowering.ir import Buffer, Kernel
from jaccomp.printing import equation_text
from jaccomp.program import Equation


class Scope:
    """Names of tensors, sizes and scalars, unique in the kernel; a nest copies and extends them."""

    def __init__(self, kernel: Kernel, name: str, dtype: DType) -> None:
        self.kernel, self.name, self.dtype = kernel, name, dtype
        program = kernel.program
        self.names = Names()
        self.symbols: dict[sp.Basic, str] = {}
        for tensor in (*program.inputs, *program.outputs):
            self.symbols[sp.Symbol(tensor)] = self.names.fresh(program.labels.name(tensor))
        for size in program.sizes:
            self.symbols[size] = self.names.fresh(program.labels.name(size.name))
        for scalar in program.scalars:
            self.symbols[scalar.symbol] = self.names.fresh(program.labels.name(scalar.name))
        for buffer in kernel.temporaries:
            self.symbols[sp.Symbol(buffer.name)] = self.names.fresh(program.labels.name(buffer.name))
        self.wants = {output: self.names.fresh(f"want_{program.labels.name(output)}") for output in program.outputs}
        self.spelling = Spelling(dtype, self.symbols, lambda a: "")
        self.constants: tuple[sp.Basic, ...] = (*program.sizes, *(s.symbol for s in program.scalars))
        self.quotients = self._quotients()

    def _quotients(self) -> dict[str, str]:
        """Names of what is divided once a call, and how; they are constants of the kernel from here on."""
        known: dict[str, str] = {}
        for one in quotients(self.kernel):
            text = self.spelling.integer(one)
            if text not in known:
                known[text] = self.names.fresh("quotient")
                self.constants += (one,)
            self.symbols[one] = known[text]
        return {name: text for text, name in known.items()}

    def buffer_name(self, name: str) -> str:
        return str(self.symbols[sp.Symbol(name)])

    def real_type(self, buffer: Buffer) -> str:
        return "int64_t" if buffer.dtype == "int64" else REAL[self.dtype]

    def wanted(self, outputs: Sequence[str]) -> str:
        return " or ".join(self.wants[o] for o in outputs) or "True"

    def pointer(self, name: str) -> str:
        """The ABI's pointer type of an input or output."""
        tensor = self.kernel.program.tensor(name)
        base = "int64_t" if tensor.dtype == "int64" else REAL[self.dtype]
        return f"const {base} *" if name in self.kernel.program.inputs else f"{base} *"

    def comments(self, equations: Iterable[Equation]) -> list[str]:
        lines = []
        for equation in dict.fromkeys(equations):
            text = equation_text(self.kernel.program, equation)
            lines.append(re.sub(r"[\s\"'\\]+|\*/", " ", text).strip())
        return lines
