"""What is known of one request while it is served: its id, whose key it carries, what it cost; for log and metrics.

Not here: how it is filled (`gate.py`, `answering.py`). It lies in the ASGI scope's state.

    visit_of(request).request_id
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from paretune.serve.keys import ApiKey

STATE = "visit"


@dataclass
class Visit:
    """One request; `key` is None where none (or a wrong one) was given."""

    request_id: str
    key: ApiKey | None = None
    error_type: str = ""
    items: int = 0
    tokens: int = 0
    body_bytes: int = 0
    path: str = ""  # of a request for texts: such a path is one of few, not a client's invention

    @property
    def caller(self) -> str:
        """Whose quota it is."""
        return self.key.name if self.key else ""


def visit_of(request: Request) -> Visit:
    """The visit that the gate made for this request."""
    return cast(Visit, request.scope["state"][STATE])
