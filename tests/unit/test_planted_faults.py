"""Records check themselves: faults planted one by one in a copy of a study are each named, and no claim rests on them.

Each is planted three times: in a study that runs here, in one from before there were lists of members, and in a
published one with its digest. What only a digest can show is planted in that one alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from fabricated_study import scores_of, write_study

from paretune.core.config import JsonObject, canonical_hash, load_toml
from paretune.core.errors import RecordError, UsageError
from paretune.dashboard.gathered import Gatherer
from paretune.dashboard.index import Index
from paretune.export.records_command import records_command
from paretune.records.schema import Member, Membership
from paretune.records.seal import SEAL_FILE
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.answer import answer
from paretune.report.build import build
from paretune.report.claims import Ledger, judged
from paretune.report.facts import gather
from paretune.study.advise import advise
from paretune.study.advise_case import Case
from paretune.study.publish import publish, seal_published

METHODS = ("majority", "lora", "full")
MODES = ("working", "older", "published")
CLAIM = """
[claims.one]
en = "No run collapsed."
ru = "Ни один прогон не выродился."
verdict = "supported"
[claims.one.when.a]
study = "s"
method = "lora"
rule = "never_one_class"
"""
Plant = Callable[[StudyFolder], None]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same study as it stands in each of the three places."""
    root = tmp_path_factory.mktemp("studies")
    older = StudyFolder(write_study(root / "older" / "s", methods=METHODS, test_rows=40, broken=False))
    study, specs = older.study(), [run.spec() for run in older.runs()]
    ids = {(one.method, one.seed): one.run_id for one in specs}
    spec: JsonObject = {
        "study": {"name": study.name, "metric": "accuracy", "margin": 0.01, "control": "full", "seeds": study.seeds},
        "train": {"epochs": 3},
        "methods": {label: {} for label in METHODS},
    }
    chosen = [one.model_copy(update={"run_id": ids[one.method, 0]}) for one in study.selections]
    update = {"selections": chosen, "spec": spec, "spec_hash": canonical_hash(spec)}
    older.write_study(study.model_copy(update=update))
    shutil.copytree(root / "older", root / "working")
    runs = [Member(run_id=one.run_id, method=one.method, seed=one.seed, role="result") for one in specs]
    working = StudyFolder(root / "working" / "s")
    working.write_study(older.study().model_copy(update={"membership": Membership(complete=True, runs=runs)}))
    target, _ = publish(working.path, root / "published")
    target.rename(root / "published" / "s")
    return {mode: root / mode / "s" for mode in MODES}


def run_of(folder: StudyFolder, method: str, seed: int) -> RunFolder:
    return next(run for run in folder.runs() if (run.spec().method, run.spec().seed) == (method, seed))


def edited(path: Path, change: Callable[[JsonObject], None]) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def rows_edited(change: Callable[[list[JsonObject]], object], method: str = "lora") -> Plant:
    def plant(folder: StudyFolder) -> None:
        run = run_of(folder, method, 1)
        rows = run.predictions().to_pylist()
        change(rows)
        run.write_predictions(pa.Table.from_pylist(rows))

    return plant


def row(**values: object) -> Plant:
    return rows_edited(lambda rows: rows[7].update(values))


def json_edited(file: str, **values: object) -> Plant:
    """Edits a file of lora's second run, or of the study."""

    def plant(folder: StudyFolder) -> None:
        own = (folder.path / file).exists()
        edited((folder.path if own else run_of(folder, "lora", 1).path) / file, lambda tree: tree.update(values))

    return plant


def flipped_label(rows: list[JsonObject]) -> None:
    right = rows[7]["prediction"] == rows[7]["label"]
    rows[7]["label"] = "trade" if rows[7]["label"] != "trade" else "earn"
    rows[7]["label_probability"] = 0.01 if right else rows[7]["label_probability"]


def other_prediction(rows: list[JsonObject]) -> None:
    at = next(place for place, one in enumerate(rows) if one["prediction"] == one["label"])
    rows[at]["prediction"] = "trade" if rows[at]["label"] != "trade" else "earn"
    rows[at]["label_probability"] = 0.01


def swapped(first: tuple[str, int], second: tuple[str, int], *files: str) -> Plant:
    def plant(folder: StudyFolder) -> None:
        one, other = (run_of(folder, *which).path for which in (first, second))
        for name in files:
            kept = (one / name).read_bytes()
            (one / name).write_bytes((other / name).read_bytes())
            (other / name).write_bytes(kept)

    return plant


def gone(name: str) -> Plant:
    def plant(folder: StudyFolder) -> None:
        path = run_of(folder, "lora", 1).path / name
        path.unlink() if name else shutil.rmtree(path)

    return plant


def torn(name: str) -> Plant:
    def plant(folder: StudyFolder) -> None:
        path = run_of(folder, "lora", 1).path / name
        path.write_bytes(path.read_bytes()[:-40])

    return plant


def renamed(folder: StudyFolder) -> None:
    path = run_of(folder, "lora", 1).path
    path.rename(path.with_name("0" * 16))


def costs(**values: float) -> Plant:
    return json_edited(
        "measurements.json", **{name: {"value": one, "grade": "counter"} for name, one in values.items()}
    )


def a_run_added(folder: StudyFolder) -> None:
    run = run_of(folder, "lora", 1)
    spec = run.spec().model_copy(update={"seed": 7})
    shutil.copytree(run.path, folder.run(spec).path)


def example_edited(folder: StudyFolder) -> None:
    examples = folder.examples()
    label = "trade" if examples[0].label != "trade" else "earn"
    folder.write_examples([examples[0].model_copy(update={"label": label}), *examples[1:]])


def measured(**values: float) -> Plant:
    def plant(folder: StudyFolder) -> None:
        path = run_of(folder, "lora", 1).path / "measurements.json"
        edited(path, lambda tree: tree["scores"]["test"].update(values))

    return plant


def invented(folder: StudyFolder) -> None:
    """Other predictions and the scores that go with them: all of a run agrees with itself."""
    run = run_of(folder, "lora", 1)
    rows = run.predictions().to_pylist()
    other_prediction(rows)
    table = pa.Table.from_pylist(rows)
    run.write_predictions(table)
    run.write_measurements(run.measurements().model_copy(update={"scores": scores_of(table)}))


SIX = ("predictions.parquet",)
FAULTS: dict[str, Plant] = {
    "a flipped true label": rows_edited(flipped_label),
    "a flipped true label of a baseline": rows_edited(flipped_label, "majority"),
    "predictions of two seeds swapped": swapped(("lora", 0), ("lora", 1), *SIX),
    "predictions of two methods swapped": swapped(("lora", 0), ("majority", 0), *SIX),
    "measurements of two methods swapped": swapped(("lora", 0), ("majority", 0), "measurements.json"),
    "specs of two seeds swapped": swapped(("lora", 0), ("lora", 1), "spec.json"),
    "a seed edited": json_edited("spec.json", seed=2),
    "a seed edited to none of the study's": json_edited("spec.json", seed=9),
    "a learning rate edited": json_edited("spec.json", learning_rate=0.5),
    "a digest of data edited": json_edited("spec.json", data_digest="e"),
    "a digest of the model edited": json_edited("spec.json", model_digest="e"),
    "settings edited": json_edited("spec.json", settings={"rank": 64}),
    "a method's name edited": json_edited("spec.json", method="full"),
    "a run's folder deleted": gone(""),
    "a spec deleted": gone("spec.json"),
    "predictions deleted": gone("predictions.parquet"),
    "measurements deleted": gone("measurements.json"),
    "a spec torn": torn("spec.json"),
    "a status torn": torn("status"),
    "predictions torn": torn("predictions.parquet"),
    "measurements torn": torn("measurements.json"),
    "a folder renamed": renamed,
    "measured accuracy edited": measured(accuracy=0.5),
    "measured log-loss edited": measured(log_loss=0.01),
    "a measured score beyond its bounds": measured(macro_f1=3.0),
    "a prediction edited": rows_edited(other_prediction),
    "a prediction of an unknown class": row(prediction="gold"),
    "a true label of an unknown class": row(label="gold"),
    "a score of 3": row(score=3.0),
    "a score that is no number": row(score=float("nan")),
    "a negative probability": row(label_probability=-0.2),
    "a probability edited": row(label_probability=0.999, score=0.2),
    "a mark of a near-duplicate flipped": rows_edited(lambda rows: rows[7].update(near_duplicate=True)),
    "a row deleted": rows_edited(lambda rows: rows.pop(7)),
    "a row twice": rows_edited(lambda rows: rows.insert(7, rows[7])),
    "two rows swapped": rows_edited(lambda rows: rows.insert(7, rows.pop(8))),
    "a status of a failure": json_edited("status", state="failed"),
    "a negative peak of memory": costs(peak_memory_bytes=-5.0),
    "a negative time": costs(train_seconds=-1.0),
    "an endless time": costs(train_cpu_seconds=float("inf")),
    "a negative count": json_edited("measurements.json", train_tokens=-1),
    "more trained than there is": json_edited("measurements.json", trainable_parameters=10**12),
    "the margin edited": json_edited("study.json", margin=0.2),
    "the metric edited": json_edited("study.json", metric="macro_f1"),
    "the control edited": json_edited("study.json", control="majority"),
    "the list of seeds edited": json_edited("study.json", seeds=[0, 1]),
    "the study file in the record edited": json_edited("study.json", spec={"study": {"margin": 0.2}}),
    "a class renamed in the record": json_edited("study.json", labels=["earn", "acq", "crude", "gold"]),
    "rows of the test edited": json_edited("study.json", split_rows={"train": 9, "validation": 9, "test": 39}),
    "the label of an example edited": example_edited,
}
SEALED: dict[str, Plant] = {
    "a run invented whole": invented,
    "two seeds exchanged but for their specs": swapped(
        ("lora", 0), ("lora", 1), "predictions.parquet", "measurements.json"
    ),
    "the curve edited": lambda folder: run_of(folder, "lora", 1).clear_events(),
    "provenance edited": json_edited("provenance.json", commit="fffffff"),
    "the exploration edited": json_edited("explore.json", words=1),
    "the exploration deleted": lambda folder: (folder.path / "explore.json").unlink(),
    "a time edited": costs(train_seconds=1.0),
    "a run added": a_run_added,
    "a file added": lambda folder: run_of(folder, "lora", 1).set_status("oom", "trained"),
    "a text of an example edited": lambda folder: folder.write_examples(
        [one.model_copy(update={"text": "other"}) for one in folder.examples()]
    ),
}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    path = tmp_path_factory.mktemp("ledger") / "claims.toml"
    path.write_text(CLAIM, encoding="utf-8")
    return load_toml(path, Ledger)


def said_of(folder: Path, ledger: Ledger) -> str:
    """What the report's answer says; a refusal is an answer too. No claim may be supported."""
    try:
        facts = gather(StudyFolder(folder))
        assert facts.faults and not facts.hold
        assert judged(ledger, {"s": facts})["one"].verdict == "not_measured"
        return answer(folder, "en")
    except RecordError as error:
        return str(error)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(
    studies: dict[str, Path], tmp_path: Path, ledger: Ledger, name: str, mode: str
) -> None:
    """The answer says that records do not hold and which; nothing is claimed."""
    folder = Path(shutil.copytree(studies[mode], tmp_path / "s"))
    run = run_of(StudyFolder(folder), "lora", 1).id
    FAULTS[name](StudyFolder(folder))
    text = said_of(folder, ledger)
    assert "Records do not hold" in text or "have other test examples" in text, text
    places = (run, "lora, seed", "majority, seed", "study.json", "examples", "run 0000")
    assert any(place in text for place in places), text


@pytest.mark.parametrize("name", SEALED)
def test_a_change_since_the_publication_is_named(
    studies: dict[str, Path], tmp_path: Path, ledger: Ledger, name: str
) -> None:
    """What agrees with itself is found by the digest."""
    folder = Path(shutil.copytree(studies["published"], tmp_path / "s"))
    SEALED[name](StudyFolder(folder))
    text = said_of(folder, ledger)
    assert "after it was published" in text or "published and is gone" in text or "after the study" in text, text


@pytest.mark.parametrize("mode", MODES)
def test_records_that_hold_are_not_accused(studies: dict[str, Path], ledger: Ledger, mode: str) -> None:
    """Without a fault nothing is said, and the claim stands; a report beside the records breaks no digest."""
    folder = studies[mode]
    build(folder, "en")
    facts = gather(StudyFolder(folder))
    assert facts.hold and facts.sealed == (mode == "published")
    assert judged(ledger, {"s": facts})["one"].verdict == "supported"
    assert "Records do not hold" not in answer(folder, "en")


def test_every_reader_says_it(studies: dict[str, Path], tmp_path: Path) -> None:
    """Report, dashboard, advice, exporters and publication, in both languages where they speak them."""
    folder = Path(shutil.copytree(studies["published"], tmp_path / "s"))
    measured(accuracy=0.5)(StudyFolder(folder))
    run = run_of(StudyFolder(folder), "lora", 1).id
    assert "Records that do not hold" in build(folder, "en").read_text()
    assert "Записи, которые не сходятся" in build(folder, "ru").read_text()
    entry = Index(folder).study("s")
    assert entry is not None
    shown = Gatherer(Index(folder)).gathered(entry).facts
    assert shown is not None and {fault.run_id for fault in shown.faults} == {run}
    case = Case(rows=960, classes=4, tokens=82.5)
    assert [why for _, why in advise([folder], case).far] == ["records"]
    lines, tree = records_command(folder, tmp_path / "csv", "csv", "en")
    assert any(run in line for line in lines) and tree["faults"]
    with pytest.raises(RecordError, match=run):
        publish(folder, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_publication_without_a_digest_gets_one(studies: dict[str, Path], tmp_path: Path) -> None:
    """Once, and only where its records hold."""
    folder = Path(shutil.copytree(studies["older"], tmp_path / "s"))
    assert seal_published(folder) == folder / SEAL_FILE and gather(StudyFolder(folder)).sealed
    with pytest.raises(RecordError, match="has a digest"):
        seal_published(folder)
    (folder / SEAL_FILE).unlink()
    measured(accuracy=0.5)(StudyFolder(folder))
    with pytest.raises(UsageError, match="records that hold"):
        seal_published(folder)
    assert not (folder / SEAL_FILE).exists()
