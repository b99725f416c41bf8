"""The answers to requests for pages, each of them one study's or all studies', in the reader's language.

Not here: addresses (`app.py`), what stands in a page (`study_pages.py`, `shelf_pages.py`).

    Pages([Path("results")], "en").results(request, "demo")
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from paretune.core.config import JsonObject
from paretune.core.errors import UsageError
from paretune.dashboard import shelf_pages, study_pages
from paretune.dashboard.bodies import Bodies
from paretune.dashboard.export import export_page
from paretune.dashboard.files import Files
from paretune.dashboard.gathered import Gatherer
from paretune.dashboard.index import Index, RunEntry, StudyEntry
from paretune.dashboard.live import live_news, places
from paretune.dashboard.mistakes import Choice
from paretune.dashboard.reader import Reader, reader_of
from paretune.dashboard.render import Frame, Link, Renderer
from paretune.dashboard.script_words import budget_words, live_words
from paretune.dashboard.study_pages import Desk, Order, RunColumn
from paretune.dashboard.verdicts import ledger_of, stamps_of
from paretune.report.draws import draws_of, for_browser
from paretune.report.wording import Words, check_language

FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
Part = Callable[[Desk, StudyEntry, Words], str]


class Pages:
    """What answers requests."""

    def __init__(self, roots: Sequence[Path], lang: str) -> None:
        self.lang = check_language(lang)
        self.files = Files()
        index = Index(*roots)
        self.desk = Desk(index, Gatherer(index), Renderer(self.files))
        self.bodies = Bodies()

    def reader(self, request: Request) -> Reader:
        return reader_of(request, self.lang)

    def entry(self, name: str) -> StudyEntry:
        """A study of the folder.

        Raises:
            HTTPException: 404.
        """
        found = self.desk.index.study(name)
        if found is None:
            raise HTTPException(404, name)
        return found

    def run(self, entry: StudyEntry, identifier: str) -> RunEntry:
        found = entry.run(identifier)
        if found is None:
            raise HTTPException(404, identifier)
        return found

    # -- all studies --------------------------------------------------------------------------------------------------

    def studies(self, request: Request) -> HTMLResponse:
        """The list."""
        reader, entries = self.reader(request), self.desk.index.studies()
        body = shelf_pages.list_part(self.desk, self.bodies, entries, reader.words)
        version = hashlib.sha256(body.encode()).hexdigest()[:16]
        frame = Frame(
            reader.words.say("Studies"), scripts=("live.js",), live="", version=version, words=live_words(reader.words)
        )
        return self.desk.renderer.page(request, reader, frame, body)

    def claims(self, request: Request) -> HTMLResponse:
        """Claims with verdicts."""
        reader, entries = self.reader(request), self.desk.index.studies()
        ledger = ledger_of(self.desk.index)
        version = repr((stamps_of(ledger), [entry.facts_version for entry in entries]))

        def make() -> str:
            found = shelf_pages.judged_claims(self.desk, entries)
            return shelf_pages.claims_part(found, self.desk.renderer, reader.words)

        _, body = self.bodies.get(("claims", reader.words.lang), version, make)
        frame = Frame(reader.words.say("Claims"), crumbs=(self._home(reader.words),))
        return self.desk.renderer.page(request, reader, frame, body)

    # -- one study ----------------------------------------------------------------------------------------------------

    def results(self, request: Request, name: str) -> HTMLResponse:
        """Answer, table, figures, and what runs now."""
        return self._study(request, name, "", study_pages.results_part, ("figures.js", "curve.js", "live.js"))

    def budget(self, request: Request, name: str) -> HTMLResponse:
        """Pareto fronts and the slider."""
        return self._study(request, name, "budget", study_pages.budget_part, ("figures.js", "budget.js"))

    def settings(self, request: Request, name: str) -> HTMLResponse:
        """Effects of settings."""
        return self._study(request, name, "settings", study_pages.settings_part, ("figures.js",))

    def data(self, request: Request, name: str) -> HTMLResponse:
        """The data itself."""
        return self._study(request, name, "data", study_pages.data_part, ("figures.js",))

    def examples(
        self,
        request: Request,
        name: str,
        label: Annotated[str, Query(max_length=200)] = "",
        method: Annotated[str, Query(max_length=200)] = "",
        text: Annotated[bool, Query()] = False,
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    ) -> HTMLResponse:
        """Who gets which example wrong."""
        choice = Choice(label, method, text)

        def make(desk: Desk, entry: StudyEntry, words: Words) -> str:
            return study_pages.examples_part(desk, entry, words, choice, page)

        return self._study(request, name, "examples", make, (), (label, method, str(text), str(page)))

    def runs(
        self,
        request: Request,
        name: str,
        sort: Annotated[RunColumn, Query()] = "method",
        falling: Annotated[bool, Query()] = False,
    ) -> HTMLResponse:
        """All runs with their states, scores and costs."""
        entry, reader = self.entry(name), self.reader(request)
        body = study_pages.runs_part(self.desk, entry, reader.words, Order(sort, falling))
        frame = self._frame(entry, "runs", reader.words, (), "")
        return self.desk.renderer.page(request, reader, frame, body)

    def compare(self, request: Request, name: str, a: str, b: str) -> HTMLResponse:
        """Two runs side by side."""
        entry, reader = self.entry(name), self.reader(request)
        first, second = self.run(entry, a), self.run(entry, b)
        body = study_pages.compare_part(self.desk, entry, reader.words, first, second)
        frame = self._frame(entry, "runs", reader.words, (), "")
        return self.desk.renderer.page(request, reader, frame, body)

    def draws(self, name: str) -> Response:
        """The draws for the slider."""
        entry = self.entry(name)

        def make() -> str:
            facts = self.desk.gatherer.gathered(entry).facts
            found = draws_of(facts) if facts is not None else None
            return _json(for_browser(found) if found is not None else {"methods": []})

        _, text = self.bodies.get((name, "draws"), entry.facts_version, make)
        return Response(text, media_type="application/json")

    def live(self, request: Request, name: str) -> Response:
        """What runs now; `at` says how far the reader has read a run's events."""
        reader = self.reader(request)
        news = live_news(self.entry(name), places(request.query_params.getlist("at")), reader.words)
        return Response(_json(news), media_type="application/json")

    def export(self, request: Request, name: str) -> Response:
        """The study as one file."""
        entry, reader = self.entry(name), self.reader(request)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "study.html"
            try:
                export_page(entry.folder, out, reader.words.lang)
            except UsageError as error:
                raise HTTPException(409, str(error)) from None
            data = out.read_bytes()
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        disposition = f'attachment; filename="{plain}.{reader.words.lang}.html"'
        return Response(data, media_type="text/html; charset=utf-8", headers={"Content-Disposition": disposition})

    def file(self, hashed: str) -> Response:
        """A file of the pages."""
        found = self.files.find(hashed)
        if found is None:
            raise HTTPException(404, hashed)
        return Response(found.body, media_type=found.media_type, headers=FOREVER)

    # -- what stands around -------------------------------------------------------------------------------------------

    def _study(
        self, request: Request, name: str, tab: str, part: Part, scripts: tuple[str, ...], query: tuple[str, ...] = ()
    ) -> HTMLResponse:
        entry, reader = self.entry(name), self.reader(request)
        key = (name, tab, reader.words.lang, *query)
        version, body = self.bodies.get(key, entry.facts_version, lambda: part(self.desk, entry, reader.words))
        frame = self._frame(entry, tab, reader.words, scripts, version)
        return self.desk.renderer.page(request, reader, frame, body)

    def _frame(self, entry: StudyEntry, tab: str, words: Words, scripts: tuple[str, ...], version: str) -> Frame:
        base = f"/study/{quote(entry.name, safe='')}"
        names = {
            "": words.say("Results"),
            "budget": words.say("Budget"),
            "settings": words.say("Settings"),
            "runs": words.say("Runs"),
            "data": words.say("Data"),
            "examples": words.say("Examples"),
        }
        tabs = [Link(f"{base}/{key}" if key else base, text, key == tab) for key, text in names.items()]
        return Frame(
            title=entry.name,
            crumbs=(self._home(words),),
            tabs=tabs,
            scripts=scripts,
            figures="figures.js" in scripts,
            live=f"{base}/live.json" if "live.js" in scripts else "",
            version=version,
            words={**live_words(words), **budget_words(words)} if scripts else {},
            export=f"{base}/export.html",
        )

    def _home(self, words: Words) -> Link:
        return Link("/", words.say("Studies"))


def _json(tree: JsonObject) -> str:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
