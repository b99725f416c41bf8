"""A made-up study whose runs have answers on a task that they learnt earlier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from fabricated_study import write_study

from paretune.records.schema import NEWEST_VERSION, EarlierRecord
from paretune.records.store import StudyFolder

LABELS = ["a", "b", "a", "b"]
Hits = Sequence[int]
# For each seed: which of four texts are right before, and which after; a baseline has no "after".
ANSWERS: dict[str, list[tuple[Hits, Hits | None]]] = {
    "tfidf": [((1, 0, 0, 0), None), ((1, 0, 0, 0), None)],
    "head": [((1, 1, 1, 0), (1, 1, 1, 0)), ((1, 1, 1, 0), (1, 1, 1, 0))],
    "full": [((1, 1, 1, 1), (1, 1, 0, 0)), ((1, 1, 1, 1), (1, 0, 1, 0))],
}


def rows_for(when: str, hits: Hits, ids: Sequence[str]) -> list[dict[str, object]]:
    wrong = {"a": "b", "b": "a"}
    return [
        {
            "id": name, "split": when, "label": label, "prediction": label if hit else wrong[label], "score": 0.9,
            "label_probability": 0.9 if hit else 0.1, "near_duplicate": False,
        }
        for name, label, hit in zip(ids, LABELS * (len(hits) // 4), hits, strict=True)
    ]  # fmt: skip


def a_study(
    place: Path,
    answers: Mapping[str, list[tuple[Hits, Hits | None]]] = ANSWERS,
    seeds: tuple[int, ...] = (0, 1),
    metric: str = "accuracy",
) -> StudyFolder:
    """A made-up study whose runs have made-up answers on an earlier task."""
    folder = StudyFolder(write_study(place / "s", seeds=seeds, methods=tuple(answers), broken=False))
    for run in folder.runs():
        spec = run.spec()
        before, after = answers[spec.method][spec.seed]
        ids = [f"x{place}" for place in range(len(before))]
        rows = rows_for("before", before, ids) + (rows_for("after", after, ids) if after is not None else [])
        run.write_earlier(pa.Table.from_pylist(rows))
    earlier = EarlierRecord(
        name="letters",
        metric=metric,
        margin=0.05,
        labels=["a", "b"],
        data_source="path:l.csv",
        split_rows={"train": 8, "test": 4},
    )
    update = {"earlier": earlier, "schema_version": NEWEST_VERSION}
    folder.write_study(folder.study().model_copy(update=update))
    return folder
