"""Which study file a folder of runs belongs to: two files with one name must not share a folder in silence.

A file may be edited, and moved; a second one that is there beside the first is refused. What lies here stays with the
runs and is not published. Not here: which runs belong to a study (`records/membership.py`).

    claim(read_study_file(Path("studies/demo.toml")), StudyFolder(Path("runs/demo")))
"""

from __future__ import annotations

from pathlib import Path

from paretune.core.config import Settings, canonical_hash
from paretune.core.errors import ConfigError, RecordError, said
from paretune.records.store import StudyFolder, read_record, write_atomically
from paretune.study.design import Study

ORIGIN_FILE = "study_file.json"


class Origin(Settings):
    """A study file by its real path; `content` is the hash of its settings and of where its data lie."""

    path: str
    content: str


def claim(study: Study, folder: StudyFolder) -> None:
    """Note that a folder belongs to this study file.

    Raises:
        ConfigError: it belongs to another one that is still there and says something else.
    """
    path = folder.path / ORIGIN_FILE
    own = Origin(path=str(study.path), content=_content(study))
    known = _known(path)
    if known == own:
        return
    if known is not None and known.path != own.path and known.content != own.content and Path(known.path).is_file():
        given = f"{study.path} names its study {study.header.name!r}, and {folder.path} belongs to {known.path}"
        do = (
            "change `name` in one of the files, or give --runs another folder; "
            f"where the first file takes the place of the second, delete {path}"
        )
        raise ConfigError(said(given, "one study file for each folder", do=do))
    write_atomically(path, own.model_dump_json(indent=1))


def _known(path: Path) -> Origin | None:
    try:
        return read_record(path, Origin) if path.exists() else None
    except RecordError:
        return None  # torn: nothing is known, as in a folder from before there was such a file


def _content(study: Study) -> str:
    data = [study.file.data, *([study.file.earlier.data] if study.file.earlier else [])]
    references = [one for spec in data for one in (spec.train, spec.test, *spec.extra_tests.values()) if one]
    files = [str((study.base / one.removeprefix("path:")).resolve()) for one in references if one.startswith("path:")]
    return canonical_hash({"settings": study.spec_hash, "files": files})
