"""Texts that hold nothing a reader could see, against Unicode's own properties.

PYTHONPATH=src python -m pytest tests/unit/test_text.py
"""

from __future__ import annotations

import sys
import unicodedata

import pytest

from paretune.core.text import is_blank, without_invisible

INVISIBLE = {
    "nothing": "",
    "spaces": " \t\r\n\v\f",
    "no-break space": "\u00a0\u202f\u2007",
    "ideographic space": "\u3000",
    "line separators": "\u2028\u2029\x85",
    "zero-width space": "\u200b",
    "joiners": "\u200c\u200d\u2060",
    "byte-order mark": "\ufeff",
    "directions": "\u200e\u202e\u2066\u2069\u061c",
    "soft hyphen": "\u00ad",
    "controls": "\x00\x07\x1b\x9f",
    "Braille blank": "\u2800",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "Khmer inherent vowels": "\u17b4\u17b5",
    "variation selectors": "\ufe0f\U000e0100",
    "tags": "\U000e0041\U000e007f",
    "Mongolian selectors": "\u180b\u180e",
}
VISIBLE = ["a", "ё", "0", ".", "\u0301", "😀", "👩\u200d🚀", "\u0600", "\u2801", "\ufffd", "\u200b.", "日"]


@pytest.mark.parametrize("text", INVISIBLE.values(), ids=INVISIBLE)
def test_a_text_of_invisible_characters_is_blank(text: str) -> None:
    """Each kind of invisible character alone, repeated, and among spaces, is no text."""
    assert is_blank(text) and is_blank(text * 3) and is_blank(f" {text}\n{text} ")


@pytest.mark.parametrize("text", VISIBLE)
def test_one_visible_character_makes_a_text(text: str) -> None:
    """A letter, digit, mark or emoji is seen, also among invisible characters."""
    assert not is_blank(text) and not is_blank(f"\u200b {text}\u3164")


def test_no_letter_digit_or_symbol_is_taken_for_invisible() -> None:
    """Over all of Unicode, what is blank is a separator, control, format character or mark, or a known filler."""
    fillers = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800", "\U0001d159"}
    for point in range(sys.maxunicode + 1):
        sign = chr(point)
        if is_blank(sign) and sign not in fillers:
            assert unicodedata.category(sign) in ("Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Cn"), hex(point)


def test_invisible_characters_are_taken_out_and_white_space_stays() -> None:
    """What is left has the same words."""
    assert without_invisible("\ufefffo\u200bod \u00adand\tso\u3164on\n") == "food and\tsoon\n"
