"""Who may do what over HTTP: hosts, origins, keys, tickets, and the end of a key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.gateway import Gateway
from tests.support.instance import Instance
from tests.support.waiting import PATIENCE_S, until
from vecd.errors import Code, VecError
from vecd.http.access import Access
from vecd.http.hosts import Hosts
from vecd.http.keys import Key, KeyFile
from vecd.http.principal import ANYONE, NOBODY, Principal
from vecd.http.tickets import Tickets

SITE = "https://app.example.org"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Gateway]:
    """A gateway with keys, an allowed origin and an allowed host."""
    environment = {
        "VEC_EMBEDDER": "hash",
        "VEC_HTTP_ALLOW_ORIGINS": SITE,
        "VEC_HTTP_ALLOW_HOSTS": "vec.example.org,*.inner.example",
    }
    with Instance(environment) as instance:
        for library in ("notes", "mail"):
            instance.vec("library", "create", library)
        instance.vec("keys", "create", "first")
        with Gateway(instance) as gateway:
            yield gateway


@pytest.fixture
def client(guarded: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=PATIENCE_S) as made:
        yield made


def key(gateway: Gateway, name: str, scope: str = "read", library: str | None = None, **more: Any) -> dict[str, str]:
    """The header of a new key."""
    file = KeyFile.of(gateway.instance.settings)
    _, secret = file.create(name, scope, [library] if library else None, **more)
    return {"authorization": f"Bearer {secret}"}


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_without_a_key_only_open_endpoints_answer(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    answer = client.get("/v1/libraries")
    assert code(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "vec keys create" in answer.json()["hint"]


def test_a_key_allows_its_scope_and_those_below(guarded: Gateway, client: httpx.Client) -> None:
    read, write = key(guarded, "s-read"), key(guarded, "s-write", "write")
    assert client.get("/v1/libraries", headers=read).status_code == 200
    body = {"query": "x"}
    assert client.post("/v1/libraries/notes/search", headers=read, json=body).status_code == 200
    made = {"name": "scoped"}
    assert code(client.post("/v1/libraries", headers=read, json=made)) == (403, "forbidden")
    assert client.get("/v1/libraries/notes/count", headers=write).status_code == 200


def test_a_key_for_some_libraries_sees_no_others(guarded: Gateway, client: httpx.Client) -> None:
    mine = key(guarded, "l-notes", library="notes")
    assert client.get("/v1/libraries/notes/count", headers=mine).status_code == 200
    assert code(client.get("/v1/libraries/mail/count", headers=mine)) == (403, "forbidden")
    names = [each["name"] for each in client.get("/v1/libraries", headers=mine).json()["libraries"]]
    assert names == ["notes"]
    status = client.get("/v1/status", headers=mine).json()
    assert set(status) == {"version", "log", "seq", "oldest", "uptime_s", "libraries"}
    assert [each["name"] for each in status["libraries"]] == ["notes"]
    assert set(client.get("/v1/jobs/status", headers=mine).json()) == {"jobs"}  # the counts are of all libraries


@pytest.mark.parametrize(
    "path",
    [
        "/v1/libraries/mail/../mail/count",
        "/v1/libraries/notes/../mail/count",
        "/v1/libraries/notes/%2e%2e/mail/count",
        "/v1/libraries/notes%2f..%2fmail/count",
        "/v1//libraries/mail/count",
        "//v1/libraries/mail/count",
        "/v1/libraries/mail%2fcount",
        "/v1/libraries/%6dail/count",
        "/v1/libraries/mail/count/",
        "/v1/./libraries/mail/count",
        "/v1/libraries/mail%00/count",
        "/v1/libraries/notes;/../mail/count",
        "/V1/libraries/mail/count",
        "http://localhost/v1/libraries/mail/count",
    ],
)
def test_no_spelling_of_a_path_gets_around_the_check(guarded: Gateway, path: str) -> None:
    header = key(guarded, f"p-{abs(hash(path))}", library="notes")
    command = ["--path-as-is", "--request-target", path, "-H", f"Authorization: {header['authorization']}"]
    body = guarded.curl(*command, "-o", "/dev/null", "-w", "%{http_code}", "/")
    assert int(body) in (307, 400, 403, 404)


@pytest.mark.parametrize("sent", ["Bearer", "Basic dXNlcjpwYXNz", "vec_x", "Bearer vec_x", "Bearer \xe9"])
def test_what_is_not_a_key_is_refused_and_not_repeated(client: httpx.Client, sent: str) -> None:
    answer = client.get("/healthz", headers=[(b"authorization", sent.encode("latin-1"))])  # also where none is needed
    assert code(answer) == (401, "unauthorized")


@pytest.mark.parametrize("k", [10, 101, 1_000_000])  # an answer, and one that is streamed
def test_a_key_for_one_library_searches_no_other(guarded: Gateway, client: httpx.Client, k: int) -> None:
    mine = key(guarded, f"s-{k}", library="notes")

    def search(path: str = "/v1/search", **body: Any) -> httpx.Response:
        return client.post(path, headers=mine, json={"query": "x", "k": k, **body})

    assert search(libraries=["notes"]).json()["hits"] == []
    for libraries in (None, ["*"], ["mail"], ["notes", "mail"]):
        assert code(search(libraries=libraries)) == (403, "forbidden"), libraries
    for path in ("/v1/libraries/notes/search", "/v1/libraries/notes/search/stream"):
        assert search(path).status_code == 200
        assert code(search(path, libraries=["mail"])) == (400, "invalid_request")
    everything = key(guarded, f"s-all-{k}")
    answer = client.post("/v1/search", headers=everything, json={"query": "x", "k": k})
    assert (answer.status_code, answer.json()["hits"]) == (200, [])


def test_a_key_for_one_library_changes_nothing_that_belongs_to_all_or_to_another(
    guarded: Gateway, client: httpx.Client
) -> None:
    mine, everybody = key(guarded, "w-notes", "write", "notes"), key(guarded, "w-all", "write")
    schedule = {"name": "nightly", "kind": "rebuild", "library": "mail", "cron": "0 0 * * *"}
    assert client.post("/v1/schedules", headers=everybody, json=schedule).status_code == 201
    stolen = {**schedule, "library": "notes", "replace": True}
    assert code(client.post("/v1/schedules", headers=mine, json=stolen)) == (403, "forbidden")
    kept = {each["name"]: each for each in client.get("/v1/schedules", headers=everybody).json()["schedules"]}
    assert kept["nightly"]["library"] == "mail"
    assert client.delete("/v1/schedules/nightly", headers=everybody).status_code == 200

    cursor = {"cursor": "beginning"}
    assert code(client.post("/v1/consumers/c/ack", headers=mine, json=cursor)) == (403, "forbidden")
    assert code(client.get("/v1/consumers", headers=mine)) == (403, "forbidden")


def test_an_expired_and_a_revoked_key_are_refused(guarded: Gateway, client: httpx.Client) -> None:
    brief = key(guarded, "brief", expires_s=1.0)
    until(lambda: client.get("/v1/libraries", headers=brief).status_code == 401, "the key expires")
    assert "'brief' has expired" in client.get("/v1/libraries", headers=brief).json()["detail"]
    gone = key(guarded, "gone")
    assert client.get("/v1/libraries", headers=gone).status_code == 200
    guarded.instance.vec("keys", "revoke", "gone")
    assert code(client.get("/v1/libraries", headers=gone)) == (401, "unauthorized")


@pytest.mark.parametrize("name", ["key", "api_key", "access_token", "token", "q"])
def test_a_key_in_a_url_is_refused_with_the_remedy(guarded: Gateway, client: httpx.Client, name: str) -> None:
    header = key(guarded, f"url-{name}")
    secret = header["authorization"].removeprefix("Bearer ")
    answer = client.get("/v1/libraries", params={name: secret})
    assert code(answer) == (400, "invalid_request")
    assert "/v1/tickets" in answer.json()["hint"]
    assert secret not in answer.text


# --- tickets ----------------------------------------------------------------------------------------------------------


def test_a_ticket_opens_one_request_with_the_rights_of_its_key(guarded: Gateway, client: httpx.Client) -> None:
    header = key(guarded, "t-notes", library="notes")
    answer = client.post("/v1/tickets", headers=header)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    ticket = {"ticket": answer.json()["ticket"]}
    assert client.get("/v1/libraries/notes/count", params=ticket).status_code == 200
    assert code(client.get("/v1/libraries/notes/count", params=ticket)) == (401, "unauthorized")
    ticket = {"ticket": client.post("/v1/tickets", headers=header).json()["ticket"]}
    assert code(client.get("/v1/libraries/mail/count", params=ticket)) == (403, "forbidden")


def test_a_ticket_is_only_for_get_and_only_without_a_key(guarded: Gateway, client: httpx.Client) -> None:
    header = key(guarded, "t-only")
    ticket = {"ticket": client.post("/v1/tickets", headers=header).json()["ticket"]}
    assert code(client.get("/v1/libraries", params=ticket, headers=header)) == (400, "invalid_request")
    assert code(client.post("/v1/tickets", params=ticket)) == (400, "invalid_request")
    assert code(client.post("/v1/tickets")) == (401, "unauthorized")


def test_a_ticket_of_a_revoked_key_is_refused(guarded: Gateway, client: httpx.Client) -> None:
    header = key(guarded, "t-gone")
    ticket = {"ticket": client.post("/v1/tickets", headers=header).json()["ticket"]}
    guarded.instance.vec("keys", "revoke", "t-gone")
    answer = client.get("/v1/libraries", params=ticket)
    assert code(answer) == (401, "unauthorized")
    assert "revoked" in answer.json()["detail"]


def test_tickets_expire_and_are_bounded() -> None:
    now = 0.0
    tickets = Tickets(lambda: now)
    first = tickets.issue(ANYONE)
    now = 29.9
    assert tickets.redeem(first) is ANYONE
    first = tickets.issue(ANYONE)
    now += 30.0
    with pytest.raises(VecError) as caught:
        tickets.redeem(first)
    assert caught.value.code == Code.UNAUTHORIZED
    assert first not in str(caught.value)
    for _ in range(1_000):
        tickets.issue(ANYONE)
    with pytest.raises(VecError) as caught:
        tickets.issue(ANYONE)
    assert caught.value.code == Code.BUSY
    tickets.issue(ANYONE._replace(name="other"))
    now += 30.0
    tickets.issue(ANYONE)
    assert len(tickets) == 1


# --- hosts and origins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8000", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("192.168.1.7:8000", 200),
        ("vec.example.org", 200), ("vec.example.org.", 200), ("a.inner.example:80", 200),
        ("evil.example", 403), ("localhost.evil.example", 403), ("inner.example", 403), ("127.0.0.1.evil.example", 403),
        ("", 400), ("local host", 400), ("localhost:99999", 400), ("localhost/", 400), ("a@localhost", 400),
    ],
)  # fmt: skip
def test_only_names_that_cannot_be_rebound_are_answered(client: httpx.Client, host: str, status: int) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == status


def test_pages_of_other_sites_are_refused(guarded: Gateway, client: httpx.Client) -> None:
    own = httpx.URL(guarded.url)
    for origin in (SITE, SITE.upper(), guarded.url, f"https://{own.host}:{own.port}"):
        assert client.get("/healthz", headers={"origin": origin}).status_code == 200
    for origin in (
        "https://evil.example",
        "null",
        "http://app.example.org",
        "http://localhost",
        f"{SITE}.evil.example",
    ):
        for method in ("GET", "POST", "OPTIONS"):
            assert code(client.request(method, "/v1/tickets", headers={"origin": origin})) == (403, "forbidden")


def test_a_preflight_is_answered_for_an_allowed_origin_only(client: httpx.Client) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    answer = client.options("/v1/libraries/notes/search", headers={"origin": SITE, **asked})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, SITE)
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    refused = client.options("/v1/tickets", headers={"origin": "https://evil.example", **asked})
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def test_an_allowed_page_can_read_answers_and_errors(client: httpx.Client) -> None:
    for path in ("/healthz", "/v1/libraries", "/nothing"):
        answer = client.get(path, headers={"origin": SITE})
        assert answer.headers["access-control-allow-origin"] == SITE
        assert "origin" in answer.headers["vary"].lower()
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("setting", ["https://a/b", "a.example", "*", "ftp://a", "http://"])
def test_an_origin_that_is_none_is_an_error_of_the_settings(setting: str) -> None:
    with pytest.raises(VecError) as caught:
        Hosts(allow_origins=[setting])
    assert caught.value.code == Code.SETTINGS


# --- proxies ----------------------------------------------------------------------------------------------------------


def forwarded(hosts: Hosts, address: str | None, **headers: str) -> Any:
    pairs = [(b"host", b"inner:8000")]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return hosts.peer(address, "http", pairs)


def test_only_a_trusted_proxy_says_who_asks() -> None:
    hosts = Hosts(trusted_proxies=["10.0.0.0/8", "127.0.0.1", "unix"])
    said = {
        "x_forwarded_for": "6.6.6.6, 1.2.3.4, 10.1.1.1",
        "x_forwarded_proto": "https",
        "x_forwarded_host": "vec.org",
    }
    for proxy in ("10.9.9.9", "127.0.0.1", "::ffff:10.0.0.1", None):
        assert forwarded(hosts, proxy, **said) == ("1.2.3.4", "https", "vec.org", False)
    for other in ("11.0.0.1", "::1"):
        assert forwarded(hosts, other, **said) == (other, "http", "inner:8000", False)
    assert forwarded(hosts, "127.0.0.1") == ("127.0.0.1", "http", "inner:8000", True)
    assert forwarded(hosts, "127.0.0.1", x_forwarded_for="garbage").local is False
    assert forwarded(hosts, "127.0.0.1", x_forwarded_for="127.0.0.2").local is True


def test_a_proxy_on_this_machine_does_not_open_a_gateway_without_keys() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance, Gateway(instance) as gateway:
        assert httpx.get(f"{gateway.url}/v1/libraries").status_code == 200
        for header in ("x-forwarded-for", "forwarded", "x-real-ip"):
            assert code(httpx.get(f"{gateway.url}/v1/libraries", headers={header: "1.2.3.4"})) == (401, "unauthorized")


# --- the start --------------------------------------------------------------------------------------------------------


def test_an_address_beyond_this_machine_without_keys_is_refused_with_the_remedy() -> None:
    with Instance() as instance:
        for address in ("0.0.0.0:0", "[::]:0"):
            said = instance.vec("serve", "--listen", address, status=2, timeout_s=30).stderr
            assert "there are no keys" in said
            assert "vec keys create" in said
        instance.vec("keys", "create", "only")
        instance.vec("keys", "revoke", "only")
        assert "there are no keys" in instance.vec("serve", "--listen", "0.0.0.0:0", status=2, timeout_s=30).stderr
        (made,) = instance.objects("keys", "create", "ops")
        with Gateway(instance, "--listen", "0.0.0.0:0") as gateway:
            url = gateway.url.replace("0.0.0.0", "127.0.0.1") + "/v1/libraries"
            assert httpx.get(url).status_code == 401
            assert httpx.get(url, headers={"authorization": f"Bearer {made['key']}"}).status_code == 200


def test_a_damaged_file_of_keys_is_an_error_of_the_start_and_not_of_a_running_gateway() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        (made,) = instance.objects("keys", "create", "ops")
        path = instance.home / "keys.json"
        with Gateway(instance) as gateway:
            path.write_text("{")
            header = {"authorization": f"Bearer {made['key']}"}
            assert httpx.get(f"{gateway.url}/v1/libraries", headers=header).status_code == 200
            assert httpx.get(f"{gateway.url}/v1/libraries").status_code == 401
        assert "is damaged" in instance.vec("serve", "--listen", "127.0.0.1:0", status=2, timeout_s=30).stderr


# --- principals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_the_end_of_a_key_ends_the_streams_and_websockets_it_has_open(guarded: Gateway, how: str) -> None:
    """Within seconds. What another key has open goes on."""
    staying = key(guarded, f"staying-{how}")
    ending = key(guarded, how, expires_s=4.0 if how == "expired" else None)
    url = f"{guarded.websocket_url}/v1/ws"
    with (
        connect(url, additional_headers=staying) as other,
        connect(url, additional_headers=ending) as messages,
        connect(url, additional_headers=ending, subprotocols=[Subprotocol("vec.msgpack")]) as frames,
        httpx.stream("GET", f"{guarded.url}/v1/events/stream", headers=ending, timeout=20) as events,
    ):
        messages.send('{"action": "subscribe", "id": 1}')
        assert json.loads(messages.recv(PATIENCE_S))["status"] == "ok"
        assert events.status_code == 200
        if how == "revoked":
            KeyFile.of(guarded.instance.settings).revoke(how)
        for each in (messages, frames):
            with pytest.raises(ConnectionClosed) as caught:
                list(each)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4401
            assert f"the key '{how}' {'has expired' if how == 'expired' else 'was revoked'}" in caught.value.rcvd.reason
        last = "".join(events.iter_text()).strip().split("\n\n")[-1]
        assert "event: error\ndata: " in last
        assert '"code":"unauthorized"' in last
        other.send('{"action": "ping", "id": 1}')
        assert json.loads(other.recv(PATIENCE_S))["status"] == "ok"


def test_what_concerns_all_libraries_is_not_for_a_key_of_some() -> None:
    some = Principal("some", frozenset(("read", "write", "admin")), frozenset(("notes",)))
    some.check("read")  # the endpoint leaves out the others
    some.check("admin", "notes")
    for scope, library, principal in (("admin", None, some), ("read", "mail", some), ("read", None, NOBODY)):
        with pytest.raises(VecError) as caught:
            principal.check(scope, library)
        assert caught.value.code == (Code.UNAUTHORIZED if principal is NOBODY else Code.FORBIDDEN)
    NOBODY.check("open")


def test_one_key_has_a_bounded_number_of_requests_open(tmp_path: Any) -> None:
    async def run() -> None:
        access = Access(KeyFile(tmp_path / "keys.json"), Hosts(), 3)
        one = Principal("one", frozenset(("read",)), None, Key("one", b"1", frozenset(("read",)), None, 0.0, None))

        async def send(message: Any) -> None: ...

        held = [access.enter({}, send, one) for _ in range(3)]
        with pytest.raises(VecError) as caught:
            access.enter({}, send, one)
        assert (caught.value.code, access.open_of("one")) == (Code.BUSY, 3)
        access.enter({}, send, ANYONE)
        access.leave(held[0])
        access.enter({}, send, one)

    asyncio.run(run())


def test_no_secret_is_in_a_log_or_an_error(guarded: Gateway, client: httpx.Client) -> None:
    header = key(guarded, "quiet")
    secret = header["authorization"].removeprefix("Bearer ")
    ticket = client.post("/v1/tickets", headers=header).json()["ticket"]
    answers = [
        client.get("/v1/libraries", params={"ticket": ticket, "bad": "1"}),
        client.get("/v1/libraries", params={"ticket": ticket}),
        client.get(f"/v1/libraries/{secret}/count"),
        client.get("/v1/libraries", headers={"authorization": f"Bearer {secret}x"}),
        client.get("/nothing", params={"ticket": ticket}),
    ]
    assert all(each.is_client_error for each in answers)
    for each in answers:
        assert secret not in each.text
        assert ticket not in each.text
    assert secret not in guarded.instance.log()
    assert json.dumps(guarded.instance.objects("keys", "list")).count(secret[4:]) == 0
