"""The reader of GGUF files: a small one written here with the format's own library, and the real one."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from paretune.core.errors import AssetError
from paretune.models.convert import convert_gguf
from paretune.models.loading import load_encoder
from paretune.models.sources import model_folder, model_notes
from paretune.models.tokenizer import read_tokenizer

HIDDEN, WIDE, LAYERS = 64, 96, 2
PIECES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "he"]
MATRICES = {
    "token_embd": (len(PIECES), HIDDEN),
    **{f"blk.{layer}.ffn_{part}": (WIDE, HIDDEN) for layer in range(LAYERS) for part in ("gate", "up")},
    **{f"blk.{layer}.ffn_down": (HIDDEN, WIDE) for layer in range(LAYERS)},
    **{f"blk.{layer}.attn_{part}": (HIDDEN, HIDDEN) for layer in range(LAYERS) for part in ("q", "output")},
    **{f"blk.{layer}.attn_{part}": (HIDDEN // 2, HIDDEN) for layer in range(LAYERS) for part in ("k", "v")},
}
VECTORS = ("output_norm", *(f"blk.{layer}.{part}_norm" for layer in range(LAYERS) for part in ("attn", "ffn")))


def four_bits(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q4_1 by its description: of 32 weights a scale, a minimum and 16 bytes; and the numbers that they stand for."""
    rows, meant = [], []
    for block in weights.reshape(-1, 32):
        low = np.float16(block.min())
        scale = np.float16((block.max() - block.min()) / 15)
        codes = np.clip(np.round((block - np.float32(low)) / np.float32(scale)), 0, 15).astype(np.uint8)
        rows.append(np.concatenate([np.array([scale, low]).view(np.uint8), codes[:16] | codes[16:] << 4]))
        meant.append(codes * np.float32(scale) + np.float32(low))
    return np.concatenate(rows).reshape(weights.shape[0], -1), np.concatenate(meant).reshape(weights.shape)


def write_small(path: Path) -> dict[str, np.ndarray]:
    """A whole llama in Q4_1; returns the weights that it stands for, by the format's names."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // 4)
    writer.add_vocab_size(len(PIECES))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(PIECES)
    writer.add_token_types([3, 3, 3, *[1] * (len(PIECES) - 3)])
    writer.add_token_merges(["t h", "h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    meant: dict[str, np.ndarray] = {}
    for name, shape in MATRICES.items():
        blocks, meant[name] = four_bits(random.normal(size=shape).astype(np.float32))
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    for name in VECTORS:
        meant[name] = random.normal(size=HIDDEN).astype(np.float32)
        writer.add_tensor(f"{name}.weight", meant[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    meant = write_small(path)
    return path.read_bytes(), meant


def test_a_converted_file_loads_with_every_weight_in_its_place(
    small: tuple[bytes, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    """The folder loads as a llama whose parameters are the numbers that the 4-bit file stands for, embeddings tied."""
    content, meant = small
    folder = tmp_path / "made"
    folder.mkdir()
    convert_gguf(content, folder)
    assert [one.name for one in tmp_path.iterdir()] == ["made"], "the temporary copy is gone"
    state = load_encoder(f"path:{folder}").state_dict()
    for theirs, ours in (
        ("token_embd", "embed_tokens"),
        ("blk.0.ffn_gate", "layers.0.mlp.gate_proj"),
        ("blk.0.ffn_up", "layers.0.mlp.up_proj"),
        ("blk.1.ffn_down", "layers.1.mlp.down_proj"),
        ("blk.1.attn_v", "layers.1.self_attn.v_proj"),
        ("blk.0.attn_output", "layers.0.self_attn.o_proj"),
        ("blk.1.attn_norm", "layers.1.input_layernorm"),
        ("blk.0.ffn_norm", "layers.0.post_attention_layernorm"),
        ("output_norm", "norm"),
    ):
        np.testing.assert_array_equal(state[f"{ours}.weight"].numpy(), meant[theirs], err_msg=theirs)
    # GGUF keeps the two halves of a head's rotation interleaved
    by_heads = meant["blk.0.attn_q"].reshape(4, HIDDEN // 8, 2, HIDDEN).swapaxes(1, 2).reshape(HIDDEN, HIDDEN)
    np.testing.assert_array_equal(state["layers.0.self_attn.q_proj.weight"].numpy(), by_heads)
    assert len(state) == len(meant)
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config and config["rms_norm_eps"] == 1e-5
    assert config["tie_word_embeddings"] is True and config["num_key_value_heads"] == 2


def test_the_tokenizer_has_pieces_and_a_padding_token(
    small: tuple[bytes, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    """Merges apply, and the special tokens are those of the file."""
    convert_gguf(small[0], tmp_path)
    tokenizer = read_tokenizer(f"path:{tmp_path}")
    assert tokenizer.tokens("the cat") == ["th", "e", "Ġ", "c", "a", "t"]
    assert (tokenizer.pad_id, tokenizer.first_id) == (2, 1)
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert [about["bos_token"], about["eos_token"]] == PIECES[1:3]


@pytest.mark.parametrize("cut", ["another", "short"])
def test_what_is_no_whole_file_is_one_clear_line(
    small: tuple[bytes, dict[str, np.ndarray]], tmp_path: Path, cut: str
) -> None:
    """Another format and a file that ends early are refused, and nothing is written."""
    content = b"E5S1" + small[0][4:] if cut == "another" else small[0][:200]
    folder = tmp_path / "made"
    folder.mkdir()
    with pytest.raises(AssetError, match="GGUF") as error:
        convert_gguf(content, folder)
    assert "\n" not in str(error.value)
    assert not list(folder.iterdir())


@pytest.mark.assets
@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france() -> None:
    """The whole model's weights are in place: 134.5 M parameters with tied embeddings, and a sensible next word."""
    source = "asset:smollm2-135m"
    tokenizer = read_tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(model_folder(source), dtype=torch.float32).eval()
    assert sum(one.numel() for one in model.parameters()) == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = torch.tensor([tokenizer.encode(["The capital of France is"])[0].input_ids])
    with torch.inference_mode():
        best = int(model(input_ids=ids).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Paris"
    assert model_notes(source) == ["quantised_4bit"]
