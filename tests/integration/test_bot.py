"""The bot as a whole: a person writes to a local server that speaks the Bot API, a local service answers.

Nothing of the bot is replaced; it polls over real sockets. What a person gets to read is what is judged.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiogram", reason="the extra `bot` is not installed")

from bot_servers import JOY, KEY, TOKEN, Refusal, Service, Telegram

from paretune.core.errors import ConfigError, UsageError
from paretune.serve.bot import BotSettings, read_key, read_token, redacted
from paretune.serve.bot_chat import MOST_CALLS, adapters_keyboard, button_of
from paretune.serve.bot_choices import MOST_CHATS, Choices
from paretune.serve.bot_polling import poll
from paretune.serve.bot_words import ENGLISH, MESSAGE_CHARACTERS, RUSSIAN, answer_html, language_of, messages
from paretune.serve.client import Adapter, Answer, ApiError, Client, Failed, check_url, seconds_of

Scenario = Callable[[Telegram, Service], Awaitable[None]]
BUSY = {"error": "too many requests", "error_type": "overloaded", "request_id": "r"}


def talk(scenario: Scenario, *, key: str | None = KEY, state: Path | None = None, token: str = TOKEN) -> Telegram:
    """Run a bot beside a scenario, then stop it as a signal would; returns what Telegram saw."""

    async def both() -> Telegram:
        async with Telegram() as telegram, Service() as service:
            stop = asyncio.Event()
            settings = BotSettings(service.url, key, token, telegram.url, state)
            bot = asyncio.create_task(poll(settings, stop))
            try:
                told = asyncio.create_task(scenario(telegram, service))
                await asyncio.wait({bot, told}, return_when=asyncio.FIRST_COMPLETED)
                if not told.done():
                    told.cancel()
                    await bot  # raises what ended it
                    raise AssertionError("the bot ended before the scenario did")
                await told
            finally:
                stop.set()
                await asyncio.wait_for(bot, 20)
            return telegram

    return asyncio.run(both())


def test_a_text_is_classified_with_the_three_likeliest_labels() -> None:
    """Label, adapter and three bars are shown, the fourth label is not; the API got text, adapter and the bot's key."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        await telegram.say("What a lovely day")
        (reply,) = await telegram.wait_for(1)
        assert reply["parse_mode"] == "HTML" and reply["chat_id"] == "7"
        first, *rows = reply["text"].splitlines()
        assert first == "▸ <b>joy</b> · adapter <code>emotion</code>"
        assert rows == [
            "<code>███████░░░  71%</code> joy",
            "<code>██░░░░░░░░  20%</code> fear",
            "<code>█░░░░░░░░░   8%</code> anger",
        ]
        path, body, authorization = service.asked[-1]
        assert (path, authorization) == ("/v1/classify", f"Bearer {KEY}")
        assert body == {"inputs": [{"text": "What a lovely day", "adapter": "emotion"}]}

    talk(scenario)


@pytest.mark.parametrize(("code", "wanted"), [("ru", "оставлено человеку"), ("en", "left to a person")])
def test_an_abstention_is_left_to_a_person(code: str, wanted: str) -> None:
    """Where the service abstains the label does not head the answer; the language is that of the Telegram user."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.answer |= {"abstain": True, "confidence": 0.4}
        await telegram.say("hm", language=code)
        (reply,) = await telegram.wait_for(1)
        assert f"<b>{wanted}</b>" in reply["text"] and "<b>joy</b>" not in reply["text"]
        assert "joy" in reply["text"]

    talk(scenario)


def test_names_and_labels_from_outside_are_escaped() -> None:
    """Tags in a label, an adapter's name or the service's reason reach Telegram as text."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.names = ["<a href=x>"]
        service.answer |= {"label": "<b>&", "probabilities": {"<b>&": 1.0}}
        await telegram.say("<i>text</i>")
        (reply,) = await telegram.wait_for(1)
        assert "&lt;b&gt;&amp;" in reply["text"] and "&lt;a href=x&gt;" in reply["text"]
        assert "<a" not in reply["text"] and "<i>" not in reply["text"]
        service.refusals = [Refusal(422, {"error": "<script>", "error_type": "validation", "request_id": "r"})]
        await telegram.say("text")
        assert "cannot read this text: &lt;script&gt;" in (await telegram.wait_for(2))[1]["text"]

    talk(scenario)


def test_an_adapter_is_chosen_by_a_button_and_kept(tmp_path: Path) -> None:
    """The keyboard marks the chosen one; the next text goes to it; a new process reads it from the state file."""
    state = tmp_path / "bot.json"

    async def first(telegram: Telegram, service: Service) -> None:
        await telegram.say("/adapters")
        (reply,) = await telegram.wait_for(1)
        rows = json.loads(reply["reply_markup"])["inline_keyboard"]
        assert [button["text"] for (button,) in rows] == ["✓ emotion", "acceptability"]  # no failed one
        await telegram.press(rows[1][0]["callback_data"])
        (edited,) = await telegram.wait_for(1, "editMessageText")
        assert "<code>acceptability</code>" in edited["text"] and "joy, fear" in edited["text"]
        assert "✓ acceptability" in json.dumps(json.loads(edited["reply_markup"]), ensure_ascii=False)
        await telegram.wait_for(1, "answerCallbackQuery")
        await telegram.say("text")
        assert "acceptability" in (await telegram.wait_for(2))[1]["text"]

    async def second(telegram: Telegram, service: Service) -> None:
        await telegram.say("text")
        await telegram.say("text", chat=8)
        await telegram.wait_for(2)
        text_of = {reply["chat_id"]: reply["text"] for reply in telegram.replies()}
        assert "acceptability" in text_of["7"] and "emotion" in text_of["8"]

    talk(first, state=state)
    assert state.stat().st_mode & 0o777 == 0o600
    talk(second, state=state)


def test_an_adapter_that_is_gone_is_said_and_forgotten() -> None:
    """A 404 for the chosen adapter leads to the choice, and the next text to the default."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        await telegram.press(button_of("acceptability"))
        await telegram.wait_for(1, "editMessageText")
        service.names = ["emotion"]
        await telegram.say("one")
        assert "<code>acceptability</code> is no longer there" in (await telegram.wait_for(1))[0]["text"]
        await telegram.say("two")
        assert "<b>joy</b>" in (await telegram.wait_for(2))[1]["text"]
        await telegram.press(button_of("acceptability"))
        assert "list is old" in (await telegram.wait_for(2, "answerCallbackQuery"))[1]["text"]
        await telegram.press("a button of another version")
        await telegram.wait_for(3, "answerCallbackQuery")

    talk(scenario)


def test_the_second_press_on_a_button_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Telegram refuses an edit that changes nothing; nobody has to hear of it."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        error = {"ok": False, "error_code": 400, "description": "Bad Request: message is not modified: …"}
        telegram.refusals["editMessageText"] = [Refusal(400, error)]
        await telegram.press(button_of("emotion"))
        await telegram.wait_for(1, "answerCallbackQuery")
        await telegram.say("/help")
        await telegram.wait_for(1)

    talk(scenario)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("replied", [False, True])
def test_compare_shows_every_adapter_and_who_failed(replied: bool) -> None:
    """With the text after the command, or as the reply to a message."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.failed = [{"adapter": "third", "digest": "e" * 64, "error": "not a number"}]
        if replied:
            chat = {"id": 7, "type": "private"}
            await telegram.say("/compare", reply_to_message={"message_id": 90, "date": 1, "chat": chat, "text": "x y"})
        else:
            await telegram.say("/compare x y")
        (reply,) = await telegram.wait_for(1)
        assert service.asked[-1][:2] == ("/v1/compare", {"text": "x y"})
        assert "emotion" in reply["text"] and "acceptability" in reply["text"]
        assert "<code>third</code>: no answer (not a number)" in reply["text"]
        await telegram.say("/compare")
        assert "after the command" in (await telegram.wait_for(2))[1]["text"]

    talk(scenario)


def test_a_comparison_too_long_for_one_message_becomes_several() -> None:
    """No message is over Telegram's limit and every adapter stands in one of them."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.names = [f"adapter-{number:02}" for number in range(60)]
        await telegram.say("/compare text")
        while sum(reply["text"].count("▸") for reply in telegram.replies()) < 60:
            await telegram.wait_for(len(telegram.replies()) + 1)
        texts = [reply["text"] for reply in telegram.replies()]
        assert len(texts) > 1 and max(map(len, texts)) <= MESSAGE_CHARACTERS
        assert all(name in "".join(texts) for name in service.names)

    talk(scenario)


def test_the_language_is_that_of_the_user_until_chosen(tmp_path: Path) -> None:
    """ru by language_code, en after /lang en, ru again by the button; an unknown language offers both."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        await telegram.say("/start", language="ru-RU")
        await telegram.say("/lang en", language="ru-RU")
        await telegram.say("/help", language="ru-RU")
        await telegram.say("/lang de", language="ru-RU")
        await telegram.press("lang:ru", language="ru-RU")
        (edited,) = await telegram.wait_for(1, "editMessageText")
        texts = {reply["text"] for reply in await telegram.wait_for(4)}
        assert texts == {RUSSIAN.help, ENGLISH.language_set, ENGLISH.help, ENGLISH.language_how}
        assert edited["text"] == RUSSIAN.language_set

    def in_turn(telegram: Telegram, service: Service) -> Awaitable[None]:
        return scenario(telegram, service)

    talk(in_turn)


def test_what_is_no_text_is_told_and_a_caption_is_read() -> None:
    """A sticker gets a hint, a photo's caption is classified, a service message gets nothing."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        await telegram.say(None, new_chat_title="no one's words")
        await telegram.say(None, location={"latitude": 1.0, "longitude": 1.0})
        assert (await telegram.wait_for(1))[0]["text"] == ENGLISH.text_only
        photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
        await telegram.say(None, photo=photo, caption="a caption")
        assert "<b>joy</b>" in (await telegram.wait_for(2))[1]["text"]
        assert service.asked[-1][1]["inputs"][0]["text"] == "a caption"
        await telegram.say("/nonsense")
        assert (await telegram.wait_for(3))[2]["text"] == ENGLISH.unknown_command

    talk(scenario)


def test_a_text_longer_than_the_model_reads_is_marked() -> None:
    """4096 characters go out whole; the service's `truncated` is told."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.answer |= {"truncated": True}
        await telegram.say("ы" * 4096)
        assert "only its beginning counted" in (await telegram.wait_for(1))[0]["text"]
        assert service.asked[-1][1]["inputs"][0]["text"] == "ы" * 4096

    talk(scenario)


def test_a_busy_service_is_waited_for_and_the_person_knows() -> None:
    """429 with Retry-After: one note, a wait, the same request again, then the answer."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.refusals = [Refusal(429, BUSY, {"Retry-After": "1"}), Refusal(503, BUSY, {"Retry-After": "0"})]
        await telegram.say("text")
        replies = await telegram.wait_for(2)
        assert replies[0]["text"] == ENGLISH.waiting.format(seconds=1)
        assert "<b>joy</b>" in replies[1]["text"]
        assert service.paths().count("/v1/classify") == 3

    talk(scenario)


def test_a_service_that_asks_for_too_long_is_not_waited_for() -> None:
    """Retry-After beyond the bot's patience is told instead, with its seconds."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.refusals = [Refusal(429, BUSY, {"Retry-After": "600"})]
        await telegram.say("text")
        assert (await telegram.wait_for(1))[0]["text"] == ENGLISH.busy.format(seconds=600)

    talk(scenario)


@pytest.mark.parametrize(
    ("refusal", "wanted"),
    [
        (Refusal(401, {"error": "no", "error_type": "auth", "request_id": "r"}), ENGLISH.auth),
        (Refusal(500, "not even JSON"), ENGLISH.broken),
        (Refusal(200, {"results": "a text"}), ENGLISH.broken),
        (Refusal(200, {"results": []}), ENGLISH.broken),
        (Refusal(302, "", {"Location": "http://127.0.0.1:1/"}), ENGLISH.broken),
        (Refusal(413, {"error": "too long", "error_type": "validation", "request_id": "r"}), "too long"),
    ],
    ids=["401", "500", "another shape", "no result", "redirect", "413"],
)
def test_a_service_in_trouble_is_told_in_plain_words(refusal: Refusal, wanted: str) -> None:
    """The person reads a sentence, the next text is answered as if nothing had been."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.refusals = [refusal]
        await telegram.say("text")
        assert wanted in (await telegram.wait_for(1))[0]["text"]
        await telegram.say("text")
        assert "<b>joy</b>" in (await telegram.wait_for(2))[1]["text"]

    talk(scenario)


def test_a_service_that_is_down_is_told_and_may_come_later() -> None:
    """The bot starts without the service, says so to who writes, and answers once the service is there."""

    async def both() -> None:
        async with Telegram() as telegram, Service() as service:
            url = service.url
        stop = asyncio.Event()
        async with Telegram() as telegram:
            bot = asyncio.create_task(poll(BotSettings(url, KEY, TOKEN, telegram.url), stop))
            await telegram.say("text")
            assert (await telegram.wait_for(1))[0]["text"] == ENGLISH.down
            await telegram.say("/adapters")
            assert (await telegram.wait_for(2))[1]["text"] == ENGLISH.down
            await telegram.press(button_of("emotion"))
            assert (await telegram.wait_for(1, "answerCallbackQuery"))[0]["text"] == ENGLISH.down
            stop.set()
            await asyncio.wait_for(bot, 10)

    asyncio.run(both())


def test_a_service_without_adapters_is_told() -> None:
    """Neither a choice nor an answer is offered where nothing is ready."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.names = []
        for count, text in enumerate(("text", "/adapters", "/compare text"), start=1):
            await telegram.say(text)
            assert (await telegram.wait_for(count))[-1]["text"] == ENGLISH.none_ready

    talk(scenario)


def test_one_chat_cannot_pile_up_messages() -> None:
    """Of five at once three are read and two are refused at once; later ones are read again; other chats go on."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.hold = asyncio.Event()
        for _ in range(5):
            await telegram.say("text")
        assert [one["text"] for one in await telegram.wait_for(2)] == [ENGLISH.slow_down] * 2
        service.hold.set()
        replies = await telegram.wait_for(5)
        assert sum("<b>joy</b>" in one["text"] for one in replies) == 3
        await telegram.say("text")
        assert "<b>joy</b>" in (await telegram.wait_for(6))[5]["text"]

    talk(scenario)


def test_many_chats_do_not_flood_the_service() -> None:
    """Of 30 chats that write at once 16 are asked for, the others in their turn, and all are answered."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        await telegram.say("text")  # the default adapter is known from here on
        await telegram.wait_for(1)
        service.hold = asyncio.Event()
        before = len(service.asked)
        for chat in range(30):
            await telegram.say("text", chat=100 + chat)
        while telegram.confirmed < 31:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert len(service.asked) - before == MOST_CALLS
        service.hold.set()
        replies = await telegram.wait_for(31)
        assert len({reply["chat_id"] for reply in replies}) == 31

    talk(scenario)


def test_stopping_answers_what_was_begun_and_confirms_it() -> None:
    """A message that is being read when the bot is told to stop is answered, and Telegram hands it out no more."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        service.hold = asyncio.Event()
        await telegram.say("text")
        while "/v1/classify" not in service.paths():
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.5, service.hold.set)

    telegram = talk(scenario)
    assert "<b>joy</b>" in telegram.replies()[0]["text"]
    assert telegram.confirmed >= 1


def test_telegram_asking_for_patience_is_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    """A 429 of Telegram itself is waited for, and the answer still arrives; a blocked chat is no error."""

    async def scenario(telegram: Telegram, service: Service) -> None:
        flood = {"ok": False, "error_code": 429, "description": "Too Many Requests", "parameters": {"retry_after": 1}}
        blocked = {"ok": False, "error_code": 403, "description": "Forbidden: bot was blocked by the user"}
        telegram.refusals["sendMessage"] = [Refusal(429, flood), Refusal(403, blocked)]
        await telegram.say("one")
        while telegram.refusals["sendMessage"]:
            await asyncio.sleep(0.01)
        await telegram.say("two")
        await telegram.wait_for(1)

    talk(scenario)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_telegram_out_of_reach_at_the_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed getMe is tried again; the bot then works."""
    from paretune.serve import bot_polling

    monkeypatch.setattr(bot_polling, "FIRST_RETRY_SECONDS", 0.05)

    async def both() -> None:
        async with Telegram() as telegram, Service() as service:
            telegram.refusals["getMe"] = [Refusal(502, "Bad Gateway"), Refusal(500, {"ok": False, "description": "x"})]
            stop = asyncio.Event()
            bot = asyncio.create_task(poll(BotSettings(service.url, KEY, TOKEN, telegram.url), stop))
            await telegram.say("text")
            await telegram.wait_for(1)
            stop.set()
            await asyncio.wait_for(bot, 10)

    asyncio.run(both())


async def _nothing(telegram: Telegram, service: Service) -> None:
    await asyncio.sleep(60)


def test_a_refused_key_or_token_ends_the_bot_with_one_line() -> None:
    """Exit code 2 and no secret in the line."""
    with pytest.raises(UsageError, match="refuses the bot's key") as refused:
        talk(_nothing, key="another-key")
    assert "another-key" not in str(refused.value)
    with pytest.raises(UsageError, match="does not know the bot's token") as unknown:
        talk(_nothing, token="99:not-the-token")
    assert "not-the-token" not in str(unknown.value)


PROGRAM = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from paretune.core.errors import ParetuneError
from paretune.serve.bot import BotSettings, read_key, read_token, run_bot
try:
    api, telegram, token, key = sys.argv[1:]
    run_bot(BotSettings(api, read_key(Path(key)), read_token(Path(token), {}), telegram))
except ParetuneError as error:
    sys.exit(f"paretune: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_process_and_no_secret_was_said(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0; torch was never imported; a failing Telegram, whose URL carries the token, is logged without it."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "key").write_text(KEY + "\n")

    async def both() -> tuple[int, str]:
        async with Telegram() as telegram, Service() as service:
            telegram.refusals["getMe"] = [Refusal(500, {"ok": False, "description": f"at /bot{TOKEN}/getMe"})]
            telegram.refusals["sendMessage"] = [Refusal(400, {"ok": False, "description": f"bad {TOKEN} {KEY}"})]
            arguments = [sys.executable, "-X", "importtime", "-c", PROGRAM, service.url, telegram.url]
            arguments += [str(tmp_path / "token"), str(tmp_path / "key")]
            process = await asyncio.create_subprocess_exec(*arguments, stderr=subprocess.PIPE, env=dict(os.environ))
            assert process.stderr is not None
            said = asyncio.create_task(process.stderr.read())
            await telegram.say("one")
            await telegram.say("two")
            await telegram.wait_for(1)
            process.send_signal(number)
            return await asyncio.wait_for(process.wait(), 30), (await said).decode()

    code, said = asyncio.run(both())
    assert code == 0, said
    assert "stopped" in said and "[secret]" in said
    assert TOKEN not in said and TOKEN.split(":")[1] not in said and KEY not in said
    modules = {line.rsplit("|", 1)[-1].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert "aiogram" in modules and not modules & {"torch", "transformers", "pyarrow"}


# The parts, without sockets.


@pytest.mark.parametrize("text", ["", "no token", "12:ab cd", "abc:def", "123456", "12\n34"])
def test_what_is_no_token_is_refused_without_being_repeated(tmp_path: Path, text: str) -> None:
    """One line that names the file and not its content."""
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_token(file, {})
    assert not text or text not in str(refused.value)


def test_secrets_come_from_files_or_the_environment(tmp_path: Path) -> None:
    """A file wins over the environment; a missing file, and none at all, are told."""
    (tmp_path / "token").write_text("1234:abc\n")
    environment = {"PARETUNE_BOT_TOKEN": "5678:def"}
    assert read_token(tmp_path / "token", environment) == "1234:abc"
    assert read_token(None, environment) == "5678:def"
    assert read_key(None) is None
    for broken in (lambda: read_token(None, {}), lambda: read_key(tmp_path / "none")):
        with pytest.raises(ConfigError, match=r"PARETUNE_BOT_TOKEN|cannot be read"):
            broken()
    (tmp_path / "key").write_text("ключ")
    with pytest.raises(ConfigError, match="holds no key"):
        read_key(tmp_path / "key")


def test_secrets_stay_out_of_reprs_and_texts() -> None:
    """Neither the settings' repr nor a redacted text holds them, percent-encoded or not."""
    settings = BotSettings("http://h", "the-key", "12:tok")
    assert "the-key" not in repr(settings) and "12:tok" not in repr(settings)
    assert redacted("a 12:tok b 12%3Atok", ("12:tok",)) == "a [secret] b [secret]"


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://h", "http://", "http://u:p@h", "http://h?key=1", "http://["]
)
def test_what_is_no_url_of_a_service_is_refused(url: str) -> None:
    """A key in the URL would end in logs."""
    with pytest.raises(ConfigError, match="a URL such as"):
        check_url(url, "--api")
    assert check_url("https://h:1/base/", "--api") == "https://h:1/base"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Thu, 01 Jan 2026 00:00:10 GMT", 10.0),
        ("Thu, 01 Jan 2026 00:00:10 -0000", 10.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, wanted: float | None) -> None:
    """By hand; what is neither is None."""
    assert seconds_of(header, datetime(2026, 1, 1, tzinfo=UTC)) == wanted


def test_choices_survive_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapter and language are set apart; the chats silent longest go first; a broken file is an error, not a reset."""
    file = tmp_path / "state.json"
    choices = Choices(file)
    choices.change(1, adapter="a")
    choices.change(1, language="ru")
    choices.change(-2, language="en")
    again = Choices(file)
    assert (again.of(1).adapter, again.of(1).language, again.of(-2).language) == ("a", "ru", "en")
    again.forget_adapter(1)
    assert (again.of(1).adapter, again.of(1).language) == (None, "ru")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    memory = Choices()
    for chat in range(MOST_CHATS + 5):
        memory.change(chat, adapter="a")
    assert memory.of(4).adapter is None and memory.of(5).adapter == "a"
    file.write_text('{"chats": {"x": {}}}')
    with pytest.raises(UsageError, match="move it away"):
        Choices(file)
    with pytest.raises(UsageError, match="cannot write"):
        Choices(tmp_path / "no folder" / "state.json")


def test_a_client_asks_once_more_without_a_named_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 429 without Retry-After is tried again after the client's own wait, until its patience ends."""
    from paretune.serve import client as module

    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.01)
    waits: list[float] = []

    async def tell(seconds: float) -> None:
        waits.append(seconds)

    async def ask() -> None:
        async with Service() as service, Client(service.url, KEY, patience_seconds=0.05) as client:
            service.refusals = [Refusal(429, "")] * 20
            with pytest.raises(ApiError) as busy:
                await client.classify("text", "emotion", tell)
            assert busy.value.trouble == "busy" and busy.value.reason == "HTTP 429"

    asyncio.run(ask())
    assert waits[:2] == [0.01, 0.02] and sum(waits) <= 0.05


def test_client_and_service_mean_the_same_shapes() -> None:
    """What the client sends fits the service's closed models; what these write is what the client reads."""
    from paretune.serve import shapes

    result = shapes.Result(
        adapter="emotion",
        digest="d" * 64,
        label="joy",
        abstain=True,
        confidence=0.4,
        probabilities=JOY,
        truncated=True,
        tokens=3,
    )
    unlike = result.model_copy(update={"out_of_domain": True})
    failed = shapes.Failed(adapter="third", digest="e" * 64, error="not a number")
    refused = shapes.ErrorAnswer(error="the queue is full", error_type="overloaded", request_id="r")

    async def ask() -> None:
        async with Service() as service, Client(service.url, KEY, patience_seconds=0) as client:
            classified = shapes.ClassifyAnswer(results=[result], request_id="r").model_dump()
            both = shapes.CompareAnswer(results=[result, unlike], failed=[failed], request_id="r")
            compared = both.model_dump(exclude_none=True)  # as the service writes: what it cannot tell is left out
            service.refusals = [Refusal(200, classified), Refusal(200, compared), Refusal(429, refused.model_dump())]
            answer = await client.classify("text", "emotion")
            assert answer.model_dump() == result.model_dump(exclude={"tokens", "receipt"})
            other = answer.model_copy(update={"out_of_domain": True})
            assert await client.compare("text") == [answer, other, Failed(adapter="third", error="not a number")]
            with pytest.raises(ApiError, match="the queue is full"):
                await client.classify("text", "emotion")
            shapes.ClassifyRequest.model_validate_json(json.dumps(service.asked[0][1]))
            shapes.CompareRequest.model_validate_json(json.dumps(service.asked[1][1]))

    asyncio.run(ask())


def test_names_of_any_length_fit_into_telegrams_limits() -> None:
    """A button carries at most 64 bytes, a page has its arrows, and a monstrous answer still fits one message."""
    adapters = [Adapter(id="é" * 64 + str(number), labels=["x"]) for number in range(20)]
    keyboard = adapters_keyboard(adapters, adapters[9].id, 1)
    *rows, arrows = keyboard.inline_keyboard
    assert len(rows) == 8 and rows[1][0].text.startswith("✓ ")
    assert [one.callback_data for one in arrows] == ["page:0", "page:1", "page:2"]
    datas = [one.callback_data or "" for row in keyboard.inline_keyboard for one in row]
    assert max(len(data.encode()) for data in datas) <= 64 and len(set(datas)) == len(datas)
    labels = {f"<{'&' * 500}{number}>": 0.25 for number in range(4)}
    answer = Answer(
        adapter="<" * 500,
        digest="",
        label="&" * 500,
        abstain=False,
        confidence=0.2,
        probabilities=labels,
        truncated=True,
    )
    assert len(answer_html(answer, RUSSIAN)) < MESSAGE_CHARACTERS
    assert messages([]) == [] and messages(["a", "b"]) == ["a\n\nb"]
    assert messages(["a" * 4000, "b" * 100]) == ["a" * 4000, "b" * 100]


def test_both_languages_say_the_same_things() -> None:
    """Every command is described in both, and every text differs between them."""
    assert ENGLISH.commands.keys() == RUSSIAN.commands.keys()
    fields: dict[str, Any] = vars(ENGLISH)
    assert [name for name, value in fields.items() if value == vars(RUSSIAN)[name]] == []
    assert [language_of(code) for code in ("ru", "RU-ru", "en", "rup", "", None)] == [
        "ru",
        "ru",
        "en",
        "en",
        "en",
        "en",
    ]
