"""A whole Box Office with the workflow of examples/badge_printer, and a worker of an SDK that serves its step `print`.

    BOXOFFICE=../../target/debug/boxoffice python booking.py -- python ../python/examples/badges.py
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import asyncpg
import nats

from servers import Nats, Postgres, free_port

ROOT = Path(__file__).resolve().parents[2]
BOX_OFFICE = os.environ.get("BOXOFFICE", ROOT / "target/debug/boxoffice")


class BoxOffice:
    def __init__(self, folder: Path, database: str, nats_url: str):
        self.folder, self.base = folder, f"http://127.0.0.1:{free_port()}"
        self.settings = ["--database-url", database, "--nats-url", nats_url, "--data-dir", str(folder / "data")]
        listen = self.base.removeprefix("http://")
        short = ["--hold-seconds", "4", "--payment-grace-seconds", "6", "--settle-ms", "500"]
        self.workflows = ["--workflows", str(ROOT / "examples/badge_printer")]
        arguments = ["up", "--local", "true", "--listen", listen, *self.settings, *self.workflows, *short]
        self.log = open(folder / "boxoffice.log", "wb")
        self.process = subprocess.Popen([BOX_OFFICE, *arguments], stdout=self.log, stderr=self.log)

    def call(self, path: str, body=None, user=None, place=None, method=None, accept=(200, 201, 202)):
        headers = {"content-type": "application/json", "idempotency-key": str(uuid.uuid4())}
        if user:
            headers["authorization"] = f"Bearer {user}"
        if place:
            headers["queue-token"] = place
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from None

    def command(self, *arguments: str):
        ran = subprocess.run(
            [BOX_OFFICE, *arguments, "--json", *self.settings, *self.workflows], capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, f"{arguments}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return json.loads(ran.stdout)

    async def until(self, holds, what: str, seconds: float = 20):
        late = time.monotonic() + seconds
        while True:
            found = await holds()
            if found:
                return found
            assert self.process.poll() is None, "Box Office has ended"
            assert time.monotonic() < late, f"waited {seconds} s for {what}"
            await asyncio.sleep(0.2)

    async def is_ready(self):
        try:
            return self.call("/readyz")
        except (OSError, ValueError, AssertionError):
            return None


class Buyer:
    def __init__(self, box: BoxOffice, name: str):
        self.box = box
        self.user = box.call("/v1/users", {"name": name})["access_token"]
        box.call("/v1/points/charges", {"amount": 100_000}, self.user)

    async def join(self):
        concert = self.box.call("/v1/concerts", user=self.user)["items"][0]["id"]
        self.place = self.box.call(f"/v1/concerts/{concert}/queue-tokens", user=self.user, method="POST")["token"]

        async def is_active():
            return self.box.call("/v1/queue-tokens/current", user=self.user, place=self.place)["status"] == "active"

        await self.box.until(is_active, "the place in line")
        self.date = self.box.call(f"/v1/concerts/{concert}/performances", user=self.user, place=self.place)["items"][0]["id"]

    async def hold(self, *seats: int) -> str:
        await self.join()  # a place in line is good for one purchase
        order = {"performance_id": self.date, "seats": seats}
        return self.box.call("/v1/reservations", order, self.user, self.place)["id"]

    def pay(self, held: str):
        return self.box.call(f"/v1/reservations/{held}/payment", None, self.user, self.place, "POST")

    def status(self, held: str) -> str:
        return self.box.call(f"/v1/reservations/{held}", user=self.user, place=self.place)["status"]

    def balance(self) -> int:
        entries = self.box.call("/v1/points/entries", user=self.user)["items"]
        return entries[0]["balance"]

    async def until(self, held: str, status: str, seconds: float = 25):
        async def is_so():
            return self.status(held) == status

        await self.box.until(is_so, f"the reservation to be {status}", seconds)


async def play(box: BoxOffice, servers, program):
    await box.until(box.is_ready, "Box Office", 60)
    pool = await asyncpg.connect(servers[1].url("badges"))
    client = await nats.connect(servers[0].url())
    log = open(box.folder / "worker.log", "ab")

    async def start():
        settings = {**os.environ, "NATS_URL": servers[0].url(), "DATABASE_URL": servers[1].url("badges")}
        return subprocess.Popen(program, env=settings, stdout=log, stderr=log)

    async def badges(saga: str) -> int:
        return await pool.fetchval("select count(*) from badges where saga = $1", uuid.UUID(saga))

    async def pause(consumer: str, seconds: float):
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        subject = f"$JS.API.CONSUMER.PAUSE.STEPS.{consumer}"
        answer = await client.request(subject, json.dumps({"pause_until": until} if seconds else {}).encode())
        assert "error" not in json.loads(answer.data), answer.data

    worker = await start()
    try:
        buyer = Buyer(box, "Ada")
        held = await buyer.hold(1, 2)
        buyer.pay(held)
        await buyer.until(held, "confirmed")
        assert await badges(held) == 1
        print("ok    booking goes through the worker")

        # The worker is killed; the step waits for the next one.
        worker.kill()
        worker.wait()
        held = await buyer.hold(3)
        buyer.pay(held)
        await asyncio.sleep(1)
        assert buyer.status(held) == "held"
        worker = await start()
        await buyer.until(held, "confirmed")
        assert await badges(held) == 1
        print("ok    booking waits for the next worker")

        # The step after it is held back past the deadline: the badge is shredded, the points come back.
        before = buyer.balance()
        await pause("tickets-issue", 3600)
        held = await buyer.hold(4)
        buyer.pay(held)

        async def is_printed():
            return await badges(held) == 1

        async def is_shredded():
            return await badges(held) == 0

        await box.until(is_printed, "the badge")
        await box.until(is_shredded, "the badge to be shredded", 30)
        await buyer.until(held, "expired")
        assert buyer.balance() == before, (buyer.balance(), before)
        await pause("tickets-issue", 0)
        print("ok    booking past its deadline is undone by the worker")

        # An operator completes the step; the late command prints nothing.
        await pause("badges-print", 3600)
        held = await buyer.hold(5)
        buyer.pay(held)
        why = ["--reason", "printed by hand"]
        await asyncio.sleep(1)
        box.command("saga", "complete", held, "--output", '{"badge": "by hand"}', *why)
        await buyer.until(held, "confirmed")
        await pause("badges-print", 0)
        await asyncio.sleep(2)
        assert await badges(held) == 0
        shown = json.dumps(box.command("saga", "show", held))
        assert "by hand" in shown, shown
        print("ok    step completed by hand is not done again")

        worker.terminate()
        assert worker.wait(10) == 0, worker.returncode
        print("ok    worker stops when it is asked to")
    finally:
        worker.kill()
        worker.wait()
        await pool.close()
        await client.close()


async def main():
    program = sys.argv[sys.argv.index("--") + 1 :]
    with tempfile.TemporaryDirectory(prefix="boxoffice-sdk-") as place:
        folder = Path(place)
        servers, box = [], None
        try:
            servers.append(Nats(folder))
            servers.append(Postgres(folder))
            admin = await asyncpg.connect(servers[1].url())
            for name in ("boxoffice", "badges"):
                await admin.execute(f"create database {name}")
            await admin.close()
            box = BoxOffice(folder, servers[1].url("boxoffice"), servers[0].url())
            await play(box, servers, program)
        except Exception:
            for name in ("worker.log", "boxoffice.log"):
                if (folder / name).exists():
                    print(f"---- {name}\n{(folder / name).read_text(errors='replace')[-6_000:]}", file=sys.stderr)
            raise
        finally:
            if box:
                box.process.terminate()
                try:
                    box.process.wait(30)
                except subprocess.TimeoutExpired:
                    box.process.kill()
            for server in servers:
                server.stop()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers are stopped on the way out
asyncio.run(main())
