"""Reading commands and writing replies: headers, and JSON with a version."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Mapping
from uuid import UUID

from .outcome import Outcome, check, done

COPIED = ("Saga", "Step", "Direction", "Visit", "Send", "Message-Id", "traceparent")


class Malformed(ValueError):
    """A message that is not of its form. It is not acknowledged; in the end the orchestrator keeps it for an operator."""


@dataclass(frozen=True)
class Command:
    """What a handler is asked."""

    saga: UUID
    step: str
    direction: str  # "do" or "undo"
    visit: int
    send: int = 0
    deadline: datetime | None = None  # only on a do
    command: str = ""  # such as "printer.print"
    workflow: str = ""
    reason: str | None = None  # on an undo: why the saga turned back
    context: Any = None  # the saga's input and the outputs of its earlier steps
    done: dict[str, Any] | None = None  # on an undo: the output of the do, if it is known to be done
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_fence(headers: Mapping[str, str] | None) -> dict[str, Any]:
    """The headers that name a step of a saga at a visit."""
    headers = headers or {}
    try:
        saga = UUID(headers["Saga"])
    except (KeyError, ValueError):
        raise Malformed("the header Saga is missing or not a UUID") from None
    if headers.get("Direction") not in ("do", "undo"):
        raise Malformed("the header Direction must be do or undo")
    if "Step" not in headers or "\0" in headers["Step"]:
        raise Malformed("the header Step is missing or cannot be kept")
    visit, send = _number(headers, "Visit"), _number(headers, "Send", "0")
    return {"saga": saga, "step": headers["Step"], "direction": headers["Direction"], "visit": visit, "send": send}


def _number(headers: Mapping[str, str], name: str, default: str = "") -> int:
    text = headers.get(name, default)
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", text) or not -(2**31) <= int(text) < 2**31:
        raise Malformed(f"the header {name} is missing or not a number of 32 bits")
    return int(text)


def read_body(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict) or body.get("version") != 1:
        raise Malformed("the body is not an object of version 1")
    return body


def read_command(subject: str, headers: Mapping[str, str] | None, data: bytes) -> Command:
    fence, body = read_fence(headers), read_body(data)
    if "context" not in body or not isinstance(body.get("workflow"), str):
        raise Malformed("the body lacks workflow or context")
    reason = body.get("reason")
    if reason is not None and (not isinstance(reason, str) or "\0" in reason):
        raise Malformed("the reason is no text or cannot be kept")
    deadline = _read_deadline((headers or {}).get("Deadline"))
    command, workflow, context = subject.removeprefix("steps."), body["workflow"], body["context"]
    return Command(
        **fence, deadline=deadline, command=command, workflow=workflow, reason=reason, context=context, headers=headers
    )


def _read_deadline(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        deadline = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("the header Deadline is not of RFC 3339") from None
    if deadline.tzinfo is None or not 2000 <= deadline.year < 2200:
        raise Malformed("the header Deadline must name its zone and lie between the years 2000 and 2200")
    return deadline


def read_completion(headers: Mapping[str, str] | None, data: bytes) -> tuple[UUID, str, int, dict[str, Any]]:
    """A completion by hand: saga, step, visit, output."""
    fence, body = read_fence(headers), read_body(data)
    if fence["direction"] != "do":
        raise Malformed("the header Direction of a completion must be do")
    output = body.get("output", {})
    try:
        check({**done(), "output": output})
    except ValueError as error:
        raise Malformed(str(error)) from None
    return fence["saga"], fence["step"], fence["visit"], output


def write_reply(command: Command, outcome: Outcome, worker: str) -> tuple[str, dict[str, str], bytes]:
    """Subject, headers and body of the reply to a command."""
    service = command.command.split(".")[0]
    headers = {name: command.headers[name] for name in COPIED if name in command.headers}
    body = json.dumps({"version": 1, **outcome}, ensure_ascii=False, allow_nan=False)
    return f"sagas.reply.{service}", {**headers, "Worker": worker}, body.encode()
