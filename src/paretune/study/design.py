"""A study file → its checked settings → the specs of its runs.

Not here: running them (`runner.py`). Every method gets the same tuning budget: the factors of `search` times its
default learning rate, tried with the first seed, judged on validation data alone (SCIENCE: equal tuning budget).

    study = read_study_file(Path("studies/demo.toml")); study.methods["lora-r8"]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from paretune.core.config import JsonObject, Settings, canonical_hash, load_toml, nearest, validated
from paretune.core.errors import ConfigError, said
from paretune.core.units import parse_bytes, parse_seconds
from paretune.data.sources import DataSpec
from paretune.methods.method import METHODS, Adaptation, Baseline
from paretune.models.sources import ModelSpec
from paretune.records.schema import MethodRecord, RunSpec
from paretune.tasks.task import TASKS, TaskSpec
from paretune.train.loop import RECIPE, TrainSpec


class Question(Settings):
    """What the study asks, in both languages."""

    en: str = "Which way of adapting this model to this data gives the most quality for the cost?"
    ru: str = "Какой способ дообучения этой модели на этих данных даёт наилучшее качество за свою цену?"


class StudyHeader(Settings):
    """The [study] table: what is asked, of which seeds, and which difference does not matter (`margin`)."""

    name: str
    question: Question = Question()
    metric: Literal["accuracy", "macro_f1", "mcc"] = "accuracy"
    margin: float = Field(default=0.01, gt=0, lt=1)
    control: str = "full"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    search: tuple[float, ...] = (1 / 3, 1.0, 3.0)

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


class StudyFile(Settings):
    """A whole study file; `methods` maps a label to a table with `kind` and that method's own settings."""

    study: StudyHeader
    model: ModelSpec
    data: DataSpec
    task: TaskSpec = TaskSpec()
    train: TrainSpec = TrainSpec()
    budget: Budget = Budget()
    methods: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class MethodChoice:
    """One method of a study, its settings checked; `learning_rates` is empty for a baseline."""

    label: str
    kind: str
    method: Adaptation | Baseline
    learning_rates: tuple[float, ...]

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
    """A checked study: the file's settings, its text, and its methods in the file's order."""

    file: StudyFile
    text: str
    base: Path
    methods: dict[str, MethodChoice]

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
    if isinstance(method, Baseline):
        if "learning_rate" in table:
            raise ConfigError(said(f"{where}: learning_rate", "no learning rate: a baseline has none"))
        return MethodChoice(label, kind, method, ())
    rate = table.get("learning_rate", method.default_learning_rate)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 10:
        raise ConfigError(said(f"{where}: learning_rate = {rate!r}", "a number above 0, such as 1e-3"))
    rates = tuple(float(f"{rate * factor:.3g}") for factor in search)
    return MethodChoice(label, kind, method, rates)


def read_study_file(path: Path, base: Path | None = None) -> Study:
    """Read and check a study file; `base` is where relative data paths start (the file's own folder by default).

    Raises:
        ConfigError: one line: what was given, what is allowed, the nearest name.
    """
    file = load_toml(path, StudyFile)
    TASKS.check(file.task.kind)
    if not file.methods:
        raise ConfigError(said(f"{path}: no methods", "at least one [methods.LABEL] table"))
    methods = {
        label: _choice(label, table, file.study.search, f"{path}: methods.{label}")
        for label, table in file.methods.items()
    }
    if file.study.control not in methods:
        given = f"{path}: control = {file.study.control!r}"
        near = nearest(file.study.control, methods)
        raise ConfigError(said(given, "one of the study's methods: " + ", ".join(methods), nearest=near))
    return Study(file, path.read_text(encoding="utf-8-sig"), base or path.resolve().parent, methods)


def run_spec(
    study: Study, choice: MethodChoice, seed: int, learning_rate: float | None, model_digest: str, data_digest: str
) -> RunSpec:
    """The spec of one run of a study."""
    return RunSpec(
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
        task=study.file.task.model_dump(mode="json"),
        train=study.file.train.model_dump(mode="json"),
        memory_cap_bytes=study.file.budget.memory_bytes,
    )
