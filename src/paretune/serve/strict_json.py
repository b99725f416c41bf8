"""JSON as it should be: UTF-8, each key once, finite numbers, no nesting that exhausts the reader.

Not here: which keys there may be (`shapes.py`). Python's reader takes more than RFC 8259 allows (NaN, duplicate keys,
UTF-16); what two readers understand differently is refused, so that nobody in between is fooled.

    parsed(b'{"inputs": "one text"}')
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from paretune.core.config import JsonValue
from paretune.serve.refusals import Refused


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


_READER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_each_key_once)


def parsed(body: bytes) -> JsonValue:
    """The value of a body.

    Raises:
        Refused: 400; the message quotes nothing of the body.
    """
    try:
        return _READER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos}"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error) if len(str(error)) < 50 else "a number is too large"  # Python's own bound of 4300 digits
    raise Refused(400, "validation", f"the body is no JSON: {reason}")


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parsed(await self.body())


class StrictRoute(APIRoute):
    """A route whose body is read by `parsed`."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict
