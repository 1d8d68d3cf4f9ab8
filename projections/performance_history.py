"""What each site achieved, period by period: forecasting's historical performance and operational metrics."""

from datetime import date
from decimal import Decimal
from typing import NamedTuple

from sitelog.projections._columns import Json
from sitelog.projections._json import json_of
from sitelog.projections._projection import Projection
from sitelog.streams.events import PerformanceRecorded


class Performance(NamedTuple):
    """One site's figures for one period; null is not measured. Revenue is in units of the currency."""

    site_id: str
    period_start: date
    period_end: date
    monthly_revenue: Decimal | None
    currency: str | None
    occupancy_rates: Json | None
    seasonal_patterns: Json | None
    growth_trends: float | None
    labor_productivity: float | None
    cost_efficiency: float | None
    service_quality: float | None
    customer_satisfaction: float | None


performance_history = Projection(
    name="performance_history",
    version=1,
    key=("site_id", "period_start", "period_end"),
    row=Performance,
    indexes=[("period_start",)],
)


@performance_history.records(PerformanceRecorded)
def record(_: Performance | None, event: PerformanceRecorded) -> Performance:
    """Take the figures; a period that is recorded again is corrected."""
    measured = event.metrics
    return Performance(
        event.site_id,
        event.period_start,
        event.period_end,
        measured.monthly_revenue,
        measured.currency,
        json_of(measured.occupancy_rates),
        json_of(measured.seasonal_patterns),
        measured.growth_trends,
        measured.labor_productivity,
        measured.cost_efficiency,
        measured.service_quality,
        measured.customer_satisfaction,
    )
