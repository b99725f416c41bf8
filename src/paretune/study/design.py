"""A study file → its checked settings → the specs of its runs.

Not here: running them (`runner.py`). Every method gets the same tuning budget: the factors of `search` times its
default learning rate, tried with the first seed, judged on validation data alone (SCIENCE: equal tuning budget).

    study = read_study_file(Path("studies/demo.toml")); study.methods["lora-r8"]
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from paretune.core.config import JsonObject, Settings, canonical_hash, load_toml, nearest, validated
from paretune.core.errors import ConfigError, said
from paretune.core.units import parse_bytes, parse_seconds
from paretune.data.sources import DataSpec
from paretune.methods.method import METHODS, Adaptation, Baseline, Fitted
from paretune.models.sources import ModelSpec, is_decoder, model_type, settled
from paretune.records.schema import (
    NEWEST_VERSION,
    SCHEMA_VERSION,
    EarlierData,
    MethodRecord,
    Metric,
    RunSpec,
    is_absent,
)
from paretune.tasks.task import TASKS, TaskSpec
from paretune.train.loop import RECIPE, TrainSpec


class Question(Settings):
    """What the study asks, in both languages."""

    en: str = "Which way of adapting this model to this data gives the most quality for the cost?"
    ru: str = "Какой способ дообучения этой модели на этих данных даёт наилучшее качество за свою цену?"


class StudyHeader(Settings):
    """The [study] table: what is asked, of which seeds, and which difference does not matter (`margin`).

    `search`: factors of each method's default learning rate that are tried. A choice at their edge tries the next
    factor of three, `extensions` times at most; a search of one factor is none, and is not extended."""

    name: str
    question: Question = Question()
    metric: Metric = "accuracy"
    margin: float = Field(default=0.01, gt=0, lt=1)
    control: str = "full"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    search: tuple[float, ...] = (1 / 3, 1.0, 3.0)
    extensions: int = Field(default=2, ge=0, le=4)

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(said(f"name {name!r}", "letters, digits, dot, dash and underscore: it names a folder"))
        return name

    @field_validator("seeds", "search")
    @classmethod
    def _distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or len(set(values)) != len(values):
            raise ValueError(said(f"{list(values)}", "at least one value, none twice"))
        return values

    @field_validator("search")
    @classmethod
    def _factors(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < one < math.inf for one in values):
            raise ValueError(said(f"{list(values)}", "factors above 0, such as [0.333, 1.0, 3.0]"))
        return values


class Budget(Settings):
    """The [budget] table: limits on each run, enforced ("4 GiB", "20 min")."""

    memory: str | None = None
    time: str | None = None

    @property
    def memory_bytes(self) -> int | None:
        return parse_bytes(self.memory) if self.memory else None

    @property
    def seconds(self) -> float | None:
        return parse_seconds(self.time) if self.time else None

    @model_validator(mode="after")
    def _units(self) -> Budget:
        try:
            _ = (self.memory_bytes, self.seconds)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


class Earlier(Settings):
    """The optional [earlier] table: a task that every trained method learns first, to see how much of it is forgotten.

    Each run learns it with the settings, rate and seed of its own and a head of its own, then goes on with the same
    encoder and adapter on the study's data. `metric` is that of the earlier task; `margin` is the difference in
    forgetting that does not matter.
    """

    name: str = Field(min_length=1)
    metric: Metric = "accuracy"
    margin: float = Field(default=0.01, gt=0, lt=1)
    data: DataSpec


class StudyFile(Settings):
    """A whole study file; `methods` maps a label to a table with `kind` and that method's own settings."""

    study: StudyHeader
    model: ModelSpec
    data: DataSpec
    earlier: Earlier | None = Field(default=None, exclude_if=is_absent)
    task: TaskSpec = TaskSpec()
    train: TrainSpec = TrainSpec()
    budget: Budget = Budget()
    methods: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class MethodChoice:
    """One method of a study, its settings checked; `learning_rates` is empty where it has none (a baseline, a fitted
    head), `default_rate` is the one that ties are decided towards."""

    label: str
    kind: str
    method: Adaptation | Baseline
    learning_rates: tuple[float, ...]
    default_rate: float = 0.0

    def chooses(self, train: TrainSpec) -> bool:
        """Whether a run of it chooses anything by itself on validation data."""
        trained = isinstance(self.method, Adaptation) and not isinstance(self.method, Fitted)
        return train.patience > 0 if trained else True

    def record(self) -> MethodRecord:
        return MethodRecord(
            label=self.label,
            kind=self.kind,
            family=self.method.family,
            settings=self.method.settings.model_dump(mode="json"),
            learning_rates=list(self.learning_rates),
        )


@dataclass(frozen=True)
class Study:
    """A checked study: the file's settings, its text, its methods in the file's order, and its real path."""

    file: StudyFile
    text: str
    base: Path
    methods: dict[str, MethodChoice]
    path: Path

    @property
    def header(self) -> StudyHeader:
        return self.file.study

    @property
    def spec_hash(self) -> str:
        return canonical_hash(self.file)


def make_method(kind: str, settings: JsonObject, where: str = "settings") -> Adaptation | Baseline:
    """A method from its registry name and plain settings.

    Raises:
        UnknownNameError: no such method (the nearest is suggested).
        ConfigError: settings that it does not have.
    """
    found = METHODS.load(kind)
    return found(validated(settings, found.settings_model, where))


def _choice(label: str, table: JsonObject, search: tuple[float, ...], where: str) -> MethodChoice:
    kind = table.get("kind", label)
    if not isinstance(kind, str):
        raise ConfigError(said(f"{where}: kind = {kind!r}", "the name of a method in quotes"))
    settings = {key: value for key, value in table.items() if key not in ("kind", "learning_rate")}
    method = make_method(kind, settings, where)
    if isinstance(method, Baseline | Fitted):
        if "learning_rate" in table:
            what = "a baseline" if isinstance(method, Baseline) else f"{kind}, which goes through no steps,"
            raise ConfigError(said(f"{where}: learning_rate", f"no learning rate: {what} has none"))
        return MethodChoice(label, kind, method, ())
    rate = table.get("learning_rate", method.default_learning_rate)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 10:
        raise ConfigError(said(f"{where}: learning_rate = {rate!r}", "a number above 0, such as 1e-3"))
    rates = tuple(float(f"{rate * factor:.3g}") for factor in search)
    if len(set(rates)) != len(rates) or not all(0 < one < math.inf for one in rates):
        tried = f"{where}: learning_rate = {rate!r} times search = {list(search)} is {list(rates)}"
        raise ConfigError(said(tried, "rates above 0 that differ in their first three digits"))
    return MethodChoice(label, kind, method, rates, float(f"{rate:.3g}"))


def read_study_file(path: Path, base: Path | None = None) -> Study:
    """Read and check a study file; `base` is where relative data paths start (the file's own folder by default).

    Raises:
        ConfigError: one line: what was given, what is allowed, the nearest name.
    """
    file = _for_its_task(load_toml(path, StudyFile), path)
    if not file.methods:
        raise ConfigError(said(f"{path}: no methods", "at least one [methods.LABEL] table"))
    methods = {
        label: _choice(label, table, file.study.search, f"{path}: methods.{label}")
        for label, table in file.methods.items()
    }
    _check_methods(methods, file.task.kind, path)
    if file.study.control not in methods:
        given = f"{path}: control = {file.study.control!r}"
        near = nearest(file.study.control, methods)
        raise ConfigError(said(given, "one of the study's methods: " + ", ".join(methods), nearest=near))
    whole = path.resolve()
    study = Study(file, path.read_text(encoding="utf-8-sig"), base or whole.parent, methods, whole)
    _check_earlier(study, path)
    return study


def _for_its_task(file: StudyFile, path: Path) -> StudyFile:
    """The file with the metric that its task has first where it names none.

    Raises:
        UnknownNameError: no such task. ConfigError: the task has no such metric, or cannot be learnt after another.
    """
    metrics = TASKS.load(file.task.kind).metrics
    if file.earlier is not None and not TASKS.load(file.task.kind).labelled:
        raise ConfigError(said(f"{path}: [earlier] with task {file.task.kind!r}", "a task with labels for [earlier]"))
    if file.train.class_weights != "none" and not TASKS.load(file.task.kind).labelled:
        given = f"{path}: train.class_weights = {file.train.class_weights!r} with task {file.task.kind!r}"
        raise ConfigError(said(given, '"none": the task has no classes'))
    if "metric" not in file.study.model_fields_set:
        first = file.study.model_copy(update={"metric": metrics[0]})
        return file if first == file.study else file.model_copy(update={"study": first})
    if file.study.metric not in metrics:
        given = f"{path}: study.metric = {file.study.metric!r} with task {file.task.kind!r}"
        raise ConfigError(said(given, "one of " + ", ".join(metrics)))
    return file


def _check_methods(methods: dict[str, MethodChoice], task: str, path: Path) -> None:
    """A task without labels takes no classifier of its own and no head to be trained alone."""
    if TASKS.load(task).labelled:
        return
    for label, choice in methods.items():
        if isinstance(choice.method, Baseline) or choice.method.only_new_head:
            why = "fits labels" if isinstance(choice.method, Baseline) else "trains a new head alone"
            given = f"{path}: methods.{label}: {choice.kind!r} {why}, and task {task!r} has none"
            raise ConfigError(said(given, "methods that train the model itself, such as lora or full"))


def with_settled_model(study: Study, note: Callable[[str], None]) -> Study:
    """The study with what its model decides where the file does not say; the model's files are read, or had first.

    `note` is told what is remarkable about the model.

    Raises:
        ConfigError: a setting or a method that does not go with the model.
        as `check_model`.
    """
    from paretune.models.check import check_model  # with transformers, which takes seconds to import
    from paretune.study.misfits import check_methods_fit

    model, task = study.file.model, study.file.task.kind
    for remark in check_model(model.source, study.file.train.max_tokens):
        note(remark)
    if TASKS.load(task).model == "language" and not is_decoder(model.source):
        kind = model_type(model.source)
        given = f"task {task!r} with {model.source}, an encoder (type {kind!r}), which predicts no next token"
        raise ConfigError(said(given, "a decoder, such as asset:smollm2-135m"))
    check_methods_fit(study)
    return replace(study, file=study.file.model_copy(update={"model": settled(model)}))


def _check_earlier(study: Study, path: Path) -> None:
    """An earlier task must be another one, and there must be something that can forget it."""
    earlier = study.file.earlier
    if earlier is None:
        return
    if _labels_of(earlier.data, study.base) == _labels_of(study.file.data, study.base):
        given = f"{path}: earlier.data = {earlier.data.train!r} with label {earlier.data.label!r}, as in [data]"
        raise ConfigError(said(given, "another task: other texts, or another column of labels"))
    if all(isinstance(choice.method, Baseline) for choice in study.methods.values()):
        raise ConfigError(
            said(f"{path}: [earlier] with baselines alone", "at least one trained method: a baseline keeps no encoder")
        )


def _labels_of(spec: DataSpec, base: Path) -> tuple[str, str]:
    """What a task's labels are read from; a file by its real path, however it is written."""
    scheme, _, rest = spec.train.partition(":")
    return (str((base / rest).resolve()) if scheme == "path" else spec.train, spec.label)


def run_spec(
    study: Study,
    choice: MethodChoice,
    seed: int,
    learning_rate: float | None,
    model_digest: str,
    data_digest: str,
    earlier_digest: str | None = None,
) -> RunSpec:
    """The spec of one run of a study; `earlier_digest` is the hash of the earlier task's splits, where it has one."""
    earlier = None
    if study.file.earlier is not None:
        assert earlier_digest is not None
        earlier = EarlierData(
            data=study.file.earlier.data.model_dump(mode="json"),
            data_digest=earlier_digest,
            metric=study.file.earlier.metric if choice.chooses(study.file.train) else None,
        )
    return RunSpec(
        schema_version=NEWEST_VERSION if earlier else SCHEMA_VERSION,
        recipe=RECIPE,
        study=study.header.name,
        method=choice.label,
        kind=choice.kind,
        family=choice.method.family,
        settings=choice.method.settings.model_dump(mode="json"),
        seed=seed,
        learning_rate=learning_rate,
        model=study.file.model.model_dump(mode="json"),
        model_digest=model_digest,
        data=study.file.data.model_dump(mode="json"),
        data_digest=data_digest,
        earlier=earlier,
        task=study.file.task.model_dump(mode="json"),
        train=study.file.train.model_dump(mode="json"),
        metric=study.header.metric if choice.chooses(study.file.train) else None,
        memory_cap_bytes=study.file.budget.memory_bytes,
    )
