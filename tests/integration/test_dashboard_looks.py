"""What readers look for on the dashboard: scores and costs of runs, the search, wrong texts, worst classes, answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dashboard_reader import client_of, page, runs_of, text_of
from fabricated_study import LABELS, write_study
from sklearn.metrics import precision_recall_fscore_support

from paretune.records.membership import members
from paretune.records.schema import EngineUse
from paretune.records.store import StudyFolder
from paretune.report.classes import class_scores, confused_pairs, worst_text
from paretune.report.curves import epoch_data, epoch_figure
from paretune.report.facts import gather
from paretune.report.search_figure import search_figure, trial_data
from paretune.report.tables import NOT_RANKED
from paretune.report.wording import Words

METHODS = ("tfidf", "head", "lora", "full")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_study(tmp_path / "studies" / "one", methods=METHODS, test_rows=60, extra_split=False)


def _scores(root: Path, query: str) -> list[str]:
    """The score column of the table of runs, from top to bottom."""
    with client_of(root) as client:
        answer = client.get(f"/study/one/runs{query}")
    assert answer.status_code == 200
    rows = re.findall(r"<tr>(.*?)</tr>", answer.text.split("<tbody>")[1], re.S)
    return [text_of(re.findall(r"<td.*?</td>", row, re.S)[3]) for row in rows]


def test_runs_are_sorted_by_what_they_reached_and_cost(one: Path) -> None:
    """Each column sorts both ways; a run without a value stands last either way, and an unknown column is refused."""
    for at, run in enumerate(runs_of(one, "lora")):
        path = run / "measurements.json"
        if path.exists():
            tree = json.loads(path.read_text())
            path.write_text(json.dumps({**tree, "scores": {"test": {"accuracy": 0.95 + at / 100}}}))
    rising, falling = _scores(one.parent, "?sort=score"), _scores(one.parent, "?sort=score&falling=true")
    numbers = [score for score in rising if score != "—"]
    assert numbers == sorted(numbers) and len(set(numbers)) > 3 and "0.970" in numbers
    missing = ["—"] * (len(rising) - len(numbers))
    assert missing and rising == numbers + missing and falling == sorted(numbers, reverse=True) + missing
    for column in ("id", "method", "seed", "rate", "memory", "seconds", "state", "news"):
        assert sorted(_scores(one.parent, f"?sort={column}")) == sorted(rising)
    text = page(one, "/study/one/runs?sort=memory")
    assert "GiB" in text and "sec" in text
    with client_of(one.parent) as client:
        assert client.get("/study/one/runs?sort=colour").status_code == 400


def test_costs_that_are_compared_with_no_other_are_marked_and_stand_last(one: Path) -> None:
    """As in the report's tables: a run beside other work, and one that was resumed, have the mark; a trial has too."""
    slow, resumed = runs_of(one, "lora")[:2]
    for run, change in ((slow, {"value": 400.0}), (resumed, {"value": 1e-3, "grade": "estimated"})):
        tree = json.loads((run / "measurements.json").read_text())
        tree["train_seconds"] |= change
        (run / "measurements.json").write_text(json.dumps(tree))
    record = StudyFolder(one).study()
    trial = next(run for run in StudyFolder(one).runs() if run.spec().method == "full" and run.scored)
    spec = trial.spec().model_copy(update={"learning_rate": 0.5})
    other = StudyFolder(one).run(spec)
    other.write_spec(spec)
    engine = EngineUse(name="native", processor="another", threads=2)
    other.write_measurements(trial.measurements().model_copy(update={"engine": engine}))
    other.set_status("ok", "trained")
    assert members(record, {spec.run_id: spec}).role(spec.run_id) == "trial"
    with client_of(one.parent) as client:
        for falling in ("false", "true"):
            html = client.get(f"/study/one/runs?sort=seconds&falling={falling}").text
            rows = re.findall(r"<tr>(.*?)</tr>", html.split("<tbody>")[1], re.S)
            cells = [text_of(re.findall(r"<td.*?</td>", row, re.S)[5]) for row in rows]
            measured = [cell for cell in cells if cell != "—"]
            assert [cell.endswith(NOT_RANKED) for cell in measured] == [False] * (len(measured) - 3) + [True] * 3
        text = text_of(client.get("/study/one/runs").text)
        assert "measured beside other work" in text and "estimated" in text and "another processor" in text
        side = text_of(client.get(f"/study/one/compare?a={slow.name}&b={trial.id}").text)
        assert f"6 min 40 sec{NOT_RANKED}" in side.replace("\u00a0", " ") and "measured beside other work" in side


def test_wrong_examples_have_their_texts_where_the_study_ran(one: Path) -> None:
    """Beside the prepared data every example has its text; a published study shows those it published, and says so."""
    told = "Only the examples in examples.json have a text"
    assert told in page(one, "/study/one/examples")
    tests = gather(StudyFolder(one)).scored[0].runs[0].splits["test"].ids
    rows = {
        "split": ["test"] * len(tests) + ["train"],
        "id": [*tests, "test-1"],
        "text": [f"whole text of {name}." for name in tests] + ["of training"],
    }
    (one / "data").mkdir()
    pq.write_table(pa.table(rows), one / "data" / "data.parquet")
    text = page(one, "/study/one/examples")
    assert told not in text and "of training" not in text
    assert len(re.findall(r"whole text of test-\d+\.", text)) > 6
    (one / "data" / "data.parquet").write_bytes(b"torn")
    assert told in page(one, "/study/one/examples")


def test_classes_are_those_of_scikit_learn(one: Path) -> None:
    """Precision, recall and F1 of each class over all seeds are the library's, and the worst is named in a sentence."""
    facts = gather(StudyFolder(one))
    for method in facts.scored:
        tests = [run.splits["test"] for run in method.runs.values()]
        truth = [label for test in tests for label in test.labels]
        said = [label for test in tests for label in test.predictions]
        expected = precision_recall_fscore_support(truth, said, labels=LABELS, zero_division=0)
        found = {score.label: score for score in class_scores(method)}
        for at, label in enumerate(LABELS):
            assert (found[label].precision or 0.0) == pytest.approx(expected[0][at])
            assert (found[label].recall, found[label].f1) == pytest.approx((expected[1][at], expected[2][at]))
        wrong = sum(number for _, _, number, _ in confused_pairs(method))
        assert wrong == sum(a != b for a, b in zip(truth, said, strict=True))
        worst = min(found.values(), key=lambda score: score.f1)
        for lang in ("en", "ru"):
            assert worst.label in worst_text(method, Words(lang)) and method.label in worst_text(method, Words(lang))
    head = page(one, "/study/one/examples?method=head")
    assert worst_text(facts.by_label["head"], Words("en")) in head
    assert "Pairs most often confused: head" in head and "All classes: head" in head


def test_a_method_without_mistakes_has_no_worst_class(tmp_path: Path) -> None:
    """Where every class is right there is no pair to name, and no sentence."""
    study = write_study(
        tmp_path / "made", methods=("lora", "full"), quality={"lora": 2.0, "full": 0.9}, test_rows=40, broken=False
    )
    lora = gather(StudyFolder(study)).by_label["lora"]
    assert (confused_pairs(lora), worst_text(lora, Words("en"))) == ([], "")


def test_the_search_is_drawn(one: Path) -> None:
    """Each tried rate of each trained method is a point, one of a method is chosen; one rate alone is no search."""
    facts = gather(StudyFolder(one))
    trials = trial_data(facts)
    assert {trial.method for trial in trials} == {"head", "lora", "full"} and len(trials) == 9
    assert [trial.method for trial in trials if trial.chosen] == ["full", "head", "lora"]
    figure = search_figure(facts, Words("en"))
    assert figure is not None and figure.sheet.columns[2] == "accuracy on validation data"
    with client_of(one.parent) as client:
        assert 'data-figure="search"' in client.get("/study/one").text
    chosen = [selection.model_copy(update={"trials": {"C=1": 0.9}}) for selection in facts.study.selections]
    for method, selection in zip(("head", "lora", "full"), chosen, strict=True):
        facts.by_label[method].selection = selection
    assert trial_data(facts) == [] and search_figure(facts, Words("en")) is None


def _epoch(epoch: int, score: object) -> str:
    return json.dumps({"event": "EpochEvaluated", "epoch": epoch, "step": 30 * epoch, "scores": {"accuracy": score}})


def test_validation_after_each_epoch_is_drawn_and_told(one: Path) -> None:
    """The curve is the mean over seeds; lines that are torn or hold no number are left out, and a live run tells."""
    for seed, run in enumerate(
        sorted(runs_of(one, "lora"), key=lambda run: json.loads((run / "spec.json").read_text())["seed"])
    ):
        lines = [_epoch(1, 0.5 + seed / 10), _epoch(2, 0.9)]
        events = run / "events.jsonl"
        events.write_text("\n".join([*events.read_text().splitlines()[:-1], *lines, ""]))
    points = epoch_data(gather(StudyFolder(one)))
    assert [(one.method, one.epoch, round(one.score, 3), one.seeds) for one in points] == [
        ("lora", 1, 0.6, 3),
        ("lora", 2, 0.9, 3),
    ]
    with client_of(one.parent) as client:
        assert 'data-figure="epochs"' in client.get("/study/one").text
    run = runs_of(one, "head")[0]
    for name in ("status", "measurements.json", "predictions.parquet"):
        (run / name).unlink()
    events = [_epoch(3, 0.75), _epoch(4, "torn"), '{"event": "EpochEvaluated", "epoch": "x", "scores": {}}']
    (run / "events.jsonl").write_text("\n".join([*events, ""]))
    with client_of(one.parent) as client:
        (news,) = client.get("/study/one/live.json").json()["runs"]
    assert news["validation"] == "validation after epoch 3: accuracy 0.750" and news["torn"] == 1
    assert epoch_figure(gather(StudyFolder(one)), Words("ru")) is not None


@pytest.mark.parametrize(("lang", "said"), [("en", "Take "), ("ru", "Возьмите ")])
def test_the_list_gives_each_answer(tmp_path: Path, lang: str, said: str) -> None:
    """Each study's own answer stands in its row; one that cannot be read, or has none yet, hides no other."""
    root = tmp_path / "studies"
    same = {"last2": 0.95, "lora": 0.95, "full": 0.95}
    write_study(root / "good", seeds=(0, 1, 2, 3, 4), methods=tuple(same), quality=same, margin=0.2, broken=False)
    write_study(root / "begun", methods=("lora", "full"), scored=False)
    torn = write_study(root / "torn", methods=("lora", "full"), test_rows=40)
    (torn / "study.json").write_text("{")
    with client_of(root, lang) as client:
        for _ in range(40):
            html = client.get("/").text
            if said in html:
                break
    rows = {re.search(r'href="/study/(\w+)"', row)[1]: text_of(row) for row in html.split("<tr>")[2:]}  # type: ignore[index]
    assert said in rows["good"] and set(rows) == {"good", "begun", "torn"}
    assert ("no run has been scored" in rows["begun"]) == (lang == "en")
