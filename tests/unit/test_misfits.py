"""A method that a model has no place for is refused before anything runs, and left out of a new study."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import peft
import pytest
import torch
from peft import PeftConfig, get_peft_model
from tiny_families import write_family
from toy_study import study_text, toy_rows, write_csv

from paretune.core.errors import ConfigError
from paretune.methods.method import Adaptation, NoSettings
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_outline
from paretune.models.surgery import freeze
from paretune.study.design import read_study_file, with_settled_model
from paretune.study.misfits import misfit
from paretune.study.new import Answers, write_study_file

BITFIT, DEEP, NOWHERE, HIGH = (
    "bitfit",
    'kind = "last_layers"\nlayers = 3',
    'kind = "lora"\ntargets = ["nowhere"]',
    'kind = "lora"\nlayers = 9',
)


@pytest.mark.parametrize(
    ("kind", "table", "said"),
    [
        *((kind, BITFIT, "no biases") for kind in ("llama", "mistral", "qwen3", "gemma3_text", "t5", "modernbert")),
        *((kind, DEEP, "expected at most 2") for kind in ("bert", "gpt2", "t5")),
        ("albert", DEEP, "expected at most 1"),
        ("bert", NOWHERE, r"targets = \['nowhere'\] match no layer; expected names ending in dense, key, query, value"),
        ("gpt2", NOWHERE, "expected names ending in c_attn, c_fc, c_proj"),
        ("llama", HIGH, "layers = 9; expected at most 2"),
        *((kind, None, "") for kind in ("bert", "gpt2", "qwen2")),
    ],
)
def test_what_would_end_every_run_of_a_method_ends_the_study(
    tmp_path: Path, kind: str, table: str | None, said: str
) -> None:
    """One line that begins with the method's table; what fits is let through."""
    source = f"path:{write_family(kind, tmp_path / 'model')}"
    lines = 'kind = "bitfit"' if table in (BITFIT, None) else table
    (tmp_path / "toy.toml").write_text(study_text(source, {"odd": str(lines), "full": "", "probe": "", "majority": ""}))
    study = read_study_file(tmp_path / "toy.toml")
    if table is None:
        assert with_settled_model(study, pytest.fail).file.model.source == source
        return
    with pytest.raises(ConfigError, match=rf"^methods\.odd: .*{said}.*leave methods\.odd out$"):
        with_settled_model(study, print)


class Adapter(Adaptation):
    """Any kind of adapter of peft, as somebody adds one: attach alone, all else inherited."""

    paper: ClassVar[str] = "https://huggingface.co/docs/peft"
    summary_en: ClassVar[str] = "an adapter of peft"
    summary_ru: ClassVar[str] = "адаптер из peft"
    default_learning_rate: ClassVar[float] = 5e-3

    def __init__(self, config: PeftConfig) -> None:
        super().__init__(NoSettings())
        self._config = config

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        freeze(model.encoder)
        model.encoder = get_peft_model(model.encoder, self._config)  # type: ignore[assignment]
        model.new_head(generator)


class Nothing(Adapter):
    """A method that forgets to let anything learn."""

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        freeze(model.encoder)


FOUND, LOST = ["query", "q_proj"], ["nowhere"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_kinds_of_adapters_that_find_nothing_are_refused_and_others_are_not(tmp_path: Path, kind: str) -> None:
    """Whatever peft says of targets that no module has becomes one line; the outline is as it was."""
    outline = load_outline(f"path:{write_family(kind, tmp_path / 'model')}")
    names = [name for name, _ in outline.named_parameters()]
    kinds: dict[str, Callable[[list[str]], PeftConfig]] = {
        "adalora": lambda to: peft.AdaLoraConfig(target_modules=to, init_r=4, target_r=2, total_step=100),
        "ia3": lambda to: peft.IA3Config(target_modules=to, feedforward_modules=[]),
        "dora": lambda to: peft.LoraConfig(target_modules=to, use_dora=True),
        "vera": lambda to: peft.VeraConfig(target_modules=to, r=8),
    }
    for name, config in kinds.items():
        assert misfit(Adapter(config(FOUND)), outline) == "", name
        told = misfit(Adapter(config(LOST)), outline)
        assert f"expected a method for a model of type {kind!r}" in told and "\n" not in told, (name, told)
    tokens = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3)
    assert misfit(Adapter(tokens), outline) == ""
    assert "trains nothing" in misfit(Nothing(tokens), outline)
    assert [name for name, _ in outline.named_parameters()] == names


@pytest.mark.parametrize(("kind", "left_out"), [("bert", set[str]()), ("llama", {"bitfit"}), ("albert", {"last2"})])
def test_a_new_study_has_the_methods_that_fit(tmp_path: Path, kind: str, left_out: set[str]) -> None:
    """Of a model in a folder; the study that was written is one that can begin."""
    write_csv(tmp_path / "toy.csv", toy_rows(60))
    model = f"path:{write_family(kind, tmp_path / 'model')}"
    out = write_study_file(tmp_path / "new.toml", Answers(tmp_path / "toy.csv", "text", "label", model=model), False)
    everything = {"majority", "tfidf", "probe", "head", "last2", "bitfit", "lora-r8", "full"}
    assert set(tomllib.loads(out.read_text())["methods"]) == everything - left_out
    with_settled_model(read_study_file(out), print)
