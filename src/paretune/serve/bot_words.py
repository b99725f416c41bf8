"""What the bot says, in Russian and English, as Telegram's HTML; and how an answer looks as text.

Not here: when something is said (`bot_chat.py`). What comes from outside (labels, names, reasons) is escaped and cut
(https://core.telegram.org/bots/api#html-style).

    answer_html(answer, WORDS["en"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from paretune.serve.client import Answer, ApiError, Failed

Language = Literal["ru", "en"]

MESSAGE_CHARACTERS = 4096  # Telegram's limit, counted after the tags are read; here the tags count too
SHOWN_LABELS = 3
NAME_CHARACTERS = 64
BAR_CELLS = 10


@dataclass(frozen=True)
class Words:
    """Everything that is said in one language; {…} are filled in by the functions below and by the chat."""

    percent: str
    help: str
    commands: dict[str, str]
    left_to_a_person: str
    out_of_domain: str
    by_adapter: str
    truncated: str
    failed_one: str
    choose: str
    chosen: str
    gone: str
    old_list: str
    none_ready: str
    compare_how: str
    language_how: str
    language_set: str
    text_only: str
    unknown_command: str
    slow_down: str
    waiting: str
    busy: str
    down: str
    auth: str
    rejected: str
    broken: str


ENGLISH = Words(
    percent="%",
    help=(
        "I sort texts. Send me one, and I answer with the class that the chosen adapter gives it, "
        "and how sure it is; where it is not sure enough, the text is <b>left to a person</b>.\n\n"
        "/adapters — choose the adapter\n/compare TEXT — one text through all adapters "
        "(or reply with /compare to a message)\n/lang ru or /lang en — my language\n/help — this text\n\n"
        "I keep no texts; only this chat's choice of adapter and language."
    ),
    commands={
        "adapters": "choose the adapter",
        "compare": "one text through all adapters",
        "lang": "language: ru or en",
        "help": "what I can do",
    },
    left_to_a_person="left to a person",
    out_of_domain="The text is unlike those that the adapter was trained on.",
    by_adapter="adapter {name}",
    truncated="The text is longer than the model reads: only its beginning counted.",
    failed_one="{name}: no answer ({reason})",
    choose="Which adapter shall read your texts?",
    chosen="Your texts are now read by {name}. Its classes: {labels}",
    gone="The adapter {name} is no longer there. Choose another: /adapters",
    old_list="This list is old. A new one: /adapters",
    none_ready="The service has no adapter that is ready. Try again later.",
    compare_how="Write the text after the command: /compare TEXT. Or reply with /compare to a message.",
    language_how="Write /lang ru or /lang en, or choose:",
    language_set="I speak English now.",
    text_only="I can read text only. Send me a text, or a file with a caption.",
    unknown_command="I do not know this command. What I can do: /help",
    slow_down="I am still reading your earlier messages. This one is not read: please send it again a little later.",
    waiting="The service is busy: I ask again in {seconds} s.",
    busy="The service is too busy to answer. Please try again in {seconds} s.",
    down="The service does not answer now. Please try again later.",
    auth="The service does not accept my key. Whoever runs this bot has to give it a valid one.",
    rejected="The service cannot read this text: {reason}",
    broken="Something went wrong at the service. Please try again later.",
)

RUSSIAN = Words(
    percent="\N{NO-BREAK SPACE}%",
    help=(
        "Я разбираю тексты по классам. Пришлите текст — отвечу, какой класс даёт ему выбранный адаптер "
        "и насколько он уверен; где уверенности мало, текст <b>оставлен человеку</b>.\n\n"
        "/adapters — выбрать адаптер\n/compare ТЕКСТ — один текст через все адаптеры "
        "(или ответьте командой /compare на сообщение)\n/lang ru или /lang en — язык\n/help — эта справка\n\n"
        "Тексты я не храню: только выбранные в этом чате адаптер и язык."
    ),
    commands={
        "adapters": "выбрать адаптер",
        "compare": "один текст через все адаптеры",
        "lang": "язык: ru или en",
        "help": "что я умею",
    },
    left_to_a_person="оставлено человеку",
    out_of_domain="Текст не похож на те, на которых обучен адаптер.",
    by_adapter="адаптер {name}",
    truncated="Текст длиннее, чем читает модель: учтено только его начало.",
    failed_one="{name}: ответа нет ({reason})",
    choose="Какой адаптер будет читать ваши тексты?",
    chosen="Теперь ваши тексты читает {name}. Его классы: {labels}",
    gone="Адаптера {name} больше нет. Выберите другой: /adapters",
    old_list="Этот список устарел. Новый: /adapters",
    none_ready="У сервиса нет готового адаптера. Попробуйте позже.",
    compare_how="Напишите текст после команды: /compare ТЕКСТ. Или ответьте командой /compare на сообщение.",
    language_how="Напишите /lang ru или /lang en либо выберите:",
    language_set="Теперь я говорю по-русски.",
    text_only="Я читаю только текст. Пришлите текст или файл с подписью.",
    unknown_command="Такой команды я не знаю. Что я умею: /help",
    slow_down="Я ещё читаю ваши прежние сообщения. Это не прочитано: пришлите его ещё раз чуть позже.",
    waiting="Сервис занят: спрошу ещё раз через {seconds} с.",
    busy="Сервис слишком занят. Попробуйте ещё раз через {seconds} с.",
    down="Сервис сейчас не отвечает. Попробуйте позже.",
    auth="Сервис не принимает мой ключ. Тот, кто запустил бота, должен дать ему действующий.",
    rejected="Сервис не может прочитать этот текст: {reason}",
    broken="У сервиса что-то сломалось. Попробуйте позже.",
)

WORDS: dict[Language, Words] = {"en": ENGLISH, "ru": RUSSIAN}


def language_of(code: str | None) -> Language:
    """The language to begin with, from the `language_code` of a Telegram user ("ru", "ru-RU", "en", None)."""
    return "ru" if (code or "").lower().split("-")[0] == "ru" else "en"


def name_html(name: str) -> str:
    """A name from outside: cut to a line's length, escaped, in monospace."""
    return f"<code>{_cut(name, NAME_CHARACTERS)}</code>"


def _cut(text: str, characters: int) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= characters else line[: characters - 1] + "…", quote=False)


def labels_html(labels: Sequence[str]) -> str:
    """The first labels of an adapter; how many more there are stands behind them."""
    shown = ", ".join(_cut(one, NAME_CHARACTERS) for one in labels[:12])
    return shown + (f" … (+{len(labels) - 12})" if len(labels) > 12 else "")


def _percent(share: float, words: Words) -> str:
    whole = round(100 * share)
    return f"{'<1' if whole == 0 and share > 0 else whole}".rjust(3) + words.percent


def bar(share: float) -> str:
    """A probability as ten cells; one that is not zero shows at least one."""
    cells = min(BAR_CELLS, max(int(share > 0), round(BAR_CELLS * share)))
    return "█" * cells + "░" * (BAR_CELLS - cells)


def answer_html(answer: Answer, words: Words) -> str:
    """The class or the abstention, the three likeliest labels as bars, and whose answer it is."""
    top = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[:SHOWN_LABELS]
    head = words.left_to_a_person if answer.abstain else _cut(answer.label, NAME_CHARACTERS)
    mark = "✋" if answer.abstain else "▸"
    lines = [f"{mark} <b>{head}</b> · {words.by_adapter.format(name=name_html(answer.adapter))}"]
    for label, share in top:
        row = f"{bar(share)} {escape(_percent(share, words), quote=False)}"
        lines.append(f"<code>{row}</code> {_cut(label, NAME_CHARACTERS)}")
    if answer.out_of_domain:
        lines.append(f"<i>{words.out_of_domain}</i>")
    if answer.truncated:
        lines.append(f"<i>{words.truncated}</i>")
    return "\n".join(lines)


def result_html(result: Answer | Failed, words: Words) -> str:
    """One adapter's part of a comparison."""
    if isinstance(result, Failed):
        return words.failed_one.format(name=name_html(result.adapter), reason=_cut(result.error, 200))
    return answer_html(result, words)


def trouble_html(error: ApiError, words: Words) -> str:
    """What a person is told where the service did not answer ("missing" is said with the adapter's name instead)."""
    seconds = max(1, round(error.retry_after_seconds or 1))
    said = {
        "down": words.down,
        "auth": words.auth,
        "busy": words.busy.format(seconds=seconds),
        "rejected": words.rejected.format(reason=_cut(error.reason, 200)),
        "missing": words.none_ready,
        "broken": words.broken,
    }
    return said[error.trouble]


def messages(blocks: Sequence[str]) -> list[str]:
    """Blocks joined into as few messages as Telegram's limit allows; no block is torn."""
    found: list[str] = []
    for block in blocks:
        if found and len(found[-1]) + 2 + len(block) <= MESSAGE_CHARACTERS:
            found[-1] += "\n\n" + block
        else:
            found.append(block)
    return found
