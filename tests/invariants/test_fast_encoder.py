"""Our own pass through an encoder against the plain modules': hidden states and every gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.precision import autocast
from paretune.models.surgery import trainable
from paretune.models.tiny import write_tiny_bert, write_tiny_llama
from paretune.repro.seeding import torch_generator
from paretune.train.fast_blocks import Unsupported
from paretune.train.fast_encoder import FastEncoder

METHODS_SEEN: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"rank": 4}),
    ("lora", {"rank": 3, "targets": "query_value"}),
    ("lora", {"rank": 2, "targets": "mlp", "layers": 1}),
    ("full", {}),
    ("bitfit", {}),
    ("last_layers", {"layers": 1}),
]
IDS = [f"{kind}-{number}" for number, (kind, _) in enumerate(METHODS_SEEN)]


def _model(source: str, kind: str, settings: dict[str, Any]) -> EncoderClassifier:
    found = METHODS.load(kind)
    method = found(found.settings_model(**settings))
    assert isinstance(method, Adaptation)
    model = EncoderClassifier(load_encoder(source), 3)
    method.attach(model, torch_generator(0, "init"))
    with torch.no_grad():  # B of LoRA starts at zero, which would hide A's part
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch_generator(1, "init"))
    return model


@pytest.fixture(scope="module")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("decoder"))


def _inputs(padded: bool) -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, 15, (4, 9), generator=torch_generator(2, "init"))
    mask = torch.ones_like(ids)
    if padded:
        for row, length in enumerate((9, 3, 6, 1)):
            mask[row, length:] = 0
    return ids * mask, mask


def _loss(hidden_bth: Tensor, mask_bt: Tensor) -> Tensor:
    weight = torch.linspace(-1, 1, hidden_bth.shape[-1])
    return (hidden_bth.float() * weight * mask_bt[..., None]).square().sum()


def _both(model: EncoderClassifier, padded: bool, dtype: torch.dtype) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """(hidden states of real tokens, gradients by name), plain and ours."""
    ids, mask = _inputs(padded)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    fast = FastEncoder(model.encoder, dtype)
    for ours in (False, True):
        model.zero_grad()
        with autocast("bf16" if dtype == torch.bfloat16 else "fp32"):
            hidden = (
                fast.hidden(ids, mask) if ours else model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            )
        _loss(hidden, mask).backward()
        gradients = {name: one.grad.clone() for name, one in trainable(model).items() if one.grad is not None}
        found.append((hidden.detach()[mask.bool()].float(), gradients))
    return found


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("kind", "settings"), METHODS_SEEN, ids=IDS)
def test_hidden_states_and_gradients_are_the_plain_ones(
    tiny_model: Path, kind: str, settings: dict[str, Any], padded: bool
) -> None:
    """fp32: the same within rounding, and exactly the same tensors get a gradient."""
    (plain, wanted), (ours, given) = _both(_model(f"path:{tiny_model}", kind, settings), padded, torch.float32)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    assert given.keys() == wanted.keys() and wanted
    for name, gradient in wanted.items():
        torch.testing.assert_close(given[name], gradient, atol=2e-5, rtol=2e-4, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [one for one in METHODS_SEEN if one[0] != "bitfit"],
    ids=[one for one in IDS if "bit" not in one],
)
def test_a_decoder_too(tiny_decoder: Path, kind: str, settings: dict[str, Any], padded: bool) -> None:
    """Grouped queries, rotary positions, gates; it sees nothing that follows. Padding stands on the right."""
    (plain, wanted), (ours, given) = _both(_model(f"path:{tiny_decoder}", kind, settings), padded, torch.float32)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    assert given.keys() == wanted.keys() and wanted
    for name, gradient in wanted.items():
        torch.testing.assert_close(given[name], gradient, atol=1e-4, rtol=5e-4, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize(("kind", "settings"), METHODS_SEEN[:1] + METHODS_SEEN[3:4], ids=["lora", "full"])
def test_in_bf16_it_errs_about_as_autocast(
    tiny_model: Path, tiny_decoder: Path, kind: str, settings: dict[str, Any], decoder: bool
) -> None:
    """Distance of each gradient to that in fp32: at most twice that of the plain modules under autocast, or 0.3 % of a
    gradient: what a norm got is kept in bf16, as all that products take is."""
    model = _model(f"path:{tiny_decoder if decoder else tiny_model}", kind, settings)
    exact = _both(model, True, torch.float32)[0][1]
    plain, ours = (one[1] for one in _both(model, True, torch.bfloat16))
    assert any(not torch.equal(ours[name], one) for name, one in exact.items())
    for name, one in exact.items():
        allowed = max(2 * float((plain[name] - one).norm()), 3e-3 * float(one.norm()), 1e-4)
        assert float((ours[name] - one).norm()) <= allowed, name


def _repository(folder: Path, kind: str) -> Path:
    """A toy model of another type, with random weights."""
    sizes: dict[str, Any] = {"vocab_size": 40, "pad_token_id": 0}
    if kind == "distilbert":
        sizes |= {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32}
    else:
        sizes |= {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(kind, dropout=0.0, attention_dropout=0.0, **sizes)
    write_tiny_bert(folder)  # for its tokenizer
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "xlm-roberta"])
def test_other_types_of_encoder(tmp_path: Path, kind: str) -> None:
    """Names of parts and positions differ; the answers are those of the plain modules."""
    (plain, wanted), (ours, given) = _both(
        _model(f"path:{_repository(tmp_path, kind)}", "full", {}), True, torch.float32
    )
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(given[name], gradient, atol=2e-5, rtol=2e-4, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize(
    ("kind", "settings"), [("full", {}), ("lora", {"rank": 4, "dropout": 0.5})], ids=["full", "lora"]
)
def test_blocks_computed_again_give_the_same_gradients(
    tiny_model: Path, tiny_decoder: Path, kind: str, settings: dict[str, Any], decoder: bool
) -> None:
    """To the last bit, dropout included; and less is kept meanwhile."""
    model = _model(f"path:{tiny_decoder if decoder else tiny_model}", kind, settings).train()
    ids, mask = _inputs(padded=True)
    found: list[dict[str, Tensor]] = []
    kept: list[int] = []
    for recomputed in (False, True):
        model.zero_grad()
        torch.manual_seed(0)
        sizes: list[int] = []

        def pack(one: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(one.numel())
            return one

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
            hidden = FastEncoder(model.encoder, torch.float32, recomputed=recomputed).hidden(ids, mask)
        _loss(hidden, mask).backward()
        kept.append(sum(sizes))
        found.append({name: one.grad.clone() for name, one in trainable(model).items() if one.grad is not None})
    assert kept[1] < kept[0] / 2
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(found[1][name], gradient), name


def test_what_changes_a_modules_call_keeps_the_plain_path(tiny_model: Path) -> None:
    """A hook, and a class of one's own, would be passed over: both are refused."""
    model = _model(f"path:{tiny_model}", "full", {})
    query = model.encoder.get_submodule("encoder.layer.0.attention.self.query")
    hook = query.register_forward_hook(lambda module, given, found: found + 1)
    with pytest.raises(Unsupported, match="hooked"):
        FastEncoder(model.encoder, torch.float32)
    hook.remove()
    FastEncoder(model.encoder, torch.float32)
    torch.nn.utils.parametrize.register_parametrization(query, "weight", torch.nn.Identity())
    with pytest.raises(Unsupported, match="class ParametrizedLinear"):
        FastEncoder(model.encoder, torch.float32)


def test_what_it_does_not_know_is_said(tiny_model: Path) -> None:
    """Dropout inside the blocks keeps the plain path."""
    model = _model(f"path:{tiny_model}", "full", {})
    dropout = next(one for one in model.encoder.modules() if isinstance(one, torch.nn.Dropout))
    dropout.p = 0.1
    model.train()
    with pytest.raises(Unsupported, match="dropout"):
        FastEncoder(model.encoder, torch.float32)
    model.eval()
    FastEncoder(model.encoder, torch.float32)


def test_dropout_of_updates_is_drawn_while_training_only(tiny_model: Path) -> None:
    """The same seed gives the same answer, another one another; outside of training nothing is dropped."""
    model = _model(f"path:{tiny_model}", "lora", {"rank": 2, "dropout": 0.5})
    ids, mask = _inputs(padded=True)

    def hidden(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return FastEncoder(model.encoder, torch.float32).hidden(ids, mask).detach()

    model.train()
    assert torch.equal(hidden(0), hidden(0))
    assert not torch.equal(hidden(0), hidden(1))
    model.eval()
    plain = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.detach()
    real = mask.bool()
    torch.testing.assert_close(hidden(0)[real], plain[real], atol=1e-5, rtol=1e-5)


class _Query(torch.nn.Linear):
    """A class of one's own."""


def _own_class(model: EncoderClassifier) -> None:
    inside = model.encoder.get_submodule("encoder.layer.0.attention.self")
    inside.query = _Query(16, 16)


def _own_model(model: EncoderClassifier) -> None:
    kind = type(model.encoder)
    model.encoder.__class__ = type("Other", (kind,), {})


def _replaced(model: EncoderClassifier) -> None:
    down = model.encoder.get_submodule("encoder.layer.1.output.dense")
    down.forward = lambda x: torch.zeros(())  # type: ignore[method-assign]


def _half(model: EncoderClassifier) -> None:
    model.encoder.get_submodule("encoder.layer.1.output.dense").half()


def _crooked(model: EncoderClassifier) -> None:
    dense = model.encoder.get_submodule("encoder.layer.1.output.dense")
    dense.weight = torch.nn.Parameter(dense.weight.detach().T.contiguous().T)


def _gradient_hook(model: EncoderClassifier) -> None:
    model.encoder.get_parameter("encoder.layer.0.output.dense.weight").register_hook(lambda gradient: gradient * 0)


def _backward_hook(model: EncoderClassifier) -> None:
    layer = model.encoder.get_submodule("encoder.layer.0")
    layer.register_full_backward_hook(lambda module, given, found: None)


def _scaled(model: EncoderClassifier) -> None:
    model.encoder.get_submodule("encoder.layer.0.attention.self").scaling = 1.0


def _other_norm(model: EncoderClassifier) -> None:
    model.encoder.get_submodule("encoder.layer.0.output").LayerNorm = torch.nn.RMSNorm(32)


def _unbiased(model: EncoderClassifier) -> None:
    inside = model.encoder.get_submodule("encoder.layer.0.attention.self")
    inside.query = torch.nn.Linear(32, 32, bias=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_own_class, "class _Query"),
        (_own_model, "class Other"),
        (_replaced, "replaced"),
        (_half, "float16"),
        (_crooked, "in one piece"),
        (_gradient_hook, "weight's gradient"),
        (_backward_hook, "hooked"),
        (_scaled, "a scale of their own"),
        (_other_norm, "RMSNorm"),
        (_unbiased, "with and without a bias"),
    ],
)
def test_what_it_cannot_know_is_refused(
    tiny_model: Path, change: Callable[[EncoderClassifier], None], reason: str
) -> None:
    """Whatever would change what the plain modules compute, or where their gradients go."""
    model = _model(f"path:{tiny_model}", "full", {})
    FastEncoder(model.encoder, torch.float32)
    change(model)
    with pytest.raises(Unsupported, match=reason):
        FastEncoder(model.encoder, torch.float32)


def _disabled(wrapped: Any) -> None:
    wrapped.base_model.disable_adapter_layers()


def _merged(wrapped: Any) -> None:
    wrapped.base_model.merge_adapter()


def _another(wrapped: Any) -> None:
    wrapped.add_adapter("other", wrapped.peft_config["default"])


def _other_active(wrapped: Any) -> None:
    _another(wrapped)
    wrapped.set_adapter("other")


def _one_disabled(wrapped: Any) -> None:
    wrapped.base_model.model.encoder.layer[0].output.dense.enable_adapters(False)


def _other_dropout(wrapped: Any) -> None:
    wrapped.base_model.model.encoder.layer[0].attention.self.query.lora_dropout["default"] = torch.nn.Dropout(0.5)


def _dropped_otherwise(wrapped: Any) -> None:
    wrapped.base_model.model.encoder.layer[0].output.dense.lora_dropout["default"] = torch.nn.AlphaDropout(0.5)


@pytest.mark.parametrize(
    "change", [_disabled, _merged, _another, _other_active, _one_disabled, _other_dropout, _dropped_otherwise]
)
def test_adapters_that_are_not_exactly_one_active_lora_are_refused(
    tiny_model: Path, change: Callable[[Any], None]
) -> None:
    """Disabled, merged, several, another active, or inputs dropped in two ways."""
    model = _model(f"path:{tiny_model}", "lora", {"rank": 2})
    FastEncoder(model.encoder, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(model.encoder)
    with pytest.raises(Unsupported):
        FastEncoder(model.encoder, torch.float32)


def test_a_decoders_norm_with_another_epsilon_is_refused(tiny_decoder: Path) -> None:
    """The kernels take it from the config, the plain modules from the norm."""
    model = _model(f"path:{tiny_decoder}", "full", {})
    model.encoder.get_submodule("layers.0.input_layernorm").variance_epsilon = 0.1
    with pytest.raises(Unsupported, match="epsilon"):
        FastEncoder(model.encoder, torch.float32)
