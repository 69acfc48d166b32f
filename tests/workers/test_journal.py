"""What the log and Prometheus are told of a run; no cluster is needed."""

import threading
from concurrent.futures import Future

from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan import Shard
from pipeline.sources import ImageRef
from workers.journal import SHOWN_OF_A_KIND, Event, Journal
from workers.metrics import Labels
from workers.rules import Attempt
from workers.work import Item, OpenShard, Progress

RUN = "2026-01-01-0001"


def opened(*names: str) -> OpenShard:
    refs = [ImageRef(name, f"/{name}", "", "e", 1, None, None) for name in names]
    return OpenShard(Shard(RUN, 7, len(refs)), refs, Future(), [None] * len(refs))


def item(shard: OpenShard, position: int = 0) -> Item:
    return Item(Attempt(shard.refs[position], position), shard)


def test_an_event_names_run_shard_and_image() -> None:
    journal, shard = Journal(Labels("f", RUN)), opened("a.jpg", "b.jpg")
    journal.row(item(shard), "unreadable", "empty", "the file is empty")
    journal.row(item(shard, 1), "ok")
    shard.statuses.update(ok=1, unreadable=1)
    journal.committed(shard, True)
    broken, committed = journal.events()
    assert broken == Event("image.unreadable", RUN, 7, "a.jpg", {"reason": "the file is empty"})
    assert committed[:4] == ("shard.committed", RUN, 7, "")
    assert committed.facts | {"seconds": 0} == {"images": 2, "failed": 1, "seconds": 0, "written": True}
    assert journal.events() == []
    assert journal.left_out() == []


def test_a_flood_of_one_kind_is_told_in_a_few_lines_and_a_count() -> None:
    journal, shard = Journal(Labels()), opened(*(f"{index}.jpg" for index in range(2000)))
    for index in range(2000):
        journal.row(item(shard, index), "unreadable", "broken", "cannot be decoded")
    journal.row(item(shard), "rejected", "too large", "too many pixels")
    events = journal.events()
    assert [event.facts.get("count") for event in events] == [None] * SHOWN_OF_A_KIND + [100, 1000] + [None]
    assert events[-1].kind == "image.rejected"
    assert journal.left_out() == [Event("image.unreadable", facts={"shown": SHOWN_OF_A_KIND, "count": 2000})]


def test_every_shard_that_is_committed_is_told() -> None:
    journal, shard = Journal(Labels()), opened()
    for _ in range(3 * SHOWN_OF_A_KIND):
        journal.committed(shard, False)
    assert len(journal.events()) == 3 * SHOWN_OF_A_KIND
    assert journal.left_out() == []


def test_failures_of_shards_and_workers_are_told_with_their_reason() -> None:
    journal, shard = Journal(Labels("f", RUN)), opened("a.jpg", "b.jpg")
    journal.died("back end", "n1", [item(shard), item(shard, 1)], True, "it died")
    journal.died("back end", "n1", [item(shard, 1)], True, "it died")
    journal.commit_retried(shard, "its node went")
    journal.failed(shard, RuntimeError("no room"))
    died, alone, retried, failed = journal.events()
    facts = {"pool": "back end", "node": "n1", "images": 2, "charged": True, "reason": "it died"}
    assert died == Event("worker.died", RUN, None, "", facts)
    assert alone == Event("worker.died", RUN, 7, "b.jpg", facts | {"images": 1})
    assert (retried.kind, retried.shard, retried.facts) == ("shard.commit_retried", 7, {"reason": "its node went"})
    assert (failed.kind, failed.run, failed.facts) == ("shard.failed", RUN, {"reason": "no room"})


def test_the_pools_are_told_when_they_change() -> None:
    journal = Journal(Labels())
    for refiners in (0, 0, 2, 2, 1):
        journal.show(Progress(front_ends=min(1, refiners), refiners=refiners))
    assert [event.facts for event in journal.events()] == [
        {"front_ends": 1, "refiners": 2},
        {"front_ends": 1, "refiners": 1},
    ]


def test_no_url_in_an_event_carries_a_secret() -> None:
    journal, shard = Journal(Labels()), opened("https://u:pw@host/a.jpg?sig=1")
    reason = "GET https://user:pw@host/a.jpg?X-Amz-Signature=secret: 403, url='https://host/b?sig=secret'"
    journal.row(item(shard), "unreadable", "denied", reason)
    (event,) = journal.events()
    assert event.facts["reason"] == "GET https://host/a.jpg 403, url='https://host/b'"
    assert event.image == "https://host/a.jpg"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_events_of_one_thread_reach_another_whole(batches: list[int]) -> None:
    journal, shard = Journal(Labels()), opened()
    writer = threading.Thread(target=lambda: [journal.committed(shard, True) for _ in range(sum(batches))])
    writer.start()
    seen = 0
    while seen < sum(batches):
        seen += len(journal.events())
    writer.join()
    assert journal.events() == []
