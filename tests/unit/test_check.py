"""What is looked at before anything runs: model, tokenizer and settings that do not go together are one clear line."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from tiny_families import byte_pieces, marks, pieces, write_family
from tokenizers import AddedToken, Tokenizer, normalizers
from toy_study import study_text
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from paretune.core.errors import AssetError, BundleError, ConfigError, UsageError
from paretune.data.encoding import encode, encode_whole
from paretune.kernels.low_rank import LowRank
from paretune.models.check import check_model
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec
from paretune.models.tiny import write_tiny_bert
from paretune.models.tokenizer import ODD_TEXTS, read_tokenizer
from paretune.models.weights import plain_encoder
from paretune.serve.alone import beside
from paretune.serve.base_model import load_base
from paretune.study.design import read_study_file
from paretune.study.progress import Silent
from paretune.study.runner import run_study


@pytest.mark.parametrize(
    ("kind", "usable", "why"),
    [("roberta", 64, "66 less 2 before the first"), ("mpnet", 64, "66 less 2"), ("bert", 128, ""), ("gpt2", 128, "")],
)
def test_max_tokens_above_the_positions_is_refused(tmp_path: Path, kind: str, usable: int, why: str) -> None:
    """RoBERTa's usable positions begin after its padding index."""
    source = f"path:{write_family(kind, tmp_path / kind)}"
    assert check_model(source, usable) == []
    with pytest.raises(
        ConfigError, match=rf"max_tokens = {usable + 1}.*{usable} tokens.*expected 4 to {usable}"
    ) as error:
        check_model(source, usable + 1)
    assert why in str(error.value)


def test_positions_after_another_padding_index(tmp_path: Path) -> None:
    """A Japanese RoBERTa pads with token 3: two positions fewer again."""
    folder = write_family("roberta", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 3}))
    with pytest.raises(ConfigError, match="expected 4 to 62"):
        check_model(f"path:{folder}", 64)


@pytest.mark.parametrize("kind", ["t5", "deberta-v2"])
def test_relative_positions_set_no_limit(tmp_path: Path, kind: str) -> None:
    """A model without a table of positions takes what the study says."""
    assert check_model(f"path:{write_family(kind, tmp_path / kind)}", 4096) == []


def test_rotary_positions_end_where_training_ended(tmp_path: Path) -> None:
    """Beyond its config's positions a rotary model was never trained."""
    with pytest.raises(ConfigError, match="positions for 128 tokens"):
        check_model(f"path:{write_family('qwen3', tmp_path / 'q')}", 129)


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tmp_path: Path) -> None:
    """Whether words or added tokens have the ids that are too large."""
    folder = write_tiny_bert(tmp_path / "model")
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.add_tokens(["a-new-token"])
    made.save(str(folder / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"ids up to \d+, its embeddings \d+ rows; expected ids up to .*resize"):
        check_model(f"path:{folder}", 16)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question on the terminal is an error."""

    def never(prompt: str = "") -> NoReturn:
        raise AssertionError(f"asked: {prompt}")

    monkeypatch.setattr(builtins, "input", never)


@pytest.mark.usefixtures("asked")
def test_code_of_a_models_folder_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A type that only the folder's own code knows is refused without a question; nothing of it was executed."""
    folder = write_tiny_bert(tmp_path / "model")
    mark = tmp_path / "REMOTE_CODE_RAN"
    evil = f"open({str(mark)!r}, 'w').write('x')\n"
    for name in ("configuration_own", "modeling_own", "tokenization_own"):
        (folder / f"{name}.py").write_text(evil)
    for name, more in (
        ("config.json", {"auto_map": {"AutoConfig": "configuration_own.C", "AutoModel": "modeling_own.M"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "tokenization_own.T"]}}),
    ):
        tree = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**tree, **more}))
    monkeypatch.chdir(tmp_path)
    assert check_model(f"path:{folder}", 16) == []  # a type that transformers itself knows needs none of it
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**tree, "model_type": "own-bert"}))
    for act in (load_encoder, lambda source: check_model(source, 16)):
        with pytest.raises(AssetError, match=r"code from its own folder.*never run") as error:
            act(f"path:{folder}")
        assert "\n" not in str(error.value)
    assert not mark.exists()


def test_a_quantised_checkpoint_is_named(tmp_path: Path) -> None:
    """Weights that need another library's kernels are refused before they are read."""
    folder = write_tiny_bert(tmp_path / "model")
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**tree, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(AssetError, match=r"quantised weights.*take the model that it was made from"):
        check_model(f"path:{folder}", 16)


def test_an_adapters_folder_names_its_base(tmp_path: Path) -> None:
    """peft's folder is no model; the line says which model it belongs to."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(AssetError, match=r"adapter of peft, not a model; expected its base, someone/base"):
        check_model(f"path:{tmp_path}", 16)
    with pytest.raises(AssetError, match="there is no folder"):
        check_model(f"path:{tmp_path / 'absent'}", 16)


def test_a_tokenizer_that_transformers_builds_otherwise_is_said(tmp_path: Path) -> None:
    """The class named in the configuration drops the file's normalizer: the file wins, and the terminal says so."""
    folder = write_family("roberta", tmp_path / "model", tokenizer={"tokenizer_class": "RobertaTokenizer"})
    made, _ = marks()
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.save(str(folder / "tokenizer.json"))
    (note,) = check_model(f"path:{folder}", 64)
    assert "builds another tokenizer (RobertaTokenizer) than its tokenizer.json" in note and "file's are taken" in note
    ids = read_tokenizer(f"path:{folder}").encode(["Crude OIL"])[0].input_ids
    assert (
        ids
        == tuple(made.encode("Crude OIL").ids)
        != tuple(AutoTokenizer.from_pretrained(folder)("Crude OIL").input_ids)
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_end_that_the_configuration_names_is_cut(tmp_path: Path, side: str) -> None:
    """As transformers cuts, special tokens kept, for every odd text and several lengths."""
    folder = write_family("bert", tmp_path / "model", tokenizer={"truncation_side": side})
    ours, theirs = read_tokenizer(f"path:{folder}"), AutoTokenizer.from_pretrained(folder)
    for longest in (2, 3, 7, 50):
        wanted = theirs(list(ODD_TEXTS), truncation=True, max_length=longest)["input_ids"]
        assert [list(row) for row in encode(ours, list(ODD_TEXTS), longest).ids] == wanted
    assert {one.truncated for one in ours.encode(["a b c d e f", "a"], 6)} == {True, False}


def test_a_cut_at_the_left_leaves_the_bytes_of_the_end(tmp_path: Path) -> None:
    """A language model's bits per byte count the bytes that its tokens stand for."""
    folder = write_family("llama", tmp_path / "model", tokenizer={"truncation_side": "left"})
    encoded = encode_whole(read_tokenizer(f"path:{folder}"), ["xyz zyx qqq", "привет"], 5)
    assert encoded.text_bytes == (4, 4) and all(len(row) == 5 for row in encoded.ids)


def test_a_side_saved_in_the_file_itself_counts(tmp_path: Path) -> None:
    """tokenizer.json may name the side where the configuration does not; another word than left or right is refused."""
    folder = write_family("bert", tmp_path / "model")
    made, _ = pieces()
    made.enable_truncation(8, direction="left")
    made.save(str(folder / "tokenizer.json"))
    assert read_tokenizer(f"path:{folder}").cut == "left"
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, "truncation_side": "middle"}))
    with pytest.raises(AssetError, match="truncation_side = 'middle'; expected 'left' or 'right'"):
        read_tokenizer(f"path:{folder}")


def test_dropout_of_merges_is_off(tmp_path: Path) -> None:
    """A file that draws its merges at random would train and answer otherwise at every call."""
    folder = write_family("gpt2", tmp_path / "model")
    made, _ = byte_pieces()
    made.model.dropout = 0.9
    made.save(str(folder / "tokenizer.json"))
    tokenizer = read_tokenizer(f"path:{folder}")
    assert len({tokenizer.encode(["the crude barrel and the refinery"])[0].input_ids for _ in range(20)}) == 1


def test_added_tokens_of_the_file_are_kept(tmp_path: Path) -> None:
    """A token that was added, special or not, is one id in training and in serving."""
    folder = write_family("bert", tmp_path / "model")
    made, _ = pieces()
    made.add_tokens([AddedToken("<user>", normalized=False), "[CITY]"])
    made.save(str(folder / "tokenizer.json"))
    assert read_tokenizer(f"path:{folder}").tokens("<user> in [CITY]")[1] == "<user>"


def test_a_vocabulary_alone_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vocab.txt without tokenizer.json gives the tokens of transformers, and the conversion is kept."""
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    folder = write_family("bert", tmp_path / "model")
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda one: vocabulary[one])) + "\n")
    whole = shutil.copytree(folder, tmp_path / "whole")
    (folder / "tokenizer.json").unlink()
    (note,) = check_model(f"path:{folder}", 16)
    assert "has no tokenizer.json" in note
    texts = list(ODD_TEXTS)
    assert encode(read_tokenizer(f"path:{folder}"), texts, 40) == encode(read_tokenizer(f"path:{whole}"), texts, 40)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", None)
    assert read_tokenizer(f"path:{folder}").encode(["crude oil"])


def test_what_cannot_be_converted_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SentencePiece model that is none is one line."""
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    folder = write_family("t5", tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"has no tokenizer\.json.*save_pretrained") as error:
        check_model(f"path:{folder}", 16)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "said"), [("max_tokens = 65", "max_tokens = 65"), ("max_tokens = 64", None)])
def test_a_study_is_refused_before_anything_is_written(tmp_path: Path, change: str, said: str | None) -> None:
    """The folder of a study that cannot run is not left behind; one that can goes on to its data."""
    write_family("roberta", tmp_path / "model")
    text = study_text(f"path:{tmp_path / 'model'}", {"head": ""}).replace("max_tokens = 32", change)
    (tmp_path / "toy.toml").write_text(text)
    with pytest.raises(UsageError, match=said or r"toy\.csv"):  # there are no data
        run_study(read_study_file(tmp_path / "toy.toml"), tmp_path / "runs", Silent(), "test")
    assert not (tmp_path / "runs" / "toy").exists()


@pytest.mark.parametrize("form", ["fp16", "bf16", "bin", "shards", "classifier"])
def test_every_form_of_a_checkpoint_is_read(tmp_path: Path, form: str) -> None:
    """Half precision, pickled tensors, several files, a head for other labels: the encoder is the same, in fp32."""
    folder = write_family("bert", tmp_path / "model")
    whole = load_encoder(f"path:{folder}")
    wanted = {name: one.clone() for name, one in whole.named_parameters()}
    (folder / "model.safetensors").unlink()
    match form:
        case "fp16" | "bf16":
            whole.to(torch.float16 if form == "fp16" else torch.bfloat16).save_pretrained(folder)
        case "bin":
            torch.save(whole.state_dict(), folder / "pytorch_model.bin")
        case "shards":
            whole.save_pretrained(folder, max_shard_size="20KB")
            assert len(list(folder.glob("*.safetensors"))) > 2
        case _:
            classifier = BertForSequenceClassification(BertConfig(**{**whole.config.to_dict(), "num_labels": 7}))
            classifier.bert.load_state_dict(whole.state_dict(), strict=False)
            classifier.save_pretrained(folder)
    source = f"path:{folder}"
    assert check_model(source, 32) == []
    off = {"fp16": 1e-3, "bf16": 1e-2}.get(form, 0.0)
    packed = plain_encoder(source).weights
    for name, one in load_encoder(source).named_parameters():
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, wanted[name], rtol=off, atol=off)
        torch.testing.assert_close(packed[name], wanted[name], rtol=off, atol=off)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "camembert", "gpt2", "t5"])
def test_odd_texts_are_served_as_transformers_reads_them(tmp_path: Path, kind: str) -> None:
    """Special tokens typed by a user among them: RoBERTa's padding token in a text has a position of its own."""
    source = f"path:{write_family(kind, tmp_path / 'model')}"
    texts = [one.input_ids for one in read_tokenizer(source).encode(ODD_TEXTS, 40) if one.input_ids]
    encoder = load_encoder(source)
    with torch.inference_mode():
        wanted = [
            encoder(input_ids=torch.tensor([one]), attention_mask=torch.ones(1, len(one))).last_hidden_state[0]
            for one in texts
        ]
    base = load_base(ModelSpec(source=source), "fp32")
    assert base.path == ("packed" if kind in ("bert", "roberta", "distilbert") else "plain")
    torch.testing.assert_close(base.hidden(texts, [], {}), torch.cat(wanted), rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "modernbert"])
def test_adapters_of_a_base_answer_as_alone(tmp_path: Path, kind: str) -> None:
    """Texts of two adapters and of none in one call, parameters replaced, and weights merged: as each by itself."""
    source = f"path:{write_family(kind, tmp_path / 'model')}"
    base = load_base(ModelSpec(source=source), "fp32")
    draw = torch.Generator().manual_seed(0)
    deltas = [
        {name: LowRank(torch.randn(2, i, generator=draw), torch.randn(o, 2, generator=draw) * 0.1)}
        for name, (o, i) in list(base.linear_shapes.items())[:2]
    ]
    (one, _), (other, _) = (base.fitted(delta, "toy") for delta in deltas)
    texts = [(5, 6, 7), (8, 9), (5, 6, 7), (5, 6, 7)]
    mixed = base.hidden(texts, [(5, one), (3, other), (3, {})], {}).split([3, 2, 3, 3])
    encoder = load_encoder(source)
    for text, delta, found in zip(texts, [deltas[0], deltas[0], deltas[1], {}], mixed, strict=True):
        with torch.inference_mode(), beside(encoder, delta):
            alone = encoder(input_ids=torch.tensor([text]), attention_mask=torch.ones(1, len(text))).last_hidden_state[
                0
            ]
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-4)
    torch.testing.assert_close(base.hidden(texts[:1], [], base.merged(one)), mixed[0], rtol=0, atol=1e-4)
    name, before = next(iter(encoder.named_parameters()))
    _, replaced = base.fitted({name: before.detach() + 0.1}, "toy")
    assert not torch.equal(base.hidden(texts[3:], [], replaced), mixed[3])
    torch.testing.assert_close(base.hidden(texts[3:], [], {}), mixed[3], rtol=0, atol=0)
    with pytest.raises(BundleError, match="fits nothing in the base"):
        base.fitted({"no.such": before.detach()}, "toy")
    with pytest.raises(BundleError, match="shape"):
        base.fitted({name: before.detach()[:-1]}, "toy")
