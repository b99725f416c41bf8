"""What of a text a reader can see: invisible characters, and texts that hold nothing else.

Not here: comparing texts (`data/cleaning.py`) or labels (`data/labels.py`). Invisible are white space, control
characters, Unicode's Default_Ignorable_Code_Point (zero-width signs, joiners, fillers, variation selectors, byte-order
marks, tags) and a few signs whose glyph is empty (Braille blank, interlinear marks, a null note head). A letter, digit,
punctuation mark, emoji or lone accent is visible. Source: https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt

    is_blank("\\u200b\\u2800 ") and not is_blank("\\u200bx")
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# What `\\s` and control characters are, written out: readers of patterns differ about what `\\s` is.
_WHITE_AND_CONTROL = "\x00- \x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_DEFAULT_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_EMPTY_GLYPH = "\u2800\ufff9-\ufffb\U0001d159"
BLANK_CHARACTERS = f"{_WHITE_AND_CONTROL}{_DEFAULT_IGNORABLE}{_EMPTY_GLYPH}"  # the inside of a class of a pattern
_BLANK = re.compile(f"[{BLANK_CHARACTERS}]*")
_UNSEEN = re.compile(f"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f{_DEFAULT_IGNORABLE}{_EMPTY_GLYPH}]+")


def is_blank(text: str) -> bool:
    """Whether a text has nothing that a reader could see; the empty text is blank."""
    return _BLANK.fullmatch(text) is not None


def without_invisible(text: str) -> str:
    """The text without its invisible characters; white space stays, since it parts words."""
    return _UNSEEN.sub("", text)


def spelled(text: str) -> str:
    """The text with what a reader cannot see or tell apart written as escapes: `caf\\u00e9` stays, `cafe\\u0301` shows.

    Escaped are invisible characters, white space other than single spaces inside, accents of their own, and letters of
    another script than most letters of the text.
    """
    letters = Counter(_script(sign) for sign in text if sign.isalpha())
    main = min(letters, key=lambda name: (-letters[name], name)) if letters else ""
    shown: list[str] = []
    for place, sign in enumerate(text):
        edge = place in (0, len(text) - 1) or text[place - 1].isspace()
        odd = sign.isspace() and (sign != " " or edge)
        foreign = sign.isalpha() and _script(sign) != main
        unseen = is_blank(sign) and not sign.isspace()
        hidden = odd or foreign or unseen or bool(unicodedata.combining(sign))
        shown.append(
            f"\\u{ord(sign):04x}" if hidden and ord(sign) < 0x10000 else f"\\U{ord(sign):08x}" if hidden else sign
        )
    return "".join(shown)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "OTHER").split()[0]
