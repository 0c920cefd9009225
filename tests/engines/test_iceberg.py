"""
Iceberg tables: the files of the current snapshot are tagged, and no others. Needs the extra ``iceberg``.

pyiceberg writes the tables and says which rows they have. What it has no function for, such as deletes in files of
their own, is written with its classes.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from tests.engines.helpers import pairs, tag
from tests.support.commands import Run
from tests.support.failures import fails
from tests.support.runs import interrupt, texts
from tests.support.s3_server import S3, serving

CITIES = ["São Paulo", "a b", "x%20y", "a/b", "c=d", None, "..", "null"]


def rows(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int32()),
            "text": texts(first + count)[first:],
            "city": [CITIES[i % len(CITIES)] for i in numbers],
            "day": [date(2024, 1, 1 + i % 9) for i in numbers],
        }
    )


class Lake:
    """A catalog in a file of SQLite, with one table."""

    def __init__(self, folder: Path, name: str = "users") -> None:
        from pyiceberg.catalog.sql import SqlCatalog

        self.path = folder / "lake" / name
        self.catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/{name}.db", warehouse=f"file://{folder}/lake")
        self.catalog.create_namespace("lake")

    def create(self, **properties: str) -> Any:
        """Make the table and return it as pyiceberg has it."""
        return self.catalog.create_table(
            "lake.users", schema=rows(0, 1).schema, location=f"file://{self.path}", properties=properties
        )

    @property
    def table(self) -> Any:
        """The table as pyiceberg has it now."""
        return self.catalog.load_table("lake.users")

    def expected(self) -> pa.Table:
        """Return the rows of the table, read without the catalog."""
        from pyiceberg.table import StaticTable

        found: pa.Table = StaticTable.from_metadata(self.table.metadata_location).scan().to_arrow()
        return found

    def files(self) -> list[str]:
        """Return the files of the table, below its folder."""
        return sorted(task.file.file_path.partition("users/")[2] for task in self.table.scan().plan_files())


def commit(table: Any, *files: Any, deletes: bool = False) -> None:
    """Commit a snapshot that has more files, as Iceberg's specification describes it."""
    from pyiceberg.manifest import ManifestContent, ManifestEntry, ManifestWriterV2, write_manifest_list
    from pyiceberg.table.refs import SnapshotRefType
    from pyiceberg.table.snapshots import Operation, Snapshot, Summary
    from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate

    class Writer(ManifestWriterV2):  # type: ignore[misc]  # pyiceberg writes manifests of data files alone
        def content(self) -> ManifestContent:
            return ManifestContent.DELETES if deletes else ManifestContent.DATA

        @property
        def _meta(self) -> dict[str, str]:
            return {**super()._meta, "content": "deletes" if deletes else "data"}

    number, before = table.metadata.new_snapshot_id(), table.current_snapshot()
    folder, numbers = f"{table.location()}/metadata/{number}", table.metadata.next_sequence_number()
    with Writer(table.spec(), table.schema(), table.io.new_output(f"{folder}-m.avro"), number, "null") as writer:
        for file in files:
            writer.add(ManifestEntry.from_args(status=1, snapshot_id=number, data_file=file))
    listed = table.io.new_output(f"{folder}.avro")
    with write_manifest_list(2, listed, number, before.snapshot_id, numbers, "null") as manifests:
        manifests.add_manifests([*before.manifests(table.io), writer.to_manifest_file()])

    snapshot = Snapshot(
        **{"snapshot-id": number, "parent-snapshot-id": before.snapshot_id, "sequence-number": numbers},
        **{"manifest-list": listed.location, "summary": Summary(Operation.OVERWRITE)},
    )
    reference = SetSnapshotRefUpdate(
        **{"ref-name": "main", "type": SnapshotRefType.BRANCH, "snapshot-id": number},
        **{"max-ref-age-ms": None, "max-snapshot-age-ms": None, "min-snapshots-to-keep": None},
    )
    table.catalog.commit_table(table, (), (AddSnapshotUpdate(snapshot=snapshot), reference))


def data_file(
    path: str, *, content: int = 0, file_format: str = "PARQUET", partition: Any = (), spec: int = 0, **more: Any
) -> Any:
    """Return a file as manifests describe it."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    return DataFile.from_args(
        content=DataFileContent(content),
        file_path=path,
        file_format=FileFormat(file_format),
        partition=Record(*partition),
        record_count=1,
        file_size_in_bytes=1,
        spec_id=spec,
        **more,
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.fixture
def users(lake: Lake) -> Lake:
    """
    Make a table from which rows and files were removed, and whose columns and partitions changed.

    In its folder are files that no longer belong to it, and one that never did.
    """
    from pyiceberg.types import BooleanType, LongType

    made = lake.create()
    with made.update_spec() as spec:
        spec.add_identity("city")
    made.append(rows(0, 24))
    made.append(rows(24, 24))
    made.delete("id < 5")
    made.delete("city = 'a b'")
    with made.update_schema() as schema:
        schema.add_column("seen", BooleanType())
        schema.update_column("id", LongType())
    with made.update_spec() as spec:
        spec.add_field("day", "month", "month")
        spec.remove_field("city")
    made.append(rows(48, 12).append_column("seen", pa.array([True] * 12)))
    made.overwrite(rows(60, 4), overwrite_filter="id = 59")
    pq.write_table(rows(100, 3), lake.path / "data" / "orphan.parquet")
    return lake


def by_id(found: pa.Table) -> list[dict[str, Any]]:
    return sorted(found.select(["id", "text", "city", "day", "seen"]).to_pylist(), key=lambda row: row["id"])


def written(folder: Path) -> pa.Table:
    """Return the rows of all outputs, each read alone, as the columns of the table."""
    found = [pq.ParquetFile(path).read() for path in sorted(folder.rglob("*.parquet"))]
    return pa.concat_tables(found, promote_options="permissive")


@pytest.mark.parametrize("where", ["", "..", "../*"])
def test_the_rows_of_the_table_are_tagged(users: Lake, tmp_path: Path, where: str) -> None:
    wanted = by_id(users.expected())
    assert 0 < len(wanted) < 64
    report = tag(f"{users.path}/{where}".rstrip("/"), tmp_path / "out")
    assert report.rows == len(wanted)
    assert by_id(written(tmp_path / "out")) == wanted
    assert Counter(row["text"] for row in wanted) == Counter(written(tmp_path / "out")["text"].to_pylist())


def test_outputs_are_read_as_they_are(users: Lake, tmp_path: Path) -> None:
    """Programs that take the names of folders for columns do so by default, and the files have these columns."""
    tag(users.path, tmp_path / "out")
    import duckdb

    found = duckdb.read_parquet(f"{tmp_path}/out/**/*.parquet", union_by_name=True).select("id", "city").fetchall()
    assert sorted(found) == [(row["id"], row["city"]) for row in by_id(users.expected())]


def test_order_of_files_is_fixed(users: Lake) -> None:
    assert pairs(users.path) == users.files()


def test_moved_table(users: Lake, tmp_path: Path) -> None:
    """Its metadata names the files where they were."""
    wanted, found = by_id(users.expected()), pairs(users.path)
    shutil.move(users.path, tmp_path / "else where")
    assert pairs(tmp_path / "else where") == found
    report = tag(tmp_path / "else where", tmp_path / "out")
    assert report.rows == len(wanted)
    assert by_id(written(tmp_path / "out")) == wanted


@pytest.mark.parametrize("name", ["#1?", "100% a"])
def test_folder_with_an_unusual_name(users: Lake, name: str) -> None:
    wanted = pairs(users.path)
    shutil.move(users.path, users.path.with_name(name))
    assert pairs(users.path.with_name(name)) == wanted


def test_older_version_by_its_metadata(users: Lake, tmp_path: Path) -> None:
    older = metadata(users, 3)
    from pyiceberg.table import StaticTable

    wanted = StaticTable.from_metadata(str(older)).scan().to_arrow()
    report = tag(older, tmp_path / "out")
    assert report.rows == wanted.num_rows != users.expected().num_rows
    assert Counter(written(tmp_path / "out")["id"].to_pylist()) == Counter(wanted["id"].to_pylist())
    assert pairs(users.table.metadata_location) == pairs(users.path)


def test_dry_run(users: Lake, nerd_tag: Run, tmp_path: Path) -> None:
    code, _, said = nerd_tag(users.path, tmp_path / "out", "--dry-run", "--json")
    assert code == 0
    assert not (tmp_path / "out").exists()
    assert json.loads(said.splitlines()[-1])["files"] == len(pairs(users.path))


def test_limit(users: Lake, tmp_path: Path) -> None:
    report = tag(users.path, tmp_path / "out", limit=1)
    assert report.rows == len(pairs(users.path)) < users.expected().num_rows


def test_a_changed_table_is_not_resumed(users: Lake, tmp_path: Path) -> None:
    """The outputs of files that the table no longer has would stay."""
    output = tmp_path / "out"
    interrupt(Tagger.load(threads=1), TagJob([str(users.path)], str(output)), batches=1)
    users.table.append(rows(70, 2).append_column("seen", pa.array([True, False])))
    with fails(OutputError, "run-changed"):
        tag(users.path, output, resume=True)


def test_an_unchanged_table_is_resumed(users: Lake, tmp_path: Path) -> None:
    output = tmp_path / "out"
    interrupt(Tagger.load(threads=1), TagJob([str(users.path)], str(output)), batches=1)
    with users.table.transaction() as change:
        change.set_properties(owner="somebody else")  # new metadata for the same snapshot
    tag(users.path, output, resume=True)
    assert by_id(written(output)) == by_id(users.expected())


def test_table_without_rows(lake: Lake) -> None:
    lake.create()
    with fails(InputError, "no-files", file=lake.path):
        pairs(lake.path)


def test_part_of_a_table_is_refused(users: Lake) -> None:
    for path in (users.path / "data", f"{users.path}/*", f"{users.path}/*/*/*.parquet"):
        with fails(InputError, "inside-table", table=users.path):
            pairs(path)


def hint(lake: Lake, content: str) -> None:
    (lake.path / "metadata" / "version-hint.text").write_text(content)


def metadata(lake: Lake, number: int) -> Path:
    (found,) = (lake.path / "metadata").glob(f"{number:05}-*.metadata.json")
    return found


def as_in_a_file_system(lake: Lake) -> None:
    """Name the metadata as catalogs in file systems do."""
    for path in sorted((lake.path / "metadata").glob("*-*.metadata.json")):
        content = path.read_text()
        for other in (lake.path / "metadata").glob("*-*.metadata.json"):
            content = content.replace(other.name, f"v{int(other.name[:5]) + 1}.metadata.json")
        path.with_name(f"v{int(path.name[:5]) + 1}.metadata.json").write_text(content)
    for path in (lake.path / "metadata").glob("*-*.metadata.json"):
        path.unlink()


@pytest.mark.parametrize("content", ["3\n", "4", None])
def test_version_hint(lake: Lake, content: str | None) -> None:
    """A hint that is one version behind is usual; without one, the numbers tell."""
    made = lake.create()
    for first in (0, 3, 6):
        made.append(rows(first, 3))
    wanted = pairs(lake.path)
    as_in_a_file_system(lake)
    if content is not None:
        hint(lake, content)
    assert pairs(lake.path) == wanted


def failed_commit(lake: Lake) -> None:
    shutil.copy(metadata(lake, 2), lake.path / "metadata" / "00002-other.metadata.json")


def table_made_anew(lake: Lake) -> None:
    """A table that was dropped without its files, and another one in its folder."""
    lake.catalog.drop_table("lake.users")
    lake.create().append(rows(0, 2))


def wrong_hint(lake: Lake) -> None:
    hint(lake, "17")


def hint_at_an_older_version(lake: Lake) -> None:
    hint(lake, metadata(lake, 1).name)


def two_ways_to_number(lake: Lake) -> None:
    shutil.copy(metadata(lake, 0), lake.path / "metadata" / "v5.metadata.json")


@pytest.mark.parametrize(
    "contradict", [failed_commit, table_made_anew, wrong_hint, hint_at_an_older_version, two_ways_to_number]
)
def test_versions_that_contradict(lake: Lake, contradict: Callable[[Lake], None]) -> None:
    made = lake.create()
    made.append(rows(0, 3))
    made.append(rows(3, 3))
    wanted = pairs(lake.path)
    assert wanted
    contradict(lake)
    with fails(InputError, "several-versions", file=lake.path):
        pairs(lake.path)
    assert pairs(made.metadata_location) == wanted


def test_a_failed_commit_of_an_older_version_is_none_of_the_table(lake: Lake) -> None:
    made = lake.create()
    made.append(rows(0, 3))
    made.append(rows(3, 3))
    failed_commit(lake)
    made.append(rows(6, 3))
    assert pairs(lake.path) == lake.files()


def test_the_log_of_older_versions_may_be_short(lake: Lake) -> None:
    made = lake.create(**{"write.metadata.previous-versions-max": "2"})
    for first in range(5):
        made.append(rows(first, 1))
    assert len(pairs(lake.path)) == 5
    assert len(made.metadata.metadata_log) == 2


def rename_column(lake: Lake) -> None:
    with lake.table.update_schema() as schema:
        schema.rename_column("text", "body")


def drop_column(lake: Lake) -> None:
    with lake.table.update_schema() as schema:
        schema.delete_column("city")


def drop_and_add_column(lake: Lake) -> None:
    """Its older values are null in the table, and are in the files."""
    from pyiceberg.types import StringType

    drop_column(lake)
    with lake.table.update_schema() as schema:
        schema.add_column("city", StringType())


def column_with_a_default(lake: Lake) -> None:
    from pyiceberg.types import BooleanType

    with lake.table.update_schema() as schema:
        schema.add_column("seen", BooleanType())
    newest = metadata(lake, 2)
    described = json.loads(newest.read_text())
    described.update({"format-version": 3, "next-row-id": 0})
    described["schemas"][-1]["fields"][-1]["initial-default"] = True
    newest.write_text(json.dumps(described))


def position_deletes(lake: Lake) -> None:
    made = lake.table
    (task,) = made.scan().plan_files()
    path = f"{lake.path}/data/deletes.parquet"
    deleted = pa.schema(
        [
            pa.field("file_path", pa.string(), metadata={"PARQUET:field_id": "2147483546"}),
            pa.field("pos", pa.int64(), metadata={"PARQUET:field_id": "2147483545"}),
        ]
    )
    pq.write_table(pa.table({"file_path": [task.file.file_path], "pos": [1]}, schema=deleted), path)
    commit(made, data_file(path, content=1), deletes=True)
    assert lake.expected().num_rows == 2


def deletion_vector(lake: Lake) -> None:
    made = lake.table
    (task,) = made.scan().plan_files()
    bounds = {2147483546: task.file.file_path.encode()}  # the file that it is of
    path = f"{lake.path}/data/d.puffin"
    vector = data_file(path, content=1, file_format="PUFFIN", lower_bounds=bounds, upper_bounds=bounds)
    commit(made, vector, deletes=True)


def equality_deletes(lake: Lake) -> None:
    commit(lake.table, data_file(f"{lake.path}/data/e.parquet", content=2, equality_ids=[1]), deletes=True)


def other_format(lake: Lake) -> None:
    commit(lake.table, data_file(f"{lake.path}/data/a.orc", file_format="ORC"))


def file_twice(lake: Lake) -> None:
    made = lake.table
    (task,) = made.scan().plan_files()
    commit(made, data_file(task.file.file_path))
    assert lake.expected().num_rows == 6


def file_elsewhere(lake: Lake) -> None:
    made = lake.table
    pq.write_table(rows(3, 3), lake.path.parent / "elsewhere.parquet")
    made.add_files([f"{lake.path.parent}/elsewhere.parquet"])
    assert lake.expected().num_rows == 6


def file_above(lake: Lake) -> None:
    pq.write_table(rows(3, 3), lake.path.parent / "elsewhere.parquet")
    commit(lake.table, data_file(f"{lake.path}/data/../../elsewhere.parquet"))


def partition_column_in_the_metadata(lake: Lake) -> None:
    """As in a table of Hive that became one of Iceberg."""
    made = lake.table
    with made.update_spec() as spec:
        spec.add_identity("city")
    path = f"{lake.path}/data/city=x/a.parquet"
    Path(path).parent.mkdir()
    with made.transaction() as change:
        change.set_properties(**{"schema.name-mapping.default": made.schema().name_mapping.model_dump_json()})
    pq.write_table(rows(3, 3).drop_columns("city"), path)
    commit(made, data_file(path, partition=["x"], spec=made.spec().spec_id))
    assert lake.expected()["city"].to_pylist().count("x") == 3


def file_without_ids(lake: Lake) -> None:
    pq.write_table(rows(3, 3), lake.path / "data" / "a.parquet")
    commit(lake.table, data_file(f"{lake.path}/data/a.parquet"))


@pytest.mark.parametrize(
    "change",
    [
        *(rename_column, drop_column, drop_and_add_column, column_with_a_default),
        *(position_deletes, deletion_vector, equality_deletes),
        *(other_format, file_twice, file_elsewhere, file_above, partition_column_in_the_metadata, file_without_ids),
    ],
)
def test_tables_that_are_more_than_their_files_are_refused(lake: Lake, change: Callable[[Lake], None]) -> None:
    made = lake.create()
    made.append(rows(0, 3))
    assert len(pairs(lake.path)) == 1
    change(lake)
    with fails(InputError, "table-beyond-files", file=lake.path):
        pairs(lake.path)


def test_imported_files_are_read(lake: Lake) -> None:
    """They have no numbers of columns, and the table says which names it takes for them."""
    made = lake.create()
    (lake.path / "data").mkdir()
    pq.write_table(rows(0, 3), lake.path / "data" / "a.parquet")
    made.add_files([f"{lake.path}/data/a.parquet"])
    assert pairs(lake.path) == ["data/a.parquet"]


def test_position_deletes_of_removed_files_delete_nothing(lake: Lake) -> None:
    """Programs that write files anew leave them behind."""
    lake.create().append(rows(0, 3))
    position_deletes(lake)
    lake.table.overwrite(rows(5, 5))
    assert lake.expected().num_rows == 5
    assert len(pairs(lake.path)) == 1


def damaged_metadata(lake: Lake) -> None:
    metadata(lake, 1).write_text("{")


def metadata_of_gigabytes(lake: Lake) -> None:
    """A megabyte that stands for one gigabyte."""
    metadata(lake, 1).write_bytes(gzip.compress(bytes(1 << 30), 1))


def unknown_version_of_the_format(lake: Lake) -> None:
    newest = metadata(lake, 1)
    newest.write_text(json.dumps({**json.loads(newest.read_text()), "format-version": 9}))


def damaged_manifest(lake: Lake) -> None:
    (path,) = (lake.path / "metadata").glob("*-m0.avro")
    path.write_bytes(path.read_bytes()[:-20])


def damaged_file(lake: Lake) -> None:
    (lake.path / pairs(lake.path)[0]).write_bytes(b"PAR1")


@pytest.mark.parametrize(
    "damage", [damaged_metadata, metadata_of_gigabytes, unknown_version_of_the_format, damaged_manifest, damaged_file]
)
def test_damaged_table(lake: Lake, damage: Callable[[Lake], None]) -> None:
    made = lake.create()
    made.append(rows(0, 3))
    damage(lake)
    with fails(InputError, "damaged-table", file=lake.path):
        pairs(lake.path)


@pytest.mark.parametrize("pattern", ["metadata/snap-*.avro", "metadata/*-m0.avro", "data/*.parquet"])
def test_missing_file(lake: Lake, pattern: str) -> None:
    lake.create().append(rows(0, 3))
    (path,) = lake.path.glob(pattern)
    path.unlink()
    with fails(InputError, "cannot-read", file=path):
        pairs(lake.path)


def test_metadata_names_no_class(lake: Lake) -> None:
    """The metadata may come from somebody else, and pyiceberg takes from it what reads files."""
    lake.create().append(rows(0, 3))
    newest = metadata(lake, 1)
    described = json.loads(newest.read_text())
    described["properties"]["py-io-impl"] = "tests.engines.test_iceberg.NoSuchClass"
    newest.write_text(json.dumps(described))
    assert len(pairs(lake.path)) == 1


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """Run an S3 server."""
    with serving(tmp_path / "log") as server:
        server.use(monkeypatch)
        yield server


@pytest.mark.parametrize("where", ["lake/users", "lake/", "lake/us*", "lake"])
def test_a_table_in_remote_storage(s3: S3, tmp_path: Path, where: str) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog(
        "c",
        uri=f"sqlite:///{tmp_path}/c.db",
        warehouse=s3.uri("lake"),
        **{"s3.endpoint": s3.url, "s3.region": "us-east-1"},
    )
    catalog.create_namespace("lake")
    made = catalog.create_table("lake.users", schema=rows(0, 1).schema, location=s3.uri("lake/users"))
    with made.update_spec() as spec:
        spec.add_identity("city")
    made.append(rows(0, 24))
    made.delete("id < 9")
    wanted = made.scan().to_arrow()
    s3.put("lake/users/data/orphan.parquet", b"PAR1")

    report = tag(s3.uri(where), tmp_path / "out")
    assert report.rows == wanted.num_rows == 15
    found = written(tmp_path / "out").select(wanted.column_names)
    assert sorted(found.to_pylist(), key=str) == sorted(wanted.to_pylist(), key=str)
    older = next(key for key in s3.keys("lake/users/metadata/00002-"))
    assert tag(s3.uri(older), tmp_path / "older").rows == 24


def test_a_local_table_that_was_copied_to_remote_storage(s3: S3, users: Lake) -> None:
    for path in users.path.rglob("*"):
        if path.is_file():
            s3.put(f"copy/{path.relative_to(users.path)}", path.read_bytes())
    assert pairs(s3.uri("copy")) == pairs(users.path)
    for part in ("copy/data", "copy/data/*"):
        with fails(InputError, "inside-table", table=s3.uri("copy")):
            pairs(s3.uri(part))
    for part in ("copy/*", "copy/**/*.parquet"):
        with fails(InputError, "table-folder", found="Iceberg"):
            pairs(s3.uri(part))
