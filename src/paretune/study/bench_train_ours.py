"""Our side of `paretune bench train`, in a process of its own: a study's loop, until a window is full.

Not here: what it is compared with. It is stopped by its listener, which raises when enough was measured; nothing of the
training is another than in a study.

    python -m paretune.study.bench_train_ours bert job.json
"""

from __future__ import annotations

from paretune.core.events import Event, PhaseEnded, PhaseStarted, StepEnded
from paretune.core.limits import usable_cores
from paretune.core.memory import return_free_memory
from paretune.data.encoding import Encoded, encode
from paretune.measure.meter import Meter
from paretune.measure.speed import Job, Sample, Window, Work, serve_job
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.precision import chosen_precision
from paretune.models.surgery import count
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import make_repeatable, torch_generator
from paretune.study.design import make_method
from paretune.study.guard import die_with_parent
from paretune.tasks.task import TASKS
from paretune.train.loop import TrainSpec, planned_batches, train

SEED = 0
TASK = "classification"
STEPS_PER_SECOND = 20  # planned for; a small model that is faster ends before its window is full


class Enough(Exception):
    """The window is full."""


def train_spec(job: Job) -> TrainSpec:
    """A study's defaults, with as many epochs as the window may need."""
    steps = STEPS_PER_SECOND * job.seconds + job.warm_steps
    epochs = max(1, round(steps * job.batch_size / len(job.texts) + 0.5))
    return TrainSpec(epochs=epochs, batch_size=job.batch_size, max_tokens=job.max_tokens)


def adaptation(job: Job) -> Adaptation:
    """The method of a job."""
    method = make_method(job.method, {"rank": job.rank} if job.method == "lora" else {})
    assert isinstance(method, Adaptation)
    return method


class Listening:
    """Meter and window of one training; stops it by raising.

    Raises:
        Enough: the window is full.
    """

    def __init__(self, job: Job, meter: Meter, model: EncoderClassifier, encoded: Encoded, spec: TrainSpec) -> None:
        self.window = Window(job.seconds, job.warm_steps)
        self.own_pass = False
        self._meter, self._model = meter, model
        self._lengths_n = encoded.lengths_n
        self._batches = planned_batches(encoded, spec, SEED)

    def __call__(self, event: Event) -> None:
        self._meter(event)
        if isinstance(event, StepEnded):
            self.own_pass = self._model.path is not None
            lengths_b = self._lengths_n[self._batches[event.step - 1]]
            assert int(lengths_b.sum()) == event.tokens, "a step's batch is the planned one"
            squares = int((lengths_b**2).sum())
            if self.window.step(Work(event.tokens, event.padded_tokens, squares, event.examples)):
                raise Enough


def measured(job: Job, meter: Meter) -> Sample:
    """Tokenize, load, train until the window is full: in the order of a study's run."""
    make_repeatable(SEED, usable_cores())
    precision = chosen_precision("auto")
    meter(PhaseStarted("tokenize"))
    encoded = encode(read_tokenizer(job.source), job.texts, job.max_tokens)
    return_free_memory()
    meter(PhaseEnded("tokenize"))
    meter(PhaseStarted("load"))
    method = adaptation(job)
    model = EncoderClassifier(load_encoder(job.source), job.classes, job.pooling)
    method.attach(model, torch_generator(SEED, "init"))
    meter(PhaseEnded("load"))
    task = TASKS.load(TASK)(tuple(str(one) for one in range(job.classes)))
    targets_n = task.targets([str(one) for one in job.targets])
    spec = train_spec(job)
    listening = Listening(job, meter, model, encoded, spec)
    try:
        train(model, method, task, encoded, targets_n, spec, job.learning_rate, SEED, listening)
    except Enough:
        meter(PhaseEnded("step"))
    found = listening.window.sample(meter, int(encoded.lengths_n.sum()), precision, count(model)[0])
    return found.model_copy(update={"own_pass": listening.own_pass})


if __name__ == "__main__":
    die_with_parent()
    METHODS.load("lora")  # imports what would else be imported later and look like a need of training
    METHODS.load("full")
    TASKS.load(TASK)
    serve_job(measured)
