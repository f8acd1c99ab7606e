"""The worker: takes commands, runs handlers behind the fence, replies, and then acknowledges."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, AsyncIterator, Awaitable, Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.client import JetStreamContext
from nats.micro import Service, add_service
from nats.micro.request import Request, ServiceError

from . import fence
from .command import Command, Malformed, read_command, read_completion, write_reply
from .outcome import Outcome, check, failed, is_too_large, unknown

Handler = Callable[[Any, Command], Awaitable[Outcome]]

STREAM = "STEPS"
DAY = 24 * 3600.0
ACK_WAIT = 3.0
MAX_DELIVER = 20
MAX_ACK_PENDING = 4_096
AT_ONCE = 8  # commands of one kind under way at once, each in a transaction of its own
FETCH_TIMEOUT = 5.0
PROGRESS_INTERVAL = 1.0  # well within the wait for an acknowledgement
PUBLISH_TIMEOUT = 12.0  # for all tries; a leader election takes 8 s
ACK_TIMEOUT = 5.0  # for one try
COMPLETE_TIMEOUT = 4.0  # the engine wants an answer within 5 s
PUT_OFF_MOST = 10  # deliveries after which a command is left to the sweeper while the database is away
LONGEST_PAUSE = 60.0
PURGE_INTERVAL, PURGE_BATCH = 600.0, 5_000

log = logging.getLogger("boxoffice_worker")


class StartError(Exception):
    """Why the worker cannot start."""


class _DatabaseAway(Exception):
    """Nothing is known of the step: the database cannot be used now."""


class Worker:
    """A service, its database, and a handler for each of its commands."""

    def __init__(
        self, service: str, database: Any, *, keep: float = 30 * DAY, longest_deadline: float = DAY, limit: float = 30.0
    ):
        """`keep`: seconds for which outcomes are kept. `longest_deadline`: that of the workflows whose steps it serves.
        `limit`: seconds that one handler may take, a do at most until its deadline."""
        self.service, self.database = service, database
        self.keep, self.longest_deadline, self.limit = keep, longest_deadline, limit
        self.instance = f"{socket.gethostname()}:{os.getpid()}"
        self._handlers: dict[str, Handler] = {}

    def step(self, do: str, handler: Handler, undo: str | None = None, undo_handler: Handler | None = None) -> None:
        """Serves a step by the names of its commands. A handler's writes stay only if it returns done()."""
        for command, function in ((do, handler), (undo, undo_handler)):
            if command is None or function is None:
                continue
            if command.split(".")[0] != self.service:
                raise StartError(f"{command} is not a command of {self.service}: it must begin with {self.service}.")
            self._handlers[command] = function

    async def run(self, client: Client, stop: asyncio.Event, *, domain: str | None = None) -> None:
        """Serves until `stop` is set, then finishes the commands in hand. Raises if a part of it ends before that."""
        js = client.jetstream(domain=domain)
        await self._check_keep(js)
        await self.database.prepare()
        announced = await self._announce(client)
        loops = [asyncio.create_task(self._serve(js, command, stop)) for command in self._handlers]
        loops.append(asyncio.create_task(self._purge(stop)))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *loops], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.set()
            stopped.cancel()
            await announced.stop()
            ended = await asyncio.gather(*loops, return_exceptions=True)
            if not client.is_closed:
                with suppress(nats.errors.Error, asyncio.TimeoutError):
                    await client.flush()  # the last acknowledgements
        for error in filter(None, ended):
            raise error

    async def _check_keep(self, js: JetStreamContext) -> None:
        """A row that is deleted too early would let an old command through."""
        age = (await js.stream_info(STREAM)).config.max_age
        if not age:
            raise StartError(f"the stream {STREAM} keeps messages for ever, so no outcome may be deleted; give it a max_age")
        if self.keep <= self.longest_deadline + age:
            raise StartError(
                f"outcomes are kept for {self.keep:.0f} s, but a command may come for {self.longest_deadline:.0f} s (the "
                f"longest deadline) and then {age:.0f} s (the age of the stream {STREAM}); keep them for longer"
            )

    # ---- presence and completion by hand

    async def _announce(self, client: Client) -> Service:
        metadata = {"commands": ",".join(sorted(self._handlers)), "instance": self.instance}
        service = await add_service(client, name=self.service, version="0.1.0", metadata=metadata)
        await service.add_endpoint(name="complete", subject=f"fences.{self.service}.complete", handler=self._complete)
        return service

    async def _complete(self, request: Request) -> None:
        try:
            saga, step, visit, output = read_completion(request.headers, request.data)
        except Malformed as error:
            raise ServiceError("400", str(error)) from None
        try:
            # The row may be locked by a handler.
            async with asyncio.timeout(COMPLETE_TIMEOUT), self.database.transaction() as tx:
                known, _ = await self.database.lock(tx, saga, step, None, self.keep)
                becomes, answer = fence.complete(known, visit, output)
                if becomes:
                    await self.database.save(tx, saga, step, becomes)
                    log.info("step %s of saga %s was completed by hand", step, saga)
        except Exception as error:
            log.warning("step %s of saga %s was not completed by hand: %r", step, saga, error)
            raise ServiceError("503", "its database cannot be used now") from None
        await request.respond(json.dumps(answer).encode())

    # ---- commands

    async def _serve(self, js: JetStreamContext, command: str, stop: asyncio.Event) -> None:
        """Takes one command's messages, at most AT_ONCE at a time."""
        free, in_hand, subscription = asyncio.Semaphore(AT_ONCE), set[asyncio.Task](), None
        away = asyncio.Event()

        async def handle(message: Msg) -> None:
            try:
                if not await self._take(js, message):
                    away.set()
            finally:
                free.release()

        try:
            while await _unless([stop], free.acquire()) and not stop.is_set():
                message, asked = None, time.monotonic()
                try:
                    if away.is_set():  # each delivery counts: ask for none while the database is away
                        subscription = await self._unsubscribe(subscription)
                        await _unless([stop], self._database_answers())
                        away.clear()
                    subscription = subscription or await _unless([stop], self._subscribe(js, command))
                    if subscription:
                        fetched = await _unless([stop, away], subscription.fetch(1, timeout=FETCH_TIMEOUT))
                        message = fetched[0] if fetched else None
                except Exception as error:
                    if isinstance(error, nats.errors.TimeoutError) and time.monotonic() - asked > FETCH_TIMEOUT / 2:
                        free.release()
                        continue  # there was nothing
                    # An early end means that the consumer is not there, or that NATS is away.
                    log.warning("receiving %s again after an interruption: %r", command, error)
                    subscription = await self._unsubscribe(subscription)
                    await _unless([stop], asyncio.sleep(0.25))
                if message is None:
                    free.release()
                    continue
                task = asyncio.create_task(handle(message))
                in_hand.add(task)
                task.add_done_callback(in_hand.discard)
        finally:
            await self._unsubscribe(subscription)
            if in_hand:
                await asyncio.wait(in_hand)

    async def _subscribe(self, js: JetStreamContext, command: str) -> JetStreamContext.PullSubscription:
        """A worker may have no right to make the consumer: the engine does, once the worker has announced the command."""
        name = command.replace(".", "-")
        try:
            await js.consumer_info(STREAM, name)
        except nats.js.errors.NotFoundError:
            await js.add_consumer(
                STREAM,
                ConsumerConfig(
                    durable_name=name, filter_subject=f"steps.{command}", ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT,
                    max_deliver=MAX_DELIVER, max_ack_pending=MAX_ACK_PENDING,
                ),
            )
        return await js.pull_subscribe_bind(name, STREAM)

    async def _unsubscribe(self, subscription: JetStreamContext.PullSubscription | None) -> None:
        if subscription:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _database_answers(self) -> None:
        pause = 0.05
        while True:
            try:
                return await self.database.ping()
            except Exception as error:
                log.warning("the service's database does not answer: %r", error)
            await asyncio.sleep(pause)
            pause = min(1.0, 2 * pause)

    async def _take(self, js: JetStreamContext, message: Msg) -> bool:
        """Handles one message. Whatever goes wrong, it comes again. False if the database is away."""
        delivered = message.metadata.num_delivered
        try:
            async with _progress(message):
                command = read_command(message.subject, message.headers, message.data)
                outcome = await self._answer(command, self._handlers[command.command])
                if outcome is not None:
                    await _publish(js, *write_reply(command, outcome, self.instance))
            await message.ack()
        except _DatabaseAway as error:
            log.warning("%s was put off: the database is away: %s", message.subject, error)
            if delivered >= PUT_OFF_MOST:  # the saga's row still asks for it; the sweeper sends it anew
                await message.ack()
            else:
                await message.nak(delay=pause_after(delivered))
            return False
        except Exception as error:
            log.warning("%s was not handled (delivery %d): %r", message.subject, delivered, error)
            await message.nak(delay=pause_after(delivered))
        return True

    async def _answer(self, command: Command, handler: Handler) -> Outcome | None:
        """The answer to a command, committed with its effect; None if the command belongs to the past."""
        limit = fence.time_limit(self.limit, command, datetime.now(timezone.utc))
        try:
            async with asyncio.timeout(limit) as timer:
                return await self._decide(command, handler)
        except Exception as error:
            if timer.expired():
                log.error("the handler of step %s of saga %s was cut off after %.3f s", command.step, command.saga, limit)
                return unknown(f"the function did not end within {limit * 1000:.0f} ms")
            if self.database.is_away(error) or isinstance(error, OSError):
                raise _DatabaseAway(repr(error)) from error
            raise

    async def _decide(self, command: Command, handler: Handler) -> Outcome | None:
        async with self.database.transaction() as tx:
            known, now = await self.database.lock(tx, command.saga, command.step, command.deadline, self.keep)
            match fence.decide(known, command, now):
                case fence.Ignore():
                    return None
                case fence.Reply(outcome):
                    return outcome
                case fence.Run(done):
                    outcome = await self._act(tx, replace(command, done=done), handler)
                    becomes = fence.after(known, command, outcome)
                    await self.database.save(tx, command.saga, command.step, becomes)
                    return outcome

    async def _act(self, tx: Any, command: Command, handler: Handler) -> Outcome:
        """Runs the handler; its writes stay only if it returns done()."""
        try:
            async with self.database.savepoint(tx) as effect:
                outcome = await handler(tx, command)
                check(outcome)
                if outcome["outcome"] == "done" and is_too_large(command.context, outcome["output"]):
                    log.error("the output of step %s of saga %s is too large", command.step, command.saga)
                    outcome = failed("output_too_large")
                await (effect.commit() if outcome["outcome"] == "done" else effect.rollback())
                return outcome
        except Exception as error:
            if self.database.is_away(error):
                raise
            log.exception("the handler of step %s of saga %s failed", command.step, command.saga)
            return failed("handler_failed")

    async def _purge(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if await self.database.purge(PURGE_BATCH) == PURGE_BATCH:
                    continue
            except Exception as error:
                log.warning("old outcomes were not deleted: %r", error)
            await _unless([stop], asyncio.sleep(PURGE_INTERVAL))


def pause_after(delivered: int) -> float:
    """The pause before a message comes again: doubles with every delivery, from a quarter of a second to a minute."""
    return min(LONGEST_PAUSE, 0.25 * 2 ** (min(max(delivered, 1), 20) - 1))


async def _publish(js: JetStreamContext, subject: str, headers: dict[str, str], body: bytes) -> None:
    """Returns once JetStream has the reply. It may be stored twice: the engine is fenced, too."""
    pause = 0.05
    async with asyncio.timeout(PUBLISH_TIMEOUT):
        while True:
            try:
                await js.publish(subject, body, headers=headers, timeout=ACK_TIMEOUT)
                return
            except (nats.errors.Error, asyncio.TimeoutError) as error:
                log.warning("the reply on %s was not stored, trying again: %r", subject, error)
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))
            pause = min(1.0, 2 * pause)


@asynccontextmanager
async def _progress(message: Msg) -> AsyncIterator[None]:
    """Meanwhile the server hears that the message is being worked on, and does not deliver it again."""

    async def report() -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            with suppress(nats.errors.Error):
                await message.in_progress()

    reporting = asyncio.create_task(report())
    try:
        yield
    finally:
        reporting.cancel()


async def _unless(events: list[asyncio.Event], work: Any) -> Any:
    """Awaits `work` until one of the events is set; then None."""
    task, waiting = asyncio.ensure_future(work), [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait([task, *waiting], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, *waiting):
            one.cancel()
