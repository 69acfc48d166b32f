"""What deploy/ tells Prometheus and Grafana, against what the code exports; tests/flows/test_metrics.py runs it all."""

import subprocess
from pathlib import Path

import pytest

from tests.monitoring import CONFIG, DASHBOARD, RULES, alert_expressions, binary, names, panel_expressions
from workers.metrics import COUNTERS, GAUGES

ROOT = Path(__file__).resolve().parents[1]
EXPORTED = {f"ray_{name}" for name in COUNTERS | GAUGES}
ALERTS_FIRE = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'ray_densemask_queue_images{{run="r", stage="to_score"}}', values: '100x60'}}
      - {{series: 'ray_densemask_images_total{{run="r", status="ok"}}', values: '0+10x10 100x50'}}
      - {{series: 'ray_densemask_images_total{{run="r", status="unreadable"}}', values: '0+2x10 20x50'}}
      - {{series: 'ray_densemask_deaths_total{{run="r", pool="back end"}}', values: '_x30 6x30'}}
      - {{series: 'ray_densemask_workers{{run="r", pool="front end"}}', values: '1x40 0x20'}}
      - {{series: 'ray_densemask_shards_total{{run="r", state="failed"}}', values: '_x50 1x10'}}
      - {{series: 'ray_densemask_gpu_busy_seconds_total{{run="r"}}', values: '0+60x60'}}
    alert_rule_test:
      - {{eval_time: 10m, alertname: DensemaskStalled, exp_alerts: []}}
      - eval_time: 40m
        alertname: DensemaskStalled
        exp_alerts: [{{exp_labels: {{severity: page, run: r}}, exp_annotations: {{summary: "{stalled}"}}}}]
      - eval_time: 9m
        alertname: DensemaskImagesFail
        exp_alerts: [{{exp_labels: {{severity: warning, run: r}}, exp_annotations: {{summary: "{failing}"}}}}]
      - {{eval_time: 29m, alertname: DensemaskWorkersDie, exp_alerts: []}}
      - eval_time: 35m
        alertname: DensemaskWorkersDie
        exp_alerts:
          - {{exp_labels: {{severity: warning, run: r, pool: back end}}, exp_annotations: {{summary: "{dying}"}}}}
      - {{eval_time: 50m, alertname: DensemaskWorkersDie, exp_alerts: []}}
      - {{eval_time: 40m, alertname: DensemaskNoWorkers, exp_alerts: []}}
      - eval_time: 55m
        alertname: DensemaskNoWorkers
        exp_alerts:
          - {{exp_labels: {{severity: page, run: r, pool: front end}}, exp_annotations: {{summary: "{none}"}}}}
      - eval_time: 55m
        alertname: DensemaskShardFailed
        exp_alerts: [{{exp_labels: {{severity: page, run: r}}, exp_annotations: {{summary: "{failed}"}}}}]
      - {{eval_time: 40m, alertname: DensemaskGpuIdle, exp_alerts: []}}
"""


def test_the_dashboard_shows_exactly_what_is_exported() -> None:
    shown = set().union(*map(names, panel_expressions().values()))
    assert {name for name in shown if name.startswith("ray_densemask_")} == EXPORTED
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("alert", alert_expressions())
def test_alerts_ask_for_what_is_exported(alert: str) -> None:
    asked = names(alert_expressions()[alert])
    assert {name for name in asked if name.startswith("ray_densemask_")} <= EXPORTED


def test_every_metric_and_every_alert_is_explained() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    missing = [name for name in [*EXPORTED, *alert_expressions()] if f"`{name}`" not in text]
    assert missing == []


def test_prometheus_takes_its_files() -> None:
    for command in (("config", CONFIG), ("rules", RULES)):
        subprocess.run([binary("promtool"), "check", *map(str, command)], check=True)


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    content = ALERTS_FIRE.format(
        rules=RULES,
        stalled="Run r: 100 images are open and none has been finished for ten minutes.",
        failing="Run r: 16.67% of the images fail.",
        dying="Run r: 6 back end workers died in a quarter of an hour.",
        none="Run r has had no front end worker for ten minutes.",
        failed="Run r: 1 times a shard was given up; Prefect tries each three times.",
    )
    (tmp_path / "test.yml").write_text(content)
    ended = subprocess.run([binary("promtool"), "test", "rules", str(tmp_path / "test.yml")], capture_output=True)
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()
