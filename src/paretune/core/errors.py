"""Every error that paretune raises on purpose, as one tree.

    ParetuneError                 exit 1
    ├── UsageError                exit 2: something that was given cannot be used; nothing was written
    │   ├── ConfigError           a study file or a setting
    │   ├── UnknownNameError      a name that no registry has
    │   ├── DataError             a data file or what stands in it
    │   │   └── LayoutError       a file that one setting (`setting = value`) would make readable
    │   ├── AssetError            a pinned model or corpus: unknown, corrupt, or not to be had
    │   ├── RecordError           a folder that holds no readable records
    │   │   └── NewerRecordError  a record of a newer paretune
    │   ├── StorageError          a folder that cannot be written, a disk that is full
    │   └── BundleError           a bundle that is not whole, not certified, or made for another base model
    └── RunError                  a run that cannot give a result; its reason becomes the run's status
        ├── DivergedError         the loss is not a finite number
        ├── InertAdapterError     training changed nothing, or changed nothing that the output depends on
        └── ReloadError           what was saved gives other outputs than what was trained

A message is one line: what was given, what is allowed, the nearest name, what to do. This module does not print.

    raise ConfigError(said("methods[2].kind = 'lorra'", "a method of `paretune methods`", nearest="lora"))
"""

from __future__ import annotations


class ParetuneError(Exception):
    """Root of the tree; `exit_code` is what the command line leaves with."""

    exit_code = 1


class UsageError(ParetuneError):
    """Something that was given cannot be used."""

    exit_code = 2


class ConfigError(UsageError, ValueError):
    """A study file or a setting is wrong."""


class UnknownNameError(UsageError, LookupError):
    """A name that a registry does not have."""


class DataError(UsageError, ValueError):
    """A data file, or what stands in it, cannot be used."""


class LayoutError(DataError):
    """A data file is laid out otherwise than the settings say; `setting = value` is what would fit."""

    def __init__(self, message: str, setting: str, value: str) -> None:
        super().__init__(message)
        self.setting = setting
        self.value = value


class AssetError(UsageError, RuntimeError):
    """A pinned model or corpus is unknown, corrupt or not to be had."""


class RecordError(UsageError, ValueError):
    """A folder holds no records that can be read."""


class NewerRecordError(RecordError):
    """A record was written by a newer paretune."""


class StorageError(UsageError, OSError):
    """A folder cannot be written, or the disk is full."""


class BundleError(UsageError, ValueError):
    """A bundle is not whole, not certified, or made for another base model."""


class RunError(ParetuneError, RuntimeError):
    """A run cannot give a result."""


class DivergedError(RunError):
    """The loss is not a finite number."""


class InertAdapterError(RunError):
    """Training changed nothing, or nothing that the output depends on."""


class ReloadError(RunError):
    """What was saved gives other outputs than what was trained."""


def said(given: str, allowed: str, *, nearest: str | None = None, do: str | None = None) -> str:
    """One line from what was given, what is allowed, the nearest name and what to do."""
    parts = [f"{given}; expected {allowed}"]
    if nearest:
        parts.append(f"did you mean {nearest!r}?")
    if do:
        parts.append(do)
    return " — ".join(parts).replace("\n", " ")
