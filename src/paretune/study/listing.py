"""The tables of methods and of model families as plain rows, for the command line and the generated docs.

Not here: the methods, nor the families.

    method_rows("en")[0]["kind"]
"""

from __future__ import annotations

from paretune.methods.method import METHODS
from paretune.models.families import FAMILIES

_PATHS = {
    "en": {
        "kernels": "own kernels; adapters share a pass when served",
        "plain": "transformers' forward pass; one adapter at a time when served",
    },
    "ru": {
        "kernels": "свои ядра; при обслуживании адаптеры делят проход",
        "plain": "проход transformers; при обслуживании адаптеры по одному",
    },
}


def method_rows(lang: str) -> list[dict[str, str]]:
    """One row a method: kind, family, summary, settings with their defaults, default learning rate, paper."""
    rows: list[dict[str, str]] = []
    for kind in METHODS:
        method = METHODS.load(kind)
        fields = method.settings_model.model_fields.items()
        settings = ", ".join(f"{name} = {field.default!r}" for name, field in fields) or "none"
        rate = f"{method.default_learning_rate:g}" if method.family == "adaptation" else "–"
        summary = method.summary_ru if lang == "ru" else method.summary_en
        rows.append(
            {
                "kind": kind,
                "family": method.family,
                "summary": summary,
                "settings": settings,
                "learning_rate": rate,
                "paper": method.paper,
            }
        )
    return rows


def family_rows(lang: str) -> list[dict[str, str]]:
    """One row a tested family of models: type, examples, path, default pooling."""
    paths = _PATHS["ru" if lang == "ru" else "en"]
    return [
        {"type": name, "examples": one.examples, "path": paths[one.path], "pooling": one.pooling}
        for name, one in FAMILIES.items()
    ]
