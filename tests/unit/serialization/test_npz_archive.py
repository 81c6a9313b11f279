"""Values with arrays in them, to bytes and back, without a pickle."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import torch

from llutil.errors import ResultError
from llutil.serialization.class_values import node
from llutil.serialization.npz_archive import decode, encode, is_archive, json_in_head

LIMIT = 10**6


def packed(value: object) -> bytes:
    return encode(value, rank=0, limit=LIMIT)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="int16").reshape(2, 3),
        np.array([[1.5, float("nan"), float("inf")]]),
        np.array([1 + 2j]),
        np.array([True, False]),
        np.array(["ä", "bc"]),
        np.array(["2026-11-22"], dtype="datetime64[D]"),
        np.zeros((0, 3)),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(10)[::-2],
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    ],
)
def test_an_array_comes_back_as_it_was(array: np.ndarray) -> None:
    back = decode(packed({"x": [array]}))["x"][0]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("tensor", "dtype", "values"),
    [
        (torch.ones(2), "float32", [1, 1]),
        (torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "float32", [1.5, -2.0]),
        (torch.ones(2, requires_grad=True), "float32", [1, 1]),
        (torch.tensor([1 + 2j]).conj(), "complex64", [1 - 2j]),
        (torch.eye(2).to_sparse(), "float32", [[1, 0], [0, 1]]),
        (torch.arange(4).reshape(2, 2).T, "int64", [[0, 2], [1, 3]]),
    ],
)
def test_a_tensor_comes_back_as_an_array(tensor: torch.Tensor, dtype: str, values: object) -> None:
    back = decode(packed(tensor))
    assert (str(back.dtype), back.tolist()) == (dtype, values)


def test_what_has_no_dimensions_or_no_plain_items_is_json_as_ever() -> None:
    masked = np.ma.array([1, 2], mask=[False, True])
    objects = np.array([None, "a"], dtype=object)
    value = {"n": np.float32(0.5), "t": torch.tensor(3), "m": masked, "o": objects}
    content = packed(value)
    assert not is_archive(content)
    scalar = node("numpy.float32", 1, 0.5)
    assert json.loads(content) == {"n": scalar, "t": 3, "m": [1, None], "o": [None, "a"]}


def test_nothing_in_an_archive_is_a_pickle() -> None:
    with zipfile.ZipFile(io.BytesIO(packed([np.zeros(2), torch.ones(3)]))) as archive:
        assert archive.namelist() == ["value.json", "0.npy", "1.npy"]


def test_a_pickle_that_somebody_put_into_an_archive_is_not_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("value.json", '{"__array__": 0}')
        with archive.open("0.npy", "w") as member:
            np.save(member, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        decode(out.getvalue())


def test_the_text_is_at_the_beginning() -> None:
    content = packed({"a": np.zeros((2, 3), dtype="float32"), "b": "x" * 1000})
    whole = json_in_head(content)
    assert json.loads(whole)["a"] == {"__array__": 0, "dtype": "float32", "shape": [2, 3]}
    assert whole.startswith(json_in_head(content[:400]))
    assert len(json_in_head(content[:400])) > 300


def test_the_bytes_of_arrays_count() -> None:
    with pytest.raises(ResultError, match=r"takes at least 8,0\d\d bytes"):
        encode({"a": np.zeros(1000)}, rank=0, limit=5000)


def test_a_users_own_key_is_not_taken_for_an_array() -> None:
    with pytest.raises(ResultError, match="under the key that stands for arrays"):
        packed({"__array__": 0})


@pytest.mark.parametrize("content", [b"PK\x03\x04 and more", b"", packed([np.zeros(2)])[:-10]])
def test_what_is_no_whole_archive_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not an archive of a value"):
        decode(content)
