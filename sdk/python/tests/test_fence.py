"""The cases of sdk/fence-cases.json, which every SDK runs."""

import json
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import asyncpg

from boxoffice_worker import fence
from boxoffice_worker.command import Command, Malformed, read_command, read_completion, write_reply
from boxoffice_worker.outcome import OUTPUT_BYTES_MAX, check, done, is_too_large, json_bytes
from boxoffice_worker.postgres import Postgres
from boxoffice_worker.worker import StartError, Worker, pause_after

CASES = json.loads((Path(__file__).parents[2] / "fence-cases.json").read_text())
NOW = datetime(2027, 1, 15, tzinfo=timezone.utc)
SAGA = UUID("01a1fcbd-1604-7519-a173-55615421f06d")


def command(given):
    seconds = given.get("deadline_s")
    deadline = None if seconds is None else NOW + timedelta(seconds=seconds)
    return Command(SAGA, "print", given["direction"], given.get("visit", 1), deadline=deadline)


def decision(decided):
    match decided:
        case fence.Ignore():
            return {"ignore": True}
        case fence.Reply(outcome):
            return {"reply": outcome}
        case fence.Run(output):
            return {"run": {"done": output}}


class Cases(unittest.TestCase):
    def test_decide(self):
        for case in CASES["decide"]:
            with self.subTest(case["name"]):
                decided = fence.decide(fence.Known(**case["known"]), command(case["command"]), NOW)
                self.assertEqual(decision(decided), case["decision"])

    def test_after(self):
        for case in CASES["after"]:
            with self.subTest(case["name"]):
                becomes = fence.after(fence.Known(**case["known"]), command(case["command"]), case["outcome"])
                self.assertEqual(becomes, fence.Known(**case["becomes"]))

    def test_complete(self):
        for case in CASES["complete"]:
            with self.subTest(case["name"]):
                becomes, answer = fence.complete(fence.Known(**case["known"]), case["visit"], case["output"])
                self.assertEqual(becomes, case["becomes"] and fence.Known(**case["becomes"]))
                self.assertEqual(answer, case["answer"])

    def test_limit(self):
        for case in CASES["limit"]:
            with self.subTest(case["name"]):
                self.assertEqual(fence.time_limit(case["limit_s"], command(case), NOW), case["expected_s"])

    def test_outcomes(self):
        for case in CASES["outcomes"]:
            with self.subTest(case["name"]):
                if case["can_be_kept"]:
                    check(case["outcome"])
                else:
                    self.assertRaises(ValueError, check, case["outcome"])

    def test_sqlstates(self):
        database = Postgres(None)
        for is_away, name in ((False, "the work is at fault"), (True, "the database is away")):
            for code in CASES["sqlstates"][name]:
                with self.subTest(code):
                    error = asyncpg.PostgresError()
                    error.sqlstate = code
                    self.assertEqual(database.is_away(error), is_away)
        self.assertFalse(database.is_away(ConnectionError("of something else")))


class Outcomes(unittest.TestCase):
    def test_depth_has_a_bound(self):
        nested = [1]
        for _ in range(62):
            nested = [nested]
        check(done(a=nested))
        self.assertRaises(ValueError, check, done(a=[nested]))

    def test_values_that_json_lacks_are_refused(self):
        for value in (float("nan"), float("inf"), 2**64, {1: 2}, b"x", "\ud800"):
            self.assertRaises(ValueError, check, done(a=value))

    def test_large_outputs_are_found(self):
        self.assertFalse(is_too_large({}, {"x": "y" * (OUTPUT_BYTES_MAX - 100)}))
        self.assertTrue(is_too_large({}, {"x": "y" * OUTPUT_BYTES_MAX}))
        self.assertTrue(is_too_large("z" * (768 * 1024 - 1_000), {"x": "y" * 2_000}))

    def test_json_is_never_larger_than_counted(self):
        value = {"a": [1, -2.5e-300, None, True, False], '\x01"\\': "é\n", "b": {}}
        real = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        self.assertTrue(real <= json_bytes(value) < real + 60)


class Messages(unittest.TestCase):
    headers = {"Saga": str(SAGA), "Step": "print", "Direction": "do", "Visit": "2", "Send": "1", "Message-Id": "m"}
    body = json.dumps({"version": 1, "workflow": "party", "context": {"how": ""}}).encode()

    def read(self, changes=(), body=body):
        headers = {name: value for name, value in {**self.headers, **dict(changes)}.items() if value is not None}
        return read_command("steps.printer.print", headers, body)

    def test_a_command_is_read_and_answered(self):
        read = self.read({"Deadline": "2027-01-15T00:00:00.123456Z"})
        self.assertEqual((read.saga, read.visit, read.send, read.command), (SAGA, 2, 1, "printer.print"))
        self.assertEqual(read.deadline, NOW.replace(microsecond=123456))
        subject, headers, body = write_reply(read, done(badge=1), "host:1")
        self.assertEqual((subject, headers), ("sagas.reply.printer", {**self.headers, "Worker": "host:1"}))
        self.assertEqual(json.loads(body), {"version": 1, "outcome": "done", "output": {"badge": 1}})

    def test_malformed_commands_are_refused(self):
        for name, value in [
            ("Saga", None), ("Saga", "x"), ("Step", None), ("Direction", "redo"), ("Visit", None), ("Visit", "one"),
            ("Visit", "2147483648"), ("Send", "x"), ("Deadline", "soon"), ("Deadline", "2027-01-15T00:00:00"),
            ("Deadline", "1999-01-15T00:00:00Z"),
        ]:
            with self.subTest(name=name, value=value):
                self.assertRaises(Malformed, self.read, {name: value})
        for body in (b"", b"[]", b'{"version":2,"workflow":"w","context":{}}', b'{"version":1,"workflow":"w"}'):
            with self.subTest(body=body):
                self.assertRaises(Malformed, self.read, (), body)

    def test_malformed_completions_are_refused(self):
        self.assertEqual(read_completion(self.headers, b'{"version":1}'), (SAGA, "print", 2, {}))
        for body in (b'{"version":1,"output":[]}', b'{"version":1,"output":{"a":"\\u0000"}}'):
            self.assertRaises(Malformed, read_completion, self.headers, body)
        self.assertRaises(Malformed, read_completion, {**self.headers, "Direction": "undo"}, b'{"version":1}')


class Workers(unittest.TestCase):
    def test_commands_belong_to_the_service(self):
        self.assertRaises(StartError, Worker("printer", None).step, "seats.hold", lambda tx, command: None)

    def test_the_pause_grows_to_a_minute(self):
        self.assertEqual([pause_after(n) for n in (1, 4, 1_000)], [0.25, 2.0, 60.0])


class Readme(unittest.TestCase):
    def test_the_readme_shows_the_example_as_it_is(self):
        folder = Path(__file__).parents[1]
        example = (folder / "examples/badges.py").read_text()
        self.assertIn(f"```python\n{example}```", (folder / "README.md").read_text())


if __name__ == "__main__":
    unittest.main()
