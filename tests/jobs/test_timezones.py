"""The machine's time zone is what the C library says it is, or it is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.instance import Instance
from vecd.errors import VecError
from vecd.jobs import timezones

RULE = "CET-1CEST,M3.5.0,M10.5.0/3"

#: What TZ may be.
READ = [
    "Europe/Berlin",
    ":Europe/Berlin",
    "/usr/share/zoneinfo/Europe/Berlin",
    ":/usr/share/zoneinfo/Europe/Berlin",
    "",
    ":",
    "UTC0",
    "XYZ5",
    RULE,
    f":{RULE}",
    "EST5EDT",
    "EST5EDT,M3.2.0,M11.1.0",
    "NZST-12NZDT,M9.5.0,M4.1.0/3",
    "IST-1GMT0,M10.5.0,M3.5.0/1",  # Ireland: winter time is the exception
    "<-03>3<-02>,M3.5.0/-2,M10.5.0/-1",  # Greenland: begins on the day before
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",  # Lord Howe: half an hour
    "CST6CDT,J60/2,J300/2",
]

OFFSETS = "import json, sys, time; print(json.dumps([time.localtime(t).tm_gmtoff for t in json.load(sys.stdin)]))"


def offsets_of_libc(text: str, moments: list[int]) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", OFFSETS], env={**os.environ, "TZ": text}, input=json.dumps(moments), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    return [int(each) for each in json.loads(done.stdout)]


@pytest.mark.skipif(not Path("/usr/share/zoneinfo/Europe/Berlin").exists(), reason="needs the system's tzdata")
@pytest.mark.parametrize("text", READ)
def test_the_local_zone_is_what_the_c_library_makes_of_tz(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    moments = list(range(start, start + 3 * 366 * 86_400, 6_000))
    monkeypatch.setenv("TZ", text)
    tz = timezones.local()
    found = [datetime.fromtimestamp(each, tz).utcoffset() or timedelta() for each in moments]
    assert [int(each.total_seconds()) for each in found] == offsets_of_libc(text, moments)


REFUSED = [
    "Europe/Atlantis",
    "ABC",
    "CET-1CEST",  # when does summer time begin?
    "CET-1CEST,M3.5.0",
    "CET-1CEST,M3.5.0,M99.5.0",
    "CST6CDT,59/2,299/2",  # zoneinfo counts these days otherwise than the C library
    "/etc/passwd",
    "/nowhere",
    "../x",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_zone_that_cannot_be_told_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", text)
    with pytest.raises(VecError) as refusal:
        timezones.local()
    assert refusal.value.code == "invalid_request"
    assert refusal.value.details["field"] == "zone"
    assert repr(text) in refusal.value.message
    assert timezones.local_name() == text


def test_etc_localtime_may_be_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    berlin = Path("/usr/share/zoneinfo/Europe/Berlin")
    if not berlin.exists():
        pytest.skip("needs the system's tzdata")
    localtime = tmp_path / "localtime"
    monkeypatch.setattr(timezones, "LOCALTIME", localtime)
    assert timezones.local() is UTC  # as in a container
    localtime.write_bytes(berlin.read_bytes())
    summer = datetime(2026, 7, 1, tzinfo=timezones.local()).utcoffset()
    assert summer is not None
    assert summer.total_seconds() == 7_200
    localtime.write_bytes(berlin.read_bytes()[:60])
    with pytest.raises(VecError) as refusal:
        timezones.local()
    assert str(localtime) in refusal.value.message
    localtime.unlink()
    localtime.symlink_to(berlin)
    assert timezones.local_name() == "Europe/Berlin"


def test_schedules_of_a_daemon_go_by_the_rule_in_tz() -> None:
    with Instance({"TZ": RULE}) as instance:
        instance.start()
        instance.vec("jobs", "schedule", "add", "nightly", "0 3 1 7 *", "noop")
        (shown,) = (e for e in instance.objects("jobs", "schedule", "list") if e["name"] == "nightly")
        assert (shown["zone"], shown["next_at"][5:16]) == (RULE, "07-01T01:00")


def test_a_daemon_whose_zone_cannot_be_read_says_so_and_schedules_with_a_zone_go_on() -> None:
    with Instance({"TZ": "Europe/Atlantis"}) as instance:
        instance.start()
        refused = instance.vec("jobs", "schedule", "add", "nightly", "0 3 * * *", "noop", status=2)
        assert "TZ is 'Europe/Atlantis'" in refused.stderr
        assert "--zone" in refused.stderr
        instance.vec("jobs", "schedule", "add", "named", "0 3 * * *", "noop", "--zone", "Asia/Tokyo")
        shown = {each["name"]: each for each in instance.objects("jobs", "schedule", "list")}
        assert shown["named"]["next_at"][11:16] == "18:00"
        assert (shown["upkeep.prune"]["next_at"], shown["upkeep.prune"]["zone"]) == (None, "Europe/Atlantis")
        assert "TZ is 'Europe/Atlantis'" in shown["upkeep.prune"]["error"]
        assert "Traceback" not in instance.log()
