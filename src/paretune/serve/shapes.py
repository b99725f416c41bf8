"""What clients send and get, as closed models: the OpenAPI document is made from these.

Not here: which adapter answers (`answering.py`) and who may ask (`guard.py`). Every number has bounds, unknown keys
are refused, texts are valid Unicode. `/predict` has the shape of text-embeddings-inference
(https://huggingface.github.io/text-embeddings-inference/). Administrators' shapes: `shapes_admin.py`.

    ClassifyRequest.model_validate({"inputs": ["one text", {"text": "another", "adapter": "emotions"}]})
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from paretune.core.text import BLANK_CHARACTERS
from paretune.serve.names import ID_PATTERN

MAX_ITEMS = 32
MAX_CHARACTERS = 100_000
NOT_BLANK = f"[^{BLANK_CHARACTERS}]"  # as `is_blank` has it, for readers of the OpenAPI document too

Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_CHARACTERS,
        pattern=NOT_BLANK,
        description="valid Unicode with something in it that can be seen",
        examples=["The battery lasts for days."],
    ),
]
Name = Annotated[str, Field(pattern=ID_PATTERN, max_length=64, description="a name or a digest", examples=["emotions"])]
ErrorType = Literal[
    "validation", "overloaded", "auth", "not_found", "backend", "conflict", "tokenizer", "empty", "draining"
]


def _whole(value: object) -> object:
    """JSON Schema's integers are numbers without a fraction, however they are spelt: 2382.0 is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


class Closed(BaseModel):
    """Base of what clients send: strict, frozen, no key that is not named."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Item(Closed):
    """A text with the adapter that shall answer; without one the request's, or the server's default."""

    text: Text
    adapter: Name | None = None


def _kind_of_item(given: Any) -> str:
    return "item" if isinstance(given, dict | Item) else "text"


AnyItem = Annotated[Annotated[Text, Tag("text")] | Annotated[Item, Tag("item")], Discriminator(_kind_of_item)]


class ClassifyRequest(Closed):
    """`truncate` false refuses a text of more tokens than its adapter takes, true cuts it and says so.

    With `receipt` every result carries what it takes to compute it again offline.
    """

    inputs: Annotated[list[AnyItem], Field(min_length=1, max_length=MAX_ITEMS)]
    adapter: Name | None = None
    truncate: bool = True
    receipt: bool = False


class GroupOfTexts(Closed):
    """`texts` neighbours in a pass, each of so many tokens, of the adapter at this place of the receipt's `batch`."""

    adapter: Whole = Field(ge=0)
    tokens: Whole = Field(ge=1)
    texts: Whole = Field(ge=1)


class Receipt(Closed):
    """All that it takes to compute an answer again: text, weights, number format, threads, and who shared the pass.

    `probabilities` and `logits` are float32, eight hexadecimal digits each (most significant first), in the order of
    `labels`. `groups` say which texts the pass had, in their order, and `place` which of them this one was; `merged`
    whether the adapter was added to the base's weights. `digests` hold 16 hexadecimal digits of the SHA-256 of every
    other field, so that a changed one is named, and `seal` is an HMAC of them by the store's own key. Receipts of
    version 1 have none of the optional fields.
    """

    schema_version: Literal[1, 2] = 2
    request_id: str
    text: str
    truncate: bool
    tokens: Whole = Field(ge=1)
    ids_sha256: str | None = None
    adapter_digest: str
    base_digest: str
    tokenizer_sha256: str
    precision: Literal["bf16", "fp32"]
    threads: Whole | None = Field(default=None, ge=1, le=1024)
    fingerprint: str
    labels: list[str]
    label: str
    probabilities: list[str]
    logits: list[str] | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    abstain: bool | None = None
    out_of_domain: bool | None = None
    batch: list[str]
    groups: list[GroupOfTexts] | None = None
    place: Whole | None = Field(default=None, ge=0)
    merged: bool | None = None
    digests: dict[str, str] | None = None
    seal: str | None = None


class Result(BaseModel):
    """One answer. `abstain`: leave it to a person, because confidence is below the adapter's threshold or the text is
    `out_of_domain`: unlike those that the adapter was trained on. An adapter that cannot tell leaves that out."""

    adapter: str
    digest: str
    label: str
    abstain: bool
    out_of_domain: bool | None = None
    confidence: float = Field(ge=0, le=1, description="largest probability after calibration")
    probabilities: dict[str, float]
    truncated: bool
    tokens: int = Field(ge=1, description="tokens that were read")
    receipt: Receipt | None = None


class ClassifyAnswer(BaseModel):
    """Results in the order of the inputs."""

    results: list[Result]
    request_id: str


class CompareRequest(Closed):
    """A text for every adapter that is ready and that the key may use, up to 32 of them, in the order of names."""

    text: Text


class Failed(BaseModel):
    """An adapter that gave no answer while others did."""

    adapter: str
    digest: str
    error: str


class CompareAnswer(BaseModel):
    """One result for each adapter."""

    results: list[Result]
    failed: list[Failed]
    request_id: str


def _kind_of_inputs(given: Any) -> str:
    """Which of the three forms is meant, so that an error speaks of that one."""
    if not isinstance(given, list | tuple):
        return "text"
    items = cast(Sequence[object], given)
    return "one" if items and isinstance(items[0], str) else "batch"


# The route itself looks after these two, because they have statuses of their own: 400 and 413.
_BATCH: dict[str, JsonValue] = {"minItems": 1, "maxItems": MAX_ITEMS}
OneText = Annotated[list[Text], Field(min_length=1, max_length=1)]
Inputs = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[OneText, Tag("one")]
    | Annotated[Annotated[list[OneText], Field(max_length=10_000, json_schema_extra=_BATCH)], Tag("batch")],
    Discriminator(_kind_of_inputs),
]


class PredictRequest(Closed):
    """text-embeddings-inference: a string or ["one"] is one text; [["one"], ["two"]] is a batch.

    A flat list of two is one pair of texts there; no adapter here reads pairs, so it is refused.
    """

    inputs: Inputs
    raw_scores: bool = False
    truncate: bool = True
    truncation_direction: Literal["Right", "right"] = "Right"

    @model_validator(mode="before")
    @classmethod
    def _no_pair(cls, given: Any) -> Any:
        found = cast(dict[str, object], given).get("inputs") if isinstance(given, dict) else None
        if isinstance(found, list):
            items = cast(list[object], found)
            if len(items) == 2 and all(isinstance(one, str) for one in items):
                raise ValueError('inputs is a pair of texts, which no adapter reads; two texts are [["…"], ["…"]]')
        return given

    def texts(self) -> tuple[bool, list[str]]:
        """Whether one text was sent rather than a batch, and the texts."""
        if isinstance(self.inputs, str):
            return True, [self.inputs]
        single = [one for one in self.inputs if isinstance(one, str)]
        return (True, single) if single else (False, [one[0] for one in self.inputs])


class Prediction(BaseModel):
    """A label with its probability, or its logit where `raw_scores` was asked for."""

    score: float
    label: str


PredictAnswer = list[Prediction] | list[list[Prediction]]


class ErrorAnswer(BaseModel):
    """Every error of the service has this shape."""

    error: str
    error_type: ErrorType
    request_id: str
