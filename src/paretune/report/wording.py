"""Words of the report in a language: gettext catalogues, and numbers, plurals, sizes and durations through Babel.

Not here: which sentence is true (`answer.py`) or where it stands on a page. Catalogues are the tracked .po files under
`locale/`; they are read and compiled in memory (https://babel.pocoo.org/en/latest/messages.html).

    Words("ru").plural("{n} run", "{n} runs", 5) == "5 запусков"
"""

from __future__ import annotations

import functools
import gettext
import io
import math
from collections.abc import Mapping
from importlib import resources

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_compact_decimal, format_decimal, format_percent
from babel.units import format_unit

from paretune.core.config import nearest
from paretune.core.errors import ConfigError, said
from paretune.core.units import UNITS, in_unit, unit_digits

LANGUAGES = ("en", "ru")
MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"
SIZE_UNITS = {  # the tables of CLDR have no binary units
    "en": {unit: unit for unit in UNITS},
    "ru": {"KiB": "КиБ", "MiB": "МиБ", "GiB": "ГиБ", "TiB": "ТиБ"},
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def check_language(lang: str) -> str:
    """The language itself.

    Raises:
        ConfigError: the report has no catalogue for it.
    """
    if lang not in LANGUAGES:
        allowed = "one of " + ", ".join(LANGUAGES)
        raise ConfigError(said(f"language {lang!r}", allowed, nearest=nearest(lang, LANGUAGES)))
    return lang


@functools.cache
def _translations(lang: str) -> gettext.GNUTranslations:
    path = resources.files("paretune.report") / "locale" / lang / "LC_MESSAGES" / "paretune.po"
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(path.read_bytes()), locale=lang))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def _pattern(value: float) -> str:
    """A pattern of CLDR with at most the decimals that a value of a unit has."""
    digits = unit_digits(value)
    return "#,##0" + ("." + "#" * digits if digits else "")


class Words:
    """One language: `say` and `plural` translate, the other methods write numbers for readers."""

    def __init__(self, lang: str) -> None:
        """Open a language's catalogue.

        Raises:
            ConfigError: the report does not know the language.
        """
        self.lang = check_language(lang)
        self.locale = Locale.parse(lang)
        self._catalogue = _translations(lang)

    def say(self, message: str, values: Mapping[str, str] | None = None) -> str:
        """Translate; `{name}` in the message takes its value from `values`."""
        text = self._catalogue.gettext(message)
        return text.format(**values) if values else text

    def plural(self, one: str, many: str, count: int, values: Mapping[str, str] | None = None) -> str:
        """Translate in the plural form of `count`, which stands in the message as `{n}`."""
        text = self._catalogue.ngettext(one, many, count)
        return text.format(n=self.count(count), **(values or {}))

    def number(self, value: float, digits: int = 3, signed: bool = False) -> str:
        """A number with a fixed count of decimals, with a true minus sign."""
        if not math.isfinite(value):
            return self.say("unbounded") if math.isinf(value) else self.say("not measured")
        text = format_decimal(round(value, digits) + 0.0, format="#,##0." + "0" * digits, locale=self.locale)
        return ("+" if signed and round(value, digits) > 0 else "") + text.replace("-", MINUS)

    def count(self, value: int) -> str:
        """A whole number with the language's grouping."""
        return format_decimal(value, locale=self.locale).replace("-", MINUS)

    def compact(self, value: float) -> str:
        """A large number in short: 120K, 120 тыс."""
        if abs(value) < 1000:
            return format_decimal(float(f"{value:.3g}"), locale=self.locale)
        return format_compact_decimal(value, locale=self.locale, fraction_digits=1)

    def percent(self, share: float, digits: int = 0) -> str:
        """A share of one as per cent."""
        pattern = self.locale.percent_formats[None].pattern
        if digits:
            pattern = pattern.replace("#,##0", "#,##0." + "0" * digits)
        return format_percent(share, format=pattern, locale=self.locale).replace("-", MINUS)

    def probability(self, p: float) -> str:
        """A p-value or a probability; never a bare 0."""
        return f"< {self.number(0.001)}" if p < 0.001 else self.number(p)

    def rate(self, value: float) -> str:
        """A learning rate such as 3·10⁻⁵."""
        mantissa, exponent = f"{value:.2e}".split("e")
        number = format_decimal(float(mantissa), locale=self.locale)
        return f"{number}·10{str(int(exponent)).translate(SUPERSCRIPTS)}"

    def _unit(self, value: float, unit: str) -> str:
        pattern = _pattern(value)
        return format_unit(value, unit, length="short", format=pattern, locale=self.locale).replace(" ", NO_BREAK)

    def size(self, size_bytes: float) -> str:
        """Bytes in powers of 1024: 1.5 GiB, 1,5 ГиБ."""
        if not math.isfinite(size_bytes):
            return self.number(size_bytes)
        value, unit = in_unit(size_bytes)
        if unit == "B":
            return self._unit(value, "digital-byte")
        text = format_decimal(value, format=_pattern(value), locale=self.locale).replace("-", MINUS)
        return f"{text}{NO_BREAK}{SIZE_UNITS[self.lang][unit]}"

    def duration(self, seconds: float) -> str:
        """Seconds as milliseconds, seconds, minutes or hours, two units at most."""
        if not math.isfinite(seconds):
            return self.number(seconds)
        if seconds < 1:
            return self._unit(seconds * 1000, "duration-millisecond")
        if seconds < 120:
            return self._unit(seconds, "duration-second")
        if seconds < 7200:
            minutes, rest = divmod(round(seconds), 60)
            first, second = self._unit(minutes, "duration-minute"), self._unit(rest, "duration-second")
        else:
            hours, rest = divmod(round(seconds / 60), 60)
            first, second = self._unit(hours, "duration-hour"), self._unit(rest, "duration-minute")
        return f"{first} {second}" if rest else first

    def energy(self, joules: float) -> str:
        """Joules, or kilojoules from 10,000."""
        return self._unit(joules / 1000, "energy-kilojoule") if joules >= 10_000 else self._unit(joules, "energy-joule")

    def watt_hours(self, value: float) -> str:
        """Watt-hours with about three figures."""
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        text = self.say("{value} Wh", {"value": self.number(value, digits) if digits else self.count(round(value))})
        return text.replace(" ", "\N{NO-BREAK SPACE}")

    def spread(self, low: float, high: float, digits: int = 3, signed: bool = False) -> str:
        """An interval in the one form that all outputs have: [0.924 … 0.970]."""
        return f"[{self.number(low, digits, signed)} … {self.number(high, digits, signed)}]"

    def interval(self, value: float, ends: tuple[float, float] | None, digits: int = 3, signed: bool = False) -> str:
        """A value and its interval: 0.947 [0.924 … 0.970]; the value alone where there is no interval."""
        text = self.number(value, digits, signed)
        return text if ends is None else f"{text} {self.spread(*ends, digits, signed)}"

    def series(self, items: list[str]) -> str:
        """ "a, b and c"."""
        if len(items) < 2:
            return "".join(items)
        return self.say("{first} and {last}", {"first": ", ".join(items[:-1]), "last": items[-1]})
