"""A strict parser of Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "counter": ("",)}
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


def parse(text: str) -> list[Sample]:
    """The samples. Raises AssertionError for anything that the format does not allow, and for histograms whose buckets
    do not add up."""
    assert text.endswith("\n")
    samples: list[Sample] = []
    families: dict[str, str] = {}
    seen: set[tuple[str, Labels]] = set()
    family = kind = ""
    lines = text.split("\n")[:-1]
    for place, line in enumerate(lines):
        if line.startswith("# HELP "):
            family, _, about = line.removeprefix("# HELP ").partition(" ")
            assert about
            assert lines[place + 1].startswith(f"# TYPE {family} "), line
            continue
        if line.startswith("# TYPE "):
            family, kind = line.removeprefix("# TYPE ").split(" ")
            assert family not in families, f"{family} is in two places"
            assert (kind == "counter") == family.endswith("_total"), family
            families[family] = kind
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        name, labels, value = match[1], match[2] or "", float(match[3])
        assert name in {family + suffix for suffix in _SUFFIXES[kind]}, line
        pairs = [each.split("=", 1) for each in re.findall(_LABEL, labels)]
        found = {label: re.sub(r"\\.", lambda at: _ESCAPES[at[0]], quoted[1:-1]) for label, quoted in pairs}
        assert len(found) == len(pairs), line
        key = name, tuple(sorted(found.items()))
        assert key not in seen, line
        seen.add(key)
        samples.append(Sample(name, found, value))
    _check_histograms(samples, [name for name, kind in families.items() if kind == "histogram"])
    return samples


def _check_histograms(samples: list[Sample], names: list[str]) -> None:
    for name in names:
        buckets: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
        counts: dict[Labels, float] = {}
        for sample in samples:
            labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key != "le"))
            if sample.name == f"{name}_bucket":
                buckets[labels].append((float(sample.labels["le"]), sample.value))
            elif sample.name == f"{name}_count":
                counts[labels] = sample.value
        assert buckets.keys() == counts.keys()
        for labels, found in buckets.items():
            assert found == sorted(found)
            assert [value for _, value in found] == sorted(value for _, value in found)
            assert found[-1] == (float("inf"), counts[labels])


def value_of(samples: list[Sample], name: str, **labels: str) -> float:
    """The value of one sample. Raises AssertionError if there is none, or more than one."""
    (found,) = [each.value for each in samples if each.name == name and each.labels == labels]
    return found
