"""Makes the picture of the live page for the README from generated data: python -m tests.http.screenshot [FILE]

With --all FOLDER, it also makes pictures of the page in light and dark, wide and narrow, to look at.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.support.browser import launched, opened
from tests.support.gateway import Gateway
from tests.support.instance import ROOT, Instance, ndjson

PICTURE = ROOT / "man" / "live-page.png"
QUERY = "rotate the logs before the disk is full"
NARROW = {"width": 360, "height": 780}
WIDE = {"width": 1360, "height": 860}

#: Runbooks of an imaginary team: title, topic, text.
NOTES = (
    ("Log rotation", "ops", "Rotate the logs every night at two. A service that keeps its file open writes to the "
     "rotated log until it is reloaded, so send SIGHUP after each rotation and check that the new file grows."),
    ("Disk full on the ingest hosts", "incident", "The disk was full at 03:12 because rotated logs were not "
     "compressed. Delete logs older than seven days first, then restart the writers one by one."),
    ("Alert: less than 10 % of the disk free", "ops", "This alert fires before a disk is full. Look for large logs "
     "and core dumps; extend the volume only when both are clean."),
    ("Compressing old logs", "ops", "Logs compress to about a tenth. zstd at level 3 keeps up with every host; the "
     "archive keeps ninety days."),
    ("Where the audit log goes", "security", "The audit log is never rotated on the host. It is streamed to the "
     "archive, and each entry is signed."),
    ("Restoring a backup", "ops", "Stop the writers, restore the newest full backup, then replay the log from the "
     "cursor that the backup names. A restore is practised every quarter."),
    ("Certificates expire on a Sunday", "incident", "The certificate of the gateway expired. Renewal had failed for "
     "thirty days without an alert; there is one now."),
    ("Rotating keys", "security", "Create the new key, deploy it everywhere, and revoke the old one a day later. A "
     "key in a log counts as leaked."),
    ("Capacity plan for the winter", "planning", "Reads double in December. Two more search hosts are enough; the "
     "disks are replaced in January."),
    ("How we measure recall", "search", "A sample of real queries is answered exactly a second time. The share of "
     "neighbours that the index found is its recall."),
    ("Postmortem: slow searches after a bulk load", "incident", "The tail of new vectors was scanned while the graph "
     "was built. Loads are now split, and the rebuild begins earlier."),
    ("On-call handover", "people", "Write down what is still open, what you tried, and which alerts are noisy. The "
     "handover takes ten minutes, on Mondays at ten."),
)  # fmt: skip


def notes() -> list[dict[str, Any]]:
    return [
        {
            "id": f"runbook-{number:02}",
            "title": title,
            "text": text,
            "metadata": {"topic": topic, "year": 2024 + number % 3},
        }
        for number, (title, topic, text) in enumerate(NOTES, 1)
    ]


def tickets(count: int) -> list[dict[str, Any]]:
    """Short texts, made from words."""
    chosen = random.Random(7)
    who, what, where = (
        ("customer", "partner", "colleague"),
        ("cannot sign in", "asks for an export", "sees an old invoice", "reports a slow search"),
        ("web", "phone", "API"),
    )
    return [
        {
            "id": f"ticket-{number:05}",
            "text": f"A {chosen.choice(who)} {chosen.choice(what)} ({chosen.choice(where)}, case {number}).",
            "metadata": {"channel": chosen.choice(where)},
        }
        for number in range(count)
    ]


def prepare(instance: Instance) -> None:
    instance.vec("library", "create", "runbooks")
    instance.vec("library", "create", "--index", "hnsw", "tickets")
    instance.vec("library", "create", "--embedder", "none", "--dimension", "64", "--index", "lsh", "images")
    vectors = random.Random(8)
    images = [{"id": f"img-{n}", "vector": [round(vectors.gauss(0, 1), 4) for _ in range(64)]} for n in range(2000)]
    instance.vec("ingest", "-l", "images", stdin=ndjson(images))
    instance.vec("ingest", "-l", "tickets", stdin=ndjson(tickets(4000)))
    instance.vec("ingest", "-l", "runbooks", stdin=ndjson(notes()))
    for query in ("log rotation", "backup", "recall", "a slow search"):
        instance.vec("search", "-l", "runbooks", query)
        instance.vec("search", "-l", "tickets", query)
    instance.vec("search", "-l", "images", "--vector", json.dumps(images[0]["vector"]))
    instance.vec("jobs", "submit", "--wait", "verify")
    instance.vec("jobs", "submit", "--wait", "-l", "tickets", "rebuild")
    instance.vec("jobs", "submit", "-l", "images", "--delay", "1h", "rebuild")
    changed = {**notes()[3], "metadata": {"topic": "ops", "year": 2026}}
    instance.vec("ingest", "-l", "runbooks", stdin=ndjson([changed, {"op": "delete", "id": "runbook-12"}]))


def search(page: Page) -> None:
    page.locator("#library").select_option("runbooks")
    page.locator("#query").press_sequentially(QUERY)
    page.locator("#hits mark").first.wait_for()
    page.locator("#feed-status[data-state=live]").wait_for()
    page.locator("#events li").first.wait_for()
    page.locator("#job-list li").first.wait_for()
    page.wait_for_timeout(1800)  # the highlights of new events fade


def main(arguments: list[str]) -> None:
    shots: list[tuple[Path, dict[str, Any]]] = []
    if arguments[:1] == ["--all"]:
        folder = Path(arguments[1])
        for scheme in ("light", "dark"):
            narrow = {"viewport": NARROW, "device_scale_factor": 2}
            shots.append((folder / f"wide-{scheme}.png", {"viewport": WIDE, "color_scheme": scheme}))
            shots.append((folder / f"phone-{scheme}.png", {**narrow, "color_scheme": scheme}))
    else:
        shots.append((Path(arguments[0]) if arguments else PICTURE, {"viewport": WIDE, "color_scheme": "light"}))
    with Instance() as instance, Gateway(instance) as gateway, launched() as browser:
        prepare(instance)
        for path, options in shots:
            with opened(browser, gateway.url, **options) as (page, _):
                search(page)
                page.screenshot(path=path, full_page="phone" in path.name)
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1:])
