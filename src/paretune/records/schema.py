"""Typed records of a study and its runs: what is written once and read by report, dashboard and verifier.

Not here: where they lie (`store.py`) and what they mean statistically (`stats/`). Units stand in the names; every
resource figure carries its grade.

    RunSpec.model_validate_json(Path("runs/demo/runs/…/spec.json").read_text()).run_id
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paretune.core.config import JsonObject, Settings, canonical_hash

SCHEMA_VERSION = 1
NEWEST_VERSION = 2  # the newest that is read: 2 is of a study with an earlier task, all others keep 1 and their hashes
Grade = Literal["counter", "sampled", "estimated", "assumed"]
State = Literal["ok", "failed", "oom", "over_budget", "timeout", "cancelled"]
Stage = Literal["trained", "scored"]
Family = Literal["baseline", "adaptation"]
Metric = Literal["accuracy", "macro_f1", "mcc", "nll", "perplexity", "bits_per_byte"]  # the last three: less is better

MAJORITY = "majority"  # the kind of method that reads no text: the most frequent class for all
PREDICTION_COLUMNS = ("id", "split", "label", "prediction", "score", "label_probability", "near_duplicate")


def is_absent(value: object) -> bool:
    """Leaves a field out of what is written and hashed: records from before there was such a field stay as they are."""
    return value is None


class EarlierData(Settings):
    """What a run learns before the study's own data; `data_digest` is the hash of its prepared splits, `metric` as in
    `RunSpec`."""

    data: JsonObject
    data_digest: str
    metric: Metric | None = Field(default=None, exclude_if=is_absent)


class RunSpec(Settings):
    """All that decides a run: one method, one seed, one setting. Its hash is the run's id.

    `method` is the label within the study, `kind` the registry's name; `learning_rate` is None for a baseline.
    `data_digest` is the hash of the prepared splits, so that a changed data file makes new runs; `recipe` is the
    version of the training itself, so that a change of its numbers does. `metric`: by which the run chooses for itself
    on validation data (its best epoch, the strength of a penalty); absent where it chooses nothing.
    """

    schema_version: int = SCHEMA_VERSION
    recipe: int = 1
    study: str
    method: str
    kind: str
    family: Family
    settings: JsonObject
    seed: int
    learning_rate: float | None
    model: JsonObject
    model_digest: str
    data: JsonObject
    data_digest: str
    earlier: EarlierData | None = Field(default=None, exclude_if=is_absent)
    task: JsonObject
    train: JsonObject
    metric: Metric | None = Field(default=None, exclude_if=is_absent)
    memory_cap_bytes: int | None = None

    @property
    def run_id(self) -> str:
        """First 16 hex digits of the spec's hash."""
        return canonical_hash(self)[:16]


class Status(Settings):
    """How far a run came, and why it stopped; `stage` says which part an `ok` is about."""

    state: State
    stage: Stage
    reason: str
    at: str


class Graded(Settings):
    """A resource figure and how it was had."""

    value: float
    grade: Grade


class PhaseCost(Settings):
    """Cost of one phase; the peak is the process's high-water mark, reset at the phase's start."""

    phase: str
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


class Latency(Settings):
    """Seconds for one call of the model on a batch of real test texts, tokenizing included."""

    batch: int
    calls: int
    p50_seconds: float
    p95_seconds: float


class Predicted(Settings):
    """What the planner expected of a run before it began, up to the end of its first stage.

    `calibrated` says that memory and seconds stand on steps measured on this machine; without, there are none.
    `seconds` maps a phase to its seconds, `parts` a part of the peak to its bytes. `steps` and `evaluations` are how
    many optimizer steps and readings of the validation data `seconds` counts: training that is stopped early has fewer.
    """

    calibrated: bool
    trainable_parameters: int
    adapter_bytes: int
    train_flops: float
    peak_memory_bytes: float | None = None
    peak_memory_above_imports_bytes: float | None = None
    capped_bytes: float | None = None
    parts: dict[str, float] = Field(default_factory=dict[str, float])
    seconds: dict[str, float] = Field(default_factory=dict[str, float])
    steps: int | None = Field(default=None, exclude_if=is_absent)
    evaluations: int | None = Field(default=None, exclude_if=is_absent)


class SettingChoice(Settings):
    """What a method that is fitted rather than trained chose on validation data, all its settings tried in one run.

    `trials` maps each setting that was tried to the headline metric; `tied` are those that do not differ from the
    chosen one beyond noise; `extended` is how many times the search went past an edge; `edge`: the choice is at one
    still."""

    setting: JsonObject
    trials: dict[str, float]
    tied: list[str]
    extended: int
    edge: bool


class EpochChoice(Settings):
    """Of how many epochs a run went through at most, and really, which one's weights it kept."""

    most: int
    run: int
    best: int


class EngineUse(Settings):
    """The implementation of forward and backward that a run used; `reason` says why no faster one, or is empty.

    `name` is "native" (C++ kernels), "torch" (fused torch operators), "transformers" (plain modules) or "none" (a
    baseline). `processor` and `threads` complete what costs may be compared within.
    """

    name: Literal["native", "torch", "transformers", "none"]
    reason: str = ""
    processor: str = ""
    threads: int = 0


class Measurements(Settings):
    """What a run cost and reached. Training figures are of the training phase alone; `scores` has one dict a split."""

    schema_version: int = SCHEMA_VERSION
    phases: list[PhaseCost]
    memory_after_imports_bytes: int
    train_seconds: Graded
    train_cpu_seconds: Graded
    peak_memory_bytes: Graded
    peak_memory_above_imports_bytes: Graded
    energy_joules: Graded | None
    energy_source: str
    trainable_parameters: int
    total_parameters: int
    adapter_bytes: int | None
    train_examples: int
    train_tokens: int
    padding_ratio: float | None
    steps: int
    precision: str
    search_seconds: float | None = None
    latency: list[Latency] = Field(default_factory=list[Latency])
    scores: dict[str, dict[str, float]]
    notes: list[str] = Field(default_factory=list[str])
    predicted: Predicted | None = Field(default=None, exclude_if=is_absent)
    engine: EngineUse | None = Field(default=None, exclude_if=is_absent)
    choice: SettingChoice | None = Field(default=None, exclude_if=is_absent)
    epochs: EpochChoice | None = Field(default=None, exclude_if=is_absent)


class MethodRecord(Settings):
    """One method of a study: its label, what it is, and the learning rates that were tried for it."""

    label: str
    kind: str
    family: Family
    settings: JsonObject
    learning_rates: list[float]

    @property
    def searched(self) -> bool:
        """Whether a learning rate is chosen for it: not of a baseline, nor of a head that is fitted to its end."""
        return bool(self.learning_rates)


class Selection(Settings):
    """Which learning rate a method got, on validation data alone; `trials` maps it to the headline metric.

    `rule`: how it was chosen; absent in records of before there was more than one rule (the best of a fixed grid, ties
    by log-loss). "extended": rates that do not differ from the best beyond noise are `tied`, and of them the nearest to
    the method's default is taken; a choice at an edge extended the search `extended` times, and `edge` says on which
    side it is at the edge still. `noise` maps a rate to the standard error of its difference to the best one."""

    method: str
    learning_rate: float
    run_id: str
    trials: dict[str, float]
    trial_seconds: float
    rule: Literal["extended"] | None = Field(default=None, exclude_if=is_absent)
    noise: dict[str, float] | None = Field(default=None, exclude_if=is_absent)
    tied: list[float] | None = Field(default=None, exclude_if=is_absent)
    extended: int | None = Field(default=None, exclude_if=is_absent)
    edge: Literal["low", "high"] | None = Field(default=None, exclude_if=is_absent)


class Member(Settings):
    """A run that belongs to a study: the result of a method with a seed, or a trial of the method's search."""

    run_id: str
    method: str
    seed: int
    role: Literal["result", "trial"]


class Membership(Settings):
    """The runs of a study, as its planner knows them: also those that are still to come. `complete`: all have ended."""

    complete: bool
    runs: list[Member]


class EarlierRecord(Settings):
    """The task that every trained method of a study learnt first: how its forgetting is measured, and on what."""

    name: str
    metric: Metric
    margin: float = Field(gt=0, allow_inf_nan=False)
    labels: list[str]
    data_source: str
    split_rows: dict[str, int]


class StudyRecord(Settings):
    """A study as it ran: the resolved file, what was asked, and the choices that were made on validation data.

    `question` maps a language to the question in it; `split_rows` a split to its number of rows.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    question: dict[str, str]
    metric: Metric
    margin: float = Field(gt=0, allow_inf_nan=False)
    control: str
    seeds: list[int] = Field(min_length=1)
    methods: list[MethodRecord]
    labels: list[str]
    model_source: str
    model_notes: list[str]
    data_source: str
    max_tokens: int
    split_rows: dict[str, int]
    earlier: EarlierRecord | None = Field(default=None, exclude_if=is_absent)
    file_text: str
    spec: JsonObject
    spec_hash: str
    command: str
    machine: JsonObject
    selections: list[Selection] = Field(default_factory=list[Selection])
    membership: Membership | None = Field(default=None, exclude_if=is_absent)

    @property
    def pilot(self) -> bool:
        """Fewer than five seeds: every conclusion is marked as a pilot's."""
        return len(self.seeds) < 5


class ExampleText(Settings):
    """A test example that the report may show with what the methods said of it."""

    id: str
    split: str
    label: str
    text: str
