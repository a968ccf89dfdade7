"""Routes of people's rights, for operators: what is known of a person, and its erasure."""

from litestar import delete, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from api.http.error_responses import documented
from api.http.protocol_paths import user_of
from api.messages.people import ErasureReply, PersonExport
from api.people.service import PeopleService


def routes(people: PeopleService) -> list[HTTPRouteHandler]:
    """Route handlers of one service's people (scope `admin`): export, erase."""

    @delete(
        "/v1/users/{user_id:str}",
        operation_id="erase_user",
        status_code=200,
        summary="Erase a person",
        responses=documented(400, 401, 403),
        opt={"scope": "admin"},
        tags=["people"],
    )
    async def erase(user_id: FromPath[str], forget: FromQuery[bool] = False) -> ErasureReply:
        """Decisions, outcomes, events and links of the person with this id, and of all ids joined to it, leave the
        ledger.        `forget=true`: also what was learned from them. Safe to repeat: then nothing is found.

        A decision that is erased is unknown from then on: an outcome reported for it is answered 404, and not kept.
        """
        return await people.erase(user_of(user_id), forget=forget)

    @get(
        "/v1/users/{user_id:str}/export",
        operation_id="export_user",
        summary="All that is known of a person",
        responses=documented(400, 401, 403),
        opt={"scope": "admin"},
        tags=["people"],
    )
    async def export(user_id: FromPath[str]) -> PersonExport:
        """Receipts, outcomes and events of the person with this id, and of all ids joined to it."""
        return await people.export(user_of(user_id))

    return [erase, export]
