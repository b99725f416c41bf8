"""A run's trained model, rebuilt from its folder together with its data, for whatever comes after the study.

Not here: training and scoring (`worker.py`). The folder must be one under `runs/`: published records have no weights.

    trained = rebuild(RunFolder(Path("runs/demo/runs/…"))); trained.model
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from paretune.core.config import validated
from paretune.core.engine_timings import ENGINES_FILE, hold, read_timings
from paretune.core.errors import BundleError, ConfigError, ReloadError, said
from paretune.data.encoding import Encoded, encode
from paretune.data.prepare import Prepared, load
from paretune.methods.method import TRAINED_FILE, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.precision import Precision
from paretune.models.sources import ModelSpec, model_digest
from paretune.models.tokenizer import BaseTokenizer, read_tokenizer
from paretune.records.schema import RunSpec
from paretune.records.store import RunFolder
from paretune.repro.seeding import torch_generator
from paretune.study.design import make_method
from paretune.study.desk import REFERENCE_FILE
from paretune.tasks.task import TASKS
from paretune.train.loop import TrainSpec


@dataclass(frozen=True)
class Setting:
    """What a run was trained with, without its weights; `precision` is the one that it was trained and scored in."""

    run: RunFolder
    spec: RunSpec
    data: Prepared
    model_spec: ModelSpec
    max_tokens: int
    precision: Precision
    tokenizer: BaseTokenizer

    def encoded(self, texts: tuple[str, ...] | list[str]) -> Encoded:
        """Tokens as the run had them."""
        return encode(self.tokenizer, texts, self.max_tokens, self.model_spec.text_prefix)

    def bare(self) -> EncoderClassifier:
        """The base model with a head of zeros."""
        return EncoderClassifier(load_encoder(self.model_spec.source), len(self.data.labels), self.model_spec.pooling)


@dataclass(frozen=True)
class Trained:
    """A setting with the trained model and the method that is attached to it."""

    setting: Setting
    method: Adaptation
    model: EncoderClassifier


def check_exportable(run: RunFolder) -> RunSpec:
    """The spec of a run that was scored and has its weights.

    Raises:
        ConfigError: a baseline, a run that was not scored, or one without weights.
    """
    spec, status = run.spec(), run.status()
    if not TASKS.load(spec.task["kind"]).labelled:
        given = f"run {run.id} is of task {spec.task['kind']!r}"
        raise ConfigError(said(given, "a run of classification: nothing else is exported yet"))
    if spec.family != "adaptation":
        given = f"run {run.id} is of {spec.method}, a baseline"
        raise ConfigError(said(given, "a run that adapted the model: a baseline is no model to export"))
    if not run.scored:
        state = "unfinished" if status is None else f"{status.state} ({status.stage})"
        raise ConfigError(said(f"run {run.id} is {state}", "a run that was scored", do="run its study again"))
    if not (run.adapter / TRAINED_FILE).is_file():
        given = f"run {run.id} has no weights in this folder"
        do = "export needs runs/ (results/ holds records alone)"
        raise ConfigError(said(given, f"its adapter/{TRAINED_FILE}", do=do))
    return spec


def setting_of(run: RunFolder) -> Setting:
    """The setting of an exportable run.

    Raises:
        ConfigError: as `check_exportable`.
        BundleError: base model or data are not those of the run any more.
        DataError, AssetError: they cannot be read.
    """
    spec = check_exportable(run)
    model_spec, train = scored_model(run), validated(spec.train, TrainSpec, "train")
    if model_digest(model_spec.source) != spec.model_digest:
        given = f"the files of {model_spec.source} changed since run {run.id}"
        raise BundleError(said(given, "the base model that it was trained on"))
    data = load(study_folder_of(run) / "data")
    if data.digest != spec.data_digest:
        raise BundleError(said(f"the study's data changed since run {run.id}", "the data that it was trained on"))
    if (engines := study_folder_of(run) / ENGINES_FILE).exists():  # its logits are compared with those of the run
        hold(read_timings(engines))
    precision: Precision = "bf16" if run.measurements().precision == "bf16" else "fp32"
    return Setting(run, spec, data, model_spec, train.max_tokens, precision, read_tokenizer(model_spec.source))


def scored_model(run: RunFolder) -> ModelSpec:
    """The [model] table as the run was scored with: a fitted head may have chosen features of length 1."""
    choice = run.measurements().choice
    chosen = {} if choice is None or "pooling" not in choice.setting else {"pooling": choice.setting["pooling"]}
    return validated({**run.spec().model, **chosen}, ModelSpec, "model")


def study_folder_of(run: RunFolder) -> Path:
    """The folder of the study that a run belongs to."""
    return run.path.resolve().parent.parent


def rebuild(setting: Setting) -> Trained:
    """The trained model, in eval mode.

    Raises:
        ReloadError: the weights are not those of this method and model.
    """
    spec = setting.spec
    method = make_method(spec.kind, spec.settings)
    assert isinstance(method, Adaptation), "check_exportable let an adaptation through"
    model = setting.bare()
    method.attach(model, torch_generator(spec.seed, "init"))
    try:
        method.load(model, setting.run.adapter)
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ReloadError(
            said(f"the weights of run {setting.run.id} cannot be read ({reason})", TRAINED_FILE)
        ) from None
    return Trained(setting, method, model.eval())


def kept_logits(run: RunFolder) -> Tensor:
    """The logits (n, c) of the first validation texts, as they were when training ended.

    Raises:
        ReloadError: they are not there any more.
    """
    try:
        return load_file(run.adapter / REFERENCE_FILE)["logits_nc"]
    except (OSError, KeyError, SafetensorError):
        raise ReloadError(said(f"run {run.id} has lost its adapter/{REFERENCE_FILE}", "what training wrote")) from None
