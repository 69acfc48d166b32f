import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import run_log
from pipeline.errors import StorageError
from workers.journal import Event

RUN = "2026-01-01-0001"


@pytest.mark.parametrize(
    ("event", "written"),
    [
        (
            Event("image.unreadable", RUN, 3, "a/b.jpg", {"reason": "the file is empty"}),
            f'event=image.unreadable run={RUN} shard=3 image=a/b.jpg reason="the file is empty"',
        ),
        (
            Event("shard.committed", RUN, 0, "", {"images": 500, "failed": 0, "seconds": 1.5, "written": True}),
            f"event=shard.committed run={RUN} shard=0 images=500 failed=0 seconds=1.5 written=true",
        ),
        (
            Event("image.rejected", RUN, 1, 'two\nlines and a "quote"', {"count": None}),
            f'event=image.rejected run={RUN} shard=1 image="two\\nlines and a \\"quote\\"" count=null',
        ),
        (Event("x", facts={"empty": ""}), 'event=x empty=""'),
    ],
)
def test_an_event_is_one_line_of_keys_and_values(event: Event, written: str) -> None:
    assert run_log.line(event) == written


@given(st.text(), st.text())
def test_whatever_a_name_holds_it_stays_one_line_and_can_be_read_back(image: str, reason: str) -> None:
    line = run_log.line(Event("image.unreadable", RUN, 3, image, {"reason": reason}))
    assert len(line.splitlines()) == 1
    written = line.rpartition(" reason=")[2] if " reason=" not in reason else None
    if written is not None:
        assert reason in (written, json.loads(written) if written.startswith('"') else None)


def test_failures_stand_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        kinds = ("shard.committed", "image.quarantined", "shard.failed")
        run_log.write(logging.getLogger("run"), [Event(kind, RUN) for kind in kinds])
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "ERROR"]


def test_a_traceback_keeps_no_secret_of_what_led_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = io.StringIO()
    monkeypatch.setattr(run_log, "PREFECT_LOGGERS", ("tests.guarded",))
    handler, logger = logging.StreamHandler(kept), logging.getLogger("tests.guarded")
    logger.addHandler(handler)
    for _ in range(2):
        run_log.guard()
    try:
        try:
            raise OSError("403, url='https://host/a.jpg?X-Amz-Signature=S3CRET'")
        except OSError as error:
            raise StorageError("cannot read it") from error
    except StorageError:
        logging.getLogger("tests.guarded.run").exception("at %s", "https://me:S3CRET@host/b")
    assert len(handler.filters) == 1
    assert "at https://host/b\nTraceback" in kept.getvalue()
    assert "url='https://host/a.jpg'" in kept.getvalue()
    assert "S3CRET" not in kept.getvalue()
