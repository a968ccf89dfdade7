"""Local time of quiet hours. The core has no clock and no time zones: this is where they meet."""

import datetime as dt
import functools
from collections.abc import Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bandit.catalogue.limits import QuietHours
from bandit.catalogue.model import Catalogue
from bandit.errors import CatalogueError, Problem
from bandit.guardrails import LocalTime
from bandit.journey.folding import JourneyState


class TimeZones:
    """Time zones that an app's quiet hours name, loaded once. Raises CatalogueError with those that do not exist.
    Immutable: any thread may ask.
    """

    def __init__(self, catalogue: Catalogue):
        self._zones: dict[str, ZoneInfo] = {}
        self._kept = catalogue.journey.timezone
        mistakes = []
        for path, hours in _declared(catalogue):
            name = hours.timezone
            zone = _zone(name)
            if zone:
                self._zones[name] = zone
            else:
                fix = 'a name of the IANA database, e.g. "Europe/Berlin"'
                mistakes.append(Problem(f"{path}.quiet.timezone", f"no time zone {name!r}", fix))
        if mistakes:
            raise CatalogueError("catalogue", mistakes)

    def local(self, state: JourneyState | None, now: int) -> LocalTime | None:
        """Local time of a user at `now` (µs since 1970), in the time zone that the user's events say; None if they say
        none, or one that does not exist.
        """
        name = self._own(state)
        zone = _zone(name) if name else None
        return LocalTime(name, _minute(zone, now)) if zone else None

    def notes(self, state: JourneyState | None) -> tuple[str, ...]:
        """Note on a decision whose user's events say a time zone that does not exist; empty otherwise."""
        name = self._own(state)
        if not name or _zone(name):
            return ()
        return (f"the user's time zone {name!r} does not exist: quiet hours ran on their declared one",)

    def _own(self, state: JourneyState | None) -> str:
        """What the user's events say, as a text; empty if nothing asks for it."""
        if state is None or self._kept is None or not self._zones or self._kept.event not in state.seen:
            return ""
        name = state.seen[self._kept.event].properties.get(self._kept.property)
        return "" if name is None else str(name)  # null takes an earlier zone away

    def minutes(self, now: int) -> dict[str, int]:
        """Minute of the local day (0 to 1439) at `now` (µs since 1970), by the name of each declared time zone."""
        return {name: _minute(zone, now) for name, zone in self._zones.items()}


def _minute(zone: ZoneInfo, now: int) -> int:
    local = dt.datetime.fromtimestamp(now / 1e6, zone)
    return local.hour * 60 + local.minute


@functools.lru_cache(maxsize=2048)
def _zone(name: str) -> ZoneInfo | None:
    """The zone of that name in the IANA database; None if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _declared(catalogue: Catalogue) -> Iterator[tuple[str, QuietHours]]:
    places = {"limits": catalogue.limits}
    for name, stage in catalogue.stages.items():
        places[f"stages.{name}.limits"] = stage.limits
        places |= {f"stages.{name}.nudges.{key}.limits": nudge.limits for key, nudge in stage.nudges.items()}
    return ((path, limits.quiet) for path, limits in places.items() if limits.quiet)
