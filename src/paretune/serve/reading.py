"""How much of a long text is tokenized: as much as decides the tokens that an adapter takes, and no more.

A tokenizer needs seconds for a megabyte, of which an adapter takes a few hundred tokens. A text is therefore read in a
window, up to white space, that grows until it holds clearly more tokens than are taken. Texts of few tokens (long runs
of spaces, of one letter) are read whole, and so are those without white space whose beginning is what is cut off. Ids
are those of the whole text (tested). Not here: tokenizing itself (`models/tokenizer.py`).

    encoded(read_tokenizer("asset:minilm-l6"), ["a very long text"], max_tokens=128, prefix="")
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paretune.models.tokenizer import BaseTokenizer, Tokens

CHARACTERS_PER_TOKEN = 16  # three times the usual; a window of texts with longer words grows
LEAST_CHARACTERS = 2048
GROWTH = 4
MARGIN = 64  # tokens beyond those that are taken: a word cut in two at the window's end touches none of these
WORD = 256  # characters at the window's end among which white space is looked for
WORD_BEGINS = re.compile(r"\s\S")


@dataclass(frozen=True)
class Read:
    """The tokens of a text, and whether all of it was read; where not, `tokens.length` is of the part that was."""

    tokens: Tokens
    whole: bool


def encoded(tokenizer: BaseTokenizer, texts: Sequence[str], max_tokens: int, prefix: str) -> list[Read]:
    """Tokenize and cut, as `BaseTokenizer.encode`.

    Raises:
        DataError: as there; what lies beyond the part that is read is looked at too.
    """
    tokenizer.check(texts)
    found: dict[int, Read] = {}
    characters = LEAST_CHARACTERS + CHARACTERS_PER_TOKEN * max_tokens
    while waiting := [place for place in range(len(texts)) if place not in found]:
        windows = [_window(texts[place], characters, tokenizer.cut == "left") for place in waiting]
        for place, window, one in zip(waiting, windows, tokenizer.encode(windows, max_tokens, prefix), strict=True):
            whole = len(window) == len(texts[place])
            if whole or one.length >= max_tokens + MARGIN:
                shift = len(texts[place]) - len(window) if tokenizer.cut == "left" else 0
                found[place] = Read(replace(one, start=one.start + shift, end=one.end + shift), whole)
        characters *= GROWTH
    return [found[place] for place in range(len(texts))]


def _window(text: str, characters: int, from_the_end: bool) -> str:
    """About so many characters of a text, up to white space where there is some nearby."""
    if len(text) <= characters:
        return text
    if from_the_end:  # of byte pairs all tokens of a run hang on where it begins: only where a word begins is it safe
        begins = WORD_BEGINS.search(text, len(text) - characters, len(text) - characters + WORD)
        return text[begins.start() :] if begins else text
    edge = text[characters - WORD : characters]
    kept = next((place for place in range(len(edge), 0, -1) if edge[place - 1].isspace()), len(edge))
    return text[: characters - WORD + kept]
