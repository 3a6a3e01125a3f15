"""The flags of the C compiler, and the flags that no module is ever compiled with.

`-O3` and reassociation are what lets reductions vectorise. `-ffast-math` and its kin are banned: linked into a shared
object they set flush-to-zero for the whole process (gcc before 13), and `-ffinite-math-only` folds `isnan` away.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass

from jaccomp.errors import BuildError

MARCHES = ("baseline", "x86-64-v3", "native")
MATH = (
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-freciprocal-math",
)
# A call in a loop keeps it from becoming one over vectors: gcc stops to inline where a module has grown by two fifths.
INLINED = ("--param=inline-unit-growth=400",)
# The warnings of Cython's own C are nobody's business; the headers are compiled with all warnings by their tests.
SHARED = ("-std=gnu11", "-fPIC", "-shared", "-fvisibility=hidden", "-g0", "-w")
BANNED = ("-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-ffinite-math-only")


def banned_in(words: Iterable[str]) -> tuple[str, ...]:
    """Those of `words` that are, or smuggle in, a banned flag: as an option, or behind `-Xclang` or a comma."""
    return tuple(word for word in words if any(part in BANNED for part in word.replace("=", ",").split(",")))


def _is_x86(machine: str) -> bool:
    return machine.lower() in {"x86_64", "amd64", "i686", "i386"}


@dataclass(frozen=True, slots=True)
class Flags:
    """What one compilation asks of the compiler; `words()` never holds a banned flag.

    `march` is `baseline` (any CPU of the architecture), `x86-64-v3` (AVX2 and FMA) or `native` (this CPU). `openmp`
    is false only where the compiler cannot link OpenMP: the module then runs on one thread unless a call asks.
    """

    march: str = "native"
    openmp: bool = True

    def __post_init__(self) -> None:
        if self.march not in MARCHES:
            raise BuildError(f"march {self.march!r}", "no such target.", f"Choose one of {', '.join(MARCHES)}.")
        if self.march == "x86-64-v3" and not _is_x86(platform.machine()):
            raise BuildError(
                "march 'x86-64-v3'", f"this machine is {platform.machine()}, not x86-64.", "Choose baseline or native."
            )

    def words(self) -> tuple[str, ...]:
        """The flags, in the order they are given."""
        return (*MATH, *INLINED, *self._cpu(), "-fopenmp" if self.openmp else "-pthread", *SHARED)

    def _cpu(self) -> tuple[str, ...]:
        if self.march == "baseline":
            return ()
        if self.march == "native" and not _is_x86(platform.machine()):
            return ("-mcpu=native",)
        return (f"-march={self.march}",)
