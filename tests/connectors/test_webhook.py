"""Relays to a webhook: what an HTTP server receives, and what its answers mean."""

from __future__ import annotations

import base64
import datetime
import email.utils
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import make_certificate
from tests.support.http_receiver import Answer, Receiver
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd import limits
from vecd.connectors import webhook
from vecd.errors import VecError

from .instances import fresh, new_library, put, put_many, state, wait_for

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def library(instance: Instance) -> str:
    return new_library(instance)


def add(instance: Instance, library: str, url: str, *arguments: str) -> str:
    """Adds a relay of one library's documents, from the beginning of the log; returns its name."""
    name = fresh("relay")
    instance.vec("relay", "add", name, url, "-l", library, "--type", "document.*", "--from", "beginning", *arguments)
    return name


def ids(receiver: Receiver) -> list[str]:
    """The documents whose events came, in order, with repetitions."""
    return [line["data"]["id"] for line in receiver.lines]


def refusing(text: bytes, status: int) -> Any:
    """Refuses bodies that contain the text."""
    return lambda request: Answer(status, body=b"not that one") if text in request.body else Answer()


def test_events_are_posted_as_the_lines_of_vec_watch(instance: Instance, receiver: Receiver, library: str) -> None:
    put_many(instance, library, ["a", "b"])
    relay = add(instance, library, f"{receiver.url}/hook?room=1", "--payload")
    put(instance, library, "c")
    until(lambda: len(receiver.lines) == 3, "the events")
    assert receiver.lines == instance.objects(
        "watch", "-l", library, "--type", "document.*", "--from", "beginning", "--payload", "--no-follow"
    )
    assert {each.path for each in receiver.received} == {"/hook?room=1"}
    assert receiver.received[0].headers["Content-Type"] == "application/x-ndjson"
    wait_for(instance, relay, lambda found: found["lag"] == 0, "the stored position")


def test_each_request_is_signed_as_the_specification_says(
    instance: Instance, receiver: Receiver, library: str, tmp_path: Path
) -> None:
    other = "whsec_" + base64.b64encode(b"the next secret, 32 bytes long !").decode()
    secrets = tmp_path / "secrets"
    secrets.write_text(f"{SECRET}\n{other}\n")
    relay = add(instance, library, receiver.url, "-p", f"secret_file={secrets}")
    put(instance, library, "a")
    (request,) = until(lambda: receiver.received, "a request")
    headers = request.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    keys = [base64.b64decode(each.removeprefix("whsec_")) for each in (SECRET, other)]
    digests = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    assert headers["webhook-signature"].split() == [f"v1,{each}" for each in digests]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
    assert SECRET not in json.dumps(state(instance, relay)) + instance.log()


def test_the_signature_is_that_of_the_reference_implementations() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks, which its libraries test.
    (secret,) = webhook.read_signing_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    signed = webhook.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_repeated_request_has_the_same_id_and_another_body_has_another(
    instance: Instance, receiver: Receiver, library: str
) -> None:
    receiver.answer = lambda _: Answer(500 if len(receiver.received) < 3 else 204)
    relay = add(instance, library, receiver.url)
    put(instance, library, "a")
    until(lambda: len(receiver.received) == 3, "three attempts")
    put(instance, library, "b")
    until(lambda: len(receiver.received) == 4, "the next event")
    *attempts, last = [each.headers["webhook-id"] for each in receiver.received]
    assert len(set(attempts)) == 1
    assert last not in attempts
    assert [each.headers["Idempotency-Key"] for each in receiver.received] == [
        f'"{each}"' for each in [*attempts, last]
    ]
    assert state(instance, relay)["dead_letters"] == 0


def test_retry_after_is_obeyed(instance: Instance, receiver: Receiver, library: str) -> None:
    receiver.answer = lambda _: Answer(429, {"Retry-After": "1"}) if len(receiver.received) == 1 else Answer()
    relay = add(instance, library, receiver.url)
    put(instance, library, "a")
    found = wait_for(instance, relay, lambda found: found["state"] == "retrying", "the refusal")
    assert "429 Too Many Requests" in found["error"]["message"]
    until(lambda: len(receiver.received) == 2, "the second attempt")
    first, second = receiver.received
    assert second.at - first.at >= 1.0


def test_retry_after_is_a_number_or_a_date_and_has_a_bound() -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    later = email.utils.format_datetime(now + datetime.timedelta(seconds=90), usegmt=True)
    for value, seconds in (
        ("7", 7.0), (later, 90.0), (None, 0.0), ("soon", 0.0), ("-5", 0.0), ("nan", 0.0), ("1e9", 3_600.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("Mon, 01 Jan 2099 00:00:00 GMT", 3_600.0), ("", 0.0),
    ):  # fmt: skip
        assert webhook.retry_after_s(value, now) == seconds, value


def test_one_refused_event_of_a_batch_is_a_dead_letter_and_all_others_arrive(
    instance: Instance, receiver: Receiver, library: str
) -> None:
    names = [f"d{number:02}" for number in range(20)]
    put_many(instance, library, names)
    receiver.answer = refusing(b'"d13"', 422)
    relay = add(instance, library, receiver.url)
    wait_for(instance, relay, lambda found: found["dead_letters"] == 1 and found["lag"] == 0, "the dead letter")
    accepted = [each for each in receiver.received if b'"d13"' not in each.body]
    assert [line["data"]["id"] for each in accepted for line in each.lines] == [each for each in names if each != "d13"]
    (letter,) = instance.objects("relay", "dead", relay)
    assert "422" in letter["reason"]
    assert "not that one" in letter["reason"]
    wait_for(instance, relay, lambda found: found["state"] == "running", "the report of its state")


def test_a_body_that_is_too_large_is_sent_in_parts(instance: Instance, receiver: Receiver, library: str) -> None:
    names = [f"d{number:02}" for number in range(16)]
    put_many(instance, library, names)
    receiver.answer = lambda request: Answer(413) if len(request.lines) > 3 else Answer()
    relay = add(instance, library, receiver.url)
    found = wait_for(instance, relay, lambda found: found["delivered"] == 16, "all events")
    accepted = [each.lines for each in receiver.received if len(each.lines) <= 3]
    assert [line["data"]["id"] for lines in accepted for line in lines] == names
    assert found["dead_letters"] == 0


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_wrong_url_or_secret_makes_no_dead_letters(
    instance: Instance, receiver: Receiver, library: str, status: int
) -> None:
    receiver.answer = lambda _: Answer(status, body=b"who are you?")
    relay = add(instance, library, receiver.url)
    put(instance, library, "a")
    found = wait_for(instance, relay, lambda found: found["state"] == "failing", "the refusal")
    assert f"answers {status}" in found["error"]["message"]
    assert "who are you?" in found["error"]["message"]
    receiver.answer = lambda _: Answer()
    found = wait_for(instance, relay, lambda found: found["delivered"] == 1, "the event")
    assert found["dead_letters"] == 0


def test_a_redirect_is_shown_and_not_followed(instance: Instance, receiver: Receiver, library: str) -> None:
    with Receiver() as elsewhere:
        receiver.answer = lambda _: Answer(308, {"Location": f"{elsewhere.url}/new"})
        relay = add(instance, library, receiver.url)
        put(instance, library, "a")
        found = wait_for(instance, relay, lambda found: found["state"] == "failing", "the redirect")
        assert f"redirects to '{elsewhere.url}/new' (308)" in found["error"]["message"]
        assert elsewhere.received == []


def test_an_idle_connection_that_the_server_closed_is_no_failure(
    instance: Instance, receiver: Receiver, library: str
) -> None:
    relay = add(instance, library, receiver.url)
    put(instance, library, "a")
    until(lambda: ids(receiver) == ["a"], "the first event")
    receiver.drop_connections()
    put(instance, library, "b")
    until(lambda: ids(receiver) == ["a", "b"], "the second event")
    assert state(instance, relay)["error"] is None


def test_a_server_that_is_away_shows_before_there_is_an_event(instance: Instance, library: str) -> None:
    with Receiver() as gone:
        url = gone.url
    relay = add(instance, library, url)
    found = wait_for(instance, relay, lambda found: found["state"] == "retrying", "the failure")
    assert "Connection refused" in found["error"]["message"]
    assert found["delivered"] == 0
    instance.vec("relay", "remove", relay)


def test_one_connection_carries_all_requests(instance: Instance, receiver: Receiver, library: str) -> None:
    add(instance, library, receiver.url)
    for number in range(5):
        put(instance, library, f"d{number}")
        until(lambda count=number: len(receiver.received) == count + 1, "a request")  # type: ignore[misc]
    assert len(receiver.connections) == 1


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "], ids=["silent", "dripping"])
def test_a_server_that_does_not_finish_its_answer_is_given_up_in_time(
    instance: Instance, library: str, said: bytes
) -> None:
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection:
            connection.sendall(said)
            while not ended.wait(0.05):
                try:
                    connection.sendall(b"x" if said else b"")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        relay = add(instance, library, f"http://127.0.0.1:{listener.getsockname()[1]}", "-p", "timeout_s=0.5")
        put(instance, library, "a")
        found = wait_for(instance, relay, lambda found: found["state"] == "retrying", "the time-out")
        assert "did not answer within 0.5 s" in found["error"]["message"]
        instance.vec("relay", "remove", relay)
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


def test_a_certificate_is_verified(instance: Instance, library: str, tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    put(instance, library, "a")
    with Receiver(certificate=certificate, key=key) as receiver:
        untrusting = add(instance, library, receiver.url)
        found = wait_for(instance, untrusting, lambda found: found["state"] == "failing", "the refusal")
        assert "is not trusted (self-signed certificate)" in found["error"]["message"]
        assert "ca_file" in found["error"]["hint"]
        assert receiver.received == []
        add(instance, library, receiver.url, "-p", f"ca_file={certificate}")
        until(lambda: ids(receiver) == ["a"], "the event")
        instance.vec("relay", "remove", untrusting)


def test_a_token_or_a_password_goes_into_the_request_and_nowhere_else(
    instance: Instance, receiver: Receiver, library: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    password = tmp_path / "password"
    password.write_text("s3cret-password\n")
    put(instance, library, "a")
    first = add(instance, library, receiver.url, "-p", f"token_file={token}")
    until(lambda: len(receiver.received) == 1, "a request")
    add(instance, library, receiver.url.replace("//", "//me@"), "-p", f"password_file={password}")
    until(lambda: len(receiver.received) == 2, "another request")
    assert [each.headers["Authorization"] for each in receiver.received] == [
        "Bearer s3cret-token", "Basic " + base64.b64encode(b"me:s3cret-password").decode(),
    ]  # fmt: skip
    assert (
        "s3cret" not in json.dumps([state(instance, first), instance.objects("relay", "show", first)]) + instance.log()
    )


@pytest.mark.parametrize("secret", ["", "short", "whsec_" + base64.b64encode(b"23 bytes are too few !!").decode()])
def test_a_bad_signing_secret_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(VecError) as caught:
        webhook.read_signing_secrets(secret or "=")
    assert secret not in str(caught.value) or not secret


@pytest.mark.parametrize(
    ("url", "parameters", "said"),
    [
        ("https:///path", (), "cannot be the URL of a webhook"),
        ("https://one,two/", (), "cannot be the URL of a webhook"),
        ("https://host/ü", (), "cannot be the URL of a webhook"),
        ("https://host/a b", (), "cannot be the URL of a webhook"),
        ("https://host/", ("-p", "password_file=/x"), "there is a password, and no user"),
        ("https://me@host/", ("-p", "token_file=/x"), "there is a token, and a user"),
        ("http://example.com/", ("-p", "token_file=/x"), "the token would be sent without encryption"),
        ("https://host/", ("-p", "secret_file=/x", "-p", "secret_env=X"), "secret_file and secret_env are both given"),
    ],
)
def test_what_cannot_be_a_webhook_is_refused(
    instance: Instance, url: str, parameters: tuple[str, ...], said: str
) -> None:
    assert said in instance.vec("relay", "add", fresh("relay"), url, *parameters, status=2).stderr


def test_a_webhook_can_be_no_source(instance: Instance) -> None:
    said = instance.vec("source", "add", fresh("source"), "https://host/", "-l", "notes", status=None)
    assert said.returncode != 0
    assert "https:// cannot be a source" in said.stderr


def test_a_relay_without_room_for_dead_letters_keeps_its_position(
    instance: Instance, receiver: Receiver, library: str
) -> None:
    receiver.answer = refusing(b"", 400)
    relay = add(instance, library, receiver.url, "--paused")
    put(instance, library, "a")
    before = state(instance, relay)
    fill(instance, relay, before["generation"])
    instance.vec("relay", "resume", relay)
    stopped = wait_for(instance, relay, lambda found: found["error"], "the stop")
    assert "has as many dead letters as it may" in stopped["error"]["message"]
    put(instance, library, "b")
    held(instance, relay, stopped, before["cursor"])
    assert ids(receiver) == ["a"]
    instance.vec("relay", "pause", relay)
    wait_for(instance, relay, lambda found: found["state"] == "paused", "the pause")
    instance.vec("relay", "resume", relay)
    until(lambda: ids(receiver)[1:], "the same event again, and perhaps the next one with it")
    assert ids(receiver)[1] == "a"
    held(instance, relay, state(instance, relay), before["cursor"])
    instance.vec("relay", "drop", relay, "--all")
    wait_for(instance, relay, lambda each: each["lag"] == 0 and each["state"] == "running", "the rest")
    with instance.connect() as client:
        letters = [json.loads(each["body"]) for each in client.relay_dead_letters(relay, bodies=True)]
    assert [each["data"]["id"] for each in letters] == ["a", "b"]
    instance.vec("relay", "remove", relay)


def test_letters_that_are_delivered_after_all_make_room_for_others(
    instance: Instance, receiver: Receiver, library: str
) -> None:
    receiver.answer = lambda request: Answer(400 if b'"id":"a"' in request.body else 204)
    relay = add(instance, library, receiver.url, "--paused")
    put(instance, library, "a")
    fill(instance, relay, state(instance, relay)["generation"])
    instance.vec("relay", "resume", relay)
    wait_for(instance, relay, lambda found: found["state"] == "failing", "the stop")
    with instance.connect() as client:
        first = next(client.relay_dead_letters(relay, bodies=False))
    instance.vec("relay", "retry", relay, str(first["letter_id"]))
    wait_for(instance, relay, lambda each: each["lag"] == 0 and each["state"] == "running", "the position")
    assert state(instance, relay)["dead_letters"] == limits.DEAD_LETTERS_MAX
    instance.vec("relay", "remove", relay)


def held(instance: Instance, relay: str, before: Any, cursor: str) -> None:
    """Another attempt to store the dead letters fails, and the position is the same."""
    found = wait_for(instance, relay, lambda each: each["error_at"] not in (None, before["error_at"]), "an attempt")
    assert (found["state"], found["cursor"]) == ("failing", cursor)
    assert found["dead_letters"] == limits.DEAD_LETTERS_MAX


def fill(instance: Instance, relay: str, generation: int) -> None:
    """Gives the relay as many dead letters as it may have."""
    about = {
        "seq": 0, "type": "document.added", "library": "default", "document_id": "old", "content_type": "text/plain",
    }  # fmt: skip
    letters = [
        {
            "position": f"old-{number}", "code": "refused", "reason": "for the test", "attempts": 1,
            "about": about, "body": b"{}\n",
        }
        for number in range(limits.DEAD_LETTERS_MAX)
    ]  # fmt: skip
    with instance.connect() as client:
        client.commit_relay(relay, generation, dead_letters=letters).result()
