import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from threading import Barrier
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import images, masks, storage
from pipeline.metrics import Counts

RECIPE, RUN = "0123456789abcdef", "2025-03-01-0001"
COLUMNS = {
    "image_id": pa.string(),
    "uri": pa.string(),
    "etag": pa.string(),
    "shard": pa.int32(),
    "status": pa.string(),
    "error": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "mask": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "labels": pa.list_(pa.int16()),
    "areas": pa.list_(pa.float32()),
    "confidence": pa.float32(),
    "entropy": pa.float32(),
    "changed": pa.float32(),
    "refined": pa.struct([("tp", pa.list_(pa.int64())), ("fp", pa.list_(pa.int64())), ("fn", pa.list_(pa.int64()))]),
    "front": pa.struct([("tp", pa.list_(pa.int64())), ("fp", pa.list_(pa.int64())), ("fn", pa.list_(pa.int64()))]),
    "boundary": pa.struct([("tp", pa.list_(pa.int64())), ("fp", pa.list_(pa.int64())), ("fn", pa.list_(pa.int64()))]),
    "front_end_ms": pa.float32(),
    "back_end_ms": pa.float32(),
    "front_end_cpu_ms": pa.float32(),
    "front_end_gpu_ms": pa.float32(),
    "back_end_cpu_ms": pa.float32(),
    "bytes_read": pa.int64(),
    "bytes_scores": pa.int64(),
    "bytes_written": pa.int64(),
}
LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def ok_row(image_id: str, shard: int = 0) -> masks.Row:
    counts = masks.counts_cell(Counts(np.array([1, 2]), np.array([0, 1]), np.array([3, 0])))
    return masks.failed_row(image_id, f"/set/{image_id}", "v1", shard, "ok", "") | {
        "error": None,
        "height": 3,
        "width": 4,
        "mask": {"bytes": images.encode_mask(LABELS), "path": masks.mask_path(image_id)},
        "labels": np.arange(12, dtype=np.int16),
        "confidence": 0.5,
        "refined": counts,
    }


def write(output: str, shard: int, *rows: masks.Row) -> bool:
    return masks.write_shard(output, RECIPE, RUN, shard, rows)


@pytest.fixture
def written(store: str) -> str:
    """An output of two shards: two good images, then a broken one."""
    write(store, 0, ok_row("a.jpg"), ok_row("sub/b.jpg"))
    write(store, 1, masks.failed_row("c.jpg", "/set/c.jpg", "v1", 1, "unreadable", "the file is empty"))
    return store


@pytest.fixture
def local(tmp_path: Path) -> str:
    output = str(tmp_path / "out")
    write(output, 0, ok_row("a.jpg"), ok_row("sub/b.jpg"))
    write(output, 1, masks.failed_row("c.jpg", "/set/c.jpg", "v1", 1, "unreadable", "the file is empty"))
    return output


def test_the_schema_is_the_promised_one() -> None:
    assert masks.SCHEMA.equals(pa.schema(COLUMNS))
    assert masks.STATUSES == ("ok", "unreadable", "rejected", "quarantined")


def test_a_shard_lies_where_it_is_promised() -> None:
    location = masks.shard_location("s3://bucket/out", RECIPE, RUN, 42)
    assert location == f"s3://bucket/out/masks/recipe={RECIPE}/run={RUN}/shard-00042.parquet"


def test_a_file_carries_the_schema_the_recipe_and_the_image_feature() -> None:
    schema = pq.read_schema(io.BytesIO(masks.encode([ok_row("a.jpg")], RECIPE)))
    assert schema.equals(pa.schema(COLUMNS))
    assert schema.metadata[b"densemask.recipe"] == RECIPE.encode()
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["mask"] == {"_type": "Image"}


def test_only_the_pixels_go_uncompressed_and_without_dictionary_or_statistics() -> None:
    file = pq.ParquetFile(io.BytesIO(masks.encode([ok_row("a.jpg"), ok_row("b.jpg")], RECIPE)))
    group = file.metadata.row_group(0)
    seen = set()
    for column in map(group.column, range(group.num_columns)):
        raw = column.path_in_schema == "mask.bytes"
        seen.add(column.path_in_schema)
        assert column.compression == ("UNCOMPRESSED" if raw else "ZSTD")
        assert column.is_stats_set is not raw
        assert column.has_dictionary_page is not raw
    assert "mask.bytes" in seen and len(seen) == len(file.schema)


def test_what_is_written_is_read_back(written: str) -> None:
    first, second = masks.read_rows(written, RECIPE, RUN)
    row = first.to_pylist()[0]
    assert np.array_equal(images.decode_mask(row["mask"]["bytes"]), LABELS)
    assert (row["image_id"], row["mask"]["path"], row["labels"]) == ("a.jpg", "a.png", list(range(12)))
    assert row["refined"] == {"tp": [1, 2], "fp": [0, 1], "fn": [3, 0]}
    failed = second.to_pylist()[0]
    assert (failed["status"], failed["error"], failed["mask"]) == ("unreadable", "the file is empty", None)
    assert masks.committed(written, RECIPE, RUN) == {0, 1}


def test_only_the_columns_asked_for_are_read(written: str) -> None:
    assert [table.column_names for table in masks.read_rows(written, RECIPE, RUN, ["status"])] == [["status"]] * 2


def test_images_are_found_by_shard_and_id(written: str) -> None:
    found = masks.read_images(written, RECIPE, RUN, [(0, "sub/b.jpg"), (1, "c.jpg"), (0, "none")])
    assert {image_id: row["status"] for image_id, row in found.items()} == {"sub/b.jpg": "ok", "c.jpg": "unreadable"}


def test_one_mask_is_read_without_the_whole_shard(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "ROW_GROUP", 2)
    failed = masks.failed_row("broken", "/set/broken", "v1", 0, "unreadable", "why")
    pngs = [images.encode_mask(LABELS + number) for number in range(5)]
    rows = [ok_row(f"{number}") | {"mask": {"bytes": png, "path": ""}} for number, png in enumerate(pngs)]
    write(store, 0, *rows, failed)
    assert masks.read_masks(store, RECIPE, RUN, 0, [4, 0, 5]) == [pngs[4], pngs[0], None]
    assert masks.read_neighbours(store, RECIPE, RUN, 0, 3) == (2, pngs[2:4])
    assert masks.read_neighbours(store, RECIPE, RUN, 0, 4) == (4, [pngs[4], None])


def test_a_second_writer_leaves_the_first(store: str) -> None:
    assert write(store, 0, ok_row("first.jpg")) is True
    assert write(store, 0, ok_row("second.jpg")) is False
    (table,) = masks.read_rows(store, RECIPE, RUN, ["image_id"])
    assert table["image_id"].to_pylist() == ["first.jpg"]


def test_of_racing_writers_one_commits(store: str) -> None:
    barrier = Barrier(4)

    def race(writer: int) -> bool:
        rows = [ok_row(f"{writer}-{index}.jpg") for index in range(20)]
        barrier.wait()
        return write(store, 0, *rows)

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(race, range(4)))
    assert sum(won) == 1
    (table,) = masks.read_rows(store, RECIPE, RUN, ["image_id"])
    assert table["image_id"].to_pylist() == [f"{won.index(True)}-{index}.jpg" for index in range(20)]


def test_a_row_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write(str(tmp_path), 0, ok_row("a.jpg") | {"height": "three"})
    assert masks.committed(str(tmp_path), RECIPE, RUN) == set()


def test_duckdb_opens_an_output_with_a_glob(local: str) -> None:
    found = duckdb.sql(f"""
        select recipe, run, status, count(*), count(mask.bytes), sum(list_sum(refined.tp))::int
        from read_parquet('{local}/masks/*/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)
        group by all order by status
    """).fetchall()
    assert found == [(RECIPE, RUN, "ok", 2, 2, 6), (RECIPE, RUN, "unreadable", 1, 0, None)]


def test_polars_opens_an_output_with_a_glob(local: str) -> None:
    table = polars.scan_parquet(f"{local}/masks/**/*.parquet", hive_partitioning=True).collect()
    assert table.height == 3 and set(table["recipe"].cast(polars.String)) == {RECIPE}
    pixels = table.filter(polars.col("status") == "ok")["mask"].struct.field("bytes")
    assert all(np.array_equal(images.decode_mask(data), LABELS) for data in pixels)


def test_pyarrow_opens_an_output_as_a_dataset(local: str) -> None:
    dataset = pyarrow.dataset.dataset(f"{local}/masks", partitioning="hive")
    assert set(COLUMNS) | {"recipe", "run"} == set(dataset.schema.names)
    table = dataset.to_table(filter=pyarrow.dataset.field("run") == RUN)
    assert sorted(table["image_id"].to_pylist()) == ["a.jpg", "c.jpg", "sub/b.jpg"]


def test_a_failed_row_has_no_secret_in_its_location() -> None:
    row = masks.failed_row("x", "s3://key:secret@bucket/x.jpg", "v1", 0, "unreadable", "why")
    assert row["uri"] == "s3://bucket/x.jpg"
    assert list(row) == masks.SCHEMA.names


def test_committed_shards_of_an_absent_run_are_none(store: str) -> None:
    assert masks.committed(store, RECIPE, RUN) == set()


def test_what_is_no_shard_is_not_taken_for_one(local: str) -> None:
    for name in ("notes.txt", "shard-00007.parquet.part"):
        storage.put(storage.join(masks.folder(local, RECIPE, RUN), name), b"-")
    assert masks.committed(local, RECIPE, RUN) == {0, 1}


@pytest.mark.parametrize("image_id, path", [
    ("a.jpg", "a.png"),
    ("set.tar/dir/one", "set.tar/dir/one.png"),
    ("../../etc/passwd", "etc/passwd.png"),
    ("/abs/x.jpg", "abs/x.png"),
    ("..\\..\\x.jpg", "x.png"),
    ("s3://bucket/../x.jpg", "s3_/bucket/x.png"),
    ("C:\\x.jpg", "C_/x.png"),
    ("a\0b.jpg", "a_b.png"),
    ("", "image.png"), ("..", "image.png"), ("/", "image.png"),
])  # fmt: skip
def test_mask_paths(image_id: str, path: str) -> None:
    assert masks.mask_path(image_id) == path


@given(st.one_of(st.text(), st.text(st.sampled_from("./\\:a\0 "))))
def test_no_image_id_leads_out_of_the_folder(image_id: str) -> None:
    path = PurePosixPath(masks.mask_path(image_id))
    assert path.suffix == ".png" and not path.is_absolute()
    assert not {"..", "."} & set(path.parts) and "\0" not in str(path)
    assert not any(":" in part or "\\" in part for part in path.parts)


def test_counts_cells() -> None:
    assert masks.counts_cell(None) is None
    cell: dict[str, Any] | None = masks.counts_cell(Counts(np.array([1]), np.array([2]), np.array([3])))
    assert cell is not None and {name: value.tolist() for name, value in cell.items()} == {
        "tp": [1],
        "fp": [2],
        "fn": [3],
    }
