"""What is looked at before anything runs: model, tokenizer and settings that do not go together are one clear line."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
from tiny_families import byte_pieces, marks, pieces, write_family
from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import AutoTokenizer

from paretune.core.errors import AssetError, ConfigError, UsageError
from paretune.data.encoding import encode, encode_whole
from paretune.models.check import check_model
from paretune.models.loading import load_encoder
from paretune.models.tiny import write_tiny_bert
from paretune.models.tokenizer import ODD_TEXTS, read_tokenizer


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
