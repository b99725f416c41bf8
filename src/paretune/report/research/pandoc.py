"""Markdown → HTML or Typst, through pandoc (https://pandoc.org), whose binary comes with `pypandoc_binary`.

Not here: what the Markdown says. Formulas become MathML in HTML and Typst's own mathematics in a PDF.

    converted("# Title\n\n$x^2$", "typst")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pypandoc

from paretune.core.errors import RecordError, said

FROM = "markdown-yaml_metadata_block"


def converted(markdown: str, to: Literal["html5", "typst"], options: Sequence[str] = ()) -> str:
    """The whole text in another form.

    Raises:
        RecordError: pandoc cannot read it; its own words are in the message.
    """
    try:
        return pypandoc.convert_text(markdown, to, format=FROM, extra_args=["--wrap=none", *options])
    except RuntimeError as error:
        raise RecordError(said(f"the prose cannot be converted: {str(error).strip()[:200]}", "Markdown")) from error


def raw(form: Literal["html", "typst"], text: str) -> str:
    """A block that pandoc passes on as it is."""
    fence = "`" * 12
    return f"{fence}{{={form}}}\n{text}\n{fence}"
