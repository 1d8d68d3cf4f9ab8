"""What Avro's own resolution can't do when an old version is read: renames, splits, other units.

An upcaster belongs to one old version. It gets the event twice, as that version wrote it and as Avro resolved
it to the newest one, and returns the values of the newest one. When a newer version is published, every upcaster
must be looked at again: it always leads to the newest.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Upcaster = Callable[[Mapping[str, Any], dict[str, Any]], dict[str, Any]]
Upcasters = Mapping[tuple[str, str], Upcaster]

# By event type and version. So far every event has one version only.
UPCASTERS: Final[Upcasters] = {}
