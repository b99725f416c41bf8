"""A study with an earlier task: its file, its runs' identity, and that studies without one are what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paretune.core.config import canonical_hash
from paretune.core.errors import ConfigError
from paretune.records.schema import NEWEST_VERSION, SCHEMA_VERSION, RunSpec, StudyRecord
from paretune.records.store import RunFolder, read_record
from paretune.study.design import Study, read_study_file, run_spec

ROOT = Path(__file__).parents[2]
STUDY = """
[study]
name = "s"
control = "full"
[model]
source = "asset:minilm-l6"
[data]
train = "path:own.csv"
[methods.majority]
[methods.full]
"""
EARLIER = """
[earlier]
name = "first"
metric = "macro_f1"
[earlier.data]
train = "path:first.csv"
"""


def a_study(tmp_path: Path, text: str) -> Study:
    file = tmp_path / "s.toml"
    file.write_text(text, encoding="utf-8")
    return read_study_file(file)


def spec_of(study: Study, earlier: str | None = None) -> RunSpec:
    return run_spec(study, study.methods["full"], 0, 1e-3, "m", "d", earlier)


def test_a_study_without_the_table_is_hashed_as_if_there_were_none(tmp_path: Path) -> None:
    """Neither the study's nor a run's hash has the new key in it, so that nothing finished is run again."""
    study = a_study(tmp_path, STUDY)
    tree = study.file.model_dump(mode="json")
    assert "earlier" not in tree and study.spec_hash == canonical_hash(tree)
    spec = spec_of(study)
    assert "earlier" not in json.loads(spec.model_dump_json()) and spec.schema_version == SCHEMA_VERSION == 1


def test_published_runs_keep_their_ids() -> None:
    """Every published run still has the id that its folder was named by."""
    folders = [RunFolder(path.parent) for path in sorted((ROOT / "results").glob("*/runs/*/spec.json"))]
    assert folders
    for run in folders:
        assert run.spec().run_id == run.id
        assert (run.earlier() is None) == (run.spec().earlier is None or not run.scored)


def test_published_studies_are_still_read() -> None:
    """A record from before there was such a table has no earlier task."""
    records = [read_record(path, StudyRecord) for path in sorted((ROOT / "results").glob("*/study.json"))]
    assert records and all(record.earlier is None for record in records if record.schema_version == 1)


def test_the_earlier_task_is_part_of_a_runs_identity(tmp_path: Path) -> None:
    """Its data and their hash make other runs, and its metric where it decides when to stop; name and margin do not."""
    study = a_study(tmp_path, STUDY + EARLIER)
    spec = spec_of(study, "e")
    assert spec.schema_version == NEWEST_VERSION and spec.earlier is not None and spec.earlier.data_digest == "e"
    ids = {spec.run_id, spec_of(study, "other").run_id, spec_of(a_study(tmp_path, STUDY)).run_id}
    assert len(ids) == 3
    renamed = EARLIER.replace('"first"', '"one"\nmargin = 0.2')
    assert spec_of(a_study(tmp_path, STUDY + renamed), "e").run_id == spec.run_id
    other_metric = EARLIER.replace("macro_f1", "mcc")
    assert spec_of(a_study(tmp_path, STUDY + other_metric), "e").run_id != spec.run_id
    fixed = "[train]\npatience = 0\n"
    assert "[train]" not in STUDY
    by_metric = {spec_of(a_study(tmp_path, STUDY + fixed + one), "e").run_id for one in (EARLIER, other_metric)}
    assert len(by_metric) == 1
    assert study.spec_hash != a_study(tmp_path, STUDY).spec_hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STUDY + EARLIER.replace("first.csv", "own.csv"), r"earlier\.data.*as in \[data\].*another task"),
        (STUDY + EARLIER.replace("first.csv", "sub/../own.csv"), r"earlier\.data.*as in \[data\]"),
        (STUDY + EARLIER.replace("earlier.data", "earlier.date"), r"unknown key 'earlier\.date'.*'data'"),
        (STUDY + '\n[earlier]\nname = "first"\n', r"key 'earlier\.data' is missing"),
        (STUDY + EARLIER + 'lable = "x"\n', r"unknown key 'earlier\.data\.lable'.*'label'"),
        (
            STUDY.replace('control = "full"', 'control = "majority"').replace("[methods.full]", "") + EARLIER,
            "baselines alone.*at least one trained method",
        ),
    ],
)  # fmt: skip
def test_an_earlier_task_that_means_nothing_is_one_line_that_helps(tmp_path: Path, text: str, message: str) -> None:
    """The same task again (by whatever path), a misspelt table, no data, or nothing that could forget."""
    with pytest.raises(ConfigError, match=message) as caught:
        a_study(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_another_label_column_of_the_same_texts_is_another_task(tmp_path: Path) -> None:
    """What is learnt is the labels."""
    text = STUDY + EARLIER.replace("first.csv", "own.csv") + 'label = "tone"\n'
    assert a_study(tmp_path, text).file.earlier is not None
