"""The container's files, read as text: what an image must be whoever builds it. Building and running is CI's part."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
TARGETS = ("study", "serve")


def instructions() -> list[tuple[str, str]]:
    """The instructions with continued lines joined; comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1].strip()) for line in joined.splitlines()]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions by stage, each with those of the stages that it stands on before its own."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            below, _, name = re.split(r"\s+(AS)\s+", rest)
            found[name] = list(found.get(below, []))
        elif name:
            found[name].append((word, rest))
    return found


def last(stage: str, word: str) -> str:
    return [rest for one, rest in stages()[stage] if one == word][-1]


def test_serve_is_what_a_plain_build_makes() -> None:
    """Both targets are there and `serve` is the last stage; every stage stands on the one base or on another stage."""
    names = list(stages())
    assert set(TARGETS) < set(names) and names[-1] == "serve"
    bases = {rest.split()[0] for word, rest in instructions() if word == "FROM"}
    assert bases - set(names) == {"${BASE}"}
    assert instructions()[0] == ("ARG", "BASE=python:3.11-slim")


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_runs_as_a_numbered_user(target: str) -> None:
    """uid 10001 by number, so that an orchestrator can see that it is not root; nothing is run after the switch."""
    words = [word for word, _ in stages()[target]]
    assert last(target, "USER") == "10001:10001"
    assert "RUN" not in words[words.index("USER") :] and "COPY" not in words[words.index("USER") :]


@pytest.mark.parametrize("target", TARGETS)
def test_python_is_the_first_process(target: str) -> None:
    """CMD in exec form: a shell as PID 1 would pass no signal on."""
    command = json.loads(last(target, "CMD"))
    assert command[:2] == ["paretune", target]
    assert not [rest for word, rest in stages()[target] if word == "ENTRYPOINT"]
    assert last(target, "STOPSIGNAL") == {"serve": "SIGTERM", "study": "SIGINT"}[target]


def test_the_health_check_needs_neither_a_shell_nor_curl() -> None:
    """Exec form, Python, the open route, and the file that it runs is copied."""
    options, command = last("serve", "HEALTHCHECK").split("CMD", 1)
    words = json.loads(command)
    assert words[0] == "python" and words[-1].endswith(":8000/livez")
    assert "curl" not in command and "wget" not in command and "--start-interval" not in options
    copied = [rest.split() for word, rest in stages()["serve"] if word == "COPY"]
    assert any("deploy/health.py" in one and words[2] == one[-1] + "health.py" for one in copied)


def test_nothing_that_a_plain_builder_lacks() -> None:
    """No heredoc, no --link, no network or checksum flags, no ADD; files come from this file's stages only."""
    text = "\n".join(f"{word} {rest}" for word, rest in instructions())
    assert not re.search(r"<<|--link|--network|--checksum|^ADD ", text, re.MULTILINE)
    assert set(re.findall(r"--from=(\S+)", text)) <= set(stages())


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_asks_no_network(target: str) -> None:
    """Offline switches are set; caches lie where a read-only root still lets them."""
    said = " ".join(rest for word, rest in stages()[target] if word == "ENV")
    for setting in ("HF_HUB_OFFLINE=1", "PARETUNE_OFFLINE=1", "HOME=/tmp", "HF_HOME=/tmp/", "PARETUNE_HOME=/"):
        assert setting in said


def test_no_secret_is_asked_for_and_no_index_is_named() -> None:
    """Neither ARG nor ENV holds a secret; where packages come from is the builder's setting."""
    settings = [rest for word, rest in instructions() if word in ("ARG", "ENV")]
    assert not [one for one in settings if re.search(r"(?i)password|secret|token|api_?key|https?://", one)]
    assert 'TORCH_INDEX=""' in settings


def test_torch_is_pinned_as_the_package_says() -> None:
    """One version of torch in the Dockerfile, in constraints.txt and in pyproject.toml."""
    version = re.search(r'TORCH_VERSION="([^"]+)"', DOCKERFILE.read_text())
    assert version
    assert f"torch=={version[1]}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert f'"torch=={version[1]}"' in (ROOT / "pyproject.toml").read_text()


def test_every_copied_file_reaches_the_builder() -> None:
    """All sources of COPY exist and .dockerignore lets them through; runs, secrets and history stay away."""
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert {"src", "studies", "constraints.txt"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists() and any(fnmatch(source, one) for one in kept), source
    assert not [
        one for one in kept if one.split("/")[0] in ("runs", "results", "tests", ".git", "build", "deploy/secrets")
    ]


def test_hadolint_has_nothing_to_say() -> None:
    """The linter of the dev extra, with this project's settings."""
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint is not installed (extra `dev`)")
    found = subprocess.run(
        [program, "--no-color", "--config", ROOT / ".hadolint.yaml", DOCKERFILE], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize(("status", "wanted"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_tells_by_its_exit_code(status: int, wanted: int) -> None:
    """0 for 200 alone; a proxy of the environment is not asked; nothing listening is 1."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    command = [sys.executable, "-I", str(ROOT / "deploy" / "health.py"), f"http://127.0.0.1:{server.server_port}/livez"]
    try:
        found = subprocess.run(command, env={"http_proxy": "http://127.0.0.1:1"}, timeout=60)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert found.returncode == wanted
    assert subprocess.run(command, timeout=60).returncode == 1


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.mark.parametrize("service", ["serve", "prometheus", "bot"])
def test_compose_locks_every_service_down(service: str) -> None:
    """Read-only root, no capability, limits, ports of this machine only, secrets as files, none in the environment."""
    one = compose()["services"][service]
    assert one["read_only"] and one["cap_drop"] == ["ALL"] and one["security_opt"] == ["no-new-privileges:true"]
    assert one["mem_limit"] and one["pids_limit"]
    assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
    assert one["secrets"] and "environment" not in one
    assert set(one["secrets"]) <= set(compose()["secrets"])


def test_compose_and_the_image_speak_of_the_same_places() -> None:
    """Mounted paths are the ones that the image's command reads; Prometheus asks the service with its own key."""
    command = json.loads(last("serve", "CMD"))
    serve = compose()["services"]["serve"]
    targets = {volume.split(":")[1] for volume in serve["volumes"]}
    assert targets == {"/bundles", command[command.index("--store") + 1]} and "/bundles" in command
    assert serve["build"]["target"] == "serve"
    assert command[command.index("--api-keys") + 1] == f"/run/secrets/{serve['secrets'][0]}"
    job = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert job["static_configs"][0]["targets"] == ["serve:8000"] and job["metrics_path"] == "/metrics"
    secret = compose()["services"]["prometheus"]["secrets"][0]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    ignored = (ROOT / "deploy" / ".gitignore").read_text().split()
    for one in compose()["secrets"].values():
        assert one["file"].startswith("./deploy/secrets/") and "/secrets/" in ignored
