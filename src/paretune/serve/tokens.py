"""Texts → token ids in any thread, with the length that a text had before it was cut.

`transformers` sets truncation on the shared tokenizer at every call, which is no use with several threads
(https://github.com/huggingface/tokenizers/issues/537); here the shared tokenizer is never changed. The ids are those of
`data/encoding.py`. Not here: padding; the engine has none.

    Tokenizing("asset:minilm-l6").encode(["one text"], max_tokens=128, prefix="")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.errors import DataError, said
from paretune.models.loading import load_tokenizer


@dataclass(frozen=True)
class Tokens:
    """Token ids, special ones in, and how many there would be without a cut."""

    input_ids: tuple[int, ...]
    length: int

    @property
    def truncated(self) -> bool:
        """Whether the text was longer than the adapter takes."""
        return self.length > len(self.input_ids)


class Tokenizing:
    """The base model's tokenizer."""

    def __init__(self, source: str) -> None:
        self._backend = load_tokenizer(source).backend_tokenizer
        self._special = self._backend.num_special_tokens_to_add(False)

    def encode(self, texts: Sequence[str], max_tokens: int, prefix: str) -> list[Tokens]:
        """Tokenize; `prefix` stands before each text.

        Raises:
            DataError: a text is not valid Unicode (lone surrogates).
        """
        whole = [prefix + text for text in texts]
        for text in whole:
            if not _is_unicode(text):
                raise DataError(said("a text holds half a surrogate pair", "valid Unicode"))
        found: list[Tokens] = []
        for encoding in self._backend.encode_batch(whole, add_special_tokens=False):
            length = len(encoding.ids) + self._special
            encoding.truncate(max(0, max_tokens - self._special))
            found.append(Tokens(tuple(self._backend.post_process(encoding).ids), length))
        return found


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
