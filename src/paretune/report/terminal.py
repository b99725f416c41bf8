"""How tables and sentences fit a terminal of any width.

Not here: what stands in a table (`tables.py`, `token_table.py`), nor encodings (`core/encodings.py`). A table that is
too wide first puts each interval on a line of its own, then becomes one block a row; nothing is cut off and no name is
shortened.

    print("\n".join(fitted(terminal_table(folder, "en"), 40)))
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

LEAST_COLUMNS = 20


def fitted(table: Table, columns: int) -> list[str]:
    """The lines of a table that fit so many columns, without colours."""
    found = _fitting(table, max(columns, LEAST_COLUMNS))
    if found is None:
        return _blocks(table, max(columns, LEAST_COLUMNS))
    sink = io.StringIO()
    Console(file=sink, width=max(columns, LEAST_COLUMNS), color_system=None).print(found)
    return [line.rstrip() for line in sink.getvalue().splitlines()]


def print_table(table: Table, console: Console) -> None:
    """Print a table as wide as the terminal allows, in colour where it has any."""
    columns = max(console.width, LEAST_COLUMNS)
    found = _fitting(table, columns)
    if found is not None:
        console.print(found)
        return
    for line in _blocks(table, columns):
        console.print(Text(line), soft_wrap=True)


def wrapped(text: str, columns: int, indent: str = "  ", first: str = "") -> list[str]:
    """A sentence for so many columns, its further lines set in; a word that is longer stays whole.

    `first` stands before the first line and counts among the columns, as `indent` does.
    """
    return textwrap.wrap(
        text,
        max(columns, LEAST_COLUMNS),
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _fitting(table: Table, columns: int) -> Table | None:
    """The table with its columns as wide as they may be, its intervals folded if need be; None where it is too wide."""
    for folded, gap in ((False, 2), (True, 2), (True, 1)):
        cells = [
            [_folded(cell) if folded else _as_text(cell) for cell in (column.header, *column.cells)]
            for column in table.columns
        ]
        widths = _widths([column.no_wrap for column in table.columns], cells, columns, gap)
        if widths is None:
            continue
        found = Table(title=_title(table, columns), title_justify="left", box=None, pad_edge=False,
                      collapse_padding=gap == 1, header_style="bold")  # fmt: skip
        for column, texts, width in zip(table.columns, cells, widths, strict=True):
            found.add_column(texts[0], justify=column.justify, width=width)
        for row in zip(*(texts[1:] for texts in cells), strict=True):
            found.add_row(*row)
        return found
    return None


def _title(table: Table, columns: int) -> str | None:
    return "\n".join(wrapped(_as_text(table.title).plain, columns)) if table.title else None


def _widths(whole: Sequence[bool], cells: Sequence[Sequence[Text]], columns: int, gap: int) -> list[int] | None:
    """Widths of columns: `whole` ones as they are, the others between their longest word and their longest line."""
    natural = [max(cell_len(line) for text in texts for line in (text.plain.split("\n"))) for texts in cells]
    words = [max((cell_len(word) for text in texts for word in text.plain.split()), default=1) for texts in cells]
    found = [lines if keep else word for keep, lines, word in zip(whole, natural, words, strict=True)]
    room = columns - sum(found) - gap * (len(found) - 1)
    if room < 0:
        return None
    for place, lines in enumerate(natural):
        more = min(room, lines - found[place])
        found[place], room = found[place] + more, room - more
    return found


def _folded(cell: object) -> Text:
    """The same cell with every "[low … high]" on a line of its own."""
    text = _as_text(cell).copy()
    text.plain = text.plain.replace(" [", "\n[")
    return text


def _as_text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def _blocks(table: Table, columns: int) -> list[str]:
    """One block a row: the name, and below it each column's head with its value."""
    heads = [" ".join(_as_text(column.header).plain.split()) for column in table.columns]
    lines = wrapped(_as_text(table.title).plain, columns) if table.title else []
    for row in zip(*(list(column.cells) for column in table.columns), strict=True):
        cells = [" ".join(_as_text(cell).plain.split()) for cell in row]
        name = next((place for place, head in enumerate(heads) if head), 0)  # a rank has no head: it stands before
        lines += wrapped(" ".join(cell for cell in cells[: name + 1] if cell), columns)
        for head, cell in zip(heads[name + 1 :], cells[name + 1 :], strict=True):
            if cell:
                lines += wrapped(f"{head}: {cell}", columns, "    ", "  ")
    return lines


def block_lines(name: str, parts: Sequence[str], columns: int) -> list[str]:
    """A name with its parts below it, each wrapped and set in."""
    lines = wrapped(name, columns)
    for part in parts:
        lines += wrapped(part, columns, "    ", "  ")
    return lines
