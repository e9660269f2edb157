"""What the next step needs is prepared while this one is computed.

Packing 8 conversations (1,100 tokens) takes 0.4 ms, where a step on two cores takes 1,100: 0.04 % is gained, and no
time lost, there. It is for GPUs, which would stand still meanwhile: 16 rows of 2,048 tokens take 4.5 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Calls `prepare` for each of the steps `first` to `last` in turn, in one thread, one step ahead of `take`.

    `prepare` must be a matter of the step alone (no drawing from the global random generators, whose state a
    checkpoint keeps) and stay on the CPU, in tensors of few elements: for more than 32,768 torch would start a second
    pool of threads. A context manager: at its end no thread is left, whatever ended it.
    """

    def __init__(self, prepare: Callable[[int], T], first: int, last: int) -> None:
        self._prepare = prepare
        self._last = last
        self._next = first
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._coming: Future[T] | None = None
        self._begin()

    def _begin(self) -> None:
        self._coming = self._thread.submit(self._prepare, self._next) if self._next <= self._last else None

    def take(self, step: int) -> T:
        """What `prepare` made of `step`, or the exception that it raised. Steps are taken in their order.

        Raises `ValueError` for any step but the next.
        """
        if self._coming is None or step != self._next:
            raise ValueError(f"Step {step} is not the next.")
        prepared = self._coming.result()
        self._next += 1
        self._begin()
        return prepared

    def close(self) -> None:
        """Wait for the step that is being prepared, and prepare no more."""
        self._coming = None
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
