"""Pages that are no study's: what was not found or may not be seen, the form for the token, the way in.

Not here: who may look (`gate.py`). A reason is a key of the list here, or a sentence as an error of ours says it.

    refusal_page(renderer, request, "en", 404, "missing")
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse

from paretune.core.errors import ConfigError
from paretune.dashboard.reader import Reader, reader_of
from paretune.dashboard.render import Frame, Renderer
from paretune.report.wording import Words


def refusal_page(renderer: Renderer, request: Request, lang: str, status: int, reason: str) -> HTMLResponse:
    """A page with what is wrong and what to do."""
    reader = _reader(request, lang)
    words = reader.words
    values = {"reason": _reason(words, reason), "form": status == 401}
    answer = renderer.page(
        request, reader, Frame(_title(words, status), status=status), renderer.part("refusal.html.j2", words, values)
    )
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
        answer.headers["Cache-Control"] = "no-store"
    return answer


def welcome_page(renderer: Renderer, request: Request, lang: str, path: str) -> HTMLResponse:
    """A page that goes on to `path` by itself."""
    reader = _reader(request, lang)
    body = renderer.part("welcome.html.j2", reader.words, {"path": path})
    answer = renderer.page(request, reader, Frame(reader.words.say("Welcome"), forward=path), body)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _reader(request: Request, lang: str) -> Reader:
    try:
        return reader_of(request, lang)
    except ConfigError:  # the page that says so is in the server's language
        return Reader(Words(lang), "", False)


def _title(words: Words, status: int) -> str:
    names = {401: words.say("A token is needed"), 404: words.say("Not found"), 500: words.say("An error inside")}
    return names.get(status, words.say("Not possible"))


def _reason(words: Words, reason: str) -> str:
    names = {
        "missing": words.say("There is no such page, study or run in this folder."),
        "method": words.say("The dashboard only reads: GET and HEAD are all that it answers."),
        "host": words.say("This server is not called by that name; open it as 127.0.0.1 or localhost."),
        "token": words.say("This dashboard is shown to those who have its token."),
        "wrong": words.say("That is not the token of this dashboard."),
        "link": words.say("A link with the token works once, and this one was used. Give the token itself."),
        "query": words.say("A part of the address is not as it should be; go back to the study and choose again."),
        "error": words.say("The server's log says more. Other pages still work."),
    }
    return names.get(reason, reason)
