"""What `paretune export --to` takes: forms of a trained model, tools that keep records; and which options fit which.

Not here: how any of them is written (`export.py`, `records/exporters/`).

    check_target("csv", {"--best": False, "--int8": False})
"""

from __future__ import annotations

from collections.abc import Mapping

from paretune.core.config import nearest
from paretune.core.errors import ConfigError, said
from paretune.export.snippets import To
from paretune.records.exporters.export import TARGETS

FORMS: tuple[To, ...] = ("bundle", "peft", "merged")
ALLOWED: tuple[str, ...] = (*FORMS, *TARGETS)
FITS: Mapping[str, tuple[To, ...]] = {
    "--best": FORMS,
    "--memory": FORMS,
    "--time": FORMS,
    "--no-inference": FORMS,
    "--measure-all": FORMS,
    "--target-risk": ("bundle",),
    "--int8": ("merged",),
}


def check_target(to: str, given: Mapping[str, bool]) -> str:
    """The target itself; `given` says of options whether they were used.

    Raises:
        ConfigError: no such target, or an option that it has no use for.
    """
    if to not in ALLOWED:
        allowed = f"one of {', '.join(FORMS)} (a model) or {', '.join(TARGETS)} (the study's records)"
        raise ConfigError(said(f"--to {to}", allowed, nearest=nearest(to, ALLOWED)))
    for option, forms in FITS.items():
        if given.get(option) and to not in forms:
            *first, last = forms
            allowed = f"{option} with --to {', '.join(first)} or {last}" if first else f"{option} with --to {last}"
            raise ConfigError(said(f"{option} with --to {to}", allowed, do="leave it out"))
    return to
