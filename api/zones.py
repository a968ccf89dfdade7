"""The local time of quiet hours. The core has no clock and no time zones; this is where they meet."""

import datetime as dt
from collections.abc import Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bandit.catalogue import Catalogue
from bandit.errors import CatalogueError, Problem
from bandit.limits import Quiet


class Zones:
    """The time zones that an app's quiet hours name. CatalogueError lists those that do not exist."""

    def __init__(self, catalogue: Catalogue):
        self._zones: dict[str, ZoneInfo] = {}
        mistakes = []
        for path, hours in _declared(catalogue):
            name = hours.timezone
            try:
                self._zones[name] = ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                fix = 'a name of the IANA database, e.g. "Europe/Berlin"'
                mistakes.append(Problem(f"{path}.quiet.timezone", f"no time zone {name!r}", fix))
        if mistakes:
            raise CatalogueError("catalogue", mistakes)

    def minutes(self, now: int) -> dict[str, int]:
        """The minute of the local day at `now` (µs since 1970), by zone."""
        found = {}
        for name, zone in self._zones.items():
            local = dt.datetime.fromtimestamp(now / 1e6, zone)
            found[name] = local.hour * 60 + local.minute
        return found


def _declared(catalogue: Catalogue) -> Iterator[tuple[str, Quiet]]:
    places = {"limits": catalogue.limits}
    for name, stage in catalogue.stages.items():
        places[f"stages.{name}.limits"] = stage.limits
        places |= {f"stages.{name}.nudges.{key}.limits": nudge.limits for key, nudge in stage.nudges.items()}
    return ((path, limits.quiet) for path, limits in places.items() if limits.quiet)
