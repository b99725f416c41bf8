"""Records about data: what cleaning did, and exploratory data analysis as plain numbers.

Not here: how they are computed (`data/cleaning.py`, `data/explore.py`) or drawn (`report/figures.py`).

    read_record(Path("runs/demo/explore.json"), Exploration).classes[0].label
"""

from __future__ import annotations

from paretune.core.config import Settings
from paretune.records.schema import SCHEMA_VERSION


class CleaningStep(Settings):
    """One step on one split: rows in, rows out, and up to five ids that it took out or marked."""

    step: str
    split: str
    rows_in: int
    rows_out: int
    marked: int
    example_ids: list[str]


class ClassCount(Settings):
    """Rows of one class in each split."""

    label: str
    rows: dict[str, int]


class LengthSummary(Settings):
    """Quantiles of a length over one split, with histogram bins (`bin_edges` has one more entry than `bin_rows`)."""

    split: str
    unit: str
    mean: float
    quantiles: dict[str, float]
    bin_edges: list[float]
    bin_rows: list[int]


class Suspect(Settings):
    """A training row whose label looks wrong to a model that did not train on it (confident learning)."""

    id: str
    label: str
    suggested: str
    confidence: float
    text: str


class Sample(Settings):
    """An example text of a class."""

    id: str
    label: str
    text: str


class Exploration(Settings):
    """EDA of a study's data as plain numbers.

    `truncation_share` maps a split to the share of texts longer than `max_tokens`; `scripts` a script or language
    name to its share of texts; `leaks` a kind of train/test duplicate ("exact", "near") to the number of test rows.
    """

    schema_version: int = SCHEMA_VERSION
    source: str
    tokenizer: str
    max_tokens: int
    rows: dict[str, int]
    classes: list[ClassCount]
    lengths: list[LengthSummary]
    truncation_share: dict[str, float]
    vocabulary_tokens_used: int
    vocabulary_size: int
    unknown_token_share: float
    words: int
    distinct_words: int
    frequent_words: list[tuple[str, int]]
    duplicates: dict[str, int]
    leaks: dict[str, int]
    scripts: dict[str, float]
    suspects: list[Suspect]
    suspect_rows: int
    samples: list[Sample]
    cleaning: list[CleaningStep]
    notes: list[str]
