"""Writing many states at once: one buffer is filled while threads write and digest the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskgrid.outofcore.streams import StateWriter

Buffer: TypeAlias = NDArray[np.uint8]


class Sink:
    """Hands buffers to threads that write them; a state always to the same thread, so in order.

    Args:
        writers: the states to write, known by their places in this list.
        threads: how many threads write.
        nbytes: size of a buffer.
    """

    def __init__(self, writers: Sequence[StateWriter], threads: int, nbytes: int) -> None:
        self._writers = writers
        self._threads = [ThreadPoolExecutor(1, f"writer-{n}") for n in range(threads)]
        self._free = [np.empty(nbytes, np.uint8) for _ in range(self.buffers(threads))]
        self._busy: deque[tuple[Future[None], Buffer | None]] = deque()

    @staticmethod
    def buffers(threads: int) -> int:
        """Return how many buffers a sink of so many threads has."""
        return 1 + threads

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)

    def take(self) -> Buffer:
        """Return a free buffer; waits until there is one.

        Raises:
            ArtifactError: if something that was sent before could not be written.
        """
        while not self._free:
            self._collect()
        return self._free.pop()

    def send(self, index: int, name: str, offset: int, buffer: Buffer, nbytes: int) -> None:
        """Write the beginning of a buffer that ``take`` gave, and free it."""
        self._submit(index, name, offset, buffer.data[:nbytes], buffer)

    def send_all(self, name: str, offset: int, data: memoryview) -> None:
        """Write the same bytes to every state; they may be reused when this returns.

        Raises:
            ArtifactError: if something could not be written.
        """
        for index in range(len(self._writers)):
            self._submit(index, name, offset, data, None)
        self.drain()

    def drain(self) -> None:
        """Wait until everything is written.

        Raises:
            ArtifactError: if something could not be written.
        """
        while self._busy:
            self._collect()

    def _submit(
        self, index: int, name: str, offset: int, data: memoryview, buffer: Buffer | None
    ) -> None:
        thread = self._threads[index % len(self._threads)]
        task = thread.submit(self._writers[index].write, name, offset, data)
        self._busy.append((task, buffer))

    def _collect(self) -> None:
        task, buffer = self._busy.popleft()
        task.result()
        if buffer is not None:
            self._free.append(buffer)
