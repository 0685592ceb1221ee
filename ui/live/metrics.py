"""Metrics: what an operator counts, as Prometheus reads it. No label holds anything that a visitor sent."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily

from ui.live.fair_queue import Line

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one page. line: the line whose lengths and refusals are read when somebody asks."""

    def __init__(self, line: Line) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._line = line
        self.runs = Counter("nemodiff_runs", "Runs that ended", ["finish"], registry=registry)
        self.tokens = Counter("nemodiff_tokens", "Tokens of ended lanes", ["mode"], registry=registry)
        self.forwards = Counter(
            "nemodiff_forwards", "Model forwards of ended lanes after their prefills", ["mode"], registry=registry
        )
        self.seconds = Histogram("nemodiff_run_seconds", "Wall time of a run", buckets=SECONDS, registry=registry)
        self.first = Histogram(
            "nemodiff_first_event_seconds", "From asking to the first event", buckets=SECONDS, registry=registry
        )
        Gauge("nemodiff_running", "Runs that use the model", registry=registry).set_function(lambda: line.running)
        Gauge("nemodiff_waiting", "Runs that wait for it", registry=registry).set_function(lambda: line.waiting)
        registry.register(self)

    def collect(self):
        """The line's own counts, for the registry."""
        family = CounterMetricFamily("nemodiff_refused", "Runs that were refused", labels=["reason"])
        for reason, count in self._line.refused.items():
            family.add_metric([reason], count)
        yield family

    def text(self) -> bytes:
        return generate_latest(self.registry)
