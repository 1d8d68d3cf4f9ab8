"""deploy/monitoring's alerts, tried both ways: they fire when they should, and stay quiet when they should.

Without Prometheus this is done by tests/promql.py, which knows as much of PromQL as the rules use; where promtool is
on the PATH, Prometheus itself has to agree.
"""

import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from tests.alert_cases import CASES, Case
from tests.promql import STALE, Labels, evaluate, read_series

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "monitoring" / "sitelog.rules.yaml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDS = {rule["record"]: promql_parser.parse(rule["expr"]) for rule in GROUPS[0]["rules"]}


def minutes(text: str) -> int:
    return int(re.fullmatch(r"(\d+)m", text)[1])


def firing(case: Case) -> list[list[Labels]]:
    """Evaluate minute after minute, as Prometheus does, and return what fires at each."""
    rule, samples = ALERTS[case.alert], read_series(case.series)
    expression, patience = promql_parser.parse(rule["expr"]), minutes(rule.get("for", "0m"))
    since: dict[Labels, int] = {}
    fired = []
    for minute in range(case.minutes + 1):
        for record, recorded in RECORDS.items():
            for labels, value in evaluate(recorded, samples, minute).items():
                samples.setdefault((record, labels), [None] * minute).append(value)
            for (name, _), values in samples.items():
                if name == record:
                    values.extend([STALE] * (minute + 1 - len(values)))
        active = evaluate(expression, samples, minute)
        since = {labels: since.get(labels, minute) for labels in active}
        fired.append([labels for labels, first in since.items() if minute - first >= patience])
    return fired


def moments(case: Case) -> range:
    """A case that is to be quiet is so all the time; one that fires does at its last minute."""
    return range(case.minutes if case.fires else 0, case.minutes + 1)


def expected(case: Case) -> list[dict[str, str]]:
    return [{**labels, **ALERTS[case.alert]["labels"]} for labels in case.fires]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.title}")
def test_an_alert_fires_when_it_should_and_only_then(case):
    fired = firing(case)
    for minute in moments(case):
        assert [{**dict(labels), **ALERTS[case.alert]["labels"]} for labels in fired[minute]] == expected(case), minute


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tried_both_ways(alert):
    assert {bool(case.fires) for case in CASES if case.alert == alert} == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_urgent_it_is_what_is_wrong_and_what_to_do(alert):
    assert ALERTS[alert]["labels"]["severity"] in {"page", "ticket"}
    assert ALERTS[alert]["annotations"].keys() == {"summary", "action"}


def promtool(*arguments: str | Path) -> None:
    outcome = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on the PATH")


@needs_promtool
def test_prometheus_takes_the_rules():
    promtool("check", "rules", RULES)


@needs_promtool
def test_prometheus_fires_and_stays_quiet_in_the_same_cases(tmp_path):
    # Texts aren't compared: promtool wants each of them word by word.
    silent = [{**g, "rules": [{k: v for k, v in r.items() if k != "annotations"} for r in g["rules"]]} for g in GROUPS]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": silent}))
    tests = [
        {
            "interval": "1m",
            "name": f"{case.alert}: {case.title}",
            "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
            "alert_rule_test": [
                {
                    "eval_time": f"{minute}m",
                    "alertname": case.alert,
                    "exp_alerts": [{"exp_labels": labels} for labels in expected(case)],
                }
                for minute in moments(case)
            ],
        }
        for case in CASES
    ]
    order = [group["name"] for group in GROUPS]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "group_eval_order": order, "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", tmp_path / "tests.yaml")
