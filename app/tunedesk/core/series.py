"""A growing list of points that is cheap to extend and safe to share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Series(Sequence[T], Generic[T]):
    """An immutable view of the first items of a list that only ever grows.

    `plus` appends in constant time when this is the newest view and copies otherwise, so a fold over 100,000 events
    stays linear while every earlier state remains what it was.
    """

    __slots__ = ("_items", "_length")

    def __init__(self, items: Sequence[T] = ()) -> None:
        self._items = list(items)
        self._length = len(self._items)

    def plus(self, item: T) -> Series[T]:
        """This series with `item` at its end."""
        items = self._items if len(self._items) == self._length else self._items[: self._length]
        items.append(item)
        longer: Series[T] = Series.__new__(Series)
        longer._items = items
        longer._length = self._length + 1
        return longer

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            return self._items[start:stop:step] if step > 0 else self._items[: self._length][index]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._items[index if index >= 0 else self._length + index]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return iter(self._items[: self._length])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Series) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Series({list(self)!r})"
