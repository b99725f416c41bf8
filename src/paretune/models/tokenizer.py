"""Texts → token ids: the one tokenizer of a base model, for training, for serving and for the code of an export.

It is tokenizer.json as `tokenizers` reads it; which end of a long text is cut and which tokens pad and begin stand in
tokenizer_config.json. `transformers` is not asked: `AutoTokenizer` may build another tokenizer than the file's
(a class of its own with other normalizers), and sets truncation on a shared object at every call, which is no use with
several threads (https://github.com/huggingface/tokenizers/issues/537). Nothing here is changed after it was read. Not
here: padding (`data/encoding.py`), what `AutoTokenizer` makes of the same folder (`checked.py`).

    read_tokenizer("asset:minilm-l6").encode(["one text"], max_tokens=128, prefix="")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from tokenizers import Tokenizer
from tokenizers.models import BPE

from paretune.assets.fetch import locked, storage
from paretune.core.cache import home
from paretune.core.errors import AssetError, DataError, said
from paretune.models.sources import TOKENIZER_FILE, first_line, model_digest, model_folder, readable

Side = Literal["left", "right"]
# What tokenizers treat differently: nothing, spaces, case, accents in one and in two characters, other scripts, emoji,
# control and zero-width characters, special tokens as text, and more than any model takes.
ODD_TEXTS = (
    *(
        "",
        " ",
        "  two  spaces ",
        "Upper and lower CASE",
        "café cafe\u0301 Å Å",
        "Привет, мир! ёж",
        "你好，世界",
        "مرحبا",
    ),
    *("😀 👩‍👩‍👧 ok", "a\tb\nc\rd", "null\x00bell\x07", "zero\u200bwidth\ufeff", "ﬁ ½ Ⅷ ™", "don't I'm we've"),
    *("[CLS] [SEP] [PAD] [UNK] [MASK]", "<s> </s> <pad> <unk> <mask>", "<|endoftext|> <|im_end|> <eos> <bos>"),
    *(
        "https://example.org/?q=1&r=2#x",
        "3.14 1,000,000 0x1F",
        "word " * 3000,
        "начало " + "середина " * 2000 + "конец",
    ),
)


@dataclass(frozen=True)
class Tokens:
    """Token ids, special ones in; how many there would be without a cut; from where on and up to where
    the text is read (characters, prefix in)."""

    input_ids: tuple[int, ...]
    length: int
    start: int = 0
    end: int = 0

    @property
    def truncated(self) -> bool:
        """Whether the text was longer than the adapter takes."""
        return self.length > len(self.input_ids)


class BaseTokenizer:
    """A base model's tokenizer. `first_id` begins a text for a language model; `unknown_id` is None where it has none;
    `cut` is the end of a long text that is cut off."""

    def __init__(
        self,
        backend: Tokenizer,
        *,
        pad_id: int,
        first_id: int | None = None,
        unknown_id: int | None = None,
        cut: Side = "right",
    ) -> None:
        self._backend = backend
        self._backend.no_truncation()
        self._backend.no_padding()
        self._special = self._backend.num_special_tokens_to_add(False)
        self.pad_id, self.first_id, self.unknown_id, self.cut = pad_id, first_id, unknown_id, cut

    def __len__(self) -> int:
        """Entries of the vocabulary, added tokens in."""
        return self._backend.get_vocab_size()

    @property
    def largest_id(self) -> int:
        """The largest id that a text can have; ids may have gaps."""
        return max(self._backend.get_vocab().values(), default=-1)

    @property
    def words(self) -> list[str]:
        """All entries of the vocabulary, as they are written in it."""
        return list(self._backend.get_vocab())

    def encode(
        self, texts: Sequence[str], max_tokens: int | None = None, prefix: str = "", special: bool = True
    ) -> list[Tokens]:
        """Tokenize and cut to `max_tokens`; `prefix` stands before each text. Without `special` no token is added.

        Raises:
            DataError: a text is not valid Unicode (half of a surrogate pair).
        """
        whole = [prefix + text for text in texts]
        self.check(whole)
        added = self._special if special else 0
        found: list[Tokens] = []
        for encoding in self._backend.encode_batch(whole, add_special_tokens=False):
            length = len(encoding.ids) + added
            cut = max_tokens is not None and length > max_tokens
            if max_tokens is not None and cut:
                encoding.truncate(max(0, max_tokens - added), direction=self.cut)
            spans = encoding.offsets
            start = min((start for start, _ in spans), default=0) if cut and self.cut == "left" else 0
            end = max((end for _, end in spans), default=0)
            ids = self._backend.post_process(encoding).ids if special else encoding.ids
            found.append(Tokens(tuple(ids), length, start, end))
        return found

    def save(self, path: Path) -> None:
        """Write it as tokenizer.json, without any cut or padding of its own."""
        self._backend.save(str(path))

    @staticmethod
    def check(texts: Sequence[str]) -> None:
        """Whether all can be encoded.

        Raises:
            DataError: a text is not valid Unicode (half of a surrogate pair).
        """
        for text in texts:
            if not _is_unicode(text):
                raise DataError(said("a text holds half a surrogate pair", "valid Unicode"))

    def decode(self, ids: Sequence[int]) -> str:
        """A text of these tokens, without the special ones."""
        return str(self._backend.decode(list(ids)))

    def tokens(self, text: str) -> list[str]:
        """The tokens of one text as the vocabulary writes them."""
        return [self._backend.id_to_token(one) or "" for one in self.encode([text])[0].input_ids]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_tokenizer(source: str, base: Path | None = None) -> BaseTokenizer:
    """The tokenizer of a base model; one without a padding token pads with its end token.

    Raises:
        as `tokenizer_file`, and AssetError where the file is torn, or there is neither of the two tokens.
    """
    folder, file = model_folder(source, base), tokenizer_file(source, base)
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no class of its own
        raise AssetError(said(f"{source}: {file.name} cannot be read ({error})", "a saved tokenizer")) from error
    _without_chance(backend)
    with readable(source):
        about, config = _about(folder), cast("dict[str, object]", json.loads((folder / "config.json").read_bytes()))

    def first_of(*names: str) -> int | None:
        """The first that is named and known: tokens by their text, config.json's by their id."""
        for name in names:
            known = config.get(name) if name.endswith("_id") else backend.token_to_id(about.get(name, ""))
            if isinstance(known, int) and backend.id_to_token(known) is not None:
                return known
        return None

    pad = first_of("pad_token", "eos_token", "pad_token_id")
    if pad is None:
        raise AssetError(said(f"{source}: its tokenizer names no token for padding", "pad_token or eos_token"))
    truncation = cast("dict[str, object]", backend.truncation or {})
    cut = about.get("truncation_side") or str(truncation.get("direction", "right")).lower()
    if cut != "left" and cut != "right":
        raise AssetError(said(f"{source}: truncation_side = {cut!r}", "'left' or 'right'"))
    first, unknown = first_of("bos_token", "eos_token", "bos_token_id", "eos_token_id"), first_of("unk_token")
    return BaseTokenizer(backend, pad_id=pad, first_id=first, unknown_id=unknown, cut=cut)


def tokenizer_file(source: str, base: Path | None = None) -> Path:
    """The folder's tokenizer.json; of a folder that has only what it is made of (vocab.txt, merges, a SentencePiece
    model) one that `transformers` converted, once, under `home()`.

    Raises:
        as `model_folder`, and AssetError where it cannot be converted.
    """
    folder = model_folder(source, base)
    if (folder / TOKENIZER_FILE).is_file():
        return folder / TOKENIZER_FILE
    file = home() / "tokenizers" / f"{model_digest(source, base)[:32]}.json"
    if file.is_file():
        return file
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        made = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:  # whatever a converter lacks
        given = f"{source} has no {TOKENIZER_FILE}, and one could not be made ({first_line(error)})"
        do = "save one: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER), where that works"
        raise AssetError(said(given, TOKENIZER_FILE, do=do)) from error
    if not isinstance(made, PreTrainedTokenizerFast):
        given = f"{source} has no {TOKENIZER_FILE}, and its tokenizer ({type(made).__name__}) has no such form"
        raise AssetError(said(given, "a tokenizer of the tokenizers library"))
    with locked(file), storage(file.parent):
        part = file.with_suffix(".part")
        made.backend_tokenizer.save(str(part))
        part.replace(file)
    return file


def _without_chance(backend: Tokenizer) -> None:
    """BPE dropout draws other tokens of a text at every call (Provilkov et al. 2020,
    https://aclanthology.org/2020.acl-main.170): what is measured and served must not."""
    model = backend.model
    if isinstance(model, BPE) and model.dropout:
        model.dropout = None


def _about(folder: Path) -> dict[str, str]:
    """Special tokens and the side that is cut, as the folder's files name them; the configuration wins."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        tree: object = json.loads((folder / name).read_bytes())
        if not isinstance(tree, dict):
            raise ValueError(f"{name} is no JSON object")
        for key, value in cast("dict[str, object]", tree).items():
            content: object = cast("dict[str, object]", value).get("content") if isinstance(value, dict) else value
            if key.endswith(("_token", "_side")) and isinstance(content, str):
                found[key] = content
    return found
