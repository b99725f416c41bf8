"""Writes a study as TensorBoard event files, one folder a run, without TensorBoard or protobuf.

Not here: predictions; TensorBoard keeps no files. An event file is records of (length, its masked CRC-32C, bytes, their
masked CRC-32C), each an `Event` message of tensorflow/core/util/event.proto; parameters go through the messages of
tensorboard/plugins/hparams/plugin_data.proto. Times come from the records, so an export is the same each time.

    write_tensorboard(flat_study(StudyFolder(Path("results/demo"))), Path("demo-tb"))  # tensorboard --logdir demo-tb
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from paretune.records.exporters.flat import UNFINISHED, FlatRun, FlatStudy, plain_name

CRC_POLYNOMIAL = 0x82F63B78
CRC_MASK = 0xA282EAD8
VERSION = "brain.Event:2"
STATUS = {"ok": 1, UNFINISHED: 3}  # of the plug-in: 1 success, 2 failure, 3 running
DT_STRING = 7


def write_tensorboard(study: FlatStudy, out: Path) -> None:
    """One folder a run, named by method, seed and id.

    Raises:
        OSError: the folder cannot be written.
    """
    for run in study.runs:
        folder = out / plain_name(f"{run.method}-seed{run.seed}-{run.id[:8]}")
        folder.mkdir(parents=True)
        start = _start(run)
        with (folder / f"events.out.tfevents.{int(start):010d}.paretune").open("wb") as file:
            for event in _events(study, run, start):
                file.write(record(event))


def _start(run: FlatRun) -> float:
    """When the run began, in seconds since 1970: its end less its last event; 0 where it has no end."""
    if not run.finished:
        return 0.0
    last = max((point.at_seconds for point in run.points), default=0.0)
    return max(0.0, datetime.fromisoformat(run.finished).timestamp() - last)


def _events(study: FlatStudy, run: FlatRun, start: float) -> Iterator[bytes]:
    yield _double(1, start) + _bytes(3, VERSION.encode())
    tags = study.tags_of(run)
    hparams = {name: value for name, value in (tags | run.params).items() if not name.startswith("grade/")}
    yield _event(start, 0, _hparams("session_start_info", 3, _session_start(hparams, start)))
    listing = "\n".join(f"    {name}: {value}" for name, value in (study.tags | tags | run.params).items())
    yield _event(start, 0, _text("records", listing))
    for point in run.points:
        yield from (_event(start + point.at_seconds, point.step, _scalar(*one)) for one in point.values.items())
    end = start + max((point.at_seconds for point in run.points), default=0.0)
    yield from (_event(end, run.last_step, _scalar(name, value)) for name, value in run.finals.items())
    if run.reason:
        yield _event(end, run.last_step, _text("reason", f"{run.state}: {run.reason}"))
    ended = _whole(1, STATUS.get(run.state, 2)) + _double(2, end)
    yield _event(end, run.last_step, _hparams("session_end_info", 4, ended))


def _event(wall_time: float, step: int, value: bytes) -> bytes:
    """Event{wall_time = 1, step = 2, summary = 5}, with a Summary of one value."""
    return _double(1, wall_time) + _whole(2, step) + _bytes(5, _bytes(1, value))


def _scalar(tag: str, value: float) -> bytes:
    """Summary.Value{tag = 1, simple_value = 2}; what no 32-bit number holds becomes infinite."""
    limit = 3.4028234e38
    held = value if value != value or abs(value) <= limit else float("inf") if value > 0 else float("-inf")
    return _bytes(1, tag.encode()) + _tag(2, 5) + struct.pack("<f", held)


def _text(tag: str, text: str) -> bytes:
    """Summary.Value with a string tensor for the text plug-in (its tags end in /text_summary)."""
    tensor = _whole(1, DT_STRING) + _bytes(2, _bytes(2, _whole(1, 1))) + _bytes(8, text.encode())
    return _bytes(1, f"{tag}/text_summary".encode()) + _bytes(8, tensor) + _metadata("text", b"")


def _hparams(name: str, field: int, message: bytes) -> bytes:
    """Summary.Value without a value: the message lies in the metadata, as HParamsPluginData."""
    return _bytes(1, f"_hparams_/{name}".encode()) + _metadata("hparams", _bytes(field, message))


def _metadata(plugin: str, content: bytes) -> bytes:
    data = _bytes(1, plugin.encode()) + (_bytes(2, content) if content else b"")
    return _bytes(9, _bytes(1, data))


def _session_start(hparams: Mapping[str, str], start: float) -> bytes:
    """SessionStartInfo{hparams = 1 (a map to google.protobuf.Value), start_time_secs = 5}.

    A group name is left out: its members would be averaged in the table, and seeds are told apart.
    """
    entries = b"".join(_bytes(1, _bytes(1, name.encode()) + _bytes(2, _value(text))) for name, text in hparams.items())
    return entries + _double(5, start)


def _value(text: str) -> bytes:
    """google.protobuf.Value: a number where the text is one, else the text."""
    try:
        return _double(2, float(text))
    except ValueError:
        return _bytes(3, text.encode())


def record(data: bytes) -> bytes:
    """One record of an event file."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data))


def _crc_table() -> tuple[int, ...]:
    table: list[int] = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (CRC_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), RFC 3720 appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _whole(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value & 0xFFFFFFFFFFFFFFFF)


def _double(field: int, value: float) -> bytes:
    return _tag(field, 1) + struct.pack("<d", value)


def _bytes(field: int, data: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(data)) + data
