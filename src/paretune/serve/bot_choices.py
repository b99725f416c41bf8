"""What each chat chose, adapter and language: in memory and, if a file is given, in a small JSON file.

Not here: texts; they are kept nowhere. The file is written whole by rename and only its owner may read it, since chat
numbers are personal data. What cannot be read is an error at the start, never silently begun anew.

    choices = Choices(Path("bot.json")); choices.change(7, adapter="emotion"); choices.of(7).adapter
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from paretune.core.config import Settings
from paretune.core.errors import StorageError, UsageError, said

MOST_CHATS = 10_000  # the chats that were silent longest are forgotten first


class Choice(Settings):
    """None: not chosen; the bot's default holds."""

    adapter: str | None = None
    language: Literal["ru", "en"] | None = None


class ChoicesFile(Settings):
    """The file: choices by chat number, the latest changed one last."""

    schema_version: Literal[1] = 1
    chats: dict[str, Choice]


class Choices:
    """The choices of all chats; `file` None keeps them for this process only."""

    def __init__(self, file: Path | None = None) -> None:
        """Read what is there.

        Raises:
            UsageError: the file is there and is not one of these.
            StorageError: its folder cannot be written.
        """
        self._file = file
        self._chats: OrderedDict[int, Choice] = OrderedDict()
        if file is not None:
            if file.exists():
                self._chats = _read(file)
            self._write()

    def of(self, chat: int) -> Choice:
        return self._chats.get(chat, Choice())

    def change(
        self,
        chat: int,
        *,
        adapter: str | None = None,
        language: Literal["ru", "en"] | None = None,
    ) -> None:
        """Set what is given; the rest stays.

        Raises:
            StorageError: the file cannot be written; the choice holds in memory all the same.
        """
        old = self.of(chat)
        self._put(chat, Choice(adapter=adapter or old.adapter, language=language or old.language))

    def forget_adapter(self, chat: int) -> None:
        """Back to the default adapter."""
        self._put(chat, Choice(language=self.of(chat).language))

    def _put(self, chat: int, choice: Choice) -> None:
        self._chats[chat] = choice
        self._chats.move_to_end(chat)
        while len(self._chats) > MOST_CHATS:
            self._chats.popitem(last=False)
        self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        tree = ChoicesFile(chats={str(chat): choice for chat, choice in self._chats.items()})
        temporary: str | None = None
        try:
            handle, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=f".{self._file.name}.")  # mode 0600
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(tree.model_dump_json(indent=1, exclude_none=True))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._file)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise StorageError(f"cannot write {self._file}: {error.strerror} — choose another --state file") from error


def _read(file: Path) -> OrderedDict[int, Choice]:
    try:
        tree = ChoicesFile.model_validate_json(file.read_text(encoding="utf-8"))
        return OrderedDict((int(chat), choice) for chat, choice in tree.chats.items())
    except (OSError, ValueError, ValidationError) as error:
        given = f"--state {file} cannot be read ({str(error).splitlines()[0]})"
        raise UsageError(said(given, "a file that `paretune bot` wrote", do="move it away to begin anew")) from error
