"""Models: sources, loading, the classifier, surgery, and peft. Toy models, but where marked `assets`."""

from __future__ import annotations

import os
from pathlib import Path

import huggingface_hub.constants
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from paretune.core.config import validated
from paretune.core.errors import AssetError, ConfigError, UnknownNameError
from paretune.data.encoding import encode
from paretune.models import sources, surgery
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec, model_digest, model_folder, model_notes
from paretune.models.tiny import write_tiny_bert
from paretune.models.tokenizer import read_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy repository, and an empty home."""
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    return write_tiny_bert(tmp_path / "tiny", vocabulary=("prices", "нефть"))


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache as the hub lays it out, holding the toy as `someone/tiny` at `main`; no network."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    (repository / "snapshots").mkdir(parents=True)
    tiny.rename(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PARETUNE_OFFLINE", "1")
    return repository / "snapshots" / COMMIT


def test_a_local_folder_loads_as_fp32_in_eval_mode_without_dropout(tiny: Path) -> None:
    """`path:` gives the saved weights, fp32, no pooler, and the same output in train and eval mode."""
    encoder = load_encoder(f"path:{tiny}")
    saved = load_file(tiny / "model.safetensors")
    assert not encoder.training and encoder.config.model_type == "bert"
    assert {name: tensor.dtype for name, tensor in encoder.state_dict().items()} == dict.fromkeys(saved, torch.float32)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in encoder.state_dict().items())
    assert {module.p for module in encoder.modules() if isinstance(module, nn.Dropout)} == {0.0}
    ids_bt = torch.tensor([[2, 40, 41, 3]])
    assert torch.equal(encoder.train()(ids_bt).last_hidden_state, encoder.eval()(ids_bt).last_hidden_state)


def test_half_precision_weights_load_as_fp32(tiny: Path) -> None:
    """Weights saved in bf16 are trained in fp32."""
    half = {name: tensor.bfloat16() for name, tensor in load_file(tiny / "model.safetensors").items()}
    save_file(half, tiny / "model.safetensors", metadata={"format": "pt"})
    assert {parameter.dtype for parameter in load_encoder(f"path:{tiny}").parameters()} == {torch.float32}


def test_loading_is_quiet_and_leaves_the_log_level_alone(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No bar and no report of unused weights reach the terminal."""
    from transformers.utils import logging

    weights = load_file(tiny / "model.safetensors") | {"pooler.dense.bias": torch.zeros(32)}
    save_file(weights, tiny / "model.safetensors", metadata={"format": "pt"})
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_encoder(f"path:{tiny}")
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_relative_path_is_looked_up_from_the_base(tiny: Path) -> None:
    """A study's relative model path is relative to the study."""
    assert model_folder(f"path:{tiny.name}", base=tiny.parent) == tiny.resolve()


def test_an_incomplete_folder_is_one_clear_line(tiny: Path) -> None:
    """What is missing from a folder is named."""
    (tiny / "tokenizer.json").unlink()
    with pytest.raises(AssetError, match=r"has no tokenizer\.json; expected a saved transformers model"):
        read_tokenizer(f"path:{tiny}")
    (tiny / "config.json").unlink()
    (tiny / "model.safetensors").unlink()
    with pytest.raises(AssetError, match=r"config\.json, tokenizer\.json, model\.safetensors"):
        load_encoder(f"path:{tiny}")
    with pytest.raises(AssetError, match=r"there is no folder .*-absent; expected the folder of a saved"):
        load_encoder(f"path:{tiny}-absent")


def test_weights_that_do_not_fit_are_one_clear_line(tiny: Path) -> None:
    """A missing weight is an error, never a silent random initialisation."""
    weights = load_file(tiny / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tiny / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssetError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        load_encoder(f"path:{tiny}")


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", '{"model_type": "berd"}'), ("model.safetensors", "torn")],
)
def test_a_damaged_local_model_is_one_clear_line(tiny: Path, name: str, content: str) -> None:
    """Torn weights, broken JSON and an unknown model type are named, without a traceback's many lines."""
    (tiny / name).write_text(content)
    with pytest.raises(AssetError) as error:
        load_encoder(f"path:{tiny}")
    assert "cannot be read" in str(error.value) and "\n" not in str(error.value)


def test_the_tokenizer_neither_pads_nor_truncates_by_itself(tiny: Path) -> None:
    """Padding and truncation saved in tokenizer.json (as in minilm-l6) are switched off."""
    from tokenizers import Tokenizer

    saved = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    saved.enable_truncation(4)
    saved.enable_padding(length=12)
    saved.save(str(tiny / "tokenizer.json"))
    tokenizer = read_tokenizer(f"path:{tiny}")
    assert tokenizer.tokens("oil prices, нефть!") == ["[CLS]", "o", "##i", "##l", "prices", ",", "нефть", "!", "[SEP]"]
    assert tokenizer.pad_id == 0


def test_a_model_in_the_hubs_cache_loads_offline(hub: Path) -> None:
    """`hub:OWNER/NAME` and `@REVISION` load from the hub's own cache without a network."""
    assert model_folder("hub:someone/tiny") == hub == model_folder(f"hub:someone/tiny@{COMMIT}")
    assert surgery.count(load_encoder("hub:someone/tiny"))[1] > 0
    assert read_tokenizer("hub:someone/tiny").encode(["a"])[0].input_ids


@pytest.mark.parametrize("source", ["hub:someone/absent", "hub:someone/tiny@other"])
def test_a_hub_model_that_cannot_be_had_is_one_clear_line(hub: Path, source: str) -> None:
    """Without a network and outside the cache, the message names the model and what to do."""
    with pytest.raises(AssetError) as error:
        load_encoder(source)
    message = str(error.value)
    assert "\n" not in message and source in message and "path:FOLDER" in message


def test_a_hub_that_cannot_be_reached_is_one_clear_line(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is the same one line as a missing model."""
    monkeypatch.delenv("PARETUNE_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AssetError, match="hub:someone/absent is not on this machine"):
        load_encoder("hub:someone/absent")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("path:models/mine", ("path", "models/mine", None)),
        ("hub:owner/name", ("hub", "owner/name", None)),
        ("hub:owner/na.me-1@refs/pr/2", ("hub", "owner/na.me-1", "refs/pr/2")),
        ("asset:minilm-l6", ("asset", "minilm-l6", None)),
    ],
)
def test_a_source_is_split(source: str, expected: tuple[str, str, str | None]) -> None:
    """The three forms of a source."""
    assert sources.parse_source(source) == expected


@pytest.mark.parametrize("source", ["minilm-l6", "hub:name", "hub:a/b/c", "hub:a/b@", "path:", "file:x", ""])
def test_a_source_of_another_form_is_refused(source: str) -> None:
    """The message names the three forms."""
    with pytest.raises(ConfigError, match="asset:NAME"):
        sources.parse_source(source)


def test_an_unknown_model_asset_is_refused_with_the_nearest() -> None:
    """A misspelt asset is suggested; a corpus is no model."""
    with pytest.raises(UnknownNameError, match="did you mean 'minilm-l6'"):
        load_encoder("asset:minilm")
    with pytest.raises(UnknownNameError, match="is a corpus"):
        load_encoder("asset:reuters-r8")


def test_a_bad_source_in_a_study_is_a_clear_config_error() -> None:
    """The source is checked when the study is read, not when the first run starts."""
    with pytest.raises(ConfigError, match=r"source: model source 'minilm'.*asset:NAME"):
        validated({"source": "minilm"}, ModelSpec, "study.toml")
    assert validated({"source": "path:x"}, ModelSpec, "study.toml").pooling == "mean"


def test_the_digest_follows_the_contents(tiny: Path, tmp_path: Path) -> None:
    """The same files elsewhere have the same digest; a changed weight has another, stamp or no stamp."""
    first = model_digest(f"path:{tiny}")
    assert first == model_digest(f"path:{tiny}")
    assert first == model_digest(f"path:{write_tiny_bert(tmp_path / 'twin', vocabulary=('prices', 'нефть'))}")
    write_tiny_bert(tiny, vocabulary=("prices", "нефть"), seed=1)
    assert first != model_digest(f"path:{tiny}")


def test_a_model_of_the_same_size_and_time_is_seen(tiny: Path) -> None:
    """Another content is another digest, also where the file's time of writing was set back."""
    first, path = model_digest(f"path:{tiny}"), tiny / "model.safetensors"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert model_digest(f"path:{tiny}") != first


def test_an_unchanged_model_is_hashed_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call reads a stamp, not the weights."""
    first = model_digest(f"path:{tiny}")
    monkeypatch.setattr(sources.hashlib, "file_digest", None)
    assert model_digest(f"path:{tiny}") == first


def test_a_cache_that_cannot_be_written_is_no_obstacle(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an image the cache is read-only and the files are newer than what was remembered: it is hashed anew."""
    first = model_digest(f"path:{tiny}")
    blocked = tiny.parent / "blocked"
    blocked.write_text("")  # a file where the folder belongs: that stops root too
    monkeypatch.setenv("PARETUNE_HOME", str(blocked))
    assert model_digest(f"path:{tiny}") == first


def test_notes_stand_with_the_asset_only() -> None:
    """The 4-bit remark belongs to e5-small; other models have none."""
    assert model_notes("asset:e5-small") == ["quantised_4bit"]
    assert model_notes("path:anything") == model_notes("asset:minilm-l6") == []


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_does_not_change_the_logits(tiny: Path, pooling: str) -> None:
    """A row gives the same logits alone and padded beside a longer one."""
    model = EncoderClassifier(load_encoder(f"path:{tiny}"), 3, pooling)
    model.new_head(torch.Generator().manual_seed(0))
    alone_bc = model(torch.tensor([[2, 40, 3]]), torch.ones(1, 3, dtype=torch.long))
    ids_bt = torch.tensor([[2, 40, 3, 0, 0], [2, 41, 42, 43, 3]])
    padded_bc = model(ids_bt, torch.tensor([[1, 1, 1, 0, 0], [1] * 5]))
    torch.testing.assert_close(padded_bc[:1], alone_bc)
    assert not torch.allclose(padded_bc[1:], alone_bc)


def test_pooling_is_what_its_name_says(tiny: Path) -> None:
    """`mean` is the mean of the hidden states, `cls` the first one; anything else is refused."""
    encoder = load_encoder(f"path:{tiny}")
    ids_bt, mask_bt = torch.tensor([[2, 40, 3]]), torch.ones(1, 3, dtype=torch.long)
    hidden_bth = encoder(ids_bt).last_hidden_state
    torch.testing.assert_close(EncoderClassifier(encoder, 2, "mean").pooled(ids_bt, mask_bt), hidden_bth.mean(1))
    torch.testing.assert_close(EncoderClassifier(encoder, 2, "cls").pooled(ids_bt, mask_bt), hidden_bth[:, 0])
    with pytest.raises(ConfigError, match="pooling 'max'"):
        EncoderClassifier(encoder, 2, "max")


def test_features_and_logits_are_fp32_under_autocast(tiny: Path) -> None:
    """The encoder computes in the caller's bf16; pooling and head do not."""
    model = EncoderClassifier(load_encoder(f"path:{tiny}"), 3)
    model.new_head(torch.Generator().manual_seed(0))
    ids_bt, mask_bt = torch.tensor([[2, 40, 41, 3]]), torch.ones(1, 4, dtype=torch.long)
    full_bc = model(ids_bt, mask_bt)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features_bh, logits_bc = model.pooled(ids_bt, mask_bt), model(ids_bt, mask_bt)
    assert features_bh.dtype == logits_bc.dtype == torch.float32
    torch.testing.assert_close(logits_bc, model.head(features_bh))  # head in fp32: equal to the last bits
    assert not torch.equal(logits_bc, full_bc)  # the encoder did run in bf16


def test_the_head_depends_on_its_generator_alone(tiny: Path) -> None:
    """The same generator gives the same head, and the global generator is not touched."""
    before = torch.get_rng_state()
    model = EncoderClassifier(load_encoder(f"path:{tiny}"), 200)
    model.new_head(torch.Generator().manual_seed(1))
    first = model.head.weight.detach().clone()
    model.new_head(torch.Generator().manual_seed(1))
    assert torch.equal(first, model.head.weight) and first.std().item() == pytest.approx(0.02, rel=0.05)
    model.new_head(torch.Generator().manual_seed(2))
    assert not torch.equal(first, model.head.weight)
    assert torch.equal(before, torch.get_rng_state()) and not model.head.bias.any()


def test_writing_a_toy_is_reproducible_and_leaves_the_global_generator(tmp_path: Path) -> None:
    """Two toys of one seed are equal, and writing them draws nothing from outside."""
    before = torch.get_rng_state()
    first, second = (load_file(write_tiny_bert(tmp_path / name) / "model.safetensors") for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())


SMALL = {"vocab_size": 30, "max_position_embeddings": 20}
WIDTH = {**SMALL, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
FAMILIES = [
    (BertModel, BertConfig(**WIDTH), 6),
    (RobertaModel, RobertaConfig(**WIDTH), 6),
    (XLMRobertaModel, XLMRobertaConfig(**WIDTH), 6),
    (DistilBertModel, DistilBertConfig(**SMALL, dim=8, n_layers=2, n_heads=2, hidden_dim=16), 6),
    (LlamaModel, LlamaConfig(**WIDTH), 7),
]


@pytest.mark.parametrize(("family", "config", "linears"), FAMILIES, ids=lambda value: getattr(value, "__name__", ""))
def test_layers_and_linear_maps_are_found(family: type[PreTrainedModel], config: object, linears: int) -> None:
    """Every family has its two blocks, and its linear maps in them: attention and feed-forward, no pooler."""
    with torch.device("meta"):
        encoder = family(config)
    names = surgery.linear_names(encoder)
    assert len(surgery.layers(encoder)) == 2 and len(names) == 2 * linears
    assert all(isinstance(encoder.get_submodule(name), nn.Linear) for name in names)


def test_blocks_are_found_by_what_they_are() -> None:
    """GPT-2's too; a model without a list of blocks is refused with its parts, for the methods that need them."""
    with torch.device("meta"):
        encoder = GPT2Model(GPT2Config(n_embd=8, n_layer=3, n_head=2, vocab_size=60_000))
    assert len(surgery.layers(encoder)) == 3 and "h.2.attn.c_attn" in surgery.linear_names(encoder)
    encoder.h = torch.nn.ModuleList()
    with pytest.raises(ConfigError, match=r"'gpt2' has no list of transformer blocks among its parts \(wte, wpe.*full"):
        surgery.layers(encoder)


def test_freezing_counting_and_biases(tiny: Path) -> None:
    """Counts follow what is frozen, a shared parameter counts once, and biases include those of layer norms."""
    encoder = load_encoder(f"path:{tiny}")
    total = sum(tensor.numel() for tensor in load_file(tiny / "model.safetensors").values())
    assert surgery.count(encoder) == (total, total)
    surgery.freeze(encoder)
    assert surgery.count(encoder) == (0, total) and not surgery.trainable(encoder)
    biases = surgery.biases(encoder)
    for parameter in biases.values():
        parameter.requires_grad_(True)
    # a layer: query, key, value, attention output 4×32; feed-forward 64 + 32; two norms 2×32; and the embeddings' norm
    assert surgery.count(encoder)[0] == 2 * (4 * 32 + 64 + 32 + 2 * 32) + 32
    assert surgery.trainable(encoder).keys() == biases.keys()
    assert "embeddings.LayerNorm.bias" in biases


# peft still asks transformers 5.24 by the old name of a property.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_peft_encoder_trains_inside_the_classifier(tiny: Path) -> None:
    """LoRA on all linear layers leaves the logits as they were and gets gradients, with the base frozen."""
    model = EncoderClassifier(load_encoder(f"path:{tiny}"), 3)
    model.new_head(torch.Generator().manual_seed(0))
    ids_bt, mask_bt = torch.tensor([[2, 40, 41, 3]]), torch.ones(1, 4, dtype=torch.long)
    before_bc = model(ids_bt, mask_bt).detach()
    names = surgery.linear_names(model.encoder)
    model.encoder = peft.get_peft_model(model.encoder, peft.LoraConfig(r=2, target_modules=names))
    logits_bc = model(ids_bt, mask_bt)
    torch.testing.assert_close(logits_bc.detach(), before_bc)
    logits_bc.logsumexp(1).sum().backward()
    moved = surgery.trainable(model.encoder)
    assert len(moved) == 2 * len(names) and all("lora_" in name for name in moved)
    assert all(parameter.grad is not None for parameter in moved.values())
    assert any(parameter.grad.any() for parameter in moved.values() if parameter.grad is not None)


@pytest.mark.assets
def test_minilm_knows_what_is_alike() -> None:
    """The pinned English encoder gives the similarities that the quickstart of sbert.net prints for this model."""
    from tokenizers import Tokenizer

    source = "asset:minilm-l6"
    model, tokenizer = EncoderClassifier(load_encoder(source), classes=2), read_tokenizer(source)
    assert surgery.count(model.encoder)[1] == 22_565_376  # 22.7 M less the pooler
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    batch = encode(tokenizer, texts, 128).padded(range(len(texts)))
    with torch.inference_mode():
        features_bh = torch.nn.functional.normalize(model.pooled(*batch))
    cosine = features_bh @ features_bh.T
    assert [cosine[0, 1], cosine[0, 2], cosine[1, 2]] == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-4)
    raw = Tokenizer.from_file(os.fspath(model_folder(source) / "tokenizer.json"))
    raw.no_padding()
    assert tokenizer.encode(["Naïve café, 中文 don't!"])[0].input_ids == tuple(
        raw.encode("Naïve café, 中文 don't!").ids
    )
