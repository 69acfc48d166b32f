"""The files of deploy/prometheus and deploy/grafana as Prometheus takes them, and where its binaries are."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())


def binary(name: str) -> str:
    """The path of prometheus or promtool; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian: prometheus)")
    return found


def panel_expressions() -> dict[str, str]:
    """Every expression of the dashboard as written, by its panel's title and its place in it."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }


def alert_expressions() -> dict[str, str]:
    """Every alert's expression."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def filled(expression: str, interval: str) -> str:
    """The expression as Grafana sends it, all runs chosen."""
    return expression.replace("$run", ".*").replace("$__rate_interval", interval)


def names(expression: str) -> set[str]:
    """The metrics of Ray's exporter in an expression."""
    return set(re.findall(r"\bray_\w+", expression))
