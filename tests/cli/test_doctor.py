"""vec doctor, vec config, vec jobs kinds, vec --explain: what they say about an instance as it is."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.waiting import until
from vecd import __version__
from vecd.errors import Code, VecError
from vecd.jobs.kinds import KINDS

explanations: Any = importlib.import_module("vec_cli.explanations")
main: Any = importlib.import_module("vec_cli.main")

Findings = dict[str, list[dict[str, Any]]]


@pytest.fixture
def own() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        yield made


def findings(instance: Instance, status: int | None = 0) -> Findings:
    """What doctor finds, by check."""
    found: Findings = {}
    for line in instance.vec("doctor", status=status).stdout.splitlines():
        each = json.loads(line)
        found.setdefault(each["check"], []).append(each)
    return found


def states(found: Findings, check: str) -> list[str]:
    return [each["state"] for each in found[check]]


def test_doctor_finds_nothing_wrong_with_an_instance_that_runs(own: Instance) -> None:
    own.vec("ingest", stdin='{"id": "a", "text": "rotate the logs"}\n')
    found = findings(own)
    assert {each["state"] for checks in found.values() for each in checks} <= {"ok", "info"}
    assert __version__ in found["daemon"][0]["message"]
    assert found["indexes"][0]["message"] == "1 library"


def test_doctor_starts_no_daemon_and_makes_no_folder(own: Instance) -> None:
    found = findings(own)
    assert found["daemon"][0]["message"] == "no daemon is running"
    assert list(own.home.iterdir()) == []


def test_doctor_finds_folders_that_others_may_write_to(own: Instance) -> None:
    own.vec("status")
    own.vec("daemon", "stop")
    os.chmod(own.settings.store, 0o666)
    found = findings(own)
    assert f"others may write to {own.settings.store}" in [each["message"] for each in found["folders"]]
    os.chmod(own.settings.data, 0o777)
    (wrong,) = [each for each in findings(own, 1)["folders"] if each["state"] == "fail"]
    assert "writable by everyone" in wrong["message"]
    assert wrong["hint"] == f"chmod o-w {own.settings.data}"
    os.chmod(own.settings.data, 0o700)


def test_doctor_finds_a_setting_that_is_invalid_and_a_variable_that_is_misspelt(own: Instance) -> None:
    own.environment["VEC_CHUNK_CHAR"] = "500"
    (_, wrong) = findings(own)["settings"]
    assert (wrong["state"], wrong["hint"]) == ("warn", "did you mean VEC_CHUNK_CHARS?")
    own.settings.config.write_text("workers = 0\n")
    (wrong,) = findings(own, 1)["settings"]
    assert wrong["state"] == "fail"
    assert "workers must be from 1 to" in wrong["message"]


def test_doctor_finds_jobs_that_failed(own: Instance) -> None:
    own.vec("jobs", "submit", "noop", "-p", "fail=by request", "--wait", status=1)
    found = findings(own)
    assert states(found, "jobs") == ["warn"]
    assert "1 job failed" in found["jobs"][0]["message"]


EMBED = """
import json, pathlib, sys
broken = (pathlib.Path(__file__).parent / "broken").exists()
for line in sys.stdin:
    text = json.loads(line)["text"]
    print(json.dumps({"error": "no such text"} if "bad" in text else [1, 2]))
sys.exit(3 if broken else 0)
"""


@pytest.mark.parametrize("first", ["hash", "none"])
def test_doctor_finds_an_embedder_that_fails_until_it_embeds_again(own: Instance, tmp_path: Path, first: str) -> None:
    program, broken = tmp_path / "embed.py", tmp_path / "broken"
    program.write_text(EMBED)
    broken.touch()
    command = shlex.join((sys.executable, str(program)))
    own.start()
    with own.connect(timeout_s=60) as client:
        client.create_library("lib", embedder="command", embedder_parameters={"command": command}, first_embedder=first)
        assert states(findings(own), "embedders") == ["ok"]
        documents = [{"id": "a", "text": "good"}]
        if first == "hash":
            client.ingest(documents, "lib")
            until(lambda: client.library("lib")["second_stage"]["error"], "the stage says that it waits")
        else:
            with pytest.raises(VecError):
                client.ingest(documents, "lib")
        (wrong,) = findings(own, 1)["embedders"]
        assert wrong["state"] == "fail"
        assert wrong["message"].startswith("library lib: ")
        assert "ended with status 3" in wrong["message"]
        assert "vec library show lib" in wrong["hint"]
        broken.unlink()
        if first == "none":
            client.ingest(documents, "lib")
        until(lambda: states(findings(own, None), "embedders") == ["ok"], "doctor to find nothing wrong")
        if first == "hash":
            client.ingest([{"id": "b", "text": "bad"}], "lib")
            until(lambda: client.library("lib")["second_stage"]["refused"], "the chunk to be refused")
            (told,) = findings(own)["embedders"]
            assert told["state"] == "warn"
            assert told["message"] == "library lib: the embedder command has refused 1 chunk"


def test_config_tells_where_each_value_comes_from(own: Instance) -> None:
    own.settings.config.write_text('workers = 3\nembedder = "wordllama"\n[http]\nlisten = "127.0.0.1:0"\n')
    shown = {each["setting"]: each for each in own.objects("config")}
    file = str(own.settings.config)
    assert shown["workers"] == {"setting": "workers", "value": 3, "from": file}
    assert shown["embedder"] == {"setting": "embedder", "value": "hash", "from": "VEC_EMBEDDER"}
    assert shown["language"] == {"setting": "language", "value": "english", "from": "default"}
    assert shown["data"] == {"setting": "data", "value": str(own.settings.data), "from": "VEC_HOME"}
    assert shown["http.listen"] == {"setting": "http.listen", "value": ["127.0.0.1:0"], "from": file}
    assert not own.settings.socket.exists()
    assert own.objects("config", "workers", "--socket", "/tmp/x.sock") == [shown["workers"]]
    assert "did you mean 'workers'?" in own.vec("config", "worker", status=2).stderr


def test_config_never_shows_a_password(own: Instance) -> None:
    own.environment["VEC_JOBS_EXECUTOR_URL"] = "redis://:s3cret@broker/1"
    told = own.vec("config").stdout
    assert "s3cret" not in told
    assert '"value":"redis://broker/1","from":"VEC_JOBS_EXECUTOR_URL"' in told


def test_the_kinds_of_job_are_listed_with_their_parameters(own: Instance) -> None:
    found = {each["kind"]: each for each in own.objects("jobs", "kinds")}
    assert list(found) == list(KINDS)
    for name, kind in KINDS.items():
        assert [each["name"] for each in found[name]["params"]] == list(kind.params)
    (path,) = found["backup"]["params"]
    assert (path["name"], path["required"]) == ("path", True)


def test_every_exit_status_and_every_code_is_explained() -> None:
    codes = {value for name, value in vars(Code).items() if name.isupper()}
    assert set(explanations.CODES) == codes
    statuses = {0, main.FAILED, main.PARTLY, main.INTERRUPTED, main.BROKEN_PIPE, main.TERMINATED}
    assert set(explanations.STATUSES) == statuses | set(main.EXIT_STATUS.values())


def test_explain_tells_what_a_status_and_a_code_mean(own: Instance) -> None:
    assert own.vec("--explain", "75").stdout.startswith("Exit status 75: Temporary failure")
    told = own.vec("--explain", "compacted").stdout
    assert told.startswith("compacted, exit status 5: ")
    assert "--on-gap" in told
