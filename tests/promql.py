"""Enough of PromQL to try our alerts without Prometheus: a sample a minute, no extrapolation, lookback of five minutes.

Where promtool is on the PATH, the same cases run there too (test_alert_rules.py), so that the two check each other.
"""

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isnan, nan
from statistics import fmean
from typing import Any

import promql_parser

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Samples = dict[tuple[str, Labels], list[float | None]]

LOOKBACK_MINUTES = 5
STALE = nan  # what Prometheus writes at a series' end: there is no looking back beyond it
COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "==": operator.eq,
}
COMPUTE: dict[str, Callable[[float, float], float]] = {
    "*": operator.mul,
    "-": operator.sub,
    "+": operator.add,
    "/": operator.truediv,
}
AGGREGATE: dict[str, Callable[[list[float]], float]] = {"max": max, "sum": sum, "count": len}


def read_series(written: dict[str, str]) -> Samples:
    """Read series as promtool writes them, by name and labels."""
    samples: Samples = {}
    for text, values in written.items():
        selector = promql_parser.parse(text)
        samples[selector.name, _asked(selector)] = [value for part in values.split() for value in _expand(part)]
    return samples


def _expand(part: str) -> list[float | None]:
    if part == "stale":
        return [STALE]
    found = re.fullmatch(r"(?P<start>_|Inf|[\d.]+)(?:\+(?P<step>\d+))?(?:x(?P<times>\d+))?", part)
    assert found, part
    times = int(found["times"] or 0)
    if found["start"] == "_":
        return [None] * max(1, times)
    return [float(found["start"]) + index * float(found["step"] or 0) for index in range(times + 1)]


def evaluate(expression: Any, samples: Samples, minute: int) -> Vector | float:
    """Evaluate a parsed expression at a minute. Raises KeyError or TypeError for what isn't known here."""
    match expression:
        case promql_parser.NumberLiteral():
            return float(expression.val)
        case promql_parser.ParenExpr():
            return evaluate(expression.expr, samples, minute)
        case promql_parser.VectorSelector():
            recent = _select(expression, samples, minute, LOOKBACK_MINUTES)
            return {labels: values[-1] for labels, values in recent.items() if not isnan(values[-1])}
        case promql_parser.Call():
            return _call(expression, samples, minute)
        case promql_parser.AggregateExpr():
            return _aggregate(expression, _vector(expression.expr, samples, minute))
        case promql_parser.BinaryExpr():
            return _binary(
                str(expression.op), *(evaluate(e, samples, minute) for e in (expression.lhs, expression.rhs))
            )
    raise TypeError(f"expected an expression that the alerts use, got {type(expression).__name__}")


def _vector(expression: Any, samples: Samples, minute: int) -> Vector:
    vector = evaluate(expression, samples, minute)
    assert isinstance(vector, dict)
    return vector


def _select(selector: Any, samples: Samples, minute: int, minutes: int) -> dict[Labels, list[float]]:
    wanted, found = _asked(selector), {}
    for (name, labels), values in samples.items():
        recent = [value for value in values[max(0, minute - minutes + 1) : minute + 1] if value is not None]
        if name == selector.name and wanted <= labels and recent:
            found[labels] = recent
    return found


def _asked(selector: Any) -> Labels:
    assert all(matcher.op == promql_parser.MatchOp.Equal for matcher in selector.matchers.matchers)
    return frozenset((matcher.name, matcher.value) for matcher in selector.matchers.matchers)


def _call(call: Any, samples: Samples, minute: int) -> Vector:
    (argument,) = call.args
    if call.func.name == "vector":
        return {frozenset(): float(argument.val)}
    seconds = argument.range.total_seconds()
    recent = _select(argument.vector_selector, samples, minute, int(seconds / 60) + 1)
    ranges = {labels: there for labels, values in recent.items() if (there := [v for v in values if not isnan(v)])}
    if call.func.name == "absent_over_time":
        return {} if ranges else {_asked(argument.vector_selector): 1.0}
    function = {**OF_ANY, "increase": _increase, "rate": _increase}[call.func.name]
    divisor = seconds if call.func.name == "rate" else 1.0
    return {
        labels: function(values) / divisor
        for labels, values in ranges.items()
        if call.func.name in OF_ANY or len(values) > 1
    }


def _changes(values: Sequence[float]) -> float:
    return sum(one != other for one, other in pairwise(values))


# What one sample is enough for.
OF_ANY: dict[str, Callable[[Sequence[float]], float]] = {
    "avg_over_time": fmean,
    "changes": _changes,
    "last_over_time": operator.itemgetter(-1),
    "min_over_time": min,
}


def _increase(values: Sequence[float]) -> float:
    return sum(after - before if after >= before else after for before, after in pairwise(values))


def _aggregate(expression: Any, vector: Vector) -> Vector:
    groups: dict[Labels, list[float]] = defaultdict(list)
    by = set(expression.modifier.labels if expression.modifier else ())
    for labels, value in vector.items():
        groups[frozenset(pair for pair in labels if pair[0] in by)].append(value)
    return {labels: AGGREGATE[str(expression.op)](values) for labels, values in groups.items()}


def _binary(op: str, left: Vector | float, right: Vector | float) -> Vector | float:
    if isinstance(left, float):
        assert isinstance(right, dict), "two numbers, or a comparison of a number, aren't used"
        return {labels: COMPUTE[op](left, value) for labels, value in right.items()}
    if isinstance(right, float):
        right = dict.fromkeys(left, right)
    if op == "or":
        return right | left
    pairs = {labels: (left[labels], right[labels]) for labels in left.keys() & right.keys()}
    if op == "and":
        return {labels: one for labels, (one, _) in pairs.items()}
    if op in COMPARE:
        return {labels: one for labels, (one, other) in pairs.items() if COMPARE[op](one, other)}
    return {labels: COMPUTE[op](one, other) for labels, (one, other) in pairs.items()}
