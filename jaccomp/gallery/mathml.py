"""Formulas as MathML: the LaTeX that jaccomp and SymPy print, read and spelled as MathML Core.

    \\frac{\\partial y_n}{\\partial x}   ->   <mfrac><mrow>∂ <msub>y n</msub></mrow><mrow>∂ x</mrow></mfrac>

The reader knows the commands that the printers use and refuses all others, so that nothing it was not written for
reaches a page; every letter is escaped. (A general converter passes unknown commands on, writes attributes that Core
has dropped, and `\\href` as a link.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import escape

from jaccomp.gallery.symbols import (
    ACCENTS,
    ALPHABETS,
    BIG,
    DELIMITERS,
    FUNCTIONS,
    IDENTIFIERS,
    LIMITS,
    OPERATORS,
    SPACES,
)

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|[0-9]+(?:\.[0-9]+)?|[A-Za-z]+|\s+|.", re.DOTALL)
_ENDS = frozenset({"}", "&", r"\\", r"\right", r"\end", "]"})
_BREAKS = frozenset({r"\quad", r"\qquad", "\\ "})
_FENCES = {"matrix": "", "smallmatrix": "", "pmatrix": "()", "bmatrix": "[]", "vmatrix": "||", "Vmatrix": "‖‖"}
_LEFT_ALIGNED = frozenset({"cases", "aligned", "align*", "split"})
_WORD_LAST = re.compile(r"<mi>[^<]{2,}</mi>")
_WORD_FIRST = re.compile(r"(?:<m(?:sub|sup|subsup|row|multiscripts)>)*<mi>[^<]{2,}</mi>")
_TALL = re.compile(r"<(?:mfrac|mtable|munder|munderover|msqrt|mroot)\b|stretchy=\"true\"|<mo>[∑∏∫]")
_APPLY = "<mo>\u2061</mo>"
_NOTHING = "<mrow></mrow>"
_THIN = '<mspace width="0.167em"></mspace>'
DEEPEST = 200
"""Groups within groups that a formula may have."""


class UnreadLatex(ValueError):
    """A formula that holds something the reader does not know."""


def mathml(latex: str) -> str:
    """The formula in display style: one `math` element for each stretch between wide spaces, where a line may break.

    y = W x,\\quad \\text{where } W \\in \\mathbb{R}   ->   <math>y = W x ,</math> <math>where W ∈ ℝ</math>

    Raises `UnreadLatex`.
    """
    reader = _Reader(latex)
    stretches = [reader.row(_BREAKS)]
    while reader.peek() in _BREAKS:
        reader.take()
        stretches.append(reader.row(_BREAKS))
    if reader.peek():
        raise UnreadLatex(f"{reader.peek()!r} closes nothing in {latex!r:.200}")
    return " ".join(
        f'<math displaystyle="true">{one}</math>' for one in stretches if one != _NOTHING or len(stretches) == 1
    )


class _Reader:
    """A recursive descent over the tokens; each method returns MathML."""

    def __init__(self, latex: str) -> None:
        self.latex = latex
        self.tokens = _TOKEN.findall(latex)
        self.at = 0
        self.depth = 0

    # Tokens

    def peek(self) -> str:
        """The next token that is not white space; empty at the end."""
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        found = self.take()
        if found != token:
            raise self.unread(f"{found!r} stands where {token!r} is needed")

    def unread(self, why: str) -> UnreadLatex:
        return UnreadLatex(f"{why} in {self.latex!r:.200}")

    # Rows and items

    def row(self, ends: frozenset[str] = _ENDS) -> str:
        """Items up to one of `ends`, which is left; several of them in an `mrow`."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.unread(f"more than {DEEPEST} groups within groups")
        items = []
        while (token := self.peek()) and token not in ends:
            if token in ("}", "&", r"\\", r"\right", r"\end"):
                break
            items.append(self.item())
        items = [item for item in items if item != _NOTHING]
        self.depth -= 1
        return items[0] if len(items) == 1 else f"<mrow>{''.join(_spaced(items))}</mrow>"

    def item(self) -> str:
        """One atom with its scripts, and what applies a function to what follows it."""
        token = self.peek()
        named = token in FUNCTIONS or token in LIMITS or token.startswith(r"\operatorname")
        limits = token in BIG or token in LIMITS or token == r"\operatorname*"
        base = self.atom()
        below, above = self.scripts()
        if limits:
            spelled = _scripted(base, below, above, "munder", "mover", "munderover")
        else:
            spelled = _scripted(base, below, above, "msub", "msup", "msubsup")
        return spelled + self.application() if named else spelled

    def application(self) -> str:
        """Between a function's name and its argument: nothing before a bracket, a thin space before all else."""
        following = self.peek()
        if not following or following in _ENDS or following in OPERATORS or following in ",;:":
            return ""
        opens = following in ("(", "[", r"\left") or (following == "{" and self.opens_after_brace())
        return _APPLY if opens else _APPLY + _THIN

    def opens_after_brace(self) -> bool:
        rest = (token for token in self.tokens[self.at + 1 :] if not token.isspace())
        return next(rest, "") in ("(", "[", r"\left")

    def scripts(self) -> tuple[str, str]:
        """(subscript, superscript), each empty where there is none."""
        below, above, primes = "", "", ""
        while (token := self.peek()) in ("_", "^", "'", r"\limits", r"\nolimits"):
            self.take()
            if token == "'":
                primes += "′"
            elif token == "_" and not below:
                below = self.argument()
            elif token == "^" and not above:
                above = self.argument()
            elif token in ("_", "^"):
                raise self.unread(f"a second {token!r}")
        if primes:
            above = f"<mrow><mo>{primes}</mo>{above}</mrow>" if above else f"<mo>{primes}</mo>"
        return below, above

    def argument(self) -> str:
        """A group, a command, or one letter or digit."""
        token = self.peek()
        if not token or token in _ENDS or token in "_^'":
            raise self.unread("an argument is missing")
        if token == "{":
            return self.group()
        if len(token) > 1 and token[0].isalnum():
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self.atom()

    def group(self) -> str:
        self.expect("{")
        body = self.row()
        self.expect("}")
        return body

    def raw(self) -> str:
        """The text of a group, its escapes undone: what `\\text` and `\\mathrm` hold."""
        self.expect("{")
        text, depth = "", 0
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            if token == "}" and not depth:
                return text
            depth += (token == "{") - (token == "}")
            if token in ("{", "}"):
                continue
            if token == r"\textbackslash":
                token = "\\"
            elif token.startswith("\\"):
                if len(token) > 2 or token[1].isalnum():
                    raise self.unread(f"{token!r} in text")
                token = token[1:] if token[1] not in ",:;! " else " "
            text += "\u00a0" if token == "~" else token
        raise self.unread("a group is not closed")

    # Atoms

    def atom(self) -> str:
        token = self.peek()
        if token == "{":
            return self.group()
        self.take()
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token[0].isalpha():
            return _identifier(token)
        if token in OPERATORS:
            return f"<mo>{escape(OPERATORS[token])}</mo>"
        if token in DELIMITERS:
            return f'<mo stretchy="false">{escape(DELIMITERS[token])}</mo>'
        if not token.startswith("\\"):
            raise self.unread(f"{token!r} is not known")
        return self.command(token)

    def command(self, token: str) -> str:
        if token in IDENTIFIERS:
            return _identifier(IDENTIFIERS[token])
        if token in BIG:
            return f"<mo>{BIG[token]}</mo>"
        if token in LIMITS:
            return _named_operator(LIMITS[token])
        if token in FUNCTIONS:
            return f"<mi>{FUNCTIONS[token]}</mi>"
        if token in SPACES:
            return f'<mspace width="{SPACES[token]}"></mspace>'
        if token in ACCENTS:
            return self.accent(*ACCENTS[token])
        if token in ALPHABETS:
            return self.lettered(ALPHABETS[token])
        known = _COMMANDS.get(token)
        if known is None:
            raise self.unread(f"{token!r} is not known")
        return known(self)

    def accent(self, mark: str, stretchy: str) -> str:
        return f'<mover accent="true">{self.argument()}<mo stretchy="{stretchy}">{escape(mark)}</mo></mover>'

    def lettered(self, alphabet: Callable[[str], str]) -> str:
        """Letters of another alphabet; a command within, such as a Greek letter, keeps its own."""
        if self.peek() == "{" and not any(t.startswith("\\") and t[1:].isalpha() for t in self.group_tokens()):
            text = alphabet(self.raw())
            return f"<mn>{escape(text)}</mn>" if text.isdigit() else _identifier(text, upright=True)
        return self.argument()

    def group_tokens(self) -> list[str]:
        """The tokens of the group that begins here."""
        depth = 0
        for k in range(self.at, len(self.tokens)):
            depth += (self.tokens[k] == "{") - (self.tokens[k] == "}")
            if not depth:
                return self.tokens[self.at : k]
        raise self.unread("a group is not closed")

    def fraction(self) -> str:
        above = self.argument()
        return f"<mfrac>{above}{self.argument()}</mfrac>"

    def styled_fraction(self, display: str) -> str:
        return f'<mstyle displaystyle="{display}">{self.fraction()}</mstyle>'

    def root(self) -> str:
        if self.peek() != "[":
            return f"<msqrt>{self.argument()}</msqrt>"
        self.take()
        degree = self.row()
        self.expect("]")
        return f"<mroot>{self.argument()}{degree}</mroot>"

    def over(self, element: str) -> str:
        mark = self.argument()
        return f"<{element}>{self.argument()}{mark}</{element}>"

    def fenced(self) -> str:
        opening = self.delimiter()
        body = self.row(frozenset())
        self.expect(r"\right")
        tall = _TALL.search(body) is not None
        return f"<mrow>{_fence(opening, 'prefix', tall)}{body}{_fence(self.delimiter(), 'postfix', tall)}</mrow>"

    def delimiter(self) -> str:
        token = self.take()
        if token == ".":
            return ""
        if token in ("<", ">"):
            return "⟨" if token == "<" else "⟩"
        if token not in DELIMITERS:
            raise self.unread(f"{token!r} is no bracket")
        return DELIMITERS[token]

    def sized(self) -> str:
        return f'<mo stretchy="false">{escape(self.delimiter())}</mo>'

    def style(self, display: str) -> str:
        return f'<mstyle displaystyle="{display}">{self.row()}</mstyle>'

    def operator_name(self) -> str:
        return f"<mi>{escape(self.raw())}</mi>"

    def environment(self) -> str:
        name = self.raw()
        if name == "array":
            self.raw()
        elif name not in _FENCES and name not in _LEFT_ALIGNED:
            raise self.unread(f"environment {name!r} is not known")
        table = self.table("left" if name in _LEFT_ALIGNED else "")
        self.expect(r"\end")
        closed = self.raw()
        if closed != name:
            raise self.unread(f"environment {closed!r} ends where {name!r} began")
        if name == "cases":
            return f"<mrow>{_fence('{', 'prefix')}{table}</mrow>"
        fences = _FENCES.get(name, "")
        return f"<mrow>{_fence(fences[0], 'prefix')}{table}{_fence(fences[1], 'postfix')}</mrow>" if fences else table

    def table(self, kind: str) -> str:
        rows: list[list[str]] = [[]]
        while True:
            rows[-1].append(self.row())
            token = self.peek()
            if token == "&":
                self.take()
            elif token == r"\\":
                self.take()
                rows.append([])
            else:
                break
        if len(rows) > 1 and rows[-1] == [_NOTHING]:
            rows.pop()
        spelled = "".join(f"<mtr>{''.join(f'<mtd>{cell}</mtd>' for cell in row)}</mtr>" for row in rows)
        return f'<mtable class="{kind}">{spelled}</mtable>' if kind else f"<mtable>{spelled}</mtable>"

    def stack(self) -> str:
        self.expect("{")
        table = self.table("stack")
        self.expect("}")
        return table


_COMMANDS: dict[str, Callable[[_Reader], str]] = {
    r"\frac": _Reader.fraction,
    r"\dfrac": lambda reader: reader.styled_fraction("true"),
    r"\tfrac": lambda reader: reader.styled_fraction("false"),
    r"\sqrt": _Reader.root,
    r"\left": _Reader.fenced,
    r"\big": _Reader.sized,
    r"\Big": _Reader.sized,
    r"\bigl": _Reader.sized,
    r"\bigr": _Reader.sized,
    r"\Bigl": _Reader.sized,
    r"\Bigr": _Reader.sized,
    r"\begin": _Reader.environment,
    r"\substack": _Reader.stack,
    r"\underset": lambda reader: reader.over("munder"),
    r"\overset": lambda reader: reader.over("mover"),
    r"\displaystyle": lambda reader: reader.style("true"),
    r"\textstyle": lambda reader: reader.style("false"),
    r"\operatorname": _Reader.operator_name,
    r"\operatorname*": lambda reader: _named_operator(reader.raw()),
    r"\text": lambda reader: f"<mtext>{escape(_kept_spaces(reader.raw()))}</mtext>",
    r"\textrm": lambda reader: f"<mtext>{escape(_kept_spaces(reader.raw()))}</mtext>",
    r"\mathop": _Reader.argument,
    r"\mathbin": _Reader.argument,
    r"\mathrel": _Reader.argument,
    r"\mathopen": _Reader.argument,
    r"\mathclose": _Reader.argument,
}


def _kept_spaces(text: str) -> str:
    """Spaces at the ends of text are collapsed in MathML unless they cannot break."""
    return (
        "\u00a0" * (len(text) - len(text.lstrip(" ")))
        + text.strip(" ")
        + "\u00a0" * (len(text) - len(text.rstrip(" ")) if text.strip(" ") else 0)
    )


def _spaced(items: list[str]) -> Iterator[str]:
    """Items with a thin space where a name of several letters would run into its neighbour: `stride i`, `2 log x`."""
    before = "<mo>"
    for item in items:
        operands = not before.startswith(("<mo", "<mspace", "<mtext")) and not item.startswith(("<mo", "<mspace"))
        if operands and (_WORD_LAST.fullmatch(before) or _WORD_FIRST.match(item)):
            yield _THIN
        yield item
        before = item


def _identifier(name: str, upright: bool = False) -> str:
    """One letter is italic and several are upright by MathML's own rule."""
    variant = ' mathvariant="normal"' if len(name) == 1 and (upright or name in "∂∞⊤") else ""
    return f"<mi{variant}>{escape(name)}</mi>"


def _named_operator(name: str) -> str:
    return f'<mo form="prefix" lspace="0" rspace="0" movablelimits="true">{escape(name)}</mo>'


def _fence(bracket: str, form: str, tall: bool = True) -> str:
    """A bracket that grows with what it holds, where that is taller than a line."""
    stretchy = "true" if tall else "false"
    return f'<mo fence="true" form="{form}" stretchy="{stretchy}">{escape(bracket)}</mo>' if bracket else ""


def _scripted(base: str, below: str, above: str, under: str, over: str, both: str) -> str:
    """The base with its scripts; indices below a name with a subscript of its own stand beside that, not under it."""
    if below and base.startswith("<msub>"):
        own = base.removeprefix("<msub>").removesuffix("</msub>")
        return f"<mmultiscripts>{own}{_NOTHING}<mrow>{_THIN}{below}</mrow>{above or _NOTHING}</mmultiscripts>"
    if below and above:
        return f"<{both}>{base}{below}{above}</{both}>"
    if below:
        return f"<{under}>{base}{below}</{under}>"
    return f"<{over}>{base}{above}</{over}>" if above else base
