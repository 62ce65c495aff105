"""Escapes text from outside, such as a name in a result.json that somebody else wrote.

Such text may contain something that a terminal, LaTeX, Markdown or a spreadsheet would interpret.
`visible` is for every kind of text; the other functions are for the markup that the text goes into.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction in which the text around them is shown."""

_LATEX = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "%_&#${}"},
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": "$<$",
        ">": "$>$",
        "±": r"$\pm$",
        "\N{EN DASH}": "--",
    }
)


def visible(text: str) -> str:
    r"""The text on one line, with control characters escaped.

    These are the ones that a terminal obeys, line breaks, characters that change the direction of
    text, and surrogates, which cannot be written to a file.

    Example:
      >>> print(visible("linear\x1b[2J\n"))
      linear\x1b[2J\n
    """
    return "".join(
        one.encode("unicode_escape").decode("ascii")
        if unicodedata.category(one) in _NO_TEXT or one in _TURNS
        else one
        for one in text
    )


def latex(text: str) -> str:
    r"""The text, escaped for LaTeX.

    Example:
      >>> print(latex(r"\input{a_b}"))
      \textbackslash{}input\{a\_b\}
    """
    return " ".join(visible(text).split()).translate(_LATEX)


def latex_row(cells: Iterable[str]) -> str:
    r"""A row of a LaTeX table.

    Example:
      >>> print(latex_row(["[1]", "[2, 3]"]))
      {}[1] & [2, 3] \\
    """
    row = " & ".join(map(latex, cells))
    # LaTeX would read these as an option of the preceding row's end.
    return ("{}" if row.startswith(("[", "*")) else "") + row + r" \\"


def latex_comment(text: str) -> str:
    """A LaTeX comment on one line."""
    return f"% {visible(text)}"


def markdown(text: str) -> str:
    r"""The text, escaped for a Markdown cell or item: no HTML, code, formula, link or emphasis.

    Example:
      >>> print(markdown("a|b <b>, p<0.001, teacher_forcing [1, 2]"))
      a\|b \<b>, p<0.001, teacher_forcing [1, 2]
      >>> print(markdown("_x_ $a$ &lt;"))
      \_x\_ \$a\$ \&lt;
    """
    marks = r"[\\|`*~$]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
    text = re.sub(f"({marks})", r"\\\1", visible(text))
    return re.sub(r"\](?=[(\[])", r"]\\", text)


def csv_cell(text: str) -> str:
    """The text, with an apostrophe in front if a spreadsheet would take it for a formula.

    Example:
      >>> csv_cell("=1+1"), csv_cell("linear")
      ("'=1+1", 'linear')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
