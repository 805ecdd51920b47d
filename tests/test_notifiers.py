"""Test what each kind of notifier sends, and that nobody hears of an alert twice or never."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from receivers import Mailbox, Receiver, mail_server, receiving
from slipway.cli import main
from slipway.settings import AlertSettings, NotifierSettings, Settings
from slipway.telemetry.alerts.definitions import rules_of
from slipway.telemetry.alerts.evaluator import Evaluator
from slipway.telemetry.alerts.notifiers import FIELDS, KINDS
from slipway.telemetry.alerts.notifying import AGAIN_S, Notifying
from slipway.telemetry.history import History

SECRET = "sec-ret-9f2c"
START = 1_790_000_000.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with mail_server() as found:
        yield found


def sent_by_command(folder: Path, notifier: dict[str, object]) -> Result:
    """Run `slipway alerts test` with one notifier."""
    file = folder / "slipway.yaml"
    file.write_text(json.dumps({"alerts": {"notify": {"team": notifier}}}))
    return CliRunner().invoke(main, ["alerts", "test", "--config", str(file)])


def test_every_kind_has_a_row_and_fields() -> None:
    assert set(KINDS) == {"webhook", "slack", "dingtalk", "feishu", "email"}
    assert set(FIELDS["webhook"]) == {"url", "secret?"}


def test_a_webhook_gets_what_alertmanager_sends_and_a_signature(
    receiver: Receiver, tmp_path: Path
) -> None:
    done = sent_by_command(tmp_path, {"kind": "webhook", "url": receiver.url, "secret": SECRET})
    assert done.exit_code == 0, done.output
    assert "team (webhook): sent in" in done.output
    _, headers, body = receiver.got[0]
    assert (body["version"], body["status"], body["receiver"]) == ("4", "firing", "team")
    alert = body["alerts"][0]
    assert alert["labels"] == {"alertname": "Test", "severity": "page"}
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/Test.md"
    assert alert["endsAt"] == "0001-01-01T00:00:00Z"
    signed = f"{headers['x-slipway-timestamp']}.".encode() + receiver.raw[0]
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["x-slipway-signature"] == f"sha256={expected}"


def test_slack_gets_text_without_links_of_its_own(receiver: Receiver, tmp_path: Path) -> None:
    assert sent_by_command(tmp_path, {"kind": "slack", "url": f"{receiver.url}/T/B"}).exit_code == 0
    path, _, body = receiver.got[0]
    assert path == "/T/B"
    assert "*FIRING: Test*" in body["text"]
    assert "Runbook: docs/runbooks/Test.md" in body["text"]


def test_dingtalk_gets_a_signed_address(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = {"errcode": 0, "errmsg": "ok"}
    url = f"{receiver.url}/robot/send?access_token=tok"
    assert (
        sent_by_command(tmp_path, {"kind": "dingtalk", "url": url, "secret": SECRET}).exit_code == 0
    )
    path, _, body = receiver.got[0]
    query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
    said = f"{query['timestamp']}\n{SECRET}".encode()
    digest = hmac.new(SECRET.encode(), said, hashlib.sha256).digest()
    assert query["sign"] == base64.b64encode(digest).decode()
    assert query["access_token"] == "tok"
    assert body["msgtype"] == "markdown"
    assert "**[page] Test: This is a test" in body["markdown"]["text"]


def test_feishu_gets_a_signed_message(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = {"code": 0}
    done = sent_by_command(tmp_path, {"kind": "feishu", "url": receiver.url, "secret": SECRET})
    assert done.exit_code == 0
    _, _, body = receiver.got[0]
    key = f"{body['timestamp']}\n{SECRET}".encode()
    assert body["sign"] == base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()
    assert body["content"]["text"].startswith("FIRING: Test\n\n[page] Test")


def test_a_mail_says_what_to_do(mailbox: Mailbox, tmp_path: Path) -> None:
    server = f"smtp://127.0.0.1:{mailbox.port}"
    notifier: dict[str, object] = {
        "kind": "email",
        "server": server,
        "sender": "s@x.test",
        "to": ["a@x.test"],
    }
    done = sent_by_command(tmp_path, notifier)
    assert done.exit_code == 0, done.output
    mail = message_from_string(mailbox.mails[0])
    assert (mail["Subject"], mail["To"]) == ("Slipway: FIRING: Test", "a@x.test")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "What to do: Nothing." in str(mail.get_payload())


def test_a_password_is_not_sent_without_tls(mailbox: Mailbox, tmp_path: Path) -> None:
    server = f"smtp://127.0.0.1:{mailbox.port}"
    login = {"user": "u", "password": "p" * 9, "sender": "s@x.test", "to": "a@x.test"}
    done = sent_by_command(tmp_path, {"kind": "email", "server": server, **login})
    assert done.exit_code == 1
    assert "offers no TLS, so the password is not sent" in done.output
    assert not any(command.startswith("AUTH") for command in mailbox.commands)


@pytest.mark.parametrize(
    ("kind", "answer", "says"),
    [
        ("dingtalk", {"errcode": 310000, "errmsg": "sign not match"}, "errcode 310000"),
        ("feishu", {"code": 19021, "msg": "sign match fail"}, "code 19021"),
    ],
)
def test_a_refusal_with_status_200_is_a_failure(
    receiver: Receiver, tmp_path: Path, kind: str, answer: dict[str, object], says: str
) -> None:
    receiver.answer = answer
    done = sent_by_command(tmp_path, {"kind": kind, "url": f"{receiver.url}/{SECRET}"})
    assert done.exit_code == 1
    assert says in done.output
    assert SECRET not in done.output, "an address may hold a token"
    assert len(receiver.got) == 1, "it does not help to try again"


def test_a_failure_of_the_server_names_no_secret(receiver: Receiver, tmp_path: Path) -> None:
    receiver.replies = [404]
    done = sent_by_command(tmp_path, {"kind": "slack", "url": f"{receiver.url}/{SECRET}"})
    assert done.output == "team (slack): failed: 127.0.0.1 answered 404\n"


def test_without_a_notifier_there_is_nothing_to_test(tmp_path: Path) -> None:
    file = tmp_path / "slipway.yaml"
    file.write_text("{}")
    done = CliRunner().invoke(main, ["alerts", "test", "--config", str(file)])
    assert "slipway: There is no notifier. Name one under `alerts.notify`" in done.output
    done = CliRunner().invoke(main, ["alerts", "test", "x", "--config", str(file)])
    assert done.exit_code == 1


# who hears what, and when


class Watching:
    """An evaluator and what it sends, over gauges that the test sets."""

    def __init__(self, alerts: AlertSettings, before: "Watching | None" = None) -> None:
        self.settings = Settings(alerts=alerts)
        self.up, self.waiting = 1.0, 0.0
        self.now: float = before.now if before else START
        self.outcomes: list[tuple[str, str]] = []
        self.history = History(
            tuple, lambda: [("store_up", (), self.up), ("store_waiting", (), self.waiting)]
        )
        self.evaluator = Evaluator()
        if before:
            self.up, self.waiting = before.up, before.waiting
            self.evaluator.load(before.evaluator.saved())
        self.notifying = Notifying(
            self.evaluator, lambda name, how: self.outcomes.append((name, how)), pause=no_pause
        )

    async def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 10
            self.history.sample(self.now)
            self.evaluator.step(rules_of(self.settings), self.history, self.now)
            self.notifying.tick(self.settings.alerts, self.now)
            await self.notifying.settle()


async def no_pause(_: float) -> None:
    """Go on at once."""


def alerts_to(receiver: Receiver, **fields: object) -> AlertSettings:
    notifier = NotifierSettings(kind="webhook", url=receiver.url, **fields)  # type: ignore[arg-type]
    return AlertSettings(notify={"team": notifier})


def test_an_alert_is_sent_once_and_its_end_once_also_over_a_restart(receiver: Receiver) -> None:
    async def story() -> None:
        first = Watching(alerts_to(receiver))
        await first.run(60)
        first.up = 0
        await first.run(400)
        assert receiver.alerts == [("StoreDown", "firing")]
        second = Watching(first.settings.alerts, before=first)
        await second.run(300)
        assert receiver.alerts == [("StoreDown", "firing")], "it is known from before the restart"
        second.up = 1
        await second.run(300)
        assert receiver.alerts == [("StoreDown", "firing"), ("StoreDown", "resolved")]
        assert second.outcomes == [("team", "sent")]
        second.up = 0
        await second.run(400)
        assert receiver.alerts[2:] == [("StoreDown", "firing")], "another time is another alert"

    asyncio.run(story())


def test_alerts_that_begin_together_come_together_and_what_another_explains_stays_away(
    receiver: Receiver,
) -> None:
    async def story() -> None:
        watching = Watching(alerts_to(receiver))
        watching.up, watching.waiting = 0, 5000
        await watching.run(900)
        assert receiver.alerts == [("StoreDown", "firing")], "the backlog has the same cause"
        watching.up = 1  # the rows still wait
        await watching.run(300)
        assert set(receiver.alerts[1:]) == {("StoreDown", "resolved"), ("LedgerBacklog", "firing")}

    asyncio.run(story())


def test_a_message_that_fails_is_sent_later_and_counted(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        watching = Watching(alerts_to(receiver, secret=SECRET))
        watching.up = 0
        receiver.replies = [500] * 5
        with caplog.at_level(logging.WARNING, "slipway"):
            await watching.run(330)
            assert watching.outcomes == [("team", "failed")]
            assert receiver.alerts == []
            await watching.run(AGAIN_S + 20)
        assert receiver.alerts == [("StoreDown", "firing")], "the second try of the second time"
        assert watching.outcomes == [("team", "failed"), ("team", "sent")]
        assert watching.notifying.notifiers["team"].failed == 1

    asyncio.run(story())
    assert "the notifier team could not be reached (127.0.0.1 answered 500)" in caplog.text
    assert SECRET not in caplog.text


def test_a_page_only_notifier_gets_no_ticket_but_its_heartbeat(receiver: Receiver) -> None:
    async def story() -> None:
        watching = Watching(alerts_to(receiver, severity="page", heartbeat=300.0))
        watching.up = 0
        await watching.run(1200)
        assert receiver.alerts == [("Watchdog", "firing")] * 4

    asyncio.run(story())


def test_an_alert_may_be_repeated(receiver: Receiver) -> None:
    async def story() -> None:
        alerts = alerts_to(receiver)
        watching = Watching(AlertSettings(notify=alerts.notify, repeat=600.0, group_wait=0.0))
        watching.up = 0
        await watching.run(300 + 600 + 620)
        assert receiver.alerts == [("StoreDown", "firing")] * 3

    asyncio.run(story())
