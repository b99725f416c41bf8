"""Tables of what answering costs: latency merged and unmerged, memory and disk of many adapters against whole models.

Not here: measuring it (`export/inference.py`); the record is there once a model of the study was exported.

    inference_sheets(facts.inference, Words("en"))[0].title
"""

from __future__ import annotations

from paretune.records.schema import Graded, Latency
from paretune.records.serving import Inference, InferenceCost
from paretune.report.cost_sheets import grade_name
from paretune.report.sheets import Cell, Sheet
from paretune.report.wording import Words


def inference_sheets(inference: Inference, words: Words) -> list[Sheet]:
    """Latency and size on disk; then memory for each number of adapters."""
    return [_answers(inference, words), _memory(inference, words)]


def _answers(inference: Inference, words: Words) -> Sheet:
    batches = sorted({one.batch for method in inference.methods for one in method.unmerged})
    lines: list[tuple[Cell, ...]] = []
    for method in inference.methods:
        cells = [Cell(method.method, kind="name")]
        for found in (method.unmerged, method.merged):
            cells += [_latency(found, batch, words) for batch in batches]
        cells += [Cell(words.size(method.adapter_bytes)), Cell(words.size(method.full_model_bytes))]
        lines.append(tuple(cells))
    columns = [words.say("method")]
    sizes = [words.plural("{n} text", "{n} texts", batch) for batch in batches]
    for form in (words.say("beside the base"), words.say("merged")):
        columns += [f"{form}, {size}" for size in sizes]
    columns += [words.say("adapter on disk"), words.say("whole model on disk")]
    note = words.say(
        "Median time of one call, tokenizing included; in small print the 95th percentile. Beside the base: the update "
        "is computed next to the base's weights, so many adapters can share them; merged: it is folded in."
    )
    return Sheet(words.say("What answering costs"), tuple(columns), tuple(lines), (note,))


def _latency(found: list[Latency], batch: int, words: Words) -> Cell:
    one = next((latency for latency in found if latency.batch == batch), None)
    if one is None:
        return Cell(words.say("not measured"))
    return Cell(words.duration(one.p50_seconds), words.duration(one.p95_seconds))


def _memory(inference: Inference, words: Words) -> Sheet:
    counts = sorted({one.adapters for method in inference.methods for one in method.memory})
    lines = tuple(
        (
            Cell(method.method, kind="name"),
            *(cell for count in counts for cell in _pair(method, count, words)),
        )
        for method in inference.methods
    )
    columns = [words.say("method")]
    for count in counts:
        number = words.plural("{n} adapter", "{n} adapters", count)
        one_base, whole_models = words.say("one base"), words.say("whole models")
        columns += [f"{number}, {one_base}", f"{number}, {whole_models}"]
    note = words.say("Resident memory above what the imports take.")
    return Sheet(words.say("Memory of many adapters"), tuple(columns), lines, (note,))


def _pair(method: InferenceCost, count: int, words: Words) -> tuple[Cell, Cell]:
    one = next((memory for memory in method.memory if memory.adapters == count), None)
    if one is None:
        missing = Cell(words.say("not measured"))
        return missing, missing
    return _graded(one.one_base_bytes, words), _graded(one.full_models_bytes, words)


def _graded(figure: Graded, words: Words) -> Cell:
    return Cell(words.size(figure.value), grade_name(words, figure.grade) if figure.grade != "sampled" else "")
