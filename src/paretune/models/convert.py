"""An asset's own file format → config.json, model.safetensors and tokenizer.json, once.

Here: the `E5S1` file of multilingual-e5-small (https://huggingface.co/intfloat/multilingual-e5-small) in 4-bit blocks,
and the GGUF file of SmolLM2 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), which `transformers` reads.
Not here: when to convert and where to (`sources.py`). Little-endian throughout; the weights become the fp32 values of
the 4-bit file, which are not the published ones.

    convert_e5(read_member(find("e5-small"), "weights"), Path("e5-small"))
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from paretune.core.errors import AssetError, said

# Raised when what a conversion writes changes, so that a folder made before is made anew.
E5_FORMAT = "e5s1-1"
GGUF_FORMAT = "gguf-1"

_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", (16,))])
_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_ENDS = {"w": "weight", "b": "bias"}


class E5Sizes(NamedTuple):
    """The header's numbers, in the order of the file."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int
    norm_epsilon: float
    block: int


class E5File(NamedTuple):
    """What an `E5S1` file holds; weights stay in `content` until `e5_tensors` reads them."""

    sizes: E5Sizes
    pieces: list[tuple[str, float]]
    normalisation: dict[str, str]
    directory: list[tuple[str, int, int, int]]
    content: bytes


class _Cursor:
    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def read(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.content, self.place)
        self.place += struct.calcsize("<" + form)
        return values

    def take(self, count: int) -> bytes:
        if self.place + count > len(self.content):
            raise struct.error(f"{count} bytes wanted at {self.place}")
        self.place += count
        return self.content[self.place - count : self.place]


def read_e5(content: bytes) -> E5File:
    """Parse header, pieces, normalisation map and tensor directory.

    Raises:
        AssetError: not an `E5S1` file of version 1 with blocks of 32, or one that ends early.
    """
    cursor = _Cursor(content)
    try:
        magic, version = cursor.read("4sI")
        sizes = E5Sizes(*cursor.read("7ifi"))
        if (magic, version, sizes.block) != (b"E5S1", 1, 32):
            raise AssetError(
                said(f"model file {magic!r} version {version}, block {sizes.block}", "E5S1 version 1, block 32")
            )
        pieces = _pieces(cursor)
        normalisation: dict[str, str] = {}
        entries, _ = cursor.read("iI")
        for _ in range(entries):
            point, length = cursor.read("IB")
            normalisation[chr(point)] = "".join(map(chr, cursor.read(f"{length}I")))
        directory: list[tuple[str, int, int, int]] = []
        (tensors,) = cursor.read("i")
        for _ in range(tensors):
            name = cursor.take(*cursor.read("H")).decode()
            kind, elements, offset, length = cursor.read("BIQQ")
            if offset + length > len(content):
                raise struct.error(f"tensor {name} wants {length} bytes at {offset}")
            directory.append((name, kind, elements, offset))
    except struct.error as error:
        raise AssetError(said(f"model file ends early ({error})", "a whole E5S1 file")) from error
    return E5File(sizes, pieces, normalisation, directory, content)


def _pieces(cursor: _Cursor) -> list[tuple[str, float]]:
    (count,) = cursor.read("i")
    cursor.read("4i")  # bos, eos, pad, unk: their pieces have the usual names
    (blob_length,) = cursor.read("Q")
    offsets = cursor.read(f"{count + 1}I")
    scores = cursor.read(f"{count}f")
    blob = cursor.take(blob_length)
    return [(blob[offsets[i] : offsets[i + 1]].decode(), scores[i]) for i in range(count)]


def e5_tensors(file: E5File) -> Iterator[tuple[str, np.ndarray]]:
    """All weights as flat fp32 arrays under the names of `transformers.BertModel`."""
    for name, kind, elements, offset in file.directory:
        if kind == 0:
            weights = np.frombuffer(file.content, "<f4", elements, offset)
        else:
            weights = dequantised(np.frombuffer(file.content, _BLOCK, elements // 32, offset))
        yield _bert_name(name), weights


def dequantised(blocks: np.ndarray) -> np.ndarray:
    """Flat fp32 weights of 4-bit blocks: byte j holds weight j (low half) and weight j + 16 (high half)."""
    weights = np.empty((len(blocks), 32), np.float32)
    scale = blocks["scale"].astype(np.float32)[:, None]
    np.multiply((blocks["pairs"] & 15).astype(np.int8) - np.int8(8), scale, out=weights[:, :16])
    np.multiply((blocks["pairs"] >> 4).astype(np.int8) - np.int8(8), scale, out=weights[:, 16:])
    return weights.reshape(-1)


def _bert_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    stem, _, end = name.rpartition(".")
    if found := re.fullmatch(r"l(\d+)\.(\w+)", stem):
        return f"encoder.layer.{found[1]}.{_NAMES[found[2]]}.{_ENDS[end]}"
    return f"{_NAMES[stem]}.{_ENDS[end]}"


def e5_tokenizer(file: E5File) -> Tokenizer:
    """The Unigram tokenizer: the file's normalisation, runs of spaces collapsed, `▁` before every word, <s> … </s>.

    The file maps single code points. All but a few dozen of its entries are what NFKC does anyway, so NFKC stands for
    them, and composes accents besides, as the published SentencePiece model does and the file's map cannot. The others
    (control characters vanish, other white space becomes a space) are made from the map.
    """
    special: dict[str, list[str]] = defaultdict(list)
    for character, replacement in file.normalisation.items():
        if unicodedata.normalize("NFKC", character) != replacement:
            special[replacement].append(f"\\x{{{ord(character):x}}}")
    steps: list[normalizers.Normalizer] = [
        normalizers.Replace(Regex(f"[{''.join(characters)}]"), replacement)
        for replacement, characters in special.items()
    ]
    steps += [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    names = [piece for piece, _ in file.pieces]
    tokenizer = Tokenizer(models.Unigram(file.pieces, unk_id=names.index("<unk>"), byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(name, names.index(name)) for name in ("<s>", "</s>")],
    )
    tokenizer.add_special_tokens(
        [*("<s>", "<pad>", "</s>", "<unk>"), AddedToken("<mask>", lstrip=True, normalized=False, special=True)]
    )
    return tokenizer


def convert_e5(content: bytes, folder: Path) -> None:
    """Write config.json, model.safetensors (fp32), tokenizer.json and tokenizer_config.json into an existing folder.

    Raises:
        AssetError: as `read_e5`.
        OSError: the disk is full or the folder cannot be written.
    """
    file = read_e5(content)
    sizes = file.sizes
    tensors: dict[str, np.ndarray] = {}
    for name, weights in e5_tensors(file):
        if name.endswith(("LayerNorm.weight", "bias")):
            tensors[name] = weights
        else:  # [out, in]; only the second feed-forward map has another input than the hidden size
            wide = name.endswith(".output.dense.weight") and "attention" not in name
            tensors[name] = weights.reshape(-1, sizes.feed_forward if wide else sizes.hidden)
    _save(tensors, folder)
    (folder / "tokenizer.json").write_text(e5_tokenizer(file).to_str(), encoding="utf-8")
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.feed_forward,
        "vocab_size": sizes.vocabulary,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.token_types,
        "layer_norm_eps": float(f"{sizes.norm_epsilon:.6g}"),  # 1e-12 again, not its nearest 32-bit number
        "hidden_act": "gelu",
        "pad_token_id": 1,
    }
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": sizes.positions,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2))


def _save(tensors: dict[str, np.ndarray], folder: Path) -> None:
    try:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # it hides the system's own error in its text
        raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from error


def convert_gguf(content: bytes, folder: Path) -> None:
    """Write config.json, model.safetensors (fp32), tokenizer.json and tokenizer_config.json into an existing folder.

    For a decoder that `transformers` knows by its GGUF file; SmolLM2-135M takes about 25 s, 1.3 GB of memory and
    0.54 GB on the disk, once. Tied embeddings are written once. Its pieces are those of the published tokenizer, which
    splits digits first, on 3,000 lines of Reuters and 20 Newsgroups.

    Raises:
        AssetError: not a GGUF file, or not one that `transformers` can read.
        OSError: the disk is full or the folder cannot be written.
    """
    if not content.startswith(b"GGUF"):
        raise AssetError(said(f"model file {content[:4]!r}", "a GGUF file"))
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        (Path(place) / "model.gguf").write_bytes(content)
        try:
            with open(os.devnull, "w") as sink, redirect_stderr(sink):  # the reader's own bar knows no switch
                model = AutoModelForCausalLM.from_pretrained(place, gguf_file="model.gguf", local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(place, gguf_file="model.gguf", local_files_only=True)
        except (ValueError, KeyError, IndexError, struct.error) as error:
            given = f"GGUF file cannot be read ({type(error).__name__}: {error})"
            raise AssetError(said(given, "a whole one of a decoder that transformers knows")) from error
        finally:
            if bars:
                logging.enable_progress_bar()
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set[str]()
    _save({name: one.float().numpy() for name, one in model.state_dict().items() if name not in tied}, folder)
    config = model.config.to_diff_dict()
    config.pop("quantization_config", None)  # the weights are plain now
    config.pop("_model_name_or_path", None)
    config["rms_norm_eps"] = float(f"{config['rms_norm_eps']:.6g}")  # 1e-5 again, not its nearest 32-bit number
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "chat_template": tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2))
