"""The `wordllama` embedder: static token embeddings, 256 dimensions, from the files that the wordllama wheel ships.

The weights are memory-mapped; the tokenizer's file is read with `tokenizers`. The package itself is not imported: that
is slow, and its loader accesses the network. Texts are lower-cased first; without that, nDCG@10 on upper-case text fell
from 0.344 to 0.061.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...errors import Code, VecError
from .embedder import EmbedderKind

_DIMENSION = 256
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
#: Token vectors gathered at once: 16,384 x 1 KiB fits the processor's cache better than the 100 MB of a batch.
_TOKENS_AT_ONCE = 16_384


class WordLlama:
    """The normalized mean of a text's token vectors."""

    dimension = _DIMENSION

    def __init__(self) -> None:
        # Enables Rayon's threads in tokenizers; in some environments they are disabled after a fork warning.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        from tokenizers import Tokenizer

        folder = _package_folder()
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
            self._weights = _mapped(folder / _WEIGHTS)
        except Exception as error:  # tokenizers raises bare Exception
            raise VecError(
                Code.EMBEDDER_FAILED, f"the wordllama model in {folder} cannot be read: {error}", "reinstall wordllama"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if len(texts) == 1:  # not on Rayon's threads, where a query would wait for the batches of a bulk load
            tokens = [self._tokenizer.encode(texts[0].lower(), add_special_tokens=False).ids]
        else:
            try:
                encodings = self._tokenizer.encode_batch_fast(
                    [text.lower() for text in texts], add_special_tokens=False
                )
            except BaseException as error:  # a Rust panic is not an Exception: the server would not answer the request
                if isinstance(error, (Exception, KeyboardInterrupt, SystemExit)):
                    raise
                raise RuntimeError(f"the tokenizer failed: {error}") from error
            tokens = [encoding.ids for encoding in encodings]
        vectors = np.zeros((len(texts), _DIMENSION), np.float32)
        start = 0
        while start < len(tokens):
            stop, held = start, 0
            while stop < len(tokens) and (stop == start or held + len(tokens[stop]) <= _TOKENS_AT_ONCE):
                held += len(tokens[stop])
                stop += 1
            self._sum(tokens[start:stop], vectors[start:stop])
            start = stop
        # Normalization makes sum and mean equal.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, np.where(lengths == 0, 1, lengths), dtype=np.float32)

    def _sum(self, tokens: list[list[int]], into: npt.NDArray[np.float32]) -> None:
        # Converting a token's vector to float32 costs as much as all other operations on it, and tokens repeat. One sum
        # per text is faster than np.add.reduceat, ten times for long texts.
        distinct, places = np.unique(np.fromiter(chain.from_iterable(tokens), np.intp), return_inverse=True)
        vectors = self._weights[distinct].astype(np.float32)
        start = 0
        for row, ids in enumerate(tokens):
            np.add.reduce(vectors[places[start : start + len(ids)]], axis=0, out=into[row])
            start += len(ids)


def _package_folder() -> Path:
    spec = importlib.util.find_spec("wordllama")  # finds a package without running it
    if spec is None or not spec.submodule_search_locations:
        raise VecError(
            Code.EMBEDDER_FAILED, "the package wordllama is not installed", "reinstall vecd, which depends on it"
        )
    return Path(spec.submodule_search_locations[0])


def _mapped(path: Path) -> npt.NDArray[np.float16]:
    """Memory-maps the one matrix of a safetensors file (tokens x 256, float16). The format is 8 bytes of header length,
    the header as JSON, the data (https://github.com/huggingface/safetensors, "Format")."""
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > 100_000:
            raise ValueError("not a safetensors file")
        header = json.loads(file.read(header_bytes))
    (tensor,) = (entry for name, entry in header.items() if name != "__metadata__")
    if tensor["dtype"] != "F16" or tensor["shape"][1] != _DIMENSION:
        raise ValueError(f"unexpected tensor {tensor['dtype']} {tensor['shape']}")
    offset = 8 + header_bytes + tensor["data_offsets"][0]
    return np.memmap(path, np.float16, "r", offset, tuple(tensor["shape"]))


EMBEDDER: Final = EmbedderKind("static token embeddings; no network", WordLlama, _DIMENSION)
