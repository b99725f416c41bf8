"""Writes the generated pages of docs/ and the tables of the READMEs, or checks that they are true.

Not here: any fact of its own; a page changes when the command line, a method, a settings model or a record does. The
output does not depend on the terminal, the language or the folder in which it runs.

    python docs/generate.py --check
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

# Help pages must not follow the language of whoever makes them.
os.environ["LC_ALL"] = "C"

import annotated_types
import typer
from performance import performance_page, short_table
from pipe_tables import table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from paretune.cli import app
from paretune.methods.method import METHODS
from paretune.report.answer import answer
from paretune.report.tables import markdown_table
from paretune.study.design import StudyFile
from paretune.study.listing import family_rows, method_rows

DOCS = Path(__file__).parent
BENCHES = DOCS.parent / "results" / "bench"
COLUMNS = 100
MADE_BY = "<!-- Made by docs/generate.py; `make docs` writes it anew. -->"
PLAIN_TYPES = {str: "string", int: "integer", float: "number", bool: "true or false", Any: "any value"}


def code(text: str) -> str:
    return f"`{text}`"


def help_page() -> str:
    """The help of every verb, as the terminal shows it at a width of `COLUMNS`."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    root = typer.Context(group, info_name="paretune", terminal_width=COLUMNS)
    parts = [MADE_BY, "# The command line", fenced(group.get_help(root)), *verb_parts(group, root)]
    return "\n\n".join(parts) + "\n"


def verb_parts(group: typer.core.TyperGroup, parent: typer.Context) -> Iterator[str]:
    """Each verb of a group with its help, and the verbs of those that are groups themselves."""
    for name in group.list_commands(parent):
        verb = group.get_command(parent, name)
        assert verb is not None
        context = typer.Context(verb, info_name=name, parent=parent, terminal_width=COLUMNS)
        yield f"## `{context.command_path}`"
        yield fenced(verb.get_help(context))
        if isinstance(verb, typer.core.TyperGroup):
            yield from verb_parts(verb, context)


def fenced(text: str) -> str:
    return "```text\n" + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n```"


def methods_page() -> str:
    """The table of methods, then the settings of each method that has some."""
    rows = [
        (code(row["kind"]), row["family"], row["summary"], row["learning_rate"], f"<{row['paper']}>")
        for row in method_rows("en")
    ]
    parts = [
        MADE_BY,
        "# Methods",
        "`kind` is what a `[methods.LABEL]` table of a study file names. The learning rate is the default that "
        "`search` multiplies; `learning_rate` in the table replaces it. A baseline has none.",
        table(("kind", "family", "what it does", "learning rate", "source"), rows),
    ]
    parts += families_section()
    for kind in METHODS:
        model = METHODS.load(kind).settings_model
        if model.model_fields:
            parts += [f"## Settings of `{kind}`", described(model), settings_table(model)]
    return "\n\n".join(parts) + "\n"


def families_section() -> list[str]:
    """Which families of models were trained, reloaded, exported and served by a test."""
    rows = [(code(row["type"]), row["examples"], row["path"], row["pooling"]) for row in family_rows("en")]
    return [
        "## Models",
        "Any model that `AutoModel` of transformers loads can be adapted; of an encoder with a decoder the encoder is "
        "taken. Of each family below a small random model is trained (`head`, `lora`, `full`), reloaded, exported "
        "as a bundle, for peft and for transformers, and served with its run's answers by "
        "`tests/integration/test_families.py`. What is not in the list takes the plain path and passes the same checks "
        "of its own run and export. `type` is `model_type` in the model's config.json.",
        table(("type", "models", "path", "pooling where none is said"), rows),
    ]


def settings_page() -> str:
    """Every table of a study file with its keys, types and defaults."""
    parts = [
        MADE_BY,
        "# The study file",
        "An unknown key is an error that suggests the nearest one. The settings of methods are in "
        "[methods.md](methods.md).",
    ]
    for name, field in StudyFile.model_fields.items():
        if model := model_in(field.annotation):
            parts += model_section(name, model)
    parts += [
        "## `[methods.LABEL]`",
        "One table a method; LABEL is its name in the report. `kind` names the method (LABEL itself by default), "
        "`learning_rate` replaces the method's default, and all other keys are the method's own settings.",
    ]
    return "\n\n".join(parts) + "\n"


def model_section(name: str, model: type[BaseModel]) -> list[str]:
    """A settings model as a section, followed by the models inside it."""
    parts = [f"## `[{name}]`", described(model), settings_table(model)]
    for inner, field in model.model_fields.items():
        if found := model_in(field.annotation):
            parts += model_section(f"{name}.{inner}", found)
    return parts


def described(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


def settings_table(model: type[BaseModel]) -> str:
    rows = [(code(name), kind_of(field), default_of(field)) for name, field in model.model_fields.items()]
    return table(("key", "type", "default"), rows)


def is_model(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, BaseModel)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, or may hold."""
    return next((one for one in (annotation, *get_args(annotation)) if is_model(one)), None)


def kind_of(field: FieldInfo) -> str:
    """A field's type and bounds in words."""
    bounds = [bound for one in field.metadata if (bound := bound_of(one))]
    return ", ".join([words_of(field.annotation), *bounds])


def words_of(annotation: Any) -> str:
    """A type in words of the study file; "not set" is said by the default, so None is left out."""
    if annotation in PLAIN_TYPES:
        return PLAIN_TYPES[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(code(json.dumps(value)) for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(words_of(one) for one in inner if one is not NoneType)
    if origin is tuple:
        return f"list of {words_of(inner[0])}s"
    if origin is dict:
        return f"table of name → {words_of(inner[1])}"
    if is_model(annotation):
        return "table"
    raise TypeError(f"docs/generate.py has no words for {annotation!r}; add them to words_of")


def bound_of(constraint: object) -> str | None:
    """One constraint of a field, in signs."""
    if isinstance(constraint, annotated_types.Ge):
        return f"≥ {constraint.ge}"
    if isinstance(constraint, annotated_types.Gt):
        return f"> {constraint.gt}"
    if isinstance(constraint, annotated_types.Le):
        return f"≤ {constraint.le}"
    if isinstance(constraint, annotated_types.Lt):
        return f"< {constraint.lt}"
    if isinstance(constraint, annotated_types.MinLen):
        return f"length ≥ {constraint.min_length}"
    if isinstance(constraint, annotated_types.MaxLen):
        return f"length ≤ {constraint.max_length}"
    return None


def default_of(field: FieldInfo) -> str:
    """A field's default as TOML would write it."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "not set"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple):
        return code("[" + ", ".join(toml(one) for one in value) + "]")
    return code(toml(value))


def toml(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def readme(name: str, lang: str) -> str:
    """A README with the table and the answer of each published study between its marks, and the bench of training."""

    def filled(found: re.Match[str]) -> str:
        folder = DOCS.parent / "results" / found["study"]
        said = "Ещё не опубликовано." if lang == "ru" else "Not published yet."
        if (folder / "study.json").exists():
            said = f"{markdown_table(folder, lang)}\n\n{answer(folder, lang)}"
        return f"<!-- results: {found['study']} -->\n{said}\n<!-- end -->"

    marks = re.compile(r"<!-- results: (?P<study>[\w.-]+) -->\n.*?<!-- end -->", re.DOTALL)
    text = marks.sub(filled, (DOCS.parent / name).read_text(encoding="utf-8"))
    bench = f"<!-- bench: train -->\n{short_table(BENCHES, lang)}\n<!-- end -->"
    return re.sub(r"<!-- bench: train -->\n.*?<!-- end -->", lambda _: bench, text, flags=re.DOTALL)


PAGES: dict[str, Callable[[], str]] = {
    "docs/cli.md": help_page,
    "docs/methods.md": methods_page,
    "docs/settings.md": settings_page,
    "docs/performance.md": lambda: f"{MADE_BY}\n\n{performance_page(BENCHES)}\n",
    "README.md": lambda: readme("README.md", "en"),
    "README.ru.md": lambda: readme("README.ru.md", "ru"),
}


def first_difference(old: str, new: str) -> str:
    """The first line that differs, with its sign."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return next(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the generated pages and tables.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page differs")
    check = parser.parse_args(arguments).check
    drifted = 0
    for name, page in PAGES.items():
        path, new = DOCS.parent / name, page()
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old == new:
            continue
        if check:
            drifted += 1
            print(f"{name} differs from code or records at {first_difference(old, new)!r}; run `make docs`")
        else:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
