"""The dashboard over records that are torn, newer, mixed or still being written; what is read again and what is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dashboard_reader import PAGES, client_of, page, runs_of, text_of, write_one
from fabricated_study import write_study
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import RecordError
from paretune.dashboard.bodies import Bodies
from paretune.dashboard.export import export_page
from paretune.dashboard.gathered import Gatherer
from paretune.dashboard.generated import Size, labels_of, settings_grid, write_generated
from paretune.dashboard.index import Index, Progress, progress
from paretune.dashboard.kept import Kept
from paretune.dashboard.tail import Place, read_tail
from paretune.records.schema import Member, Membership, MethodRecord, RunSpec, StudyRecord
from paretune.records.store import RunFolder, StudyFolder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A small study to be broken."""
    return write_one(tmp_path)


def newer(path: Path) -> None:
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "schema_version": 99, "a_new_key": 1}))


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def listed(path: Path) -> None:
    path.write_text("[]")


def test_a_study_of_a_newer_schema_is_named_in_its_place(one: Path) -> None:
    """In the list and on each of its pages; the other studies stay."""
    write_study(one.parent / "other", methods=("full", "lora"), seeds=(0, 1), test_rows=20, extra_split=False)
    newer(one / "study.json")
    with client_of(one.parent) as client:
        text = text_of(client.get("/").text)
        assert "study.json was written by a newer paretune (schema 99)" in text and "other" in text
        for path in PAGES:
            answer = client.get(f"/study/one{path}")
            assert answer.status_code == 200, path
        assert "newer paretune" in text_of(client.get("/study/one").text)
        assert client.get("/study/one/draws.json").json() == {"methods": []}
        assert client.get("/study/one/export.html").status_code == 409
        assert client.get("/study/other").status_code == 200


@pytest.mark.parametrize(
    ("file", "break_"),
    [
        *((file, break_) for file in ("spec.json", "measurements.json") for break_ in (newer, torn, emptied)),
        *(("status", break_) for break_ in (torn, emptied, listed)),
    ],
)
def test_a_run_that_cannot_be_read_is_left_out_and_named(one: Path, file: str, break_: Callable[[Path], None]) -> None:
    """The run stands in the list of runs as unreadable; the method's other seeds are still compared."""
    run = runs_of(one, "lora")[0]
    break_(run / file)
    text = page(one, "/study/one")
    assert f"{run.name}: {file}" in text
    assert "Answer" in text and "lora" in text
    assert page(one, "/study/one/runs").count("cannot be read") == (0 if file == "measurements.json" else 1)


@pytest.mark.parametrize("damage", ["half", "middle", "empty", "missing", "text"])
def test_torn_predictions_are_left_out_and_named(one: Path, damage: str) -> None:
    """A file that is cut, holed, empty, not there or of another kind takes one run away, not the page."""
    path = runs_of(one, "lora")[0] / "predictions.parquet"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        cut = {"half": data[: len(data) // 2], "empty": b"", "text": b"hello"}
        path.write_bytes(cut.get(damage, data[:40] + b"\0" * 400 + data[440:]))
    text = page(one, "/study/one")
    assert re.search(rf"{path.parent.name}\)?: predictions.parquet", text)
    assert "Answer" in text


@pytest.mark.parametrize("file", ["explore.json", "examples.json", "inference.json"])
def test_torn_files_of_the_study_are_named(one: Path, file: str) -> None:
    """The study's page is there all the same."""
    (one / file).write_text('{"half": ')
    text = page(one, "/study/one")
    assert f"one: {file} is torn" in text and "Answer" in text
    assert page(one, "/study/one/data")


def test_a_run_folder_without_a_spec_is_named(one: Path) -> None:
    """A run that was killed before its first file was whole."""
    run = one / "runs" / "0123456789abcdef"
    run.mkdir()
    (run / "lock").write_text("")
    (run / ".spec.json.tmp123").write_text("{")
    assert "0123456789abcdef: spec.json is not there." in page(one, "/study/one/runs")


def test_torn_provenance_and_events_do_no_harm(one: Path) -> None:
    """Neither half a line nor a line of another shape keeps the study from being shown."""
    for run in runs_of(one, "lora"):
        (run / "provenance.json").write_text('{"commit": ')
        with (run / "events.jsonl").open("ab") as file:
            file.write(
                b'\n\xff\xfe\n[1]\n"text"\n{"event": "StepEnded"}\n{"event": "StepEnded", "step": "x", "loss": 1}\n{"ev'
            )
    assert "Answer" in page(one, "/study/one")


def test_a_number_longer_than_python_reads_is_a_torn_record(one: Path) -> None:
    """JSON with such a number is no crash."""
    (one / "study.json").write_text('{"schema_version": ' + "9" * 5000 + "}")
    assert "study.json is torn" in page(one, "/study/one")


def test_runs_on_different_data_are_not_put_into_one_chart(one: Path) -> None:
    """Which field differs is said, and no table and no figure is drawn."""
    tree = json.loads((one / "study.json").read_text())
    (one / "study.json").write_text(json.dumps({**tree, "selections": []}))  # as while the study runs
    run = runs_of(one, "lora")[0]
    spec = RunSpec.model_validate_json((run / "spec.json").read_text()).model_copy(update={"data_digest": "other"})
    (run / "spec.json").write_text(spec.model_dump_json())
    run.rename(run.with_name(spec.run_id))
    text = page(one, "/study/one")
    assert "These runs are not put into one table: they differ in data (2)." in text
    assert "Quality of each method" not in text
    with pytest.raises(RecordError, match=r"differ in data \(2\)"):
        export_page(one, one / "out.html", "en")


def test_runs_with_other_test_examples_are_not_compared(one: Path) -> None:
    """Paired statistics need the same examples."""
    other = write_study(one.parent / "b", methods=("lora",), test_rows=40, extra_split=False, broken=False)
    shutil.copy(runs_of(other, "lora")[0] / "predictions.parquet", runs_of(one, "lora")[0] / "predictions.parquet")
    assert "have other test examples" in page(one, "/study/one")


def unfinished(folder: Path, lines: list[str], age_seconds: float = 0.0) -> Path:
    """Make a scored run one that has only begun."""
    run = runs_of(folder, "lora")[-1]
    for name in ("status", "measurements.json", "predictions.parquet"):
        (run / name).unlink()
    (run / "events.jsonl").write_text("".join(lines))
    then = time.time() - age_seconds
    for path in run.iterdir():
        os.utime(path, (then, then))
    return run


def step(number: int, loss: str = "0.5") -> str:
    return f'{{"event": "StepEnded", "step": {number}, "loss": {loss}, "at_seconds": {number / 10}}}\n'


PLAN = '{"event": "TrainingPlanned", "at_seconds": 0.0, "steps": 40, "epochs": 1.0, "train_examples": 9}\n'


def test_live_news_are_read_from_where_the_reader_is(one: Path) -> None:
    """All lines first, then those that were appended; a torn last line comes when it is whole."""
    run = unfinished(one, [PLAN, step(1), step(2), '{"event": "StepEnded", "step": 3, "lo'])
    with client_of(one.parent) as client:
        first = client.get("/study/one/live.json").json()
        news = first["runs"][0]
        assert (first["state"], news["id"], news["steps"], news["torn"]) == ("running", run.name, 40, 0)
        assert [point[0] for point in news["points"]] == [1, 2]
        with (run / "events.jsonl").open("a") as file:
            file.write('ss": 0.25, "at_seconds": 0.3}\n' + "not json\n" + step(4, "NaN"))
        more = client.get("/study/one/live.json", params={"at": news["at"]}).json()["runs"][0]
        assert more["points"] == [[3, 0.25, 0.3], [4, None, 0.4]] and more["torn"] == 1 and not more["restarted"]
        again = client.get("/study/one/live.json", params={"at": more["at"]}).json()["runs"][0]
        assert again["points"] == []


def test_a_run_that_began_anew_is_read_from_its_start(one: Path) -> None:
    """Another file in the place of the old one, or a shorter one, is not mixed with what was read."""
    run = unfinished(one, [PLAN, step(1), step(2)])
    path = run / "events.jsonl"
    news = read_tail(path, Place(0, 0))
    path.write_text(PLAN)
    assert read_tail(path, news.place).restarted
    other = run / "other"
    other.write_text(PLAN + step(7) * 30)
    os.replace(other, path)
    newest = read_tail(path, news.place)
    assert newest.restarted and newest.points[0][0] == 7


def test_a_killed_run_is_interrupted(one: Path) -> None:
    """No end, no lock and no news for long: the run says so, and the study is not finished."""
    run = unfinished(one, [PLAN, step(1), "no event\n", '{"event": "StepEnded", "st'], age_seconds=3600)
    text = page(one, "/study/one/runs")
    assert "interrupted" in text and "1 hour ago" in text
    assert "step 1 of 40; The last line of its events is torn.; unreadable lines: 1" in text
    entry = Index(one.parent).study("one")
    assert entry is not None and progress(entry).state == "unfinished"
    assert (found := entry.run(run.name)) is not None and found.state == "interrupted"


def test_a_study_without_a_scored_run_opens(tmp_path: Path) -> None:
    """Nothing to show yet is no error on any page, whether runs failed or there is none."""
    folder = write_study(tmp_path / "s", methods=("lora", "full"), seeds=(0, 1), scored=False, explored=False)
    with client_of(tmp_path) as client:
        for _ in range(2):
            for path in PAGES:
                assert client.get(f"/study/s{path}").status_code == 200, path
            assert "There is no answer yet" in text_of(client.get("/study/s").text)
            assert client.get("/study/s/export.html").status_code == 200
            shutil.rmtree(folder / "runs", ignore_errors=True)


def test_a_held_lock_means_that_it_runs(one: Path) -> None:
    """However old its last line is: a long step is no interruption. Reading takes no lock itself."""
    run = unfinished(one, [PLAN], age_seconds=3600)
    with RunFolder(run).claimed() as mine:
        assert mine
        entry = Index(one.parent).study("one")
        assert entry is not None and progress(entry).state == "running"
    entry = Index(one.parent).study("one")
    assert entry is not None and progress(entry).state == "unfinished"


def test_a_study_that_still_runs_shows_what_is_there(one: Path) -> None:
    """Results of the scored runs, and that one is missing; the next run changes the version that readers wait for."""
    run = unfinished(one, [PLAN])
    with client_of(one.parent) as client:
        text = text_of(client.get("/study/one").text)
        assert "not finished × 1" in text and "Now" in text
        before = client.get("/study/one/live.json").json()["version"]
        with (run / "events.jsonl").open("a") as file:
            file.write(step(1))
        assert client.get("/study/one/live.json").json()["version"] == before
        (run / "status").write_text(
            '{"state": "oom", "stage": "trained", "reason": "peak of 2.1 GB", "at": "2026-01-01T00:00:00+00:00"}'
        )
        assert client.get("/study/one/live.json").json()["version"] != before
        for _ in range(60):  # a busy machine gets the older page first
            text = text_of(client.get("/study/one").text)
            if "peak of 2.1 GB" in text:
                break
            time.sleep(0.5)
        assert "peak of 2.1 GB" in text


@given(st.binary(max_size=400), st.integers(0, 500))
def test_no_bytes_in_the_events_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes, offset: int) -> None:
    """Whatever stands in the file, the news are read and the place never lies beyond its end."""
    path = tmp_path_factory.getbasetemp() / "events.jsonl"
    path.write_bytes(data)
    news = read_tail(path, Place(path.stat().st_ino, offset))
    assert news.place.offset <= len(data)
    json.dumps(news.points, allow_nan=False)


def test_strange_places_are_read_from_the_start(one: Path) -> None:
    """What is no place that we gave out is passed over."""
    run = unfinished(one, [PLAN, step(1)])
    with client_of(one.parent) as client:
        for at in ("", "x", f"{run.name}:-1:5", f"{run.name}:1:{10**30}", "../../etc/passwd:1:2"):
            news = client.get("/study/one/live.json", params={"at": at}).json()["runs"][0]
            assert [point[0] for point in news["points"]] == [1]


def test_an_old_part_is_shown_while_a_new_one_is_made() -> None:
    """A reader does not wait for a slow part that was there before in an older form."""
    bodies = Bodies(patience_seconds=0.05)
    assert bodies.get(("a",), "1", lambda: "old") == ("1", "old")

    def slow() -> str:
        time.sleep(0.3)
        return "new"

    assert bodies.get(("a",), "2", slow) == ("1", "old")
    for _ in range(100):
        if (found := bodies.get(("a",), "2", slow)) == ("2", "new"):
            break
    assert found == ("2", "new")
    bodies.close()


def test_what_did_not_change_is_not_read_again(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second sweep reads no file; after a run changed, its files alone are read."""
    index = Index(one.parent)
    index.studies()
    read: list[str] = []
    original = Path.read_text

    def watched(self: Path, encoding: str | None = None, errors: str | None = None) -> str:
        read.append(self.name)
        return original(self, encoding=encoding, errors=errors)

    monkeypatch.setattr(Path, "read_text", watched)
    before = index.studies()[0]
    assert [name for name in read if name != "locks"] == []
    status = runs_of(one, "lora")[0] / "status"
    read.clear()
    status.write_text(status.read_text().replace("2", "3"))
    read.clear()
    after = index.studies()[0]
    assert [name for name in read if name != "locks"] == ["status"]
    assert before.facts_version != after.facts_version


def test_a_record_edited_in_its_place_is_read_again(one: Path) -> None:
    """Also where its size is the same and its time of writing was set back: no wrong figure follows from a cache."""
    path, kept = one / "study.json", Kept()
    first = kept.record(path, StudyRecord)
    before, text = path.stat(), path.read_text()
    path.write_text(text.replace('"margin": 0.01', '"margin": 0.05').replace('"margin":0.01', '"margin":0.05'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = kept.record(path, StudyRecord)
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert isinstance(first, StudyRecord) and isinstance(second, StudyRecord) and second.margin == 0.05


def test_facts_are_gathered_once(one: Path) -> None:
    """The same object until a file changes."""
    index = Index(one.parent)
    gatherer = Gatherer(index)
    entry = index.study("one")
    assert entry is not None
    assert gatherer.gathered(entry) is gatherer.gathered(entry)


def test_progress_counts_trials_and_seeds(tmp_path: Path) -> None:
    """A generated study has one of its two trials: the other rate's run is what is left of each method."""
    folder = write_generated(tmp_path / "s", Size(methods=3, seeds=2, test_rows=20, steps=2))
    entry = Index(folder).study("s")
    assert entry is not None
    found = progress(entry)
    assert (found.done, found.total, found.state) == (6, 9, "unfinished")
    assert labels_of(settings_grid(1)[0]) in {run.spec.method for run in entry.runs if run.spec}


RATES = (1e-4, 3e-4, 1e-3, 3e-3)  # the last one extends a search of three


def _searched(folder: Path, states: list[str], listed: int, complete: bool = False, rates: int = 3) -> Progress:
    """How far a study of one method with three seeds is: its trials ended so, and so many of its runs are known."""
    template = StudyFolder(write_study(folder.with_name("template"), methods=("lora",), control="lora", test_rows=20))
    study, spec_of = StudyFolder(folder), template.runs()[0].spec().model_copy
    tried = [(rate, 0) for rate in RATES[: len(states)]] + [(RATES[2], seed) for seed in (1, 2)]
    specs = [spec_of(update={"learning_rate": rate, "seed": seed}) for rate, seed in tried]
    for spec, state in zip(specs, states, strict=False):
        run = study.run(spec)
        run.write_spec(spec)
        run.set_status(
            "ok" if state in ("trained", "scored") else "failed", "scored" if state == "scored" else "trained"
        )
    runs = [Member(run_id=spec.run_id, method="lora", seed=spec.seed, role="trial") for spec in specs[:listed]]
    method = MethodRecord(
        label="lora", kind="lora", family="adaptation", settings={}, learning_rates=list(RATES[:rates])
    )
    membership = Membership(complete=complete, runs=runs)
    update = {"methods": [method], "selections": [], "membership": membership, "seeds": [0, 1, 2]}
    study.write_study(template.study().model_copy(update=update))
    entry = Index(folder).study(folder.name)
    assert entry is not None
    return progress(entry)


def test_progress_knows_trials_that_extended_the_search(tmp_path: Path) -> None:
    """Four trials where three were asked for leave both other seeds to be run, however the trials ended."""
    before = _searched(tmp_path / "before", ["trained"] * 3, 3)
    assert (before.done, before.total, before.state) == (0, 5, "unfinished")
    extended = _searched(tmp_path / "extended", ["trained"] * 4, 4)
    assert (extended.done, extended.total) == (0, 6)
    lost = _searched(tmp_path / "lost", ["failed", "failed", "trained", "failed"], 4)
    assert (lost.done, lost.total, lost.state) == (3, 6, "unfinished")
    chosen = _searched(tmp_path / "chosen", ["trained", "trained", "scored", "trained"], 6)
    assert (chosen.done, chosen.total, chosen.state) == (4, 6, "unfinished")
    nothing = _searched(tmp_path / "nothing", ["failed"] * 3, 3, complete=True)
    assert (nothing.done, nothing.total, nothing.state) == (3, 3, "finished")


def test_progress_is_not_done_while_a_run_is_to_be_scored(tmp_path: Path) -> None:
    """A method without a search has two stages a seed: what was trained alone has not ended; nor has a study whose
    record says that runs are left."""
    trained = _searched(tmp_path / "trained", ["trained"], 1, rates=0)
    assert (trained.done, trained.total, trained.state) == (0, 3, "unfinished")
    left = _searched(tmp_path / "left", ["failed"] * 3, 3, complete=False)
    assert (left.done, left.total, left.state) == (3, 3, "unfinished")
