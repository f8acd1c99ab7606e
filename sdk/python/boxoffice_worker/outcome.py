"""What a worker answers, and what of it the engine can keep."""

from __future__ import annotations

import math
from typing import Any

# An outcome as it travels: {"outcome": "done", "output": {...}} and so on.
Outcome = dict[str, Any]

OUTPUT_BYTES_MAX = 256 * 1024  # the output of one step
CONTEXT_BYTES_MAX = 768 * 1024  # the input and all outputs of a saga together
DEPTH_MAX = 64  # levels of arrays and objects
_TEXTS = {"done": (), "rejected": ("code",), "failed": ("code",), "unknown": ("reason",)}


def done(**output: Any) -> Outcome:
    """The effect is there. The output joins the saga's context."""
    return {"outcome": "done", "output": output}


def rejected(code: str, detail: Any = None) -> Outcome:
    """A business no: nothing was done, and asking again would not change it."""
    return {"outcome": "rejected", "code": code, "detail": detail}


def failed(code: str) -> Outcome:
    """Nothing was done this time. The engine tries again."""
    return {"outcome": "failed", "code": code}


def unknown(reason: str) -> Outcome:
    """The effect may have taken place. The engine asks again with the same visit."""
    return {"outcome": "unknown", "reason": reason}


def check(outcome: Outcome) -> None:
    """Raises ValueError if the engine's database cannot keep the outcome as it is."""
    kind = outcome.get("outcome") if isinstance(outcome, dict) else None
    if kind not in _TEXTS or any(not isinstance(outcome.get(name), str) for name in _TEXTS[kind]):
        raise ValueError(f"a handler must return done(), rejected(), failed() or unknown(), not {outcome!r:.200}")
    if kind == "done" and not isinstance(outcome.get("output"), dict):
        raise ValueError("an output must be an object")
    for name in ("output", "code", "detail", "reason"):
        _check_value(outcome.get(name), name, 1)


def _check_value(value: Any, where: str, depth: int) -> None:
    match value:
        case None | bool():
            return
        case str():
            if "\0" in value:
                raise ValueError(f"{where} must not have the character U+0000 in it")
            value.encode()  # a lone surrogate has no UTF-8
        case int():
            if not -(2**63) <= value < 2**64:
                raise ValueError(f"{where} is a number that would be rounded; send it as a string")
        case float():
            digits = sum(letter.isdigit() for letter in repr(value).split("e")[0].rstrip("0").rstrip("."))
            if not math.isfinite(value) or (abs(value) > 2**53 and digits > 15):
                raise ValueError(f"{where} is a number that would be rounded; send it as a string")
        case list() | tuple() | dict() if depth > DEPTH_MAX:
            raise ValueError(f"{where} is nested too deep: {DEPTH_MAX} levels are possible")
        case list() | tuple():
            for at, item in enumerate(value):
                _check_value(item, f"{where}/{at}", depth + 1)
        case dict():
            for name, item in value.items():
                if not isinstance(name, str):
                    raise ValueError(f"{where} has a field whose name is no text: {name!r}")
                _check_value(name, where, depth)
                _check_value(item, f"{where}/{name}", depth + 1)
        case _:
            raise ValueError(f"{where} is a {type(value).__name__}, which JSON does not have")


def is_too_large(context: Any, output: dict[str, Any]) -> bool:
    """Whether an output would fit no message, alone or with what the saga knows already."""
    size = json_bytes(output)
    return size > OUTPUT_BYTES_MAX or json_bytes(context) + size > CONTEXT_BYTES_MAX


def json_bytes(value: Any) -> int:
    """The size as the engine counts it: at least that of the JSON, with 24 bytes for each number."""
    match value:
        case bool() | None:
            return 5 if value is False else 4
        case int() | float():
            return 24
        case str():
            escapes = sum(1 if letter in '"\\' else 5 for letter in value if letter in '"\\' or letter < " ")
            return 2 + len(value.encode()) + escapes
        case list() | tuple():
            return 2 + sum(1 + json_bytes(item) for item in value)
        case _:
            return 2 + sum(2 + json_bytes(name) + json_bytes(item) for name, item in value.items())
