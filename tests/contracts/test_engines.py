"""Every engine computes what the plain modules compute, or says that it does not know the model.

Each row is a kind of adapter of `peft`; tensors are perturbed before anything is compared, since at its start an
adapter does nothing and every engine is right. The authority is `peft` and `transformers` themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import peft
import pytest
import torch
from method_contract import ROWS, bare, train_toy
from peft import LoraConfig, PeftConfig, TaskType, get_peft_model
from torch import Tensor
from toy_study import CLASSES

from paretune.core.errors import ConfigError
from paretune.data.encoding import Encoded, encode
from paretune.kernels.low_rank import LowRank
from paretune.measure.accounting import census
from paretune.methods.method import Adaptation, NoSettings
from paretune.models.classifier import EncoderClassifier
from paretune.models.surgery import freeze, linear_names, trainable
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import torch_generator
from paretune.study.predict import way_of
from paretune.tasks.classification import Classification
from paretune.train.evaluate import Witness, predict_logits
from paretune.train.fast_encoder import fast_path


@dataclass(frozen=True)
class Row:
    """A kind of adapter: `config` is given the names of linear layers; `fast`: our own pass knows it; `folds`: for
    which toys it is a change of the base model's tensors; `low_rank`: its delta holds low-rank updates."""

    config: Callable[[list[str]], PeftConfig]
    fast: bool = False
    folds: tuple[str, ...] = ("encoder", "decoder")
    low_rank: bool = False


def lora(**more: Any) -> Callable[[list[str]], PeftConfig]:
    return lambda names: LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": names, **more})


def on(kind: type[PeftConfig], **more: Any) -> Callable[[list[str]], PeftConfig]:
    return lambda names: kind(**{"target_modules": names, **more})  # type: ignore[call-arg]


def prompt(kind: type[PeftConfig], **more: Any) -> Callable[[list[str]], PeftConfig]:
    return lambda names: kind(task_type=TaskType.FEATURE_EXTRACTION, num_virtual_tokens=3, **more)  # type: ignore[call-arg]


def _norms(names: list[str]) -> list[str]:
    return ["LayerNorm", "input_layernorm", "post_attention_layernorm", "norm"]


pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),  # of torch, for shira
    pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning"),  # peft's prefix tuning
]

VARIANTS: dict[str, Row] = {
    "lora": Row(lora(), fast=True, low_rank=True),
    "lora-scaled-by-root": Row(lora(use_rslora=True), fast=True, low_rank=True),
    "lora-gaussian": Row(lora(init_lora_weights="gaussian"), fast=True, low_rank=True),
    "lora-random-b": Row(lora(init_lora_weights=False), fast=True, low_rank=True),
    "lora-orthogonal": Row(lora(init_lora_weights="orthogonal"), fast=True, low_rank=True),
    "lora-pissa": Row(lora(init_lora_weights="pissa"), fast=True),
    "lora-olora": Row(lora(init_lora_weights="olora"), fast=True),
    "lora-of-some": Row(lambda names: LoraConfig(r=4, target_modules=names[::3]), fast=True, low_rank=True),
    "lora-other-ranks": Row(
        lambda names: LoraConfig(r=4, target_modules=names, rank_pattern={names[0]: 2}, alpha_pattern={names[1]: 3}),
        fast=True,
        low_rank=True,
    ),
    "lora-trained-biases": Row(lora(bias="all"), fast=True, low_rank=True),
    "lora-token-rows": Row(lora(trainable_token_indices=[5, 6, 7]), fast=True, low_rank=True),
    "dora": Row(lora(use_dora=True)),
    "lora-bias": Row(lora(lora_bias=True), folds=("encoder",)),  # peft cannot merge it where a layer has no bias
    "lora-and-a-whole-layer": Row(
        lora(modules_to_save=["output.dense", "down_proj"], target_modules=["query", "q_proj"]), low_rank=True
    ),
    "mica": Row(lora(init_lora_weights="mica")),
    "adalora": Row(on(peft.AdaLoraConfig, init_r=4, target_r=4, total_step=100)),
    "ia3": Row(lambda names: peft.IA3Config(target_modules=names, feedforward_modules=[])),
    "vera": Row(on(peft.VeraConfig, r=8)),
    "loha": Row(on(peft.LoHaConfig, r=4)),
    "lokr": Row(on(peft.LoKrConfig, r=4)),
    "oft": Row(on(peft.OFTConfig, oft_block_size=8)),
    "randlora": Row(on(peft.RandLoraConfig, r=4)),
    "fourierft": Row(on(peft.FourierFTConfig, n_frequency=32)),
    "hra": Row(on(peft.HRAConfig, r=4)),
    "miss": Row(on(peft.MissConfig, r=4)),
    "road": Row(on(peft.RoadConfig, group_size=16)),
    "shira": Row(on(peft.ShiraConfig, r=4)),
    "delora": Row(on(peft.DeloraConfig, r=4)),
    "gralora": Row(on(peft.GraloraConfig, r=4, gralora_k=2)),
    "hira": Row(on(peft.HiraConfig, r=4)),
    "c3a": Row(on(peft.C3AConfig, block_size=8)),
    "ln-tuning": Row(lambda names: peft.LNTuningConfig(target_modules=_norms(names))),
    "prompt": Row(prompt(peft.PromptTuningConfig), folds=()),
    "p-tuning": Row(prompt(peft.PromptEncoderConfig, encoder_hidden_size=16), folds=()),
    "prefix": Row(prompt(peft.PrefixTuningConfig), folds=()),
}


class Variant(Adaptation):
    """Any kind of adapter of peft as CONTRIBUTING has a method written: attach alone, all else inherited."""

    paper: ClassVar[str] = "https://huggingface.co/docs/peft"
    summary_en: ClassVar[str] = "an adapter of peft"
    summary_ru: ClassVar[str] = "адаптер из peft"
    default_learning_rate: ClassVar[float] = 5e-3

    def __init__(self, row: Row) -> None:
        super().__init__(NoSettings())
        self._row = row

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        config = self._row.config(linear_names(model.encoder))
        freeze(model.encoder)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            model.encoder = get_peft_model(model.encoder, config)  # type: ignore[assignment]
        model.new_head(generator)


def attached(row: Row, source: str) -> EncoderClassifier:
    model = bare(source)
    Variant(row).attach(model, torch_generator(0, "init"))
    return model.eval()


def perturb(model: EncoderClassifier) -> None:
    """Every trained tensor of the encoder elsewhere than at its start."""
    random = torch_generator(1, "init")
    with torch.no_grad():
        for parameter in trainable(model.encoder).values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=random)


@pytest.fixture(params=["encoder", "decoder"])
def source(request: pytest.FixtureRequest, tiny_model: Path, tiny_decoder: Path) -> str:
    return f"path:{tiny_model if request.param == 'encoder' else tiny_decoder}"


@pytest.fixture
def encoded(source: str) -> Encoded:
    return encode(read_tokenizer(source), [text for text, _ in ROWS], max_tokens=32)


def _features_and_gradients(model: EncoderClassifier, encoded: Encoded) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    features_bh = model.pooled(*encoded.padded(range(6)))
    (features_bh * torch.linspace(-1, 1, features_bh.shape[1])).square().sum().backward()
    found = {name: one.grad.clone() for name, one in trainable(model.encoder).items() if one.grad is not None}
    return features_bh.detach(), found


@pytest.mark.parametrize("name", VARIANTS)
def test_an_engine_gives_the_plain_modules_numbers_or_says_that_it_does_not_know_them(
    source: str, encoded: Encoded, name: str
) -> None:
    """Features and the gradient of every trained tensor, perturbed, within 1e-5 of peft's; planner and run agree."""
    row = VARIANTS[name]
    model = attached(row, source)
    perturb(model)
    wanted, gradients = _features_and_gradients(model, encoded)
    with fast_path(model, "fp32") as way:
        assert (way.fast is not None) is row.fast, way.engine
        assert way.engine.name == ("torch" if row.fast else "transformers") and way.engine.reason
        given, ours = _features_and_gradients(model, encoded)
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)
    assert ours.keys() == gradients.keys() and ours
    for tensor, gradient in gradients.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(
            ours[tensor] / scale, gradient / scale, atol=1e-5, rtol=1e-4, msg=lambda text, at=tensor: f"{at}: {text}"
        )
    counted = census(model)
    assert counted.own_pass is row.fast
    assert way_of(counted, "fp32") == ("rounded" if row.fast else "padded")
    base = sum(one.numel() for one in bare(source).encoder.parameters())
    assert counted.inserted == counted.total - base


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_gradients_of_a_balanced_loss_are_those_of_rows_that_count_more_often(
    source: str, encoded: Encoded, name: str
) -> None:
    """A class of a third of the rows weighs as if each of its rows stood there twice, in both engines."""
    model = attached(VARIANTS[name], source)
    perturb(model)
    rows = list(range(6))
    labels = ["bank", "oil", "bank", "bank", "oil", "bank"]
    task = Classification(CLASSES)
    balanced, targets_b = task.balanced(labels), task.targets(labels)
    double = [*rows, 1, 4]  # 4 of each: per row 6/(2·4) and 6/(2·2), one twice the other

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        loss.backward()
        return {name: one.grad.clone() for name, one in trainable(model).items() if one.grad is not None}

    logits_bc = model.head(model.pooled(*encoded.padded(double)))
    wanted = gradients(task.loss_sum(logits_bc, targets_b[double]) * 0.75)
    with fast_path(model, "fp32") as way:
        assert (way.fast is not None) is VARIANTS[name].fast
        found = gradients(balanced.loss_sum(model.head(model.pooled(*encoded.padded(rows))), targets_b))
    assert found.keys() == wanted.keys() and found
    for tensor, gradient in wanted.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(found[tensor] / scale, gradient / scale, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_each_trained_tensor_moves_and_what_is_saved_merged_and_exported_is_what_was_trained(
    source: str, encoded: Encoded, name: str, tmp_path: Path
) -> None:
    """After six steps and a perturbation: reloaded bit for bit, merged and put together from the delta within 1e-4."""
    row = VARIANTS[name]
    method, model = Variant(row), attached(row, source)
    witness = Witness(model, encoded, "fp32")
    before = {name: one.detach().clone() for name, one in trainable(model).items()}
    train_toy(model, method, encoded)
    assert witness.check(model, steps=6) == []
    still = [name for name, one in trainable(model).items() if torch.equal(one, before[name])]
    assert still == []
    perturb(model)
    wanted = predict_logits(model, encoded, "fp32")
    method.save(model, tmp_path / "adapter")
    fresh = attached(row, source)
    method.load(fresh, tmp_path / "adapter")
    assert torch.equal(predict_logits(fresh, encoded, "fp32"), wanted)
    if ("decoder" if model.pooling == "last" else "encoder") not in row.folds:
        for refused in (method.delta, method.merge):
            with pytest.raises(ConfigError, match=r"virtual tokens|peft cannot merge"):
                refused(model)
        return
    delta = method.delta(model)
    assert any(isinstance(one, LowRank) for one in delta.values()) is row.low_rank
    assembled = bare(source)
    assembled.head.load_state_dict(model.head.state_dict())
    parameters = dict(assembled.encoder.named_parameters())
    with torch.no_grad():
        for tensor, change in delta.items():
            if isinstance(change, LowRank):
                parameters[f"{tensor}.weight"] += change.b_or @ change.a_ri
            else:
                parameters[tensor].copy_(change)
    torch.testing.assert_close(predict_logits(assembled, encoded, "fp32"), wanted, atol=1e-4, rtol=0)
    method.merge(model)
    assert [one for one, _ in model.encoder.named_parameters()] == [
        one for one, _ in assembled.encoder.named_parameters()
    ]
    torch.testing.assert_close(predict_logits(model, encoded, "fp32"), wanted, atol=1e-4, rtol=0)
