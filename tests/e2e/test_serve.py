"""The server as a process of its own, over real sockets: start, signals, crashes, and bytes that are no good HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import digest_of, make

from paretune.core.addresses import is_loopback
from paretune.core.errors import ConfigError
from paretune.serve.keys import Keys, make_key
from paretune.serve.server import ServerOptions, assembled, check_address, expanded, named, serve

pytestmark = pytest.mark.slow
START = """
import sys, time
from pathlib import Path
from paretune.serve import connection, server
from paretune.serve.engine import Engine
connection.HEADER_SECONDS = 1.0
real, delay = Engine.run, float(sys.argv[5])
def run(self, rows):
    time.sleep(delay)
    if any(row.input_ids == () for row in rows) or len(rows) == 31:
        raise SystemExit("the engine dies")
    return real(self, rows)
Engine.run = run
keys = Path(sys.argv[3]) if sys.argv[3] else None
options = server.ServerOptions(Path(sys.argv[1]), port=int(sys.argv[2]), api_keys=keys, precision="fp32")
raise SystemExit(server.serve([server.named(sys.argv[4])], options, lambda line: print(line, flush=True)))
"""


@pytest.fixture(scope="module")
def bundle(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle to serve."""
    return make(tiny_model, tmp_path_factory.mktemp("bundle") / "news", seed=1)


class Process:
    """A server process; its ready line names the port."""

    def __init__(self, home: Path, bundle: Path, delay: float = 0.0, keys: str = "") -> None:
        command = [sys.executable, "-W", "error", "-c", START, str(home), "0", keys, f"news={bundle}", str(delay)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        if not self.line:
            raise AssertionError(self.process.communicate()[1][-3000:])
        self.port = int(self.line.split("http://127.0.0.1:")[1].split()[0])
        self.url = f"http://127.0.0.1:{self.port}"

    def classify(self, texts: list[str], **more: Any) -> httpx2.Response:
        return httpx2.post(f"{self.url}/v1/classify", json={"inputs": texts}, timeout=30, **more)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        errors = self.process.communicate(timeout=60)[1]
        return self.process.returncode, errors

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """Send parts one by one and read until the server closes."""
        with self.socket() as one:
            for part in parts:
                one.sendall(part)
                time.sleep(pause)
            return read_all(one)


def read_all(one: socket.socket) -> bytes:
    found = b""
    try:
        while part := one.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Process]:
    """One server for all requests that do not end it."""
    one = Process(tmp_path_factory.mktemp("home"), bundle)
    yield one
    code, errors = one.stop()
    assert code == 0, errors[-3000:]
    assert "Traceback" not in errors


def test_the_ready_line_is_the_truth(server: Process, bundle: Path) -> None:
    """One line names the address, and there the golden answer is given at once."""
    assert server.line.startswith(f"ready: http://127.0.0.1:{server.port} · 1 adapter · fp32 · ")
    assert httpx2.get(f"{server.url}/readyz").json()["ready"] is True
    assert server.classify(["goal match"]).headers["x-adapter-digest"] == digest_of(bundle)
    assert "server" not in server.classify(["goal"]).headers


def test_a_stop_answers_what_was_accepted(bundle: Path, tmp_path: Path) -> None:
    """19: at SIGTERM under load every accepted request is answered, new ones get 503 or no connection, exit 0."""
    one = Process(tmp_path / "home", bundle, delay=0.3)

    def ask(number: int) -> int:
        time.sleep(number * 0.05)
        try:
            return one.classify(["goal match coach"]).status_code
        except httpx2.ConnectError:
            return -1  # refused at the door after the drain

    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(ask, number) for number in range(24)]
        time.sleep(0.6)
        code, errors = one.stop()
        statuses = [each.result() for each in asked]
    assert code == 0 and set(statuses) <= {200, 503, -1}, (code, statuses, errors[-2000:])
    assert statuses.count(200) >= 5 and statuses[0] == 200
    assert "goal match coach" not in errors


def test_a_second_signal_ends_at_once(bundle: Path, tmp_path: Path) -> None:
    """19: a second SIGTERM does not wait for the batch that runs."""
    one = Process(tmp_path / "home", bundle, delay=20)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(one.classify, ["goal"])
        time.sleep(1)
        one.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert one.process.poll() is None
        began = time.monotonic()
        code, _ = one.stop()
        assert code == 1 and time.monotonic() - began < 10
        with pytest.raises(httpx2.HTTPError):
            waiting.result()


def test_a_signal_while_loading_ends_with_0(bundle: Path, tmp_path: Path) -> None:
    """19: a SIGTERM that comes before the server is ready is heard as well."""
    script = START.replace("options =", "print('loading', flush=True)\noptions =", 1)
    script = script.replace("Engine.run = run", "Engine.run = run\nEngine.check = lambda *_: time.sleep(60)")
    command = [sys.executable, "-c", script, str(tmp_path / "home"), "0", "", f"news={bundle}", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "loading\n"
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, ""), errors[-2000:]
    assert "Traceback" not in errors


def test_a_dead_engine_ends_the_process(bundle: Path, tmp_path: Path) -> None:
    """17: the request gets 503, /readyz says so, and the process leaves with 1 so that it is started again."""
    one = Process(tmp_path / "home", bundle)
    assert one.classify(["goal"] * 31).status_code == 503
    assert httpx2.get(f"{one.url}/readyz").status_code == 503
    assert one.process.wait(30) == 1
    one.process.communicate()


def test_a_killed_server_starts_again_with_its_adapters(bundle: Path, tiny_model: Path, tmp_path: Path) -> None:
    """12: after kill -9 the store is free, and what was loaded over HTTP is there with its names."""
    home = tmp_path / "home"
    one = Process(home, bundle)
    later = make(tiny_model, home / "inbox" / "later", seed=2)
    assert httpx2.post(f"{one.url}/v1/adapters", json={"id": "later", "name": "second"}, timeout=30).status_code == 200
    before = one.classify(["goal"]).json()["results"]
    assert one.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    two = Process(home, bundle)
    assert {model["id"]: model["root"] for model in httpx2.get(f"{two.url}/v1/models").json()["data"]} == {
        "news": digest_of(bundle),
        "second": digest_of(later),
    }
    assert two.classify(["goal"]).json()["results"] == before
    assert two.stop(signal.SIGINT)[0] == 0


def test_a_public_address_needs_keys(bundle: Path, tmp_path: Path) -> None:
    """Without keys only the loopback is served, by whatever name; a port that is taken is said in one line."""
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError, match="api-keys"):
            serve([named(str(bundle))], ServerOptions(tmp_path, host=host))
        check_address(host, Keys([]))
    assert is_loopback("127.0.0.1") and is_loopback("127.3.2.1") and is_loopback("localhost") and is_loopback("::1")
    with pytest.raises(ConfigError):
        is_loopback("no such host.invalid")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="port"):
        serve([named(str(bundle))], ServerOptions(tmp_path, port=taken.getsockname()[1]))
    with pytest.raises(ConfigError, match="no bundle"):
        serve([], ServerOptions(tmp_path / "empty", port=0))
    with pytest.raises(ConfigError, match="two bundles"):
        serve([("a", bundle), ("a", bundle)], ServerOptions(tmp_path / "twice", port=0, precision="fp32"))
    assert named("a=b/c") == ("a", Path("b/c")) and named("x/y=z") == (None, Path("x/y=z"))


def test_a_folder_of_bundles_and_an_empty_server(bundle: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A folder stands for the bundles in it, under their folders' names; with a base none at all is a start too."""
    (tmp_path / "many").mkdir()
    assert expanded([(None, tmp_path / "many"), ("x", bundle)]) == [("x", bundle)]
    for name in ("b One", "a"):
        shutil.copytree(bundle, tmp_path / "many" / name)
    many = tmp_path / "many"
    assert expanded([(None, many), (None, bundle)]) == [("a", many / "a"), ("b-one", many / "b One"), (None, bundle)]
    options = ServerOptions(tmp_path / "home", base=f"path:{tiny_model}", precision="fp32")
    _, scheduler, registry, first = assembled([], options)
    scheduler.close()
    registry.close()
    assert first is None and registry.ready() == []


def test_with_keys_the_process_asks_for_them(bundle: Path, tmp_path: Path) -> None:
    """A key from the file opens, none does not."""
    key = make_key(tmp_path / "keys.toml", "k", ["classify"])
    one = Process(tmp_path / "home", bundle, keys=str(tmp_path / "keys.toml"))
    assert one.classify(["goal"]).status_code == 401
    assert one.classify(["goal"], headers={"Authorization": f"Bearer {key}"}).status_code == 200
    code, errors = one.stop()
    assert code == 0 and key not in errors


HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def still_works(server: Process) -> None:
    assert httpx2.get(f"{server.url}/livez").status_code == 200
    assert server.classify(["goal match"]).status_code == 200


def test_many_tiny_chunks_are_bounded(server: Process) -> None:
    """25: 65,000 chunks of one byte are answered and grow the process by little; what has no end is cut at 1 MB."""
    before = resident_bytes(server)
    body = json.dumps({"inputs": ["x" * 65_000]}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    answer = server.raw(HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", chunks, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    endless = [b"10000\r\n" + b" " * 65_536 + b"\r\n"] * 24
    with server.socket() as one:
        one.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for chunk in endless:
            one.sendall(chunk)
        answer = read_all(one)
    assert answer.startswith(b"HTTP/1.1 413") and b'"error_type":"validation"' in answer
    assert resident_bytes(server) - before < 64 << 20
    still_works(server)


def resident_bytes(server: Process) -> int:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def test_lying_lengths(server: Process) -> None:
    """25: a huge, negative, doubled or odd length is refused unread; more bytes than said are another request."""
    for length, status in (
        (b"9" * 23, b"400"),
        (b"99999999999", b"413"),
        (b"1000001", b"413"),
        (b"-1", b"400"),
        (b"1e3", b"400"),
    ):
        answer = server.raw(HEAD + b"Content-Length: " + length + b"\r\nConnection: close\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 " + status), (length, answer[:200])
        assert b"nosniff" in answer and b"application/json" in answer
    both = server.raw(HEAD + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}{}")
    assert both.startswith(b"HTTP/1.1 400")
    smuggled = server.raw(HEAD + b"Content-Length: 2\r\n\r\n{}SMUGGLED\r\n\r\n")
    assert smuggled.startswith(b"HTTP/1.1 422") and b"HTTP/1.1 400" in smuggled
    still_works(server)


def test_slow_clients_do_not_hold_a_connection(server: Process) -> None:
    """25: headers that do not come, or come byte by byte, are cut off; others are answered meanwhile."""
    with server.socket() as silent, server.socket() as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        for _ in range(6):
            time.sleep(0.3)
            try:
                slow.sendall(b"x")
            except OSError:
                break
        still_works(server)
        assert read_all(silent) == b"" and read_all(slow) == b""
    with server.socket() as kept:  # a good request first, then slow headers on the same connection
        kept.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while b'{"live":true}' not in answer:
            answer += kept.recv(65536)
        kept.sendall(b"GET /livez HT")
        assert read_all(kept) == b""


def test_what_is_no_http_gets_a_400(server: Process) -> None:
    """Garbage, TLS, huge headers and a null byte: a short refusal in the service's shape, and the server lives."""
    for bad in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"BREW\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ):
        answer = server.raw(bad + b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404")) or answer == b"", (bad[:20], answer[:200])
        assert b"Traceback" not in answer
    still_works(server)


def test_forged_hosts_and_targets_change_nothing(server: Process) -> None:
    """22: a host that looks like a path, an absolute target and a doubled slash are no way around anything."""
    for line, host in (
        (b"GET /v1/models", b"127.0.0.1/livez?"),
        (b"GET http://evil.example/v1/models", b"evil.example"),
        (b"GET //v1/models", b"127.0.0.1"),
    ):
        answer = server.raw(line + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 421", b"HTTP/1.1 404", b"HTTP/1.1 400")), (host, answer[:200])
    still_works(server)


def test_a_client_that_leaves_early_costs_nothing(bundle: Path, tmp_path: Path) -> None:
    """18: connections that are closed while they wait leave an empty queue behind."""
    one = Process(tmp_path / "home", bundle, delay=0.5)
    body = b'{"inputs": ["goal"]}'
    for _ in range(20):
        with one.socket() as leaving:
            leaving.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    deadline = time.monotonic() + 20
    while httpx2.get(f"{one.url}/v1/status", timeout=30).json()["queue"]["requests"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    rows = httpx2.get(f"{one.url}/v1/status", timeout=30).json()["load"]["rows_total"]
    assert rows < 20
    assert one.classify(["goal"]).status_code == 200
    assert one.stop()[0] == 0
