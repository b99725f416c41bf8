"""The table of lazy names."""

from __future__ import annotations

import pytest

from paretune.core.errors import UnknownNameError
from paretune.core.registry import Registry

TOYS = Registry("toy", {"ordered": "collections:OrderedDict", "broken": "paretune.no_such_module:Thing"})


def test_a_name_loads_only_when_asked() -> None:
    """A broken entry does not matter until it is loaded."""
    from collections import OrderedDict

    assert list(TOYS) == ["ordered", "broken"] and "ordered" in TOYS and "other" not in TOYS
    assert TOYS.load("ordered") is OrderedDict
    with pytest.raises(ModuleNotFoundError):
        TOYS.load("broken")


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    """The word for the thing, all names, and the one that was meant."""
    with pytest.raises(UnknownNameError) as caught:
        TOYS.load("orderd")
    assert str(caught.value) == "unknown toy 'orderd'; expected one of ordered, broken — did you mean 'ordered'?"
    with pytest.raises(UnknownNameError) as caught:
        TOYS.check("zzz")
    assert "did you mean" not in str(caught.value)


def test_every_entry_of_every_table_loads() -> None:
    """No registry of the package has a line that leads nowhere."""
    from paretune.methods.method import METHODS, Method
    from paretune.tasks.task import TASKS, Task

    assert all(issubclass(METHODS.load(name), Method) for name in METHODS)
    assert all(issubclass(TASKS.load(name), Task) for name in TASKS)
