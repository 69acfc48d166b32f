import pytest

from flows import artifacts
from flows.display import Shards, final_line, line
from workers.work import Progress

HALF = Progress(
    done=50, failed=3, to_score=20, scoring=8, to_refine=12, refining=10, front_ends=1, refiners=2, first_done=0.0,
    last_done=23.0,
)  # fmt: skip


def test_a_run_under_way_in_one_line() -> None:
    assert line(HALF, 100, Shards(4, 0, 10)) == (
        "50/100 images; 3 failed; 4/10 shards; 2.00 images/s; ETA 0:00:25; "
        "20 to score, 8 scoring, 12 to refine, 10 refining; 1 front end, 2 refiners"
    )
    assert "; 4/10 shards (1 failed); " in line(HALF, 100, Shards(4, 1, 10))
    assert "; – images/s; ETA –; " in line(Progress(), 100, Shards(0, 0, 10))


def test_how_a_run_ended_in_one_line() -> None:
    ended = "50/100 images done; 3 failed; 4/10 shards (6 failed); 2.00 images/s"
    assert final_line(HALF, 100, Shards(4, 6, 10)) == ended


@pytest.mark.parametrize(
    ("location", "link"),
    [("s3://bucket/a b/report.html", "s3://bucket/a b/report.html"), ("/out/a b.html", "file:///out/a%20b.html")],
)
def test_a_report_is_linked_where_a_browser_finds_it(location: str, link: str) -> None:
    assert artifacts.link(location) == link
