"""Plays the orchestrator against the worker of an SDK: real commands on a real nats-server, a real database.

    python protocol.py --database postgres -- python ../python/tests/printer.py

The worker serves printer.print and printer.shred as tests/printer.py of the Python SDK does: each SDK has one like it.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import uuid
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import asyncpg
import nats
from nats.errors import NoRespondersError
from nats.js.api import ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

from servers import Nats, Postgres

WEEK = 7 * 24 * 3600


def command(how="", saga=None, direction="do", visit=1, **changes):
    """A command as the engine sends it."""
    return {"saga": saga or str(uuid.uuid4()), "direction": direction, "visit": visit, "how": how, "send": 0, **changes}


def in_seconds(seconds):
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def done(saga, **changes):
    seen = {"step": "print", "direction": "do", "visit": 1, "workflow": "party", "deadline": False, **changes}
    return {"outcome": "done", "output": {"badge": saga, "seen": seen}}


def undone(gone, known, reason="cancelled"):
    return {"outcome": "done", "output": {"gone": gone, "known": known, "reason": reason}}


class Skip(Exception):
    """The test does not apply."""


PLAIN_DONE = {"outcome": "done", "output": {}}


class Stage:
    """Servers, worker processes, and what the workers said."""

    def __init__(self, folder, kind, program, panics):
        self.folder, self.program, self.panics = folder, program, panics
        self.nats = Nats(folder)
        self.postgres = Postgres(folder) if kind == "postgres" else None
        self.database = self.postgres.url() if self.postgres else f"sqlite:{folder / 'printer.db'}"
        self.workers, self.replies, self.raw = [], defaultdict(list), defaultdict(list)
        self.log = open(folder / "worker.log", "wb")

    async def open(self):
        async def ignore(_):
            """A test stops the server; its errors are not those of the worker."""

        again = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.2, "error_cb": ignore}
        self.client = await nats.connect(self.nats.url(), **again)
        self.js = self.client.jetstream()
        for name, subjects in (("STEPS", ["steps.>"]), ("SAGAS", ["sagas.>"])):
            await self.js.add_stream(self.stream(name, subjects))
        await self.listen()

    @staticmethod
    def stream(name, subjects):
        keep, full = RetentionPolicy.WORK_QUEUE, DiscardPolicy.NEW
        return StreamConfig(name, subjects=subjects, retention=keep, discard=full, max_age=WEEK, duplicate_window=120)

    async def listen(self):
        config = ConsumerConfig(durable_name="replies", filter_subject="sagas.reply.printer")
        await self.js.add_consumer("SAGAS", config)
        subscription = await self.js.pull_subscribe_bind("replies", "SAGAS")

        async def take():
            while True:
                try:
                    (message,) = await subscription.fetch(1, timeout=1)
                except (asyncio.TimeoutError, nats.errors.TimeoutError):
                    continue
                except nats.js.errors.APIError as error:
                    if error.code == 503 and not self.client.is_connected:
                        continue
                    return  # a test took the stream away
                saga, body = message.headers["Saga"], json.loads(message.data)
                assert body.pop("version") == 1, body
                self.replies[saga].append(body)
                self.raw[saga].append(message)
                await message.ack()

        self.listening = asyncio.create_task(take())

    # ---- workers

    async def worker(self, user="all", **environment):
        settings = {"NATS_URL": self.nats.url(user), "DATABASE_URL": self.database, **environment}
        process = await asyncio.create_subprocess_exec(
            *self.program, env={**os.environ, **settings}, stdout=asyncio.subprocess.PIPE, stderr=self.log
        )
        self.workers.append(process)
        await self.until(lambda: self.is_present(process), "the worker to announce itself", 30)
        return process

    async def kill(self, *processes):
        for process in processes or list(self.workers):
            if process.returncode is None:
                process.kill()
                await process.wait()
            self.workers.remove(process)

    async def present(self):
        inbox, found = self.client.new_inbox(), []
        subscription = await self.client.subscribe(inbox)
        await self.client.publish("$SRV.INFO", b"", reply=inbox)
        try:
            while True:
                message = await subscription.next_msg(timeout=0.3)
                if message.data:
                    found.append(json.loads(message.data))
        except (asyncio.TimeoutError, NoRespondersError):
            pass
        await subscription.unsubscribe()
        return found

    async def is_present(self, process):
        assert process.returncode is None, "the worker has ended; see worker.log"
        found = [info["metadata"]["instance"] for info in await self.present()]
        return any(instance.endswith(f":{process.pid}") for instance in found)

    # ---- commands and replies

    async def send(self, asked, **headers):
        verb = "print" if asked["direction"] == "do" else "shred"
        given = {
            "Saga": asked["saga"], "Step": "print", "Direction": asked["direction"], "Visit": str(asked["visit"]),
            "Send": str(asked["send"]), "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "Message-Id": f"{asked['saga']}:print:{asked['direction']}:{asked['visit']}:{asked['send']}",
        }
        if "deadline" in asked:
            given["Deadline"] = asked["deadline"]
        given = {name: value for name, value in {**given, **headers}.items() if value is not None}
        context = {"how": asked["how"], "seats": [1, 2]}
        reason = "cancelled" if asked["direction"] == "undo" else None
        body = {"version": 1, "workflow": "party", "reason": reason, "context": context, "new_field": True}
        await self.js.publish(f"steps.printer.{verb}", json.dumps({**body, **asked.get("body", {})}).encode(), headers=given)

    async def ask(self, asked):
        """Sends a command, and gives what is said to it once it is acknowledged."""
        before = len(self.replies[asked["saga"]])
        await self.send(asked)
        await self.acknowledged()
        return self.replies[asked["saga"]][before:]

    async def acknowledged(self, seconds=20):
        async def is_empty():
            return (await self.js.stream_info("STEPS")).state.messages == 0

        await self.until(is_empty, "all commands to be acknowledged", seconds)
        await asyncio.sleep(0.1)  # the last reply is on its way to this process

    async def consumer(self, verb="print"):
        return await self.js.consumer_info("STEPS", f"printer-{verb}")

    async def make_consumers(self):
        """As the engine does once a worker has announced its commands."""
        for verb in ("print", "shred"):
            config = ConsumerConfig(
                durable_name=f"printer-{verb}", filter_subject=f"steps.printer.{verb}", ack_wait=3, max_deliver=20,
                max_ack_pending=4096,
            )
            await self.js.add_consumer("STEPS", config)

    async def complete(self, asked, output=None, headers=None, body=None):
        given = {"Saga": asked["saga"], "Step": "print", "Direction": "do", "Visit": str(asked["visit"]), "Send": "0"}
        body = json.dumps({"version": 1, "output": output or {}}).encode() if body is None else body
        given = given if headers is None else headers
        answer = await self.client.request("fences.printer.complete", body, timeout=5, headers=given or None)
        return answer if headers is not None or (answer.headers or {}).get("Nats-Service-Error") else json.loads(answer.data)

    # ---- the worker's database

    async def badges(self, saga):
        if self.postgres:
            conn = await asyncpg.connect(self.database)
            try:
                return await conn.fetchval("select count(*) from badges where saga = $1", saga)
            finally:
                await conn.close()
        with sqlite3.connect(self.database.removeprefix("sqlite:")) as conn:
            return conn.execute("select count(*) from badges where saga = ?", (saga,)).fetchone()[0]

    async def until(self, holds, what, seconds=10):
        late = time.monotonic() + seconds
        while True:
            held = holds()
            if inspect.isawaitable(held):
                held = await held
            if held:
                return
            assert time.monotonic() < late, f"waited {seconds} s for {what}"
            await asyncio.sleep(0.1)

    async def close(self):
        await self.kill()
        self.listening.cancel()
        await asyncio.wait([self.listening])
        await self.client.close()
        self.nats.stop()
        if self.postgres:
            self.postgres.stop()


def equal(found, expected):
    assert found == expected, f"found    {found}\nexpected {expected}"


# ---- The tests. Each begins without a worker.


async def test_presence_names_commands_and_instance(stage):
    process = await stage.worker()
    (info,) = await stage.present()
    equal(info["name"], "printer")
    equal(info["metadata"]["commands"], "printer.print,printer.shred")
    answer = await stage.client.request("$SRV.STATS.printer", b"", timeout=2)
    stats = json.loads(answer.data)
    equal(stats["id"], info["id"])
    datetime.fromisoformat(stats["started"][:19] + "+00:00")
    config = (await stage.consumer()).config
    equal((config.filter_subject, config.ack_wait, config.max_deliver), ("steps.printer.print", 3, 20))
    await stage.kill(process)
    equal(await stage.present(), [])


async def test_command_is_answered_by_the_contract(stage):
    await stage.worker()
    asked = command(send=3, deadline=in_seconds(60))
    equal(await stage.ask(asked), [done(asked["saga"], deadline=True)])
    (message,) = stage.raw[asked["saga"]]
    worker = message.headers.pop("Worker")
    assert worker.endswith(f":{stage.workers[0].pid}"), worker
    equal(message.subject, "sagas.reply.printer")
    trace = message.headers.pop("traceparent")  # copied, or a child of it
    assert trace.startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-"), trace
    equal(message.headers, {
        "Saga": asked["saga"], "Step": "print", "Direction": "do", "Visit": "1", "Send": "3",
        "Message-Id": f"{asked['saga']}:print:do:1:3",
    })


async def test_duplicates_are_done_once_and_answered_each_time(stage):
    await asyncio.gather(stage.worker(), stage.worker())
    asked = command()
    await asyncio.gather(*(stage.send(asked) for _ in range(6)))
    await stage.acknowledged()
    equal(stage.replies[asked["saga"]], [done(asked["saga"])] * 6)
    equal(await stage.ask({**asked, "visit": 2}), [done(asked["saga"])])
    equal(await stage.badges(asked["saga"]), 1)


async def test_no_is_repeated_and_asked_anew_at_a_later_visit(stage):
    await stage.worker()
    no = {"outcome": "rejected", "code": "no_paper", "detail": {"printer": "hall 2"}}
    asked = command("refuse")
    for _ in range(2):
        equal(await stage.ask(asked), [no])
    equal(await stage.badges(asked["saga"]), 0)
    equal(await stage.ask({**asked, "how": "", "visit": 2}), [done(asked["saga"], visit=2)])
    equal(await stage.ask(asked), [])


async def test_late_do_after_undo_does_nothing(stage):
    await stage.worker()
    asked = command()
    undo = {**asked, "direction": "undo"}
    equal(await stage.ask(asked), [done(asked["saga"])])
    equal(await stage.ask(undo), [undone(1, True)])
    equal(await stage.ask(undo), [PLAIN_DONE])
    equal(await stage.ask(asked), [])
    equal(await stage.badges(asked["saga"]), 0)
    equal(await stage.ask({**asked, "visit": 2}), [done(asked["saga"], visit=2)])


async def test_undo_that_comes_first_keeps_its_do_away(stage):
    await stage.worker()
    undo = command(direction="undo", visit=2)
    equal(await stage.ask(undo), [undone(0, False)])
    equal(await stage.ask({**undo, "visit": 1}), [])
    for visit in (1, 2):
        equal(await stage.ask({**undo, "direction": "do", "visit": visit}), [])
    equal(await stage.badges(undo["saga"]), 0)


async def test_failed_undo_keeps_the_outcome(stage):
    await stage.worker()
    asked = command("fail to undo")
    undo = {**asked, "direction": "undo"}
    await stage.ask(asked)
    equal(await stage.ask(undo), [{"outcome": "failed", "code": "jammed"}])
    equal(await stage.badges(asked["saga"]), 1)
    equal(await stage.ask(undo), [undone(1, True)])


async def test_do_and_undo_at_once_leave_nothing(stage):
    await asyncio.gather(stage.worker(), stage.worker())
    asked = [command() for _ in range(20)]
    await asyncio.gather(*(stage.send({**one, "direction": way}) for one in asked for way in ("do", "undo")))
    await stage.acknowledged()
    for one in asked:
        undos = [reply for message, reply in zip(stage.raw[one["saga"]], stage.replies[one["saga"]])
                 if message.headers["Direction"] == "undo"]
        equal(len(undos), 1)
        equal(await stage.badges(one["saga"]), 0)


async def test_what_did_not_work_leaves_nothing_and_is_tried_again(stage):
    await stage.worker()
    for how, first in (
        ("fail", {"outcome": "failed", "code": "offline"}),
        ("doubt", {"outcome": "unknown", "reason": "it hums"}),
        ("break", {"outcome": "failed", "code": "handler_failed"}),
        ("throw", {"outcome": "failed", "code": "handler_failed"}),
    ):
        asked = command(how)
        equal(await stage.ask(asked), [first])
        equal(await stage.badges(asked["saga"]), 0)
        equal(await stage.ask({**asked, "send": 1}), [done(asked["saga"])])
        equal(await stage.badges(asked["saga"]), 1)


async def test_panic_leaves_nothing_and_the_command_comes_again(stage):
    if not stage.panics:
        raise Skip("the language has no panics")
    await stage.worker()
    asked = command("panic")
    equal(await stage.ask(asked), [done(asked["saga"])])
    equal(await stage.badges(asked["saga"]), 1)


async def test_output_that_cannot_be_kept_is_rolled_back(stage):
    await stage.worker()
    for how, code in (("large", "output_too_large"), ("nul", "handler_failed")):
        asked = command(how)
        equal(await stage.ask(asked), [{"outcome": "failed", "code": code}])
        equal(await stage.badges(asked["saga"]), 0)


async def test_handler_that_hangs_is_answered_unknown(stage):
    await stage.worker(LIMIT_MS="700")
    for how in ["hang"] + ["hang in the database"] * bool(stage.postgres):
        asked = command(how)
        equal(await stage.ask(asked), [{"outcome": "unknown", "reason": "the function did not end within 700 ms"}])
        equal(await stage.badges(asked["saga"]), 0)
        started = time.monotonic()
        equal(await stage.ask(asked), [done(asked["saga"])])
        assert time.monotonic() - started < 3, "a lock stayed"
        equal(await stage.badges(asked["saga"]), 1)


async def test_deadline_is_kept(stage):
    await stage.worker()
    late = command(deadline=in_seconds(-1))
    (reply,) = await stage.ask(late)
    equal((reply["outcome"], reply["code"]), ("rejected", "deadline_passed"))
    equal(await stage.badges(late["saga"]), 0)
    soon = {**late, "deadline": in_seconds(1.5)}
    equal(await stage.ask(soon), [done(late["saga"], deadline=True)])
    await asyncio.sleep(1.5)
    equal(await stage.ask(soon), [done(late["saga"], deadline=True)])
    hangs = command("hang", deadline=in_seconds(1.5))
    (reply,) = await stage.ask(hangs)
    equal(reply["outcome"], "unknown")
    undo = {**command(direction="undo"), "deadline": in_seconds(-1)}
    equal(await stage.ask(undo), [undone(0, False)])


async def test_slow_answer_is_not_delivered_twice(stage):
    await stage.worker()
    before = (await stage.consumer()).delivered.consumer_seq
    asked = command("slow")
    equal(await stage.ask(asked), [done(asked["saga"])])
    equal((await stage.consumer()).delivered.consumer_seq - before, 1)


async def test_slow_commands_do_not_hold_up_others(stage):
    if not stage.postgres:
        raise Skip("SQLite has one writer")
    await stage.worker()
    await asyncio.gather(*(stage.send(command("slow")) for _ in range(3)))
    await asyncio.sleep(0.3)
    started, asked = time.monotonic(), command()
    await stage.send(asked)
    await stage.until(lambda: stage.replies[asked["saga"]], "the quick one")
    assert time.monotonic() - started < 2
    await stage.acknowledged()


async def test_poison_comes_again_with_pauses_and_holds_up_no_other(stage):
    await stage.worker()
    before = (await stage.consumer()).delivered.consumer_seq
    poison = command()
    await stage.send(poison, Visit=None)
    await stage.send({**poison, "body": {"version": 2}})
    await stage.send(poison, Deadline="soon")
    asked = command()
    await stage.send(asked)
    await stage.until(lambda: stage.replies[asked["saga"]], "a good command")
    equal(stage.replies[asked["saga"]], [done(asked["saga"])])
    await asyncio.sleep(2.5)
    state = await stage.consumer()
    equal((state.num_ack_pending, state.num_redelivered), (3, 3))
    # One delivery of the good one; of each of the others four, after a quarter, a half and one second.
    times = state.delivered.consumer_seq - before - 1
    assert 9 <= times <= 12, f"{times} deliveries"
    equal(stage.replies[poison["saga"]], [])
    await stage.js.purge_stream("STEPS")


async def test_completion_by_hand_follows_the_fence(stage):
    await stage.worker()
    by_hand, ran, gone, refused, doubt = command(), command(), command(), command("refuse"), command("doubt")
    equal(await stage.complete(by_hand, {"badge": 77}), {"version": 1, "recorded": True})
    equal(await stage.ask(by_hand), [{"outcome": "done", "output": {"badge": 77}}])
    equal(await stage.badges(by_hand["saga"]), 0)
    known = {"version": 1, "recorded": False, "outcome": {"outcome": "done", "output": {"badge": 77}}}
    equal(await stage.complete(by_hand, {"badge": 78}), known)
    await stage.ask(ran)
    equal(await stage.complete(ran), {"version": 1, "recorded": False, "outcome": done(ran["saga"])})
    await stage.ask({**gone, "direction": "undo"})
    equal((await stage.complete(gone))["outcome"]["code"], "undone")
    await stage.ask(refused)
    equal((await stage.complete(refused))["outcome"]["code"], "no_paper")
    await stage.ask({**doubt, "visit": 2})
    equal((await stage.complete(doubt))["outcome"]["code"], "visit_over")
    for headers, body in (({}, b"{}"), (None, b"{}"), (None, b"[]"), (None, b'{"version":1,"output":{"a":"\\u0000"}}')):
        answer = await stage.complete(by_hand, headers=headers, body=body)
        equal(answer.headers["Nats-Service-Error-Code"], "400")
        assert answer.headers["Nats-Service-Error"]


async def test_completion_by_hand_does_not_wait_for_a_slow_handler(stage):
    await stage.worker()
    asked = command("slower")
    await stage.send(asked)
    await asyncio.sleep(0.5)
    answer = await stage.complete(asked, {"badge": 77})
    equal(answer.headers["Nats-Service-Error-Code"], "503")
    await stage.acknowledged()
    equal(stage.replies[asked["saga"]], [done(asked["saga"])])
    equal(await stage.complete(asked), {"version": 1, "recorded": False, "outcome": done(asked["saga"])})


async def test_kill_during_the_handler_leaves_nothing(stage):
    process = await stage.worker()
    asked = command("slow")
    await stage.send(asked)
    await asyncio.sleep(1)
    await stage.kill(process)
    equal(await stage.badges(asked["saga"]), 0)
    await stage.worker()
    await stage.acknowledged()
    equal(stage.replies[asked["saga"]], [done(asked["saga"])])
    equal(await stage.badges(asked["saga"]), 1)


async def test_kill_between_commit_and_reply_is_made_good(stage):
    process = await stage.worker()
    asked = command()
    await stage.js.delete_stream("SAGAS")
    await stage.listening
    await stage.send(asked)

    async def is_printed():
        return await stage.badges(asked["saga"]) == 1

    await stage.until(is_printed, "the badge")
    await stage.kill(process)
    await stage.js.add_stream(stage.stream("SAGAS", ["sagas.>"]))
    await stage.listen()
    await stage.worker()
    await stage.acknowledged()
    equal(stage.replies[asked["saga"]], [done(asked["saga"])])
    equal(await stage.badges(asked["saga"]), 1)


async def test_kill_before_the_acknowledgement_repeats_the_answer(stage):
    process = await stage.worker("mute")  # the server drops its acknowledgements
    asked = command()
    await stage.send(asked)
    await stage.until(lambda: stage.replies[asked["saga"]], "the reply")
    await stage.kill(process)
    equal((await stage.js.stream_info("STEPS")).state.messages, 1)
    await stage.worker()
    await stage.acknowledged()
    replies = stage.replies[asked["saga"]]
    assert len(replies) >= 2 and all(reply == done(asked["saga"]) for reply in replies), replies
    equal(await stage.badges(asked["saga"]), 1)


async def test_stop_finishes_what_is_in_hand(stage):
    process = await stage.worker()
    asked = command("slow")
    await stage.send(asked)
    await asyncio.sleep(1)
    process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.7)
    equal(await stage.present(), [])
    later = command()
    await stage.send(later)
    output, _ = await asyncio.wait_for(process.communicate(), 15)
    equal((process.returncode, output.strip()), (0, b"stopped"))
    stage.workers.remove(process)
    equal(stage.replies[asked["saga"]], [done(asked["saga"])])
    equal(stage.replies[later["saga"]], [])
    equal((await stage.js.stream_info("STEPS")).state.messages, 1)
    await stage.worker()
    await stage.acknowledged()
    equal(stage.replies[later["saga"]], [done(later["saga"])])


async def test_worker_without_the_right_to_make_consumers_waits_for_them(stage):
    for verb in ("print", "shred"):
        try:
            await stage.js.delete_consumer("STEPS", f"printer-{verb}")
        except NotFoundError:
            pass
    asked = command()
    await stage.worker("narrow")
    await stage.send(asked)
    await asyncio.sleep(1)
    await stage.make_consumers()
    await stage.acknowledged(30)
    equal(stage.replies[asked["saga"]], [done(asked["saga"])])
    equal(await stage.complete(command()), {"version": 1, "recorded": True})


async def test_worker_in_an_account_of_its_own_serves_the_same(stage):
    await stage.make_consumers()
    process = await stage.worker("printer", NATS_DOMAIN="boxoffice")
    (info,) = await stage.present()
    equal(info["metadata"]["commands"], "printer.print,printer.shred")
    for asked in (command(), command("slow")):
        equal(await stage.ask(asked), [done(asked["saga"])])
        equal(await stage.ask({**asked, "direction": "undo"}), [undone(1, True)])
    equal(await stage.complete(command()), {"version": 1, "recorded": True})
    process.send_signal(signal.SIGTERM)
    equal(await asyncio.wait_for(process.wait(), 15), 0)


async def test_nothing_is_asked_for_while_the_database_is_away(stage):
    await stage.worker()
    equal(len(await stage.ask(command())), 1)
    asked = command()
    if stage.postgres:
        stage.postgres.stop()
        await stage.send(asked)

        async def is_resting():
            return (await stage.consumer()).num_waiting == 0

        await stage.until(is_resting, "the worker to ask for no more", 15)
        await asyncio.sleep(1)
        equal((await stage.consumer()).num_waiting, 0)
        answer = await stage.complete(command())
        equal(answer.headers["Nats-Service-Error-Code"], "503")
        stage.postgres.start()
    else:
        other = sqlite3.connect(stage.database.removeprefix("sqlite:"), isolation_level=None)
        other.execute("begin immediate")
        await stage.send(asked)
        await asyncio.sleep(7)
        equal(stage.replies[asked["saga"]], [])
        other.execute("rollback")
        other.close()
    await stage.acknowledged(40)
    equal(stage.replies[asked["saga"]], [done(asked["saga"])])
    equal(await stage.badges(asked["saga"]), 1)


async def test_worker_goes_on_after_its_consumer_was_deleted(stage):
    await stage.worker()
    await stage.ask(command())
    await stage.js.delete_consumer("STEPS", "printer-print")
    asked = command()
    await stage.send(asked)
    await stage.acknowledged(30)
    equal(stage.replies[asked["saga"]], [done(asked["saga"])])


async def test_worker_goes_on_after_nats_was_restarted(stage):
    process = await stage.worker()
    slow, later = command("slow"), command()
    await stage.send(slow)
    await asyncio.sleep(1)
    stage.nats.stop()
    await asyncio.sleep(2)
    stage.nats.start()
    await stage.until(lambda: stage.client.is_connected, "the connection")
    await stage.send(later)
    await stage.acknowledged(30)
    for asked in (slow, later):
        replies = stage.replies[asked["saga"]]
        assert replies and all(reply == done(asked["saga"]) for reply in replies), replies
        equal(await stage.badges(asked["saga"]), 1)
    assert await stage.is_present(process)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", choices=["postgres", "sqlite"], required=True)
    parser.add_argument("--panics", action="store_true", help="the language has panics beside errors")
    parser.add_argument("--only", default="", help="run the tests with this in their names")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_") and options.only in name]
    failures = skips = 0
    with tempfile.TemporaryDirectory(prefix="boxoffice-sdk-") as place:
        stage = Stage(Path(place), options.database, options.program, options.panics)
        try:
            await stage.open()
            for name, test in tests:
                started = time.monotonic()
                try:
                    await asyncio.wait_for(test(stage), 120)
                    print(f"ok    {name} ({time.monotonic() - started:.1f} s)", flush=True)
                except Skip as reason:
                    skips += 1
                    print(f"skip  {name}: {reason}")
                except Exception:
                    failures += 1
                    print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
                await stage.kill()
                await stage.js.purge_stream("STEPS")
        finally:
            await stage.close()
        if failures:
            print((Path(place) / "worker.log").read_text(errors="replace")[-20_000:], file=sys.stderr)
    print(f"{len(tests) - failures - skips} passed, {failures} failed, {skips} skipped")
    return 1 if failures else 0


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers are stopped on the way out
sys.exit(asyncio.run(main()))
