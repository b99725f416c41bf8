"""From a toy study to bundles and plain files, with real processes: what is exported is proven, what is not proven is
refused by the name of its check. Reading bundles: `unit/test_bundle.py`."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fabricated_study import write_study
from safetensors.torch import load_file, save_file
from toy_study import study_text, toy_rows, write_csv

from paretune.core.errors import BundleError, ConfigError, RecordError, RunError, StorageError
from paretune.export.choose import choose_run
from paretune.export.export import export
from paretune.export.goldens import logit_tolerance
from paretune.export.manifest import Order
from paretune.records.bundle import CHECKS, Manifest
from paretune.records.serving import Inference
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.tables import summary
from paretune.repro.probe import numerics_fingerprint
from paretune.serve.bundle import read_bundle, read_space, read_tensors
from paretune.study.design import read_study_file
from paretune.study.progress import Silent
from paretune.study.runner import run_study

pytestmark = pytest.mark.slow  # real worker processes: seconds each

METHODS = {
    "tfidf": "",
    "head": 'kind = "head"\nlearning_rate = 0.1',
    "last1": 'kind = "last_layers"\nlayers = 1\nlearning_rate = 2e-3',
    "bitfit": "learning_rate = 1e-2",
    "lora": 'kind = "lora"\nrank = 4\nlearning_rate = 1e-2',
    "full": "learning_rate = 2e-3",
}
ADAPTATIONS = [name for name in METHODS if name != "tfidf"]


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache folder for this file: the parent of the workers takes its environment once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARETUNE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PARETUNE_OFFLINE", "1")
        yield


def toy_study(place: Path, model: Path, methods: dict[str, str], name: str = "toy", **replaced: str) -> StudyFolder:
    write_csv(place / "toy.csv", toy_rows(180))
    text = study_text(f"path:{model}", methods, name=name, seeds=(0,)).replace("epochs = 1", "epochs = 4")
    for old, new in replaced.items():
        text = text.replace(f'{old} = "fp32"', f'{old} = "{new}"')
    (place / "toy.toml").write_text(text)
    return run_study(read_study_file(place / "toy.toml"), place / "runs", Silent(), "test")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> StudyFolder:
    """One seed of every method on 180 separable toy rows."""
    return toy_study(tmp_path_factory.mktemp("study"), tiny_model, METHODS)


def run_of(study: StudyFolder, method: str) -> RunFolder:
    return next(run for run in study.runs() if run.spec().method == method)


@pytest.fixture
def tampered(study: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A copy of the study to break things in."""
    shutil.copytree(study.path, tmp_path / "copy" / "toy")
    return StudyFolder(tmp_path / "copy" / "toy")


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_every_form_earns_its_certificate(study: StudyFolder, tmp_path: Path, method: str) -> None:
    """Each kind of adaptation becomes a bundle whose checks all passed, which reads back with the run's own figures."""
    out = tmp_path / "bundle"
    exported = export(run_of(study, method).path, out, inference=False)
    bundle = read_bundle(out)
    assert bundle.digest == exported.digest == bundle.manifest.digest
    assert [one.name for one in bundle.certificate.checks] == list(CHECKS) and bundle.certificate.passed
    assert bundle.manifest.form == ("adapter" if method in ("head", "lora") else "model")
    delta, head_ch, bias_c = read_tensors(bundle)
    assert bool(delta) == (method != "head") and head_ch.shape == (3, 32) and bias_c.shape == (3,)
    assert 1 <= len(bundle.goldens.rows) <= 20 and "fp32" in bundle.goldens.rows[0].served
    assert bundle.goldens.logit_tolerances is not None and 1e-3 <= bundle.goldens.logit_tolerances["fp32"] < 0.05
    assert set(bundle.goldens.logit_tolerances) == {"fp32", "bf16"}
    domain = bundle.manifest.domain
    assert domain is not None and domain.validation_flagged <= domain.share == 0.05 and domain.test_flagged < 0.25
    assert read_space(bundle) is not None and "out of domain" in (out / "README.md").read_text()
    measured = run_of(study, method).measurements()
    this = next(one for one in bundle.manifest.scores if (one.metric, one.split) == ("accuracy", "test"))
    assert this.this_model == pytest.approx(measured.scores["test"]["accuracy"])
    assert bundle.manifest.cost["train_seconds"] == measured.train_seconds.value
    assert [part.name for part in tmp_path.iterdir()] == ["bundle"]


def test_the_tolerance_of_logits_is_that_of_the_worst_way() -> None:
    """Three times the largest difference of any way to the run's own logits, over all texts; never below 1e-3."""
    own_nc = np.zeros((4, 3))
    near_nc, far_nc = own_nc.copy(), own_nc.copy()
    near_nc[0, 0], far_nc[3, 2] = 1e-5, -0.02
    assert logit_tolerance(own_nc, [near_nc]) == 1e-3
    assert logit_tolerance(own_nc, [near_nc, far_nc]) == pytest.approx(0.06)


def broken_weights(run: RunFolder, change: dict[str, float]) -> None:
    """Multiply every saved tensor whose name contains a key."""
    path = run.adapter / "trained.safetensors"
    tensors = load_file(path)
    for part, factor in change.items():
        touched = [name for name in tensors if part in name]
        assert touched
        tensors |= {name: tensors[name] * factor for name in touched}
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("method", "change", "check"),
    [
        ("lora", {"lora_B": 0.0}, "moved"),
        ("lora", {"lora_": 1e-5}, "matters"),
        ("lora", {"lora_B": 1.5}, "reloads"),
        ("lora", {"head.weight": 0.0}, "head_present"),
        ("lora", {"head.weight": float("nan")}, "head_present"),
        ("head", {"head.weight": 1e-9}, "matters"),
        ("full", {"encoder.layer.1.output.dense.weight": 1.1}, "reloads"),
    ],
)
def test_a_tampered_run_fails_the_check_that_is_named(
    tampered: StudyFolder, tmp_path: Path, method: str, change: dict[str, float], check: str
) -> None:
    """Weights that are not those of the training earn no certificate, and nothing is left where it would have gone."""
    run = run_of(tampered, method)
    broken_weights(run, change)
    with pytest.raises(BundleError, match=rf"earns no certificate: {check}: .*nothing was written"):
        export(run.path, tmp_path / "out" / "bundle", inference=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_of_another_kind_are_refused(tampered: StudyFolder, tmp_path: Path) -> None:
    """A run's folder with a missing tensor, with torn weights or with none is one line, not a trace."""
    run = run_of(tampered, "lora")
    path = run.adapter / "trained.safetensors"
    tensors = load_file(path)
    save_file({name: one for name, one in tensors.items() if "head" not in name}, path)
    with pytest.raises(Exception, match="saved tensors differ from the model's at 'head") as error:
        export(run.path, tmp_path / "b", inference=False)
    assert "\n" not in str(error.value)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Exception, match="cannot be read"):
        export(run.path, tmp_path / "b", inference=False)
    path.unlink()
    with pytest.raises(ConfigError, match=r"no weights in this folder.*export needs runs/"):
        export(run.path, tmp_path / "b", inference=False)


@pytest.mark.parametrize(
    ("labels", "fault"),
    [(["a", "b\x1b[2J", "c"], r"labels holds the character U\+001B"), (["a", "b", "c" * 301], "labels holds 301")],
)
def test_words_that_no_bundle_may_hold_are_refused_before_certification(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[str], fault: str
) -> None:
    """One line that names the run, the field and what to change, and that is itself harmless; nothing is left."""
    from paretune.export import export as module

    draft = module.draft_manifest

    def odd_draft(order: Order) -> Manifest:
        return draft(order).model_copy(update={"labels": labels})

    monkeypatch.setattr(module, "draft_manifest", odd_draft)
    steps: list[str] = []
    with pytest.raises(BundleError, match=f"^run .* fits no bundle: .*{fault}.* nothing was written$") as error:
        export(run_of(study, "head").path, tmp_path / "b", inference=False, say=steps.append)
    assert str(error.value).isprintable() and not any("certifying" in step for step in steps)
    assert not list(tmp_path.iterdir())


def test_data_that_changed_since_the_run_is_refused(tampered: StudyFolder, tmp_path: Path) -> None:
    """The validation texts of a bundle's goldens must be those that the run never trained on."""
    from paretune.data.prepare import load, save

    data = load(tampered.data)
    rows = data.splits["validation"]
    save(
        type(data)(data.labels, {**data.splits, "validation": rows.take(range(5))}, data.near_duplicate, []),
        tampered.data,
    )
    with pytest.raises(BundleError, match="data changed since run"):
        export(run_of(tampered, "lora").path, tmp_path / "b", inference=False)


def test_bf16_and_a_scale_that_is_no_power_of_two(tmp_path: Path, tiny_model: Path) -> None:
    """Under bf16 an adapter whose folded scale rounds otherwise still proves that it is the one that was trained."""
    table = 'kind = "lora"\nrank = 4\nalpha = 5\nlearning_rate = 1e-2'
    study = toy_study(tmp_path, tiny_model, {"lora": table}, precision="bf16")
    run = run_of(study, "lora")
    exported = export(run.path, tmp_path / "bundle", inference=False)
    assert read_bundle(tmp_path / "bundle").manifest.precision == "bf16" and exported.digest
    broken_weights(run, {"lora_B": 1.2})
    with pytest.raises(BundleError, match="reloads"):
        export(run.path, tmp_path / "other", inference=False)


def test_goldens_stay_equal_bit_for_bit(study: StudyFolder, tmp_path: Path) -> None:
    """A golden answer with a changed last bit, in a bundle sealed anew, is refused where numerics are equal."""
    from paretune.export.certify import recheck
    from paretune.export.fresh import in_fresh_process
    from paretune.serve.bundle import seal

    out = tmp_path / "bundle"
    export(run_of(study, "lora").path, out, inference=False)
    assert in_fresh_process(recheck, out) == read_bundle(out).digest
    goldens = json.loads((out / "goldens.json").read_text())
    first = goldens["rows"][0]["served"]["fp32"]
    first[0] = f"{int(first[0], 16) ^ 1:08x}"
    (out / "goldens.json").write_text(json.dumps(goldens))
    seal(out, read_manifest(out))
    with pytest.raises(BundleError, match="bits"):
        in_fresh_process(recheck, out)


def read_manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "manifest.json").read_text())


def code_of(readme: Path) -> str:
    text = readme.read_text(encoding="utf-8")
    return text.split("```python\n", 1)[1].split("\n```", 1)[0]


@pytest.mark.parametrize(("to", "method"), [("peft", "lora"), *(("merged", one) for one in ADAPTATIONS)])
def test_plain_libraries_load_it(
    study: StudyFolder, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, to: str, method: str
) -> None:
    """The README's own lines, run in the folder, give the bundle's golden probabilities without paretune."""
    bundle, out = tmp_path / "bundle", tmp_path / "plain"
    export(run_of(study, method).path, bundle, inference=False)
    exported = export(run_of(study, method).path, out, to, inference=False)  # type: ignore[arg-type]
    assert exported.gap is not None and exported.gap <= 1e-4
    golden = read_bundle(bundle).goldens.rows[0]
    code = code_of(out / "README.md").replace('["a text"]', repr([golden.text]))
    assert "paretune" not in code
    if to == "peft":
        code = code.replace(f"base = 'path:{tiny_model.name}'", f"base = {str(tiny_model)!r}")
    monkeypatch.chdir(out)
    found: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)
        exec(code, found)
    probabilities = found["probabilities"]
    assert isinstance(probabilities, torch.Tensor)
    assert torch.allclose(probabilities[0], torch.tensor(golden.probabilities), atol=1e-4)
    assert found["labels"] == list(read_bundle(bundle).manifest.labels)


@pytest.mark.parametrize("method", ["head", "last1", "bitfit", "full"])
def test_only_low_rank_goes_to_peft(study: StudyFolder, tmp_path: Path, method: str) -> None:
    """What has no low-rank adapter is one line that says what takes it."""
    with pytest.raises(ConfigError, match=r"no low-rank adapter.*--to bundle and --to merged take any"):
        export(run_of(study, method).path, tmp_path / "p", "peft", inference=False)
    assert not (tmp_path / "p").exists()


def test_int8_is_measured_and_loads_again(study: StudyFolder, tmp_path: Path) -> None:
    """Quantised weights answer nearly as before, are smaller, and come back from safetensors."""
    from paretune.export.int8 import Int8Linear, load_int8

    exported = export(run_of(study, "full").path, tmp_path / "m", "merged", int8=True, inference=False)
    by_name = {one.name: one for one in exported.int8}
    assert (*by_name,)[0] == "fp32" and (*by_name,)[-1] == "int8" and by_name["fp32"].flipped == 0
    assert by_name["int8"].linear_bytes * 4 == by_name["fp32"].linear_bytes
    assert by_name["int8"].flipped <= by_name["int8"].rows // 10
    assert all(one.latency[0].p50_seconds > 0 for one in exported.int8)
    model = load_int8(tmp_path / "m")
    assert sum(isinstance(module, Int8Linear) for module in model.modules()) == 12
    assert "load_int8" in (tmp_path / "m" / "README.md").read_text()
    with pytest.raises(ConfigError, match="--int8 with --to bundle"):
        export(run_of(study, "full").path, tmp_path / "b", int8=True)


def test_the_card_is_a_hugging_face_card_in_two_languages(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Front matter parses, no folder of this machine is named, both languages say the same figures, its code runs."""
    export(run_of(study, "lora").path, tmp_path / "b", inference=False)
    text = (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["pipeline_tag"] == "text-classification" and front["library_name"] == "paretune"
    assert front["language"] == ["en"] and front["metrics"] == ["accuracy", "f1", "matthews_correlation"]
    assert front["license"] == "unknown" and front["base_model"].startswith("path:tiny-model")
    for heading in ("## Scores", "## Качество", "## Limits", "## Ограничения", "## Licences", "## Лицензии"):
        assert heading in text
    assert str(study.path.parent.parent) not in text
    monkeypatch.chdir(tmp_path / "b")
    exec(code_of(tmp_path / "b" / "README.md"), {})
    threshold = read_bundle(tmp_path / "b").manifest.abstention.threshold
    assert f"{threshold:.3f}" in text and f"{threshold:.3f}".replace(".", ",") in text


def test_a_model_named_from_the_working_folder_is_found_from_any(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study says path:models/tiny; the bundle's certificate, its README's code and a server look from elsewhere."""
    shutil.copytree(tiny_model, tmp_path / "models" / "tiny")
    monkeypatch.chdir(tmp_path)
    study = toy_study(tmp_path, Path("models/tiny"), {"head": METHODS["head"]})
    exported = export(run_of(study, "head").path, tmp_path / "b", inference=False)
    assert exported.digest == read_bundle(tmp_path / "b").digest
    monkeypatch.chdir(tmp_path / "b")
    exec(code_of(tmp_path / "b" / "README.md"), {})


def test_what_answering_costs_stands_in_the_study(tampered: StudyFolder, tmp_path: Path) -> None:
    """An export measures the run that it exports, and with `every` a run of every method that has weights, once; a
    later one finds the record and measures nothing."""
    shutil.rmtree(run_of(tampered, "bitfit").adapter)
    said: list[str] = []
    export(run_of(tampered, "head").path, tmp_path / "b0", say=said.append)
    record = Inference.model_validate_json((tampered.path / "inference.json").read_text())
    assert [one.method for one in record.methods] == ["head"] and sum("measuring" in line for line in said) == 1
    export(run_of(tampered, "head").path, tmp_path / "b", every=True, say=said.append)
    record = Inference.model_validate_json((tampered.path / "inference.json").read_text())
    assert [one.method for one in record.methods] == ["head", "last1", "lora", "full"]
    lora = next(one for one in record.methods if one.method == "lora")
    assert [one.batch for one in lora.unmerged] == [one.batch for one in lora.merged] == [1, 32]
    assert [one.adapters for one in lora.memory] == [1, 4, 16]
    assert lora.adapter_bytes < lora.full_model_bytes
    assert sum("measuring" in line for line in said) == 4
    said.clear()
    export(run_of(tampered, "head").path, tmp_path / "b2", say=said.append)
    assert not any("measuring" in line for line in said)


def test_out_is_never_lost(study: StudyFolder, tmp_path: Path) -> None:
    """A folder with other things in it is refused even with --force; an earlier export is replaced only with it."""
    run, out = run_of(study, "head").path, tmp_path / "b"
    (tmp_path / ".b.part" / "left").mkdir(parents=True)  # by an export that was killed
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(StorageError, match="not empty"):
            export(run, out, force=force, inference=False)
    (out / "diary.txt").unlink()
    first = export(run, out, inference=False)
    with pytest.raises(StorageError, match="--force replaces it"):
        export(run, out, inference=False)
    again = export(run, out, force=True, inference=False, target_risk=0.5)
    assert again.digest != first.digest and read_bundle(out).digest == again.digest
    assert [part.name for part in tmp_path.iterdir()] == ["b"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is no folder"):
        export(run, tmp_path / "file", inference=False)


def test_best_of_a_study_and_what_cannot_be_named(study: StudyFolder, tmp_path: Path) -> None:
    """One seed decides nothing, so the cheapest is taken and the sentence says so; a baseline is no model."""
    chosen = choose_run(study, None, None, "en")
    assert not chosen.decided and "undecided" in chosen.why["en"] and "не решает" in chosen.why["ru"]
    exported = export(study.path, tmp_path / "b", best=True, inference=False)
    assert exported.method == chosen.method and read_bundle(tmp_path / "b").manifest.why == chosen.why
    with pytest.raises(ConfigError, match="without --best"):
        export(study.path, tmp_path / "c", inference=False)
    with pytest.raises(ConfigError, match="a baseline"):
        export(run_of(study, "tfidf").path, tmp_path / "c", inference=False)
    with pytest.raises(ConfigError, match="a STUDY folder"):
        export(run_of(study, "head").path, tmp_path / "c", best=True, inference=False)
    with pytest.raises(RecordError, match="neither a study nor a run"):
        export(tmp_path, tmp_path / "c", inference=False)


FIVE = (0, 1, 2, 3, 4)


def made_up(tmp_path: Path, quality: dict[str, float], **more: object) -> StudyFolder:
    settings = {"seeds": FIVE, "broken": False, "test_rows": 2000, "margin": 0.02, "quality": quality, **more}
    return StudyFolder(write_study(tmp_path / "s", **settings))  # type: ignore[arg-type]


def test_the_statistics_choose(tmp_path: Path) -> None:
    """Of the methods shown to be equivalent or better the one of least memory; worse ones are never taken."""
    study = made_up(tmp_path, {"full": 0.95, "lora": 0.95, "last2": 0.95, "bitfit": 0.85, "head": 0.6})
    chosen = choose_run(study, None, None, "en")
    assert (chosen.method, chosen.decided) == ("last2", True)
    assert "equivalent to full within" in chosen.why["en"] and "равноценен full" in chosen.why["ru"]
    assert chosen.run.spec().method == "last2"


def test_a_budget_is_felt_and_named(tmp_path: Path) -> None:
    """A method beyond the budget is not taken; where none fits, the error names the cheapest that may be taken."""
    study = made_up(tmp_path, {"full": 0.95, "lora": 0.95, "last2": 0.95, "bitfit": 0.85, "head": 0.6})
    slow = choose_run(study, None, 10**6, "en")
    assert slow.method == "last2" and "within the budget of" in slow.why["en"]
    with pytest.raises(ConfigError, match=r"fits 858.MiB; expected at least 992.MiB and 21.+ for last2, the cheapest"):
        choose_run(study, 900 * 10**6, None, "en")
    with pytest.raises(ConfigError, match="for last2, the cheapest"):
        choose_run(study, None, 12.0, "en")


def test_better_is_preferred_to_a_cheaper_control(tmp_path: Path) -> None:
    """Where the control is the cheapest of all that is supported, a method shown to be better is taken."""
    study = made_up(tmp_path, {"head": 0.6, "full": 0.98, "lora": 0.6, "last2": 0.6, "bitfit": 0.6}, control="head")
    chosen = choose_run(study, None, None, "en")
    assert chosen.method == "full" and "better than head" in chosen.why["en"]


def test_undecided_takes_the_cheapest_that_is_not_ruled_out(tmp_path: Path) -> None:
    """With two seeds and few texts nothing is shown; a baseline that is not beaten is named."""
    study = made_up(tmp_path, {"tfidf": 0.99, "head": 0.4}, seeds=(0, 1), test_rows=80, margin=0.001)
    rows = {row.method: row.verdict for row in summary(study.path)}
    chosen = choose_run(study, None, None, "en")
    assert not chosen.decided and rows[chosen.method] != "worse" and rows["head"] == "worse"
    assert "the study is undecided" in chosen.why["en"] and "baseline: tfidf" in chosen.why["en"]
    assert "базового метода: tfidf" in chosen.why["ru"]


def test_the_seed_with_the_best_validation_score(tmp_path: Path) -> None:
    """Of a method's seeds the one that validation data prefer; equal ones give way to the lowest."""
    from paretune.records.store import write_atomically

    study = made_up(tmp_path, {"full": 0.95, "lora": 0.95, "last2": 0.95, "bitfit": 0.85, "head": 0.6})
    assert choose_run(study, None, None, "en").run.spec().seed == 0
    for run in study.runs():
        if run.spec().method == "last2":
            own = run.measurements().scores
            scores = own | {"validation": {"accuracy": 0.9 if run.spec().seed in (2, 3) else 0.8}}
            measured = run.measurements().model_copy(update={"scores": scores})
            write_atomically(run.path / "measurements.json", measured.model_dump_json())
    assert choose_run(study, None, None, "en").run.spec().seed == 2


def test_published_results_have_no_weights(study: StudyFolder, tmp_path: Path) -> None:
    """A results/ folder is told apart by what it lacks."""
    from paretune.study.publish import publish

    published, _ = publish(study.path, tmp_path / "results")
    with pytest.raises(ConfigError, match="export needs runs/"):
        export(published, tmp_path / "b", best=True)


def test_what_is_exported_may_be_read_by_another_user(study: StudyFolder, tmp_path: Path) -> None:
    """A container reads a mounted bundle as a user of its own."""
    exported = export(study.path, tmp_path / "bundle", best=True, inference=False)
    assert {file.stat().st_mode & 0o777 for file in exported.path.iterdir()} == {0o644}


def test_the_command_says_what_it_did(study: StudyFolder, tmp_path: Path) -> None:
    """Lines in either language, one JSON object, units read, a misspelt form answered with the nearest."""
    from paretune.export.export_command import export_command

    lines, tree = export_command(
        study.path, tmp_path / "b", best=True, memory="64 GiB", time="1 h", lang="ru", inference=False
    )
    assert lines[0].startswith("выбор: ") and lines[-1] == f"дальше: paretune serve {tmp_path / 'b'}"
    assert json.loads(json.dumps(tree))["digest"] == read_bundle(tmp_path / "b").digest
    with pytest.raises(ConfigError, match="did you mean 'merged'"):
        export_command(study.path, tmp_path / "c", "merge", best=True)
    with pytest.raises(ConfigError, match="2 GiB"):
        export_command(study.path, tmp_path / "c", best=True, memory="lots")


def test_the_fingerprint_feels_the_number_of_threads() -> None:
    """Equal in one process, other with another number of threads: bits may differ there."""
    threads = torch.get_num_threads()
    first = numerics_fingerprint()
    assert numerics_fingerprint() == first and len(first) == 32
    try:
        torch.set_num_threads(threads + 1)
        assert numerics_fingerprint() != first
    finally:
        torch.set_num_threads(threads)


def test_a_fresh_process_that_ends_or_raises_is_one_line() -> None:
    """A process without an answer and a library's error become errors of ours; an answer comes back."""
    from paretune.export.fresh import in_fresh_process

    assert in_fresh_process(int, "7") == 7
    with pytest.raises(RunError, match="int: ValueError: invalid literal"):
        in_fresh_process(int, "x")
    with pytest.raises(RunError, match="ended with code 3 without an answer"):
        in_fresh_process(os._exit, 3)
    with pytest.raises(RunError, match="was ended by SIGABRT"):
        in_fresh_process(os.abort)
