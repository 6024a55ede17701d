"""Where an instance lives, and its tunables: environment, config.toml, defaults, in that order."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import BIN, Instance
from vecd import limits, settings
from vecd.client import connect
from vecd.errors import Code, VecError
from vecd.settings import SOCKET_PATH_BYTES_MAX, Settings, load, private_folder


def refused(environment: dict[str, str], socket: str | None = None) -> VecError:
    with pytest.raises(VecError) as caught:
        load(environment, socket=socket)
    assert caught.value.code == Code.SETTINGS
    return caught.value


def run(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command that fails before it does anything, with this VEC_HOME."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "VEC_HOME": str(home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def configured(home: Path, text: str) -> dict[str, str]:
    """An environment whose config.toml holds this."""
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(text, "utf-8")
    return {"VEC_HOME": str(home)}


# --- where ------------------------------------------------------------------------------------------------------------


def test_vec_home_holds_everything_of_an_instance(tmp_path: Path) -> None:
    elsewhere = dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME"), "/elsewhere")
    found = load({"VEC_HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/elsewhere", **elsewhere})
    assert found == Settings(
        home=tmp_path,
        socket=tmp_path / "vecd.sock",
        data=tmp_path / "data",
        config=tmp_path / "config.toml",
        log=tmp_path / "vecd.log",
        runtime=tmp_path,
    )
    assert found.store == tmp_path / "data" / "vec.db"
    assert found.lock == tmp_path / "data" / "vecd.lock"


def test_a_relative_vec_home_is_made_absolute_and_a_tilde_is_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"VEC_HOME": "here"}).socket == tmp_path / "here" / "vecd.sock"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load({"VEC_HOME": "~/there"}).socket == tmp_path / "there" / "vecd.sock"


def test_an_empty_vec_home_counts_as_unset() -> None:
    assert load({"VEC_HOME": "", "HOME": "/h", "XDG_RUNTIME_DIR": "/run/me"}).home is None


def test_without_vec_home_the_xdg_folders_hold_it() -> None:
    found = load(
        {
            "HOME": "/h",
            "XDG_DATA_HOME": "/x/data",
            "XDG_CONFIG_HOME": "/x/config",
            "XDG_STATE_HOME": "/x/state",
            "XDG_RUNTIME_DIR": "/x/run",
        }
    )
    assert found == Settings(
        home=None,
        socket=Path("/x/run/vec/vecd.sock"),
        data=Path("/x/data/vec"),
        config=Path("/x/config/vec/config.toml"),
        log=Path("/x/state/vec/vecd.log"),
        runtime=Path("/x/run/vec"),
    )


@pytest.mark.parametrize("value", ["", "relative/folder", "./here", "~/there"])
def test_an_xdg_folder_that_is_not_absolute_counts_as_unset(value: str) -> None:
    names = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
    found = load({"HOME": "/h", **dict.fromkeys(names, value)})
    assert found == load({"HOME": "/h"})
    assert found.data == Path("/h/.local/share/vec")
    assert found.config == Path("/h/.config/vec/config.toml")
    assert found.log == Path("/h/.local/state/vec/vecd.log")


def test_cron_finds_the_socket_of_the_session_if_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """cron sets no XDG_RUNTIME_DIR; the folder that it would name is taken, if it is there and ours."""
    usual = tmp_path / "usual"
    monkeypatch.setattr(settings, "Path", lambda path: usual if str(path).startswith("/run/user/") else Path(path))
    uid = os.getuid()
    assert load({"HOME": "/h"}).runtime == Path(f"/tmp/vec-{uid}")
    usual.mkdir()
    assert load({"HOME": "/h"}).runtime == usual / "vec"
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert load({"HOME": "/h"}).runtime == Path(f"/tmp/vec-{uid + 1}")


@pytest.mark.parametrize("by", ["environment", "option"])
def test_a_socket_can_be_named(tmp_path: Path, by: str) -> None:
    environment = {"VEC_HOME": str(tmp_path)}
    if by == "environment":
        found = load({**environment, "VEC_SOCKET": "/run/other.sock"})
    else:
        found = load({**environment, "VEC_SOCKET": "/run/not-this.sock"}, socket="/run/other.sock")
    assert found.socket == Path("/run/other.sock")
    assert found.data == tmp_path / "data"


def test_a_relative_socket_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"VEC_HOME": "/h"}, socket="my.sock").socket == tmp_path / "my.sock"


def test_a_socket_path_may_be_as_long_as_the_system_takes_and_no_longer(tmp_path: Path) -> None:
    room = SOCKET_PATH_BYTES_MAX - len(os.fsencode(tmp_path)) - 1
    assert room > 0
    fits = tmp_path / ("s" * room)
    assert load({"VEC_HOME": str(tmp_path)}, socket=str(fits)).socket == fits
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(fits))
    error = refused({"VEC_HOME": str(tmp_path)}, socket=f"{fits}s")
    assert f"{SOCKET_PATH_BYTES_MAX + 1} bytes" in error.message
    assert f"{fits}s" in error.message
    assert error.hint is not None
    assert "--socket" in error.hint


def test_the_length_of_a_socket_path_is_counted_in_bytes() -> None:
    assert "bytes" in refused({"VEC_HOME": "/" + "ü" * 60}).message


def test_a_home_too_long_for_a_socket_is_a_usage_error_on_the_command_line(tmp_path: Path) -> None:
    done = run([str(BIN / "vec"), "status"], tmp_path / ("long" * 30))
    assert (done.returncode, done.stdout) == (2, "")
    assert "bytes" in done.stderr
    assert "shorter" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- whose ------------------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    private_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o2770])
def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    private_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode


def test_a_folder_that_anybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(VecError, match="writable by everyone") as caught:
        private_folder(tmp_path)
    assert "chmod o-w" in (caught.value.hint or "")


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(VecError) as caught:
        private_folder(tmp_path)
    assert caught.value.code == Code.SETTINGS
    assert f"belongs to user {uid}" in caught.value.message


def test_a_folder_that_cannot_be_made_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VecError) as caught:
        private_folder(tmp_path / "file" / "folder")
    assert caught.value.code == Code.SETTINGS
    assert str(tmp_path / "file" / "folder") in caught.value.message


@contextlib.contextmanager
def somebody_elses_fallback(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that listens where a user without a runtime folder looks for it, in a folder that is not theirs."""
    owner = os.getuid()
    victim = 4_000_000 + os.getpid()  # nobody: it has no /run/user
    folder = Path(f"/tmp/vec-{victim}")
    folder.mkdir(mode=0o755)
    try:
        with socket.socket(socket.AF_UNIX) as trap:
            trap.bind(str(folder / "vecd.sock"))
            trap.listen()
            trap.setblocking(False)
            monkeypatch.setattr(os, "getuid", lambda: victim)
            for name in ("VEC_HOME", "VEC_SOCKET", "XDG_RUNTIME_DIR"):
                monkeypatch.delenv(name, raising=False)
            assert folder.stat().st_uid == owner != os.getuid()
            yield trap
    finally:
        shutil.rmtree(folder)


def test_nothing_is_sent_to_a_socket_in_a_fallback_folder_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp is everybody's: whoever makes our folder there first must not get our documents."""
    with somebody_elses_fallback(monkeypatch) as trap:
        with pytest.raises(VecError) as caught:
            connect(spawn=False, timeout_s=1)
        assert caught.value.code in (Code.SETTINGS, Code.FORBIDDEN)
        with contextlib.suppress(BlockingIOError):
            sock, _ = trap.accept()
            with sock:
                sock.settimeout(1)
                assert sock.recv(1_000) == b""


# --- tunables ---------------------------------------------------------------------------------------------------------


def test_without_a_file_or_a_variable_the_defaults_hold(tmp_path: Path) -> None:
    found = load({"VEC_HOME": str(tmp_path)})
    assert found.embedder == "wordllama"
    assert found.chunk_chars == limits.CHUNK_CHARS
    assert found.stall_s == limits.STALL_S
    assert found.drain_s == limits.DRAIN_S
    assert found.heartbeat_s == limits.HEARTBEAT_S
    assert found.log_level == "info"
    assert (found.recall, found.language, found.create) == (limits.RECALL, "english", True)


def test_every_tunable_can_stand_in_the_file_and_in_the_environment(tmp_path: Path) -> None:
    file = configured(
        tmp_path,
        'embedder = "hash"\nchunk_chars = 500\nstall_s = 2.5\ndrain_s = 3\nheartbeat_s = 2\n'
        'log_level = "debug" # and a comment\nworkers = 8\nrecall = 1\nlanguage = "german"\ncreate = false\n',
    )
    found = load(file)
    assert found[-10:] == ("hash", 500, 2.5, 3.0, 2.0, "debug", 8, 1.0, "german", False)
    beaten = load(
        {
            **file,
            "VEC_CHUNK_CHARS": "600",
            "VEC_STALL_S": "7",
            "VEC_HEARTBEAT_S": "0.5",
            "VEC_LOG_LEVEL": "error",
            "VEC_WORKERS": "2",
            "VEC_CREATE": "true",
        }
    )
    assert beaten[-10:] == ("hash", 600, 7.0, 3.0, 0.5, "error", 2, 1.0, "german", True)
    assert {type(value) for value in (found.stall_s, found.drain_s, beaten.stall_s)} == {float}
    others = {"VEC_EMBEDDER": "none", "VEC_DRAIN_S": "0.5", "VEC_RECALL": "0.9", "VEC_LANGUAGE": "none"}
    assert load({**file, **others})[-10:] == ("none", 500, 2.5, 0.5, 2.0, "debug", 8, 0.9, "none", False)


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert load({**configured(tmp_path, "chunk_chars = 500"), "VEC_CHUNK_CHARS": ""}).chunk_chars == 500


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n"])
def test_a_file_may_be_empty(tmp_path: Path, text: str) -> None:
    assert load(configured(tmp_path, text)) == load({"VEC_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("key", "close"),
    [("chunk_char", "chunk_chars"), ("loglevel", "log_level"), ("embeder", "embedder"), ("stalls", "stall_s")],
)
def test_an_unknown_setting_is_refused_naming_the_nearest(tmp_path: Path, key: str, close: str) -> None:
    error = refused(configured(tmp_path, f"{key} = 1"))
    assert repr(key) in error.message
    assert str(tmp_path / "config.toml") in error.message
    assert error.hint is not None
    assert repr(close) in error.hint


def test_an_unknown_setting_like_no_other_is_refused_naming_all(tmp_path: Path) -> None:
    error = refused(configured(tmp_path, "[quux]\nchunk_chars = 1"))
    assert error.hint is not None
    assert all(name in error.hint for name in settings.TUNABLES)


WRONG = [
    ("chunk_chars", '"many"', "a whole number"),
    ("chunk_chars", "true", "a whole number"),
    ("chunk_chars", "[500]", "a whole number"),
    ("chunk_chars", "49", "from 50"),
    ("chunk_chars", str(limits.CHUNK_CHARS_MAX + 1), str(limits.CHUNK_CHARS_MAX)),
    ("stall_s", '"soon"', "a number"),
    ("stall_s", "false", "a number"),
    ("stall_s", "0", "seconds"),
    ("stall_s", "-1", "seconds"),
    ("stall_s", "nan", "seconds"),
    ("stall_s", "inf", "seconds"),
    ("drain_s", "1e9", "seconds"),
    ("drain_s", "1979-05-27", "a number"),
    ("log_level", '"loud"', "debug, info, warning or error"),
    ("log_level", "1", "a string"),
    ("workers", "0", "from 1 to 1000"),
    ("workers", "1001", "from 1 to 1000"),
    ("embedder", "1", "a string"),
    ("embedder", "{}", "a string"),
]


@pytest.mark.parametrize(("key", "value", "wanted"), WRONG)
def test_a_value_of_the_wrong_kind_is_refused_naming_the_file_and_the_key(
    tmp_path: Path, key: str, value: str, wanted: str
) -> None:
    error = refused(configured(tmp_path, f"{key} = {value}"))
    assert f"{tmp_path / 'config.toml'}: {key}" in error.message
    assert wanted in error.message


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("VEC_CHUNK_CHARS", "many", "a whole number"),
        ("VEC_CHUNK_CHARS", "1.5", "a whole number"),
        ("VEC_CHUNK_CHARS", "10", "from 50"),
        ("VEC_STALL_S", "soon", "a number"),
        ("VEC_STALL_S", "nan", "seconds"),
        ("VEC_DRAIN_S", "-3", "seconds"),
        ("VEC_LOG_LEVEL", "LOUD", "debug, info, warning or error"),
    ],
)
def test_a_wrong_variable_is_refused_naming_it(tmp_path: Path, name: str, value: str, wanted: str) -> None:
    error = refused({"VEC_HOME": str(tmp_path), name: value})
    assert error.message.startswith(f"{name} must be")
    assert wanted in error.message
    assert repr(value) in error.message


def test_a_whole_number_is_not_rounded(tmp_path: Path) -> None:
    """500.7 characters are no setting; that they become 500 unsaid would be a surprise."""
    assert "a whole number" in refused(configured(tmp_path, "chunk_chars = 500.7")).message


def test_a_file_that_is_no_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    error = refused(configured(tmp_path, 'embedder = "hash"\nchunk_chars = = 5\n'))
    assert str(tmp_path / "config.toml") in error.message
    assert "line 2" in error.message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b'embedder = "\xff"\n')
    assert str(tmp_path / "config.toml") in refused({"VEC_HOME": str(tmp_path)}).message
    (tmp_path / "config.toml").unlink()
    (tmp_path / "config.toml").mkdir()
    assert str(tmp_path / "config.toml") in refused({"VEC_HOME": str(tmp_path)}).message


def test_the_daemon_and_the_command_line_refuse_a_wrong_file_and_say_what_to_do(tmp_path: Path) -> None:
    configured(tmp_path, 'log_levle = "debug"')
    for command, status in ([str(BIN / "vec"), "status"], 2), ([sys.executable, "-m", "vecd"], 78):
        done = run(command, tmp_path)
        assert (done.returncode, done.stdout) == (status, "")
        assert "'log_levle'" in done.stderr
        assert "did you mean 'log_level'?" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_the_daemon_does_what_the_file_says() -> None:
    with Instance() as instance:
        configured(instance.home, 'embedder = "hash"\nchunk_chars = 70\nlog_level = "warning"')
        instance.start()
        with instance.connect() as client:
            made = client.request("library.create", library="notes")
            assert (made["embedder"], made["chunk_chars"]) == ("hash", 70)
        assert "ready" not in instance.log()
