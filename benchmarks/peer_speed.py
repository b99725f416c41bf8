"""What the same training costs with plain `peft` and `transformers.Trainer`, in a process of its own.

Not here: quality (`peer_trainer.py`). "defaults" is what a script gets that sets nothing but the batch size: fp32, the
model's own dropout, random order, padding to the longest of the batch, `attn_implementation` and optimizer as they
come. "best" adds bf16 autocast and batches of like length. The Trainer is stopped by a callback when the window is
full; `paretune bench train` starts this script with a job's file (`paretune.measure.speed.Job`).

    python benchmarks/peer_speed.py bert job.json
"""

from __future__ import annotations

import tempfile

import torch
from peer_model import Lora, build
from torch import nn
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from paretune.core.events import PhaseEnded, PhaseStarted
from paretune.measure.meter import Meter
from paretune.measure.speed import Job, Sample, Window, Work, serve_job
from paretune.models.sources import model_folder

SEED = 0
BEST = {"bf16": True, "train_sampling_strategy": "group_by_length"}


class Stop(TrainerCallback):
    """Counts what the model was given and ends the training when the window is full."""

    def __init__(self, window: Window, model: nn.Module, meter: Meter) -> None:
        self.window, self.work, self.meter = window, Work(0, 0, 0, 0), meter
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, _model: nn.Module, _positional: tuple, given: dict[str, torch.Tensor]) -> None:
        mask_bt = given["attention_mask"]
        lengths_b = mask_bt.sum(1)
        self.work = Work(int(lengths_b.sum()), mask_bt.numel(), int((lengths_b**2).sum()), len(mask_bt))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        if self.window.step(self.work):
            control.should_training_stop = True
            self.meter(PhaseEnded("step"))
        return control


def tokenizer_of(source: str, max_tokens: int) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(model_folder(source))
    tokenizer.model_max_length = max_tokens
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def measured(job: Job, meter: Meter) -> Sample:
    """Load, tokenize, train until the window is full."""
    set_seed(SEED)
    meter(PhaseStarted("tokenize"))
    tokenizer = tokenizer_of(job.source, job.max_tokens)
    encoded = tokenizer(job.texts, truncation=True, max_length=job.max_tokens)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": target}
        for ids, mask, target in zip(encoded["input_ids"], encoded["attention_mask"], job.targets, strict=True)
    ]
    meter(PhaseEnded("tokenize"))
    meter(PhaseStarted("load"))
    lora = Lora(job.rank, 2 * job.rank) if job.method == "lora" else None
    model = build(job.source, lora, job.classes, dropout=True, pooling=job.pooling, pad_id=tokenizer.pad_token_id)
    meter(PhaseEnded("load"))
    stop = Stop(Window(job.seconds, job.warm_steps), model, meter)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=10**6,  # the callback ends it
            per_device_train_batch_size=job.batch_size,
            learning_rate=job.learning_rate,
            use_cpu=True,
            seed=SEED,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,  # would only warn on a machine without an accelerator
            **(BEST if job.settings == "best" else {}),
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[stop])
        meter(PhaseStarted("step"))
        trainer.train()
    row_tokens = sum(len(row["input_ids"]) for row in rows)
    moving = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return stop.window.sample(meter, row_tokens, "bf16" if job.settings == "best" else "fp32", moving)


if __name__ == "__main__":
    serve_job(measured)
