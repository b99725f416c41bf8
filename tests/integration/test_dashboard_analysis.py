"""What the dashboard works out itself: chances within a budget, effects of settings, mistakes, claims, the export."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from dashboard_reader import client_of, page, runs_of, text_of, write_studies
from fabricated_study import write_study
from fastapi.testclient import TestClient

from paretune.core.errors import ConfigError, RecordError
from paretune.dashboard.export import export_page
from paretune.dashboard.generated import Size, write_generated
from paretune.dashboard.mistakes import Choice, hard_examples
from paretune.records.schema import RunSpec
from paretune.records.store import StudyFolder
from paretune.report.draws import chances, draws_of, for_browser
from paretune.report.factors import effects_of, groups_of
from paretune.report.facts import gather
from paretune.report.wording import Words
from paretune.stats.budget import p_best
from paretune.stats.effects import fit_effects


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three studies that no test changes."""
    return write_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def client(studies: Path) -> Generator[TestClient]:
    with client_of(studies) as client:
        yield client


def test_chances_are_those_of_the_statistics(studies: Path) -> None:
    """At any budget the counted shares equal `p_best`, also when counted from what the browser gets; the majority class
    is no candidate."""
    facts = gather(StudyFolder(studies / "demo"))
    draws = draws_of(facts)
    assert draws is not None
    tree = for_browser(draws)
    cost = {
        method.label: {
            seed: (run.measurements.peak_memory_bytes.value, run.measurements.train_seconds.value)
            for seed, run in method.runs.items()
        }
        for method in facts.scored
        if method.label != "majority"
    }
    quality = {label: facts.example_values[label] for label in cost}
    assert "majority" in facts.example_values
    for memory, seconds in ((math.inf, math.inf), (1.25e9, math.inf), (2e9, 42.0), (1.1e9, 25.0), (1e6, 1e-9)):
        wanted = p_best(quality, cost, (memory, seconds), rng=np.random.default_rng(0))
        assert chances(draws, memory, seconds) == pytest.approx(wanted, abs=1e-12)
        assert counted(tree, memory, seconds) == pytest.approx(wanted, abs=0.011)


def counted(tree: dict, memory: float, seconds: float) -> dict[str, float]:
    """As budget.js counts."""
    places, costs = np.asarray(tree["places"]), (np.asarray(tree["memory"]) * 1e5, np.asarray(tree["seconds"]) / 1000)
    fits = (costs[0] <= memory) & (costs[1] <= seconds)
    ranked = np.where(fits, places, -1)
    best = fits & (ranked == ranked.max(axis=0))
    share = best / np.maximum(best.sum(axis=0), 1)
    return dict(zip(tree["methods"], share.mean(axis=1).tolist(), strict=True))


def test_settings_page_gives_the_effects_of_the_model(client: TestClient, studies: Path) -> None:
    """Factors are the settings that vary (alpha follows the rank, so it is none), effects those of `fit_effects`."""
    facts = gather(StudyFolder(studies / "settings"))
    (group,) = groups_of(facts)
    assert set(group.factors) == {"rank", "targets", "layers", "dropout"}
    assert group.factors["rank"] == [1, 2, 4, 8, 16, 32, 64] and group.factors["layers"] == [2, 6, "default"]
    effects = effects_of(facts, group)
    assert effects.fit is not None
    runs = [(label, value) for label in group.settings for value in facts.example_values[label].values()]
    wanted = fit_effects([group.settings[label] for label, _ in runs], group.factors, np.stack([v for _, v in runs]))
    assert effects.fit.of("rank")[-1].interval == wanted.of("rank")[-1].interval
    text = text_of(client.get("/study/settings/settings").text)
    assert "Effect of each setting of lora" in text and "Settings of lora with what they gave and cost" in text
    assert Words("en").number(wanted.of("rank")[-1].interval.estimate, signed=True) in text
    nothing = text_of(client.get("/study/demo/settings").text)
    assert "No two methods of this study are of one kind with different settings" in nothing


def with_settings(folder: Path, trees: list[dict]) -> str:
    """The settings page of a generated study whose methods get these settings instead of their own."""
    study = json.loads((folder / "study.json").read_text())
    labels = {}
    for method, tree in zip(study["methods"], trees, strict=True):
        labels[method["label"]] = method["settings"] = tree
    study["selections"] = []
    (folder / "study.json").write_text(json.dumps(study))
    for path in list((folder / "runs").glob("*/spec.json")):
        spec = json.loads(path.read_text())
        changed = RunSpec.model_validate({**spec, "settings": labels[spec["method"]]})
        path.write_text(changed.model_dump_json())
        path.parent.rename(path.parent.with_name(changed.run_id))  # a run lies where its spec says
    return page(folder, f"/study/{folder.name}/settings")


def test_settings_that_change_together_are_named(tmp_path: Path) -> None:
    """Why there is no fit, and what would give one."""
    folder = write_generated(tmp_path / "s", Size(methods=4, seeds=3, test_rows=30, steps=3))
    trees = [{"rank": 2**at, "width": 10 * at, "targets": "all"} for at in range(4)]
    text = with_settings(folder, trees)
    assert "these settings only ever changed together — rank with width." in text


def test_too_few_runs_for_the_settings_are_told(tmp_path: Path) -> None:
    """A model needs more runs than it has columns."""
    folder = write_generated(tmp_path / "s", Size(methods=3, seeds=1, test_rows=30, steps=3))
    text = with_settings(folder, [{"rank": 1, "a": "x"}, {"rank": 2, "a": "y"}, {"rank": 4, "a": "y"}])
    assert "has 4 columns and needs more scored runs than that; there are 3" in text


def test_alpha_is_a_rule_of_the_rank(studies: Path) -> None:
    """2r, r, a number and the rank-stabilised scale are levels of one factor."""
    facts = gather(StudyFolder(studies / "settings"))
    extra = [{"rank": 1, "alpha": 16}, {"rank": 4, "alpha": 4}, {"rank": 4, "alpha": 16, "rank_stabilised": True}]
    records = [method.record for method in facts.methods[:4]]
    for method, record, tree in zip(facts.methods, records, [*extra, {"rank": 8, "alpha": None}], strict=False):
        method.record = record.model_copy(update={"settings": tree})
    facts.methods = facts.methods[:4]
    (group,) = groups_of(facts)
    assert group.factors["alpha rule"] == ["16", "2r", "r", "rs 16"]


def test_examples_are_counted_by_method_and_filtered(client: TestClient, studies: Path) -> None:
    """Wrong seeds of each method, worst first; of one class; of one method; texts only where they are published."""
    facts = gather(StudyFolder(studies / "demo"))
    rows = hard_examples(facts, Choice())
    shares = [row.share for row in rows]
    assert shares == sorted(shares, reverse=True) and len(rows) > 20
    run = facts.by_label["lora"].runs[0].splits["test"]
    row = next(one for one in rows if one.wrong["lora"][0])
    at = run.ids.index(row.id)
    wrong = sum(r.splits["test"].predictions[at] != row.label for r in facts.by_label["lora"].runs.values())
    assert row.wrong["lora"] == (wrong, 3)
    assert {one.label for one in hard_examples(facts, Choice(label="acq"))} == {"acq"}
    by_lora = hard_examples(facts, Choice(method="lora"))
    assert all(one.wrong["lora"][0] for one in by_lora) and len(by_lora) < len(rows)
    assert all(one.text for one in hard_examples(facts, Choice(with_text=True)))
    text = text_of(client.get("/study/demo/examples?label=acq&method=lora").text)
    assert "Churn across seeds" in text and "Labels that look wrong" in text and "train-8" in text
    assert "earn majority" not in text


def test_pages_of_examples_go_on(client: TestClient) -> None:
    """Fifty at a time, with the filter kept; a page beyond the last shows the last."""
    first = client.get("/study/demo/examples").text
    assert 'rel="next"' in first and 'rel="prev"' not in first
    last = client.get("/study/demo/examples?page=999").text
    assert 'rel="prev"' in last and 'rel="next"' not in last


def test_two_runs_are_put_side_by_side(client: TestClient, studies: Path) -> None:
    """Entries of the specs that differ, results of both, and the rest folded."""
    first, second = runs_of(studies / "demo", "lora")[0], runs_of(studies / "demo", "last2")[0]
    text = text_of(client.get(f"/study/demo/compare?a={first.name}&b={second.name}").text)
    assert "learning_rate 0.001 0.0003" in text and "method lora last2" in text
    assert "peak memory" in text and "Entries that are the same" in text
    same = text_of(client.get(f"/study/demo/compare?a={first.name}&b={first.name}").text)
    assert "The specs of these runs are the same." in same
    assert client.get("/study/demo/compare?a=x").status_code == 400


LEDGER = """
[claims.memory]
en = "LoRA needs {memory} of the memory."
ru = "LoRA нужно {memory} памяти."
verdict = "supported"
[claims.memory.when.memory]
study = "fabricated"
method = "lora"
than = "full"
rule = "at_most"
cost = "peak_memory"
ratio = 0.9

[claims.changed]
en = "The head is better: {quality}."
ru = "Голова лучше: {quality}."
verdict = "supported"
[claims.changed.when.quality]
study = "fabricated"
method = "head"
than = "full"
rule = "better"

[claims.strange]
en = "About {nothing}."
ru = "О {nothing}."
verdict = "supported"
[claims.strange.when.quality]
study = "fabricated"
method = "lorra"
than = "full"
rule = "better"

[claims.elsewhere]
en = "Not here: {quality}."
ru = "Не здесь: {quality}."
verdict = "undecided"
[claims.elsewhere.when.quality]
study = "other"
method = "a"
than = "b"
rule = "better"
"""


def test_claims_stand_with_their_verdicts(tmp_path: Path) -> None:
    """Judged over the records; one whose verdict is another than the ledger's is marked, one that cannot be is told."""
    write_study(tmp_path / "demo", test_rows=120, broken=False)
    write_study(tmp_path / "of-the-same-name", methods=("full",), seeds=(0,), test_rows=20, extra_split=False)
    (tmp_path / "claims.toml").write_text(LEDGER, encoding="utf-8")
    with client_of(tmp_path) as client:
        text = text_of(client.get("/claims").text)
        assert re.search(r"supported LoRA needs 0\.\d\d \[0\.\d\d … 0\.\d\d\] of the memory", text)
        assert "refuted the ledger says: supported The head is better" in text
        assert "cannot be judged" in text and "did you mean 'lora'?" in text
        assert "not measured the ledger says: undecided Not here: not measured." in text
        assert "Claims with their verdicts" in text_of(client.get("/").text)
        (tmp_path / "claims.toml").write_text("[claims", encoding="utf-8")
        assert "is not valid TOML" in text_of(client.get("/claims").text)
    html = export_page_text(tmp_path / "demo", tmp_path / "out.html")
    assert "LoRA needs" not in html  # the ledger is broken now


def test_claims_on_a_bench_follow_its_line(tmp_path: Path) -> None:
    """Without the line not measured, with it judged, anew when it changes; one that cannot be read hides no other."""
    rule = 'line = "serve", figure = "ratio", rule = "at_most", limit = 1.35'
    claim = f'[claims.served]\nen = "{{a}}"\nru = "{{a}}"\nverdict = "supported"\nbench.a = {{ {rule} }}\n'
    write_study(tmp_path / "demo", test_rows=40, broken=False, methods=("lora", "full"), seeds=(0, 1))
    (tmp_path / "claims.toml").write_text(claim + LEDGER, encoding="utf-8")
    (tmp_path / "bench").mkdir()
    with client_of(tmp_path) as client:
        assert "the ledger says: supported not measured" in text_of(client.get("/claims").text)
        for line, said in (
            ('{"ratio": 1.2}', "supported 1.200 (one measurement)"),
            ('{"ratio": 1.414}', "refuted the ledger says: supported 1.414 (one measurement)"),
            ("torn", "serve.json cannot be read"),
        ):
            (tmp_path / "bench" / "serve.json").write_text(line, encoding="utf-8")
            text = text_of(client.get("/claims").text)
            assert said in text and "LoRA needs" in text


def export_page_text(folder: Path, out: Path) -> str:
    return text_of(export_page(folder, out, "en").read_text("utf-8"))


@pytest.mark.slow
def test_export_is_one_file_with_everything(studies: Path, tmp_path: Path) -> None:
    """The report's page with budgets, settings and examples; nothing is asked of any host; the same bytes each time."""
    out = export_page(studies / "settings", tmp_path / "out.html", "en")
    html = out.read_text("utf-8")
    text = text_of(html)
    for words in (
        "Within a budget",
        "Effect of each setting of lora",
        "Examples that are got wrong",
        "state when this",
    ):
        assert words in text
    assert "default-src 'none'" in html and not re.search(r'(?:src|href)="(?:https?:)?//', html)
    assert export_page(studies / "settings", tmp_path / "again.html", "en").read_bytes() == out.read_bytes()


def test_export_needs_one_study(studies: Path, tmp_path: Path) -> None:
    """Several are named, none is told, an unknown language and a file that cannot be written are refused."""
    with pytest.raises(RecordError, match=r"holds 3 studies.*demo"):
        export_page(studies, tmp_path / "out.html", "en")
    with pytest.raises(RecordError, match="holds no study"):
        export_page(tmp_path, tmp_path / "out.html", "en")
    with pytest.raises(ConfigError, match="'fr'"):
        export_page(studies / "demo", tmp_path / "out.html", "fr")
