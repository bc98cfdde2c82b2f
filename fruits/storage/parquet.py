"""Conversions between Parquet files, Arrow columns, and NumPy arrays.

pyarrow's own conversions, also of arguments of ``pyarrow.compute``, import pandas where it is installed: 0.5 s and
50 MB in every process. These use Arrow's buffers, which NumPy shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq


def text_scalar(value: bytes | None, kind: pa.DataType) -> pa.Scalar:
    """Return a text, bytes or null as an argument of a function of ``pyarrow.compute``."""
    return text_array([value], kind)[0]


def number_scalar(value: int) -> pa.Scalar:
    """Return an int64 as an argument of a function of ``pyarrow.compute``."""
    return number_array(np.array([value], np.int64))[0]


def text_array(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    """Return UTF-8 texts or bytes as an array of type `kind`, ``string`` or ``binary``; None becomes null."""
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value or b"") for value in values], out=offsets[1:])
    present = np.array([value is not None for value in values], bool)
    validity = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    data = b"".join(value or b"" for value in values)
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(offsets), pa.py_buffer(data)])


def text_lists(values: Sequence[Sequence[bytes | None]], kind: pa.DataType) -> pa.Array:
    """Return lists of texts or bytes as an array of a list type, ``list<string>`` or ``list<binary>``."""
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    items = text_array([item for value in values for item in value], kind.value_type)
    return pa.ListArray.from_arrays(number_array(offsets), items, type=kind)


def numbers(array: pa.Array) -> npt.NDArray[np.int64]:
    """Return an array of int64 without nulls as an array of NumPy."""
    return np.frombuffer(array.buffers()[1] or b"", np.int64)[array.offset : array.offset + len(array)]


def number_array(values: npt.NDArray[np.generic]) -> pa.Array:
    """Return numbers, shape (n,), as an array of the same type."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def vector_array(values: npt.NDArray[np.float32]) -> pa.Array:
    """Return vectors, shape (n, d), as an array of fixed-size lists of float32."""
    # Parquet's name for list items, so that a table equals the one read back.
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), values.shape[1])
    return pa.FixedSizeListArray.from_arrays(number_array(values.reshape(-1)), type=kind)


def vectors(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Return a column of fixed-size lists of float32 as an array of shape (n, d)."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    items = array.flatten()
    numbers = np.frombuffer(items.buffers()[1] or b"", np.float32, len(items), items.offset * 4)
    return numbers.reshape(-1, column.type.list_size)


def write_table(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file; equal tables give equal bytes.

    Dictionaries and statistics are limited to columns of text, because those of floats only cost space.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=["label"],
        write_statistics=["path", "label"],
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in the bytes of a Parquet file, or some of its columns."""
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(columns, use_threads=False)
