"""Exports of a ledger, read for notebooks: the rows as a table, the manifest that names them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest, Problem
from bandit.tables.decision_log import KEY
from experiments.data import part_files
from experiments.data.part_files import PartManifest
from journey_bandit.analysis import arrow_tables, result_html
from journey_bandit.analysis.arrow_tables import ArrowResult

_SHOWN = 5  # rows


@dataclass(frozen=True, repr=False)
class LedgerExport(ArrowResult):
    """Export of a stage's decisions, whose every byte was compared with its manifest. It is a table of the columns that
    the guide `exports` lists, one row a decision, and it is read when it is asked for: `to_arrow`, `to_frame`,
    `polars.DataFrame(export)`, `duckdb.table("export")`. `evaluate_log` takes it as it is.
    """

    folder: Path
    manifest: PartManifest
    schema: Any  # of pyarrow

    def __len__(self) -> int:
        """Number of decisions."""
        return self.manifest.rows

    def to_arrow(self, columns: Sequence[str] | None = None) -> Any:
        """The rows as a `pyarrow.Table`; `columns`: only these. Raises InvalidRequest for a column that is not
        there.
        """
        return pa.Table.from_batches(self._batches(columns), self._schema(columns))

    def to_frame(self, columns: Sequence[str] | None = None) -> Any:
        """The rows as a `pandas.DataFrame`; `columns`: only these. Raises InvalidRequest for a column that is not
        there; ImportError, which names the extra, if pandas is not installed.
        """
        arrow_tables.need("pandas")
        return self.to_arrow(columns).to_pandas()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Arrow PyCapsule interface: rows are read as they are asked for, and never all are held."""
        reader = pa.RecordBatchReader.from_batches(self.schema, self._batches(None))
        return reader.__arrow_c_stream__(requested_schema)

    def _schema(self, columns: Sequence[str] | None) -> Any:
        for name in columns or ():
            if name not in self.schema.names:
                problem = f"the export has no column {name!r}"
                raise InvalidRequest(Problem("columns", problem, closest(name, self.schema.names)))
        return self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])

    def _batches(self, columns: Sequence[str] | None) -> Iterator[Any]:
        schema = self._schema(columns)
        for part in self.manifest.parts:
            with parquet.ParquetFile(self.folder / part.file) as opened:
                for batch in opened.iter_batches(columns=schema.names):
                    yield from pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()

    def __repr__(self) -> str:
        told = self.manifest
        return f"LedgerExport({told.app}/{told.stage}: {told.rows:,} decisions, manifest {told.digest[:12]}…)"

    def _repr_html_(self) -> str:
        told = self.manifest
        first = next(iter(self._batches(None)), None)
        rows = [] if first is None else first.slice(0, _SHOWN).to_pylist()
        names = [name for name in self.schema.names if not name.split("_")[-1].isdigit()]  # named ones, for people
        cells = [["" if row[name] is None else _short(row[name]) for name in names] for row in rows]
        head = f"{told.app}/{told.stage}: {told.rows:,} decisions, {len(self.schema.names)} columns"
        return result_html.page(
            [
                result_html.heading(head),
                result_html.sentence(told.digest, "manifest"),
                result_html.table(names, cells, f"The first {len(rows)}, columns with names"),
            ]
        )


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)


def read_export(folder: str | Path) -> LedgerExport:
    """Export in a folder that `journey-bandit export` wrote, after every byte was compared with its manifest.

    Raises InvalidRequest for a folder without a manifest, and for a part that is missing, cut short, of other bytes
    than the manifest says, or not named in it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InvalidRequest(Problem("folder", f"{path} is not a folder", "give the folder that `export` wrote"))
    manifest = part_files.named(path)
    if manifest is None:
        fix = "give a folder that `journey-bandit export` wrote, or read its files with pandas or polars"
        raise InvalidRequest(Problem("folder", f"{path} is not an export: it has no manifest", fix))
    schema = part_files.part_table(path).schema
    told = {key: text for key, text in (schema.metadata or {}).items() if key == KEY}  # units, but no mark of a part
    return LedgerExport(path, manifest, schema.with_metadata(told or None))
