"""Routes that show and change what is served: models, adapters, aliases, and vLLM's two calls.

Not here: how a bundle is loaded (`registry.py`). Clients name ids of the inbox, names and digests, never a path. A load
goes on when its client goes away; the same load asked for twice at once is one load.

    app.include_router(admin_router(registry, engine, keys)); app.include_router(models_router(registry, engine, keys))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from itertools import chain, zip_longest
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path, Request

from paretune.core.errors import BundleError, StorageError
from paretune.records.bundle import Goldens
from paretune.serve.aliases import Alias
from paretune.serve.answering import no_adapter
from paretune.serve.bundle import Bundle
from paretune.serve.documents import errors_with
from paretune.serve.engine import Engine
from paretune.serve.entries import Entry
from paretune.serve.guard import guarded
from paretune.serve.keys import Keys
from paretune.serve.names import ID_PATTERN, without_paths
from paretune.serve.refusals import Refused
from paretune.serve.registry import BusyError, NameTakenError, NoAdapterError, Registry
from paretune.serve.shapes_admin import (
    Adapter,
    Adapters,
    AliasView,
    Done,
    LoadAdapter,
    LoadLora,
    Model,
    Models,
    PutAlias,
    RollBack,
    UnloadLora,
)
from paretune.serve.visit import visit_of

NameInPath = Annotated[str, Path(pattern=ID_PATTERN, max_length=64)]
LOAD_RETRY_SECONDS = 10.0
EXAMPLES = 4
EXAMPLE_CHARACTERS = 500
ResultT = TypeVar("ResultT")


def models_router(registry: Registry, engine: Engine, keys: Keys | None) -> APIRouter:
    """`GET /v1/models`, with the scope "classify": names that this key may use and that answer."""
    router = guarded("classify", keys)

    async def models(request: Request) -> Models:
        """Names that can be asked, with measured quality and cost."""
        key = visit_of(request).key
        found: list[Model] = []
        for name in registry.names_ready():
            alias = registry.aliases.get(name)
            if alias is None or (key is not None and not key.may_use(name)):
                continue
            root = max(sorted(alias.weights.items()), key=lambda pair: pair[1])[0]
            if bundle := registry.bundle(root):
                found.append(_model(name, alias, root, bundle))
        return Models(data=found)

    router.add_api_route(
        "/v1/models",
        models,
        methods=["GET"],
        responses=errors_with(401, 403, 408, 413, 415, 422, 500),
        tags=["adapters"],
    )
    return router


def _model(name: str, alias: Alias, root: str, bundle: Bundle) -> Model:
    manifest = bundle.manifest
    return Model(
        id=name,
        root=root,
        parent=manifest.base_digest,
        versions=alias.weights,
        labels=manifest.labels,
        method=manifest.method,
        study=manifest.study,
        metric=manifest.scores[0] if manifest.scores else None,
        scores=manifest.scores,
        cost=manifest.cost,
        abstention=manifest.abstention,
        domain=manifest.domain,
        examples=examples_of(bundle.goldens),
        max_tokens=manifest.max_tokens,
        licences=manifest.licences,
        state="ready",
    )


def examples_of(goldens: Goldens) -> list[str]:
    """A few short golden texts, each class once before any comes again."""
    by_class: dict[str, list[str]] = {}
    for row in sorted(goldens.rows, key=lambda one: len(one.text)):
        by_class.setdefault(row.label, []).append(row.text)
    turns = chain.from_iterable(zip_longest(*by_class.values()))
    return [text[:EXAMPLE_CHARACTERS] for text in turns if text is not None][:EXAMPLES]


def admin_router(registry: Registry, engine: Engine, keys: Keys | None) -> APIRouter:
    """All that changes something, with the scope "admin"."""
    router = guarded("admin", keys)

    def shown(entry: Entry) -> Adapter:
        return Adapter(
            digest=entry.digest,
            id=entry.id,
            state=entry.state,
            reason=entry.reason,
            names=registry.aliases.names_of(entry.digest) if entry.digest else [],
            resident=entry.digest in engine.resident(),
        )

    async def adapters() -> Adapters:
        """All bundles with their states, failed ones with the reason, and all names."""
        views: list[AliasView] = []
        for name in registry.aliases.names():
            if alias := registry.aliases.get(name):
                views.append(AliasView(name=name, weights=alias.weights, history=len(alias.history)))
        return Adapters(adapters=[shown(entry) for entry in registry.entries()], aliases=views)

    async def load(body: LoadAdapter) -> Adapter:
        """Load a bundle from the inbox, or again from the store; its golden inputs are replayed first."""
        return shown(await _loaded(registry, body.id, body.name, True))

    async def unload(name: NameInPath) -> Done:
        """Stop answering under a name or a digest; requests under way are answered first, files stay in the store."""
        return await _unloaded(registry, name)

    async def put_alias(name: NameInPath, body: PutAlias) -> AliasView:
        """Point a name to one digest or, by weights, to several; or one step back."""
        if isinstance(body, RollBack):
            alias = await _changed(lambda: registry.rollback(name))
        else:
            alias = await _changed(lambda: registry.set_alias(name, body.weights))
        return AliasView(name=name, weights=alias.weights, history=len(alias.history))

    async def load_lora(body: LoadLora) -> Done:
        """vLLM's call: load the bundle `lora_path` (an id) under the name `lora_name`."""
        entry = await _loaded(registry, body.lora_path, body.lora_name, body.load_inplace)
        message = f"Success: LoRA adapter '{body.lora_name}' added successfully."
        return Done(message=message, digests=[entry.digest] if entry.digest else [])

    async def unload_lora(body: UnloadLora) -> Done:
        """vLLM's call: stop answering under a name."""
        return await _unloaded(registry, body.lora_name)

    with_body = errors_with(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503)
    without_body = errors_with(401, 403, 404, 408, 413, 415, 422, 500, 503)
    for path, call, method, errors in (
        ("/v1/adapters", adapters, "GET", without_body),
        ("/v1/adapters", load, "POST", with_body),
        ("/v1/adapters/{name}", unload, "DELETE", without_body),
        ("/v1/aliases/{name}", put_alias, "PUT", with_body),
        ("/v1/load_lora_adapter", load_lora, "POST", with_body),
        ("/v1/unload_lora_adapter", unload_lora, "POST", with_body),
    ):
        router.add_api_route(path, call, methods=[method], responses=errors, tags=["adapters"])
    return router


async def _changed(change: Callable[[], ResultT]) -> ResultT:
    """Do something that touches the disk, off the event loop, and say what went wrong in the service's words."""
    try:
        return await asyncio.to_thread(change)
    except NoAdapterError:
        raise no_adapter() from None
    except NameTakenError as error:
        raise Refused(409, "conflict", str(error)) from None
    except BundleError as error:
        raise Refused(409, "conflict", without_paths(str(error))) from None
    except BusyError:
        raise Refused(429, "overloaded", "too many loads are waiting", LOAD_RETRY_SECONDS) from None
    except StorageError:
        raise Refused(503, "backend", "the store cannot be written", LOAD_RETRY_SECONDS) from None


async def _loaded(registry: Registry, name: str, alias: str | None, in_place: bool) -> Entry:
    future = await _changed(lambda: registry.load(name, alias, in_place))
    entry = await _result(future)
    if entry.state != "failed":
        return entry
    if entry.fault == "name":
        raise Refused(409, "conflict", entry.reason)
    if entry.fault == "server":
        raise Refused(503, "backend", f"the bundle could not be loaded: {entry.reason}", LOAD_RETRY_SECONDS)
    raise Refused(422, "validation", f"the bundle was refused: {entry.reason}")


async def _unloaded(registry: Registry, name: str) -> Done:
    futures = await _changed(lambda: registry.unload(name))
    entries = [await _result(future) for future in futures]
    message = f"Success: LoRA adapter '{name}' removed successfully."
    return Done(message=message, digests=[entry.digest for entry in entries if entry.digest])


async def _result(future: Future[Entry]) -> Entry:
    """Wait without a say in it: others may wait for the same load."""
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except asyncio.CancelledError:
        if future.cancelled():
            raise Refused(503, "draining", "the server is stopping", LOAD_RETRY_SECONDS) from None
        raise
