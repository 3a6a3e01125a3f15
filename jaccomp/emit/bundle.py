"""Bundle: what the module frame is spelled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaccomp.program import Labels, Program

Role = Literal["forward", "fwd", "bwd", "jvp"]
ROLES: tuple[Role, ...] = ("forward", "fwd", "bwd", "jvp")
SUFFIXES: tuple[str, str] = ("f32", "f64")


@dataclass(frozen=True, slots=True)
class Formula:
    """A Jacobian block as text, as LaTeX, and its structure in words."""

    text: str
    latex: str
    structure: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A layer's programs and kernels, and what the module says of them.

    `programs` holds forward, which says what the layer takes and gives, and those of fwd, bwd and jvp that have
    kernels; their tensors go by the same canonical names. `kernels` maps (role, "f32" or "f64") to the text of the
    C-level function `ROLE_SUFFIX`; a missing dtype is refused when called. Without a kernel for forward, fwd serves it
    with no residual wanted; without one for fwd, forward does where nothing but inputs and outputs is kept.
    `residuals` are what fwd gives beside the outputs. `prelude` is text that the kernels need above them. `formulas`
    go by the user's names, (of, wrt). `any_axes` names the sizes that stand for any number of axes; `inplace` the
    (output, input) pairs that the forward kernel may compute in the same memory.
    """

    name: str
    programs: Mapping[Role, Program]
    kernels: Mapping[tuple[Role, str], str]
    residuals: tuple[str, ...] = ()
    formulas: Mapping[tuple[str, str], Formula] = field(default_factory=dict)
    equations: tuple[str, ...] = ()
    doc: str = ""
    spec_hash: str = ""
    layer: str = ""
    prelude: str = ""
    any_axes: tuple[str, ...] = ()
    inplace: tuple[tuple[str, str], ...] = ()

    @property
    def base(self) -> Program:
        """The layer itself."""
        return self.programs["forward"]

    def label(self, canonical: str) -> str:
        """The user's name of a tensor, size or scalar of any of the programs."""
        named: dict[str, str] = {}
        for role in ROLES:
            if role in self.programs:
                named = {**self.programs[role].labels.names, **named}
        return Labels(named).name(canonical)

    def built(self, role: Role) -> bool:
        """Is there a kernel of this role, in any dtype?"""
        return any((role, suffix) in self.kernels for suffix in SUFFIXES)

    def needs_blas(self, role: Role, suffix: str) -> bool:
        """Does the kernel call the matrix product of `jaccomp_blas.h`?"""
        return "jc_gemm_" in self.kernels.get((role, suffix), "")

    def serving(self, role: Role) -> Role | None:
        """The role whose kernel serves `role`; None where none does."""
        if self.built(role):
            return role
        if role == "forward" and self.built("fwd"):
            return "fwd"
        if role == "fwd" and self.built("forward") and not self.residuals:
            return "forward"
        return None
