"""A decoder as a classifier: its last token's features, its tokenizer's padding, its pooling where none is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from paretune.core.errors import AssetError, ConfigError
from paretune.data.encoding import Encoded, encode
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec, settled
from paretune.models.tiny import write_tiny_llama
from paretune.models.tokenizer import read_tokenizer

TEXTS = ["a loan", "the barrel of crude said the company today", "goal", "x"]


@pytest.fixture
def encoded(tiny_decoder: Path) -> Encoded:
    return encode(read_tokenizer(f"path:{tiny_decoder}"), TEXTS, max_tokens=32)


def test_last_pooling_takes_the_last_real_token_whatever_the_padding(tiny_decoder: Path, encoded: Encoded) -> None:
    """In a padded batch of texts of different lengths as with each text alone, by plain indexing."""
    encoder = load_encoder(f"path:{tiny_decoder}")
    model = EncoderClassifier(encoder, 3, "last")
    assert len(set(encoded.lengths_n.tolist())) > 2
    with torch.inference_mode():
        found_bh = model.pooled(*encoded.padded(range(len(TEXTS))))
        for row, ids in enumerate(encoded.ids):
            alone_th = encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]
            torch.testing.assert_close(found_bh[row], alone_th[-1], atol=1e-5, rtol=1e-5)


def test_last_pooling_does_not_depend_on_what_pads(tiny_decoder: Path, encoded: Encoded) -> None:
    """Another padding token and more of it give the same features, to the bit of the last place."""
    model = EncoderClassifier(load_encoder(f"path:{tiny_decoder}"), 3, "last")
    input_ids_bt, mask_bt = encoded.padded(range(len(TEXTS)))
    other_bt = torch.where(mask_bt == 1, input_ids_bt, 77)
    wide_bt = torch.nn.functional.pad(other_bt, (0, 5), value=78)
    with torch.inference_mode():
        wanted_bh = model.pooled(input_ids_bt, mask_bt)
        torch.testing.assert_close(model.pooled(other_bt, mask_bt), wanted_bh, atol=1e-6, rtol=1e-6)
        wide_mask_bt = torch.nn.functional.pad(mask_bt, (0, 5))
        torch.testing.assert_close(model.pooled(wide_bt, wide_mask_bt), wanted_bh, atol=1e-6, rtol=1e-6)


def test_features_are_fp32_under_autocast(tiny_decoder: Path, encoded: Encoded) -> None:
    """The encoder runs in bf16, what is pooled does not."""
    model = EncoderClassifier(load_encoder(f"path:{tiny_decoder}"), 3, "last")
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(*encoded.padded([0, 1])).dtype == torch.float32


def test_an_empty_text_has_features(tiny_decoder: Path) -> None:
    """A decoder's tokenizer makes no token of it; its batch is one padding token wide, and the features are finite."""
    encoded = encode(read_tokenizer(f"path:{tiny_decoder}"), [""], max_tokens=32)
    assert encoded.ids == ((),)
    model = EncoderClassifier(load_encoder(f"path:{tiny_decoder}"), 3, "last")
    with torch.inference_mode():
        assert torch.isfinite(model(*encoded.padded([0]))).all()


def test_the_base_model_has_no_output_map(tiny_decoder: Path) -> None:
    """Of the causal model the blocks, embeddings and last norm are loaded, and keep no keys and values."""
    encoder = load_encoder(f"path:{tiny_decoder}")
    assert type(encoder).__name__ == "LlamaModel"
    assert encoder.config.use_cache is False


def test_a_tokenizer_without_padding_pads_with_its_end(tiny_decoder: Path, tmp_path: Path) -> None:
    """One that names neither is refused in one line."""
    tokenizer = read_tokenizer(f"path:{tiny_decoder}")
    assert tokenizer.pad_id == 2  # <|im_end|>
    shutil.copytree(tiny_decoder, tmp_path / "none")
    about = json.loads((tmp_path / "none" / "tokenizer_config.json").read_text())
    del about["eos_token"]
    (tmp_path / "none" / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(AssetError, match=r"names no token for padding.*pad_token"):
        read_tokenizer(f"path:{tmp_path / 'none'}")


def test_a_decoder_is_pooled_by_its_last_token_where_nothing_is_said(tiny_decoder: Path, tiny_model: Path) -> None:
    """What is said stays, but for the first token, which has seen nothing; an encoder's mean stays the default."""
    source = f"path:{tiny_decoder}"
    assert settled(ModelSpec(source=source)).pooling == "last"
    assert settled(ModelSpec(source=source, pooling="mean")).pooling == "mean"
    assert settled(ModelSpec(source=f"path:{tiny_model}")).pooling == "mean"
    with pytest.raises(ConfigError, match=r'"cls".*first token.*"last" or "mean"'):
        settled(ModelSpec(source=source, pooling="cls"))


def test_an_untied_toy_has_an_output_map_of_its_own(tmp_path: Path) -> None:
    """It is saved, and left out where the base model is loaded."""
    write_tiny_llama(tmp_path, tied=False)
    assert not any("lm_head" in name for name, _ in load_encoder(f"path:{tmp_path}").named_parameters())
