"""Recognizes and reads arrays, tensors, data frames and images of many libraries.

No library is imported: a type is recognized by its public attributes. They are looked up on the type, because
pandas makes columns and labels attributes of the value. Only a small part of a value is read, whatever its
size, layout and device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

FIRST: Final = 8
"""How many values of a large array are recorded."""

_ROWS, _COLUMNS = 5, 20
_MAX_BYTES, _MAX_ITEM = 1_000_000, 1_000
_TIMES: Final = frozenset({"M", "m"})  # what NumPy calls the kinds of dates and durations


def is_tensor(kind: Any) -> bool:
    """Whether values of a type are like those of torch and TensorFlow."""
    return is_array(kind) and hasattr(kind, "numpy")


def is_array(kind: Any) -> bool:
    """Whether values of a type are like those of NumPy, JAX, SciPy, or the series of pandas and polars."""
    return hasattr(kind, "shape") and hasattr(kind, "dtype") and not hasattr(kind, "columns")


def is_frame(kind: Any) -> bool:
    """Whether values of a type are like those of pandas, polars and PyArrow."""
    return hasattr(kind, "shape") and hasattr(kind, "columns")


def is_image(kind: Any) -> bool:
    """Whether values of a type are like those of Pillow."""
    return hasattr(kind, "getbands") and hasattr(kind, "getpixel")


def is_light(array: Any) -> bool:
    """Whether an array of few items may be read as a whole: its items are in memory and short."""
    return _lists(array) is not None and getattr(array, "nbytes", 0) <= _MAX_BYTES


def items_of_array(array: Any) -> Any:
    """A small array as lists of Python's own values."""
    if (
        hasattr(type(array), "flat") and array.dtype.kind in _TIMES
    ):  # integers or dates, depending on precision
        array = array.astype(str)
    make = _lists(array)
    return array.numpy().tolist() if make is None else make()


def first_items(array: Any, shape: list[int]) -> Any:
    """The first values of the first row, or the value of an array without dimensions."""
    if hasattr(type(array), "flat"):  # the same in every layout
        return None if array.itemsize > _MAX_ITEM else items_of_array(array.flat[: min([FIRST, *shape[-1:]])])
    if hasattr(type(array), "iloc"):
        return items_of_array(array.head(FIRST))
    for _ in shape[1:]:
        array = array[0]
    return items_of_array(array[:FIRST]) if shape else [items_of_array(array)]


def head_of_frame(frame: Any) -> tuple[list[Any], list[str], list[Any]]:
    """Names and types of the first columns, and their first rows."""
    if hasattr(type(frame), "column_names"):  # PyArrow
        head = frame.slice(0, _ROWS).select(frame.column_names[:_COLUMNS])
        rows = [list(row.values()) for row in head.to_pylist()]
        return head.column_names, [str(kind) for kind in head.schema.types], rows
    if hasattr(type(frame), "iloc"):
        head = frame.iloc[:_ROWS, :_COLUMNS]
        rows = head.astype(object).values.tolist()
    else:
        head = frame[:_ROWS, :_COLUMNS]
        rows = head.rows()
    return list(head.columns), [str(dtype) for dtype in head.dtypes], rows


def parts_of_image(image: Any) -> tuple[list[int], list[Any] | None]:
    """Height, width and bands, and the first pixels, unless they are still in a file."""
    width, height = image.size
    bands = len(image.getbands())
    is_read = not getattr(image, "tile", None)
    pixels = [image.getpixel((x, 0)) for x in range(min(FIRST, width))] if is_read and height else None
    return [height, width, *([bands] if bands > 1 else [])], pixels


def _lists(array: Any) -> Callable[[], Any] | None:
    """The method that makes a list of an array; ``None`` if it is sparse, or on a disk or a device."""
    return getattr(array, "tolist", None) or getattr(array, "to_list", None)
