"""Rows by an SQL condition."""

import sys

import pyarrow as pa
import pytest

from pipeline import masks, where
from pipeline.errors import ConfigError

ROWS = where.with_origin(
    pa.Table.from_pylist(
        [
            {"image_id": "a", "status": "ok", "confidence": 0.5, "labels": [0], "mask": {"bytes": b"A", "path": "a"}},
            {"image_id": "b", "status": "ok", "confidence": 0.75, "labels": [0, 15], "refined": {"tp": [3, 4]}},
            {"image_id": "it's", "status": "unreadable", "error": "no image"},
        ],
        masks.SCHEMA,
    ),
    "0123456789abcdef",
    "2026-03-01-0001",
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("confidence < 0.6", ["a"]),
        ("confidence < 0.6 or status != 'ok'", ["a", "it's"]),
        ("list_contains(labels, 15)", ["b"]),
        ("refined.tp[1] = 3", ["b"]),
        ("Image_ID = 'it''s'", ["it's"]),
        ("run >= '2026-01-01' and recipe like '0123%'", ["a", "b", "it's"]),
        ("run < '2026-01-01'", []),
        (None, ["a", "b", "it's"]),
    ],
)
def test_the_rows_for_which_the_condition_holds_whole_and_in_order(condition: str | None, expected: list[str]) -> None:
    found = where.matching(ROWS, condition)
    assert found["image_id"].to_pylist() == expected
    assert found.schema == ROWS.schema
    if "a" in expected:
        assert found["mask"][0].as_py() == {"bytes": b"A", "path": "a"}


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("confidense < 0.6", '"confidense" not found'),
        ("confidence <", "syntax error"),
        ("", "without selection list"),
        ("true; select 1", "modifiers"),
        ("true) or (true", "syntax error"),
        ("true, false", "single expression"),
        ("confidence < 'low'", "'low' to FLOAT"),
        ("avg(confidence) > 0.5", "aggregates"),
        ("mask is null", '"mask" not found'),
        ("error('boom')", "boom"),
    ],
)
def test_a_wrong_condition_is_named_with_the_reason_and_the_columns(condition: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        where.check(condition)
    message = str(caught.value)
    assert repr(condition) in message and reason in message and "\n" not in message
    assert message.endswith("image_id, " + ", ".join(where.COLUMNS[1:]))


def test_a_condition_may_ask_only_for_columns_that_are_there() -> None:
    with pytest.raises(ConfigError, match="columns: image_id, confidence$"):
        where.matching(ROWS.select(["image_id", "confidence"]), "run = 'x'")


@pytest.mark.parametrize("secret", ["read_text('{}')", "'{}'", "read_csv('{}')"])
def test_a_condition_reads_no_file_and_no_variable(secret: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("secret") / "file.csv"
    file.write_text("secret\na\n")
    with pytest.raises(ConfigError, match="disabled by configuration|does not exist"):
        where.matching(ROWS, f"image_id in (select * from {secret.format(file)})")
    with pytest.raises(ConfigError, match="does not exist"):
        where.matching(ROWS, "image_id in (select image_id from ROWS)")


def test_without_duckdb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'densemask\[sql\]'"):
        where.check("confidence < 0.6")
    where.check(None)
