"""The outcome of an evaluation: scores of one set of weights on one image set, sample by sample."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from taskgrid.errors import DataError


@dataclass(frozen=True)
class Outcome:
    """What one set of weights did on one part (validation or test) of one task.

    Attributes:
        key: digest (32 hex characters) of all the numbers depend on.
        n: number of samples.
        correct: number of samples classified correctly.
        nll: mean negative log-likelihood of the true class, natural logarithm.
        ece: expected calibration error.
        bits: one bit per sample, set when it is classified correctly, in the order of the split's
            manifest, packed as by ``numpy.packbits``.
        predicted: the class that each sample is given, as uint8, or as little-endian uint16 where a class
            is beyond 255; empty where only correctness is known.
    """

    key: str
    n: int
    correct: int
    nll: float
    ece: float
    bits: bytes
    predicted: bytes = b""

    @classmethod
    def of(
        cls,
        key: str,
        hits: NDArray[np.bool_],
        nll: float,
        ece: float,
        predicted: NDArray[np.integer[Any]] | None = None,
    ) -> Outcome:
        """Pack per-sample correctness and predicted classes, each of shape (n,)."""
        return cls(
            key=key,
            n=len(hits),
            correct=int(np.count_nonzero(hits)),
            nll=float(nll),
            ece=float(ece),
            bits=np.packbits(hits).tobytes(),
            predicted=b"" if predicted is None else _packed(predicted),
        )

    def hits(self) -> NDArray[np.bool_]:
        """Return per-sample correctness, shape (n,)."""
        packed = np.frombuffer(self.bits, dtype=np.uint8)
        return np.unpackbits(packed, count=self.n).astype(bool)

    def predictions(self) -> NDArray[np.int64]:
        """Return the predicted class of each sample, shape (n,).

        Raises:
            DataError: if only correctness is known.
        """
        if len(self.predicted) not in (self.n, 2 * self.n):
            raise DataError(f"the predicted classes of outcome {self.key} were not stored")
        width = np.uint8 if len(self.predicted) == self.n else np.dtype("<u2")
        return np.frombuffer(self.predicted, dtype=width).astype(np.int64)

    @property
    def accuracy(self) -> float:
        """Share of samples classified correctly."""
        return self.correct / self.n


class Takes(Protocol):
    """Takes outcomes; what it was given is kept when its block ends."""

    def add(self, outcome: Outcome) -> None:
        """Take one outcome."""


class Outcomes(Protocol):
    """Where outcomes are found again: ``OutcomeStore``, or memory."""

    def find(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """Return the outcomes that are stored, by key."""
        ...

    def writer(self) -> AbstractContextManager[Takes]:
        """Return a context manager that stores outcomes."""
        ...


def _packed(classes: NDArray[np.integer[Any]]) -> bytes:
    narrow = classes.dtype == np.uint8 or not classes.size or classes.max() < 256
    return classes.astype(np.uint8 if narrow else "<u2", copy=False).tobytes()
