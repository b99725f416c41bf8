"""What fills the slots of the prose: tables and figures of studies, sentences of claims, files of the repository.

Not here: the tables and figures themselves (`sheets.py`, `figures.py` and their like). A slot is named after its study,
"r8/quality"; one whose study is not there becomes the words "not measured". "*/next" is of all studies together, and
"data-size-*/amount" of those of such names; "bench/serve" is a published line of a bench.

    Parts({"r8": facts}, {"r8": rows_of(facts)}, claims, Path.cwd(), Words("ru")).filled(Slot("table", "r8/quality"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from paretune.core.config import nearest
from paretune.core.errors import UnknownNameError, said
from paretune.report import cost_sheets, ink, sheets
from paretune.report.amounts import amount_figure, amount_sheet
from paretune.report.answer import answer_of
from paretune.report.bench_lines import FOLDER as BENCH
from paretune.report.bench_lines import BenchLine
from paretune.report.bench_sheets import bench_sheet
from paretune.report.budgets import budget_sheet
from paretune.report.claims import Judged
from paretune.report.confusion import confusion_figures
from paretune.report.curves import curve_figure
from paretune.report.decide import decide_sheet, next_sheet
from paretune.report.effect_figures import effect_figure
from paretune.report.effect_sheets import advice_of, effect_sheets, pairs_of
from paretune.report.exploration_figures import exploration_figures
from paretune.report.exploration_sheets import overview_sheet, suspects_sheet
from paretune.report.factors import effects_of, groups_of
from paretune.report.facts import StudyFacts
from paretune.report.figures import difference_figure, quality_figure
from paretune.report.forgetting import forgetting_sheet
from paretune.report.front import front_figures
from paretune.report.inference_sheets import inference_sheets
from paretune.report.latency import latency_figure
from paretune.report.rare_classes import rare_classes_sheet
from paretune.report.research.prose import SLOT, Slot
from paretune.report.research.schema import Block, Figure, Listing, Table, Text
from paretune.report.sheets import Cell, Sheet
from paretune.report.tables import MethodRow
from paretune.report.wording import Words

MakerT = TypeVar("MakerT")


@dataclass(frozen=True)
class Parts:
    """Everything that may be asked for; `rows` are summaries by study, `bench` published lines, `root` is where the
    repository's files lie.
    """

    studies: Mapping[str, StudyFacts]
    rows: Mapping[str, list[MethodRow]]
    claims: Mapping[str, Judged]
    root: Path
    words: Words
    bench: Mapping[str, BenchLine] = field(default_factory=dict[str, BenchLine])

    def filled(self, slot: Slot) -> list[Block]:
        """The blocks that stand in a slot.

        Raises:
            UnknownNameError: a table, figure or claim that there is not.
        """
        if slot.kind == "file":
            return [self._listing(slot.name)]
        if slot.kind == "claim":
            return [Text(markdown=self.sentence(slot.name))]
        study, _, name = slot.name.partition("/")
        if study == BENCH and slot.kind == "table":
            line = self.bench.get(name)
            return [table_of(bench_sheet(line, self.words)) if line else Text(markdown=self._not_measured(slot.name))]
        if "*" in study:
            return self._of_several(slot, study, name)
        facts = self.studies.get(study)
        if facts is None:
            return [Text(markdown=self._not_measured(study))]
        if slot.kind == "answer":
            return [Text(markdown=answer_of(facts, self.rows[facts.study.name], self.words))]
        if slot.kind == "advice":
            return [Text(markdown=advice_of(facts, self.words, pairs_of(name)))]
        found = self._tables(facts) if slot.kind == "table" else self._figures(facts)
        blocks = _known(slot, name, found)(name)
        return list(blocks) if blocks else [Text(markdown=self._not_measured(slot.name))]

    def _of_several(self, slot: Slot, pattern: str, name: str) -> list[Block]:
        """A table or figure over the studies whose names fit a pattern."""
        found = _known(slot, name, self._joint_tables() if slot.kind == "table" else self._joint_figures())
        studies = [facts for study, facts in self.studies.items() if fnmatchcase(study, pattern)]
        blocks = found(studies) if studies else []
        return list(blocks) if blocks else [Text(markdown=self._not_measured(slot.name))]

    def _joint_tables(self) -> dict[str, Callable[[Sequence[StudyFacts]], list[Table]]]:
        words = self.words

        def of(made: Sheet | None) -> list[Table]:
            return [table_of(made)] if made is not None else []

        return {
            "next": lambda studies: of(next_sheet(studies, words)),
            "amount": lambda studies: of(amount_sheet(studies, words)),
        }

    def _joint_figures(self) -> dict[str, Callable[[Sequence[StudyFacts]], list[Figure]]]:
        def amount(studies: Sequence[StudyFacts]) -> list[Figure]:
            made = amount_figure(studies, self.words)
            return [figure_of("", made)] if made is not None else []

        return {"amount": amount}

    def inline(self, markdown: str) -> str:
        """A text with its claims' sentences put in."""
        return SLOT.sub(lambda found: self.sentence(found[2]) if found[1] == "claim" else found[0], markdown)

    def sentence(self, claim: str) -> str:
        """A claim's sentence with its figures, which was written for the verdict that stands in the ledger.

        Raises:
            UnknownNameError: no claim of that name is in the ledger.
        """
        if not self.claims:
            return self._not_measured(claim)
        if claim not in self.claims:
            raise UnknownNameError(said(f"claim {claim!r}", "one of the ledger", nearest=nearest(claim, self.claims)))
        return self.claims[claim].sentence(self.words)

    def _not_measured(self, what: str) -> str:
        return self.words.say("{what}: not measured.", {"what": f"`{what}`"})

    def _listing(self, name: str) -> Listing:
        file = self.root / name
        text = file.read_text(encoding="utf-8") if file.is_file() else self.words.say("not measured")
        return Listing(name=name, language=file.suffix.removeprefix(".") or "dockerfile", text=text)

    def _tables(self, facts: StudyFacts) -> dict[str, Callable[[str], list[Table]]]:
        """By the beginning of a name; what stands after a dash, such as a split, is the maker's to read."""
        words, rows = self.words, self.rows[facts.study.name]
        group = next(iter(groups_of(facts)), None)

        def of(*made: Sheet | None) -> list[Table]:
            return [table_of(one, facts.study.name) for one in made if one is not None]

        def split(name: str) -> Sheet:
            return sheets.scores_sheet(facts, rows, words, name.partition("-")[2] or "test")

        def effects(name: str) -> list[Sheet]:
            if group is None:
                return []
            return effect_sheets(facts, group, effects_of(facts, group, pairs_of(name.partition("-")[2])), words)

        exploration = facts.exploration
        return {
            "effects": lambda name: of(*effects(name)),
            "quality": lambda name: of(sheets.quality_sheet(facts, rows, words)),
            "resources": lambda name: of(cost_sheets.resources_sheet(rows, words)),
            "budgets": lambda name: of(budget_sheet(facts, words)),
            "decide": lambda name: of(decide_sheet(facts, words)),
            "latency": lambda name: of(cost_sheets.latency_sheet(rows, words)),
            "search": lambda name: of(cost_sheets.search_sheet(facts, words)),
            "phases": lambda name: of(cost_sheets.phases_sheet(facts, words)),
            "scores": lambda name: of(split(name)),
            "settings": lambda name: of(sheets.settings_sheet(facts.study, words)),
            "data": lambda name: of(overview_sheet(exploration, words) if exploration else None),
            "cleaning": lambda name: of(sheets.cleaning_sheet(exploration.cleaning, words) if exploration else None),
            "suspects": lambda name: of(suspects_sheet(exploration, words) if exploration else None),
            "forgetting": lambda name: of(forgetting_sheet(facts, rows, words)),
            "rare": lambda name: of(rare_classes_sheet(facts, rows, words)),
            "inference": lambda name: of(*(inference_sheets(facts.inference, words) if facts.inference else [])),
        }

    def _figures(self, facts: StudyFacts) -> dict[str, Callable[[str], list[Figure]]]:
        words = self.words
        rows = self.rows[facts.study.name]
        group = next(iter(groups_of(facts)), None)
        exploration = facts.exploration

        def effects(name: str) -> ink.Figure | None:
            pairs = pairs_of(name.partition("-")[2])
            return effect_figure(facts, group, effects_of(facts, group, pairs), words) if group else None

        def of(*made: ink.Figure | None) -> list[Figure]:
            return [figure_of(facts.study.name, one) for one in made if one is not None]

        def named(found: list[ink.Figure], name: str) -> list[Figure]:
            """Those of a list whose own name ends as the slot's does."""
            wanted = name.partition("-")[2]
            return of(*(one for one in found if not wanted or one.name.endswith(wanted)))

        return {
            "effects": lambda name: of(effects(name)),
            "quality": lambda name: of(quality_figure(facts, words)),
            "difference": lambda name: of(difference_figure(facts, rows, words)),
            "front": lambda name: named(front_figures(facts, words), name),
            "curves": lambda name: of(curve_figure(facts, words)),
            "latency": lambda name: of(latency_figure(rows, words)),
            "confusion": lambda name: named(confusion_figures(facts, words), name),
            "data": lambda name: named(exploration_figures(exploration, words) if exploration else [], name),
        }


def _known(slot: Slot, name: str, found: Mapping[str, MakerT]) -> MakerT:
    """What makes the blocks of a slot, by the beginning of its name.

    Raises:
        UnknownNameError: nothing does.
    """
    made = found.get(name, found.get(name.partition("-")[0]))
    if made is None:
        allowed = "one of " + ", ".join(found) if found else "none yet"
        raise UnknownNameError(said(f"{slot.kind} {slot.name!r}", allowed, nearest=nearest(name, found)))
    return made


def table_of(sheet: Sheet, study: str = "") -> Table:
    """A sheet as a block; its title names its study."""
    title = f"{study}: {sheet.title}" if study else sheet.title

    def cell(one: Cell) -> tuple[str, str]:
        return one.text, one.note

    rows = [[cell(one) for one in row] for row in sheet.rows]
    return Table(title=title, columns=list(sheet.columns), rows=rows, notes=list(sheet.notes))


def figure_of(study: str, figure: ink.Figure) -> Figure:
    """A page's figure as a block, as it is drawn for a wide screen; its title names its study."""
    return Figure(
        name=f"{study}-{figure.name}" if study else figure.name,
        title=f"{study}: {figure.title}" if study else figure.title,
        caption=figure.caption,
        spec=figure.wide,
        data=table_of(figure.sheet),
    )
