"""Every family of the table trains, reloads, is exported and served, with the answers of its run; in one process.

Kernels against plain passes: `invariants/test_fast_encoder.py`. A study in processes of its own: `test_runner.py`.
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILY_MODELS, write_family
from tokenizers import Tokenizer, normalizers
from toy_study import study_text, toy_rows, write_csv

from paretune.core.errors import BundleError
from paretune.data.files import Layout
from paretune.data.prepare import load
from paretune.export import snippets
from paretune.export.export import export
from paretune.methods.probe import OF_LENGTH_ONE, PLAIN
from paretune.methods.regression import Searched, searched
from paretune.models.families import FAMILIES, sees_only_before
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec, config_of
from paretune.records.store import RunFolder, StudyFolder
from paretune.repro.probe import numerics_fingerprint
from paretune.serve.bundle import read_bundle
from paretune.serve.engine import Engine, Row
from paretune.serve.predict import predict
from paretune.study.design import read_study_file
from paretune.study.plan import Job
from paretune.study.progress import Silent
from paretune.study.runner import Runner, run_study
from paretune.study.worker import work

FINGERPRINT = functools.cache(numerics_fingerprint)
METHODS = {
    "head": 'kind = "head"\nlearning_rate = 0.1',
    "lora": "rank = 4\nlearning_rate = 1e-2",
    "full": "learning_rate = 2e-3",
}


@pytest.fixture(autouse=True)
def _in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers and export do their parts here: what is tested is the models, not the processes."""

    def here(self: Runner, run: RunFolder, job: Job) -> None:
        work(self.folder.path, run.path, job.stage, False)

    def called(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    monkeypatch.setattr(Runner, "_in_a_process", here)
    monkeypatch.setattr("paretune.export.export.in_fresh_process", called)
    monkeypatch.setattr("paretune.study.worker.die_with_parent", lambda: None)
    monkeypatch.setattr("paretune.study.worker.signal.signal", lambda *given: None)
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    for module in ("export.certify", "serve.engine", "train.frozen_prefix"):  # half of all time, were it computed anew
        monkeypatch.setattr(f"paretune.{module}.numerics_fingerprint", FINGERPRINT)
    threads = torch.get_num_threads()
    before = os.environ.copy()
    yield
    os.environ.clear()
    os.environ.update(before)
    torch.set_num_threads(threads)


def run_family(
    place: Path, model: Path, methods: dict[str, str], *, more: str = "", ahead: str = "", epochs: int = 1
) -> StudyFolder:
    """A study of one seed and one rate a method over toy rows; `more` are lines of [model], `ahead` begins texts."""
    write_csv(place / "toy.csv", [(ahead + text, label) for text, label in toy_rows(90)])
    text = study_text(f"path:{model}", methods, seeds=(0,)).replace("[data]", f"{more}\n[data]")
    (place / "toy.toml").write_text(text.replace("epochs = 1", f"epochs = {epochs}"))
    return run_study(read_study_file(place / "toy.toml"), place / "runs", Silent(), "test")


def assert_served_as_run(bundle_folder: Path, study: StudyFolder, run: RunFolder) -> None:
    """The engine gives each test text the probabilities that the run recorded."""
    bundle, rows = read_bundle(bundle_folder), load(study.data).splits["test"]
    engine = Engine(ModelSpec.model_validate(bundle.manifest.model), "fp32", fetch=lambda digest: bundle)
    engine.check(bundle)
    ids = engine.tokens(bundle.digest, list(rows.texts))
    answers = engine.run([Row(bundle.digest, one) for one in ids])
    recorded = [one for one in run.predictions().to_pylist() if one["split"] == "test"]
    for answer, (label, score) in zip(answers, [(one["prediction"], one["score"]) for one in recorded], strict=True):
        assert not isinstance(answer, Exception)
        assert bundle.manifest.labels[int(np.argmax(answer.probabilities))] == label
        assert max(answer.probabilities) == pytest.approx(score, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_trains_reloads_is_exported_and_serves(tmp_path: Path, kind: str) -> None:
    """Head alone, low-rank updates and all parameters: each becomes a bundle that answers as its run."""
    model = write_family(kind, tmp_path / "model")
    study = run_family(tmp_path, model, METHODS)
    states = {run.spec().method: run.status() for run in study.runs()}
    assert {
        name: (one.state, one.stage, one.reason) for name, one in states.items() if one is not None
    } == dict.fromkeys(METHODS, ("ok", "scored", ""))
    for run in study.runs():
        method, spec = run.spec().method, run.spec()
        assert spec.model["pooling"] == FAMILIES[kind].pooling
        used = run.measurements().engine
        assert used is not None and (used.name == "transformers") == (FAMILIES[kind].path == "plain")
        exported = export(run.path, tmp_path / method, inference=False)
        assert all(one.passed for one in exported.checks)
        assert_served_as_run(tmp_path / method, study, run)
    lora = next(run for run in study.runs() if run.spec().method == "lora")
    for to in ("peft", "merged"):
        gap = export(lora.path, tmp_path / to, to, inference=False).gap
        assert gap is not None and gap <= 1e-4


def test_the_table_of_families_is_the_one_that_is_tested() -> None:
    """A family that stands in the table has a toy here, and the other way round."""
    assert FAMILIES.keys() == FAMILY_MODELS.keys()


@pytest.mark.parametrize("kind", FAMILIES)
def test_which_families_see_only_what_comes_before(tmp_path: Path, kind: str) -> None:
    """What the table and config.json say of a family is what its model does: another last token changes the first."""
    source = f"path:{write_family(kind, tmp_path / 'model')}"
    encoder = load_encoder(source)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        first = encoder(input_ids=ids).last_hidden_state[0, 0]
        ids[0, 3] = 9
        other = encoder(input_ids=ids).last_hidden_state[0, 0]
    assert torch.equal(first, other) == sees_only_before(config_of(source)) == FAMILIES[kind].decoder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more", "unit"),
    [
        ("bert", "", True),
        ("bert", 'pooling = "cls"', True),
        ("bert", 'pooling = "mean_unit"', False),  # what is of length 1 already is not scaled again
        ("gpt2", "", True),
        ("llama", 'pooling = "last_unit"\ntext_prefix = "topic: "', False),
    ],
)
def test_a_probe_on_features_of_length_one_is_exported_and_answers_as_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, more: str, unit: bool
) -> None:
    """Chosen as the study's best, with a certificate and a README whose code ran; a file that is labelled, the server's
    engine and the plain model, also rounded to int8, give what the run recorded."""

    def of_length_one(train: Mapping[str, Any], labels: Any, validation: Mapping[str, Any], *rest: Any) -> Searched:
        name = OF_LENGTH_ONE if OF_LENGTH_ONE in train else PLAIN
        return searched({name: train[name]}, labels, {name: validation[name]}, *rest)

    monkeypatch.setattr("paretune.methods.probe.searched", of_length_one)
    study = run_family(tmp_path, write_family(kind, tmp_path / "model"), {"probe": 'kind = "probe"'}, more=more)
    (run,) = study.runs()
    status, choice = run.status(), run.measurements().choice
    assert status is not None and (status.state, status.stage) == ("ok", "scored"), status
    assert choice is not None and choice.setting["features"] == (OF_LENGTH_ONE if unit else PLAIN)
    pooling = choice.setting["pooling"]
    assert pooling.endswith("_unit") and pooling.count("unit") == 1
    done = export(study.path, tmp_path / "bundle", best=True, inference=False)
    assert {one.name for one in done.checks} >= {"readme"} and all(one.passed for one in done.checks)
    assert read_bundle(tmp_path / "bundle").manifest.model["pooling"] == pooling
    assert_served_as_run(tmp_path / "bundle", study, run)
    rows = load(study.data).splits["test"]
    asked = write_csv(tmp_path / "asked.csv", list(zip(rows.texts, rows.labels, strict=True)))
    predict(tmp_path / "bundle", asked, tmp_path / "told.csv", Layout(), precision="fp32")
    with (tmp_path / "told.csv").open(encoding="utf-8", newline="") as file:
        told = list(csv.DictReader(file))
    recorded = [one for one in run.predictions().to_pylist() if one["split"] == "test"]
    for one, known in zip(told, recorded, strict=True):
        assert one["prediction"] == known["prediction"]
    whole = export(run.path, tmp_path / "merged", "merged", int8=True, inference=False)
    assert whole.gap is not None and whole.gap <= 1e-4 and whole.int8


LONG = "the of and to in said that for it was is from with on year new company today market week people time last " * 2


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_that_is_cut_is_cut_when_serving(tmp_path: Path, side: str) -> None:
    """What tells the classes stands at the end: cut at the left it is learnt and served, at the right nothing is."""
    model = write_family("bert", tmp_path / "model", tokenizer={"truncation_side": side})
    study = run_family(tmp_path, model, {"full": "learning_rate = 2e-3"}, ahead=LONG, epochs=14)
    (run,) = study.runs()
    told = {one["prediction"] for one in run.predictions().to_pylist() if one["split"] == "test"}
    assert len(told) == (3 if side == "left" else 1)
    if side == "left":
        assert run.measurements().scores["test"]["accuracy"] > 0.5
        for to in ("bundle", "merged"):
            export(run.path, tmp_path / to, to, inference=False)
        assert_served_as_run(tmp_path / "bundle", study, run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "tokenizer", "more"),
    [
        ("qwen2", {"padding_side": "left"}, ""),
        ("llama", {"padding_side": "left", "truncation_side": "left"}, 'pooling = "mean"\ntext_prefix = "topic: "'),
        ("roberta", {"tokenizer_class": "RobertaTokenizer"}, 'pooling = "cls"\ntext_prefix = "Query: "'),
        ("bert", {"padding_side": "left"}, 'pooling = "last"'),
    ],
)
def test_the_code_of_a_readme_answers_as_the_run(
    tmp_path: Path, kind: str, tokenizer: dict[str, object], more: str
) -> None:
    """Tokenizers that pad on the left, or cannot pad, or drop a normalizer; each pooling; with a prefix; texts cut."""
    model = write_family(kind, tmp_path / "model", tokenizer=tokenizer)
    if kind == "roberta":
        made = Tokenizer.from_file(str(model / "tokenizer.json"))
        made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        made.save(str(model / "tokenizer.json"))
    study = run_family(tmp_path, model, {"lora": METHODS["lora"]}, more=more, ahead="The Of AND to in said that ")
    (run,) = study.runs()
    for to in ("bundle", "peft", "merged"):
        done = export(run.path, tmp_path / to, to, inference=False)
        assert to == "bundle" or (done.gap is not None and done.gap <= 1e-4)
    assert_served_as_run(tmp_path / "bundle", study, run)


@pytest.mark.slow
def test_code_that_answers_otherwise_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A README that pools another token, or dies, is found out in every form, and nothing is left behind."""
    study = run_family(tmp_path, write_family("qwen3", tmp_path / "model"), {"lora": METHODS["lora"]})
    (run,) = study.runs()
    for line, fault in (("    features = hidden[:, 0]", r"up to .* off"), ("    features = hidden[:, 10**6]", "fails")):
        monkeypatch.setitem(snippets.POOLING, "last", [line])
        for to in ("peft", "merged"):
            with pytest.raises(BundleError, match=rf"the README's code.*{fault}"):
                export(run.path, tmp_path / "out", to, inference=False)
            assert not (tmp_path / "out").exists()
    monkeypatch.setattr(snippets, "BUNDLE", snippets.BUNDLE.replace("answer.probabilities for", "answer.logits for"))
    with pytest.raises(BundleError, match=r"earns no certificate: readme: .*README's code"):
        export(run.path, tmp_path / "out", inference=False)
    assert not (tmp_path / "out").exists()
