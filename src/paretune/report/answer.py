"""The study's answer in one sentence, made from records and comparisons alone.

Not here: any claim that the statistics do not support. A method is named only where its difference to the control is
shown (Holm) to be better, or shown (TOST) to be smaller than the study's margin; otherwise the sentence says
undecided and what would decide.

    print(answer(Path("results/demo"), "en"))
"""

from __future__ import annotations

from pathlib import Path

from paretune.records.store import StudyFolder
from paretune.report.choice import chosen, rule_text, takeable
from paretune.report.cost_sheets import at_the_edge
from paretune.report.exploration_findings import untested_in_answer
from paretune.report.facts import LEVEL, StudyFacts, gather
from paretune.report.faults import faults_note
from paretune.report.search_notes import open_search
from paretune.report.tables import (
    MethodRow,
    cost_text,
    levelled,
    metric_name,
    more_seeds_text,
    quality_text,
    rows_of,
    runs_text,
)
from paretune.report.wording import Words

MOST_NAMES = 4


def answer(folder: Path, lang: str) -> str:
    """The answer of the study in a folder.

    Raises:
        ConfigError: an unknown language. RecordError: no study's folder.
    """
    words, facts = Words(lang), gather(StudyFolder(folder))
    return answer_of(facts, rows_of(facts), words)


def answer_of(facts: StudyFacts, rows: list[MethodRow], words: Words) -> str:
    """The answer from gathered facts and their rows; a pilot's says so."""
    sentence, rule = _sentence(facts, rows, words), _rule(rows, words)
    if facts.study.pilot:
        seeds = words.plural("pilot: {n} seed", "pilot: {n} seeds", len(facts.study.seeds))
        sentence = f"{sentence.removesuffix('.')} ({seeds})."
    parts = (sentence, nothing_learnt(facts, words), rule, *left_open(facts, words), faults_note(words, facts))
    return " ".join(part for part in parts if part)


def nothing_learnt(facts: StudyFacts, words: Words) -> str:
    """Where no method is shown to be better than the majority class, a sentence that says so; else an empty text."""
    if not facts.nothing_learnt:
        return ""
    metric = {"metric": metric_name(words, facts.metric)}
    return words.say("In {metric} nothing that learns is shown to be better than the most frequent class.", metric)


def left_open(facts: StudyFacts, words: Words) -> list[str]:
    """Sentences on what the study leaves open beside its verdicts: choices of the search at an edge, ties, classes
    that no test text has. Each says what it means for the answer; nothing where nothing is open."""
    sentences: list[str] = []
    if edge := [one.method for one in facts.study.selections if one.rule is None and at_the_edge(one)]:
        names = words.series(edge) if len(edge) <= MOST_NAMES else words.plural("{n} method", "{n} methods", len(edge))
        sentences.append(
            words.say(
                "Left open: the chosen learning rate is the lowest or the highest tried, so a wider search might do "
                "better: {methods}.",
                {"methods": names},
            )
        )
    sentences += open_search(facts, words)
    return [*sentences, *filter(None, [untested_in_answer(facts.exploration, words)])]


def _sentence(facts: StudyFacts, rows: list[MethodRow], words: Words) -> str:
    scored = takeable([row for row in rows if row.scored_runs])
    control = next((row for row in rows if row.control), None)
    if not any(row.scored_runs for row in rows):
        return words.say("There is no answer yet: no run has been scored.")
    if control is None or not control.scored_runs:
        values = {"control": facts.study.control, "runs": runs_text(words, control) if control else words.count(0)}
        return words.say(
            "There is no answer: the control {control} has no scored run ({runs}), so nothing can be compared with it.",
            values,
        )
    if len(scored) == 1:
        values = {
            "method": control.method,
            "metric": metric_name(words, facts.metric),
            "quality": quality_text(words, control),
        }
        if any(row.scored_runs and not row.learns for row in rows):
            return words.say(
                "Beside the most frequent class only {method} has scored runs ({metric} {quality}), so there is no "
                "other method to compare it with.",
                values,
            )
        return words.say(
            "Only {method} has scored runs ({metric} {quality}), so there is nothing to compare it with.", values
        )
    supported = [row for row in scored if row.control or row.verdict in ("better", "equivalent")]
    if len(supported) == 1:
        return _control_remains(facts, scored, words)
    best = chosen(scored)
    return _trade_off(facts, best.row, control, supported, words)


def _rule(rows: list[MethodRow], words: Words) -> str:
    """By which rule a method was taken; empty where nothing is shown, so that none was."""
    scored = takeable([row for row in rows if row.scored_runs])
    if not any(row.control for row in scored) or not any(row.verdict in ("better", "equivalent") for row in scored):
        return ""
    return f"{rule_text(chosen(scored), words)}."


def _control_remains(facts: StudyFacts, scored: list[MethodRow], words: Words) -> str:
    values = {"control": facts.study.control, "metric": metric_name(words, facts.metric)}
    undecided = [row for row in scored if row.verdict == "undecided"]
    if not undecided:
        return words.say("Keep {control}: every other method that was tried is worse in {metric}.", values)
    values["margin"] = words.number(facts.study.margin)
    values["methods"] = words.series([row.method for row in undecided])
    if len(undecided) == 1:
        text = words.say(
            "Undecided: {methods} is shown neither to differ from {control} in {metric} nor to lie within the "
            "margin of ±{margin}",
            values,
        )
    else:
        text = words.say(
            "Undecided: for {methods} the data show neither a difference from {control} in {metric} nor one "
            "within the margin of ±{margin}",
            values,
        )
    nearest = min(undecided, key=lambda row: (row.more_seeds is None, row.more_seeds or 0, row.limited_by != "seeds"))
    decide = more_seeds_text(words, nearest.more_seeds, nearest.limited_by)
    if not decide:
        decide = words.say("a difference needs at least two seeds")
    elif len(undecided) > 1 and nearest.more_seeds is not None:
        decide = words.say("for {method} {decide}", {"method": nearest.method, "decide": decide})
    return f"{text}; {decide}."


def _trade_off(facts: StudyFacts, best: MethodRow, control: MethodRow, supported: list[MethodRow], words: Words) -> str:
    """Name the cheapest of the methods that are shown to be no worse than the control."""
    metric = metric_name(words, facts.metric)
    if best.control:
        others = [row.method for row in supported if not row.control]
        values = {
            "control": control.method,
            "metric": metric,
            "methods": words.series(others),
            "margin": words.number(facts.study.margin),
            "memory": _memory(words, control),
        }
        head = words.say(
            "Keep {control}: no method that is equivalent to it in {metric} within ±{margin} ({methods}) needs "
            "less peak memory ({memory})",
            values,
        )
    else:
        spread = best.difference_interval
        values = {
            "method": best.method,
            "control": control.method,
            "metric": metric,
            "difference": words.number(best.difference or 0.0, signed=True),
            "interval": levelled(words, spread, best.difference_level) if spread else words.say("no interval"),
            "margin": words.number(facts.study.margin),
            "memory": _memory(words, best),
            "control_memory": _memory(words, control),
        }
        if best.verdict == "better":
            head = words.say(
                "Take {method}: in {metric} it is better than {control} ({difference} {interval})",
                values,
            )
        else:
            head = words.say(
                "Take {method}: in {metric} it is equivalent to {control} within ±{margin} ({difference} {interval})",
                values,
            )
        if best.peak_memory_bytes and control.peak_memory_bytes:
            head += words.say(", with a peak memory of {memory} against {control_memory}", values)
    return head + _caveats(best, supported, words) + "."


def _caveats(best: MethodRow, supported: list[MethodRow], words: Words) -> str:
    """What must stand beside a recommendation: methods shown to be better, and baselines that it does not beat."""
    text = ""
    better = [row.method for row in supported if row.verdict == "better" and row.method != best.method]
    if better and best.verdict != "better":
        names = {"methods": words.series(better)}
        text += words.say("; better than the control in quality, for more memory: {methods}", names)
    if best.verdict == "equivalent" and best.tost_holm is not None and best.tost_holm > 1 - LEVEL:
        text += words.say("; with a correction for the number of methods compared this equivalence is not shown")
    if best.baselines_not_beaten:
        names = {"baselines": words.series(list(best.baselines_not_beaten))}
        text += words.say("; it is not shown to beat the baseline: {baselines}", names)
    return text


def _memory(words: Words, row: MethodRow) -> str:
    return cost_text(row.peak_memory_bytes, words.size) if row.peak_memory_bytes else words.say("not measured")
