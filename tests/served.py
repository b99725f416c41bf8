"""A whole small service in this process: toy bundles on disk, a real engine, scheduler and registry, and the API.

Not here: the server process (`tests/e2e/test_serve.py`). Clients of the test are called 127.0.0.1, as a browser's are.

    with serving(tmp_path, [folder]) as service: service.client.post("/v1/classify", json={"inputs": ["a text"]})
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from toy_bundles import ToyBundle, toy_bundle
from toy_study import CLASSES

from paretune.models.sources import ModelSpec
from paretune.serve.api import ServiceSettings, create_app
from paretune.serve.bundle import read_bundle, seal, write_delta, write_head
from paretune.serve.engine import Engine
from paretune.serve.registry import Registry
from paretune.serve.scheduler import Scheduler
from paretune.serve.shelf import Shelf

TEXTS = ["loan rate credit of the bank", "goal match coach", "barrel crude refinery pipeline drill"]
GOLDEN = {"inputs": ["loan rate credit", {"text": "goal match coach", "adapter": "news"}], "adapter": "news"}


def write_bundle(toy: ToyBundle, folder: Path) -> Path:
    """A toy bundle as a folder."""
    folder.mkdir(parents=True)
    delta, head_ch, bias_c = toy.tensors
    write_delta(folder / "adapter.safetensors", delta)
    write_head(folder / "head.safetensors", head_ch, bias_c)
    (folder / "goldens.json").write_text(toy.bundle.goldens.model_dump_json())
    (folder / "certificate.json").write_text(toy.bundle.certificate.model_dump_json())
    (folder / "README.md").write_text("# toy\n")
    seal(folder, toy.bundle.manifest)
    return folder


def make(model: Path, folder: Path, *, labels: Sequence[str] = CLASSES, seed: int = 0, **more: Any) -> Path:
    """A fresh toy bundle as a folder; its digest is `digest_of(folder)`."""
    settings: Mapping[str, object] = {"rank": 2 + seed % 3}
    return write_bundle(toy_bundle(model, "lora", settings, labels, seed=seed, **more), folder)


def digest_of(folder: Path) -> str:
    """A bundle's identity."""
    return read_bundle(folder).digest


@dataclass
class Service:
    """All parts of a running service."""

    home: Path
    engine: Engine
    scheduler: Scheduler
    registry: Registry
    client: TestClient
    golden: list[dict[str, Any]] = field(default_factory=list)

    def put_into_inbox(self, bundle: Path, name: str) -> None:
        shutil.copytree(bundle, self.home / "inbox" / name)

    def classify(self, text: str, adapter: str) -> Any:
        return self.client.post("/v1/classify", json={"inputs": [text], "adapter": adapter})

    def still_works(self) -> None:
        """Live, and the golden request has exactly its first answer."""
        assert self.client.get("/livez").json() == {"live": True}
        answer = self.client.post("/v1/classify", json=GOLDEN, headers=dict(self.client.headers))
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"] == self.golden


def parts(home: Path, bundles: Mapping[str, Path], slots: int = 4, **limits: Any) -> tuple[Engine, Scheduler, Registry]:
    """Engine, scheduler and registry with some bundles under names."""
    shelf = Shelf(home)
    shelf.prepare()
    first = next(iter(bundles.values()))
    spec = ModelSpec.model_validate(read_bundle(first).manifest.model)
    engine = Engine(spec, "fp32", slots, fetch=shelf.fetch, merge_after=0)
    scheduler = Scheduler(engine, **limits)
    registry = Registry(home, engine, scheduler)
    registry.restore()
    for name, folder in bundles.items():
        registry.add(folder, name)
    return engine, scheduler, registry


@contextmanager
def serving(
    home: Path,
    bundles: Mapping[str, Path],
    settings: ServiceSettings | None = None,
    headers: Mapping[str, str] | None = None,
    slots: int = 4,
    **limits: Any,
) -> Generator[Service]:
    """A service until the block ends; "news" should be among the names, for `still_works`."""
    engine, scheduler, registry = parts(home, bundles, slots, **limits)
    app = create_app(registry, scheduler, engine, settings or ServiceSettings())
    try:
        with TestClient(app, "http://127.0.0.1", headers=headers) as client:
            service = Service(home, engine, scheduler, registry, client)
            if "news" in bundles:
                service.golden = client.post("/v1/classify", json=GOLDEN).json().get("results", [])
            yield service
    finally:
        scheduler.close()
        registry.close()


def post(service: Service, path: str, tree: Any, **more: Any) -> Any:
    """Send JSON to a route."""
    return service.client.post(path, json=tree, **more)
