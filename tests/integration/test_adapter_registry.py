"""The registry on a real engine: loads, names, versions, unloading under load, and what survives a crash."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from served import digest_of, make, parts, write_bundle
from toy_bundles import toy_bundle

from paretune.core.errors import BundleError, ConfigError, StorageError, UnknownNameError
from paretune.serve import registry as registry_module
from paretune.serve.aliases import Aliases
from paretune.serve.engine import Engine, Row
from paretune.serve.entries import Entries, Entry
from paretune.serve.names import id_of, is_id, without_paths
from paretune.serve.registry import BusyError, NameTakenError, NoAdapterError, Registry
from paretune.serve.resident import Answer
from paretune.serve.scheduler import Scheduler
from paretune.serve.shelf import Shelf

TEXT = "loan rate credit of the bank"


@pytest.fixture(scope="module")
def bundles(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three bundles, two of them with the same labels."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "one": make(tiny_model, folder / "one", seed=1),
        "two": make(tiny_model, folder / "two", seed=2),
        "yesno": make(tiny_model, folder / "yesno", seed=3, labels=("no", "yes")),
    }


@pytest.fixture
def service(bundles: dict[str, Path], tmp_path: Path) -> Generator[tuple[Engine, Scheduler, Registry]]:
    """A registry that serves "one" under its name."""
    engine, scheduler, registry = parts(tmp_path / "home", {"one": bundles["one"]})
    yield engine, scheduler, registry
    scheduler.close()
    registry.close()


def into_inbox(registry: Registry, bundle: Path, name: str) -> Path:
    return Path(shutil.copytree(bundle, registry.shelf.inbox / name))


def ask(engine: Engine, scheduler: Scheduler, digest: str, text: str = TEXT) -> Answer:
    outcome = scheduler.submit([Row(digest, engine.tokens(digest, [text])[0])]).result(30)[0]
    assert isinstance(outcome, Answer), outcome
    return outcome


def test_a_bundle_of_the_inbox_is_loaded_under_its_id(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path]
) -> None:
    """Its digest is the manifest's, its name the inbox id, and it answers."""
    engine, scheduler, registry = service
    into_inbox(registry, bundles["two"], "two")
    entry = registry.load("two").result(30)
    assert (entry.state, entry.digest) == ("ready", digest_of(bundles["two"]))
    assert registry.resolve("two", TEXT) == entry.digest == registry.resolve(entry.digest or "", TEXT)
    assert ask(engine, scheduler, digest_of(bundles["two"])).digest == entry.digest


def test_two_loads_at_once_are_one(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """9: whoever asks while a load runs waits for that load; goldens are replayed once."""
    engine, _, registry = service
    into_inbox(registry, bundles["two"], "two")
    checked: list[str] = []
    real = engine.check

    def check(bundle, certified=True):
        checked.append(bundle.digest)
        time.sleep(0.2)
        real(bundle, certified)

    monkeypatch.setattr(engine, "check", check)
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda _: registry.load("two").result(30), range(8)))
    assert {entry.digest for entry in entries} == {digest_of(bundles["two"])}
    assert checked == [digest_of(bundles["two"])]


def test_unknown_ids_and_forbidden_names_are_not_looked_up(service: tuple[Engine, Scheduler, Registry]) -> None:
    """23: nothing but an id of the inbox or a digest of the store can be loaded; an alias is never a digest."""
    registry = service[2]
    (registry.shelf.home / "secret").mkdir()
    for name in ("", " ", "../secret", "/etc", "a/b", "a\0b", "A", "x" * 65, "ѕecret", ".hidden", "nothere", "f" * 64):
        with pytest.raises(NoAdapterError):
            registry.load(name, "x")
    into_inbox(registry, registry.shelf.adapters / registry.ready()[0].digest, "good")
    for alias in ("f" * 64, "../x", "", "A b"):
        if alias:
            with pytest.raises(BundleError):
                registry.load("good", alias)
            with pytest.raises(BundleError):
                registry.set_alias(alias, {registry.ready()[0].digest: 1})


def test_a_link_in_the_inbox_is_refused(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path], tmp_path: Path
) -> None:
    """23: neither a linked bundle nor a bundle with a linked file is followed."""
    registry = service[2]
    (registry.shelf.inbox / "linked").symlink_to(bundles["two"])
    with pytest.raises(BundleError, match="link"):
        registry.load("linked")
    copy = into_inbox(registry, bundles["two"], "inside")
    (copy / "README.md").unlink()
    (copy / "README.md").symlink_to("/etc/passwd")
    entry = registry.load("inside").result(30)
    assert entry.state == "failed" and "symlink" in entry.reason


def test_bad_bundles_fail_alone(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """7, 21: missing, cut, changed and unreadable bundles fail with a reason while good traffic has no failure."""
    engine, scheduler, registry = service
    digest = digest_of(bundles["one"])
    before = ask(engine, scheduler, digest)
    stop = threading.Event()
    answers: list[Answer] = []

    def traffic() -> None:
        while not stop.is_set():
            answers.append(ask(engine, scheduler, digest))

    thread = threading.Thread(target=traffic)
    thread.start()
    cut = into_inbox(registry, bundles["two"], "cut")
    (cut / "adapter.safetensors").write_bytes((cut / "adapter.safetensors").read_bytes()[:-10])
    changed = into_inbox(registry, bundles["two"], "changed")
    (changed / "head.safetensors").write_bytes(b"\0" * (changed / "head.safetensors").stat().st_size)
    into_inbox(registry, bundles["two"], "missing")
    (registry.shelf.inbox / "missing" / "goldens.json").unlink()
    (registry.shelf.inbox / "empty").mkdir()
    for _ in range(6):
        for name in ("cut", "changed", "missing", "empty"):
            entry = registry.load(name).result(30)
            assert entry.state == "failed" and entry.reason and "/" not in entry.reason, entry
        with pytest.raises(NoAdapterError):
            registry.load("nothing")
    into_inbox(registry, bundles["two"], "good")
    assert registry.load("good").result(30).state == "ready"
    stop.set()
    thread.join(30)
    assert len(answers) > 3
    assert all(one.probabilities == pytest.approx(before.probabilities, abs=1e-4) for one in answers)
    failed = [entry.id for entry in registry.entries() if entry.state == "failed"]
    assert sorted(failed) == ["changed", "cut", "empty", "missing"]


def test_goldens_that_differ_are_refused(
    service: tuple[Engine, Scheduler, Registry], tiny_model: Path, tmp_path: Path
) -> None:
    """A bundle whose golden answers this engine does not give is not served, nor one that was made for another base."""
    registry = service[2]
    toy = toy_bundle(tiny_model, "lora", {"rank": 2}, seed=9)
    rows = [row.model_copy(update={"probabilities": row.probabilities[::-1]}) for row in toy.bundle.goldens.rows]
    goldens = toy.bundle.goldens.model_copy(update={"rows": rows})
    wrong = replace(toy, bundle=replace(toy.bundle, goldens=goldens))
    write_bundle(wrong, registry.shelf.inbox / "wrong")
    write_bundle(toy.with_manifest(base_digest="0" * 64), registry.shelf.inbox / "otherbase")
    for name, word in (("wrong", "golden"), ("otherbase", "base model")):
        entry = registry.load(name).result(30)
        assert (entry.state, entry.fault) == ("failed", "bundle") and word in entry.reason
        with pytest.raises(NoAdapterError):
            registry.resolve(name, TEXT)


def test_a_full_disk_and_a_forbidden_folder_fail_a_load_only(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """21: a load that cannot be written is failed with its reason and leaves no part; the next one works."""
    registry = service[2]
    into_inbox(registry, bundles["two"], "two")
    real = shutil.copyfileobj

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    entry = registry.load("two").result(30)
    assert (entry.state, entry.fault) == ("failed", "server") and "No space left" in entry.reason
    assert [one.name for one in registry.shelf.adapters.iterdir()] == [registry.ready()[0].digest]
    monkeypatch.setattr(shutil, "copyfileobj", real)
    assert registry.load("two").result(30).state == "ready"
    assert [one for one in registry.entries() if one.state == "failed"] == []

    def forbidden(*_: object, **__: object) -> None:
        raise StorageError("cannot write index.json: Permission denied")

    monkeypatch.setattr("paretune.serve.entries.write_atomically", forbidden)
    into_inbox(registry, bundles["yesno"], "yesno")
    entry = registry.load("yesno").result(30)
    assert entry.state == "failed" and "Permission denied" in entry.reason
    with pytest.raises(NoAdapterError):
        registry.resolve("yesno", TEXT)
    assert registry.resolve("one", TEXT)


def test_unloading_waits_for_requests_under_way(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path]
) -> None:
    """10: a leased digest answers to the end with its weights, new requests find nothing, then its slot is free."""
    engine, scheduler, registry = service
    digest = digest_of(bundles["one"])
    before = ask(engine, scheduler, digest)
    with registry.lease([("one", TEXT)]) as found:
        leaving = registry.unload("one")
        with pytest.raises(NoAdapterError):
            registry.resolve("one", TEXT)
        with pytest.raises(NoAdapterError), registry.lease([(digest, TEXT)]):
            pass
        assert not leaving[0].done()
        assert [entry.state for entry in registry.entries()] == ["draining"]
        assert ask(engine, scheduler, found[0].digest).probabilities == before.probabilities
    assert leaving[0].result(30).state == "unloaded"
    assert engine.resident() == []
    again = registry.load(digest, "back").result(30)
    assert again.state == "ready" and registry.resolve("back", TEXT) == digest


def test_a_name_leaves_its_digest_where_another_name_points_to_it(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path]
) -> None:
    """Unloading one of two names unloads no weights; unloading the digest takes it out of every name."""
    registry = service[2]
    digest = digest_of(bundles["one"])
    registry.set_alias("also", {digest: 1})
    assert registry.unload("one") == []
    assert registry.resolve("also", TEXT) == digest
    assert [one.result(30).digest for one in registry.unload(digest)] == [digest]
    assert registry.aliases.names() == []
    for name in ("one", digest, "never"):
        with pytest.raises(NoAdapterError):
            registry.unload(name)


def test_weights_split_texts_and_a_text_keeps_its_version(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path]
) -> None:
    """An A/B name gives each text always the same digest, and about the share of texts that the weights say."""
    registry = service[2]
    registry.add(bundles["two"], "two")
    first, second = digest_of(bundles["one"]), digest_of(bundles["two"])
    registry.set_alias("ab", {first: 9, second: 1})
    picked = [registry.resolve("ab", f"text {number}") for number in range(1000)]
    assert picked == [registry.resolve("ab", f"text {number}") for number in range(1000)]
    assert 60 < picked.count(second) < 140
    registry.set_alias("ab", {second: 1})
    assert {registry.resolve("ab", f"text {number}") for number in range(50)} == {second}
    registry.rollback("ab")
    assert registry.resolve("ab", "text 0") == picked[0]
    with pytest.raises(BundleError, match="never changed"):
        registry.rollback("ab")
    with pytest.raises(NoAdapterError):
        registry.rollback("never")
    with pytest.raises(NoAdapterError):
        registry.set_alias("ab", {"f" * 64: 1})


def test_a_rollback_to_what_is_unloaded_is_refused(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path]
) -> None:
    """A name never points to a digest that does not answer."""
    registry = service[2]
    registry.add(bundles["two"], "two")
    second = digest_of(bundles["two"])
    registry.set_alias("one", {second: 1})
    for one in registry.unload(digest_of(bundles["one"])):
        one.result(30)
    with pytest.raises(BundleError, match="not loaded"):
        registry.rollback("one")
    assert registry.resolve("one", TEXT) == second


def test_without_in_place_a_name_in_use_stays(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path]
) -> None:
    """vLLM's `load_inplace`: a taken name is refused without it, and replaced with it."""
    registry = service[2]
    into_inbox(registry, bundles["two"], "two")
    refused = registry.load("two", "one", in_place=False).result(30)
    assert refused.state == "failed" and "load_inplace" in refused.reason
    assert registry.resolve("one", TEXT) == digest_of(bundles["one"])
    assert registry.load("two", "one", in_place=True).result(30).state == "ready"
    assert registry.resolve("one", TEXT) == digest_of(bundles["two"])
    assert issubclass(NameTakenError, BundleError)


def test_waiting_loads_are_bounded(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond so many loads the next is told to come again, and all that wait still end."""
    _, _, registry = service
    monkeypatch.setattr(registry_module, "MAX_WAITING_LOADS", 2)
    hold = threading.Event()
    into_inbox(registry, bundles["two"], "two")
    registry._loader.submit(hold.wait, 30)
    waiting = [registry.load("two", "a"), registry.load("two", "b")]
    with pytest.raises(BusyError):
        registry.load("two", "c")
    hold.set()
    assert [one.result(30).state for one in waiting] == ["ready", "ready"]


def test_a_restart_finds_everything_again(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Adapters, names, weights and history are the same; what was damaged meanwhile is failed, not served."""
    home = tmp_path / "home"
    _, scheduler, registry = parts(home, {"one": bundles["one"], "yesno": bundles["yesno"]})
    registry.add(bundles["two"], "two")
    second = digest_of(bundles["two"])
    registry.set_alias("one", {digest_of(bundles["one"]): 3, second: 1})
    for one in registry.unload("two"):
        one.result(30)
    for one in registry.unload(digest_of(bundles["yesno"])):
        one.result(30)
    names = {name: registry.aliases.get(name) for name in registry.aliases.names()}
    scheduler.close()
    with pytest.raises(ConfigError, match="another server"):
        Registry(home, registry._engine, scheduler)
    registry.close()
    (home / "adapters" / second / "head.safetensors").write_bytes(b"no")
    (home / "adapters" / ".part-left").mkdir()
    _, scheduler, registry = parts(home, {"one": bundles["one"]})
    try:
        assert {name: registry.aliases.get(name) for name in registry.aliases.names()} == names
        states = {entry.digest: entry.state for entry in registry.entries()}
        assert states == {
            digest_of(bundles["one"]): "ready",
            digest_of(bundles["yesno"]): "unloaded",
            second: "failed",
        }
        assert not (home / "adapters" / ".part-left").exists()
    finally:
        scheduler.close()
        registry.close()


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from served import parts
from paretune.records import store
home, first, second, after = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
engine, scheduler, registry = parts(home, {{"one": first}})
calls, real = 0, os.replace
def replaced(*names):
    global calls
    calls += 1
    if calls == after:
        os.kill(os.getpid(), 9)
    real(*names)
os.replace = os.rename = replaced
registry.add(second, "two")
registry.set_alias("one", {{registry.resolve("two", ""): 1}})
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 3, 4, 9])
def test_a_kill_in_the_middle_leaves_a_whole_store(after: int, bundles: dict[str, Path], tmp_path: Path) -> None:
    """12: killed at every write of a registration, the next start has the old or the new state, never a torn one."""
    home = tmp_path / "home"
    script = KILLED.format(tests=str(Path(__file__).parents[1]))
    command = [sys.executable, "-c", script, str(home), str(bundles["one"]), str(bundles["two"]), str(after)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    _, scheduler, registry = parts(home, {"one": bundles["one"]})
    try:
        digests = {digest_of(bundles["one"]), digest_of(bundles["two"])}
        assert {bundle.digest for bundle in registry.ready()} <= digests
        assert registry.resolve("one", TEXT) in digests
        assert all(one.name in digests for one in registry.shelf.adapters.iterdir())
        assert registry.add(bundles["two"]) == "toy-lora-2"
        assert registry.resolve("toy-lora-2", TEXT) == digest_of(bundles["two"])
    finally:
        scheduler.close()
        registry.close()


def test_a_damaged_copy_is_made_anew(bundles: dict[str, Path], tmp_path: Path) -> None:
    """A torn copy in the store is never served, and adding the same bundle again mends it."""
    shelf = Shelf(tmp_path)
    shelf.prepare()
    digest = shelf.put(bundles["one"])
    (shelf.adapters / digest / "README.md").write_text("changed")
    with pytest.raises(BundleError):
        shelf.fetch(digest)
    assert shelf.put(bundles["one"]) == digest == shelf.fetch(digest).digest
    shutil.rmtree(shelf.adapters / digest)
    shutil.copytree(bundles["two"], shelf.adapters / digest)
    with pytest.raises(BundleError, match="digest"):
        shelf.fetch(digest)


def test_aliases_are_on_disk_before_they_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that cannot be written is no change."""
    aliases = Aliases(tmp_path / "aliases.json")
    aliases.set("a", {"0" * 64: 1})
    assert json.loads((tmp_path / "aliases.json").read_text())["aliases"]["a"]["weights"] == {"0" * 64: 1}

    def full(*_: object) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr("paretune.serve.aliases.write_atomically", full)
    for change in (lambda: aliases.set("a", {"1" * 64: 1}), lambda: aliases.drop("a")):
        with pytest.raises(StorageError):
            change()
    assert aliases.pick("a", "") == "0" * 64
    with pytest.raises(UnknownNameError):
        aliases.rollback("b")


def test_a_failed_entry_goes_when_its_id_is_loaded_well(tmp_path: Path) -> None:
    """The index does not keep an attempt that is over, and at most so many failures."""
    entries = Entries(tmp_path / "index.json")
    entries.put(Entry(digest=None, id="a", state="failed", reason="x"))
    entries.put(Entry(digest="0" * 64, id="a", state="ready"))
    assert [entry.state for entry in entries.all()] == ["ready"]
    for number in range(100):
        entries.put(Entry(digest=None, id=f"f{number}", state="failed", reason="x"))
    assert len(entries.all()) == 65 and entries.is_ready("0" * 64)
    assert [entry.key for entry in Entries(tmp_path / "index.json").all()] == [entry.key for entry in entries.all()]


def test_names() -> None:
    """Free names become ids, and messages lose their paths."""
    assert id_of("Emotions RU/v2") == "emotions-ru-v2" and id_of("!!!") == "adapter" and not is_id("f" * 64)
    assert without_paths("cannot read /srv/x/y.json: no\nspace") == "cannot read (a file): no space"


def wrong_goldens(tiny_model: Path, folder: Path) -> Path:
    """A whole bundle that does not answer its goldens as it says."""
    toy = toy_bundle(tiny_model, "lora", {"rank": 2}, seed=9)
    rows = [
        row.model_copy(update={"label": "oil", "probabilities": [0.0, 1.0, 0.0]}) for row in toy.bundle.goldens.rows
    ]
    goldens = toy.bundle.goldens.model_copy(update={"rows": rows})
    return write_bundle(replace(toy, bundle=replace(toy.bundle, goldens=goldens)), folder)


def stored(registry: Registry) -> set[str]:
    return {folder.name for folder in registry.shelf.adapters.iterdir()}


def test_a_refused_bundle_does_not_stay_in_the_store(
    service: tuple[Engine, Scheduler, Registry], bundles: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Whatever it is refused for: goldens that it does not answer, a base model that is not served, a name in use. A
    bundle that was there before stays."""
    _, _, registry = service
    before = stored(registry)
    bad = wrong_goldens(tiny_model, tmp_path / "bad")
    other_base = toy_bundle(tiny_model, "lora", {"rank": 2}, seed=8).with_manifest(base_digest="1" * 64)
    into_inbox(registry, bad, "bad")
    into_inbox(registry, write_bundle(other_base, tmp_path / "base"), "base")
    into_inbox(registry, bundles["two"], "two")
    for name, alias in (("bad", None), ("base", None), ("two", "one")):
        entry = registry.load(name, alias, in_place=False).result(30)
        assert entry.state == "failed" and entry.digest, name
        assert stored(registry) == before, name
    with pytest.raises(BundleError):
        registry.add(bad)
    assert stored(registry) == before
    assert registry.load(next(iter(before)), "one", in_place=False).result(30).state == "ready"


def test_a_start_sweeps_what_was_refused_and_half_copied(
    bundles: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Refused bundles that an earlier version left in the store go, half copies too; what was ever ready, what is only
    for another base model, and what the operator unloaded stay."""
    home = tmp_path / "home"
    _, scheduler, registry = parts(home, {"one": bundles["one"]})
    other_base = toy_bundle(tiny_model, "lora", {"rank": 2}, seed=8).with_manifest(base_digest="1" * 64)
    bad = wrong_goldens(tiny_model, tmp_path / "bad")
    left = {"bad": bad, "base": write_bundle(other_base, tmp_path / "base"), "two": bundles["two"]}
    digests = {name: digest_of(folder) for name, folder in left.items()}
    for name, folder in left.items():
        shutil.copytree(folder, home / "adapters" / digests[name])
    scheduler.close()
    registry.close()
    (home / "adapters" / ".part-x").mkdir()
    index = json.loads((home / "index.json").read_text())
    index["adapters"] += [
        {"digest": digests["bad"], "id": "bad", "state": "failed", "reason": "goldens", "fault": "bundle"},
        {"digest": digests["base"], "id": "base", "state": "failed", "reason": "base", "fault": "bundle"},
        {"digest": digests["two"], "id": "two", "state": "failed", "reason": "x", "fault": "bundle", "proven": True},
    ]
    (home / "index.json").write_text(json.dumps(index))
    _, scheduler, registry = parts(home, {"one": bundles["one"]})
    assert stored(registry) == {digest_of(bundles["one"]), digests["base"], digests["two"]}
    scheduler.close()
    registry.close()
