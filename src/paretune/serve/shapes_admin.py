"""What administrators, the page and orchestrators send and get: models, adapters, names, health.

Not here: texts and their answers (`shapes.py`). The `lora` calls are vLLM's
(https://docs.vllm.ai/en/latest/features/lora.html).

    PutWeights.model_validate({"weights": {digest: 9, other_digest: 1}})
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from paretune.records.bundle import Abstention, Domain, Score
from paretune.serve.names import DIGEST_PATTERN
from paretune.serve.shapes import Closed, Name, Whole

HEAVIEST = 1_000_000
Digest = Annotated[str, Field(pattern=DIGEST_PATTERN, max_length=64)]
Weight = Annotated[Whole, Field(ge=1, le=HEAVIEST)]
State = Literal["pending", "ready", "draining", "unloaded", "failed"]


class Model(BaseModel):
    """A name that can be asked: the adapter behind it with its measured quality and cost.

    `root` is the digest that answers most; `versions` holds all digests of the name with their weights.
    """

    id: str
    object: Literal["model"] = "model"
    root: str
    parent: str
    versions: dict[str, int]
    labels: list[str]
    method: str
    study: str
    metric: Score | None
    scores: list[Score]
    cost: dict[str, float]
    abstention: Abstention
    domain: Domain | None = None
    examples: list[str] = Field(description="golden texts of the bundle, of different classes")
    max_tokens: int
    licences: list[str]
    state: State


class Models(BaseModel):
    """Names in their order."""

    object: Literal["list"] = "list"
    data: list[Model]


class LoadAdapter(Closed):
    """Load the bundle that the operator put into the inbox under this id, or a digest that the store has."""

    id: Name
    name: Name | None = Field(None, description="the alias that shall point to it; the id where it is left out")


class Adapter(BaseModel):
    """A bundle in the store; `reason` says why it failed."""

    digest: str | None
    id: str
    state: State
    reason: str
    names: list[str]
    resident: bool


class AliasView(BaseModel):
    """A name, the digests behind it with their weights, and how many steps it can be rolled back."""

    name: str
    weights: dict[str, int]
    history: int


class Adapters(BaseModel):
    """All that the registry knows."""

    adapters: list[Adapter]
    aliases: list[AliasView]


class PutWeights(Closed):
    """Point the name to these digests, by whole numbers: two digests are an A/B test."""

    weights: Annotated[
        dict[Digest, Weight], Field(min_length=1, max_length=8, json_schema_extra={"additionalProperties": False})
    ]


class RollBack(Closed):
    """Point the name to what it pointed to before."""

    rollback: Literal[True]


def _kind_of_change(given: Any) -> str:
    return "rollback" if isinstance(given, RollBack) or (isinstance(given, dict) and "rollback" in given) else "weights"


PutAlias = Annotated[
    Annotated[PutWeights, Tag("weights")] | Annotated[RollBack, Tag("rollback")], Discriminator(_kind_of_change)
]


class LoadLora(Closed):
    """vLLM's call; `lora_path` is an id of the inbox or a digest here, never a path."""

    lora_name: Name
    lora_path: Name
    load_inplace: bool = False


class UnloadLora(Closed):
    """vLLM's call."""

    lora_name: Name


class Done(BaseModel):
    """What was done, and to which digests."""

    message: str
    digests: list[str]


class Live(BaseModel):
    """The process answers."""

    live: bool = True


class Queue(BaseModel):
    """What waits, and how much may wait."""

    requests: int
    max_requests: int
    tokens: int
    max_tokens: int


class Ready(BaseModel):
    """Whether a golden request gave its golden answer, at most 30 seconds ago."""

    ready: bool
    reason: str
    queue: Queue


class Load(BaseModel):
    """Work so far and speed of late."""

    tokens_per_second: float
    rows_total: int
    batches_total: int
    refused_total: int


class Memory(BaseModel):
    """Resident bytes of this process, and what it may have."""

    rss_bytes: int
    limit_bytes: int


class Slots(BaseModel):
    """Adapters that are in memory now."""

    max: int
    resident: list[str]
    swaps: int
    merged: str | None


class Status(BaseModel):
    """Health and load for the page."""

    ready: bool
    reason: str
    draining: bool
    precision: str
    base: str
    uptime_seconds: float
    queue: Queue
    load: Load
    memory: Memory
    slots: Slots
