"""Chromium, driven by Playwright: pages that record what must not happen in them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from .waiting import PATIENCE_S

#: Lets the page report violations of its Content-Security-Policy, which also prevents what it reports.
_REPORT = """document.addEventListener('securitypolicyviolation', (event) =>
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));"""


def chromium() -> str | None:
    """The path of Chromium; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """A headless Chromium."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Faults:
    """Errors on a page's console, uncaught exceptions, violations of its policy, and requests to other origins."""

    def __init__(self, page: Page, url: str) -> None:
        self.found: list[str] = []
        #: Texts of messages that a test expects: a browser reports each failed request as an error.
        self.expected: list[str] = []
        self._origin = urlsplit(url).netloc
        page.on("console", lambda message: self._add(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self._add(f"uncaught: {error}"))
        page.on("request", lambda request: self._check(request.url))
        page.on("websocket", lambda socket: self._check(socket.url))

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != self._origin:
            self._add(f"request to {url}")

    def _add(self, text: str) -> None:
        if not any(each in text for each in self.expected):
            self.found.append(text)


@contextlib.contextmanager
def opened(browser: Browser, url: str, path: str = "/", **options: Any) -> Iterator[tuple[Page, Faults]]:
    """A page in a context of its own, with no storage, and its faults, of which none may be left at the end. `options`
    are Playwright's: viewport, color_scheme …"""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    page.add_init_script(_REPORT)
    faults = Faults(page, url)
    try:
        page.goto(url + path)
        yield page, faults
        assert faults.found == []
    finally:
        context.close()
