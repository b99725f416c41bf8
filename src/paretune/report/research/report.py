"""Gathers the research report: prose with its slots filled from studies and claims, in both languages.

Not here: words of the prose, and files that readers open (`html.py`, `pdf.py`). The report is not made where a claim
no longer holds, or where the two languages disagree.

    report = gather_report([Path("results/r8")], Path("results/claims.toml"), Path.cwd())
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from paretune.core.config import load_toml
from paretune.core.errors import RecordError, said
from paretune.records.store import StudyFolder
from paretune.report.bench_lines import FOLDER, bench_lines, study_folders
from paretune.report.claims import Ledger, check_claims, judged
from paretune.report.facts import StudyFacts, gather
from paretune.report.research.parts import Parts
from paretune.report.research.prose import SLOT, Prose, citations, read_prose
from paretune.report.research.schema import Block, Chapter, Edition, ResearchReport, Text
from paretune.report.tables import rows_of
from paretune.report.wording import LANGUAGES, Words

_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)?(?!\w)")
_NOT_PROSE = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$|\[[^\]]*@[^\]]*\]|\{[^}]*\}|<?https?://[^\s)>]*", re.DOTALL
)


def gather_report(folders: Sequence[Path], ledger: Path | None, root: Path) -> ResearchReport:
    """Read studies and ledger, check the claims, fill the prose.

    Raises:
        RecordError: no study's folder, two of one name, a claim that no longer holds, languages that disagree.
        UnknownNameError: a slot or a claim that names nothing.
    """
    studies: dict[str, StudyFacts] = {}
    for folder in study_folders(folders):
        facts = gather(StudyFolder(folder))
        if facts.study.name in studies:
            raise RecordError(said(f"two studies are named {facts.study.name!r}", "each study once"))
        studies[facts.study.name] = facts
    lines = bench_lines(ledger.resolve().parent / FOLDER) if ledger is not None else {}
    claims = judged(load_toml(ledger, Ledger), studies, lines) if ledger is not None else {}
    check_claims(claims)
    prose = {lang: read_prose(lang) for lang in LANGUAGES}
    check_editions(prose)
    rows = {name: rows_of(facts) for name, facts in studies.items()}

    def of(lang: str) -> Parts:
        return Parts(studies, rows, claims, root, Words(lang), lines)

    return ResearchReport(
        editions={lang: _edition(prose[lang], of(lang)) for lang in LANGUAGES},
        claims=list(claims.values()),
        studies={
            name: [run.id for method in facts.scored for _, run in sorted(method.runs.items())]
            for name, facts in studies.items()
        },
    )


def _edition(prose: Sequence[Prose], parts: Parts) -> Edition:
    chapters: list[Chapter] = []
    for one in prose:
        blocks: list[Block] = []
        for part in one.parts:
            found = [Text(markdown=parts.inline(part))] if isinstance(part, str) else parts.filled(part)
            blocks += [block for block in found if block not in blocks[-1:]]  # one study is not measured only once
        chapters.append(Chapter(slug=one.slug, title=one.title, blocks=blocks))
    texts = [block.markdown for chapter in chapters for block in chapter.blocks if isinstance(block, Text)]
    return Edition(
        lang="ru" if parts.words.lang == "ru" else "en",
        title=parts.words.say(
            "Using LoRA adapters effectively to fine-tune language models under limited computing resources"
        ),
        chapters=chapters,
        cited=citations("\n\n".join(texts)),
    )


def check_editions(prose: Mapping[str, Sequence[Prose]]) -> None:
    """Nothing, if both languages have the same chapters, sections, slots, citations and numbers.

    Raises:
        RecordError: where they first disagree.
    """
    first, second = (prose[lang] for lang in LANGUAGES)
    slugs = [[one.slug for one in edition] for edition in (first, second)]
    if slugs[0] != slugs[1]:
        raise RecordError(said(f"chapters {slugs[0]} and {slugs[1]}", "the same in both languages"))
    for one, other in zip(first, second, strict=True):
        for what, found in _COMPARED.items():
            here, there = (Counter(found(chapter, lang)) for chapter, lang in zip((one, other), LANGUAGES, strict=True))
            if here != there:
                odd = [*sorted((here - there).elements()), *sorted((there - here).elements())]
                given = f"{one.slug}: {what} of the two languages differ: {', '.join(odd[:8])}"
                raise RecordError(said(given, "the same in both"))


def _slots(chapter: Prose, lang: str) -> list[str]:
    inside = [found[0] for part in chapter.parts if isinstance(part, str) for found in SLOT.finditer(part)]
    return inside + [f"{{{{{part.kind}:{part.name}}}}}" for part in chapter.parts if not isinstance(part, str)]


def _sections(chapter: Prose, lang: str) -> list[str]:
    return re.findall(r"^#+(?= )", _text(chapter), flags=re.MULTILINE)


def _citations(chapter: Prose, lang: str) -> list[str]:
    return citations(_text(chapter))


def numbers(chapter: Prose, lang: str) -> list[str]:
    """Numbers of the text with a decimal point and ungrouped; formulas, code, citations and addresses are left out."""
    text = _NOT_PROSE.sub(" ", _text(chapter))
    group = r"(?<=\d),(?=\d{3}\b)" if lang == "en" else r"(?<=\d)[ \u00a0\u202f](?=\d{3}\b)"
    return [one.replace(",", ".") for one in _NUMBER.findall(re.sub(group, "", text))]


def _text(chapter: Prose) -> str:
    return "\n\n".join(part for part in chapter.parts if isinstance(part, str))


_COMPARED: Mapping[str, Callable[[Prose, str], list[str]]] = {
    "slots": _slots,
    "sections": _sections,
    "citations": _citations,
    "numbers": numbers,
}
