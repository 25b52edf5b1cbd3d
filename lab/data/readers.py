"""Reads the rows of a data file (JSON, CSV, Parquet) or of a data set of the Hugging Face hub.

Nothing in a file is ever run, and no model library is loaded.
"""

import gzip
import io
import re
import zlib
from pathlib import Path
from typing import cast

from lab.config.data_files import ENDINGS, PACKED, TABLE
from lab.data.rows import DataRow, NumberedRows, RowsOrErrors, file_extension
from lab.data.text_formats import parse_text
from lab.data.written_out_lists import parse_conversations
from lab.errors import LabError

MAX_UNPACKED_BYTES = 2**30
"""Bytes that a .gz may hold."""
ACCEPTED_SOURCES = (
    "a file of JSON lines (.jsonl), a .json with an array of objects, a .csv or .tsv with a header,"
    " each of them perhaps packed as .gz, a .parquet, or a data set of the hub as owner/name or"
    " owner/name:split (the split train if none is named)"
)
HUB_ID = re.compile(r"(\w[\w.-]*/[\w.-]+?)(?::([\w.-]+))?")
"""owner/name or owner/name:split."""


def load_rows(source: str | Path) -> list[DataRow]:
    """Returns the rows of a data source in their order, each a dict from column to value.

    A CSV's values are all text, but a list of messages that is written out as text, in JSON or as
    Python prints it, is read as that list. A hub id needs the network, unless its data is in the
    local cache.

    Raises:
        LabError: says which line cannot be read, or what is missing.
    """
    return [row for _, row in read_numbered_rows(source)]


def read_numbered_rows(source: str | Path) -> NumberedRows:
    """Returns the rows of a data source with their numbers; raises `LabError` for the first row
    that cannot be read.
    """
    return _raise_first_error(read_rows_lenient(source))


def parse_file(data: bytes, name: str, limit: int = MAX_UNPACKED_BYTES) -> NumberedRows:
    """Returns the numbered rows in the bytes of a file.

    Args:
        data: the bytes.
        name: its extension says how to read the bytes, and errors call the file so.
        limit: the bytes that a .gz may hold.
    """
    return _raise_first_error(parse_file_lenient(data, name, limit))


def parse_file_lenient(data: bytes, name: str, limit: int = MAX_UNPACKED_BYTES) -> RowsOrErrors:
    """Returns rows as `parse_file` does, but a row that cannot be read comes as its error."""
    return parse_conversations(_parse(unpacked(data, name, limit), name), name)


def unpacked(data: bytes, name: str, limit: int = MAX_UNPACKED_BYTES) -> bytes:
    """Returns the bytes of a file, of a .gz those that it holds; raises `LabError` when they are
    more than `limit`.
    """
    if not file_extension(name).endswith(PACKED):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(
            f"{name} is not gzip that can be read ({error}). Pack it again, or give the file"
            " unpacked."
        ) from None
    if len(text) > limit:
        raise LabError(
            f"{name} holds more than {limit // 2**20} MiB. Unpack it, or give a part of it."
        )
    return text


def read_rows_lenient(source: str | Path) -> RowsOrErrors:
    """Returns rows as `read_numbered_rows` does, but a row that cannot be read comes as its error
    and does not end the reading.
    """
    hub_id = require_source(source)
    if hub_id:
        rows = _from_hub(hub_id[1], hub_id[2])
    else:
        rows = _parse(unpacked(Path(source).read_bytes(), str(source)), str(source))
    return parse_conversations(rows, source)


def require_source(source: str | Path) -> re.Match[str] | None:
    """Returns None for a file that exists and the match of `HUB_ID` for a hub id; raises `LabError`
    for any other source.
    """
    if Path(source).is_file():
        return None
    hub_id = HUB_ID.fullmatch(str(source))
    if not hub_id or Path(source).is_dir() or file_extension(hub_id[1]) in ENDINGS:
        raise LabError(f"No data file at {source}. Give {ACCEPTED_SOURCES}.")
    return hub_id


def _raise_first_error(rows: RowsOrErrors) -> NumberedRows:
    for _, row in rows:
        if isinstance(row, LabError):
            raise row
    return cast(NumberedRows, rows)


def _parse(data: bytes, name: str) -> RowsOrErrors:
    extension = file_extension(name)
    if extension not in ENDINGS:
        raise LabError(
            f"{name} ends in '{extension}', which is no known format. Give {ACCEPTED_SOURCES}."
        )
    if extension == TABLE:
        rows = _parquet_rows(data, name)
    else:
        rows = parse_text(data, extension.removesuffix(PACKED), name)
    if not rows:
        raise LabError(f"{name} is empty: it has no rows.")
    return rows


def _parquet_rows(data: bytes, name: str) -> RowsOrErrors:
    from pyarrow import ArrowException, BufferReader
    from pyarrow.parquet import read_table

    try:
        return list(enumerate(read_table(BufferReader(data)).to_pylist(), 1))
    except (ArrowException, OSError) as error:
        raise LabError(
            f"{name} is not a Parquet file that can be read ({str(error).splitlines()[0]})."
        ) from None


def _from_hub(name: str, split: str | None) -> RowsOrErrors:
    try:
        from datasets import load_dataset

        return list(enumerate(load_dataset(name, split=split or "train"), 1))
    except ConnectionError as error:
        raise LabError(
            f"The hub cannot be reached for '{name}', and it is not in the local cache ({error})."
            f" Go online, or give a file: {ACCEPTED_SOURCES}."
        ) from None
    # The hub's reader raises many kinds: no such data set, no such split, a gated data set.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LabError(
            f"Could not load '{name}' from the hub ({reason}). Give {ACCEPTED_SOURCES}."
        ) from error
