"""The decisions of the fence. Pure functions: the table of docs/workers.md, checked by sdk/fence-cases.json."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .command import Command
from .outcome import Outcome, done, rejected


@dataclass(frozen=True)
class Known:
    """The row of one step of one saga."""

    visit: int = 0  # the latest visit that was begun
    undone: int = 0  # every do up to this visit is refused
    outcome: Outcome | None = None  # done or rejected at that visit; None while it is not known

    @property
    def output(self) -> dict[str, Any] | None:
        return self.outcome["output"] if self.outcome and self.outcome["outcome"] == "done" else None


@dataclass(frozen=True)
class Ignore:
    """The command belongs to the past: acknowledge it without a reply."""


@dataclass(frozen=True)
class Reply:
    """Answer without running the handler. The row stays as it is."""

    outcome: Outcome


@dataclass(frozen=True)
class Run:
    """Run the handler. An undo gets the output of the do, if the do is known to be done."""

    done: dict[str, Any] | None = None


def decide(known: Known, command: Command, now: datetime) -> Ignore | Reply | Run:
    """Decides about a command by the row and by the clock, both read after the lock."""
    visit = command.visit
    if command.direction == "undo":
        if visit < known.undone:
            return Ignore()
        if visit == known.undone:
            return Reply(done())
        return Run(known.output)
    if visit <= known.undone or visit < known.visit:
        return Ignore()
    if known.outcome and (visit == known.visit or known.output is not None):
        return Reply(known.outcome)
    if command.deadline and now >= command.deadline:
        return Reply(rejected("deadline_passed"))
    return Run()


def after(known: Known, command: Command, outcome: Outcome) -> Known:
    """What the row becomes once the handler ran. `failed` and `unknown` leave only the visit behind."""
    kind = outcome["outcome"]
    if command.direction == "undo":
        return replace(known, undone=max(known.undone, command.visit), outcome=None) if kind == "done" else known
    return replace(known, visit=command.visit, outcome=outcome if kind in ("done", "rejected") else None)


def complete(known: Known, visit: int, output: dict[str, Any]) -> tuple[Known | None, dict[str, Any]]:
    """Decides about a completion by hand: what the row becomes if it is recorded, and the answer."""
    if visit <= known.undone:
        return None, _ran(rejected("undone"))
    if known.outcome and (visit == known.visit or known.output is not None):
        return None, _ran(known.outcome)
    if visit < known.visit:
        return None, _ran(rejected("visit_over"))
    return replace(known, visit=visit, outcome=done(**output)), {"version": 1, "recorded": True}


def _ran(outcome: Outcome) -> dict[str, Any]:
    return {"version": 1, "recorded": False, "outcome": outcome}


def time_limit(limit: float, command: Command, now: datetime) -> float:
    """The seconds that a command may take: a do at most until its deadline. A late do is answered by the row."""
    if command.direction == "do" and command.deadline:
        left = (command.deadline - now).total_seconds()
        if left > 0:
            return min(limit, left)
    return limit
