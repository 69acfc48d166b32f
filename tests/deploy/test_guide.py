"""deploy/README.md: its sums, its sources and the files that it names."""

import re

import pytest

from tests.deploy.files import DEPLOY, ROOT

GUIDE = (DEPLOY / "README.md").read_text()
PLAIN = " ".join(GUIDE.split())
ROWS = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:20])
def test_the_price_of_a_million_is_what_the_seconds_cost(row: tuple[str, ...]) -> None:
    (prices,) = re.findall(
        r"by yours: ([\d.]+) a core-hour, ([\d.]+) on spot nodes, ([\d.]+) a GPU-hour on either", PLAIN
    )
    core, spot, gpu = map(float, prices)
    cpu_seconds, gpu_seconds, price, on_spot = map(float, row[1:])
    assert price == round(1e6 / 3600 * (cpu_seconds * core + gpu_seconds * gpu), 2)
    assert on_spot == round(1e6 / 3600 * (cpu_seconds * spot + gpu_seconds * gpu), 2)


def test_the_seconds_are_the_measured_ones() -> None:
    results = (ROOT / "docs" / "results.md").read_text()
    assert len(ROWS) == 5
    for rate, seconds in ((12.03, 0.166), (1.19, 1.681)):
        assert f"| {rate} |" in results and f"2 cores at {rate} images/s | {seconds:.3f} |" in GUIDE
        assert round(2 / rate, 3) == seconds
    assert "| default | 0.035 |" in results and "| pydensecrf | 1.065 |" in results
    assert [row[1] for row in ROWS[2:]] == ["0.035", "1.065", "0.035"]


def test_each_row_says_whether_it_is_measured() -> None:
    assert [("assumed" in row[0], "measured" in row[0]) for row in ROWS] == [(False, True)] * 4 + [(True, False)]


def test_the_table_of_files_names_every_file() -> None:
    table = re.findall(r"^\| (`.+`) \| ", GUIDE, re.MULTILINE)
    named = {name.rstrip("/") for cell in table for name in re.findall("`([^`]+)`", cell)}
    there = {path.name for path in DEPLOY.iterdir()} - {"README.md", "Dockerfile.dockerignore", "photographs", ".env"}
    assert there <= named
