"""The model card of what is exported: README.md in Hugging Face's format, in English and Russian.

Every figure comes from records. Not here: measuring anything, or writing files. Source of the front matter:
https://huggingface.co/docs/hub/model-cards.

    text = card(facts)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import ModelCardData

from paretune.core.config import JsonObject
from paretune.export.snippets import Loading, To, how_to_load
from paretune.records.bundle import Abstention, Certificate, Domain, Score
from paretune.report.tables import metric_name
from paretune.report.wording import Words
from paretune.stats.metrics import class_metric

LIBRARY: dict[To, str] = {"bundle": "paretune", "peft": "peft", "merged": "transformers"}
SCRIPT_SHARE = 0.1

_TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "what": "What it is",
        "intro": (
            "A text classifier with {classes} classes: `{base}` adapted by `{kind}`{settings} in the study "
            "`{study}`, seed {seed}. Classes: {labels}."
        ),
        "why": "Why this one",
        "scores": "Scores",
        "scores_note": (
            "Mean over the method's seeds, 95 % interval over seeds and test texts; “this model” is the one here."
        ),
        "head": "| split | metric | mean [95 %] | seeds | this model |",
        "cost": "Cost",
        "train_seconds": "training time",
        "peak_memory_bytes": "peak memory in training",
        "adapter_bytes": "adapter and head on disk",
        "base_bytes": "base model on disk",
        "latency_p50_seconds": "one text, median (measured in the study, on its machine)",
        "latency_p95_seconds": "one text, 95th percentile",
        "abstention": "When to leave it to a person",
        "threshold": (
            "Below a confidence of {threshold} (largest probability after dividing logits by {temperature}) the answer "
            "should go to a person. Fitted on {rows} validation texts for a share of wrong answers of {target}; on "
            "test data {coverage} of the texts are then answered, {risk} of those wrongly. This is a measurement, no "
            "guarantee: other texts may behave otherwise."
        ),
        "unreachable": "No threshold reaches that share on validation data; the one of least risk is used.",
        "domain": (
            "A text whose features lie too far from those of the training texts is out of domain, and its answer "
            "should go to a person however sure it looks. Fitted so that at most {share} of texts like the validation "
            "texts are flagged; measured: {test} of {test_rows} test texts, and {invented} of {invented_rows} "
            "invented strings (random keys, made-up words, numbers, greetings), which all should be."
        ),
        "certificate": "Certificate",
        "check": "- {name}: {verdict} — {detail}{value}",
        "passed": "passed",
        "failed": "failed",
        "limits": "Limits",
        "limits_text": (
            "Texts are cut at {tokens} tokens. It knows only its own classes and names one of them for any text, "
            "nonsense too{unless}. Measured on the study's own test data: on texts of another kind it may be far "
            "worse. The language in the header is a guess by script."
        ),
        "unless": " (paretune's service flags most of it as out of domain)",
        "goldens": "`goldens.json` holds a few texts of the validation data in clear: mind who may read them.",
        "licences": "Licences",
        "licences_note": (
            "What was trained on data under a licence may be bound by it; “unknown” means: find out first."
        ),
        "load": "How to load",
    },
    "ru": {
        "what": "Что это",
        "intro": (
            "Классификатор текстов, классов: {classes}. Модель `{base}`, дообученная методом `{kind}`{settings} в "
            "исследовании `{study}`, повтор {seed}. Классы: {labels}."
        ),
        "why": "Почему выбран он",
        "scores": "Качество",
        "scores_note": (
            "Среднее по повторам метода, 95-процентный интервал по повторам и тестовым текстам; «эта модель» — эта."
        ),
        "head": "| выборка | метрика | среднее [95 %] | повторы | эта модель |",
        "cost": "Цена",
        "train_seconds": "время обучения",
        "peak_memory_bytes": "пик памяти при обучении",
        "adapter_bytes": "адаптер и голова на диске",
        "base_bytes": "базовая модель на диске",
        "latency_p50_seconds": "один текст, медиана (измерено в исследовании, на его машине)",
        "latency_p95_seconds": "один текст, 95-й процентиль",
        "abstention": "Когда оставить ответ человеку",
        "threshold": (
            "Если уверенность ниже {threshold} (наибольшая вероятность после деления логитов на {temperature}), ответ "
            "стоит оставить человеку. Порог подобран на проверочных текстах ({rows}) для доли ошибок {target}; на "
            "тестовых данных тогда доля отвеченных текстов {coverage}, доля ошибок среди них {risk}. Это измерение, а "
            "не гарантия: на других текстах может быть иначе."
        ),
        "domain": (
            "Текст, признаки которого слишком далеки от признаков обучающих текстов, считается посторонним: ответ на "
            "него стоит оставить человеку, какой бы высокой ни была уверенность. Порог подобран так, чтобы среди "
            "текстов, похожих на проверочные, отмечалось не больше {share}; измерено: {test} тестовых текстов (всего "
            "{test_rows}) и {invented} придуманных строк (всего {invented_rows}: случайные клавиши, несуществующие "
            "слова, числа, приветствия), которые следовало отметить все."
        ),
        "unreachable": "Такой доли на проверочных данных не даёт ни один порог; взят порог с наименьшей долей ошибок.",
        "certificate": "Свидетельство",
        "check": "- {name}: {verdict} — {detail}{value}",
        "passed": "пройдено",
        "failed": "не пройдено",
        "limits": "Ограничения",
        "limits_text": (
            "Тексты обрезаются на {tokens} токенах. Модель знает только свои классы и относит к одному из них любой "
            "текст, даже бессмысленный{unless}. Качество измерено на тестовых данных исследования: на других текстах "
            "оно может быть намного хуже. Язык в заголовке угадан по письменности."
        ),
        "unless": " (сервис paretune отмечает большую часть такого как посторонние тексты)",
        "goldens": "В `goldens.json` лежат открытым текстом несколько проверочных текстов: важно, кто их прочтёт.",
        "licences": "Лицензии",
        "licences_note": (
            "То, что обучено на данных под лицензией, может быть ею связано; «unknown» значит: сначала выяснить."
        ),
        "load": "Как загрузить",
    },
}


@dataclass(frozen=True)
class CardFacts:
    """All that a card says; `certificate` and `abstention` are a bundle's."""

    name: str
    study: str
    kind: str
    settings: JsonObject
    seed: int
    labels: Sequence[str]
    loading: Loading
    scores: Sequence[Score]
    cost: Mapping[str, float]
    licences: Sequence[str]
    why: Mapping[str, str]
    languages: Sequence[str]
    abstention: Abstention | None = None
    certificate: Certificate | None = None
    domain: Domain | None = None


def languages_of(texts: Sequence[str]) -> list[str]:
    """A guess by script: "ru" for Cyrillic, "en" for Latin letters where they are a tenth of all or more."""
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    cyrillic = sum("Ѐ" <= letter <= "ӿ" for letter in letters)
    latin = sum(letter.isascii() for letter in letters)
    found = [("en", latin), ("ru", cyrillic)]
    return [name for name, count in found if letters and count >= SCRIPT_SHARE * len(letters)]


def card(facts: CardFacts) -> str:
    """The whole README: front matter, then both languages."""
    parts = [f"---\n{_front_matter(facts)}\n---", f"# {facts.name}"]
    for lang in ("en", "ru"):
        parts += _sections(facts, Words(lang))
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    known = any("unknown" not in line for line in facts.licences)
    data = ModelCardData(
        base_model=facts.loading.base,
        language=list(facts.languages) or None,
        library_name=LIBRARY[facts.loading.to],
        pipeline_tag="text-classification",
        tags=["paretune", "text-classification", facts.kind, f"base:{facts.loading.base}"],
        license="other" if known else "unknown",
        license_name="see-readme" if known else None,
        license_link="README.md" if known else None,
        metrics=[class_metric(one).hub_name for one in dict.fromkeys(score.metric for score in facts.scores)],
    )
    return data.to_yaml()


def _sections(facts: CardFacts, words: Words) -> list[str]:
    texts = _TEXTS[words.lang]
    settings = ", ".join(f"{name} = {value}" for name, value in facts.settings.items() if value is not None)
    intro = texts["intro"].format(
        classes=words.count(len(facts.labels)),
        base=facts.loading.base,
        kind=facts.kind,
        settings=f" ({settings})" if settings else "",
        study=facts.study,
        seed=facts.seed,
        labels=", ".join(f"`{label}`" for label in facts.labels),
    )
    found = [f"## {texts['what']}\n\n{intro}", f"## {texts['why']}\n\n{facts.why[words.lang]}"]
    found += [_scores(facts, words), _cost(facts, words)]
    if facts.abstention is not None:
        found.append(_abstention(facts.abstention, facts.domain, words))
    if facts.certificate is not None:
        found.append(_certificate(facts.certificate, words))
    unless = texts["unless"] if facts.domain is not None else ""
    limits = texts["limits_text"].format(tokens=words.count(facts.loading.max_tokens), unless=unless)
    limits += f" {texts['goldens']}" if facts.loading.to == "bundle" else ""
    licences = "\n".join(f"- {line}" for line in facts.licences)
    found += [
        f"## {texts['limits']}\n\n{limits}",
        f"## {texts['licences']}\n\n{licences}\n\n{texts['licences_note']}",
        f"## {texts['load']}\n\n{how_to_load(facts.loading)}",
    ]
    return found


def _scores(facts: CardFacts, words: Words) -> str:
    texts = _TEXTS[words.lang]
    lines = [texts["head"], "|---|---|---|---|---|"]
    for one in facts.scores:
        spread = f" {words.spread(one.low, one.high)}" if one.low is not None and one.high is not None else ""
        mean = f"{words.number(one.mean)}{spread}"
        name = metric_name(words, one.metric)
        lines.append(f"| {one.split} | {name} | {mean} | {one.seeds} | {words.number(one.this_model)} |")
    return f"## {texts['scores']}\n\n" + "\n".join(lines) + f"\n\n{texts['scores_note']}"


def _cost(facts: CardFacts, words: Words) -> str:
    texts = _TEXTS[words.lang]
    lines = [
        f"- {texts[name]}: {words.size(value) if name.endswith('_bytes') else words.duration(value)}"
        for name, value in facts.cost.items()
        if name in texts
    ]
    return f"## {texts['cost']}\n\n" + "\n".join(lines)


def _abstention(one: Abstention, domain: Domain | None, words: Words) -> str:
    texts = _TEXTS[words.lang]
    text = texts["threshold"].format(
        threshold=words.number(one.threshold),
        temperature=words.number(one.temperature),
        rows=words.count(one.validation_rows),
        target=words.number(one.target_risk),
        coverage=words.number(one.test_coverage),
        risk=words.number(one.test_risk),
    )
    text += "" if one.reachable else f" {texts['unreachable']}"
    if domain is not None:
        text += "\n\n" + texts["domain"].format(
            share=words.number(domain.share),
            test=words.number(domain.test_flagged),
            test_rows=words.count(domain.test_rows),
            invented=words.number(domain.invented_flagged),
            invented_rows=words.count(domain.invented_rows),
        )
    return f"## {texts['abstention']}\n\n{text}"


def _certificate(certificate: Certificate, words: Words) -> str:
    texts = _TEXTS[words.lang]
    lines: list[str] = []
    for one in certificate.checks:
        value = f": {one.value:.3g}" if one.value is not None else ""
        value += f" ({one.limit:g})" if one.limit is not None else ""
        verdict = texts["passed"] if one.passed else texts["failed"]
        lines.append(texts["check"].format(name=one.name, verdict=verdict, detail=one.detail, value=value))
    return f"## {texts['certificate']}\n\n" + "\n".join(lines)
