"""Toy models for tests: complete local repositories that load like real ones, in milliseconds.

Not here: anything worth training for its quality.

    write_tiny_bert(Path("/tmp/tiny"))  # then load_encoder("path:/tmp/tiny"); write_tiny_llama makes a decoder
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_OF_DECODER = {"unk_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
_LETTERS = string.ascii_lowercase + "абвгдежзийклмнопрстуфхцчшщъыьэюяё" + string.digits


def write_tiny_bert(
    folder: Path, *, hidden: int = 32, layers: int = 2, vocabulary: Sequence[str] = (), seed: int = 0
) -> Path:
    """Write config.json, model.safetensors and tokenizer.json; return the folder.

    The WordPiece tokenizer knows ASCII and Cyrillic letters, digits and punctuation, and the whole words of
    `vocabulary`. Stock dropout (0.1) stands in the config, so that a test can see it being switched off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(vocabulary)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):  # transformers initialises from the global generator
        torch.manual_seed(seed)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128, **_SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2))
    return folder


def write_tiny_llama(
    folder: Path, *, hidden: int = 32, layers: int = 2, vocabulary: Sequence[str] = (), tied: bool = True, seed: int = 0
) -> Path:
    """As `write_tiny_bert`, a decoder with grouped queries; its embeddings are its output map too if `tied`.

    The byte-level tokenizer knows the whole words of `vocabulary` where a space precedes them, adds no special token
    and names none for padding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_tokenizer(vocabulary)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128, **_OF_DECODER}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2))
    return folder


def _byte_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Bytes, and each word grown from its first byte to its last."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        letters = _as_bytes(" " + word)
        merges |= {(letters[:end], letters[end]): None for end in range(1, len(letters))}
    pieces = [*_OF_DECODER.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_OF_DECODER.values()))
    return tokenizer


def _as_bytes(text: str) -> str:
    """A text in the alphabet of `ByteLevel`, one letter a byte."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]


def _tokenizer(words: Sequence[str]) -> Tokenizer:
    pieces = [*_SPECIAL.values(), *string.punctuation, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    pieces += [word.lower() for word in words]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(_SPECIAL.values()))
    return tokenizer
