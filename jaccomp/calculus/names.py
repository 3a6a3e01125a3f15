"""Names of cotangents and tangents: `ct_x0`, `t_x0`; of a second differentiation `ct2_x0`, `t2_ct_x0`."""

from __future__ import annotations

from jaccomp.program import Program


def prefix(program: Program, kind: str) -> str:
    """`ct_` or `t_`, or the first of `ct2_`, `ct3_`, ... that no tensor of the program bears."""
    order = 1
    while True:
        candidate = f"{kind}_" if order == 1 else f"{kind}{order}_"
        if not any(t.name.startswith(candidate) for t in program.tensors):
            return candidate
        order += 1


def fresh(program: Program, stem: str) -> str:
    """`stem`, or `stem` with the first number that makes it new to the program."""
    taken = {t.name for t in program.tensors}
    if stem not in taken:
        return stem
    return next(f"{stem}{k}" for k in range(2, len(taken) + 3) if f"{stem}{k}" not in taken)
