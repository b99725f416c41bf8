"""What a study will need, before anything of it runs; and which setting of it fits a budget.

For each method: the study's own setting, and where that does not fit, the largest part of a batch that does
(accumulated to the same optimizer step), in the number format in which it is faster, with activation checkpointing
where only that fits or where it is faster than smaller parts. Where none fits, the nearest and by how much it misses,
and whether shorter texts would do. Not here: the formulas (`measure/`, `predict.py`), the words for a reader
(`plan_command.py`).

    plan_study(read_study_file(path), Limits(memory_bytes=4 * 2**30, seconds=None), note=print).total_seconds
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product

from paretune.core.errors import UsageError
from paretune.core.limits import processor_has_bf16
from paretune.data.encoding import Encoded, encode
from paretune.data.prepare import prepare
from paretune.measure.accounting import Census, Format
from paretune.measure.calibration import Calibration
from paretune.methods.method import Adaptation, Fitted
from paretune.models.precision import chosen_precision
from paretune.models.tokenizer import read_tokenizer
from paretune.records.schema import Predicted
from paretune.study.calibrate import calibration, counted
from paretune.study.calibrations import ProbeShape
from paretune.study.design import MethodChoice, Study, with_settled_model
from paretune.study.engines import prepare_engines
from paretune.study.predict import Scoring, keeps_prefix, predict_run, predict_scoring, shape_of, way_of
from paretune.tasks.task import TASKS
from paretune.train.loop import TrainSpec

SHORTER = (0.75, 0.5, 0.25)  # shares of the longest text that are tried where nothing fits
Constants = Callable[[Format], Calibration]


@dataclass(frozen=True)
class Limits:
    """What one run may take; None: no limit."""

    memory_bytes: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Setting:
    """What the planner may change: texts computed at once, the number format, and what is kept for the way back."""

    micro_batch_size: int
    batch_size: int
    precision: Format
    activation_checkpointing: bool = False

    @property
    def accumulation(self) -> int:
        """Passes of one optimizer step."""
        return -(-self.batch_size // self.micro_batch_size)


@dataclass(frozen=True)
class Option:
    """One setting with what it needs: both stages of one run."""

    setting: Setting
    predicted: Predicted
    scoring: Scoring

    @property
    def memory_bytes(self) -> float:
        """What a cap must allow: the larger of what is resident and what a cap counts, of both stages."""
        first = max(self.predicted.peak_memory_bytes or 0.0, self.predicted.capped_bytes or 0.0)
        return max(first, self.scoring.peak_memory_bytes, self.scoring.capped_bytes)

    @property
    def seconds(self) -> float:
        """The longer of the two stages: a time limit holds for each."""
        return max(self.train_seconds, self.scoring.seconds + self.scoring.latency_seconds)

    @property
    def train_seconds(self) -> float:
        return sum(self.predicted.seconds.values())

    def misses(self, limits: Limits) -> dict[str, float]:
        """By how much each limit is passed, in bytes or seconds; empty where it fits."""
        found: dict[str, float] = {}
        if limits.memory_bytes is not None and self.memory_bytes > limits.memory_bytes:
            found["memory_bytes"] = self.memory_bytes - limits.memory_bytes
        if limits.seconds is not None and self.seconds > limits.seconds:
            found["seconds"] = self.seconds - limits.seconds
        return found

    def excess(self, limits: Limits) -> float:
        """How far from fitting: the larger of both needs over its limit, 1 where it just fits."""
        over_memory = self.memory_bytes / limits.memory_bytes if limits.memory_bytes else 0.0
        return max(over_memory, self.seconds / limits.seconds if limits.seconds else 0.0)


@dataclass(frozen=True)
class MethodPlan:
    """One method: the study's own setting (`own`), the one to take (`chosen`, None where none fits) or the nearest.

    `shorter_tokens`: where nothing fits, the longest text with which the nearest would, if any. `reason`: why nothing
    is predicted.
    """

    label: str
    kind: str
    own: Option | None = None
    chosen: Option | None = None
    nearest: Option | None = None
    shorter_tokens: int | None = None
    reason: str = ""
    trials: int = 0
    seeds: int = 0

    @property
    def best(self) -> Option | None:
        return self.chosen or self.nearest

    @property
    def total_seconds(self) -> float | None:
        """All runs of this method: the search's, one for each further seed, and every seed's scoring."""
        best = self.best
        if best is None:
            return None
        trained = (self.trials + self.seeds - 1) * best.train_seconds
        return trained + self.seeds * best.scoring.seconds + best.scoring.latency_seconds


@dataclass(frozen=True)
class StudyPlan:
    """The whole study."""

    name: str
    model: str
    limits: Limits
    methods: list[MethodPlan]
    calibrations: dict[str, Calibration]
    notes: list[str]

    @property
    def total_seconds(self) -> float:
        """Of all methods for which it is known."""
        return sum(one.total_seconds or 0.0 for one in self.methods)

    @property
    def misfits(self) -> list[str]:
        """Methods for which no setting fits."""
        return [one.label for one in self.methods if one.own is not None and one.chosen is None]


def settings(train: TrainSpec, formats: Iterable[Format]) -> Iterator[Setting]:
    """The study's own setting first, then each smaller part of a batch, in every number format, and all that again with
    activation checkpointing, where the study does not have it anyway."""
    size = min(train.micro_batch_size or train.batch_size, train.batch_size)
    own = train.activation_checkpointing
    for recomputed, precision in product([own] if own else [False, True], list(formats)):
        part = size
        while True:
            yield Setting(part, train.batch_size, precision, recomputed)
            if part == 1:
                break
            part = -(-part // 2)


def formats(train: TrainSpec, has_bf16: bool) -> list[Format]:
    """The study's own number format, then the other where this processor multiplies in it."""
    own = chosen_precision(train.precision)
    others: list[Format] = ["fp32", *(["bf16"] if has_bf16 else [])]
    return [own, *(one for one in others if one != own)]


def options(
    found: Census, encoded: dict[str, Encoded], train: TrainSpec, has_bf16: bool, constants: Constants, fits: int = 0
) -> Iterator[Option]:
    """Every setting with what it needs, the study's own first."""
    for setting in settings(train, formats(train, has_bf16)):
        if not (setting.activation_checkpointing and not found.encoder_learns):  # nothing is kept that could be left
            yield option(found, encoded, train, setting, constants(setting.precision), fits)


def option(
    found: Census,
    encoded: dict[str, Encoded],
    train: TrainSpec,
    setting: Setting,
    constants: Calibration,
    fits: int = 0,
) -> Option:
    """One setting with what it needs at most; `fits` as in `shape_of`."""
    changed = {name: value for name, value in asdict(setting).items() if name != "batch_size"}
    shape = shape_of(encoded, train.model_copy(update=changed), way_of(found, setting.precision), fits=fits)
    predicted = predict_run(found, shape, setting.precision, constants, keeps_prefix(found, train, fits > 0))
    return Option(setting, predicted, predict_scoring(found, shape, setting.precision, constants))


def choose(found: Iterable[Option], limits: Limits) -> tuple[Option, Option | None, Option]:
    """The first option, the one to take and the nearest: the first if it fits; else, of each number format, with
    activation checkpointing and without, the first that fits (the largest part of a batch); of these the fastest."""
    own: Option | None = None
    fitting: dict[tuple[Format, bool], Option] = {}
    nearest: Option | None = None
    for one in found:
        own = own or one
        if not one.misses(limits):
            if one is own:
                return one, one, one
            fitting.setdefault((one.setting.precision, one.setting.activation_checkpointing), one)
        if nearest is None or one.excess(limits) < nearest.excess(limits):
            nearest = one
    assert own is not None and nearest is not None, "there is always the study's own setting"
    return own, min(fitting.values(), key=lambda one: one.seconds, default=None), nearest


def encoded_sample(study: Study) -> tuple[dict[str, Encoded], int, float]:
    """All splits as tokens, the number of classes, and the seconds that it took to tokenize."""
    prepared = prepare(study.file.data, study.base, TASKS.load(study.file.task.kind).labelled)
    tokenizer = read_tokenizer(study.file.model.source)
    longest, prefix = study.file.train.max_tokens, study.file.model.text_prefix
    began = time.perf_counter()
    encoded = {name: encode(tokenizer, rows.texts, longest, prefix) for name, rows in prepared.splits.items()}
    return encoded, len(prepared.labels), time.perf_counter() - began


def plan_study(study: Study, limits: Limits, note: Callable[[str], None], again: bool = False) -> StudyPlan:
    """Predict and choose, method by method; `again` measures steps anew.

    Raises:
        DataError, AssetError, UnknownNameError: data or model cannot be used.
        RunError: no step could be measured.
    """
    prepare_engines(note)
    study = with_settled_model(study, note)
    note(f"preparing data: {study.file.data.train}")
    encoded, classes, encode_seconds = encoded_sample(study)
    train, source = study.file.train, study.file.model.source
    tokens = sum(int(one.lengths_n.sum()) for one in encoded.values())
    longest = max(int(one.lengths_n.max()) for one in encoded.values())
    probed: dict[str, Calibration] = {}

    def constants(precision: Format) -> Calibration:
        if precision not in probed:
            rows = train.micro_batch_size or train.batch_size
            found = calibration(ProbeShape(source, precision, rows, longest), note, again)
            probed[precision] = found.model_copy(update={"encode_seconds_per_token": encode_seconds / max(1, tokens)})
        return probed[precision]

    methods = [_method(study, choice, classes, encoded, limits, constants) for choice in study.methods.values()]
    return StudyPlan(study.header.name, source, limits, methods, probed, _notes(study))


def _notes(study: Study) -> list[str]:
    found: list[str] = []
    if study.file.train.patience:
        found.append(
            f"at most: all {study.file.train.epochs} epochs are counted, and training stops when the validation score "
            f"has not improved for {study.file.train.patience}; trials past the edge of a search are counted too"
        )
    if study.file.earlier is not None:
        found.append("the task that is learnt first ([earlier]) is not counted")
    if not processor_has_bf16():
        found.append("this processor has no bf16: fp32 alone is offered")
    return found


def _method(
    study: Study,
    choice: MethodChoice,
    classes: int,
    encoded: dict[str, Encoded],
    limits: Limits,
    constants: Constants,
) -> MethodPlan:
    plan = MethodPlan(choice.label, choice.kind, trials=most_trials(study, choice), seeds=len(study.header.seeds))
    if not isinstance(choice.method, Adaptation):
        return replace(plan, reason="a baseline: not predicted, small beside the others")
    if TASKS.load(study.file.task.kind).model != "classifier":
        return replace(plan, reason=f"not predicted: the task {study.file.task.kind} is not modelled yet")
    train = study.file.train
    try:
        found = counted(study.file.model.source, choice.method, classes)
    except UsageError as error:
        return replace(plan, reason=str(error))
    fits = choice.method.fits if isinstance(choice.method, Fitted) else 0
    own, chosen, nearest = choose(options(found, encoded, train, processor_has_bf16(), constants, fits), limits)
    shorter = None
    if chosen is None:
        shorter = _shorter(found, encoded, train, nearest.setting, constants(nearest.setting.precision), limits)
    return replace(plan, own=own, chosen=chosen, nearest=nearest, shorter_tokens=shorter)


def most_trials(study: Study, choice: MethodChoice) -> int:
    """How many settings of a method are tried at most, a search that was extended as often as it may be included."""
    grid = len(choice.learning_rates)
    return grid + study.header.extensions if grid > 1 else max(1, grid)


def _shorter(
    found: Census,
    encoded: dict[str, Encoded],
    train: TrainSpec,
    setting: Setting,
    constants: Calibration,
    limits: Limits,
) -> int | None:
    """The largest of some shorter longest texts with which a setting fits."""
    for share in SHORTER:
        tokens = max(4, int(train.max_tokens * share))
        cut = {name: Encoded(tuple(row[:tokens] for row in split.ids), split.pad_id) for name, split in encoded.items()}
        if not option(found, cut, train, setting, constants).misses(limits):
            return tokens
    return None
