"""What `paretune export` does and says: words and units in, lines and one JSON object out.

Not here: parsing a command line (`cli.py`), the export itself (`export.py`).

    lines, tree = export_command(Path("runs/demo"), Path("bundles/demo"), "bundle", best=True, lang="en")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from paretune.core.config import JsonObject, nearest
from paretune.core.errors import ConfigError, said
from paretune.core.units import parse_bytes, parse_seconds
from paretune.export.export import Exported, export
from paretune.export.int8 import Variant
from paretune.export.targets import FORMS
from paretune.report.wording import Words

_TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "why": "chosen: {why}",
        "bundle": "certified bundle {path} ({digest}…): {checks}",
        "plain": (
            "{path} loads in plain {library}: the README's code answers validation texts as the run does, largest "
            "difference of a probability {gap}"
        ),
        "serve": "next: paretune serve {path}",
        "load": "how to load it: {path}/README.md",
        "int8": (
            "{name}: one text {p50} (95th percentile {p95}), 32 texts {batch}; linear maps {size}; labels flipped "
            "against fp32: {flipped} of {rows}; {score}"
        ),
    },
    "ru": {
        "why": "выбор: {why}",
        "bundle": "комплект со свидетельством {path} ({digest}…): {checks}",
        "plain": (
            "{path} загружается в обычном {library}: код из README отвечает на проверочные тексты как прогон, "
            "наибольшая разница вероятности {gap}"
        ),
        "serve": "дальше: paretune serve {path}",
        "load": "как загрузить: {path}/README.md",
        "int8": (
            "{name}: один текст {p50} (95-й процентиль {p95}), 32 текста {batch}; линейные слои {size}; меток, "
            "отличных от fp32: {flipped} из {rows}; {score}"
        ),
    },
}


def export_command(
    source: Path,
    out: Path,
    to: str = "bundle",
    *,
    best: bool = False,
    memory: str | None = None,
    time: str | None = None,
    lang: str = "en",
    int8: bool = False,
    force: bool = False,
    target_risk: float | None = None,
    inference: bool = True,
    every: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[str], JsonObject]:
    """Export, and what to print of it; `say` hears each step while it runs.

    Raises:
        as `export`, and ConfigError for a form, size or duration that is none.
    """
    if to not in FORMS:
        raise ConfigError(said(f"--to {to}", "one of " + ", ".join(FORMS), nearest=nearest(to, FORMS)))
    exported = export(
        source,
        out,
        to,
        best=best,
        memory_bytes=parse_bytes(memory) if memory else None,
        seconds=parse_seconds(time) if time else None,
        lang=lang,
        int8=int8,
        force=force,
        target_risk=target_risk,
        inference=inference,
        every=every,
        say=say,
    )
    return lines_of(exported, lang), json_of(exported)


def lines_of(exported: Exported, lang: str) -> list[str]:
    """What was exported, why, and what comes next."""
    texts, words = _TEXTS[lang], Words(lang)
    lines = [texts["why"].format(why=exported.why[lang])]
    if exported.digest is not None:
        checks = ", ".join(one.name for one in exported.checks)
        lines.append(texts["bundle"].format(path=exported.path, digest=exported.digest[:12], checks=checks))
        return [*lines, texts["serve"].format(path=exported.path)]
    library = "peft" if exported.to == "peft" else "transformers"
    lines.append(texts["plain"].format(path=exported.path, library=library, gap=f"{exported.gap or 0.0:.2g}"))
    lines += [_variant(one, texts["int8"], words) for one in exported.int8]
    return [*lines, texts["load"].format(path=exported.path)]


def _variant(one: Variant, text: str, words: Words) -> str:
    by_batch = {latency.batch: latency for latency in one.latency}
    return text.format(
        name=one.name,
        p50=words.duration(by_batch[1].p50_seconds),
        p95=words.duration(by_batch[1].p95_seconds),
        batch=words.duration(by_batch[32].p50_seconds),
        size=words.size(one.linear_bytes),
        flipped=words.count(one.flipped),
        rows=words.count(one.rows),
        score=words.number(one.score),
    )


def json_of(exported: Exported) -> JsonObject:
    """The same for programs."""
    return {
        "path": str(exported.path),
        "to": exported.to,
        "method": exported.method,
        "run": exported.run_id,
        "decided": exported.decided,
        "why": exported.why,
        "digest": exported.digest,
        "checks": [one.model_dump(mode="json") for one in exported.checks],
        "probability_gap": exported.gap,
        "int8": [{**asdict(one), "latency": [item.model_dump() for item in one.latency]} for one in exported.int8],
    }
