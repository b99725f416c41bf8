"""Who may ask what: a scope on every router, and a proof at start that no route was forgotten.

Not here: keys themselves (`keys.py`). The decision is made on the matched route, never on a path or a host, which a
client can forge (Starlette's CVE-2026-48710). Where no keys are configured everything is open, and the server listens
on the loopback only (`server.py`). Open always: liveness, readiness, the page, the documents of the API.

    app.include_router(guarded("admin", keys)); check_all_guarded(app)
"""

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security import HTTPBearer

from paretune.serve.keys import Keys, Scope
from paretune.serve.refusals import Refused
from paretune.serve.strict_json import StrictRoute
from paretune.serve.visit import visit_of

OPEN = frozenset({"/", "/page/{name}", "/livez", "/readyz", "/docs", "/docs/{name}", "/openapi.json"})
_BEARER = HTTPBearer(auto_error=False, description="a key of the server's key file")


class Needs:
    """A dependency: the request carries a key with this scope."""

    def __init__(self, scope: Scope, keys: Keys | None) -> None:
        self.scope: Scope = scope
        self._keys = keys

    async def __call__(self, request: Request) -> None:
        """Let through or refuse: 401 without a valid key, 403 without the scope."""
        if self._keys is None:
            return
        key = visit_of(request).key
        if key is None:
            raise Refused(401, "auth", "a valid key is needed: Authorization: Bearer KEY")
        if self.scope not in key.scopes:
            raise Refused(403, "auth", f"this key has no scope {self.scope!r}")


def guarded(scope: Scope, keys: Keys | None) -> APIRouter:
    """A router all of whose routes need a scope."""
    documented = [Depends(_BEARER)] if keys else []
    return APIRouter(route_class=StrictRoute, dependencies=[Depends(Needs(scope, keys)), *documented])


def open_router() -> APIRouter:
    """A router for routes that are on the list of open ones."""
    return APIRouter(route_class=StrictRoute)


def check_all_guarded(app: FastAPI) -> None:
    """Every route is open by the list, or asks for a scope.

    Raises:
        RuntimeError: one is neither; the server does not start.
    """
    for found in iter_route_contexts(app.routes):
        route = found.original_route
        needs = route.dependencies if isinstance(route, APIRoute) else []
        if found.path not in OPEN and not any(isinstance(one.dependency, Needs) for one in needs):
            raise RuntimeError(f"route {found.path} asks for no scope and is not on the list of open ones")
