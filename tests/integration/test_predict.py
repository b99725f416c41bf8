"""`paretune predict`: a file comes back labelled, whatever its kind, and nothing else of it changes.

PYTHONPATH=src python -m pytest tests/integration/test_predict.py
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from served import TEXTS, digest_of, make, post, serving, write_bundle
from toy_bundles import ToyBundle, toy_bundle
from typer.testing import CliRunner

from paretune.cli import app
from paretune.core.errors import BundleError, ConfigError, DataError, StorageError
from paretune.data.encoding import encode
from paretune.models.tokenizer import read_tokenizer
from paretune.records.bundle import Domain
from paretune.serve import predict_command as command
from paretune.serve.bundle import DOMAIN_FILE, read_bundle, seal, write_space
from paretune.serve.domain import fit_space
from paretune.serve.receipts import replay

predict_command = partial(command.predict_command, precision="fp32")  # in which the toy bundles are exact
ROWS = [("1", TEXTS[0], "x,y"), ("2", " \u200b", 'he said "so"'), ("3", TEXTS[1], "two\nlines"), ("4", TEXTS[2], "")]


@pytest.fixture(scope="module")
def news(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a domain, as they were before there was one."""
    return make(tiny_model, tmp_path_factory.mktemp("bundles") / "news", seed=1, threshold=0.0)


def csv_file(path: Path, separator: str = ",", encoding: str = "utf-8", text: str = "text") -> Path:
    with path.open("w", encoding=encoding, newline="") as sink:
        csv.writer(sink, delimiter=separator).writerows([["id", text, "note"], *ROWS])
    return path


def read_csv(path: Path, separator: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=separator))


def test_a_csv_file_keeps_its_rows_and_columns(news: Path, tmp_path: Path) -> None:
    """Four columns are added behind the others; an empty text is left to a person; the answers are the service's."""
    lines, tree = predict_command(news, csv_file(tmp_path / "in.csv"), tmp_path / "out.csv")
    header, *rows = read_csv(tmp_path / "out.csv")
    assert header == ["id", "text", "note", "prediction", "probability", "abstain", "out_of_domain"]
    assert [tuple(row[:3]) for row in rows] == ROWS
    assert rows[1][3:] == ["", "", "true", ""]
    assert (tree["rows"], tree["empty"], tree["abstained"], tree["failed"]) == (4, 1, 1, 0)
    with serving(tmp_path / "home", {"news": news}) as service:
        answers = post(service, "/v1/classify", {"inputs": TEXTS}).json()["results"]
    for row, answer in zip([rows[0], rows[2], rows[3]], answers, strict=True):
        assert row[3] == answer["label"] and float(row[4]) == pytest.approx(
            max(answer["probabilities"].values()), abs=1e-4
        )
        assert row[5:] == ["false", ""]
    assert sum(tree["labels"].values()) == 3 and tree["digest"] == digest_of(news)
    assert "rows labelled: 4" in lines[0] and "(unsure 0, unlike training texts 0, empty 1" in lines[-1]
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("to", ["csv", "jsonl", "json", "parquet"])
def test_any_kind_of_file_becomes_any_other(news: Path, tmp_path: Path, kind: str, to: str) -> None:
    """The same labels whatever the file is read from and written to; types of a Parquet file stay."""
    source, out = tmp_path / f"in.{kind}", tmp_path / f"out.{to}"
    if kind in ("csv", "tsv"):
        csv_file(source, "\t" if kind == "tsv" else ",")
        if kind == "tsv":  # a quoted field with a line end is refused in such a file
            source.write_text(source.read_text().replace("two\nlines", "two lines"))
    elif kind == "json":
        source.write_text(json.dumps([dict(zip(("id", "text", "note"), row, strict=True)) for row in ROWS]))
    elif kind == "jsonl":
        source.write_text("\n".join(json.dumps(dict(zip(("id", "text", "note"), row, strict=True))) for row in ROWS))
    else:
        columns = dict(zip(("id", "text", "note"), (pa.array(one) for one in zip(*ROWS, strict=True)), strict=True))
        pq.write_table(pa.table({**columns, "id": pa.array([1, 2, 3, 4], pa.int16())}), source)
    predict_command(news, source, out)
    if to == "parquet":
        table = pq.read_table(out)
        assert table.schema.field("id").type == (pa.int16() if kind == "parquet" else pa.string())
        found = table.to_pylist()
        assert found[1]["prediction"] == "" and found[1]["abstain"] is True and found[1]["out_of_domain"] is None
    elif to == "json":
        found = json.loads(out.read_text(encoding="utf-8"))
    elif to == "jsonl":
        found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert found[0]["probability"] > 0.3 and found[0]["abstain"] is False
    else:
        header, *rows = read_csv(out)
        found = [dict(zip(header, row, strict=True)) for row in rows]
    assert [str(one["id"]) for one in found] == ["1", "2", "3", "4"] and found[0]["text"] == TEXTS[0]
    assert all(one["prediction"] for one in (found[0], found[2], found[3]))


def test_plain_texts_become_a_table(news: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text a line comes back as a table beside the working folder's files; a quote may be a plain character."""
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text(f'{TEXTS[0]}\n\n"{TEXTS[1]}\n')
    predict_command(news, Path("in.txt"), None)
    header, *rows = read_csv(Path("in.labelled.csv"))
    assert header[:2] == ["text", "prediction"] and [row[0] for row in rows] == [TEXTS[0], f'"{TEXTS[1]}']
    Path("in.tsv").write_text(f'id\ttext\n1\t"{TEXTS[1]}\n')
    with pytest.raises(DataError, match="`--quoting none`"):
        predict_command(news, Path("in.tsv"), None)
    predict_command(news, Path("in.tsv"), None, quoting="none")
    assert read_csv(Path("in.labelled.tsv"), "\t")[1][1] == f'"{TEXTS[1]}'
    with pytest.raises(DataError, match=r"a name that ends in one of .csv"):
        predict_command(news, Path("in.txt"), Path("out.txt"))


def test_names_that_are_taken_separators_encodings_and_no_header(news: Path, tmp_path: Path) -> None:
    """A column called prediction stays; a semicolon stays a semicolon; another encoding becomes UTF-8; without a header
    there is none; a single column needs no name."""
    taken = tmp_path / "taken.csv"
    taken.write_text("prediction;text\nmine;goal match\n")
    predict_command(news, taken, tmp_path / "a.csv", separator=";")
    assert read_csv(tmp_path / "a.csv", ";")[0][:3] == ["prediction", "text", "prediction_2"]
    assert read_csv(tmp_path / "a.csv", ";")[1][0] == "mine"
    cyrillic = tmp_path / "cp.csv"
    cyrillic.write_bytes("отзыв,text\nда,goal match\n".encode("cp1251"))
    predict_command(news, cyrillic, tmp_path / "b.csv", "text", encoding="cp1251")
    assert read_csv(tmp_path / "b.csv")[1][0] == "да"
    bare = tmp_path / "bare.csv"
    bare.write_text("7,goal match\n8,barrel crude\n")
    predict_command(news, bare, tmp_path / "c.csv", "2", header=False)
    assert [row[:2] for row in read_csv(tmp_path / "c.csv")] == [["7", "goal match"], ["8", "barrel crude"]]
    single = tmp_path / "single.csv"
    single.write_text("comment\ngoal match\n")
    predict_command(news, single, tmp_path / "d.csv")
    assert read_csv(tmp_path / "d.csv")[0][:2] == ["comment", "prediction"]


def test_what_cannot_be_labelled_is_one_line(news: Path, tmp_path: Path) -> None:
    """No such column, a separator that is another, an output that is there, is the input or is of no known kind, a file
    or bundle that is none: refused before anything is computed, and nothing is written."""
    source = csv_file(tmp_path / "in.csv", text="review")
    there = csv_file(tmp_path / "there.csv")
    semicolons = csv_file(tmp_path / "semi.csv", ";")
    twice = tmp_path / "twice.csv"
    twice.write_text("text,a,a\ngoal,1,2\n")
    for bundle, file, out, more, kind, words in (
        (news, source, "o.csv", {}, DataError, "--text"),
        (news, source, "o.csv", {"text": "reviw"}, DataError, "did you mean 'review'"),
        (news, semicolons, "o.csv", {}, DataError, "separator"),
        (news, twice, "o.csv", {}, DataError, "twice"),
        (news, there, "there.csv", {"force": True}, StorageError, "is read"),
        (news, there, "in.csv", {}, StorageError, "--force"),
        (news, there, "o.xlsx", {}, DataError, ".parquet"),
        (news, tmp_path / "no.csv", "o.csv", {}, DataError, "no file"),
        (news, there, "o.csv", {"encoding": "klingon"}, ConfigError, "encoding"),
        (tmp_path, there, "o.csv", {}, BundleError, "manifest.json"),
    ):
        with pytest.raises(kind, match=words) as error:
            predict_command(bundle, file, tmp_path / out, **more)
        assert "\n" not in str(error.value) and not (tmp_path / "o.csv").exists()


def test_the_verb_prints_and_ends_as_others_do(news: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 with JSON on the last line, a default name for the output, Russian words, 2 and one line for bad input."""
    monkeypatch.chdir(tmp_path)
    source = csv_file(tmp_path / "in.csv")
    done = CliRunner().invoke(app, ["predict", str(news), str(source), "--json", "--precision", "fp32", "--lang", "ru"])
    assert done.exit_code == 0, done.output
    tree = json.loads(done.stdout.splitlines()[-1])
    assert (
        tree["out"] == "in.labelled.csv"
        and (tmp_path / "in.labelled.csv").is_file()
        and "решает человек" in done.stdout
    )
    again = CliRunner().invoke(app, ["predict", str(news), str(source)])
    assert isinstance(again.exception, StorageError)


def with_domain(toy: ToyBundle, folder: Path) -> Path:
    """The toy with a space fitted on some texts of its own, so that others are unlike them."""
    source = str(toy.bundle.manifest.model["source"])
    texts = [" ".join(words) for words in zip(TEXTS[0].split() * 6, TEXTS[1].split() * 12, strict=False)] + TEXTS

    def features_of(some: list[str]) -> torch.Tensor:
        rows = encode(read_tokenizer(source), some, 32)
        with torch.inference_mode():
            return torch.cat([toy.classifier.pooled(*rows.padded([place])) for place in range(len(rows))])

    space = fit_space(features_of(texts), ["a", "b"] * (len(texts) // 2) + ["a"] * (len(texts) % 2))
    threshold = max(space.distances(features_of(texts)).tolist()) * 1.01
    domain = Domain(
        threshold=threshold, share=0.05, validation_rows=9, validation_flagged=0.0, test_rows=9, test_flagged=0.0,
        invented_rows=9, invented_flagged=1.0,
    )  # fmt: skip
    write_bundle(toy, folder)
    write_space(folder / DOMAIN_FILE, space)
    seal(folder, toy.bundle.manifest.model_copy(update={"domain": domain}))
    return folder


def test_a_text_unlike_the_training_texts_is_left_to_a_person(tiny_model: Path, tmp_path: Path) -> None:
    """Flagged in the API, in its receipt (which replays to the bit), in /v1/models and in a labelled file, however sure
    the answer is; a text like them is not. Bundles without a domain leave the flag out."""
    toy = toy_bundle(tiny_model, "lora", {"rank": 2}, seed=1, threshold=0.0)
    bundle = with_domain(toy, tmp_path / "news")
    home = tmp_path / "home"
    plain = write_bundle(replace(toy, bundle=replace(toy.bundle)), tmp_path / "plain")
    strange = "zzz 999 ::: qqq 12345 жжж"
    with serving(home, {"news": bundle, "plain": plain}) as service:
        body = {"inputs": [TEXTS[0], strange], "adapter": "news", "receipt": True}
        like, unlike = post(service, "/v1/classify", body).json()["results"]
        old = post(service, "/v1/classify", {"inputs": [strange], "adapter": "plain"}).json()["results"][0]
        models = {one["id"]: one for one in service.client.get("/v1/models").json()["data"]}
    assert (like["out_of_domain"], like["abstain"]) == (False, False)
    assert (unlike["out_of_domain"], unlike["abstain"]) == (True, True)
    assert "out_of_domain" not in old and old["abstain"] is False
    assert models["news"]["domain"]["share"] == 0.05 and models["plain"]["domain"] is None
    assert set(models["news"]["examples"]) <= {row.text for row in toy.bundle.goldens.rows}
    receipt = tmp_path / "receipt.json"
    for one in (like, unlike):
        receipt.write_text(json.dumps(one["receipt"]))
        assert replay(receipt, home).verdict == "bit-equal"
        receipt.write_text(json.dumps({**one["receipt"], "out_of_domain": not one["out_of_domain"]}))
        assert replay(receipt, home).edited == ("out_of_domain",)
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"text": text}) for text in (TEXTS[0], strange)))
    _, tree = predict_command(bundle, source, tmp_path / "out.jsonl")
    flags = [json.loads(line)["out_of_domain"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert flags == [False, True] and (tree["out_of_domain"], tree["abstained"]) == (1, 1)


def test_a_domain_belongs_to_its_manifest(tiny_model: Path, tmp_path: Path) -> None:
    """The file without a word in the manifest, the word without its file, or another file: refused. A manifest without
    a domain hashes as it did before there was one."""
    toy = toy_bundle(tiny_model, "lora", {"rank": 2}, seed=1)
    assert "domain" not in toy.bundle.manifest.model_dump(mode="json")
    bundle = with_domain(toy, tmp_path / "news")
    assert read_bundle(bundle).manifest.domain is not None
    (bundle / DOMAIN_FILE).write_bytes((bundle / DOMAIN_FILE).read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"domain\.safetensors was changed"):
        read_bundle(bundle)
    (bundle / DOMAIN_FILE).unlink()
    with pytest.raises(BundleError, match=r"domain\.safetensors"):
        read_bundle(bundle)
    plain = write_bundle(toy, tmp_path / "plain")
    (plain / DOMAIN_FILE).write_bytes(b"x")
    with pytest.raises(BundleError, match="without a domain"):
        read_bundle(plain)
