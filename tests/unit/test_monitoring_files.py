"""deploy/monitoring over the metrics that workers export, and no others; found where the workers are."""

import json
import re
from itertools import combinations
from pathlib import Path

import promql_parser
import pytest
import yaml

from sitelog.agents._metrics import Metrics
from sitelog.agents._progress import Progress
from sitelog.streams.settings import TopicSettings
from tests.promql import evaluate, read_series

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
GROUPS = yaml.safe_load((FOLDER / "sitelog.rules.yaml").read_text())["groups"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
EXPRESSIONS = {
    **{f"rule {rule.get('alert') or rule['record']}": rule["expr"] for rule in RULES},
    **{
        f"panel {panel['title']}, {target['refId']}": target["expr"].replace("$__rate_interval", "1m")
        for panel in PANELS
        for target in panel["targets"]
    },
}
SHOWN = '{namespace=~"$namespace", consumer=~"$consumer"}'
FROM_PROMETHEUS = {"up": {"job", "instance"}}
OF_THE_TARGET = {"job", "instance", "namespace"}


@pytest.fixture(scope="module")
def exported():
    """Each metric that a worker exports, with its labels."""
    progress = Progress()
    progress.seen("customer-sites-events", 0, applied=1, highwater=2)
    metrics = Metrics("projector", progress, topics={"customer-sites-events": TopicSettings(partitions=1)})
    metrics.stopped({"customer-sites-events": 1})
    families = {sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples}
    records = {rule["record"]: {"consumer", "topic", "partition"} for rule in RULES if "record" in rule}
    return {**families, **records, **FROM_PROMETHEUS}


def parts(expression):
    """Return an expression and everything inside it."""
    inside = [getattr(expression, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    inside += getattr(expression, "args", [])
    return [expression, *(part for one in inside if one is not None for part in parts(one))]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_is_one_that_workers_export_with_the_labels_that_are_asked_for(name, exported):
    found = parts(promql_parser.parse(EXPRESSIONS[name]))
    selectors = [part for part in found if isinstance(part, promql_parser.VectorSelector)]
    assert {selector.name for selector in selectors} <= exported.keys()
    for selector in selectors:
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= exported[selector.name] | OF_THE_TARGET, selector.name
    known = OF_THE_TARGET.union(*(exported[selector.name] for selector in selectors))
    for part in found:
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            assert set(part.modifier.labels) <= known


def sums(expression):
    return [part for part in parts(expression) if isinstance(part, promql_parser.AggregateExpr)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_no_rule_sums_over_environments(rule):
    assert all("namespace" in one.modifier.labels for one in sums(promql_parser.parse(rule["expr"])))


@pytest.mark.parametrize("name", [name for name in EXPRESSIONS if name.startswith("panel")])
def test_a_panel_shows_the_chosen_environments_each_by_itself(name):
    parsed = promql_parser.parse(EXPRESSIONS[name])
    selectors = [part for part in parts(parsed) if isinstance(part, promql_parser.VectorSelector)]
    for selector in selectors:
        assert ("namespace", "$namespace") in {(one.name, one.value) for one in selector.matchers.matchers}
    for labels in (set(one.modifier.labels) for one in sums(parsed) if one.modifier):
        assert "namespace" in labels or not labels & {"consumer", "topic"}


def family(sample):
    """A histogram's name without what its samples add to it."""
    return re.sub(r"_(bucket|sum|count)$", "", sample)


def test_every_metric_of_ours_is_shown_or_watched(exported):
    found = [part for text in EXPRESSIONS.values() for part in parts(promql_parser.parse(text))]
    used = {family(part.name) for part in found if isinstance(part, promql_parser.VectorSelector)}
    ours = {family(name) for name in exported if name.startswith("sitelog_") and not name.endswith("_created")}
    assert ours <= used


@pytest.mark.parametrize(("owned", "unowned"), [((), 2), ((0,), 1), ((0, 1), 0)])
def test_the_panel_counts_unowned_partitions_also_where_nobody_has_any(owned, unowned):
    sites = 'consumer="projector",topic="customer-sites-events"'
    series = {f"sitelog_topic_partitions{{{sites}}}": "2"}
    series |= {f'sitelog_lag_events{{{sites},partition="{partition}"}}': "0" for partition in owned}
    expression = EXPRESSIONS["panel Partitions unowned, A"].replace(SHOWN, "")
    assert evaluate(promql_parser.parse(expression), read_series(series), 0) == {frozenset(): unowned}


def test_a_legend_names_only_labels_that_its_expression_leaves(exported):
    for panel in PANELS:
        for target in panel["targets"]:
            parsed = promql_parser.parse(target["expr"].replace("$__rate_interval", "1m"))
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            outer = next(iter(sums(parsed)), None)
            left = outer.modifier.labels if outer and outer.modifier else set()
            whole = OF_THE_TARGET.union(*exported.values()) if not outer else set()
            assert named <= {*left, *whole}, panel["title"]


def test_the_dashboard_can_be_provisioned_with_any_prometheus():
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"]
    assert "__inputs" not in DASHBOARD
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {
        "datasource",
        "namespace",
        "consumer",
    }
    sources = [one["datasource"] for panel in PANELS for one in (panel, *panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_no_panel_lies_on_another_and_each_says_what_it_shows():
    for one, other in combinations(DASHBOARD["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one['title']}, {other['title']}"
    assert all(panel["description"] for panel in PANELS)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


def test_prometheus_finds_the_workers_by_the_label_and_the_port_that_their_pods_have():
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    (scrape,) = config["scrape_configs"]
    keep = scrape["relabel_configs"][0]
    pod = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "projector.yaml").read_text())["spec"]["template"]
    label, port = keep["regex"].split(";")
    assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == label
    assert [p["name"] for c in pod["spec"]["containers"] for p in c["ports"]] == [port]
    jobs = set(re.findall(r'job="(\w+)"', " ".join(EXPRESSIONS.values())))
    assert jobs == {scrape["job_name"]}
    assert all((FOLDER / name).is_file() for name in config["rule_files"])
