"""The demo's sites: the airports of the United States, with their real names, places and coordinates."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Airport:
    """One airport, as the airportsdata package has it; degrees are WGS 84."""

    icao: str
    iata: str
    name: str
    city: str
    state: str
    latitude: float
    longitude: float

    @property
    def territory_id(self) -> str:
        """The territory it begins in: its state."""
        return territory_id(self.state)


def airports() -> list[Airport]:
    """Return the airports of the United States, by ICAO code: 12,579 of them in the pinned release."""
    import airportsdata  # noqa: PLC0415 - only the demo needs it

    records: Iterable[Any] = airportsdata.load("ICAO").values()
    found = [
        Airport(a["icao"], a["iata"], a["name"], a["city"], a["subd"], a["lat"], a["lon"])
        for a in records
        if a["country"] == "US"
    ]
    return sorted(found, key=lambda airport: airport.icao)


def territory_id(state: str) -> str:
    """Return the id of a state's territory, such as us-new-mexico."""
    return "us-" + state.lower().replace(" ", "-")


def boundary(members: Iterable[Airport], margin_degrees: float = 0.1) -> str:
    """Return the box around airports as GeoJSON."""
    points = [(a.longitude, a.latitude) for a in members]
    west, south = (min(p[i] for p in points) - margin_degrees for i in (0, 1))
    east, north = (max(p[i] for p in points) + margin_degrees for i in (0, 1))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return orjson.dumps({"type": "Polygon", "coordinates": [ring]}).decode()
