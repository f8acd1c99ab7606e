"""A worker of an example step: it prints a badge for every paid booking.

    python worker.py nats://127.0.0.1:4222 printer.db

The effect (a row in `badges`) and the fence live in one SQLite database, so that one transaction holds both.
"""

import asyncio, json, os, socket, sqlite3, sys
from datetime import datetime, timezone

import nats
from nats.js.api import ConsumerConfig
from nats.micro import add_service
from nats.micro.request import ServiceError

SERVICE, COMMANDS = "badges", ["badges.print", "badges.shred"]
COPIED = ["Saga", "Step", "Direction", "Visit", "Send", "Message-Id", "traceparent"]
KEEP_DAYS = 30  # longer than the longest deadline, and the seven days that a command may lie in the stream
WORKER = f"{socket.gethostname()}/{os.getpid()}"

memory = sqlite3.connect(sys.argv[2], isolation_level=None)
memory.executescript("""
    pragma journal_mode = wal;
    pragma busy_timeout = 5000;
    create table if not exists badges (reservation text, badge text);
    create table if not exists outcomes (saga text, step text, visit int default 0, undone int default 0,
                                         outcome text, touched text, primary key (saga, step));""")


def locked(saga, step, act):
    """Runs `act` with what is remembered of a step, locked; writes what it returns; commits both, or nothing."""
    memory.execute("begin immediate")
    try:
        memory.execute("""insert into outcomes (saga, step, touched) values (?, ?, datetime('now'))
                          on conflict (saga, step) do update set touched = excluded.touched""", (saga, step))
        row = memory.execute("select visit, undone, outcome from outcomes where saga = ? and step = ?", (saga, step))
        visit, undone, outcome = row.fetchone()
        answer, visit, undone, outcome = act(visit, undone, json.loads(outcome) if outcome else None)
        memory.execute("update outcomes set visit = ?, undone = ?, outcome = ? where saga = ? and step = ?",
                       (visit, undone, json.dumps(outcome) if outcome else None, saga, step))
        memory.execute("commit")
        return answer
    except BaseException:
        memory.execute("rollback")
        raise


def handle(headers, body):
    """The answer to a command, or None if it belongs to the past: the table of the fence, row by row."""
    asked, context = int(headers["Visit"]), body["context"]
    if body["version"] != 1 or headers["Direction"] not in ("do", "undo"):
        raise ValueError("this is no command that is known here")

    def undo(visit, undone, saved):
        if asked < undone:
            return None, visit, undone, saved
        if saved and saved["outcome"] == "done":
            memory.execute("delete from badges where badge = ?", (saved["output"]["badge"],))
            print("shredded", saved["output"]["badge"], flush=True)
        return {"outcome": "done"}, visit, asked, None

    def do(visit, undone, saved):
        if asked <= undone or asked < visit:
            return None, visit, undone, saved
        if saved and (asked == visit or saved["outcome"] == "done"):
            return saved, visit, undone, saved
        deadline = headers.get("Deadline")
        if deadline and datetime.now(timezone.utc) >= datetime.fromisoformat(deadline.replace("Z", "+00:00")):
            return {"outcome": "rejected", "code": "deadline_passed"}, visit, undone, saved
        if not context.get("seats"):
            answer = {"outcome": "rejected", "code": "no_seats", "detail": {}}
        else:
            badge = "-".join([headers["Saga"][-8:], *map(str, context["seats"])])
            memory.execute("insert into badges values (?, ?)", (context["reservation_id"], badge))
            print("printed", badge, flush=True)
            answer = {"outcome": "done", "output": {"badge": badge}}
        return answer, asked, undone, answer

    return locked(headers["Saga"], headers["Step"], undo if headers["Direction"] == "undo" else do)


async def complete(request):
    """An operator says that a step is done. Unless this service knows better, it remembers that."""
    try:
        saga, step, asked = (request.headers[name] for name in ("Saga", "Step", "Visit"))
        output, asked = json.loads(request.data).get("output", {}), int(asked)
    except Exception as error:
        raise ServiceError("400", f"this cannot be read: {error!r}")

    def by_hand(visit, undone, saved):
        known = saved if saved and (saved["outcome"] == "done" or asked == visit) else None
        if asked <= undone:
            known = {"outcome": "rejected", "code": "undone"}
        elif not known and asked < visit:
            known = {"outcome": "rejected", "code": "visit_over"}
        if known:
            return {"version": 1, "recorded": False, "outcome": known}, visit, undone, saved
        return {"version": 1, "recorded": True}, asked, undone, {"outcome": "done", "output": output}

    await request.respond(json.dumps(locked(saga, step, by_hand)).encode())


async def serve(js, command):
    """Takes one command's messages: handle, commit, reply, acknowledge, in this order."""
    config = ConsumerConfig(durable_name=command.replace(".", "-"), filter_subject=f"steps.{command}",
                            ack_wait=5, max_deliver=20)
    while True:
        try:
            await js.consumer_info("STEPS", config.durable_name)
            break
        except nats.js.errors.NotFoundError:
            try:
                await js.add_consumer("STEPS", config)
            except nats.errors.Error:  # no right to make it: the engine does, once this worker is announced
                await asyncio.sleep(1)
    commands = await js.pull_subscribe_bind(config.durable_name, "STEPS")
    while True:
        try:
            messages = await commands.fetch(64, timeout=5)
        except asyncio.TimeoutError:
            continue
        for message in messages:
            try:
                answer = handle(message.headers, json.loads(message.data))
                if answer:
                    headers = {name: message.headers[name] for name in COPIED if name in message.headers}
                    body = json.dumps({"version": 1, **answer}).encode()
                    await js.publish(f"sagas.reply.{SERVICE}", body, headers={**headers, "Worker": WORKER})
                await message.ack()
            except Exception as error:  # it comes again; after twenty times the orchestrator keeps it for an operator
                print("not handled:", repr(error), file=sys.stderr, flush=True)
                await message.nak(delay=1)


async def forget():
    """Outcomes older than any command."""
    while True:
        memory.execute("delete from outcomes where touched < datetime('now', ?)", (f"-{KEEP_DAYS} days",))
        await asyncio.sleep(3600)


async def main():
    client = await nats.connect(sys.argv[1], max_reconnect_attempts=-1)
    metadata = {"commands": ",".join(COMMANDS), "instance": WORKER}
    service = await add_service(client, name=SERVICE, version="1.0.0", metadata=metadata)
    await service.add_endpoint(name="complete", subject=f"fences.{SERVICE}.complete", handler=complete)
    js = client.jetstream(domain=os.environ.get("NATS_DOMAIN"))  # set if JetStream belongs to another account
    print("serving", *COMMANDS, flush=True)
    await asyncio.gather(forget(), *(serve(js, command) for command in COMMANDS))


asyncio.run(main())
