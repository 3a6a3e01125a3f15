"""What emission hands to the compiler: the Cython text of one module and the headers it includes."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass

from jaccomp.errors import BuildError

# A module of one of these names would shadow, beside its own importers, what the generated code imports.
SHADOWED = frozenset({"cpython", "cython", "libc", "numpy", "posix", "scipy"})
_HEADER = re.compile(r"[A-Za-z0-9_]+\.h", re.ASCII)


def check_module_name(name: str) -> str:
    """`name`, if it can be a file, a C symbol and an import; else a `BuildError` that says why not."""
    what = f"module {name!r}"
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise BuildError(
            what,
            "the name is not an ASCII Python identifier.",
            "It becomes a file name, a C symbol and an import: use letters, digits and underscores.",
        )
    if name.lower() in SHADOWED:
        raise BuildError(what, "the name would shadow a package that the generated code imports.", "Choose another.")
    return name


@dataclass(frozen=True, slots=True)
class Source:
    """One module before compilation.

    `name` is its import name, `pyx` its Cython text, `headers` the (file name, text) pairs that stand beside it. The
    name has passed `check_module_name` and the header names hold no folder, so none of them can leave the folder it
    is written to.
    """

    name: str
    pyx: str
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_module_name(self.name)
        for header, _ in self.headers:
            if not _HEADER.fullmatch(header) or header == f"{self.name}.h":
                raise BuildError(
                    f"module {self.name!r}",
                    f"header {header!r} is not a plain file name of its own.",
                    "Headers are named like jaccomp.h; NAME.h is Cython's to write.",
                )

    def files(self) -> tuple[tuple[str, bytes], ...]:
        """(file name, content) of everything a compiler of this module needs."""
        own = (f"{self.name}.pyx", self.pyx.encode())
        return (own, *((header, text.encode()) for header, text in self.headers))
