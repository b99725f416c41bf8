"""What runs now, as JSON for the page's clock: only what was appended to the events since the reader's last question.

Not here: results; the page asks for itself again when the records' `version` changes. The reader says how far it has
read each run (ID:INODE:OFFSET), so that the server keeps nothing of anybody.

    live_news(entry, places(["3f…:812:4096"]), Words("en"))
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping

from paretune.core.config import JsonObject
from paretune.dashboard.index import RunEntry, StudyEntry, progress
from paretune.dashboard.tail import News, Place, read_tail
from paretune.dashboard.words import ago, runs_done, study_state
from paretune.report.cost_sheets import phase_name
from paretune.report.tables import metric_name
from paretune.report.wording import Words

PLACE = re.compile(r"([0-9A-Za-z_.-]{1,80}):(\d{1,20}):(\d{1,20})")
MOST_PLACES = 64
MOST_RUNS = 16  # followed at a time


def places(given: Iterable[str]) -> dict[str, Place]:
    """What the reader has read already; what is no such text is passed over, and so read from the start."""
    found = (PLACE.fullmatch(one) for one in list(given)[:MOST_PLACES])
    return {one[1]: Place(int(one[2]), int(one[3])) for one in found if one}


def live_news(entry: StudyEntry, known: Mapping[str, Place], words: Words) -> JsonObject:
    """State of a study and the news of each run that somebody works on."""
    found = progress(entry)
    metric = entry.study.metric if entry.study else ""
    active = [run for run in entry.runs if run.running]
    return {
        "version": entry.facts_version,
        "state": found.state,
        "state_text": study_state(words, found.state),
        "done_text": runs_done(words, found),
        "done": found.done,
        "total": found.total,
        "news_text": ago(words, time.time() - entry.newest) if entry.newest else "—",
        "more": max(0, len(active) - MOST_RUNS),
        "runs": [_run_news(run, known.get(run.id, Place(0, 0)), words, metric) for run in active[:MOST_RUNS]],
    }


def _validation(news: News, words: Words, metric: str) -> str:
    """The score after the last epoch; empty where the new lines have none."""
    if news.epoch is None or metric not in news.epoch[1]:
        return ""
    epoch, scores = news.epoch
    values = {"epoch": words.count(epoch), "metric": metric_name(words, metric), "score": words.number(scores[metric])}
    return words.say("validation after epoch {epoch}: {metric} {score}", values)


def _run_news(run: RunEntry, place: Place, words: Words, metric: str) -> JsonObject:
    news = read_tail(run.folder / "events.jsonl", place)
    spec = run.spec
    rate = words.rate(spec.learning_rate) if spec and spec.learning_rate else ""
    return {
        "id": run.id,
        "method": spec.method if spec else run.id,
        "seed": spec.seed if spec else None,
        "rate": rate,
        "at": f"{run.id}:{news.place.inode}:{news.place.offset}",
        "restarted": news.restarted,
        "points": news.points,
        "steps": news.steps,
        "phase": phase_name(words, news.phase) if news.phase else "",
        "validation": _validation(news, words, metric),
        "torn": news.torn,
    }
