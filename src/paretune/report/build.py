"""The report of a study: one HTML file in a language, made from the study's folder alone.

Not here: the statistics, the words of the answer (`answer.py`), the drawing (`ink.py`). Building reads records, needs
no torch and no network, and gives the same bytes each time.

    build(Path("results/demo"), "ru")  # → results/demo/report.ru.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretune.core.config import JsonObject
from paretune.records.schema import EngineUse
from paretune.records.store import StudyFolder, write_atomically
from paretune.report import cost_sheets, sheets
from paretune.report.answer import answer, answer_of
from paretune.report.budgets import budget_sheet
from paretune.report.classes import MOST_CLASSES, classes_sheet, pairs_sheet, shown_method, worst_text
from paretune.report.confusion import confusion_figures
from paretune.report.curves import curve_figure, epoch_figure
from paretune.report.decide import decide_sheet
from paretune.report.exploration_figures import exploration_figures
from paretune.report.exploration_findings import class_findings
from paretune.report.exploration_sheets import exploration_notes, overview_sheet
from paretune.report.facts import StudyFacts, gather
from paretune.report.faults import fault_lines
from paretune.report.figures import difference_figure, quality_figure
from paretune.report.forgetting import forgetting_section
from paretune.report.front import front_figures, front_note
from paretune.report.inference_sheets import inference_sheets
from paretune.report.latency import latency_figure
from paretune.report.page import Card, Page, Section, rendered
from paretune.report.rare_classes import rare_classes_section
from paretune.report.search_figure import search_figure
from paretune.report.tables import MethodRow, metric_name, rows_of
from paretune.report.wording import Words

__all__ = ["answer", "build"]
LONGEST_TEXT = 600


def build(folder: Path, lang: str, out: Path | None = None) -> Path:
    """Write the report of a study; `out` is `report.<lang>.html` in its folder unless given.

    Raises:
        ConfigError: an unknown language. RecordError: no study's folder. StorageError: `out` cannot be written.
    """
    words = Words(lang)
    page = study_page(gather(StudyFolder(folder)), words)
    path = out if out is not None else folder / f"report.{lang}.html"
    write_atomically(path, rendered(page, words))
    return path


def study_page(facts: StudyFacts, words: Words) -> Page:
    """The report as data."""
    study, rows = facts.study, rows_of(facts)
    pilot = ""
    if study.pilot:
        seeds = words.plural("{n} seed", "{n} seeds", len(study.seeds))
        pilot = words.say(
            "Pilot: {seeds}; every conclusion here is provisional until there are five.", {"seeds": seeds}
        )
    fallback = next(iter(study.question.values()), "")
    runs = sum(row.scored_runs for row in rows)
    overview = (
        (words.say("base model"), study.model_source),
        (words.say("data"), study.data_source),
        (words.say("metric"), metric_name(words, study.metric)),
        (words.say("methods"), words.count(len(study.methods))),
        (words.say("scored runs"), words.count(runs)),
    )
    sections = (
        _faults(facts, words),
        _results(facts, rows, words),
        _costs(facts, rows, words),
        _scores(facts, rows, words),
        rare_classes_section(facts, rows, words),
        forgetting_section(facts, rows, words),
        _training(facts, words),
        _mistakes(facts, words),
        _data(facts, words),
        _method(facts, rows, words),
    )
    return Page(
        title=study.name,
        subtitle=words.say("A paretune study"),
        question=study.question.get(words.lang, fallback),
        answer=answer_of(facts, rows, words),
        pilot=pilot,
        facts=overview,
        sections=tuple(section for section in sections if section is not None),
    )


def _faults(facts: StudyFacts, words: Words) -> Section | None:
    """Records that do not hold, before everything that rests on the others."""
    lines = fault_lines(words, facts)
    return Section("faults", words.say("Records that do not hold"), notes=tuple(lines)) if lines else None


def _results(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Section:
    figures = [quality_figure(facts, words), difference_figure(facts, rows, words)]
    decide = decide_sheet(facts, words)
    return Section(
        name="results",
        title=words.say("Results"),
        findings=tuple(sheets.findings(facts, rows, words)),
        first=(sheets.quality_sheet(facts, rows, words),),
        figures=tuple(figure for figure in figures if figure is not None),
        sheets=(decide,) if decide else (),
    )


def _costs(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Section:
    latency, fronts = latency_figure(rows, words), front_figures(facts, words)
    budgets = budget_sheet(facts, words) if len(facts.scored) > 1 else None
    return Section(
        name="costs",
        title=words.say("Quality against cost"),
        lead=front_note(words) if fronts else "",
        figures=(*fronts, *([latency] if latency else [])),
        sheets=(
            cost_sheets.resources_sheet(rows, words),
            *([budgets] if budgets else []),
            *([cost_sheets.latency_sheet(rows, words)] if latency else []),
            *(inference_sheets(facts.inference, words) if facts.inference else []),
        ),
    )


def _scores(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Section | None:
    splits = list(dict.fromkeys(split for row in rows for split in row.scores))
    ordered = [split for split in splits if split == "test"] + [
        split for split in splits if split not in ("test", "validation")
    ]
    ordered += [split for split in splits if split == "validation"]
    unique = dict.fromkeys(ordered)
    if not unique:
        return None
    tables = tuple(sheets.scores_sheet(facts, rows, words, split) for split in unique)
    return Section("scores", words.say("All metrics"), sheets=tables)


def _training(facts: StudyFacts, words: Words) -> Section:
    figures = [search_figure(facts, words), epoch_figure(facts, words), curve_figure(facts, words)]
    return Section(
        name="training",
        title=words.say("Training"),
        figures=tuple(figure for figure in figures if figure is not None),
        sheets=(cost_sheets.search_sheet(facts, words),),
    )


def _mistakes(facts: StudyFacts, words: Words) -> Section | None:
    figures, cards = tuple(confusion_figures(facts, words)), tuple(example_cards(facts))
    if not figures and not cards:
        return None
    intro = (words.say("Examples: what each method said of a text with its first seed."),) if cards else ()
    shown = shown_method(facts)
    title = words.say("What the methods say")
    if shown is None:
        return Section("mistakes", title, paragraphs=intro, figures=figures, cards=cards)
    pairs = pairs_sheet(shown, words)
    whole = classes_sheet(shown, words, None)
    few = len(whole.rows) <= MOST_CLASSES
    return Section(
        "mistakes",
        title,
        findings=tuple(filter(None, (worst_text(method, words) for method in facts.scored))),
        first=(classes_sheet(shown, words), *([pairs] if pairs else [])),
        paragraphs=intro,
        figures=figures,
        cards=cards,
        folded=() if few else (whole,),
    )


def example_cards(facts: StudyFacts) -> list[Card]:
    """Example texts with the prediction of each method's first seed; methods that did not see one are left out."""
    said: dict[tuple[str, str], list[tuple[str, str, bool]]] = {}
    for method in facts.scored:
        run = method.runs[min(method.runs)]
        for split, predictions in run.splits.items():
            triples = zip(predictions.ids, predictions.labels, predictions.predictions, strict=True)
            for identifier, label, prediction in triples:
                said.setdefault((split, identifier), []).append((method.label, prediction, prediction == label))
    cards: list[Card] = []
    for example in facts.examples:
        found = said.get((example.split, example.id), [])
        text = example.text if len(example.text) <= LONGEST_TEXT else example.text[:LONGEST_TEXT].rstrip() + " …"
        if found:
            cards.append(Card(example.label, text, tuple(found)))
    return cards


def _data(facts: StudyFacts, words: Words) -> Section | None:
    exploration = facts.exploration
    if exploration is None:
        return None
    return Section(
        name="data",
        title=words.say("The data"),
        figures=tuple(exploration_figures(exploration, words)),
        sheets=(overview_sheet(exploration, words), sheets.cleaning_sheet(exploration.cleaning, words)),
        notes=(*class_findings(exploration, words), *exploration_notes(exploration, words)),
    )


def _method(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Section:
    folded = [cost_sheets.phases_sheet(facts, words)] if facts.scored else []
    planner = cost_sheets.planner_sheet(facts, words)
    return Section(
        name="method",
        title=words.say("How it was done"),
        notes=tuple(study_notes(facts, words)),
        sheets=(sheets.settings_sheet(facts.study, words),),
        folded=(*folded, *([planner] if planner else []), provenance_sheet(facts, words)),
        code=(words.say("Study file"), facts.study.file_text),
    )


def study_notes(facts: StudyFacts, words: Words) -> list[str]:
    """What a reader must know of the models, the settings and the runs."""
    known = {
        "quantised_4bit": words.say(
            "The base model's weights come from a file quantised to 4 bits; they are not the published ones."
        ),
    }
    notes = [known.get(note, note) for note in facts.study.model_notes]
    settings = {method.label: method.settings for method in facts.study.methods}
    if not _any_dropout({"study": facts.study.spec, "methods": settings}):
        notes.append(
            words.say("Dropout is 0 for every method: on a processor it is the largest single cost of a training step.")
        )
    if not (facts.sealed or facts.working):
        notes.append(words.say("There is no digest over these records: a later change of them would not be seen."))
    tokens = {"tokens": words.plural("{n} token", "{n} tokens", facts.study.max_tokens)}
    notes.append(words.say("A text is cut after {tokens}.", tokens))
    for method in facts.scored:
        for note in dict.fromkeys(note for one in method.measurements() for note in one.notes):
            notes.append(f"{method.label}: {note}")
    notes += engine_notes(facts, words)
    sources = dict.fromkeys(
        one.energy_source for method in facts.scored for one in method.measurements() if one.energy_joules
    )
    if sources:
        notes.append(words.say("Source of the energy figures: {source}.", {"source": ", ".join(sources)}))
    return notes


def engine_notes(facts: StudyFacts, words: Words) -> list[str]:
    """Which engine trained which methods, on which processor, and why no faster one; nothing of records without it."""
    names = {
        "native": words.say("blocks in C++"),
        "torch": words.say("fused blocks of torch's operators"),
        "transformers": words.say("the plain modules of transformers"),
    }
    trained: dict[EngineUse, list[str]] = {}
    for method in facts.scored:
        for one in method.measurements():
            if one.engine is not None and one.engine.name != "none":
                labels = trained.setdefault(one.engine, [])
                labels += [method.label] if method.label not in labels else []
    notes: list[str] = []
    for engine, labels in trained.items():
        values = {
            "methods": words.series(labels),
            "engine": names[engine.name],
            "processor": engine.processor,
            "threads": words.plural("{n} thread", "{n} threads", engine.threads),
        }
        notes.append(words.say("Trained by {engine} ({processor}, {threads}): {methods}.", values))
        if engine.reason:
            notes[-1] += " " + words.say("Why not faster: {reason}.", {"reason": engine_reason(engine.reason, words)})
    return notes


def engine_reason(reason: str, words: Words) -> str:
    """Why no faster engine was taken: the sort of reason in the reader's language, technical detail as it was told."""
    sorts = {
        "our own pass does not know ": words.say("the faster blocks do not know: "),
        "no C++ kernels: ": words.say("no blocks in C++: "),
        "the C++ kernels multiply in bf16 alone, and this is fp32": words.say(
            "blocks in C++ compute in bf16 only, and this is fp32"
        ),
    }
    return next((said + reason.removeprefix(one) for one, said in sorts.items() if reason.startswith(one)), reason)


def _any_dropout(tree: object) -> bool:
    """Whether a setting named …dropout… is set to anything but 0."""
    if isinstance(tree, Mapping):
        items: Mapping[str, Any] = tree
        return any(
            (isinstance(value, int | float) and "dropout" in key and value > 0) or _any_dropout(value)
            for key, value in items.items()
        )
    return isinstance(tree, list) and any(_any_dropout(one) for one in tree)


def provenance_sheet(facts: StudyFacts, words: Words) -> sheets.Sheet:
    """Machine, versions and commit: what all runs have in common, and which entries differ between runs."""
    lines = flat({"machine": facts.study.machine})
    found = [
        flat(run.provenance) for method in facts.scored for _, run in sorted(method.runs.items()) if run.provenance
    ]
    for key in dict.fromkeys(key for one in found for key in one):
        values = {one.get(key, "—") for one in found} | ({lines[key]} if key in lines else set())
        lines[key] = values.pop() if len(values) == 1 else words.say("differs between runs")
    rows = [[key, value] for key, value in lines.items()]
    return sheets.plain(words.say("Provenance"), [words.say("entry"), words.say("value")], rows, left=(1,))


def flat(tree: JsonObject, prefix: str = "") -> dict[str, str]:
    """A tree as one level: "versions.torch" → "2.13.0"."""
    lines: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            lines |= flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
            lines[f"{prefix}{key}"] = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"
    return lines
