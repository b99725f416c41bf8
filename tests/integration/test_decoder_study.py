"""Whole studies of a decoder: classification by its last token with export, and plain next-token prediction."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console
from toy_study import VOCABULARY, study_text, toy_rows, write_csv

from paretune.core.errors import ConfigError, RecordError
from paretune.export.export import export
from paretune.models.tiny import write_tiny_llama
from paretune.records.store import StudyFolder
from paretune.report.build import build
from paretune.report.token_table import token_rows, token_table
from paretune.report.wording import Words
from paretune.study.design import read_study_file, with_settled_model
from paretune.study.runner import run_study


class Silent:
    """Keeps what a runner tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def began(self, job: object, plan: object) -> None: ...

    def alive(self, job: object, folder: object) -> None: ...

    def ended(self, job: object, folder: object, seconds: float) -> None: ...


def run(place: Path, text: str) -> StudyFolder:
    (place / "toy.toml").write_text(text.replace("epochs = 1", "epochs = 4"))
    return run_study(read_study_file(place / "toy.toml"), place / "runs", Silent(), "paretune study toy.toml")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("decoder"), vocabulary=VOCABULARY)


@pytest.fixture(scope="module")
def classified(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    place = tmp_path_factory.mktemp("classified")
    write_csv(place / "toy.csv", toy_rows(90))
    methods = {
        "tfidf": "",
        "head": "",
        "last1": 'kind = "last_layers"\nlayers = 1',
        "lora": "rank = 4",
        "full": "learning_rate = 5e-3",
    }
    return run(place, study_text(f"path:{decoder}", methods, seeds=(0,)))


@pytest.mark.slow
def test_a_decoder_is_classified_with_by_every_method_that_it_has_parts_for(classified: StudyFolder) -> None:
    """Pooled by its last token without being told, and the report is drawn; BitFit is refused (test_misfits)."""
    ends = {run.spec().method: run for run in classified.runs()}
    assert {name for name, one in ends.items() if one.scored} == {"tfidf", "head", "last1", "lora", "full"}
    assert {one.spec().model["pooling"] for one in ends.values()} == {"last"}
    assert classified.study().spec["model"]["pooling"] == "last"
    assert ends["full"].measurements().scores["test"]["accuracy"] > 0.4
    assert build(classified.path, "en").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("to", "method"), [("merged", "full"), ("merged", "lora"), ("peft", "lora")])
def test_a_decoder_is_exported_for_plain_libraries(
    classified: StudyFolder, tmp_path: Path, to: str, method: str
) -> None:
    """The README's code in plain transformers and peft answers as the run; it pools the last token."""
    chosen = next(one for one in classified.runs() if one.spec().method == method)
    done = export(chosen.path, tmp_path / "out", to, inference=False)  # type: ignore[arg-type]
    assert done.gap is not None and done.gap <= 1e-4
    assert "(mask.sum(1) - 1).clamp(min=0)" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_a_decoder_becomes_a_bundle(classified: StudyFolder, tmp_path: Path) -> None:
    """The service takes it by the plain path, and its certificate has every check."""
    chosen = next(one for one in classified.runs() if one.spec().method == "lora")
    done = export(chosen.path, tmp_path / "out", "bundle", inference=False)
    assert done.digest and all(one.passed for one in done.checks)


# --- next tokens ----------------------------------------------------------------------------------------------------


NEXT = '\n[task]\nkind = "next_token"\n'


def texts_alone(place: Path) -> Path:
    (place / "toy.csv").write_text("\n".join(["text", *(text for text, _ in toy_rows(90))]) + "\n")
    return place


@pytest.fixture(scope="module")
def predicted(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    place = texts_alone(tmp_path_factory.mktemp("predicted"))
    methods = {"lora": "rank = 4\nlearning_rate = 1e-4", "full": "learning_rate = 5e-3"}
    text = study_text(f"path:{decoder}", methods, seeds=(0, 1), search=(0.2, 1.0), training="micro_batch_size = 4")
    return run(place, text + NEXT)


@pytest.mark.slow
def test_a_study_of_next_tokens_runs_to_its_scores(predicted: StudyFolder) -> None:
    """From a file with texts alone to test scores and a record of each text; the rate with the lower loss is chosen."""
    study = predicted.study()
    assert study.metric == "nll" and {one.method for one in study.selections} == {"lora", "full"}
    for selection in study.selections:
        assert selection.trials[f"{selection.learning_rate:g}"] == min(selection.trials.values())
    scored = [one for one in predicted.runs() if one.scored]
    assert len(scored) == 4
    for one in scored:
        scores = one.measurements().scores["test"]
        assert scores["perplexity"] == pytest.approx(math.exp(scores["nll"]))
        table = one.token_losses().to_pydict()
        assert set(table["split"]) == {"test"}
        assert sum(table["nll"]) / sum(table["tokens"]) == pytest.approx(scores["nll"])
        assert scores["bits_per_byte"] == pytest.approx(sum(table["nll"]) / sum(table["text_bytes"]) / math.log(2))
        if one.spec().method == "full":
            assert scores["nll"] < math.log(258)  # nearer than a guess among the single bytes
        with pytest.raises(RecordError):
            one.predictions()


@pytest.mark.slow
def test_the_table_of_next_tokens_compares_with_less_as_better(predicted: StudyFolder) -> None:
    """Means over seeds as in the measurements; LoRA at its low rate is worse than the control by a positive number."""
    rows = {row.method: row for row in token_rows(predicted)}
    for label, row in rows.items():
        found = [one.measurements().scores["test"]["nll"] for one in predicted.runs() if one.scored]
        assert row.seeds == 2 and row.nll is not None and min(found) <= row.nll <= max(found), label
    lora, full = rows["lora"], rows["full"]
    assert full.control and full.difference is None and full.nll is not None
    assert lora.nll is not None and lora.nll > full.nll
    assert lora.difference == pytest.approx(lora.nll - full.nll, rel=1e-6)
    assert lora.difference_interval is not None and lora.difference_interval[0] < lora.difference
    assert lora.verdict in ("worse", "undecided")
    if lora.verdict == "worse":
        assert lora.difference_interval[0] > 0
    console = Console(file=io.StringIO(), width=160)
    console.print(token_table(predicted, list(rows.values()), Words("ru")))
    assert "перплексия" in console.file.getvalue() and "натов на токен" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_report_and_export_refuse_next_tokens_in_one_line(predicted: StudyFolder, tmp_path: Path) -> None:
    """What they cannot do yet, and where the scores are."""
    with pytest.raises(RecordError, match=r"predicts tokens.*classification.*measurements\.json"):
        build(predicted.path, "en")
    chosen = next(one for one in predicted.runs() if one.scored)
    with pytest.raises(ConfigError, match=r"'next_token'.*classification"):
        export(chosen.path, tmp_path / "out", "merged", inference=False)


@pytest.mark.parametrize(
    ("methods", "more", "said"),
    [
        ({"lora": "", "tfidf": ""}, "", r"methods\.tfidf: 'tfidf' fits labels.*lora or full"),
        ({"lora": "", "head": ""}, "", r"methods\.head: 'head' trains a new head alone"),
        (
            {"lora": ""},
            '\n[earlier]\nname = "x"\ndata = {train = "path:a.csv"}\n',
            r"\[earlier\] with task 'next_token'",
        ),
    ],
)
def test_what_next_tokens_cannot_be_studied_with(tmp_path: Path, methods: dict[str, str], more: str, said: str) -> None:
    """Baselines, a head alone and an earlier task are refused before anything is run."""
    (tmp_path / "toy.toml").write_text(study_text("path:x", methods, control="lora") + NEXT + more)
    with pytest.raises(ConfigError, match=said):
        read_study_file(tmp_path / "toy.toml")


def test_a_metric_of_another_task_is_refused(tmp_path: Path) -> None:
    """With those that the task has."""
    text = study_text("path:x", {"lora": ""}).replace("[study]\n", '[study]\nmetric = "mcc"\n')
    (tmp_path / "toy.toml").write_text(text + NEXT)
    with pytest.raises(ConfigError, match=r"'mcc' with task 'next_token'.*one of nll"):
        read_study_file(tmp_path / "toy.toml")
    (tmp_path / "toy.toml").write_text(text.replace('"mcc"', '"nll"'))
    with pytest.raises(ConfigError, match=r"'nll' with task 'classification'.*accuracy"):
        read_study_file(tmp_path / "toy.toml")


def test_an_encoder_is_refused_for_next_tokens(tmp_path: Path, tiny_model: Path) -> None:
    """As soon as its files are there."""
    (tmp_path / "toy.toml").write_text(study_text(f"path:{tiny_model}", {"lora": ""}) + NEXT)
    with pytest.raises(ConfigError, match=r"'next_token' with path:.*type 'bert'.*asset:smollm2-135m"):
        with_settled_model(read_study_file(tmp_path / "toy.toml"), print)


def test_classification_of_texts_without_labels_is_refused(tmp_path: Path, decoder: Path) -> None:
    """The column that is missing is named."""
    place = texts_alone(tmp_path)
    with pytest.raises(Exception, match="no column 'label'"):
        run(place, study_text(f"path:{decoder}", {"lora": ""}))
