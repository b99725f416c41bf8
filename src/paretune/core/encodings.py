"""Output on terminals and in pipes whose encoding lacks signs that are to be written: KOI8-R, cp1251, latin-1, ASCII.

Not here: files, which are UTF-8 always. A sign that the encoding lacks is spelled with those that it has ("..." for an
ellipsis, Latin letters for Russian ones), anything else becomes "?": a program that ran for hours does not end in a
traceback over its last line.

    make_safe(sys.stdout, sys.stderr)
"""

from __future__ import annotations

import codecs
import io
from typing import TextIO

ERRORS = "paretune.spelled"
SPELLED = {
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{DIVISION SIGN}": "/",
    "\N{MIDDLE DOT}": "-",
    "\N{BULLET}": "*",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LEFTWARDS ARROW}": "<-",
    "\N{NOT EQUAL TO}": "!=",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{ALMOST EQUAL TO}": "~",
    "\N{NO-BREAK SPACE}": " ",
    "\N{NARROW NO-BREAK SPACE}": " ",
    "\N{THIN SPACE}": " ",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{NUMERO SIGN}": "No.",
    "\N{CHECK MARK}": "+",
    "\N{BALLOT X}": "x",
}
RAISED = dict(zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True))
CYRILLIC = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
LETTERS = "a b v g d e yo zh z i y k l m n o p r s t u f kh ts ch sh shch '' y ' e yu ya"
LATIN = dict(zip(CYRILLIC, LETTERS.split(" "), strict=True))


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """A handler of `codecs`: what cannot be encoded, spelled with ASCII; bytes of a file's name as they were."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    signs = [_sign(sign) for sign in found]
    raised = [place for place, sign in enumerate(found) if sign in RAISED]
    for place in raised:  # a power is marked once: 10^-5
        signs[place] = RAISED[found[place]] if place - 1 in raised else f"^{RAISED[found[place]]}"
    return "".join(signs), error.end


def _sign(sign: str) -> str:
    if sign in SPELLED:
        return SPELLED[sign]
    if sign.lower() in LATIN:
        return LATIN[sign] if sign in LATIN else LATIN[sign.lower()].capitalize()
    return f"\\x{ord(sign) & 0xFF:02x}" if "\udc80" <= sign <= "\udcff" else "?"


codecs.register_error(ERRORS, _spelled)


def make_safe(*streams: TextIO) -> None:
    """Let streams write any text: what their encoding lacks is spelled out instead of ending the program."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
