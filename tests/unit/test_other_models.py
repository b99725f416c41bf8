"""Models of types that stand in no table: taken as they are, or refused in a line before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_families import GROUPED, SIZES, byte_pieces, marks, pieces

from paretune.core.errors import ConfigError, RunError
from paretune.data.encoding import Encoded
from paretune.models.check import check_model
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder, load_outline
from paretune.models.sources import ModelSpec, settled
from paretune.study.design import make_method
from paretune.study.misfits import misfit
from paretune.train.evaluate import check_padding

PIECES, MARKS, BYTES = pieces, marks, byte_pieces
OF_66 = {**SIZES, "max_position_embeddings": 66}
BART = {
    f"{part}_{name}": value
    for part in ("encoder", "decoder")
    for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))
}
Family = tuple[str, Any, dict[str, Any]]
TAKEN: dict[str, Family] = {
    "bart": ("Bart", MARKS, {"d_model": 32, **BART}),
    "big_bird": ("BigBird", PIECES, {**SIZES, "block_size": 4, "num_random_blocks": 1}),
    "bloom": ("Bloom", BYTES, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "deberta": ("Deberta", PIECES, {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "falcon": ("Falcon", BYTES, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "gpt_neox": ("GPTNeoX", BYTES, SIZES),
    "longformer": ("Longformer", MARKS, {**SIZES, "attention_window": 8, "max_position_embeddings": 130}),
    "luke": ("Luke", MARKS, {**OF_66, "entity_vocab_size": 10, "entity_emb_size": 8}),
    "mamba": ("Mamba", BYTES, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "opt": ("OPT", BYTES, {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "phi3": ("Phi3", BYTES, {**SIZES, **GROUPED}),
    "roformer": ("RoFormer", PIECES, {**SIZES, "embedding_size": 32}),
    "xlnet": ("XLNet", MARKS, {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
}
REFUSED: dict[str, tuple[Family, str]] = {
    "fnet": (("FNet", PIECES, SIZES), "depends on the padding beside it"),
    "convbert": (("ConvBert", PIECES, {**SIZES, "embedding_size": 32}), "depends on the padding beside it"),
    "mobilebert": (
        ("MobileBert", PIECES, {**SIZES, "embedding_size": 16, "intra_bottleneck_size": 16}),
        "depends on the padding beside it",
    ),
    "funnel": (
        ("Funnel", PIECES, {"block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64}),
        "depends on the padding beside it",
    ),
    "nystromformer": (
        ("Nystromformer", PIECES, {**SIZES, "segment_means_seq_len": 16, "num_landmarks": 4}),
        "texts of some lengths only",
    ),
    "ibert": (("IBert", MARKS, OF_66), r"no plain table of token embeddings \(QuantEmbedding\); its parts: embeddings"),
    "canine": (("Canine", PIECES, SIZES), r"no plain table of token embeddings \(none\); its parts: char_embeddings"),
}


def written(family: Family, folder: Path) -> str:
    """A random model of a type, in a folder; its source."""
    name, tokenizer, settings = family
    made, about = tokenizer()
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2} if tokenizer is MARKS else {}
    positions = {} if name == "XLNet" else {"max_position_embeddings": 128}
    whole = {"vocab_size": made.get_vocab_size(), **positions, **ids, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**whole))
        for path, one in model.named_parameters():
            if one.ndim > 1 and "norm" not in path.lower():
                torch.nn.init.normal_(one, std=0.2)
    model.save_pretrained(folder)
    return f"path:{folder}"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", TAKEN)
def test_a_model_of_another_type_is_taken(tmp_path: Path, kind: str) -> None:
    """It passes what is looked at beforehand; features have the config's width, and padding changes none of them;
    each method fits it, or says in a line why not."""
    source = written(TAKEN[kind], tmp_path / "model")
    check_model(source, 32)
    model = EncoderClassifier(load_encoder(source), 3, settled(ModelSpec(source=source)).pooling)
    check_padding(model, Encoded(((5, 6, 7, 8, 9, 10, 11),), 1))
    outline = load_outline(source)
    for name in ("lora", "last_layers", "bitfit", "full", "head", "probe"):
        why = misfit(make_method(name, {}), outline)  # type: ignore[arg-type]
        refused = {"mamba": {"lora"}, "phi3": {"bitfit"}}.get(kind, set[str]())
        assert bool(why) is (name in refused) and "\n" not in why, (name, why)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_would_answer_wrongly_or_not_at_all_is_refused(tmp_path: Path, kind: str) -> None:
    """Before anything runs, in one line that says why."""
    family, why = REFUSED[kind]
    source = written(family, tmp_path / "model")
    with pytest.raises(ConfigError, match=why) as error:
        check_model(source, 32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["fnet", "convbert", "mobilebert", "funnel"])
def test_a_model_that_sees_padding_is_found_out_whatever_its_type(tmp_path: Path, kind: str) -> None:
    """What no table knows ends its run by name instead of answering otherwise in every batch."""
    model = EncoderClassifier(load_encoder(written(REFUSED[kind][0], tmp_path / "model")), 3)
    with pytest.raises(RunError, match=rf"with padding beside it \(model of type '{kind}'\)"):
        check_padding(model, Encoded(((5, 6, 7, 8, 9, 10, 11),), 0))
