"""Records about data: what cleaning did, and exploratory data analysis as plain numbers.

Not here: how they are computed (`data/cleaning.py`, `data/explore.py`) or drawn (`report/figures.py`).

    read_record(Path("runs/demo/explore.json"), Exploration).classes[0].label
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paretune.core.config import Settings
from paretune.records.schema import SCHEMA_VERSION, is_absent


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


class LabelRemark(Settings):
    """Labels of which something is odd, and the rows that have them.

    `look_alike`: a group that a reader can hardly tell apart (case, accents in one or two characters, invisible
    characters, letters of another script); `list_text`: labels that are printed lists, such as `[0, 1, 0]`; `joined`:
    labels that are other labels of the data joined by a comma, semicolon or bar; `missing_word`: labels by which
    programs write that there is none, such as `nan` or `N/A`.
    """

    kind: Literal["look_alike", "list_text", "joined", "missing_word"]
    labels: list[str]
    rows: int


class UntestedClass(Settings):
    """A class without a row in a split, how many rows it has in all, and why it has none there.

    `near_duplicates`: its rows are too much alike to be parted; `few_rows`: it has too few for a row there;
    `not_in_file`: the file of that split has none; `unknown`: derived from a record that does not say.
    """

    label: str
    split: str
    rows: int
    reason: Literal["near_duplicates", "few_rows", "not_in_file", "unknown"]


class Exploration(Settings):
    """EDA of a study's data as plain numbers.

    `truncation_share` maps a split to the share of texts longer than `max_tokens`; `scripts` a script or language
    name to its share of texts; `leaks` a kind of train/test duplicate ("exact", "near") to the number of test rows.
    `label_remarks` and `untested` are None in records from before they were looked for.
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
    label_remarks: list[LabelRemark] | None = Field(default=None, exclude_if=is_absent)
    untested: list[UntestedClass] | None = Field(default=None, exclude_if=is_absent)
