"""The chapters that people wrote: slots, citations, and two languages that say the same."""

from __future__ import annotations

import re

import pytest

from paretune.core.errors import RecordError
from paretune.report.research.bibliography import known_keys, numbered
from paretune.report.research.prose import Prose, Slot, citations, drawing, parsed, prose_folder, read_prose
from paretune.report.research.report import check_editions, numbers
from paretune.report.wording import LANGUAGES


def _chapter(text: str) -> Prose:
    return parsed("02-theory", text)


def test_a_chapter_is_texts_and_slots_in_turn() -> None:
    """A slot alone in its paragraph stands between texts; a claim inside a sentence stays there."""
    found = _chapter("# Title\n\nOne.\n\nTwo {{claim:a}}.\n\n{{table:r8/quality}}\n\n{{figure:r8/front}}\n\nThree.\n")
    assert found.title == "Title"
    assert found.parts == [
        "One.\n\nTwo {{claim:a}}.",
        Slot("table", "r8/quality"),
        Slot("figure", "r8/front"),
        "Three.",
    ]


def test_a_chapter_without_a_title_is_refused() -> None:
    """One line says which."""
    with pytest.raises(RecordError, match="02-theory begins with"):
        _chapter("No title\n\nText.")


def test_citations_are_found_once_each_in_order() -> None:
    """Inside brackets alone; an address of electronic mail is none."""
    text = "Known [@hu2021lora; @liu2024dora], again [@hu2021lora] and [see @dodge2019show, p. 3]; me@mail2020 is none."
    assert citations(text) == ["hu2021lora", "liu2024dora", "dodge2019show"]


@pytest.mark.parametrize(
    ("english", "russian", "said"),
    [
        ("It takes 1,000 steps, 0.5 s each.", "Нужно 1000 шагов по 0,5 с.", None),
        ("It takes 117,500 steps.", "Нужно 117 500 шагов.", None),
        ("It takes 10 steps $x_1 = 3$ `k=5` [@hu2021lora].", "Нужно 10 шагов $y_2$ [@hu2021lora].", None),
        ("It takes 10 steps.", "Нужно 12 шагов.", "numbers .*10, 12"),
        ("It takes 0.125 s.", "Нужно 0,126 с.", r"numbers .*0\.125, 0\.126"),
        ("So it is [@hu2021lora].", "Так и есть [@liu2024dora].", "citations .*hu2021lora, liu2024dora"),
        ("One.\n\n## Two\n\nThree.", "Раз.\n\nТри.", "sections"),
        ("One.\n\n{{table:r8/quality}}", "Раз.\n\n{{table:r8/costs}}", "slots"),
    ],
)
def test_two_languages_cannot_disagree(english: str, russian: str, said: str | None) -> None:
    """Numbers in each language's spelling, citations, sections and slots are the same, or the report is not built."""
    editions = {"en": [_chapter(f"# A\n\n{english}")], "ru": [_chapter(f"# Б\n\n{russian}")]}
    if said is None:
        check_editions(editions)
        return
    with pytest.raises(RecordError, match=said):
        check_editions(editions)


def test_russian_decimals_are_no_thousands() -> None:
    """1,250 is a thousand in English and one and a quarter in Russian."""
    chapter = _chapter("# A\n\n1,250")
    assert (numbers(chapter, "en"), numbers(chapter, "ru")) == (["1250"], ["1.250"])


def test_the_shipped_chapters_agree() -> None:
    """Both languages, whole."""
    editions = {lang: read_prose(lang) for lang in LANGUAGES}
    assert len(editions["ru"]) >= 6
    check_editions(editions)


@pytest.mark.parametrize("slug", ["02-theory", "03-tools"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_theory_and_review_are_real_chapters(slug: str, lang: str) -> None:
    """1,500 words at least, formulas, a drawing of their own, eight citations."""
    chapter = next(one for one in read_prose(lang) if one.slug == slug)
    text = "\n\n".join(part for part in chapter.parts if isinstance(part, str))
    assert "$" in text
    assert re.search(r"\(figures/[a-z-]+\.svg\)", text)
    assert len(citations(text)) >= 8
    words = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|^\|[^\n]*|\[[^\]]*@[^\]]*\]", " ", text, flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"[^\W\d_]{2,}", words)) >= 1500


def test_every_citation_has_an_entry_and_every_entry_is_cited() -> None:
    """The bibliography holds what is cited and nothing else."""
    texts = ["\n\n".join(part for part in one.parts if isinstance(part, str)) for one in read_prose("ru")]
    assert set(citations("\n\n".join(texts))) == known_keys()
    assert "UNVERIFIED" not in (prose_folder() / "references.bib").read_text("utf-8")


@pytest.mark.parametrize(("lang", "words"), [("ru", "и др."), ("en", "et al.")])
def test_references_are_numbered_as_cited(lang: str, words: str) -> None:
    """Each style writes its own words, in the order of the citations."""
    found = numbered(["liu2024dora", "hu2021lora"], lang)
    assert found.numbers == {"liu2024dora": 1, "hu2021lora": 2}
    assert "DoRA" in found.entries[0] and words in found.entries[0]
    assert "LoRA: Low-Rank" in found.entries[1].replace("Rank", "Rank")


def test_a_citation_without_an_entry_is_named() -> None:
    """The build stops."""
    with pytest.raises(RecordError, match="nobody2099"):
        numbered(["nobody2099"], "ru")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_drawings_are_there_and_speak_to_those_who_cannot_see(lang: str) -> None:
    """Each drawing of the prose exists in the language, with title and description, and calls nothing from outside."""
    texts = [part for one in read_prose(lang) for part in one.parts if isinstance(part, str)]
    names = re.findall(r"\(figures/([a-z-]+)\.svg\)", "\n".join(texts))
    assert len(names) == len(set(names)) >= 3
    for name in names:
        svg = drawing(name, lang)
        assert "<title" in svg and "<desc" in svg
        assert not re.search(r"<script|href=|url\((?!#)", svg)
    with pytest.raises(RecordError, match="no drawing"):
        drawing("nothing", lang)
