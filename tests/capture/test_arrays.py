"""Arrays, tensors, data frames and images: one form each, whatever their layout, type and size."""

from __future__ import annotations

import datetime as dt
import io
import subprocess
import sys
from typing import Annotated, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SecretStr, field_serializer

from wherefrom._capture import text
from wherefrom._capture.values import snapshot, to_json

from .test_walk import kept_of

CUBE = np.arange(24).reshape(2, 3, 4)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is slow to print what libraries hold."""
    monkeypatch.setattr(text, "FOREIGN_SECONDS", 10)


@pytest.mark.parametrize(
    "array",
    [
        CUBE,
        CUBE.T,
        np.asfortranarray(CUBE),
        CUBE[::-1, ::2, 1:],
        np.broadcast_to(np.arange(3), (2, 3)),
        CUBE.astype(">i4"),
        CUBE.astype(np.float16),
        CUBE > 5,
        np.lib.stride_tricks.sliding_window_view(np.arange(6), 3),
        np.frombuffer(b"abcdef", np.uint8),
        np.ma.masked_array([1, 2, 3], [False, True, False]),
        np.array([]),
        np.zeros((0, 3)),
        np.array(7),
    ],
)  # fmt: skip
def test_a_small_array_is_a_list(array: Any) -> None:
    """Of any layout and type, read-only or masked."""
    assert snapshot(array) == array.tolist()
    assert snapshot({"a": [array]}) == {"a": [array.tolist()]}


LARGE = np.arange(6_000_000, dtype=np.float32).reshape(2000, 3000)


@pytest.mark.parametrize(
    ("array", "first"),
    [
        (LARGE, [0, 1, 2, 3, 4, 5, 6, 7]),
        (np.asfortranarray(LARGE), [0, 1, 2, 3, 4, 5, 6, 7]),
        (LARGE.T, [0, 3000, 6000, 9000, 12000, 15000, 18000, 21000]),
        (LARGE[::-1, ::1000], [5_997_000, 5_998_000, 5_999_000]),
        (np.broadcast_to(np.float32(1), (10**6, 10**6)), [1] * 8),
    ],
)  # fmt: skip
def test_a_large_one_is_its_form(array: Any, first: list[float]) -> None:
    """Type, shape, type of its values, and the first of these, the same in every layout; it is not copied."""
    expected = {"type": "numpy.ndarray", "shape": list(array.shape), "dtype": "float32", "first": first}
    assert kept_of(array) == expected


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
def test_dates_are_text_in_every_precision(unit: str) -> None:
    """As integers, which NumPy makes of nanoseconds, they say nothing."""
    when = np.array(["2020-01-02T03:04:05", "NaT"], f"datetime64[{unit}]")
    first, missing = snapshot(when)
    assert first.startswith("2020-01-02")
    assert missing == "NaT"
    assert snapshot(when[0]) == first
    assert snapshot([np.timedelta64(5, "ns"), np.datetime64("2020")]) == ["5 nanoseconds", "2020"]


def test_values_of_other_types() -> None:
    """Structures, text, objects, complex numbers; long texts are not read to be cut."""
    assert snapshot(np.array([(1, "a")], [("n", int), ("s", "U3")])) == [[1, "a"]]
    assert snapshot(np.array(["a", "password=hunter2"])) == ["a", "password=[redacted]"]
    assert snapshot(np.array([{"password": "x"}, None])) == [{"password": "[redacted]"}, None]
    assert snapshot(np.array([1 + 2j])) == ["(1+2j)"]
    assert kept_of(np.zeros(1000, "U100000")) == {
        "type": "numpy.ndarray", "shape": [1000], "dtype": "<U100000",
    }  # fmt: skip


# --- Frames -------------------------------------------------------------------------------------------------

COLUMNS = {
    "name": ["ada", None, "token=sk-1234567890abcdef1234"],
    "n": [1, 2, 3],
    "at": [dt.datetime(2020, 1, day) for day in (1, 2, 3)],
}
PANDAS = pd.DataFrame(COLUMNS).astype({"name": object, "at": "datetime64[us]"})
POLARS_TIME = "Datetime(time_unit='us', time_zone=None)"
ROWS = [
    ["ada", 1, "2020-01-01 00:00:00"],
    [None, 2, "2020-01-02 00:00:00"],
    ["token=[redacted]", 3, "2020-01-03 00:00:00"],
]


@pytest.mark.parametrize(
    ("frame", "name", "dtypes"),
    [
        (PANDAS, "pandas", ["object", "int64", "datetime64[us]"]),
        (pl.DataFrame(COLUMNS), "polars.dataframe.frame", ["String", "Int64", POLARS_TIME]),
        (pa.table(COLUMNS), "pyarrow.lib", ["string", "int64", "timestamp[us]"]),
    ],
)  # fmt: skip
def test_a_frame_is_its_form(frame: Any, name: str, dtypes: list[str]) -> None:
    """Shape, columns with their types, and the first rows, without secrets; in a model and a dict too."""
    form = snapshot(frame)
    assert form.pop("type").startswith(name)
    assert form == {"shape": [3, 3], "columns": ["name", "n", "at"], "dtype": dtypes, "first": ROWS}
    assert snapshot({"a": [frame]})["a"][0]["first"] == ROWS


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.Table.from_pydict])
def test_of_a_large_frame_the_first_rows_and_columns_are_kept(make: Any) -> None:
    """Five rows of 20 columns."""
    form = kept_of(make({f"c{number}": np.arange(100_000) for number in range(30)}))
    assert form["shape"] == [100_000, 30]
    assert form["columns"] == [f"c{number}" for number in range(20)]
    assert form["first"] == [[row] * 20 for row in range(5)]
    assert form["dtype"] == ["int64"] * 20 or form["dtype"] == ["Int64"] * 20
    assert kept_of(make({}))["shape"] == [0, 0]


def test_frames_with_unusual_labels_and_types() -> None:
    """Of pandas: several levels, numbers as names, categories, intervals."""
    levels = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    assert snapshot(levels)["columns"] == [["a", 1], ["b", 2]]
    assert snapshot(pd.DataFrame([[1.5, float("nan")]]))["first"] == [[1.5, None]]
    assert snapshot(pd.DataFrame({"a": pd.Categorical(["x"])}))["first"] == [["x"]]
    taken = pd.DataFrame({"column_names": [1], "flat": [2], "iloc": [3], "shape": [4]})
    assert snapshot(taken)["first"] == [[1, 2, 3, 4]]
    labelled = pd.Series(np.arange(2000), index=["flat", "itemsize", *range(1998)])
    assert snapshot(labelled)["first"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert snapshot(pl.DataFrame({"a": [[1, 2]], "b": [{"c": 1}]}))["first"] == [[[1, 2], {"c": 1}]]


@pytest.mark.parametrize("make", [pd.Series, pd.Index, pd.array, pl.Series])
def test_a_series_is_kept_as_an_array_is(make: Any) -> None:
    """A list when small, its form when large; dates as text."""
    assert snapshot(make([1, 2, 3])) == [1, 2, 3]
    large = kept_of(make(np.arange(100_000)))
    assert (large["shape"], large["first"]) == ([100_000], [0, 1, 2, 3, 4, 5, 6, 7])
    assert large["dtype"].lower() == "int64"
    assert snapshot(make([dt.datetime(2020, 1, 1)]))[0].startswith("2020-01-01")


# --- Images and tensors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "colour", "shape", "pixel"),
    [
        ("RGB", (1, 2, 3), [40, 60, 3], [1, 2, 3]),
        ("RGBA", (1, 2, 3, 4), [40, 60, 4], [1, 2, 3, 4]),
        ("L", 7, [40, 60], 7),
        ("1", 255, [40, 60], 255),
        ("F", 0.5, [40, 60], 0.5),
    ],
)
def test_an_image_is_its_form(mode: str, colour: Any, shape: list[int], pixel: Any) -> None:
    """Height, width and bands as in an array of it, its mode, and the first pixels."""
    image = Image.new(mode, (60, 40), colour)
    expected = {"type": "PIL.Image.Image", "shape": shape, "dtype": mode, "first": [pixel] * 8}
    assert snapshot(image) == expected
    assert snapshot({"images": [image]}) == {"images": [expected]}
    assert list(np.asarray(image).shape) == shape


def test_an_image_file_is_not_read() -> None:
    """It may be large, or gone; when the app has read it, its pixels are known."""
    file = io.BytesIO()
    Image.new("RGB", (3000, 3000), (9, 9, 9)).save(file, "PNG")
    opened = Image.open(file)
    form = kept_of(opened)
    assert form == {"type": "PIL.PngImagePlugin.PngImageFile", "shape": [3000, 3000, 3], "dtype": "RGB"}
    opened.load()
    assert snapshot(opened)["first"] == [[9, 9, 9]] * 8
    assert snapshot(Image.new("L", (0, 0)))["shape"] == [0, 0]


class Tensor:
    """The public attributes of ``torch.Tensor`` that are used, on an array: torch itself is too large."""

    def __init__(self, values: Any, *, fails: bool = False) -> None:
        self._values = np.asarray(values)
        self._fails = fails

    shape = property(lambda self: tuple(self._values.shape))
    dtype = property(lambda self: f"torch.{self._values.dtype}")
    requires_grad = False

    def __getitem__(self, key: Any) -> Tensor:
        if self._fails:
            raise NotImplementedError("Cannot access data of a meta tensor")
        return Tensor(self._values[key])

    def tolist(self) -> Any:
        assert self._values.size <= 8, "never more than is shown"
        return self._values.tolist()

    def numpy(self) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("values", "first"), [(CUBE, [0, 1, 2, 3]), (LARGE, [0, 1, 2, 3, 4, 5, 6, 7]), (1.5, [1.5])]
)
def test_a_tensor_is_its_form(values: Any, first: list[float]) -> None:
    """In every size: its values may be on another device."""
    form = snapshot(Tensor(values))
    dtype = f"torch.{np.asarray(values).dtype}"
    assert form == {
        "type": f"{__name__}.Tensor", "shape": list(np.shape(values)), "dtype": dtype, "first": first,
    }  # fmt: skip
    assert "first" not in snapshot(Tensor(CUBE, fails=True))


def test_no_library_is_imported() -> None:
    """To know their types."""
    program = (
        "import sys; from wherefrom._capture.values import snapshot; snapshot([object(), {1: 2.5}, 'x'])\n"
        "print({'numpy', 'pandas', 'polars', 'PIL', 'torch', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- In a model ---------------------------------------------------------------------------------------------

Rounded = Annotated[float, PlainSerializer(lambda value: round(value, 1))]


class Inner(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    scores: Any
    note: str = "n"


class Outer(Inner):
    key: SecretStr = SecretStr("s")
    hidden: str = Field(default="h", exclude=True)
    near: Rounded = 1.23
    when: dt.date = dt.date(2020, 1, 1)
    inner: list[Inner] = []


REST = {"note": "n", "key": "**********", "near": 1.2, "when": "2020-01-01", "inner": []}


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3),
        np.asfortranarray(CUBE),
        np.float32(0.5),
        np.zeros(50_000),
        pd.DataFrame({"a": [1]}),
        pl.Series([1, 2]),
        Image.new("L", (2, 2)),
        Tensor([1, 2]),
        {"deep": [np.arange(3)]},
        [np.zeros(50_000), object],
    ],
)
def test_an_array_in_a_model_costs_only_itself(value: Any) -> None:
    """The other fields are as the model dumps them, and the array as it is outside of one."""
    expected = snapshot(value)
    assert snapshot(Outer(scores=value)) == {"scores": expected, **REST}
    nested = snapshot(Outer(scores=1, inner=[Inner(scores=value)]))
    assert nested == {"scores": 1, **REST, "inner": [{"scores": expected, "note": "n"}]}


def test_a_field_that_fails_costs_only_itself() -> None:
    """A serializer of the app's own that raises, or cannot read an array."""

    class Failing(Inner):
        limit: Annotated[int, PlainSerializer(lambda value: 1 // 0)] = 3

    class Whole(Inner):
        @field_serializer("scores")
        def write(self, value: Any) -> Any:
            return float(value)

    form = snapshot(Failing(scores=np.arange(3)))
    assert (form["scores"], form["note"]) == ([0, 1, 2], "n")
    assert "limit" in form
    assert snapshot([Whole(scores=np.arange(3)), 1])[1] == 1


def test_json_of_all() -> None:
    """What is kept can be written."""
    for value in (CUBE, LARGE, pd.DataFrame(COLUMNS), pl.DataFrame(COLUMNS), Image.new("CMYK", (1, 1))):
        assert to_json(snapshot(value))


def test_frames_count_as_what_they_take() -> None:
    """Reading one takes pandas as long as 400 small values: of many only the first are read."""
    kept = snapshot([pd.DataFrame({"a": [1, 2]}) for _ in range(100)])
    assert 5 < sum(isinstance(item, dict) for item in kept) < 15
    assert kept[-1].startswith("... ")
