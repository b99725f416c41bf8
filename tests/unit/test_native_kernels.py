"""Blocks in C++: as near to fp32 as torch is in bf16; they depend on no company and no thread, and they learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from paretune.core.config import JsonObject
from paretune.kernels.native.batches import GROUP_ROWS, SHARES, Batch, neighbours
from paretune.kernels.native.library import Library, library
from paretune.kernels.native.maps import products
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.precision import Precision
from paretune.models.surgery import layers, plain_encoder
from paretune.models.tiny import write_tiny_bert, write_tiny_llama
from paretune.repro.seeding import torch_generator
from paretune.train.fast_encoder import fast_path

LENGTHS = (5, 1, 17, 100, 2, 33, 64, 16, 15)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Toys that are just wide enough for the kernels."""
    place = tmp_path_factory.mktemp("wide")
    bert = write_tiny_bert(place / "bert", hidden=128)
    llama = write_tiny_llama(place / "llama", hidden=128)
    return {"bert": f"path:{bert}", "llama": f"path:{llama}"}


@pytest.fixture(autouse=True)
def _needs_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Also where torch's operators are faster."""
    monkeypatch.setenv("PARETUNE_NATIVE", "1")
    library.cache_clear()
    if library().calls is None:
        pytest.skip(f"no kernels in C++ here: {library().reason}")
    yield
    library.cache_clear()


def adapted(source: str, kind: str, settings: JsonObject) -> EncoderClassifier:
    """With an update that is not zero."""
    model = EncoderClassifier(load_encoder(source), 3, "mean")
    method = METHODS.load(kind)(METHODS.load(kind).settings_model(**settings))
    assert isinstance(method, Adaptation)
    method.attach(model, torch_generator(0, "init"))
    random = torch.Generator().manual_seed(1)
    for name, one in model.named_parameters():
        if "lora_B" in name:
            one.data.normal_(0, 0.1, generator=random)
        elif name.endswith("bias") or "norm" in name.lower():
            one.data.add_(torch.empty_like(one).normal_(0, 0.1, generator=random))
    model.train()
    return model


def texts(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    """Random ids, and which are real."""
    ids_bt = torch.randint(3, 40, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(2))
    mask_bt = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids_bt, mask_bt


Found = tuple[Tensor, dict[str, Tensor]]


def found(model: EncoderClassifier, precision: Precision, cpp: bool, recomputed: bool = False) -> Found:
    """Features, and gradients of all that learns."""
    ids_bt, mask_bt = texts()
    model.zero_grad()
    with fast_path(model, precision, recomputed=recomputed) as way:
        assert way.fast is not None and way.fast.in_cpp is cpp, way.engine.reason
        features_bh = model.pooled(ids_bt, mask_bt)
        weights_bh = torch.randn(features_bh.shape, generator=torch.Generator().manual_seed(3))
        (features_bh * weights_bh).sum().backward()
    grown = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return features_bh.detach(), grown


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on there are no kernels in C++."""

    def remove() -> None:
        for place in ("paretune.train.fast_encoder.library", "paretune.train.native_blocks.library"):
            monkeypatch.setattr(place, lambda: Library(None, "none for a test"))

    return remove


CASES = [
    ("bert", "lora", {}),
    ("bert", "lora", {"rank": 3}),
    ("bert", "lora", {"rank": 20, "targets": "query_value"}),
    ("bert", "lora", {"rank": 1, "targets": "mlp", "layers": 1}),
    ("bert", "full", {}),
    ("bert", "bitfit", {}),
    ("bert", "last_layers", {"layers": 1}),
    ("llama", "lora", {}),
    ("llama", "lora", {"rank": 5, "targets": "attention"}),
    ("llama", "full", {}),
    ("llama", "last_layers", {"layers": 1}),
]


@pytest.mark.parametrize(("source", "kind", "settings"), CASES)
def test_they_are_as_near_to_fp32_as_torch_in_bf16(
    models: dict[str, str], without: Callable[[], None], source: str, kind: str, settings: JsonObject
) -> None:
    """Features and every gradient, for all methods, odd and large ranks, few targets, texts of one token."""
    model = adapted(models[source], kind, settings)
    features, grown = found(model, "bf16", cpp=True)
    without()
    by_torch, grown_by_torch = found(model, "bf16", cpp=False)
    exact, grown_exactly = found(model, "fp32", cpp=False)
    assert grown.keys() == grown_exactly.keys()

    def off(one: Tensor, right: Tensor) -> float:
        return float((one - right).norm() / right.norm().clamp_min(1e-6))

    assert off(features, exact) <= max(0.01, 1.5 * off(by_torch, exact))
    for name, right in grown_exactly.items():
        ours, theirs = off(grown[name], right), off(grown_by_torch[name], right)
        assert ours <= max(0.03, 2 * theirs), name


@pytest.mark.parametrize("source", ["bert", "llama"])
def test_a_texts_numbers_do_not_depend_on_what_is_computed_beside_it(models: dict[str, str], source: str) -> None:
    """Alone and among eight others: equal to the last bit."""
    model = adapted(models[source], "lora", {})
    ids_bt, mask_bt = texts()
    with fast_path(model, "bf16", fixed=True), torch.inference_mode():
        together = model.pooled(ids_bt, mask_bt)
        for place, length in enumerate(LENGTHS):
            alone = model.pooled(ids_bt[place : place + 1, :length], mask_bt[place : place + 1, :length])
            assert torch.equal(alone[0], together[place])


@pytest.mark.parametrize(("source", "kind"), [("bert", "lora"), ("bert", "full"), ("llama", "lora")])
def test_sums_do_not_depend_on_the_number_of_threads(models: dict[str, str], source: str, kind: str) -> None:
    """What a share of the batch sums up is the same, whichever thread took it."""
    model = adapted(models[source], kind, {})
    threads = torch.get_num_threads()
    try:
        answers: list[Found] = []
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(found(model, "bf16", cpp=True))
    finally:
        torch.set_num_threads(threads)
    inside = [name for name in answers[0][1] if ".layer" in name]
    assert inside and all(torch.equal(answers[0][1][name], answers[1][1][name]) for name in inside)


@pytest.mark.parametrize(("source", "kind"), [("bert", "lora"), ("bert", "full"), ("llama", "full")])
def test_activation_checkpointing_changes_no_bit(models: dict[str, str], source: str, kind: str) -> None:
    """Only what is kept differs."""
    model = adapted(models[source], kind, {})
    features, grown = found(model, "bf16", cpp=True)
    again, grown_again = found(model, "bf16", cpp=True, recomputed=True)
    assert torch.equal(features, again)
    assert all(torch.equal(one, grown_again[name]) for name, one in grown.items())


def test_what_learnt_is_what_the_next_pass_computes_with(models: dict[str, str]) -> None:
    """Within one path: weights, biases, updates and norms are read anew with every pass."""
    for kind in ("full", "lora"):
        model = adapted(models["bert"], kind, {})
        ids_bt, mask_bt = texts()
        with fast_path(model, "bf16"):
            before = model.pooled(ids_bt, mask_bt).detach().clone()
            with torch.no_grad():
                for name, one in model.named_parameters():
                    if one.requires_grad and ".layer.1." in name:
                        one.mul_(1.5)
            after = model.pooled(ids_bt, mask_bt).detach()
        assert not torch.equal(before, after)
        with fast_path(model, "bf16"):
            assert torch.equal(model.pooled(ids_bt, mask_bt).detach(), after)


def test_memory_of_a_pass_is_used_again(models: dict[str, str]) -> None:
    """A smaller batch after a larger one takes what that gave back, and its numbers are its own."""
    model = adapted(models["bert"], "lora", {})
    ids_bt, mask_bt = texts()

    def grown(rows: slice) -> Tensor:
        model.zero_grad()
        model.pooled(ids_bt[rows], mask_bt[rows]).sum().backward()
        (name,) = (name for name, _ in model.named_parameters() if "layer.0" in name and "query.lora_A" in name)
        grad = dict(model.named_parameters())[name].grad
        assert grad is not None
        return grad.clone()

    with fast_path(model, "bf16"):
        alone = grown(slice(0, 3))
    with fast_path(model, "bf16"):
        grown(slice(0, 9))
        assert torch.equal(grown(slice(0, 3)), alone)


def test_a_product_alone_is_that_of_matrices() -> None:
    """Rows that are no multiple of anything; sums in fp32, rounded once."""
    calls, random = library().calls, torch.Generator().manual_seed(5)
    assert calls is not None
    x_ni, w_oi = (torch.randn(size, generator=random).bfloat16() for size in ((205, 128), (192, 128)))
    found = products(calls)(x_ni, w_oi)()
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found.float(), x_ni.float() @ w_oi.float().T, rtol=2**-8, atol=1e-3)


def test_a_batch_is_cut_by_its_lengths_alone() -> None:
    """Every text once, in order; shares of about as many tokens, the largest first; groups no longer than a cache."""
    lengths = [300, *[20] * 50, 100]
    shares = neighbours(lengths, sum(lengths) / SHARES)
    assert [one for first, end in shares for one in range(first, end)] == list(range(len(lengths)))
    assert all(sum(lengths[first:end]) < 2 * sum(lengths) / SHARES for first, end in shares)
    groups = neighbours(lengths, GROUP_ROWS)
    assert max(sum(lengths[first:end]) for first, end in groups if end - first > 1) <= GROUP_ROWS + 10
    assert Batch(lengths, threads=2).rows == sum(lengths)


def test_a_model_without_them_says_so_in_its_way(
    models: dict[str, str], tiny_model: Path, without: Callable[[], None]
) -> None:
    """Sizes that they do not know, a machine that has none, and fp32, in which they do not multiply."""
    model = EncoderClassifier(load_encoder(models["bert"]), 3, "mean")
    narrow = EncoderClassifier(load_encoder(f"path:{tiny_model}"), 3, "mean")
    model.eval(), narrow.eval()
    with fast_path(narrow, "bf16") as way:
        assert way.fast is not None and not way.fast.in_cpp and "32 features" in way.engine.reason
    with fast_path(model, "fp32") as way:
        assert way.engine.name == "torch" and "bf16 alone" in way.engine.reason
    without()
    with fast_path(model, "bf16") as way:
        assert "none for a test" in way.engine.reason


def stays(seed: int, rows: int, columns: int, dropped: float) -> np.ndarray:
    """What `stays` of products.h keeps, written once more."""
    x = np.arange(rows * columns // 2, dtype=np.uint64)
    x ^= np.uint64(seed & 0xFFFFFFFF)
    x = ((x ^ (x >> np.uint64(16))) * np.uint64(0x85EBCA6B)) & np.uint64(0xFFFFFFFF)
    x = (x + np.uint64(seed >> 32)) & np.uint64(0xFFFFFFFF)
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(0xC2B2AE35)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    halves = np.stack([x & np.uint64(0xFFFF), x >> np.uint64(16)], axis=1).reshape(rows, columns)
    return halves >= round(dropped * 65536)


class Masked(nn.Module):
    """Dropout with a given mask over the real tokens of texts."""

    def __init__(self, kept_mi: np.ndarray, mask_bt: Tensor, dropped: float) -> None:
        super().__init__()
        self._factor_bti = torch.zeros(*mask_bt.shape, kept_mi.shape[1])
        self._factor_bti[mask_bt.bool()] = torch.from_numpy(kept_mi).float() / (1 - dropped)

    def forward(self, x_bti: Tensor) -> Tensor:
        return x_bti * self._factor_bti


MAPS = {
    "bert": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
OF_SEED = {"bert": (0, 0, 0, 1, 2, 3), "llama": (0, 0, 0, 1, 2, 2, 3)}


@pytest.mark.parametrize("source", ["bert", "llama"])
def test_an_updates_dropped_inputs_are_those_of_its_seed(models: dict[str, str], source: str) -> None:
    """Against plain modules in fp32 with the same masks: features and gradients, activation checkpointing too."""
    dropped = 0.3
    model = adapted(models[source], "lora", {"dropout": dropped})
    torch.manual_seed(7)
    features, grown = found(model, "bf16", cpp=True)
    torch.manual_seed(7)
    again, grown_again = found(model, "bf16", cpp=True, recomputed=True)
    assert torch.equal(features, again)
    assert all(torch.equal(one, grown_again[name]) for name, one in grown.items())

    torch.manual_seed(7)
    ids_bt, mask_bt = texts()
    for block in layers(plain_encoder(model.encoder)):
        seeds = torch.randint(2**62, (4,)).tolist()
        updates = [one for one in block.modules() if isinstance(one, LoraLayer)]
        assert len(updates) == len(MAPS[source])
        for update, which in zip(updates, OF_SEED[source], strict=True):
            kept_mi = stays(seeds[which], int(mask_bt.sum()), update.in_features, dropped)
            assert abs(kept_mi.mean() - (1 - dropped)) < 0.01
            update.lora_dropout["default"] = Masked(kept_mi, mask_bt, dropped)
    model.zero_grad()
    exact = model.pooled(ids_bt, mask_bt)
    weights_bh = torch.randn(exact.shape, generator=torch.Generator().manual_seed(3))
    (exact * weights_bh).sum().backward()
    assert float((features - exact.detach()).norm() / exact.detach().norm()) < 0.02
    for name, one in model.named_parameters():
        if one.grad is not None and "lora" in name:
            assert float((grown[name] - one.grad).norm() / one.grad.norm()) < 0.05, name
