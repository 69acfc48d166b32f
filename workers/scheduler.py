"""The state of all open shards and every step from one state to the next: place work, take results, mend what broke.

One thread owns it and all Ray references. It never holds pixels: scores, rows and masks stay in the object store, and
only the small first result of each call is read.
"""

import time
from collections import deque
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from pipeline import masks
from pipeline.errors import RunError, StorageError
from pipeline.label import Failed
from workers import rules
from workers.calls import Call, Calls
from workers.journal import Journal
from workers.pool import Pool, Worker, last_line
from workers.rules import Attempt, Load, Sizing
from workers.work import Item, OpenShard, Progress, ShardResult, Waiting

CALLS_A_WORKER = 2
COMMITS_A_SHARD = 3
TICK_SECONDS = 0.2
RESIZE_SECONDS = 5.0


class Scheduler:
    """Moves images of open shards over two pools until each has a row, and shards until each is committed."""

    def __init__(
        self, front_ends: Pool, refiners: Pool, batch_size: int, cap_bytes: int, sizing: Sizing, journal: Journal
    ) -> None:
        self._front_ends, self._refiners, self._journal = front_ends, refiners, journal
        self._batch_size, self._cap_bytes, self._sizing = batch_size, cap_bytes, sizing
        self._open: set[OpenShard] = set()
        self._calls = Calls()
        self._to_score, self._to_refine = Waiting(), Waiting()
        self._to_commit: deque[OpenShard] = deque()
        self._mean_bytes: float = rules.EXPECTED_BYTES
        self._score_ms: float | None = None
        self._refine_ms: float | None = None
        self._next_resize = 0.0
        self.progress = Progress()
        self._resize()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._open

    def add(self, opened: OpenShard) -> None:
        """Takes a shard on."""
        self._open.add(opened)
        self._to_score.add(Item(Attempt(ref, position), opened) for position, ref in enumerate(opened.refs))
        if not opened.refs:
            self._to_commit.append(opened)
        self._snapshot()

    def step(self) -> None:
        """Places what can be placed, then waits a moment for results and takes them."""
        self._resize()
        self._place()
        self._wait()

    def give_up(self, error: BaseException) -> None:
        """Fails every open shard."""
        for opened in list(self._open):
            self._fail(opened, error)

    def _fail(self, opened: OpenShard, error: BaseException) -> None:
        """Gives a shard up; what of it is still under way is dropped when it comes."""
        self._open.discard(opened)
        self._to_score.drop(opened)
        self._to_refine.drop(opened)
        if not opened.future.done():
            self._journal.failed(opened, error)
            opened.future.set_exception(error)

    def _resize(self) -> None:
        """Every few seconds makes the pools as large as they should be by now."""
        now = time.monotonic()
        if now < self._next_resize:
            return
        self._next_resize = now + RESIZE_SECONDS
        load = Load(self._refiners.size, len(self._to_refine), self._score_ms, self._refine_ms)
        sizes = self._sizing(load)
        self._front_ends.resize(sizes.front_ends)
        self._refiners.resize(sizes.refiners)

    def _place(self) -> None:
        while self._to_commit and (worker := self._refiners.least_loaded(CALLS_A_WORKER + 1)):
            self._commit(worker, self._to_commit.popleft())
        while batch := self._next_batch(self._to_refine, self._refiners, self._images_a_call()):
            self._refine(*batch)
        while self._may_score() and (batch := self._next_batch(self._to_score, self._front_ends, self._batch_size)):
            self._score(*batch)
        self._snapshot()

    def _next_batch(self, waiting: Waiting, pool: Pool, size: int) -> tuple[Worker, list[Item]] | None:
        """Whom to give what next. A suspect goes alone to an idle worker; until there is one nobody goes."""
        suspect = waiting.suspect
        worker = pool.least_loaded(1 if suspect else CALLS_A_WORKER) if waiting else None
        if worker is None:
            return None
        worker.has_suspect = suspect
        return worker, waiting.take(size)

    def _images_a_call(self) -> int:
        return rules.images_a_call(self._refine_ms, len(self._to_refine), len(self._refiners.workers))

    def _may_score(self) -> bool:
        waiting_bytes = self._to_refine.nbytes + self._calls.nbytes
        return rules.may_score(waiting_bytes, self._calls.images[self._front_ends], self._mean_bytes, self._cap_bytes)

    def _score(self, worker: Worker, items: list[Item]) -> None:
        refs = [item.attempt.ref for item in items]
        facts, *payloads = worker.actor.score.options(num_returns=1 + len(refs)).remote(refs)
        self._calls.add(facts, Call(self._front_ends, worker, items, payloads))

    def _refine(self, worker: Worker, items: list[Item]) -> None:
        images = [(item.attempt.ref, item.shard.shard.number) for item in items]
        refine = worker.actor.refine.options(num_returns=1 + len(items))
        statuses, *rows = refine.remote(images, *(item.payload for item in items))
        self._calls.add(statuses, Call(self._refiners, worker, items, rows))

    def _commit(self, worker: Worker, opened: OpenShard) -> None:
        opened.commits += 1
        reference = worker.actor.commit.remote(opened.shard.run, opened.shard.number, opened.rows)
        self._calls.add(reference, Call(self._refiners, worker, [], commit=opened))

    def _wait(self) -> None:
        references = [*self._front_ends.starting, *self._refiners.starting, *self._calls]
        if not references:
            return
        ray.wait(references, num_returns=1, timeout=TICK_SECONDS, fetch_local=False)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
        for reference in ready:
            if self._front_ends.started(reference) or self._refiners.started(reference):
                continue
            if reference in self._calls:  # else it went with its worker
                self._take(reference)

    def _take(self, reference: ray.ObjectRef) -> None:
        call = self._calls[reference]
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            self._calls.release(reference)
            self._raised(call, error)
        except ObjectLostError as error:
            self._calls.release(reference)
            self._lost(call, error)
        except RayError as error:
            self._died(call.pool, call.worker, error)
        else:
            self._calls.release(reference)
            self._finished(call, result)

    def _finished(self, call: Call, result: Any) -> None:
        if call.commit is not None:
            self._committed(call.commit, *result)
        elif call.pool is self._front_ends:
            # Batches overlap in a front end: only one that leaves another under way tells how fast it can be.
            if call.image_ms is not None and call.worker.calls:
                self._score_ms = rules.smoothed(self._score_ms, call.image_ms)
            for item, facts, payload in zip(call.items, result, call.outputs, strict=True):
                self._scored(item, facts, payload)
        else:
            if call.image_ms is not None:
                self._refine_ms = rules.smoothed(self._refine_ms, call.image_ms)
            for item, status, row in zip(call.items, result, call.outputs, strict=True):
                if item.shard in self._open:
                    self._journal.row(item, status)
                    self._row(item, row, status)

    def _scored(self, item: Item, facts: Any, payload: ray.ObjectRef) -> None:
        if item.shard not in self._open:
            return
        if isinstance(facts, Failed):
            self._no_mask(item, facts)
        else:
            self._mean_bytes = rules.smoothed(self._mean_bytes, facts.nbytes)
            attempt = replace(item.attempt, suspect=False)
            self._to_refine.add([Item(attempt, item.shard, payload, facts.nbytes)])

    def _row(self, item: Item, row: Any, status: str) -> None:
        """Keeps an image's row (or the reference to it); the shard's last one leads to its commit."""
        opened = item.shard
        opened.rows[item.attempt.position] = row
        opened.statuses[status] += 1
        self.progress = self.progress.with_row(status == "ok")
        if opened.statuses.total() == len(opened.refs):
            if rules.is_systematic(opened.statuses["quarantined"], len(opened.refs)):
                count = f"{opened.statuses['quarantined']} of {len(opened.refs)} images"
                self._fail(opened, RunError(f"{count} failed their workers, so none is written off: {opened.reason}"))
            else:
                self._to_commit.append(opened)

    def _no_mask(self, item: Item, failed: Failed) -> None:
        ref, number = item.attempt.ref, item.shard.shard.number
        row = masks.failed_row(ref.image_id, ref.uri, ref.etag, number, failed.status, failed.reason)
        self._journal.row(item, failed.status, failed.kind, failed.reason)
        self._row(item, row, failed.status)

    def _committed(self, opened: OpenShard, written: bool, lost: list[int]) -> None:
        if lost:
            self._again(opened, lost)
            return
        self._open.discard(opened)
        if not opened.future.done():
            self._journal.committed(opened, written)
            shard = opened.shard
            opened.future.set_result(ShardResult(shard.run, shard.number, dict(opened.statuses), written))

    def _again(self, opened: OpenShard, positions: list[int]) -> None:
        """Images whose rows died with their node start over."""
        for position in positions:
            opened.rows[position] = None
            opened.statuses["ok"] -= 1
            self._to_score.add([Item(Attempt(opened.refs[position], position), opened)])
        self.progress = replace(self.progress, done=self.progress.done - len(positions))

    def _raised(self, call: Call, error: RayTaskError) -> None:
        """A call that raised. The store's refusal is the shard's matter; anything else may be the image's."""
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, ObjectLostError):
            self._lost(call, cause)
        elif isinstance(cause, StorageError):
            for opened in {item.shard for item in call.items} | ({call.commit} if call.commit else set()):
                self._fail(opened, StorageError(str(cause)))
        elif call.commit is not None:
            self._fail(call.commit, RunError(f"a shard cannot be written: {type(cause).__name__}: {cause}"))
        elif len(call.items) > 1:
            self._back(call, [replace(item.attempt, suspect=True) for item in call.items])
        else:
            reason = f"{call.pool.name} raised {type(cause).__name__}: {cause}"
            self._back(call, [rules.after_error(call.items[0].attempt)], reason)

    def _lost(self, call: Call, error: BaseException) -> None:
        """Scores that died with their node: their images go back to the front end."""
        if call.commit is not None:
            self._retry_commit(call.commit, error)
        else:
            self._to_score.add(Item(item.attempt, item.shard) for item in call.items if item.shard in self._open)

    def _died(self, pool: Pool, worker: Worker, error: RayError) -> None:
        """A dead worker: what it had finished counts, the rest is tried again, and who was there is suspect."""
        preempted = isinstance(error, RayActorError) and bool(getattr(error, "preempted", False))
        charged = pool.buried(worker, preempted)
        finished, gone = self._calls.settle(worker)
        for call, result in finished:
            self._finished(call, result)
        items = [item for call in gone for item in call.items]
        self._journal.died(pool.name, worker.node, items, charged, last_line(error))
        judged = iter(rules.after_death([item.attempt for item in items], charged))
        for call in gone:
            if call.commit is not None:
                self._retry_commit(call.commit, error)
            self._back(call, [next(judged) for _ in call.items], f"its {pool.name} worker died: {last_line(error)}")

    def _back(self, call: Call, attempts: list[Attempt], reason: str = "") -> None:
        """Puts a call's images back where they were waiting, or into quarantine."""
        for item, attempt in zip(call.items, attempts, strict=True):
            if item.shard not in self._open:
                continue
            if rules.is_quarantined(attempt):
                item.shard.reason = f"{attempt.strikes} times alone, {reason}"
                self._no_mask(item, Failed("quarantined", item.shard.reason, "quarantined"))
            else:
                waiting = self._to_score if call.pool is self._front_ends else self._to_refine
                waiting.give_back(item._replace(attempt=attempt))

    def _retry_commit(self, opened: OpenShard, error: BaseException) -> None:
        if opened.commits >= COMMITS_A_SHARD:
            self._fail(opened, RunError(f"a shard could not be written {opened.commits} times: {last_line(error)}"))
        else:
            self._journal.commit_retried(opened, last_line(error))
            self._to_commit.append(opened)

    def _snapshot(self) -> None:
        self.progress = replace(
            self.progress,
            to_score=len(self._to_score),
            scoring=self._calls.images[self._front_ends],
            to_refine=len(self._to_refine),
            refining=self._calls.images[self._refiners],
            waiting_bytes=self._to_refine.nbytes + self._calls.nbytes,
            front_ends=len(self._front_ends.workers),
            refiners=len(self._refiners.workers),
            deaths=self._front_ends.deaths + self._refiners.deaths,
        )
        self._journal.show(self.progress)
