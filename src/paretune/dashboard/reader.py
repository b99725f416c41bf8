"""Who reads: language and theme of one request, from its address and its cookies.

Not here: translations (`report/wording.py`).

    reader = reader_of(request, "en"); reader.words.say("method")
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from paretune.report.wording import LANGUAGES, Words, check_language

LANGUAGE_COOKIE, THEME_COOKIE = "paretune_lang", "paretune_theme"
THEMES = ("light", "dark")
YEAR_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True)
class Reader:
    """`theme` is empty where the system's holds; `asked`: the address names the language, which is then kept."""

    words: Words
    theme: str
    asked: bool

    def remember(self, response: Response) -> None:
        """Keep the language for the next page."""
        if self.asked:
            response.set_cookie(
                LANGUAGE_COOKIE, self.words.lang, max_age=YEAR_SECONDS, samesite="strict", httponly=True, path="/"
            )


def reader_of(request: Request, default: str) -> Reader:
    """The reader of a request.

    Raises:
        ConfigError: the address names an unknown language (a cookie that does is passed over).
    """
    asked = request.query_params.get("lang")
    kept = request.cookies.get(LANGUAGE_COOKIE, "")
    lang = check_language(asked) if asked is not None else kept if kept in LANGUAGES else default
    theme = request.cookies.get(THEME_COOKIE, "")
    return Reader(Words(lang), theme if theme in THEMES else "", asked is not None)


def here_in(request: Request, lang: str) -> str:
    """The address of the same page in another language."""
    pairs = [(name, value) for name, value in request.query_params.multi_items() if name not in ("lang", "token")]
    return request.url.path + "?" + urlencode([*pairs, ("lang", lang)])
