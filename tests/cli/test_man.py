"""The man pages say what the program does: commands, options, exit statuses, codes, ops, events, settings, limits."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from vecd import daemon, limits, settings
from vecd.connectors.table import TRANSPORTS
from vecd.errors import Code
from vecd.http.endpoint import Endpoint
from vecd.http.problems import STATUS
from vecd.http.settings import HttpSettings
from vecd.http.table import ENDPOINTS
from vecd.http.websocket import _OTHERS as OTHERS
from vecd.http.websocket_actions import ACTIONS
from vecd.index.kinds import DEFAULT, KINDS
from vecd.jobs.kinds import KINDS as JOBS
from vecd.ops.table import OPS
from vecd.store.events import ALL_TYPES
from vecd.store.jobs import STATES
from vecd.text.embedders import EMBEDDERS
from vecd.text.languages import LANGUAGES

ROOT = Path(__file__).resolve().parents[2]
MAN = ROOT / "man"
PAGES = sorted(path.name for path in MAN.iterdir() if path.suffix[1:].isdigit())

# mypy knows cli/ by its folder's name; it is imported by the name that it is installed under.
main: Any = importlib.import_module("vec_cli.main")
vec: Any = typer.main.get_command(main.app)
COMMANDS: dict[str, Any] = {name: vec.get_command(None, name) for name in vec.list_commands(None)}

CODES = {value for name, value in vars(Code).items() if name.isupper()}


# --- mdoc -----------------------------------------------------------------------------------------------------------


@cache
def page(name: str) -> str:
    return (MAN / name).read_text("ascii")


def words(line: str) -> list[str]:
    """The words of a macro line, the macro first; none for a line of text."""
    if not line.startswith("."):
        return []
    return [
        word[1:-1].replace('""', '"') if word[0] == '"' else word
        for word in re.findall(r'"(?:[^"]|"")*"|\S+', line[1:])
    ]


def flags(text: str) -> set[str]:
    """The options that a text mentions: what stands behind Fl."""
    found = set()
    for line in text.splitlines():
        macro = words(line)
        found |= {f"-{flag}" for fl, flag in pairwise(macro) if fl == "Fl"}
    return found


def behind(text: str, macro: str) -> set[str]:
    """The words that stand behind a macro, wherever it is called: A and B of `.Ev A , B`."""
    found = set()
    for line in text.splitlines():
        at = words(line)
        for place, word in enumerate(at):
            if word == macro:
                found |= {each for each in at[place + 1 :] if each not in ".,:;()"}
    return found


def section(name: str, title: str, macro: str = "Sh") -> str:
    """The text under a heading, up to the next one of its rank."""
    match = re.search(rf"^\.{macro} {re.escape(title)}\n(.*?)(?=^\.Sh|^\.{macro}|\Z)", page(name), re.M | re.S)
    assert match, f"{name} has no {macro} {title}"
    return match[1]


def items(text: str, macro: str) -> dict[str, str]:
    """The items of lists whose heads begin with a macro: its word -> the item's text. Without a macro: the head."""
    head = rf"^\.It {macro} (\S+).*\n" if macro else r"^\.It (.+)\n"
    return {match[1]: match[2] for match in re.finditer(head + r"((?:(?!\.It |\.El).*\n)*)", text, re.M)}


# --- commands -------------------------------------------------------------------------------------------------------


def options(name: str, command: Any) -> Iterator[Any]:
    """A command's options and, if it is a group, those of its commands."""
    context = command.make_context(name, [], resilient_parsing=True)
    yield from (each for each in command.get_params(context) if each.opts[0].startswith("-"))
    for sub in getattr(command, "commands", {}):
        yield from options(sub, command.commands[sub])


def spelled(name: str, command: Any) -> set[str]:
    return {spelling for option in options(name, command) for spelling in (*option.opts, *option.secondary_opts)}


def root_options() -> set[str]:
    context = vec.make_context("vec", [], resilient_parsing=True)
    return {spelling for each in vec.get_params(context) for spelling in each.opts}


def test_every_command_has_a_man_page_and_every_page_a_subject() -> None:
    subjects = {
        "vec-tutorial.7",
        "vec-protocol.7",
        "vec-events.7",
        "vec-guarantees.7",
        "vec-http.7",
        "vec-connectors.7",
        "vec-workers.7",
        "vec-files.7",
    }
    assert set(PAGES) == {"vec.1", "vecd.8", *subjects, *(f"vec-{name}.1" for name in COMMANDS)}


def test_every_guarantee_names_tests_that_there_are() -> None:
    sections = re.split(r"^\.Ss ", page("vec-guarantees.7"), flags=re.MULTILINE)[1:]
    assert len(sections) == 12
    for section in sections:
        paths = re.findall(r"^\.Pa (tests/\S+\.py)", section, re.MULTILINE)
        assert paths, section.splitlines()[0]
        for path in paths:
            assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_titled_as_its_file(name: str) -> None:
    title, _, number = name.rpartition(".")
    assert page(name).splitlines()[1] == f".Dt {title.upper()} {number}"
    assert f".Sh NAME\n.Nm {title}\n" in page(name)


@pytest.mark.parametrize("name", PAGES)
def test_no_heading_has_a_word_that_mdoc_takes_for_a_macro(name: str) -> None:
    headings = re.findall(r"^\.S[hs] (.*)", page(name), re.M)
    assert not [each for each in headings if re.search(r"(?<!\S)(?:An|Ap|At|Do|In|No|Op|Or|Ns|Nd|Pa|To)(?!\S)", each)]


def test_every_command_stands_in_vec_1() -> None:
    listed = items(section("vec.1", "DESCRIPTION"), "Cm")
    assert list(listed) == list(COMMANDS)
    for name, text in listed.items():
        assert f".Xr vec-{name} 1" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_a_group_stands_in_its_man_page(name: str) -> None:
    text = page(f"vec-{name}.1")
    for sub in getattr(COMMANDS[name], "commands", {}):
        assert f".Nm vec Cm {name} {sub}\n" in text
        assert f".It Cm {sub}\n" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_in_its_man_page(name: str) -> None:
    described = {
        flag for line in page(f"vec-{name}.1").splitlines() if line.startswith(".It Fl") for flag in flags(line)
    }
    assert described == spelled(name, COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_no_man_page_mentions_an_option_that_does_not_exist(name: str) -> None:
    assert flags(page(f"vec-{name}.1")) <= spelled(name, COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_in_the_synopsis(name: str) -> None:
    synopsis = flags(section(f"vec-{name}.1", "SYNOPSIS"))
    for option in options(name, COMMANDS[name]):
        assert synopsis & set(option.opts) or "--help" in option.opts, option.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_every_bound_and_choice_of_an_option_stands_in_its_man_page(name: str) -> None:
    told = [f".It Fl {item}" for item in page(f"vec-{name}.1").split(".It Fl ")[1:]]
    for option in {option.opts[0]: option for option in options(name, COMMANDS[name])}.values():
        kind = option.type
        expected = [str(bound) for bound in (getattr(kind, "min", None), getattr(kind, "max", None)) if bound]
        expected += [str(choice) for choice in getattr(kind, "choices", ())]
        (item,) = (item for item in told if set(option.opts) & flags(item.splitlines()[0]))
        for each in expected:
            if each != "1":  # at least one of something goes without saying
                assert re.search(rf"\b{each}\b", item), f"{option.opts[0]}: {each}"


def test_the_options_of_vec_itself_stand_in_vec_1() -> None:
    everywhere = set().union(*(spelled(name, command) for name, command in COMMANDS.items()))
    lines = section("vec.1", "DESCRIPTION").splitlines()
    assert {flag for line in lines if line.startswith(".It Fl") for flag in flags(line)} == root_options()
    assert flags(page("vec.1")) <= root_options() | everywhere


def test_the_options_of_vecd_stand_in_vecd_8() -> None:
    there = {spelling for action in daemon._parser()._actions for spelling in action.option_strings}
    described = {flag for line in page("vecd.8").splitlines() if line.startswith(".It Fl") for flag in flags(line)}
    assert described == there
    assert flags(page("vecd.8")) == there


# --- examples -------------------------------------------------------------------------------------------------------

_ESCAPES = {r"\-": "-", r"\(aq": "'", r"\(dq": '"', r"\(ga": "`", r"\(ti": "~", r"\(ha": "^", r"\e": "\\", r"\&": ""}


def plain(text: str) -> str:
    return re.sub(r"\\(?:\(..|.)", lambda match: _ESCAPES[match[0]], text)


def literals(name: str) -> Iterator[str]:
    for match in re.finditer(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed", page(name), re.M | re.S):
        yield plain(match[1])


def commands_at_prompts(name: str) -> Iterator[list[str]]:
    """Each `vec …` and `vecd …` behind a prompt, as words, up to what is the shell's."""
    for block in literals(name):
        shown = re.sub(r"\\\n *|\|\n *", lambda match: match[0][0].replace("\\", ""), block)
        for line in shown.splitlines():
            if not line.startswith("$ "):
                continue
            lexer = shlex.shlex(line[2:], posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            command: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("|&;<>()"):
                    if command and command[0] in ("vec", "vecd"):
                        yield command
                    command = []
                elif command or word in ("vec", "vecd"):
                    command.append(word)


def test_every_command_page_has_examples() -> None:
    for name in PAGES:
        assert list(commands_at_prompts(name)) or name in ("vec-protocol.7", "vec-guarantees.7", "vec-http.7"), name


@pytest.mark.parametrize("name", PAGES)
def test_every_example_is_a_command_that_can_be_parsed(name: str) -> None:
    for program, *arguments in commands_at_prompts(name):
        if program == "vecd":
            daemon._parser().parse_args(arguments)
            continue
        if arguments[0] in root_options():
            continue
        command = COMMANDS[arguments[0]]
        while hasattr(command, "commands"):
            arguments = getattr(command, "with_command", list)(arguments[1:])
            command = command.commands[arguments[0]]
        command.make_context(arguments[0], arguments[1:])  # parses, and calls nothing


def test_python_in_the_protocols_examples_compiles() -> None:
    blocks = [block for block in literals("vec-protocol.7") if "import " in block]
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "vec-protocol.7", "exec")


# --- what the pages list --------------------------------------------------------------------------------------------


def test_every_exit_status_stands_in_vec_1_with_its_codes() -> None:
    listed = {int(number): behind(text, "Er") for number, text in items(section("vec.1", "EXIT STATUS"), "").items()}
    others = {0, main.FAILED, main.PARTLY, main.INTERRUPTED, main.BROKEN_PIPE, main.TERMINATED}
    assert set(listed) == set(main.EXIT_STATUS.values()) | others
    for number, codes in listed.items():
        assert codes == {code for code in CODES if main.EXIT_STATUS.get(code, main.FAILED) == number}, number


def test_every_exit_status_of_a_command_is_one_of_vecs() -> None:
    known = set(items(section("vec.1", "EXIT STATUS"), ""))
    for name in COMMANDS:
        assert set(items(section(f"vec-{name}.1", "EXIT STATUS"), "")) <= known


def test_every_code_stands_in_the_protocol() -> None:
    assert set(items(section("vec-protocol.7", "ERROR CODES"), "Er")) == CODES


def test_every_op_stands_in_the_protocol() -> None:
    headings = re.findall(r"^\.Ss (.*)", section("vec-protocol.7", "OPERATIONS"), re.M)
    assert sorted(headings) == sorted(OPS)
    assert '"op": "hello"' in plain(section("vec-protocol.7", "Hello", "Ss"))


@pytest.mark.parametrize("op", OPS)
def test_every_field_that_an_op_reads_stands_with_it(op: str) -> None:
    read = set(re.findall(r'fields\.\w+\(\s*"(\w+)"', inspect.getsource(OPS[op].handler)))
    assert read <= behind(section("vec-protocol.7", op, "Ss"), "Va")


def test_every_event_type_stands_in_vec_events() -> None:
    assert set(items(section("vec-events.7", "Types", "Ss"), "Cm")) == set(ALL_TYPES)


def test_every_index_stands_in_vec_library_with_what_it_refuses_and_from_when_on_it_pays() -> None:
    text = section("vec-library.1", "Indexes", "Ss")
    assert set(items(text, "Cm")) == set(KINDS)
    assert re.search(rf"^\.It Cm {DEFAULT}\n(?:(?!\.It ).*\n)*.*the default", text, re.M)
    for name, kind in KINDS.items():
        for metric in kind.refuses:
            assert f".Cm {name}\nrefuses\n.Cm {metric} " in text
        if kind.rows_min:
            assert re.search(rf"\b{kind.rows_min:,}\b[^.]*\n(?:\.Cm \w+\nand\n)?\.Cm {name}\b", text), name


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in KINDS[kind].parameters])
def test_every_parameter_of_an_index_stands_in_the_pages_with_its_range_and_default(kind: str, name: str) -> None:
    parameter = KINDS[kind].parameters[name]
    item = items(page("vec-library.1"), f"Fl -{name.replace('_', '-')} Ar")[
        "N" if isinstance(parameter.default, int) else "TYPE"
    ]
    (item,) = re.findall(rf"^\.Cm {kind} :\n((?:(?!\.Cm \w+ :\n).*\n)*)", item, re.M)  # kinds may share an option
    if parameter.choices:
        assert set(map(str, parameter.choices)) <= behind(item, "Cm")
        assert f"default:\n.Cm {parameter.default} " in item
    else:
        assert re.search(rf"from {parameter.low} to {parameter.high}; default: {parameter.default}\.", item)
    assert {kind, name} <= behind(section("vec-protocol.7", "library.create", "Ss"), "Va") | {kind}


def test_every_embedder_stands_in_vec_library() -> None:
    about = page("vec-library.1").split(".It Fl -embedder Ar EMBEDDER\n")[1].split(".El\n")[0]
    assert {words(line)[2] for line in about.splitlines() if line.startswith(".It Cm ")} == set(EMBEDDERS)


def test_every_language_stands_in_vec_library() -> None:
    listed = section("vec-library.1", "DESCRIPTION").split("The languages are\n")[1].split(".\n")[0]
    assert sorted(re.split(r",\s|\sand\s", listed)) == sorted(set(LANGUAGES) - {"none"})


def test_every_kind_of_job_stands_in_vec_jobs_with_its_params() -> None:
    listed = items(section("vec-jobs.1", "Kinds", "Ss"), "Cm")
    assert set(listed) == set(JOBS)
    for name, kind in JOBS.items():
        if name != "rebuild":  # whose params are the indexes'
            assert behind(listed[name], "Va") >= set(kind.params), name


def test_every_state_of_a_job_stands_in_vec_jobs() -> None:
    assert tuple(items(section("vec-jobs.1", "States", "Ss"), "Cm")) == STATES


def test_every_setting_stands_in_vecd_8_with_its_default(tmp_path: Path) -> None:
    listed = items(section("vecd.8", "CONFIGURATION").split(".Ss ")[0], "Va")
    assert set(listed) == set(settings.TUNABLES)
    defaults = settings.load({"VEC_HOME": str(tmp_path)})
    for key, text in listed.items():
        value = getattr(defaults, key)
        told = re.search(r"default:\s+(?:\.Ql )?(\w+(?:\.\d+)?)", text)
        assert told, key
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        assert told[1] == (shown.lower() if isinstance(value, bool) else shown), key
        for name in ("vec.1", "vecd.8"):
            assert f"VEC_{key.upper()}" in behind(section(name, "ENVIRONMENT"), "Ev")


def test_every_variable_that_is_read_stands_in_vec_1_or_vecd_8() -> None:
    sources = [path.read_text("utf-8") for folder in ("vecd", "cli") for path in (ROOT / folder).rglob("*.py")]
    read = {name for text in sources for name in re.findall(r'"((?:VEC|XDG|LISTEN|NOTIFY)_[A-Z_]*[A-Z])"', text)}
    assert {"VEC_HOME", "NOTIFY_SOCKET"} <= read
    assert read - {"LISTEN_FDNAMES"} <= behind(page("vec.1") + page("vecd.8"), "Ev")


#: Extras whose packages stand in vecd(8) and not in a page of their own.
EXTRAS_OF_VECD_8 = ("minilm", "files", "mcp", "arrow")


def test_every_dependency_stands_in_vecd_8_with_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(each for extra in EXTRAS_OF_VECD_8 for each in extras[extra])]
    names = {re.match(r"[\w-]+", dependency)[0] for dependency in needed}  # type: ignore[index]
    assert set(items(section("vecd.8", "DEPENDENCIES"), "")) == names


def test_the_limits_of_the_protocol_are_those_of_the_program() -> None:
    listed = re.findall(r"^\.It ([\d,]+) Ta (.*)", section("vec-protocol.7", "LIMITS"), re.M)
    assert {what: int(number.replace(",", "")) for number, what in listed} == {
        "bytes of a frame": limits.FRAME_BYTES_MAX,
        "items of an array or a map": limits.ARRAY_ITEMS_MAX,
        "unanswered requests of a connection": limits.UNANSWERED_MAX,
        "bytes of unanswered requests of a connection": limits.UNANSWERED_BYTES_MAX,
        "bytes of unanswered requests of all connections": limits.BACKLOG_BYTES_MAX,
        "bytes of output that a connection has not read": limits.SEND_BUFFER_BYTES_MAX,
        "subscriptions of a connection": limits.STREAMS_MAX,
        "connections": limits.CONNECTIONS_MAX,
        "seconds without progress before a peer is disconnected, by default": limits.STALL_S,
        "documents of an ingest": limits.BATCH_DOCUMENTS_MAX,
        "bytes of an id": limits.ID_BYTES_MAX,
        "bytes of a title": limits.TITLE_BYTES_MAX,
        "bytes of metadata, as JSON": limits.METADATA_BYTES_MAX,
        "levels of nesting of metadata, including the top level": limits.METADATA_DEPTH_MAX,
        "chunks of a document": limits.DOCUMENT_CHUNKS_MAX,
        "components of a vector": limits.DIMENSION_MAX,
        "bytes of a library's name": limits.NAME_BYTES_MAX,
        "characters of a query": limits.QUERY_CHARS_MAX,
        "filters of a request": limits.FILTERS_MAX,
        "characters of all filters of a request": limits.FILTER_CHARS_MAX,
        "comparisons in all filters of a request": limits.FILTER_TESTS_MAX,
        "distinct fields in all filters of a request": limits.FILTER_FIELDS_MAX,
        "levels of parentheses in a filter": limits.FILTER_DEPTH_MAX,
        "documents per transaction of a delete": limits.DELETE_DOCUMENTS,
        "effort of a search": limits.EF_MAX,
        "ids of a get or a delete": limits.IDS_MAX,
        "hits of a search": limits.HITS_MAX,
        "hits of a search with explanations": limits.EXPLAINED_MAX,
        "hits or documents per message": limits.PAGE_ITEMS,
        "types of a watch": limits.TYPES_MAX,
        "characters of a type": limits.TYPE_CHARS_MAX,
        "characters of a key of parameters": limits.KEY_CHARS_MAX,
        "characters of a string in an error": limits.ERROR_CHARS_MAX,
    }


# --- HTTP -----------------------------------------------------------------------------------------------------------


def routes() -> dict[str, str]:
    """The items of vec-http(7), ROUTES: `METHOD /path` -> scope and text."""
    listed = re.findall(
        r"^\.It Li (\w+ /\S*) (Pq Cm \w+)\n((?:(?!\.It |\.El).*\n)*)", section("vec-http.7", "ROUTES"), re.M
    )
    assert len(dict.fromkeys(route for route, _, _ in listed)) == len(listed)
    return {route: f"{scope}\n{text}" for route, scope, text in listed}


def test_every_route_stands_in_vec_http_with_its_scope() -> None:
    served = {f"{each.method} {each.path}": each for each in ENDPOINTS}
    # Pages and their files are for people.
    expected = {route: f"Pq Cm {each.scope}" for route, each in served.items() if each.tag != "pages"}
    assert {route: text.split("\n")[0] for route, text in routes().items()} == expected


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: f"{each.method} {each.path}")
def test_every_parameter_of_a_route_stands_in_vec_http(endpoint: Endpoint) -> None:
    text = routes().get(f"{endpoint.method} {endpoint.path}", "")
    if "/search/stream" in endpoint.path:
        text += routes()["GET /v1/libraries/{library}/search"]
    if "/events/" in endpoint.path:
        text += section("vec-http.7", "EVENTS")
    asked = {each.name for each in endpoint.parameters if each.where != "path"}
    assert {name.lower() for name in asked} <= {word.lower() for word in behind(text, "Va")}


def test_every_action_of_a_websocket_stands_in_vec_http_with_its_keys() -> None:
    listed: dict[str, str] = {}
    for head, text in re.findall(
        r"^\.It Cm (.*)\n((?:(?!\.It |\.El).*\n)*)", section("vec-http.7", "WEBSOCKETS").split(".Ss ")[0], re.M
    ):
        listed |= dict.fromkeys(head.split(" , "), text)
    known = {**{name: action.keys for name, action in ACTIONS.items()}, **OTHERS}
    assert set(listed) == set(known)
    for name, keys in known.items():
        assert set(keys) <= behind(listed[name], "Va"), name


def test_every_status_of_an_error_stands_in_vec_http_with_its_codes() -> None:
    listed = items(section("vec-http.7", "PROBLEMS"), "")
    told = {int(status): behind(text, "Er") for status, text in listed.items() if behind(text, "Er")}
    by_status: dict[int, set[str]] = {}
    for code, status in STATUS.items():
        by_status.setdefault(status, set()).add(code)
    by_status.pop(500, None)  # any other code
    assert told == by_status


def test_every_package_of_the_gateway_stands_in_vec_http_with_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.match(r"[\w-]+", each)[0] for each in project["optional-dependencies"]["http"]}  # type: ignore[index]
    assert set(items(section("vec-http.7", "DEPENDENCIES"), "")) == names


def test_the_limits_of_vec_http_are_those_of_the_program() -> None:
    listed = re.findall(r"^\.It ([\d,]+) Ta (.*)", section("vec-http.7", "LIMITS"), re.M)
    assert {what: int(number.replace(",", "")) for number, what in listed} == {
        "bytes of a JSON body": limits.HTTP_BODY_BYTES_MAX,
        "bytes of the request line and the headers": limits.HEAD_BYTES_MAX,
        "headers of a request": limits.HEADERS_MAX,
        "seconds to send the headers": limits.HEAD_S,
        "connections": limits.HTTP_CONNECTIONS_MAX,
        "connections of one address of another machine": limits.CONNECTIONS_OF_ADDRESS_MAX,
        "requests, streams and WebSockets of one key": limits.OPEN_OF_KEY_MAX,
        "seconds to use a ticket": limits.TICKET_S,
    }


def test_every_setting_of_the_gateway_stands_in_vecd_8_with_its_default() -> None:
    text = section("vecd.8", "The table [http]", "Ss")
    heads = re.findall(r"^\.It Va (.*)", text, re.M)
    assert [name for head in heads for name in head.split(" , ")] == [each.name for each in fields(HttpSettings)]
    for each in fields(HttpSettings):
        if isinstance(each.default, (int, float)):
            assert f"default: {each.default:g}." in items(text, "Va")[each.name].replace("\n", " "), each.name


# --- connectors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSPORTS)
def test_every_parameter_of_a_transport_stands_in_vec_connectors_with_its_default(name: str) -> None:
    common, own = (items_of_heads(section("vec-connectors.7", each, "Ss")) for each in ("Common parameters", name))
    for parameter, declared in TRANSPORTS[name].parameters.items():
        text = (own.get(parameter) or common.get(parameter, "")).replace("\n", " ")
        assert text, parameter
        if declared.type is bool or isinstance(declared.default, (int, float)):
            shown = str(declared.default).lower() if declared.type is bool else f"{declared.default:g}"
            assert re.search(rf"default:\s+{shown.replace('1e+06', '1000000')}\b", text), parameter
        for choice in declared.choices:
            assert choice in text, parameter
    assert own.keys() <= TRANSPORTS[name].parameters.keys()
    for scheme in TRANSPORTS[name].schemes:
        assert f"{scheme}://" in section("vec-connectors.7", name, "Ss")


def items_of_heads(text: str) -> dict[str, str]:
    """The items of a list whose heads are `.It Va a , b`: each name -> the item's text."""
    found = re.findall(r"^\.It Va (.+)\n((?:(?!\.It |\.El).*\n)*)", text, re.M)
    return {name: body for head, body in found for name in head.split(" , ")}


def test_every_package_of_a_broker_stands_in_vec_connectors_with_its_reason() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    names = {
        re.match(r"[\w-]+", each)[0]  # type: ignore[index]
        for transport in TRANSPORTS.values()
        for each in extras.get(transport.extra or "", ())
    }
    assert names <= set(items(section("vec-connectors.7", "DEPENDENCIES"), ""))


# --- form -----------------------------------------------------------------------------------------------------------


def test_mandoc_has_nothing_to_complain_about() -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *PAGES], cwd=MAN, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
