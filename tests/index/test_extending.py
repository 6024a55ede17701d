"""A kind of index and an embedder are added by one file and one entry each, and work through the real socket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Instance() as instance:
        instance.start(module="tests.index.vecd")
        with instance.connect() as connected:
            yield connected


def test_an_added_kind_and_an_added_embedder_index_and_find_documents(client: Client) -> None:
    made = client.request("library.create", library="toys", embedder="toy", index="toy", params={"delay": 3})
    assert (made["dimension"], made["parameters"]) == (None, {"delay": 3})
    documents = [{"id": text, "text": text} for text in ("aaa", "bbb", "ccc", "aab", "abb", "bcc")]
    assert client.ingest(documents, "toys")["added"] == 6
    until(lambda: client.request("library.show", library="toys")["memory"]["structure"] == 6, "the structure")
    assert client.request("library.show", library="toys")["dimension"] == 3
    hits = list(client.search("baa", k=2, library="toys", mode="vector"))
    assert [hit["document_id"] for hit in hits] == ["aab", "aaa"]
    rebuilt = client.request("library.rebuild", library="toys", params={"delay": 4})
    assert (rebuilt["index"], rebuilt["parameters"], rebuilt["vectors"]) == ("toy", {"delay": 4}, 6)


def test_the_parameters_of_an_added_kind_are_checked_by_what_it_declares(client: Client) -> None:
    with pytest.raises(VecError, match="the index 'toy': delay must be a whole number from 0 to 9, not 10"):
        client.request("library.create", library="never", index="toy", params={"delay": 10})
    with pytest.raises(VecError, match="did you mean 'delay'"):
        client.request("library.create", library="never", index="toy", params={"dealy": 1})


def test_an_embedder_that_failed_once_takes_the_same_documents_again(client: Client) -> None:
    client.request("library.create", library="retried", embedder="toy")
    documents = [{"id": "a", "text": "fail"}]
    with pytest.raises(VecError, match="the toy is out of order") as failed:
        client.ingest(documents, "retried")
    assert failed.value.code == "embedder_failed"
    assert client.ingest(documents, "retried")["added"] == 1


def test_the_command_line_lists_what_the_tables_have() -> None:
    program = (
        "import sys; import tests.index.vecd; from vec_cli.main import main;"
        " sys.argv = ['vec', 'library', 'create', '--help']; main()"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "<wordllama|minilm|openai|command|hash|none|toy>" in shown
    assert "<pq|hnsw|flat|lsh|kdtree|toy>" in shown
