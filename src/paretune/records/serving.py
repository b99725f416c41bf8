"""Typed record of what answering costs: latency, memory and disk of each method of a study, merged and unmerged.

Not here: measuring it (`export/inference.py`), nor a server under load (`paretune bench serve`). Memory is resident
memory above what the imports take; a figure that was computed and not measured is graded "estimated".

    Inference.model_validate_json(Path("runs/demo/inference.json").read_text()).methods[0].merged
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paretune.core.config import JsonObject, Settings
from paretune.records.schema import SCHEMA_VERSION, Graded, Latency

INFERENCE_FILE = "inference.json"


class AdapterMemory(Settings):
    """Memory of so many adapters over one base model, against as many whole models."""

    adapters: int = Field(ge=1)
    one_base_bytes: Graded
    full_models_bytes: Graded


class InferenceCost(Settings):
    """One method's: `unmerged` computes the update beside the base's weights, `merged` has it folded in.

    `form` "adapter" shares a base model with others as it is, "model" brings parameters in place of the base's.
    `adapter_bytes` and `full_model_bytes` are sizes on disk, head included.
    """

    method: str
    run_id: str
    form: Literal["adapter", "model"]
    precision: str
    unmerged: list[Latency]
    merged: list[Latency]
    memory: list[AdapterMemory]
    adapter_bytes: int
    full_model_bytes: int


class Inference(Settings):
    """A study's; all on one machine, with so many threads."""

    schema_version: int = SCHEMA_VERSION
    machine: JsonObject
    threads: int
    methods: list[InferenceCost]
