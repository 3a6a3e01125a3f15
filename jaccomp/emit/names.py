"""C names of what a user named: legal, ASCII, unique, and never a keyword."""

from __future__ import annotations

import keyword
import unicodedata

GREEK = dict(zip("αβγδεζηθικλμνξοπρσςτυφχψω", (  # noqa: SIM905
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau "
    "upsilon phi chi psi omega").split(), strict=True))  # fmt: skip
WORDS = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm typeof
    cdef cpdef cimport ctypedef nogil gil noexcept bint object readonly public api include by new DEF IF ELIF ELSE fused
    complex size_t ssize_t Py_ssize_t int64_t uint64_t ptrdiff_t malloc free range min max abs print
    NULL True False None
    block blocks total span work failed part first last flat threads scratch small context values self
    np sqrt exp log sin cos tan pow main errno signal stdin stdout stderr linux unix i386 memcpy memset y0 y1 yn
    j0 j1 jn gamma lgamma tgamma len sum map list dict
    set tuple type str bytes bool float32 float64 index round id iter next hash open input vars dir
    """.split()  # noqa: SIM905
)


def ascii_name(text: str) -> str:
    """The text as an ASCII identifier: Greek by name, accents dropped, anything else an underscore."""
    spelled = "".join(GREEK.get(c.lower(), c) if c.lower() in GREEK else c for c in text)
    plain = unicodedata.normalize("NFKD", spelled)
    kept = "".join(
        c if c.isascii() and (c.isalnum() or c == "_") else "" if unicodedata.combining(c) else "_" for c in plain
    )
    return kept if kept and not kept[0].isdigit() else "_" + kept


class Names:
    """Hands out names: the one wished for, or that with underscores and numbers until nothing else has it."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def fresh(self, wish: str) -> str:
        name = ascii_name(wish)
        if name.startswith(("jc_", "JC_", "__")) or name == "_":
            name = "u" + name
        if keyword.iskeyword(name) or name in WORDS:
            name += "_"
        candidate, number = name, 2
        while candidate in self.taken:
            candidate, number = f"{name}{number}" if not name[-1].isdigit() else f"{name}_{number}", number + 1
        self.taken.add(candidate)
        return candidate

    def copy(self) -> Names:
        other = Names()
        other.taken = set(self.taken)
        return other
