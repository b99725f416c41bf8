"""Runs what is missing of a study: each job in a process of its own, forked from one parent that has imported torch.

Not here: which jobs there are (`plan.py`) and what a job does (`worker.py`). Ctrl-C and kill -9 lose at most the
current job. Two runners on one folder share the work: a run is held by a lock that dies with its holder.

    run_study(read_study_file(Path("studies/demo.toml")), Path("runs"), progress=Silent(), command="…")
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from paretune.assets.fetch import locked
from paretune.core.config import canonical_hash
from paretune.core.disk import cannot_write, is_full_disk
from paretune.core.engine_timings import ENGINES_FILE, hold
from paretune.core.errors import DataError, RecordError, StorageError, UsageError
from paretune.core.limits import wait_briefly
from paretune.core.memory import return_free_memory
from paretune.data.explore import explore
from paretune.data.prepare import READING, Prepared, load, prepare, save
from paretune.data.sources import DataSpec
from paretune.methods.method import Adaptation
from paretune.models.precision import chosen_precision
from paretune.models.sources import model_digest, model_notes
from paretune.models.tokenizer import read_tokenizer
from paretune.records.exploration import Exploration
from paretune.records.schema import NEWEST_VERSION, SCHEMA_VERSION, EarlierRecord, ExampleText, Stage, StudyRecord
from paretune.records.store import (
    CHECKPOINT_FILE,
    EARLIER_FILE,
    EXAMPLES_FILE,
    EXPLORATION_FILE,
    STUDY_FILE,
    RunFolder,
    StudyFolder,
    read_record,
    write_atomically,
)
from paretune.repro.provenance import machine
from paretune.study.calibrations import CONSTANTS_FILE, ProbeShape, nearest
from paretune.study.design import Study, with_settled_model
from paretune.study.engines import prepare_engines
from paretune.study.origin import ORIGIN_FILE, claim
from paretune.study.plan import Digests, Job, Plan, look, losing_trials, next_stage, status_of
from paretune.study.worker import work
from paretune.tasks.task import TASKS

POLL_SECONDS = 0.25
WAIT_SECONDS = 1.0
SHOWN_EXAMPLES = 24
EXAMPLE_CHARACTERS = 400
PRELOADED = ["paretune.study.worker", "transformers.models.bert.modeling_bert"]


class Progress(Protocol):
    """What a runner tells while it works; the terminal's version is `progress.py`."""

    def note(self, text: str) -> None: ...

    def began(self, job: Job, plan: Plan) -> None: ...

    def alive(self, job: Job, folder: RunFolder) -> None: ...

    def ended(self, job: Job, folder: RunFolder, seconds: float) -> None: ...


def _source_hashes(spec: DataSpec, base: Path) -> list[list[str]]:
    """SHA-256 of each local file behind a study's data; what is pinned or on a hub has its name alone.

    The content, not size and time: a file that was restored, or written within one tick of the clock, has both.
    """
    references = [spec.train, *([spec.test] if spec.test else []), *spec.extra_tests.values()]
    found: list[list[str]] = []
    for reference in references:
        path = base / reference.removeprefix("path:")
        if reference.startswith("path:") and path.is_file():
            with path.open("rb") as content:
                found.append([reference, hashlib.file_digest(content, "sha256").hexdigest()])
        else:
            found.append([reference])
    return found


def _prepared(
    spec: DataSpec, base: Path, where: Path, outdates: Sequence[Path], progress: Progress, labelled: bool = True
) -> Prepared:
    """The splits, made once: again only when the table, a file behind it or the way of reading changed, or what was
    made is lost; then `outdates` are removed first."""
    decided = {"data": spec.model_dump(mode="json"), "files": _source_hashes(spec, base), "reading": READING}
    key = canonical_hash(decided if labelled else decided | {"labelled": False})
    stamp = where / "key"
    if stamp.exists() and stamp.read_text() == key:
        try:
            return load(where)
        except DataError as error:
            progress.note(f"prepared data are made again: {error}")
    else:
        progress.note(f"preparing data: {spec.train}")
    prepared = prepare(spec, base, labelled)
    for path in outdates:
        path.unlink(missing_ok=True)
    save(prepared, where)
    write_atomically(stamp, key)
    return prepared


def _earlier(study: Study, folder: StudyFolder, progress: Progress) -> tuple[Prepared, EarlierRecord] | None:
    """The splits of the task that is learnt first, and what the study's record says of it.

    Raises:
        DataError: they cannot be had; the line begins with the table's name.
    """
    earlier = study.file.earlier
    if earlier is None:
        return None
    try:
        prepared = _prepared(earlier.data, study.base, folder.earlier_data, (), progress)
    except DataError as error:
        raise DataError(f"earlier.data: {error}") from None
    return prepared, EarlierRecord(
        name=earlier.name,
        metric=earlier.metric,
        margin=earlier.margin,
        labels=list(prepared.labels),
        data_source=earlier.data.train,
        split_rows={name: len(rows.ids) for name, rows in prepared.splits.items()},
    )


def _example_texts(prepared: Prepared) -> list[ExampleText]:
    """Test rows for the report, spread evenly over the test splits; chosen by place, never by what a model said."""
    found: list[ExampleText] = []
    tests = [name for name in prepared.splits if name not in ("train", "validation")]
    for name in tests:
        rows = prepared.splits[name]
        every = max(1, len(rows.ids) // (SHOWN_EXAMPLES // len(tests)))
        for place in range(0, len(rows.ids), every)[: SHOWN_EXAMPLES // len(tests)]:
            text = rows.texts[place][:EXAMPLE_CHARACTERS]
            found.append(ExampleText(id=rows.ids[place], split=name, label=rows.labels[place], text=text))
    return found


@dataclass(frozen=True)
class Described:
    """What a study starts from: hashes, its record before any run, and the exploration where that is a new one."""

    digests: Digests
    record: StudyRecord
    exploration: Exploration | None
    examples: list[ExampleText]


def _explored(path: Path, study: Study) -> bool:
    """Whether an exploration of these data, with this tokenizer and length, is there already."""
    try:
        known = read_record(path, Exploration) if path.exists() else None
    except RecordError:
        return False
    wanted = (study.file.data.train, study.file.model.source, study.file.train.max_tokens)
    return known is not None and (known.source, known.tokenizer, known.max_tokens) == wanted


def describe(study: Study, folder: StudyFolder, model: str, command: str, progress: Progress) -> Described:
    """Prepare and explore the data, and make the study's record; `model` is the base model's hash."""
    explored = folder.path / EXPLORATION_FILE
    labelled = TASKS.load(study.file.task.kind).labelled
    outdates = (explored, folder.path / EXAMPLES_FILE)
    prepared = _prepared(study.file.data, study.base, folder.data, outdates, progress, labelled)
    earlier = _earlier(study, folder, progress)
    source = study.file.model.source
    longest = study.file.train.max_tokens
    exploration = None
    if not _explored(explored, study):
        progress.note("exploring data")
        exploration = explore(prepared, read_tokenizer(source), source, longest, study.file.data.train)
    record = StudyRecord(
        schema_version=NEWEST_VERSION if earlier else SCHEMA_VERSION,
        name=study.header.name,
        question=study.header.question.model_dump(),
        metric=study.header.metric,
        margin=study.header.margin,
        control=study.header.control,
        seeds=list(study.header.seeds),
        methods=[choice.record() for choice in study.methods.values()],
        labels=list(prepared.labels),
        model_source=source,
        model_notes=model_notes(source),
        data_source=study.file.data.train,
        max_tokens=longest,
        split_rows={name: len(rows.ids) for name, rows in prepared.splits.items()},
        earlier=earlier[1] if earlier else None,
        file_text=study.text,
        spec=json.loads(study.file.model_dump_json()),
        spec_hash=study.spec_hash,
        command=command,
        machine=machine(),
    )
    digests = Digests(model, prepared.digest, earlier[0].digest if earlier else None)
    return Described(digests, record, exploration, _example_texts(prepared))


def _entry(reply: Connection, study_folder: Path, run_folder: Path, stage: Stage, probe_latency: bool) -> None:
    """First function of a worker process; a folder that cannot be written is told to the runner."""
    try:
        work(study_folder, run_folder, stage, probe_latency)
    except StorageError as error:
        reply.send(str(error))


class Runner:
    """Does the jobs of one study in one folder."""

    def __init__(
        self, study: Study, folder: StudyFolder, digests: Digests, record: StudyRecord, progress: Progress
    ) -> None:
        self.study, self.folder, self.digests, self.record, self.progress = study, folder, digests, record, progress
        self._written: StudyRecord | None = None
        wait_briefly()
        # pyarrow's own allocator reserves 1 GiB at once, which a memory cap would count.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def look(self) -> Plan:
        """What is left to do; what is known of choices and members stands in the study's record before it is begun."""
        with locked(self.folder.path / STUDY_FILE):  # another runner's older look must not overwrite this one's record
            plan = look(self.study, self.folder, self.digests)
            for spec in plan.specs:
                if self.folder.run(spec).restore_spec(spec):
                    self.progress.note(f"run {spec.run_id} ({spec.method}, seed {spec.seed}): spec.json written again")
            update = {"selections": plan.selections, "membership": plan.membership}
            record = self.record.model_copy(update=update)
            if record != self._written:
                self.folder.write_study(record)
                self._written = record
        return plan

    def run_all(self) -> Plan:
        """Do jobs until none is left; where others hold what is left, wait for them."""
        while True:
            plan = self.look()
            if plan.finished:
                return plan
            if not any(self.take(job, plan) for job in plan.jobs):
                time.sleep(WAIT_SECONDS)

    def take(self, job: Job, plan: Plan) -> bool:
        """Do one job unless another runner holds it; True if it was done here.

        Raises:
            StorageError: its folder cannot be written.
        """
        run = self.folder.run(job.spec)
        with run.claimed() as mine:
            # Another runner may have done the job between the look and the lock.
            if not mine or next_stage(run, job.spec, job.chosen) != job.stage:
                return False
            run.sweep()
            self._name_what_is_lost(run, job)
            if job.stage == "trained" or job.spec.family == "baseline":
                if (run.path / CHECKPOINT_FILE).exists():
                    run.set_events_aside()
                else:
                    run.clear_events()
                (run.path / "status").unlink(missing_ok=True)
            else:
                run.keep_events_through("save")
                run.set_status("ok", "trained")
            run.write_spec(job.spec)
            self.progress.began(job, plan)
            began = time.perf_counter()
            self._in_a_process(run, job)
            self.progress.ended(job, run, time.perf_counter() - began)
        return True

    def _name_what_is_lost(self, run: RunFolder, job: Job) -> None:
        """A run that had ended is done again because something of it is gone: say what."""
        status = status_of(run)
        if status is None or status.state != "ok":
            return
        lost = run.lost()
        if not lost and (status.stage == "scored" or job.stage == "trained"):
            lost = [EARLIER_FILE if status.stage == "scored" else "its weights"]
        if lost:
            named = f"run {run.id} ({job.spec.method}, seed {job.spec.seed})"
            self.progress.note(f"{named}: {', '.join(lost)} gone or torn; made again")

    def _in_a_process(self, run: RunFolder, job: Job) -> None:
        receive, reply = self._context.Pipe(duplex=False)
        arguments = (reply, self.folder.path, run.path, job.stage, job.probe_latency)
        process = self._context.Process(target=_entry, args=arguments, daemon=True)
        process.start()
        reply.close()
        limit = self.study.file.budget.seconds
        began = time.perf_counter()
        try:
            while process.is_alive():
                process.join(POLL_SECONDS)
                self.progress.alive(job, run)
                if limit is not None and time.perf_counter() - began > limit:
                    process.kill()
                    process.join()
                    run.set_status("timeout", job.stage, f"took longer than {self.study.file.budget.time}")
                    return
        except KeyboardInterrupt:
            process.kill()
            process.join()
            if job.stage == "trained" or job.spec.family == "baseline":
                run.set_status("cancelled", job.stage, "interrupted")
            raise
        try:
            raise StorageError(receive.recv())
        except EOFError:  # the usual end: the worker had nothing to complain of
            self._judge_end(run, job, process.exitcode)

    def _judge_end(self, run: RunFolder, job: Job, exit_code: int | None) -> None:
        """A process that ended without a word: say by what it was ended."""
        status = run.status()
        if status is not None and status.stage == job.stage:
            return
        if exit_code and exit_code > 0 and job.spec.memory_cap_bytes is not None:  # OpenMP exits where no thread fits
            reason = f"the process ended with code {exit_code} under a cap of {job.spec.memory_cap_bytes} bytes"
            run.set_status("oom", job.stage, reason)
        elif exit_code is not None and exit_code < 0:
            name = signal.Signals(-exit_code).name
            out_of_memory = exit_code == -signal.SIGKILL or job.spec.memory_cap_bytes is not None
            run.set_status("oom" if out_of_memory else "failed", job.stage, f"the process was ended by {name}")
        else:
            run.set_status("failed", job.stage, f"the process ended with code {exit_code} and left no status")


def _clear_if_new(folder: StudyFolder) -> None:
    """Leave no empty folder of a study that could not begin; one that holds anything stays."""
    with contextlib.suppress(OSError):
        if not (folder.path / STUDY_FILE).exists():
            for name in ("data.lock", f"{STUDY_FILE}.lock", ORIGIN_FILE, ENGINES_FILE):
                (folder.path / name).unlink(missing_ok=True)
            folder.path.rmdir()


def _keep_constants(study: Study, folder: StudyFolder) -> None:
    """Lay what an earlier probe of this machine and model found beside the runs, which predict their own cost by it."""
    train = study.file.train
    precision = chosen_precision(train.precision)
    rows = train.micro_batch_size or train.batch_size
    found = nearest(ProbeShape(study.file.model.source, precision, rows, train.max_tokens))
    path = folder.path / CONSTANTS_FILE
    if found is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, found.model_dump_json(indent=1))


def run_study(study: Study, runs_root: Path, progress: Progress, command: str) -> StudyFolder:
    """Run what is missing of a study into `runs_root/NAME`; returns its folder.

    Raises:
        UsageError: data, model or folder cannot be used.
        KeyboardInterrupt: passed on after the current job was marked cancelled.
    """
    folder = StudyFolder(runs_root / study.header.name)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder.path, error) from error
    try:
        progress.note(f"model {study.file.model.source}")
        study = with_settled_model(study, progress.note)
        digest = model_digest(study.file.model.source)
        with locked(folder.data):  # two runners that start together would write the same files
            folder.sweep()
            claim(study, folder)
            found = describe(study, folder, digest, command, progress)
            if any(isinstance(choice.method, Adaptation) for choice in study.methods.values()):
                hold(prepare_engines(progress.note, folder.path / ENGINES_FILE))
            runner = Runner(study, folder, found.digests, found.record, progress)
            runner.look()
            if found.exploration is not None:  # after the record: what is shown of data is never another study's
                write_atomically(folder.path / EXPLORATION_FILE, found.exploration.model_dump_json(indent=1))
                folder.write_examples(found.examples)
            _keep_constants(study, folder)
    except UsageError:
        _clear_if_new(folder)
        raise
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise cannot_write(folder.path, error) from error
    del found
    return_free_memory()  # of looking at the data; this process stays beside every run
    plan = runner.run_all()
    shutil.rmtree(folder.frozen, ignore_errors=True)
    for run in losing_trials(plan, folder):
        shutil.rmtree(run.adapter, ignore_errors=True)
    return folder
