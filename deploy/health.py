"""Asks a URL and ends with 0 if it answers 200: the image's health check, without curl and without a key.

Not here: what healthy means (`/livez` of the service). Standard library alone; a proxy in the environment is not asked.

    python -I deploy/health.py http://127.0.0.1:8000/livez
"""

import sys
import urllib.error
import urllib.request


def healthy(url: str, seconds: float = 4.0) -> bool:
    """Whether the URL answers 200 in time."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=seconds) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(0 if healthy(sys.argv[1]) else 1)
