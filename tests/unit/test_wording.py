"""The words of the report: numbers and plurals of both languages, and whole catalogues."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract

import paretune.report
from paretune.core.errors import ConfigError
from paretune.core.units import parse_bytes, size_text
from paretune.report.wording import LANGUAGES, Words

ROOM = Path(paretune.report.__file__).parent
DASHBOARD = ROOM.with_name("dashboard")
SPEAKING = [
    *ROOM.rglob("*.py"),
    *DASHBOARD.rglob("*.py"),
    ROOM.with_name("study") / "advise_lines.py",
    ROOM.with_name("study") / "new.py",
    ROOM.with_name("study") / "progress.py",
    ROOM.with_name("cli_data.py"),
]
TEMPLATES = [*(ROOM / "templates").glob("*.j2"), *(DASHBOARD / "templates").glob("*.j2")]
NBSP = "\N{NO-BREAK SPACE}"


def used_messages() -> dict[str, str | None]:
    """Every message that the source and the templates say, with its plural."""
    found: dict[str, str | None] = {}
    lines = []
    for path in sorted(SPEAKING):
        lines += extract("python", io.BytesIO(path.read_bytes()), keywords={"say": None, "plural": (1, 2)})
    for path in sorted(TEMPLATES):
        lines += [
            (line, message, comments, None)
            for line, _, message, comments in babel_extract(io.BytesIO(path.read_bytes()), ["say", "plural"], [], {})
        ]
    for _, message, *_ in lines:
        one, many = message if isinstance(message, tuple) else (message, None)
        found[one] = many
    return found


def catalogue(lang: str) -> Catalog:
    path = ROOM / "locale" / lang / "LC_MESSAGES" / "paretune.po"
    return read_po(io.BytesIO(path.read_bytes()), locale=lang)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_catalogue_has_every_message_and_no_other(lang: str) -> None:
    """A sentence added to the source without a translation, or left over in a catalogue, is found."""
    used = used_messages()
    assert len(used) > 150
    known = {message.id[0] if message.pluralizable else message.id for message in catalogue(lang) if message.id}
    assert set(used) - known == set()
    assert known - set(used) == set()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_translations_are_whole(lang: str) -> None:
    """No translation is fuzzy or empty, every plural form is there, and placeholders are those of the source."""
    for message in catalogue(lang):
        if not message.id:
            continue
        texts = list(message.string) if message.pluralizable else [message.string]
        assert not message.fuzzy, message.id
        assert all(texts), message.id
        if message.pluralizable:
            assert len(texts) == (3 if lang == "ru" else 2), message.id
        source = message.id[-1] if message.pluralizable else message.id
        for text in texts:
            assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", source)), message.id


READ = (
    *(ROOM / "locale" / lang / "LC_MESSAGES" / "paretune.po" for lang in LANGUAGES),
    *(ROOM.parent / "serve" / "page" / f"texts_{lang}.js" for lang in LANGUAGES),
    *(
        ROOM.parent / one
        for one in ("serve/bot_words.py", "export/choose.py", "export/card.py", "export/export_command.py")
    ),
    *(Path("README.md"), Path("README.ru.md")),
)
VARIANTS = {  # what is not written → what is
    r"\b[KMGT]B\b|\b[КМГТ]Б\b|gigabyte|гигабайт": "GiB, ГиБ: limits are typed and sizes shown in powers of 1024",
    r"интервал \{interval\}|interval \{interval\}|\[\{interval\}\]": "{difference} {interval}: it has its brackets",
    r"±\{(half|width|interval)\}": "an interval by its ends",
    r"[Бб]андл|[Пп]акет\w* (со свидетельств|`bundle`)|[Пп]роверенн\w+ пакет": "комплект, for a bundle",
    r"[Пп]ачк[аиеу]\b|[Пп]ачек\b|[Бб]атч": "пакет, for a batch",
    r"[Пп]акет\w* wheel|wheel-пакет": "архив wheel",
    r"[Рр]азниц\w* с (\{control\}|контрол)|\"к контролю\"|[Дд]ельт": "отличие от контроля",
    r'"(Выбрать|Взять|Оставить|Бери|Берите) \{': "Возьмите, Оставьте: all sentences speak to the reader",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_word_for_one_thing(variant: str) -> None:
    """No catalogue, page, bot, card or README uses the other word, form or unit for what has one already."""
    found = [f"{path.name}: {match[0]!r}" for path in READ for match in re.finditer(variant, path.read_text("utf-8"))]
    assert not found, f"write {VARIANTS[variant]}"


def test_every_interval_has_one_form() -> None:
    """A value with its interval is 0.947 [0.924 … 0.970] in both languages; without one it stands alone."""
    en, ru = Words("en"), Words("ru")
    assert en.interval(0.947, (0.924, 0.97)) == "0.947 [0.924 … 0.970]"
    assert ru.interval(-0.0014, (-0.015, 0.013), signed=True) == "−0,001 [−0,015 … +0,013]"
    assert en.interval(0.5, None) == "0.500"


def test_sizes_are_written_as_limits_are_typed() -> None:
    """What a page says can be typed as a limit: the unit is that of the limits, in every room that writes sizes."""
    assert size_text(parse_bytes("2 GiB")) == "2 GiB" == Words("en").size(parse_bytes("2 GiB")).replace(NBSP, " ")
    assert (size_text(0), size_text(1023), size_text(1536)) == ("0 B", "1023 B", "1.5 KiB")


def test_russian_catalogue_is_in_russian() -> None:
    """Every Russian sentence has Cyrillic letters, but for the few that are only names and placeholders."""
    plain = {m.id for m in catalogue("ru") if m.id and not re.search("[а-яё]", str(m.string), re.IGNORECASE)}
    assert plain == set()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1 запуск"),
        (2, "2 запуска"),
        (5, "5 запусков"),
        (11, "11 запусков"),
        (21, "21 запуск"),
        (104, "104 запуска"),
    ],
)
def test_russian_plurals(number: int, text: str) -> None:
    """Russian has three forms, and 11 is not 21."""
    assert Words("ru").plural("{n} run", "{n} runs", number) == text


def test_numbers_follow_the_language() -> None:
    """Decimal comma, grouping and per cent sign are the language's, and minus is a minus sign."""
    ru, en = Words("ru"), Words("en")
    assert ru.number(-0.0125, signed=True) == "−0,013" or ru.number(-0.0125, signed=True) == "−0,012"
    assert en.number(0.5, 2, signed=True) == "+0.50"
    assert ru.number(-0.0001) == "0,000"
    assert ru.count(12345) == f"12{NBSP}345"
    assert en.count(12345) == "12,345"
    assert ru.percent(0.953, 1) == f"95,3{NBSP}%"
    assert en.percent(0.953, 1) == "95.3%"
    assert ru.probability(0.0000001) == "< 0,001"
    assert ru.rate(1e-4 / 3) == "3,33·10⁻⁵"
    assert ru.rate(0.3e-3 / 3) == "1·10⁻⁴"


def test_sizes_and_durations() -> None:
    """Units are the language's and change with the size."""
    ru, en = Words("ru"), Words("en")
    assert ru.size(1_234_000_000) == f"1,15{NBSP}ГиБ"
    assert en.size(512_300_000) == f"489{NBSP}MiB"
    assert ru.duration(0.0042) == f"4,2{NBSP}мс"
    assert en.duration(200) == f"3{NBSP}min 20{NBSP}sec"
    assert ru.duration(7260) == f"2{NBSP}ч 1{NBSP}мин"
    assert ru.energy(15_000) == f"15{NBSP}кДж"


def test_a_number_that_is_none_is_said_in_words() -> None:
    """NaN and infinity never stand on a page as numbers."""
    assert Words("ru").number(float("nan")) == "не измерено"
    assert Words("en").number(float("inf")) == "unbounded"


def test_unknown_language_is_one_line_that_helps() -> None:
    """The error names what was given and what is allowed."""
    with pytest.raises(ConfigError, match=r"'de'.*en, ru") as caught:
        Words("de")
    assert "\n" not in str(caught.value)
