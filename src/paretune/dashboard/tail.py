"""What was appended to a run's events since a place in the file: the live curve reads no line twice.

Not here: which runs to follow. The reader of the page keeps the place; a file that was begun anew (another inode, or
shorter than the place) is read from its start. A torn last line is left for the next time.

    news = read_tail(Path("runs/demo/runs/…/events.jsonl"), Place(0, 0)); news.points[-1]
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

MOST_BYTES = 8_000_000  # read at a time; the rest comes with the next question
MOST_POINTS = 1500


@dataclass(frozen=True)
class Place:
    """Where in which file the reader is."""

    inode: int
    offset: int


@dataclass
class News:
    """What the new lines say: points are (step, loss, seconds since the start); `torn` counts lines that are none.

    `epoch` is the last one after which the run was scored on validation data, with its scores.
    """

    place: Place
    restarted: bool
    points: list[tuple[int, float | None, float]] = field(default_factory=list[tuple[int, float | None, float]])
    steps: int | None = None
    phase: str | None = None
    epoch: tuple[int, dict[str, float]] | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    torn: int = 0
    rest: int = 0


def read_tail(path: Path, place: Place) -> News:
    """The lines after a place; nothing new where there is no file."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            restarted = found.st_ino != place.inode or found.st_size < place.offset
            start = 0 if restarted else place.offset
            file.seek(start)
            data = file.read(MOST_BYTES)
    except OSError:
        return News(Place(0, 0), restarted=True)
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) == MOST_BYTES:
        whole = len(data)  # one line longer than all that is read at a time is no event
    news = News(Place(found.st_ino, start + whole), restarted, rest=len(data) - whole)
    for line in data[:whole].splitlines():
        _take(line, news)
    news.points = thinned(news.points, MOST_POINTS)
    return news


def _take(line: bytes, news: News) -> None:
    try:
        event = json.loads(line)
        match event:
            case {"event": "StepEnded", "step": int(step), "loss": int() | float() as loss}:
                seconds = float(event.get("at_seconds", 0.0))
                news.points.append((step, float(loss) if math.isfinite(loss) else None, seconds))
            case {"event": "TrainingPlanned", "steps": int(steps)}:
                news.steps = steps
            case {"event": "PhaseStarted", "phase": str(phase)}:
                news.phase = phase
            case {"event": "EvaluationEnded", "split": str(split), "scores": dict(scores)}:
                news.scores[split] = {str(name): float(value) for name, value in scores.items()}
            case {"event": "EpochEvaluated", "epoch": int(epoch), "scores": dict(scores)}:
                news.epoch = epoch, {str(name): float(value) for name, value in scores.items()}
            case {"event": str()}:
                pass
            case _:
                news.torn += 1
    except (ValueError, TypeError, OverflowError, RecursionError):
        news.torn += 1


def thinned(points: list[tuple[int, float | None, float]], most: int) -> list[tuple[int, float | None, float]]:
    """At most so many points, the last one among them."""
    if len(points) <= most:
        return points
    stride = math.ceil(len(points) / (most - 1))
    return [*points[:-1:stride], points[-1]]
