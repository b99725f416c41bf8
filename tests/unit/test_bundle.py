"""Bundles that strangers wrote are looked through before anything of them is used; each refusal is one line."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from paretune.core.errors import BundleError
from paretune.kernels.low_rank import LowRank
from paretune.models.loading import load_encoder
from paretune.records.bundle import CHECKS, Abstention, Certificate, Check, Golden, Goldens, Manifest, RiskPoint
from paretune.serve.alone import beside, fold_in
from paretune.serve.bundle import Bundle, hexed, read_bundle, read_delta, read_tensors, seal, write_delta, write_head
from paretune.serve.tensors import check_header, read_safetensors

HIDDEN, CLASSES = 32, ("a", "b", "c")
VALUE = "encoder.layer.0.attention.self.value"


def low_rank(rank: int = 2) -> LowRank:
    generator = torch.Generator().manual_seed(rank)
    return LowRank(torch.randn(rank, HIDDEN, generator=generator), torch.randn(HIDDEN, rank, generator=generator) * 0.1)


def draft(**changed: object) -> Manifest:
    abstention = Abstention(
        temperature=1.2, threshold=0.5, target_risk=0.1, reachable=True, validation_rows=10, test_coverage=0.9,
        test_risk=0.1, curve=[RiskPoint(threshold=0.5, coverage=0.9, risk=0.1)],
    )  # fmt: skip
    whole = Manifest(
        name="toy-lora", study="toy", run_id="0" * 16, method="lora", kind="lora", settings={"rank": 2}, form="adapter",
        seed=0, labels=list(CLASSES), model={"source": "asset:minilm-l6", "pooling": "mean", "text_prefix": ""},
        base_digest="b" * 64, tokenizer_sha256="c" * 64, data_digest="d" * 64, max_tokens=32, precision="fp32",
        scores=[], why={"en": "x", "ru": "y"}, cost={"train_seconds": 1.0}, licences=[], abstention=abstention,
        paretune_version="0", files={},
    )  # fmt: skip
    return whole.model_copy(update=changed)


def certificate(failed: str = "") -> Certificate:
    checks = [Check(name=name, passed=name != failed, value=0.0, limit=1.0, detail="") for name in CHECKS]
    return Certificate(checks=checks, fingerprint="f", versions={}, at="now")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole bundle of made-up tensors."""
    path = tmp_path / "bundle"
    path.mkdir()
    write_delta(path / "adapter.safetensors", {VALUE: low_rank()})
    write_head(path / "head.safetensors", torch.ones(3, HIDDEN), torch.zeros(3))
    row = Golden(text="t", label="a", probabilities=[0.8, 0.1, 0.1], served={"fp32": hexed([0.8, 0.1, 0.1])})
    goldens = Goldens(fingerprint="f", tolerance=1e-3, rows=[row])
    (path / "goldens.json").write_text(goldens.model_dump_json())
    (path / "certificate.json").write_text(certificate().model_dump_json())
    (path / "README.md").write_text("# toy")
    seal(path, draft())
    return path


def sealed(folder: Path, **changed: object) -> Path:
    """Sealed anew after a change: hashes hold, so that only the content can be refused."""
    seal(folder, draft(**changed))
    return folder


def test_a_whole_bundle_reads_back(folder: Path) -> None:
    """Its identity is the manifest's hash; tensors come back as they were written."""
    bundle = read_bundle(folder)
    assert bundle.digest == bundle.manifest.digest and len(bundle.digest) == 64
    delta, head_ch, bias_c = read_tensors(bundle)
    update = delta[VALUE]
    assert isinstance(update, LowRank) and torch.equal(update.b_or, low_rank().b_or)
    assert head_ch.shape == (3, HIDDEN) and bias_c.shape == (3,)


def test_hexed_is_the_float32_bit_for_bit() -> None:
    """Known values; a difference below float32 is none, one in the last bit is seen."""
    assert hexed([1.0, 0.5]) == ["3f800000", "3f000000"]
    assert hexed([0.1]) == hexed([0.1 + 1e-12]) != hexed([float(torch.tensor(0.1).nextafter(torch.tensor(1.0)))])


SHOWN_ODDLY = {
    "tag": "<script>alert(1)</script>", "closing tag": "a</td>", "comment": "<!-- -->", "escape": "a\x1b[2Jb",
    "C1 escape": "a\x9b31m", "null": "a\0b", "backspace": "abc\b\b", "new line": "a\nready: http://evil",
    "override": "a\u202egpj.exe", "isolate": "a\u2066b", "line separator": "a\u2028b", "overlong": "a" * 5000,
}  # fmt: skip
SHOWN_FIELDS: dict[str, Callable[[str], dict[str, object]]] = {
    "name": lambda odd: {"name": odd},
    "study": lambda odd: {"study": odd},
    "method": lambda odd: {"method": odd},
    "kind": lambda odd: {"kind": odd},
    "run_id": lambda odd: {"run_id": odd},
    "licences": lambda odd: {"licences": ["MIT", odd]},
    "why": lambda odd: {"why": {"en": odd}},
    "settings": lambda odd: {"settings": {odd: 1}},
    "cost": lambda odd: {"cost": {odd: 1.0}},
    "paretune_version": lambda odd: {"paretune_version": odd},
}


@pytest.mark.parametrize("odd", SHOWN_ODDLY.values(), ids=SHOWN_ODDLY)
@pytest.mark.parametrize("field", SHOWN_FIELDS)
def test_words_that_would_be_shown_as_something_else_are_refused(folder: Path, field: str, odd: str) -> None:
    """Markup, control characters, bidirectional overrides and overlong words of every field that pages and terminals
    show: refused when the bundle is read, so at upload too, in one line that is itself harmless."""
    with pytest.raises(BundleError) as error:
        read_bundle(sealed(folder, **SHOWN_FIELDS[field](odd)))
    message = str(error.value)
    assert message.startswith(f"manifest.json: {field}") and message.isprintable() and len(message) < 300


@pytest.mark.parametrize("odd", ["a\x1b[2J", "a\u202eb", "a\0", "a" * 400])
def test_labels_are_the_datas_own_words_but_move_no_cursor(folder: Path, odd: str) -> None:
    """A label may hold what looks like a tag, another script or marks of direction, but no cursor's move."""
    for good in ("<5", "<unk>", "да", "شكرا\u200f", "two\nlines"):
        assert read_bundle(sealed(folder, labels=["a", "b", good])).manifest.labels[2] == good
    with pytest.raises(BundleError, match="labels holds"):
        read_bundle(sealed(folder, labels=["a", "b", odd]))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def to_symlink(path: Path) -> None:
    real = path.with_name("elsewhere")
    path.rename(path.parent.parent / real.name)
    path.symlink_to(path.parent.parent / real.name)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed byte of the adapter": (lambda at: flip(at / "adapter.safetensors"), "adapter.safetensors was changed"),
    "changed byte of the card": (lambda at: flip(at / "README.md"), "README.md was changed"),
    "longer head": (lambda at: longer(at / "head.safetensors"), "head.safetensors has .* bytes"),
    "extra file": (lambda at: (at / "setup.py").write_text("x"), "'setup.py' is not a file of a bundle"),
    "extra folder": (lambda at: (at / "sub").mkdir(), "'sub' is not a file of a bundle"),
    "missing file": (lambda at: (at / "goldens.json").unlink(), "'goldens.json' is missing"),
    "symlink": (lambda at: to_symlink(at / "head.safetensors"), "'head.safetensors' is a symlink"),
    "folder in a file's place": (
        lambda at: ((at / "README.md").unlink(), (at / "README.md").mkdir()), "README.md",
    ),
    "manifest not JSON": (lambda at: (at / "manifest.json").write_text("{"), "manifest.json is no Manifest"),
    "manifest a list": (lambda at: (at / "manifest.json").write_text("[]"), "manifest.json is no Manifest"),
    "manifest nested": (lambda at: (at / "manifest.json").write_text("[" * 100_000), "manifest.json is no Manifest"),
    "manifest of bytes": (lambda at: (at / "manifest.json").write_bytes(b"\xff\xfe\0"), "manifest.json is no Manifest"),
    "manifest too large": (lambda at: (at / "manifest.json").write_text(" " * 2**21), "manifest.json is too large"),
    "newer version": (lambda at: edit(at / "manifest.json", lambda t: t.update(schema_version=99)), "update paretune"),
    "unknown key": (lambda at: edit(at / "manifest.json", lambda t: t.update(auto_map={"x": 1})), "auto_map"),
    "escaping file": (
        lambda at: edit(at / "manifest.json", lambda t: t["files"].update({"../x": t["files"]["README.md"]})), "files",
    ),
    "remote code in the model": (
        lambda at: edit(at / "manifest.json", lambda t: t["model"].update(trust_remote_code=True)), "trust_remote_code",
    ),
    "NaN threshold": (
        lambda at: edit(at / "manifest.json", lambda t: t["abstention"].update(threshold=float("nan"))), "not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_bundles_are_refused(folder: Path, case: str) -> None:
    """Each names the file and what is wrong with it, in one line that tells no path of this machine."""
    tamper, message = TAMPERED[case]
    tamper(folder)
    with pytest.raises(BundleError, match=message) as error:
        read_bundle(folder)
    assert "\n" not in str(error.value) and str(folder.parent) not in str(error.value)


CONTENT: dict[str, tuple[Callable[[Path], object], dict[str, object], str]] = {
    "failed check": (
        lambda at: (at / "certificate.json").write_text(certificate("matters").model_dump_json()), {}, "matters failed",
    ),
    "check left out": (
        lambda at: edit(at / "certificate.json", lambda t: t["checks"].pop()), {}, "not all checks",
    ),
    "no goldens": (lambda at: edit(at / "goldens.json", lambda t: t["rows"].clear()), {}, "0 rows"),
    "boundless tolerance": (lambda at: edit(at / "goldens.json", lambda t: t.update(tolerance=1.0)), {}, "tolerance"),
    "golden of a foreign label": (
        lambda at: edit(at / "goldens.json", lambda t: t["rows"][0].update(label="z")), {}, "row 0",
    ),
    "golden of another width": (
        lambda at: edit(at / "goldens.json", lambda t: t["rows"][0].update(probabilities=[1.0])), {}, "row 0",
    ),
    "probability beyond 1": (
        lambda at: edit(at / "goldens.json", lambda t: t["rows"][0].update(probabilities=[2.0, 0.0, 0.0])), {}, "0 … 1",
    ),
    "labels twice": (lambda at: None, {"labels": ["a", "a", "b"]}, "none twice"),
    "one label": (lambda at: None, {"labels": ["a"]}, "at least two"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENT)
def test_whole_bundles_that_prove_nothing_are_refused(folder: Path, case: str) -> None:
    """Hashes hold, but the evidence does not."""
    tamper, changed, message = CONTENT[case]
    tamper(folder)
    with pytest.raises(BundleError, match=message):
        read_bundle(sealed(folder, **changed))


def test_a_folder_that_is_a_symlink_or_none_is_refused(folder: Path, tmp_path: Path) -> None:
    """A link could point anywhere when it is read the next time."""
    (tmp_path / "link").symlink_to(folder)
    for path in (tmp_path / "link", tmp_path / "nothing", folder / "README.md"):
        with pytest.raises(BundleError, match="a bundle's own folder"):
            read_bundle(path)


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    return sink.getvalue()


MALICIOUS: dict[str, tuple[bytes, str]] = {
    "pickle": (pickle.dumps({"weight": [1.0]}, protocol=4), "is a pickle"),
    "torch.save": (zipped(), "is a zip file"),
    "empty": (b"", "header"),
    "header length 2^63": (safetensors(b"{}", length=2**63), "header of 9223372036854775808 bytes"),
    "header longer than the file": (safetensors(b"{}", length=1000), "header of 1000 bytes"),
    "header not JSON": (safetensors(b"{nonsense"), "not JSON"),
    "header of nested braces": (safetensors(b'{"a":' * 200_000), "not JSON|no table|entry"),
    "tensor twice": (
        safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), "twice",
    ),
    "overlapping offsets": (safetensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "overlaps"),
    "gap": (safetensors({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)), "gap"),
    "data beyond the header's word": (safetensors({"a": entry([1], 0, 4)}, bytes(99)), "as its header says"),
    "data missing": (safetensors({"a": entry([4], 0, 16)}, bytes(4)), "as its header says"),
    "shape that lies": (safetensors({"a": entry([1000], 0, 4)}, bytes(4)), "spans 4 bytes"),
    "negative shape": (safetensors({"a": entry([-1, -1], 0, 4)}, bytes(4)), "whole numbers"),
    "fractional shape": (safetensors({"a": {**entry([1], 0, 4), "shape": [1.0]}}, bytes(4)), "whole numbers"),
    "other dtype": (safetensors({"a": entry([1], 0, 8, "F64")}, bytes(8)), "dtype 'F64'"),
    "metadata": (safetensors({"__metadata__": {"a": "b"}}), "entry '__metadata__'"),
    "infinity": (safetensors({"a": entry([1], 0, 4)}, struct.pack("<f", float("inf"))), "NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALICIOUS)
def test_malicious_tensor_files_are_refused(tmp_path: Path, case: str) -> None:
    """Pickles under another name, headers that lie, numbers that are none."""
    data, message = MALICIOUS[case]
    (tmp_path / "adapter.safetensors").write_bytes(data)
    with pytest.raises(BundleError, match=message) as error:
        read_safetensors(tmp_path / "adapter.safetensors", 2**20)
    assert "\n" not in str(error.value)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """640 bytes of header begin with the two bytes of a pickle: the brace after them decides."""
    text = json.dumps({"a": entry([1], 0, 4)}).encode().ljust(0x280)
    (tmp_path / "a.safetensors").write_bytes(safetensors(text, bytes(4)))
    assert check_header(tmp_path / "a.safetensors", 2**20) == {"a": (1,)}


@given(place=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 500))
@settings(max_examples=300, deadline=None)
def test_a_spoilt_file_is_refused_or_still_says_what_the_library_reads(place: int, byte: int, cut: int) -> None:
    """Any changed byte, any cut: one of our errors, or shapes that the library's own reader agrees with."""
    tensors = {"m.lora_A": torch.ones(2, 4), "m.lora_B": torch.zeros(4, 2), "bias": torch.ones(3)}
    data = bytearray(save(tensors))
    data[place % len(data)] = byte
    data = data[: len(data) - (cut if cut < 8 else 0)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        path.write_bytes(data)
        try:
            shapes = check_header(path, 2**20)
        except BundleError:
            return
        assert shapes == {name: tuple(one.shape) for name, one in load_file(path).items()}


def test_too_large_a_file_is_not_even_opened(tmp_path: Path) -> None:
    """Size caps hold before anything is read."""
    write_head(tmp_path / "a.safetensors", torch.ones(100, 100), torch.zeros(100))
    with pytest.raises(BundleError, match="too large"):
        check_header(tmp_path / "a.safetensors", 1000)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"m.lora_A": (2, 32)}, "lora_A without lora_B"),
        ({"m.lora_B": (32, 2)}, "without its lora_A"),
        ({"m.lora_A": (2, 32), "m.lora_B": (32, 3)}, r"\(rank, inputs\) and \(outputs, rank\)"),
        ({"m.lora_A": (2,), "m.lora_B": (32, 2)}, "shapes"),
        ({"m.lora_A": (100_000, 2), "m.lora_B": (2, 100_000)}, "rank 100000"),
        ({"m.lora_A": (0, 2), "m.lora_B": (2, 0)}, "rank 0"),
    ],
)
def test_updates_that_fit_nothing_are_refused(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], message: str
) -> None:
    """Half an update, matrices that do not meet, a rank that would fill the memory."""
    from paretune.serve.tensors import write_safetensors

    write_safetensors(tmp_path / "adapter.safetensors", {name: torch.ones(shape) for name, shape in tensors.items()})
    with pytest.raises(BundleError, match=message):
        read_delta(tmp_path / "adapter.safetensors")


def test_tensors_must_be_those_of_the_manifest(folder: Path) -> None:
    """A form that is not the tensors', a head of other names or classes, a file changed after reading: refused."""
    with pytest.raises(BundleError, match="form 'adapter'"):
        read_tensors(read_bundle(sealed(folder, form="model")))
    with pytest.raises(BundleError, match="shapes"):
        read_tensors(made_of(folder, labels=["a", "b"]))
    flip(folder / "adapter.safetensors")
    bundle = made_of(folder)
    flip(folder / "adapter.safetensors")
    with pytest.raises(BundleError, match="was changed"):
        read_tensors(bundle)


def made_of(folder: Path, **changed: object) -> Bundle:
    manifest = seal(folder, draft(**changed))
    goldens = Goldens.model_validate_json((folder / "goldens.json").read_text())
    return Bundle(folder, manifest, goldens, certificate(), manifest.digest)


def test_beside_and_folded_in_are_the_same_function(tiny_model: Path) -> None:
    """Low-rank and replaced parameters, both ways; beside leaves the base as it was, whatever happens inside."""
    encoder = load_encoder(f"path:{tiny_model}")
    ids = torch.arange(10, 18).unsqueeze(0)
    bias = "encoder.layer.1.output.dense.bias"
    delta = {VALUE: low_rank(3), bias: torch.linspace(-1, 1, HIDDEN)}
    with torch.inference_mode():
        before = encoder(input_ids=ids).last_hidden_state
        with pytest.raises(ZeroDivisionError), beside(encoder, delta):
            inside = encoder(input_ids=ids).last_hidden_state
            raise ZeroDivisionError
        assert torch.equal(encoder(input_ids=ids).last_hidden_state, before)
    fold_in(encoder, delta)
    with torch.inference_mode():
        folded = encoder(input_ids=ids).last_hidden_state
    assert torch.allclose(folded, inside, atol=1e-5) and not torch.allclose(folded, before, atol=1e-2)


@pytest.mark.parametrize("name", ["encoder.layer.9.attention.self.query", "embeddings", "encoder.layer.0"])
def test_updates_of_unknown_maps_are_refused(tiny_model: Path, name: str) -> None:
    """An update that would silently change nothing is an error."""
    encoder = load_encoder(f"path:{tiny_model}")
    with pytest.raises(BundleError, match="linear maps of the base model"), beside(encoder, {name: low_rank()}):
        pass
    with pytest.raises(BundleError, match="parameters of the base model"):
        fold_in(encoder, {f"{name}.bias_of_none": torch.zeros(HIDDEN)})
