"""The contract of every task in the table, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef
from sklearn.utils.class_weight import compute_sample_weight

from paretune.core.errors import ConfigError, DataError, UnknownNameError
from paretune.data.encoding import Encoded
from paretune.tasks.classification import Classification
from paretune.tasks.task import TASKS, Task

LABELS = ("a", "b", "c")


@pytest.fixture(params=list(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS.load(request.param)(LABELS)


@pytest.fixture
def classification() -> Classification:
    return Classification(LABELS)


def test_losses_of_parts_add_up(task: Task) -> None:
    """The summed loss of a batch is the sum over its parts: what accumulation rests on."""
    random = torch.Generator().manual_seed(0)
    logits_bc = torch.randn((16, 3), generator=random)
    targets_b = task.targets(["a", "b", "c", "a"] * 4)
    whole = task.loss_sum(logits_bc, targets_b)
    parts = sum(task.loss_sum(logits_bc[i : i + 4], targets_b[i : i + 4]) for i in range(0, 16, 4))
    torch.testing.assert_close(whole, torch.as_tensor(parts), rtol=1e-6, atol=0)


def test_results_give_an_outcome_that_is_scored_and_recorded(task: Task) -> None:
    """One row a text all the way; every metric that may head a study is a finite score."""
    outputs_nc = torch.tensor([[2.0, 4.0], [6.0, 5.0]]) if not task.labelled else torch.eye(3)[:2]
    results_nc = task.results(outputs_nc, Encoded(((1, 2), (1, 2, 3)), 0, (9, 11)))
    outcome = task.outcome(results_nc, ["a", "b"])
    assert {len(values) for values in outcome.columns(["a", "b"]).values()} == {2}
    scores = task.scores(outcome, ["a", "b"])
    assert set(task.metrics) <= set(scores)
    assert all(np.isfinite(scores[metric]) for metric in task.metrics)


def test_the_loss_is_a_mean_over_units_that_add_up(task: Task) -> None:
    """A batch has as many as its parts together: what accumulation rests on."""
    assert task.units([5, 3, 9]) == task.units([5]) + task.units([3, 9]) > 0


def test_probabilities_are_ones_of_classes(classification: Classification) -> None:
    """They sum to 1 and keep the order of the logits, for extreme logits too."""
    logits_bc = torch.tensor([[0.0, 1.0, 2.0], [1000.0, 0.0, -1000.0]])
    found_bc = classification.probabilities(logits_bc)
    torch.testing.assert_close(found_bc.sum(-1), torch.ones(2))
    assert torch.equal(found_bc[0].argsort(), logits_bc[0].argsort())
    assert found_bc[1].tolist() == [1.0, 0.0, 0.0]


def test_an_unknown_label_is_refused(classification: Classification) -> None:
    """A label that the task does not have is named."""
    with pytest.raises(DataError, match=r"label 'z'.*a, b, c"):
        classification.targets(["a", "z"])


def test_scores_equal_scikit_learn(classification: Classification) -> None:
    """Headline metrics and log-loss of an outcome are scikit-learn's of the same probabilities."""
    draw = np.random.default_rng(0)
    probabilities_nc = draw.dirichlet(np.ones(3), size=200)
    labels = [LABELS[place] for place in draw.integers(0, 3, 200)]
    outcome = classification.outcome(probabilities_nc, labels)
    predictions = [LABELS[place] for place in probabilities_nc.argmax(1)]
    assert outcome.predictions == tuple(predictions)
    np.testing.assert_array_equal(outcome.scores_n, probabilities_nc.max(1))
    found = classification.scores(outcome, labels)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(labels, predictions))
    assert found["log_loss"] == pytest.approx(log_loss(labels, probabilities_nc, labels=list(LABELS)))
    assert 0 <= found["calibration_error"] <= 1


def test_the_loss_is_cross_entropy() -> None:
    """By hand: −log softmax of the true class, summed."""
    task = Classification(LABELS)
    loss = task.loss_sum(torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]), torch.tensor([1, 0]))
    assert float(loss) == pytest.approx(np.log(3) - np.log(np.exp(2) / (np.exp(2) + 2)), rel=1e-6)


def test_a_balanced_loss_is_scikit_learns() -> None:
    """Of unequal classes, one of which training lacks: the log-loss with scikit-learn's own weights, of mean 1."""
    labels = ["a"] * 70 + ["b"] * 30  # no "c"
    task = Classification(LABELS)
    logits_nc = torch.randn((100, 3), generator=torch.Generator().manual_seed(0))
    weights_n = compute_sample_weight("balanced", labels)
    loss = task.balanced(labels).loss_sum(logits_nc, task.targets(labels)) / task.units([1] * 100)
    wanted = log_loss(labels, torch.softmax(logits_nc.double(), -1).numpy(), sample_weight=weights_n, labels=LABELS)
    assert float(loss) == pytest.approx(wanted, rel=1e-5) and weights_n.mean() == pytest.approx(1)
    assert float(loss) != pytest.approx(float(task.loss_sum(logits_nc, task.targets(labels))) / 100, rel=1e-3)
    assert torch.isfinite(task.balanced(labels).loss_sum(logits_nc, task.targets(["c"] * 100)))


def test_a_task_without_classes_has_no_class_weights() -> None:
    """One line says what to give instead."""
    with pytest.raises(ConfigError, match=r'class_weights = "balanced".*a task with classes.*"none"'):
        TASKS.load("next_token")(LABELS).balanced(["a"])


def test_an_unknown_task_suggests_the_nearest() -> None:
    """A misspelt task names the one that was meant."""
    with pytest.raises(UnknownNameError, match="did you mean 'classification'"):
        TASKS.check("clasification")
