"""Where a run comes from."""

from __future__ import annotations

import getpass
import json
import platform
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from paretune.repro import provenance as room


def test_it_names_code_versions_and_machine() -> None:
    """Versions are those that are imported; memory is in bytes; the whole is plain JSON."""
    found = room.provenance()
    assert found["versions"]["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["machine"]["cores"] >= 1 and found["machine"]["memory_bytes"] > 2**28
    assert json.loads(json.dumps(found)) == found


def test_no_name_of_person_host_or_folder_is_kept() -> None:
    """Published records say what the machine is, not whose."""
    text = json.dumps(room.provenance())
    secrets = [socket.gethostname(), str(Path.home()), str(Path.cwd())]
    if getpass.getuser() != "root":
        secrets.append(getpass.getuser())
    assert [one for one in secrets if len(one) > 3 and one in text] == []


def test_outside_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git, or outside a checkout, commit and difference are null, and nothing fails."""

    def no_git(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    found = room.provenance()
    assert found["commit"] is None and found["diff_sha256"] is None


def test_a_change_in_no_encoding_is_a_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PDF or a text in another encoding that was changed is hashed as it is, and stops no run."""
    who = ["-c", "user.name=one", "-c", "user.email=one@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        (tmp_path / "a.txt").write_bytes("текст\n".encode("cp1251"))
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(room, "__file__", str(tmp_path / "provenance.py"))
    assert room.provenance()["diff_sha256"] is None
    (tmp_path / "a.txt").write_bytes("другой\n".encode("cp1251"))
    assert len(room.provenance()["diff_sha256"]) == 64


def test_uncommitted_changes_are_a_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean checkout has no difference; a changed one has the hash of its diff."""
    answers = {("rev-parse", "HEAD"): b"abc\n", ("diff", "HEAD"): b""}
    monkeypatch.setattr(room, "_git", lambda *arguments: answers[arguments])
    assert room.provenance()["commit"] == "abc" and room.provenance()["diff_sha256"] is None
    answers["diff", "HEAD"] = b"+ a line"
    first = room.provenance()["diff_sha256"]
    answers["diff", "HEAD"] = b"+ another"
    assert len(first) == 64 and first != room.provenance()["diff_sha256"]
