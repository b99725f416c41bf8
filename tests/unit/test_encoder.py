"""The encoder written out for the server gives what `transformers` gives, from whatever files it is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from paretune.core.errors import AssetError, UnknownNameError
from paretune.kernels.low_rank import LowRank
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec, model_folder
from paretune.models.surgery import linear_names
from paretune.models.tokenizer import read_tokenizer
from paretune.models.weights import WORDS, PlainEncoder, plain_encoder
from paretune.serve.base_model import BaseModel, joined
from paretune.serve.encoder import Encoder, Place

IDS = ((2, 9, 14, 3), (2, 3), (2, 30, 31, 32, 33, 3), (2, 40, 41, 3))
TEXTS = ["Ein Café, naïve — ÀÉÎ", "Ёлка и «кавычки»…", "😀 👩‍👩‍👧 \u200b zero", "", "a" * 300, "1,234.5 €\tx\n"]


def _copy(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    return to


def _change(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _expected(source: str) -> torch.Tensor:
    """Hidden states of each text alone, by `transformers`."""
    encoder = load_encoder(source)
    with torch.no_grad():
        return torch.cat([encoder(torch.tensor([ids])).last_hidden_state[0] for ids in IDS])


def _found(source: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return Encoder(plain_encoder(source), dtype).hidden(IDS, [], {})


def _agree(folder: Path) -> None:
    torch.testing.assert_close(_found(f"path:{folder}"), _expected(f"path:{folder}"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_hidden_states_are_those_of_transformers(tiny_model: Path, tmp_path: Path, activation: str) -> None:
    """Texts of several lengths, in one row of tokens, for every activation that is known."""
    folder = _copy(tiny_model, tmp_path / "model")
    _change(folder, hidden_act=activation)
    _agree(folder)


def test_bf16_is_near_fp32(tiny_model: Path) -> None:
    """Linear maps in bf16 are within its rounding of fp32."""
    source = f"path:{tiny_model}"
    torch.testing.assert_close(_found(source, torch.bfloat16), _found(source), rtol=0, atol=0.08)


def test_a_model_saved_with_a_head_is_read_without_it(tiny_model: Path, tmp_path: Path) -> None:
    """Names with the task model's prefix; its head and pooler are left."""
    folder = _copy(tiny_model, tmp_path / "model")
    config = BertConfig.from_pretrained(folder)
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    assert any(name.startswith("bert.") for name in load_file(folder / "model.safetensors"))
    _agree(folder)
    assert plain_encoder(f"path:{folder}").weights.keys() == plain_encoder(f"path:{tiny_model}").weights.keys()


def test_files_that_are_not_plain_are_read_by_transformers(tiny_model: Path, tmp_path: Path) -> None:
    """Weights in a .bin, and weights in several files."""
    binary, several = _copy(tiny_model, tmp_path / "binary"), _copy(tiny_model, tmp_path / "several")
    torch.save(load_file(tiny_model / "model.safetensors"), binary / "pytorch_model.bin")
    (binary / "model.safetensors").unlink()
    load_encoder(f"path:{tiny_model}").save_pretrained(several, max_shard_size="20KB")
    (several / "model.safetensors").unlink()
    assert len(list(several.glob("*.safetensors"))) > 1
    expected = _expected(f"path:{tiny_model}")
    for folder in (binary, several):
        torch.testing.assert_close(_found(f"path:{folder}"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("missing", "encoder.layer.1.output.dense.weight"),
        ("shape", "encoder.layer.0.attention.self.key.weight"),
        ("words", WORDS),
        ("torn", "cannot be read"),
    ],
)
def test_weights_that_do_not_fit_are_named(tiny_model: Path, tmp_path: Path, fault: str, said: str) -> None:
    """A weight missing or of another shape, no embeddings at all, a torn file: one line says which."""
    folder = _copy(tiny_model, tmp_path / "model")
    file = folder / "model.safetensors"
    weights = load_file(file)
    if fault == "torn":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        if fault == "shape":
            weights[said] = weights[said][:, :-1].contiguous()
        else:
            del weights[said]
        save_file(weights, file)
    with pytest.raises(AssetError, match=said):
        plain_encoder(f"path:{folder}")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"hidden_act": "swish2"}, "swish2"), ({"is_decoder": True}, "a decoder"), ({"model_type": "brt"}, "type 'brt'")],
)
def test_a_model_of_another_kind_is_refused(tiny_model: Path, tmp_path: Path, change: dict, said: str) -> None:
    """An activation that is not known, a decoder, a type of model that is not known."""
    folder = _copy(tiny_model, tmp_path / "model")
    _change(folder, **change)
    with pytest.raises(UnknownNameError, match=said):
        Encoder(plain_encoder(f"path:{folder}"), torch.float32)


def test_heads_that_do_not_share_out_the_features_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """32 features are not for 5 heads."""
    folder = _copy(tiny_model, tmp_path / "model")
    _change(folder, num_attention_heads=5)
    with pytest.raises(AssetError, match="5 attention heads of 32"):
        Encoder(plain_encoder(f"path:{folder}"), torch.float32)


def _plain(tiny_model: Path) -> PlainEncoder:
    return plain_encoder(f"path:{tiny_model}")


@pytest.mark.parametrize("updated", [("query", "key", "value"), ("query", "value"), ("key",)])
def test_updates_of_joined_maps_are_those_of_each_alone(tiny_model: Path, updated: tuple[str, ...]) -> None:
    """Other ranks on any of query, key and value: each segment's texts see the weights that were changed alone."""
    plain, generator = _plain(tiny_model), torch.Generator().manual_seed(0)
    encoder = Encoder(plain, torch.float32)
    parts: list[tuple[Place, LowRank]] = []
    changed = dict(plain.weights)
    for rank, child in enumerate(updated, 1):
        name = f"encoder.layer.0.attention.self.{child}"
        update = LowRank(torch.randn(rank, 32, generator=generator), torch.randn(32, rank, generator=generator))
        parts.append((encoder.places[name], update))
        changed[f"{name}.weight"] = plain.weights[f"{name}.weight"] + update.b_or @ update.a_ri
    whole = parts[0][0].whole
    other = Encoder(PlainEncoder(plain.kind, plain.config, plain.blocks, changed), torch.float32)
    tokens = [len(ids) for ids in IDS]
    segments = [(sum(tokens[:2]), {whole: joined(parts, 96)}), (sum(tokens[2:]), {})]
    found = encoder.hidden(IDS, segments, {})
    expected = torch.cat([other.hidden(IDS[:2], [], {}), encoder.hidden(IDS[2:], [], {})])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(found, encoder.hidden(IDS, [], {}), atol=1e-3)


def test_replaced_weights_are_those_of_one_pass(tiny_model: Path) -> None:
    """The pass after it gives what the one before gave."""
    encoder = Encoder(_plain(tiny_model), torch.float32)
    before = encoder.hidden(IDS, [], {})
    name = "encoder.layer.1.output.dense.bias"
    assert not torch.equal(encoder.hidden(IDS, [], {name: encoder.weights[name] + 1}), before)
    assert torch.equal(encoder.hidden(IDS, [], {}), before)


def test_every_linear_map_of_the_blocks_has_its_place(tiny_model: Path) -> None:
    """Their names and sizes are those of `transformers`; joined maps are held once, in the wanted number format."""
    model = load_encoder(f"path:{tiny_model}")
    shapes = {name: tuple(model.get_submodule(name).weight.shape) for name in linear_names(model)}
    assert BaseModel(ModelSpec(source=f"path:{tiny_model}"), "fp32").linear_shapes == shapes
    weights = Encoder(_plain(tiny_model), torch.bfloat16).weights
    joined_name = "encoder.layer.0.attention.self.joined.weight"
    assert weights[joined_name].shape == (96, 32)
    assert weights[joined_name].dtype == torch.bfloat16
    assert not any(".query." in name for name in weights)


def _same_ids(source: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder(source))
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    for prefix in ("", "query: "):
        expected = [tuple(ids)[:40] for ids in tokenizer([prefix + text for text in TEXTS])["input_ids"]]
        found = [one.input_ids for one in read_tokenizer(source).encode(TEXTS, 512, prefix)]
        assert [ids[:40] for ids in found] == expected


def test_token_ids_are_those_of_transformers(tiny_model: Path) -> None:
    """Accents, quotes, emoji, zero width, no text, long text, tabs; with a prefix and without."""
    _same_ids(f"path:{tiny_model}")


@pytest.mark.assets
@pytest.mark.parametrize("asset", ["minilm-l6", "e5-small"])
def test_assets_give_the_same_ids_and_hidden_states(asset: str) -> None:
    """The pinned models, read plainly and by `transformers`."""
    source = f"asset:{asset}"
    _same_ids(source)
    ids = [one.input_ids for one in read_tokenizer(source).encode(TEXTS, 512, "")]
    encoder = load_encoder(source)
    with torch.no_grad():
        expected = torch.cat([encoder(torch.tensor([one])).last_hidden_state[0] for one in ids])
    found = Encoder(plain_encoder(source), torch.float32).hidden(ids, [], {})
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


def test_a_torn_tokenizer_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    """tokenizer.json that cannot be read is named."""
    folder = _copy(tiny_model, tmp_path / "model")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(AssetError, match=r"tokenizer\.json cannot be read"):
        read_tokenizer(f"path:{folder}")
