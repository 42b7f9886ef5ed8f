"""SQL over tables and files (DuckDB), and the doors to pandas and Polars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from naica.data.table import SCHEMA, CrystalTable
from naica.errors import InputError, MissingPart

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars

_TEXT_COLUMNS = ("id", "formula", "composition", "material_id")
Source: TypeAlias = CrystalTable | pa.Table | str | Path


def query(source: Source | Mapping[str, Source], sql: str) -> CrystalTable | pa.Table:
    """Run SQL over a table or file called `data` in the statement, or over several by name.

    ``query(table, "SELECT * FROM data WHERE e_form < -1 ORDER BY e_form LIMIT 10")``

    Parameters
    ----------
    source : a table, or the path of a Parquet or CSV file (also gzipped), or a mapping from names to such
    sql : one statement in DuckDB's dialect

    Returns
    -------
    A `CrystalTable` if the structure columns are in the result, else an Arrow table. A label survives where its column comes
    unchanged and under its own name from the one source; anything computed has no label, since its unit may have changed.

    Raises
    ------
    InputError
        If the SQL cannot be run or a file is missing; the message is DuckDB's.
    """
    import duckdb

    named: Mapping[str, Source] = source if isinstance(source, Mapping) else {"data": source}
    connection = duckdb.connect()
    try:
        for name, one in named.items():
            _register(connection, name, one)
        answer = connection.sql(sql)
        if answer is None:
            raise InputError(f"this statement answers nothing: {sql[:80]!r}; expected a SELECT")
        result = answer.to_arrow_table()
        unchanged = _unchanged_columns(connection, sql, named)
    except duckdb.Error as error:
        raise InputError(f"this query cannot be run: {error}") from error
    finally:
        connection.close()
    if not set(SCHEMA.names) <= set(result.column_names):
        return result
    table = CrystalTable(_typed(result))
    only = next(iter(named.values())) if len(named) == 1 else None
    for name, label in only.labels.items() if isinstance(only, CrystalTable) else ():
        if name in table.columns and name in unchanged:
            table = table.with_column(name, table.arrow[name], label)
    return table


def _register(connection: duckdb.DuckDBPyConnection, name: str, source: Source) -> None:
    if isinstance(source, CrystalTable):
        connection.register(name, source.arrow)
    elif isinstance(source, pa.Table):
        connection.register(name, source)
    else:
        path = Path(source)
        if not path.is_file():
            raise InputError(f"no such file to query: {path}")
        if path.suffix == ".parquet":
            connection.register(name, connection.read_parquet(str(path)))
        else:
            connection.register(name, _csv(connection, path))


def _csv(connection: duckdb.DuckDBPyConnection, path: Path) -> duckdb.DuckDBPyRelation:
    """A CSV in which only an empty cell is null: the text NaN is sodium nitride as often as a missing number."""
    found = connection.read_csv(str(path), na_values=[""])
    text = {name: "VARCHAR" for name in found.columns if name.lower() in _TEXT_COLUMNS}
    return connection.read_csv(str(path), na_values=[""], dtype=text) if text else found


def _unchanged_columns(connection: duckdb.DuckDBPyConnection, sql: str, named: Mapping[str, Source]) -> set[str]:
    """Columns that a plain SELECT from one table hands through as they are; none for anything more involved."""
    parsed = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0][0])
    statements = parsed.get("statements") or []
    node: dict[str, Any] = statements[0].get("node", {}) if len(statements) == 1 else {}
    start = node.get("from_table", {})
    if node.get("type") != "SELECT_NODE" or start.get("type") != "BASE_TABLE" or start.get("table_name") not in named:
        return set()
    if node.get("group_expressions") or node.get("cte_map", {}).get("map"):
        return set()
    source = named[start["table_name"]]
    kept: set[str] = set()
    computed: set[str] = set()
    for part in node.get("select_list", []):
        alias = part.get("alias", "")
        if part.get("class") == "STAR":
            if not part.get("replace_list") and isinstance(source, CrystalTable):
                kept |= set(source.columns)
        elif part.get("class") == "COLUMN_REF" and alias in ("", part["column_names"][-1]):
            kept.add(part["column_names"][-1])
        else:
            computed.add(alias)
    return kept - computed


def _typed(result: pa.Table) -> pa.Table:
    """Lists as `CrystalTable` keeps them; DuckDB hands back lists with 32-bit offsets."""
    for name in SCHEMA.names:
        wanted = pa.field(name, SCHEMA.types[SCHEMA.names.index(name)])
        result = result.set_column(result.column_names.index(name), wanted, result[name].cast(wanted.type))
    return result


def to_pandas(table: CrystalTable) -> pandas.DataFrame:
    """As a pandas frame on Arrow memory (no copy).

    Raises
    ------
    MissingPart
        If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPart("pandas is not installed: pip install pandas") from error
    return table.arrow.to_pandas(types_mapper=pandas.ArrowDtype)


def to_polars(table: CrystalTable) -> polars.DataFrame:
    """As a Polars frame on Arrow memory (no copy where Polars shares Arrow's layout).

    Raises
    ------
    MissingPart
        If Polars is not installed.
    """
    try:
        import polars
    except ImportError as error:
        raise MissingPart("Polars is not installed: pip install polars") from error
    frame = polars.from_arrow(table.arrow)
    assert isinstance(frame, polars.DataFrame)
    return frame
