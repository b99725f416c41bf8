"""Texts → token ids in any thread, with the length that a text had before it was cut.

`transformers` sets truncation on the shared tokenizer at every call, which is no use with several threads
(https://github.com/huggingface/tokenizers/issues/537); here tokenizer.json is read once, by `tokenizers` itself, and
never changed. The ids are those of `data/encoding.py` (tested). Not here: padding; the engine has none.

    Tokenizing("asset:minilm-l6").encode(["one text"], max_tokens=128, prefix="")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from paretune.core.errors import AssetError, DataError, said
from paretune.models.sources import model_folder


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
        file = model_folder(source) / "tokenizer.json"
        try:
            self._backend = Tokenizer.from_file(str(file))
        except Exception as error:  # the library has no class of its own
            raise AssetError(said(f"{source}: {file.name} cannot be read ({error})", "a saved tokenizer")) from error
        self._backend.no_truncation()
        self._backend.no_padding()
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
