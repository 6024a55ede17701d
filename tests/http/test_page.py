"""The live page and the documentation, in Chromium. No test may leave an error on the console, a violation of the
Content-Security-Policy or a request to another origin (tests/support/browser.py)."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium, launched, opened
from tests.support.gateway import Gateway
from tests.support.instance import ROOT, Instance, ndjson
from tests.support.waiting import PATIENCE_S, until
from vecd.http.pages import FILES, FOLDER

browsing = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")
expect.set_options(timeout=PATIENCE_S * 1000)

_DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  for (const type of ['dragenter', 'dragover', 'drop'])
    document.body.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as made:
        yield made


def choose(page: Page, library: str) -> None:
    page.locator("#library").select_option(library)


def seqs(page: Page) -> list[int]:
    """The sequence numbers of the events that the page shows, in the order of their arrival."""
    rows = page.locator("#events > li[data-seq]")
    shown: list[int] = rows.evaluate_all("rows => rows.map((row) => Number(row.dataset.seq))")
    return shown[::-1]


def live(page: Page) -> None:
    expect(page.locator("#feed-status")).to_have_text("Live")


# --- the files --------------------------------------------------------------------------------------------------------


def test_every_file_is_served_with_a_strict_policy_and_is_not_sent_twice(http: httpx.Client) -> None:
    found = {str(each.relative_to(FOLDER)) for each in FOLDER.rglob("*") if each.is_file()}
    assert found == FILES | {"index.html", "docs.html"}
    for path in ("/", "/docs", *(f"/static/{name}" for name in sorted(FILES))):
        answer = http.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        again = http.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path
        plain = http.get(path, headers={"accept-encoding": "identity"})
        assert plain.content == answer.content, path
    assert "require-trusted-types-for 'script'" in http.get("/").headers["content-security-policy"]


@pytest.mark.parametrize("name", ["index.html", "%2e%2e/pages.py", "../pages.py", "swagger", "swagger/", "", "x%00"])
def test_nothing_else_is_served(gateway: Gateway, name: str) -> None:
    status = gateway.curl("--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", f"/static/{name}")
    assert status in (b"404", b"400")


def test_the_pages_name_no_other_origin() -> None:
    for path in FOLDER.glob("*"):
        if path.is_file():
            outside = re.findall(r"https?://[^\s\"'<>)]+", path.read_text())
            assert [each for each in outside if each != "http://www.w3.org/2000/svg"] == [], path.name


def test_the_wheel_contains_the_pages(tmp_path: Path) -> None:
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", "--depth", "1", ROOT.as_uri(), source], check=True)
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"vecd/http/static/{name}" for name in (*FILES, "index.html", "docs.html")} <= names


# --- the live page ----------------------------------------------------------------------------------------------------


@browsing
def test_the_search_answers_while_one_types_and_sees_new_documents(
    browser: Browser, gateway: Gateway, instance: Instance, library: str
) -> None:
    documents = [
        {"id": "logs", "title": "Log rotation", "text": "rotate the logs every night", "metadata": {"topic": "ops"}},
        {"id": "cats", "text": "cats sleep all day", "metadata": {"topic": "pets"}},
    ]
    instance.vec("ingest", "-l", library, stdin=ndjson(documents))
    with opened(browser, gateway.url) as (page, faults):
        choose(page, library)
        page.locator("#query").press_sequentially("rotating log")  # no Enter
        first = page.locator("#hits > li").first
        expect(first.locator("h3")).to_contain_text("Log rotation")
        expect(first.locator(".text mark")).to_have_text(["rotate", "logs"])
        expect(first.locator(".number")).to_have_text(re.compile(r"0\.\d{3}"))
        expect(page.locator("#search-status")).to_have_text(re.compile(r"2 hits · hybrid · exact"))
        page.locator("#where").fill("topic = pets")
        expect(page.locator("#hits > li")).to_have_count(1)
        faults.expected.append("422")
        page.locator("#where").fill("topic =")
        expect(page.locator("#search-status")).to_have_attribute("data-kind", "error")
        page.locator("#where").fill("")
        expect(page.locator("#hits > li")).to_have_count(2)
        instance.vec("ingest", "-l", library, stdin=ndjson([{"id": "new", "text": "a log that came later"}]))
        expect(page.locator("#hits > li")).to_have_count(3)


@browsing
def test_dropped_files_appear_in_the_feed_and_the_search_and_bad_lines_are_shown(
    browser: Browser, gateway: Gateway, library: str
) -> None:
    lines = [json.dumps({"id": f"d{number}", "text": f"walrus {number}"}) for number in range(30)]
    lines[6:6] = ["{not json"]
    with opened(browser, gateway.url) as (page, _):
        choose(page, library)
        live(page)
        page.evaluate(_DROP, ["animals.ndjson", "\n".join(lines)])
        expect(page.locator("#add-status")).to_have_text(f"Done: 30 added, 1 failed in {library}")
        expect(page.locator("#add-errors li")).to_have_count(1)
        expect(page.locator("#add-errors li")).to_contain_text("animals.ndjson, line 7")
        page.locator("#feed-library").select_option(library)
        expect(page.locator("#events > li[data-type='document.added']")).to_have_count(30)
        page.locator("#query").fill("walrus")
        expect(page.locator("#hits mark").first).to_have_text("walrus")
        page.locator("#add-text").fill("A paragraph about otters.\n\nAnother, about\nbeavers.")
        page.locator("#add-button").click()
        expect(page.locator("#add-status")).to_have_text(f"Done: 2 added in {library}")
        expect(page.locator("#library-list tr[aria-current] td.num").first).to_have_text("32")


@browsing
def test_the_feed_misses_nothing_across_a_pause_and_a_killed_daemon(
    browser: Browser, gateway: Gateway, instance: Instance, library: str
) -> None:
    def write(first: int, last: int) -> None:
        documents = [{"id": f"f{number}", "text": f"text {number}"} for number in range(first, last)]
        instance.vec("ingest", "-l", library, stdin=ndjson(documents))

    with opened(browser, gateway.url) as (page, faults):
        faults.expected += ["Failed to load resource", "ERR_"]
        live(page)
        page.locator("#feed-library").select_option(library)
        page.locator("#feed-types label", has_text="chunks").click()
        live(page)
        write(0, 10)
        until(lambda: len(seqs(page)) >= 21, "the first events")
        page.locator("body").press("p")
        expect(page.locator("#feed-status")).to_have_text("Paused")
        write(10, 20)
        page.locator("body").press("p")
        until(lambda: len(seqs(page)) >= 41, "the events of the pause")
        daemon = instance.pid()
        assert daemon is not None
        subprocess.run(["kill", f"-{signal.SIGKILL}", str(daemon)], check=True)
        write(20, 30)
        until(lambda: len(seqs(page)) >= 61, "the events across the restart")
        found = seqs(page)
    assert found == list(range(found[0], found[0] + 61))


@browsing
def test_a_websocket_opens_from_the_page_and_is_accepted(browser: Browser, gateway: Gateway) -> None:
    with opened(browser, gateway.url) as (page, _):
        said = page.evaluate(
            """() => new Promise((resolve, reject) => {
              const url = `${location.origin.replace('http', 'ws')}/v1/ws`;
              const socket = new WebSocket(url, 'vec.msgpack');
              socket.onopen = () => { resolve(socket.protocol); socket.close(); };
              socket.onerror = () => reject(new Error('refused'));
            })"""
        )
    assert said == "vec.msgpack"


@browsing
def test_a_browser_searches_writes_and_subscribes_over_a_websocket(
    browser: Browser, gateway: Gateway, library: str
) -> None:
    """The messages of the original design, as they stand."""
    with opened(browser, gateway.url) as (page, _):
        got = page.evaluate(
            """library => new Promise((resolve, reject) => {
              const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/v1/libraries/${library}/ws`);
              const got = [];
              const send = message => socket.send(JSON.stringify(message));
              socket.onopen = () => send({action: 'subscribe', events: ['document.added']});
              socket.onerror = () => reject(new Error('refused'));
              socket.onmessage = ({data}) => {
                got.push(JSON.parse(data));
                if (got.length === 1) {
                  send({action: 'add_document', data: {title: 'New Doc', texts: ['chunk 1', 'machine learning']}});
                } else if (got.length === 3) {
                  send({action: 'search', query: 'machine learning', k: 10});
                } else if (got.length === 4) {
                  resolve(got);
                  socket.close();
                }
              };
            })""",
            library,
        )
    assert got[0]["status"] == "ok"
    (answer,) = (each for each in got[1:3] if "status" in each)
    (event,) = (each for each in got[1:3] if "event" in each)
    assert (answer["status"], answer["result"]) == ("ok", "added")
    assert (event["event"], event["data"]["document_id"]) == ("document.added", answer["id"])
    assert got[3]["hits"][0]["document_id"] == answer["id"]


@browsing
def test_a_job_shows_its_progress_and_is_cancelled_and_retried_by_button(
    browser: Browser, gateway: Gateway, instance: Instance
) -> None:
    steps = ("-p", "steps=1000", "-p", "seconds=0.05")
    (job,) = instance.objects("jobs", "submit", "--json", *steps, "noop")
    with opened(browser, gateway.url) as (page, _):
        row = page.locator(f"#job-list li[data-job='{job['job_id']}']")
        bar = row.locator("progress")
        expect(row.locator(".badge")).to_have_text("running")
        expect(row.locator(".note")).to_contain_text("of 1,000")
        before = float(bar.get_attribute("value") or 0)
        until(lambda: float(bar.get_attribute("value") or 0) > before, "progress")
        row.get_by_role("button", name="Cancel").click()
        expect(row.locator(".badge")).to_have_text("cancelled")
        expect(bar).to_be_hidden()
        row.get_by_role("button", name="Retry").click()
        expect(row.locator(".badge")).to_have_text("running")
        row.get_by_role("button", name="Cancel").click()
        expect(row.locator(".badge")).to_have_text("cancelled")
        row.get_by_role("button", name="Remove").click()
        expect(row).to_have_count(0)


@browsing
def test_hostile_content_is_shown_as_text(browser: Browser, gateway: Gateway, instance: Instance, library: str) -> None:
    script = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    documents: list[dict[str, Any]] = [
        {"id": script, "title": script, "text": f"needle {script}", "metadata": {script: script}},
        {"id": "long", "title": "w" * 2_000, "text": "needle " + "x" * 3_000},
        {"id": "rtl", "title": "\u202eמבחן", "text": "needle مرحبا بالعالم \u202e 👩‍👩‍👧 needle"},
    ]
    instance.vec("ingest", "-l", library, stdin=ndjson(documents))
    with opened(browser, gateway.url, viewport={"width": 360, "height": 740}) as (page, _):
        choose(page, library)
        page.locator("#query").fill("needle")
        expect(page.locator("#hits > li")).to_have_count(3)
        expect(page.locator("#hits h3", has_text=script)).to_have_count(1)
        expect(page.locator("#events .what", has_text=script).first).to_be_visible()
        assert page.locator("#hits script, #hits img, #events script, #events img").count() == 0
        assert page.title() == f"{library} · vec"
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], "the page scrolls sideways"


@browsing
def test_everything_is_reached_by_keyboard(
    browser: Browser, gateway: Gateway, instance: Instance, library: str
) -> None:
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": f"k{n}", "text": f"keyboard {n}"} for n in range(3)]))
    focused = "document.activeElement.id || document.activeElement.dataset.document || ''"
    with opened(browser, gateway.url, reduced_motion="reduce") as (page, _):
        choose(page, library)
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("/")
        assert page.evaluate(focused) == "query"
        page.keyboard.type("keyboard")
        expect(page.locator("#hits > li")).to_have_count(3)
        page.keyboard.press("ArrowDown")
        assert str(page.evaluate(focused)).startswith("k")
        page.keyboard.press("Escape")
        assert page.evaluate(focused) == "query"
        seen: list[str] = []
        for _ in range(80):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(focused))
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            if seen[-1] and seen[-1] not in ("add-files",):
                assert outline != "none", f"no visible focus on {seen[-1]}"
        assert {"where", "mode", "k", "new-library", "feed-pause", "add-text", "add-button"} <= set(seen)
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("?")
        expect(page.locator("#help-dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#help-dialog")).to_be_hidden()
        page.keyboard.press("t")
        page.keyboard.press("t")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@browsing
def test_a_user_signs_in_with_a_key_which_is_in_no_url(browser: Browser) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.vec("ingest", stdin=ndjson([{"id": "a", "text": "a secret"}]))
        (key,) = instance.objects("keys", "create", "reader", "--scope", "read", "--json")
        secret = key["key"]
        with Gateway(instance) as gateway, opened(browser, gateway.url) as (page, faults):
            faults.expected.append("401")
            urls: list[str] = []
            page.on("request", lambda request: urls.append(request.url))
            expect(page.locator("#key-dialog")).to_be_visible()
            page.locator("#key").fill("vec_wrong")
            page.keyboard.press("Enter")
            expect(page.locator("#key-error")).not_to_be_empty()
            page.locator("#key").fill(secret)
            page.keyboard.press("Enter")
            expect(page.locator("#key-dialog")).to_be_hidden()
            live(page)
            expect(page.locator("#events > li[data-type='document.added']")).to_have_count(1)
            assert any("ticket=" in url for url in urls)
            assert not any(secret in url for url in urls)
            assert page.evaluate("JSON.stringify([localStorage, document.cookie])").find(secret) == -1
            faults.expected.append("403")
            page.locator("#add-text").fill("not allowed")
            page.locator("#add-button").click()
            expect(page.locator("#add-status")).to_have_attribute("data-kind", "error")
            page.locator("#key-button").click()
            expect(page.locator("#key-dialog")).to_be_visible()
            assert page.evaluate("sessionStorage.getItem('vec.key')") is None


@browsing
def test_without_a_library_the_page_says_what_to_do_and_without_a_gateway_that_it_waits(browser: Browser) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(instance))
        with opened(browser, gateway.url) as (page, faults):
            expect(page.locator("#search-status")).to_contain_text("There is no library yet")
            page.locator("#add-text").fill("the first document")
            page.keyboard.press("Control+Enter")
            expect(page.locator("#add-status")).to_have_text("Done: 1 added in default")
            expect(page.locator("#library")).to_have_value("default")
            faults.expected += ["ERR_", "Failed to load resource"]
            listen = gateway.url.removeprefix("http://")
            gateway.stop()
            expect(page.locator("#connection")).to_have_text("Reconnecting")
            expect(page.locator("#banner")).to_contain_text("does not answer")
            with Gateway(instance, "--listen", listen):
                expect(page.locator("#connection")).to_have_text("Connected")
                expect(page.locator("#banner")).to_be_hidden()
                live(page)


@browsing
def test_the_documentation_shows_every_endpoint_without_a_request_elsewhere(browser: Browser, gateway: Gateway) -> None:
    with opened(browser, gateway.url, "/docs") as (page, _):
        expect(page.locator(".opblock-summary-path", has_text="/v1/libraries/{library}/search").first).to_be_visible()
        page.locator(".opblock-summary", has_text="/healthz").first.click()
        page.locator("button.execute").first.click()
        expect(page.locator("table.live-responses-table tr.response td.response-col_status").first).to_contain_text(
            "200"
        )
