"""Rows of a Parquet file, one row group at a time. Needs the extra `parquet`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ernie_async.errors import ConfigError

try:
    import pyarrow
    from pyarrow import parquet
except ImportError as _error:
    raise ImportError(
        "Parquet needs pyarrow: pip install 'ernie-async[parquet]'", name="pyarrow"
    ) from _error

__all__ = ["count_rows", "read_rows"]

# Rows of a row group that are made into Python objects at once.
ROWS = 256


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows in order; a cell that is null is left out.

    Raises:
        OSError: The file cannot be read.
        ConfigError: It is no Parquet file.
    """
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                for row in batch.to_pylist():
                    yield {name: cell for name, cell in row.items() if cell is not None}
    except pyarrow.ArrowInvalid as error:
        raise ConfigError(f"{path}: not a Parquet file: {error}") from error


def count_rows(path: Path) -> int:
    """How many rows there are, as the file itself tells.

    Raises:
        OSError: The file cannot be read.
        ConfigError: It is no Parquet file.
    """
    try:
        with parquet.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except pyarrow.ArrowInvalid as error:
        raise ConfigError(f"{path}: not a Parquet file: {error}") from error
