"""The contract of every method in the table, and what is special to one of them; LoRA against peft's own numbers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import peft
import pytest
import torch
from method_contract import ROWS, AdaptationContract, attached, make_adaptation, train_toy
from peft.tuners.lora import LoraLayer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from toy_study import CLASSES, toy_rows
from transformers import BertConfig, BertModel

from paretune.core.errors import ConfigError, InertAdapterError, ReloadError, RunError
from paretune.data.encoding import encode
from paretune.kernels.low_rank import LowRank
from paretune.methods.baselines import Majority, Tfidf, TfidfSettings
from paretune.methods.method import METHODS, Baseline, Choice, FeatureRows, Fitted, NoSettings
from paretune.methods.regression import searched
from paretune.models.classifier import EncoderClassifier, unit_length
from paretune.models.loading import load_encoder
from paretune.models.surgery import linear_names, trainable
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import torch_generator
from paretune.stats.metrics import METRICS
from paretune.train.evaluate import Witness
from paretune.train.loop import TrainSpec


class TestHead(AdaptationContract):
    kind = "head"

    def expected(self, name: str) -> bool:
        return False


class TestProbe(AdaptationContract):
    """Its head may be trained by the loop too; what it does itself is tested below."""

    kind = "probe"

    def expected(self, name: str) -> bool:
        return False


class TestLastLayers(AdaptationContract):
    kind = "last_layers"
    settings: ClassVar[dict[str, Any]] = {"layers": 1}

    def expected(self, name: str) -> bool:
        return name.startswith("encoder.layer.1.")


class TestBitFit(AdaptationContract):
    kind = "bitfit"

    def expected(self, name: str) -> bool:
        return name.endswith(".bias")


class TestLora(AdaptationContract):
    kind = "lora"
    settings: ClassVar[dict[str, Any]] = {"rank": 4}

    def expected(self, name: str) -> bool:
        return ".lora_A." in name or ".lora_B." in name


class TestFull(AdaptationContract):
    kind = "full"

    def expected(self, name: str) -> bool:
        return True


class DecoderContract(AdaptationContract):
    """The same of a decoder, whose last token stands for the text."""

    @pytest.fixture
    def source(self, tiny_decoder: Path) -> str:
        return f"path:{tiny_decoder}"


class TestHeadOfDecoder(DecoderContract):
    kind = "head"

    def expected(self, name: str) -> bool:
        return False


class TestLastLayersOfDecoder(DecoderContract):
    kind = "last_layers"
    settings: ClassVar[dict[str, Any]] = {"layers": 1}

    def expected(self, name: str) -> bool:
        return name.startswith("layers.1.")


class TestLoraOfDecoder(DecoderContract):
    kind = "lora"
    settings: ClassVar[dict[str, Any]] = {"rank": 4}

    def expected(self, name: str) -> bool:
        return ".lora_A." in name or ".lora_B." in name


class TestFullOfDecoder(DecoderContract):
    kind = "full"

    def expected(self, name: str) -> bool:
        return True


def test_every_adaptation_of_the_table_is_under_the_contract() -> None:
    """A method that is added to the table without a row above fails here."""
    rows = {row.kind for row in AdaptationContract.__subclasses__() if row is not DecoderContract}
    assert rows == {kind for kind in METHODS if METHODS.load(kind).family == "adaptation"}


@pytest.mark.parametrize("kind", list(METHODS))
def test_a_method_says_what_it_is(kind: str) -> None:
    """Paper, one line in both languages, and settings that all have defaults."""
    method = METHODS.load(kind)
    assert method.paper.startswith("https://")
    for line in (method.summary_en, method.summary_ru):
        assert line and "\n" not in line
    assert any("а" <= letter <= "я" for letter in method.summary_ru)
    method(method.settings_model())


# --- one method's own -----------------------------------------------------------------------------------------------


def test_last_layers_refuses_more_layers_than_there_are(tiny_model: Path) -> None:
    """The message says how many the model has, and nothing was frozen by then."""
    with pytest.raises(ConfigError, match="at most 2"):
        attached(make_adaptation("last_layers", {"layers": 3}), f"path:{tiny_model}")


def test_bitfit_refuses_a_model_without_biases(tiny_decoder: Path) -> None:
    """The type of the model and what to do are in one line."""
    with pytest.raises(ConfigError, match=r"bitfit.*'llama'.*no biases.*use another method"):
        attached(make_adaptation("bitfit", {}), f"path:{tiny_decoder}")


@pytest.mark.parametrize(
    ("part", "maps"),
    [
        ("query_value", {"q_proj", "v_proj"}),
        ("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("mlp", {"gate_proj", "up_proj", "down_proj"}),
        ("all_linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
    ],
)
def test_lora_adapts_a_part_of_a_decoder(tiny_decoder: Path, part: str, maps: set[str]) -> None:
    """By the decoder's own names, in the last block alone where that is asked."""
    model = attached(make_adaptation("lora", {"targets": part, "layers": 1}), f"path:{tiny_decoder}")
    names = [name.split(".lora_")[0] for name in trainable(model) if ".lora_" in name]
    assert {name.rsplit(".", 1)[-1] for name in names} == maps
    assert all(".layers.1." in name for name in names)


def test_lora_starts_where_its_base_stands(tiny_model: Path) -> None:
    """B is zero at the start: the encoder's features are those of the base model, bit for bit."""
    source = f"path:{tiny_model}"
    encoded = encode(read_tokenizer(source), [text for text, _ in ROWS[:8]], max_tokens=32)
    base, lora = (attached(make_adaptation(kind, {}), source) for kind in ("head", "lora"))
    with torch.inference_mode():
        batch = encoded.padded(range(8))
        assert torch.equal(base.pooled(*batch), lora.pooled(*batch))


def test_lora_equals_peft(tiny_model: Path) -> None:
    """Same tensors, start and logits as `get_peft_model` with the same config and seed gives."""
    source = f"path:{tiny_model}"
    ours = attached(make_adaptation("lora", {"rank": 4, "alpha": 12}), source, seed=7)
    generator = torch_generator(7, "init")
    encoder = load_encoder(source)
    config = peft.LoraConfig(r=4, lora_alpha=12, lora_dropout=0.0, target_modules=linear_names(encoder))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )  # as methods/lora.py
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        theirs = peft.get_peft_model(encoder, config)
    own = {name.removeprefix("encoder."): one for name, one in trainable(ours).items() if name.startswith("encoder.")}
    wanted = {name: one for name, one in theirs.named_parameters() if one.requires_grad}
    assert own.keys() == wanted.keys()
    assert all(torch.equal(own[name], wanted[name]) for name in own)
    # B away from zero, so that scale and place of the update count.
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in own:
            if ".lora_B." in name:
                own[name].copy_(torch.randn(own[name].shape, generator=random))
                wanted[name].copy_(own[name])
    encoded = encode(read_tokenizer(source), [text for text, _ in ROWS[:4]], max_tokens=32)
    input_ids_bt, mask_bt = encoded.padded(range(4))
    with torch.inference_mode():
        found = ours.encoder(input_ids=input_ids_bt, attention_mask=mask_bt).last_hidden_state
        assert torch.equal(found, theirs(input_ids=input_ids_bt, attention_mask=mask_bt).last_hidden_state)


def test_lora_scale_is_alpha_over_rank(tiny_model: Path) -> None:
    """By hand, of one layer: y = Wx + b + (alpha / rank)·B·A·x (Hu et al. 2021, section 4.1); alpha is 2·rank."""
    model = attached(make_adaptation("lora", {"rank": 4}), f"path:{tiny_model}")
    layer = model.encoder.base_model.model.encoder.layer[0].attention.self.query
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        b.copy_(torch.randn(b.shape, generator=random))
        x = torch.randn((3, 32), generator=random)
        by_hand = x @ layer.base_layer.weight.T + layer.base_layer.bias + 2.0 * (x @ a.T @ b.T)
        torch.testing.assert_close(layer(x), by_hand, atol=1e-5, rtol=1e-5)


def test_lora_targets_are_suffixes(tiny_model: Path) -> None:
    """Chosen suffixes adapt those layers only; one that no layer has is refused with the endings that there are."""
    source = f"path:{tiny_model}"
    model = attached(make_adaptation("lora", {"targets": ["query", "value"]}), source)
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trainable(model) if ".lora_" in name}
    assert adapted == {"query", "value"}
    with pytest.raises(ConfigError, match=r"q_proj.*names ending in .*query"):
        attached(make_adaptation("lora", {"targets": ["q_proj"]}), source)


@pytest.mark.parametrize(
    ("settings", "maps"),
    [
        ({"targets": "query_value"}, {"query", "value"}),
        ({"targets": "attention"}, {"query", "key", "value", "attention.output.dense"}),
        ({"targets": "mlp"}, {"intermediate.dense", "output.dense"}),
    ],
)
def test_lora_adapts_a_part_of_the_blocks(tiny_model: Path, settings: dict[str, Any], maps: set[str]) -> None:
    """Attention with its output map, the feed-forward part without it; in both blocks or in the last one alone."""
    for more, blocks in (({}, {"0", "1"}), ({"layers": 1}, {"1"})):
        model = attached(make_adaptation("lora", {**settings, **more}), f"path:{tiny_model}")
        names = [name.split("encoder.layer.")[1].split(".lora_")[0] for name in trainable(model) if ".lora_" in name]
        assert {name.partition(".")[0] for name in names} == blocks
        found = {name.partition(".")[2].removeprefix("attention.self.") for name in names}
        assert found == maps


def test_lora_cannot_adapt_more_blocks_than_there_are(tiny_model: Path) -> None:
    """The number that the model has is in the message."""
    with pytest.raises(ConfigError, match="at most 2"):
        attached(make_adaptation("lora", {"layers": 3}), f"path:{tiny_model}")


def test_a_rank_stabilised_scale_is_alpha_over_its_root(tiny_model: Path) -> None:
    """rsLoRA: alpha / √rank, in the forward pass and in the update that is exported."""
    method = make_adaptation("lora", {"rank": 4, "alpha": 6, "rank_stabilised": True})
    model = attached(method, f"path:{tiny_model}")
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    assert layer.scaling["default"] == 3.0
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(0.5)
    update = next(one for one in method.delta(model).values() if isinstance(one, LowRank) and bool(one.b_or.any()))
    torch.testing.assert_close(update.b_or, torch.full_like(update.b_or, 1.5))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lora_whose_b_is_stuck_is_caught(tiny_model: Path, weight_decay: float) -> None:
    """With B frozen at zero the update is zero whatever A does: the head learns, and the run fails all the same."""
    source = f"path:{tiny_model}"
    method = make_adaptation("lora", {})
    model = attached(method, source)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.requires_grad_(False)
    encoded = encode(read_tokenizer(source), [text for text, _ in ROWS], max_tokens=32)
    witness = Witness(model, encoded, "fp32")
    spec = TrainSpec(epochs=1, precision="fp32", max_tokens=32, weight_decay=weight_decay)
    train_toy(model, method, encoded, spec=spec)
    with pytest.raises(InertAdapterError):
        witness.check(model)


# --- baselines ------------------------------------------------------------------------------------------------------

BASELINES: list[Baseline] = [Majority(NoSettings()), Tfidf(TfidfSettings())]


def columns(rows: list[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(text for text, _ in rows), tuple(label for _, label in rows)


@pytest.mark.parametrize("method", BASELINES, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("labels", [CLASSES, tuple(reversed(CLASSES)), (*CLASSES, "unseen")])
def test_a_baseline_gives_probabilities_in_the_order_of_the_labels(method: Baseline, labels: tuple[str, ...]) -> None:
    """Rows sum to 1, column i is label i whatever the order, and a class that training lacks gets 0."""
    train, validation = columns(toy_rows(60)), columns(toy_rows(30, seed=1))
    method.fit(train, validation, labels, seed=0, metric="accuracy")
    found_nc = method.probabilities(validation[0])
    assert found_nc.shape == (30, len(labels))
    np.testing.assert_allclose(found_nc.sum(axis=1), 1.0, atol=1e-9)
    assert (found_nc >= 0).all()
    if "unseen" in labels:
        assert (found_nc[:, labels.index("unseen")] == 0).all()
    method.fit(train, validation, CLASSES, seed=0, metric="accuracy")
    by_name = dict(zip(CLASSES, method.probabilities(validation[0]).T, strict=True))
    for label in CLASSES:
        np.testing.assert_allclose(found_nc[:, labels.index(label)], by_name[label], atol=1e-9)


def test_majority_gives_the_shares() -> None:
    """The probabilities are the training shares, by hand."""
    method = Majority(NoSettings())
    method.fit((("a", "b", "c", "d"), ("x", "y", "y", "y")), (("e",), ("x",)), ("x", "y"), seed=0, metric="accuracy")
    np.testing.assert_array_equal(method.probabilities(["q", "r"]), [[0.25, 0.75], [0.25, 0.75]])
    assert method.parameters() == 2


def test_tfidf_beats_majority_where_words_tell_the_classes() -> None:
    """On separable texts it is right nearly always, where the majority is right a third of the time."""
    train, validation = columns(toy_rows(90)), columns(toy_rows(30, seed=1))
    test_texts, test_labels = columns(toy_rows(60, seed=2))
    right: dict[str, float] = {}
    for name, method in zip(("majority", "tfidf"), BASELINES, strict=True):
        method.fit(train, validation, CLASSES, seed=0, metric="accuracy")
        best_n = method.probabilities(test_texts).argmax(axis=1)
        right[name] = accuracy_score(test_labels, [CLASSES[place] for place in best_n])
    assert right["majority"] == pytest.approx(1 / 3)
    assert right["tfidf"] > 0.9


def test_tfidf_chooses_its_strength_on_validation_data() -> None:
    """Of the offered values of C, and of those past their edge, the one with the lowest validation log-loss is kept;
    the test data play no part."""
    train, validation = columns(toy_rows(60)), columns(toy_rows(30, seed=1))

    def loss(strengths: tuple[float, ...]) -> float:
        method = Tfidf(TfidfSettings(strengths=strengths))
        method.fit(train, validation, CLASSES, seed=0, metric="accuracy")
        truth = [CLASSES.index(label) for label in validation[1]]
        return float(-np.log(method.probabilities(validation[0])[np.arange(30), truth]).mean())

    alone = [loss((strength,)) for strength in (0.01, 10.0, 100.0, 1000.0)]
    assert loss((0.01, 10.0)) == pytest.approx(min(alone)) and alone[0] != pytest.approx(alone[1])


@pytest.mark.parametrize("texts", [("a", "b"), ("好", "坏"), ("!", "?"), ("\u064b", "\u064c")])
def test_tfidf_takes_texts_without_words(texts: tuple[str, str]) -> None:
    """Where no text has a word of two characters, n-grams of characters are what is left, and the choice says so."""
    rows = (list(texts) * 5, ["bank", "oil"] * 5)
    method = Tfidf(TfidfSettings())
    choice = method.fit(rows, rows, ("bank", "oil"), seed=0, metric="accuracy")
    assert choice is not None and choice.setting["features"] == "tf-idf of characters alone"
    assert method.probabilities(texts).argmax(axis=1).tolist() == [0, 1]
    plain = method.fit((["aa b", "c"] * 5, rows[1]), rows, ("bank", "oil"), seed=0, metric="accuracy")
    assert plain is not None and plain.setting["features"] == "tf-idf"


def test_settings_are_checked() -> None:
    """A rank of zero is refused before anything is built."""
    with pytest.raises(ConfigError, match="rank"):
        make_adaptation("lora", dict[str, Any](rank=0))


# --- fitted heads ---------------------------------------------------------------------------------------------------


def features(count: int, seed: int, classes: int = 3, shares: tuple[float, ...] | None = None) -> FeatureRows:
    """Clouds in 6 dimensions, one a class, of rows whose lengths differ by far more than their directions."""
    draw = np.random.default_rng(seed)
    centres_ch = np.random.default_rng(99).normal(size=(classes, 6))
    label_n = draw.choice(classes, size=count, p=shares)
    label_n[:classes] = range(classes)
    rows_nh = (centres_ch[label_n] + draw.normal(size=(count, 6)) * 0.8) * draw.lognormal(0, 1, (count, 1)) * 7
    return FeatureRows(torch.tensor(rows_nh, dtype=torch.float32), [f"c{one}" for one in label_n])


def probed(
    train: FeatureRows, validation: FeatureRows, metric: str = "accuracy", pooling: str = "mean", **settings: Any
) -> tuple[EncoderClassifier, Choice]:
    """A model of 6 features whose head was fitted; its labels stand in another order than the alphabet's."""
    labels = tuple(sorted({*train.labels, *validation.labels}, reverse=True))
    config = BertConfig(hidden_size=6, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    model = EncoderClassifier(BertModel(config), len(labels), pooling)
    probe = make_adaptation("probe", settings)
    assert isinstance(probe, Fitted)
    return model, probe.fit(model, train, validation, labels, metric)


def head_probabilities(model: EncoderClassifier, rows: FeatureRows) -> np.ndarray:
    with torch.inference_mode():
        return torch.softmax(model.head(model.scaled(rows.features_nh)), -1).numpy()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("unit", [False, True])
def test_a_probe_is_scikit_learns_regression_on_the_same_features(classes: int, unit: bool) -> None:
    """With one strength and one kind of features its head gives the probabilities of a regression fitted directly."""
    train, validation = features(150, 0, classes), features(60, 1, classes)
    if unit:  # as a model with this pooling gives them
        train, validation = (FeatureRows(unit_length(one.features_nh), one.labels) for one in (train, validation))
    model, choice = probed(train, validation, pooling="mean_unit", strengths=[10.0])
    x_nh, x_mh = train.features_nh.double().numpy(), validation.features_nh.double().numpy()
    scale = 1 / np.sqrt((x_nh**2).sum(1).mean())
    direct = LogisticRegression(C=10.0, tol=1e-8, max_iter=10_000).fit(x_nh * scale, list(train.labels))
    wanted_mc = direct.predict_proba(x_mh * scale)[:, ::-1]  # the head's order is the other way round
    with torch.inference_mode():
        found_mc = torch.softmax(model.head(validation.features_nh), -1).numpy()
    np.testing.assert_allclose(found_mc, wanted_mc, atol=2e-4)
    assert choice.setting["pooling"] == model.pooling and not choice.edge, "one strength has no edge"


def test_a_probe_takes_length_one_where_lengths_say_nothing() -> None:
    """Rows whose length is noise are told apart by direction alone; the pooling then scales what is served, too."""
    train, validation, test = features(300, 0), features(200, 1), features(400, 2)
    model, choice = probed(train, validation)
    assert (model.pooling, choice.setting["features"]) == ("mean_unit", "of length 1")
    plain, _ = probed(train, validation, pooling="mean_unit")
    assert plain.pooling == "mean_unit", "what is of length 1 already is not scaled again"
    longer = FeatureRows(test.features_nh * 1000, test.labels)
    np.testing.assert_allclose(head_probabilities(model, test), head_probabilities(model, longer), atol=1e-5)


def test_a_probe_weighs_classes_alike_only_where_the_metric_does() -> None:
    """With unequal classes macro-F1 tries balanced weights, accuracy does not; every setting is told with its score."""
    rows = [features(count, seed, shares=(0.9, 0.07, 0.03)) for count, seed in ((300, 0), (300, 1))]
    _, alike = probed(rows[0], rows[1], "macro_f1")
    _, counted = probed(rows[0], rows[1], "accuracy")
    assert {"balanced" in one for one in alike.trials} == {True, False}
    assert not any("balanced" in one for one in counted.trials)
    assert len(alike.trials) == 2 * 2 * 4 + alike.extended


@pytest.mark.parametrize("metric", METRICS)
def test_which_metrics_weigh_classes_alike(metric: str) -> None:
    """Macro-F1 does: there alone TF-IDF and the probe try balanced weights."""
    rows = [features(count, seed, shares=(0.9, 0.07, 0.03)) for count, seed in ((90, 0), (60, 1))]
    _, choice = probed(*rows, metric)
    tfidf = Tfidf(TfidfSettings(strengths=(1.0,)))
    texts = toy_rows(60)
    told = tfidf.fit(*[([text for text, _ in texts], [label for _, label in texts])] * 2, CLASSES, 0, metric)
    assert told is not None
    for one in (choice, told):
        assert any("balanced" in name for name in one.trials) is (metric == "macro_f1")
        assert one.setting["class_weights"] in ({"none", "balanced"} if metric == "macro_f1" else {"none"})


def test_balanced_weights_are_scikit_learns_and_change_what_is_learnt() -> None:
    """Where they are chosen the head is scikit-learn's `class_weight="balanced"`; rare classes are answered more."""
    train, validation = (features(count, seed, shares=(0.94, 0.03, 0.03)) for count, seed in ((400, 0), (400, 1)))
    train, validation = (FeatureRows(unit_length(one.features_nh), one.labels) for one in (train, validation))
    model, choice = probed(train, validation, "macro_f1", pooling="mean_unit", strengths=[0.05])
    assert choice.setting["class_weights"] == "balanced" and choice.setting["strength"] == 0.05
    plain, _ = probed(train, validation, "accuracy", pooling="mean_unit", strengths=[0.05])
    direct = LogisticRegression(C=0.05, tol=1e-8, max_iter=10_000, class_weight="balanced")
    direct.fit(train.features_nh.double().numpy(), list(train.labels))
    wanted_mc = direct.predict_proba(validation.features_nh.double().numpy())[:, ::-1]
    found_mc = head_probabilities(model, validation)
    np.testing.assert_allclose(found_mc, wanted_mc, atol=2e-4)
    rare = (found_mc.argmax(1) != 2).sum(), (head_probabilities(plain, validation).argmax(1) != 2).sum()
    assert rare[0] > rare[1], "c0, the frequent class, stands last"


def test_an_edge_extends_the_strengths_and_says_so_when_it_is_one_still() -> None:
    """Twice at most, by a factor of ten."""
    train, validation = features(60, 0), features(60, 1)
    _, choice = probed(train, validation, pooling="mean_unit", strengths=[1e-6, 1e-5])
    assert choice.extended == 2 and choice.edge and choice.setting["strength"] == pytest.approx(1e-3)
    few = features(18, 0)
    _, inside = probed(few, features(200, 1), pooling="mean_unit", strengths=[1e-4, 3.0, 1e8])
    assert inside.extended == 0 and not inside.edge and inside.setting["strength"] == 3.0


def test_a_strength_past_the_edge_that_does_not_converge_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked for it, so the method goes on with what converged, and is at an edge; one that was asked for is an
    error. The chosen setting may need more steps from zero than it did beside its neighbour."""
    draw = np.random.default_rng(0)
    label_n = draw.integers(0, 3, 60)
    rows_nh = 1 + draw.normal(size=(60, 16)) * 10.0 ** -np.linspace(0, 4, 16)
    rows_nh[:, :3] += np.eye(3)[label_n] * 0.3
    rows_nh /= np.sqrt((rows_nh**2).sum(1).mean())
    truth = [CLASSES[one] for one in label_n]

    def tried(*strengths: float) -> Choice:
        return searched({"x": rows_nh}, truth, {"x": rows_nh}, truth, CLASSES, "accuracy", strengths).choice

    whole = tried(1.0, 10.0)
    assert whole.extended == 2 and len(whole.trials) == 4
    monkeypatch.setattr("paretune.methods.regression.MOST_ITERATIONS", 120)
    choice = tried(1.0, 10.0)
    assert list(choice.trials) == list(whole.trials)[: len(choice.trials)] and 2 <= len(choice.trials) < 4
    assert choice.edge and choice.extended == len(choice.trials) - 2
    assert choice.setting["strength"] == 10.0 ** (len(choice.trials) - 1)
    with pytest.raises(RunError, match="has not converged after 120 iterations"):
        tried(1e4, 1e5)


@pytest.mark.parametrize("value", [0.0, 0.3])
@pytest.mark.parametrize("metric", METRICS)
def test_a_probe_of_features_that_say_nothing_answers_the_shares(value: float, metric: str) -> None:
    """All equal, all zero: it converges, and unweighted its probabilities are the classes' shares."""
    rows = FeatureRows(torch.full((40, 6), value), ["c0"] * 30 + ["c1"] * 10)
    model, choice = probed(rows, rows, metric)
    shares = [0.25, 0.75] if choice.setting["class_weights"] == "none" else [0.5, 0.5]
    np.testing.assert_allclose(head_probabilities(model, rows)[0], shares, atol=1e-3)


def test_a_probe_of_one_class_answers_it() -> None:
    """Training with one of two classes fits nothing, and gives it probability 1."""
    train = FeatureRows(features(20, 0).features_nh, ["c0"] * 20)
    model, _ = probed(train, features(20, 1, classes=2), "macro_f1")
    assert (head_probabilities(model, train) == [0.0, 1.0]).all(), "c0 stands last"


def test_a_probe_draws_nothing_and_a_class_that_training_lacks_is_never_answered() -> None:
    """Two fits are equal bit for bit whatever the global state; the missing class has probability 0."""
    train, validation = features(90, 0), features(40, 1, classes=4)
    torch.manual_seed(1)
    first, _ = probed(train, validation)
    torch.manual_seed(2)
    np.random.seed(3)
    second, _ = probed(train, validation)
    assert torch.equal(first.head.weight, second.head.weight) and torch.equal(first.head.bias, second.head.bias)
    assert (head_probabilities(first, validation)[:, 0] == 0).all(), "c3 stands first"


def test_a_saved_probe_brings_its_pooling_back(tiny_model: Path, tmp_path: Path) -> None:
    """A head for features of length 1 that was loaded beside plain ones would answer otherwise than it was scored."""
    source = f"path:{tiny_model}"
    probe = make_adaptation("probe", {})
    model, fresh = attached(probe, source), attached(probe, source, 1)
    model.pooling = "mean_unit"
    probe.save(model, tmp_path)
    probe.load(fresh, tmp_path)
    assert fresh.pooling == "mean_unit" and torch.equal(fresh.head.weight, model.head.weight)
    with pytest.raises(ReloadError, match="unit_length"):
        probe.load_state(fresh, {"head.weight": model.head.weight, "head.bias": model.head.bias})
