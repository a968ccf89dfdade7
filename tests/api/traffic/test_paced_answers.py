"""Large answers: in pieces, as fast as they are taken, a bounded number at once, and not for ever."""

import asyncio
from typing import Any

from litestar import Response

from api.traffic.paced_answers import LARGE, PIECE, LargeAnswers, PacedAnswer

SCOPE: Any = {"type": "http", "path": "/docs"}


class Taking:
    """Client that takes pieces as it is told to."""

    def __init__(self) -> None:
        self.taken = list[Any]()
        self.going = asyncio.Event()
        self.going.set()

    async def send(self, message: Any) -> None:
        self.taken.append(message)
        await self.going.wait()

    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.taken)


def large(**bounds: Any) -> LargeAnswers:
    return LargeAnswers(lambda _: Response(b"busy", status_code=503, media_type="text/plain"), **bounds)


def start(length: int) -> Any:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(length).encode())]}


def content(body: bytes, **more: Any) -> Any:
    return {"type": "http.response.body", "body": body, **more}


async def answer(to: Taking, known: LargeAnswers, body: bytes) -> None:
    paced = PacedAnswer(known, SCOPE, to.send)
    await paced.send(start(len(body)))
    await paced.send(content(body))


def test_an_answer_arrives_whole_in_pieces_and_a_small_one_as_it_is() -> None:
    async def run() -> None:
        for size in (0, 1, PIECE, PIECE + 1, 3 * PIECE, LARGE + 5):
            client, body = Taking(), bytes(range(256)) * (size // 256) + b"z" * (size % 256)
            await answer(client, large(), body)
            assert client.body() == body
            pieces = client.taken[1:]
            assert all(len(one["body"]) <= PIECE for one in pieces)
            assert [one.get("more_body", False) for one in pieces] == [True] * (len(pieces) - 1) + [False]

    asyncio.run(run())


def test_what_is_streamed_stays_open_until_its_end() -> None:
    async def run() -> None:
        client = Taking()
        paced = PacedAnswer(large(), SCOPE, client.send)
        await paced.send(content(b"a" * (PIECE + 1), more_body=True))
        await paced.send(content(b"", more_body=False))
        assert [one.get("more_body", False) for one in client.taken] == [True, True, False]

    asyncio.run(run())


def test_the_next_piece_waits_until_the_one_before_is_taken() -> None:
    async def run() -> None:
        client, known = Taking(), large()
        client.going.clear()
        paced = PacedAnswer(known, SCOPE, client.send)
        task = asyncio.create_task(paced.send(content(b"a" * LARGE)))
        await asyncio.sleep(0)
        assert (len(client.taken), known.sending) == (1, 1)
        client.going.set()
        await task
        assert (client.body(), known.sending) == (b"a" * LARGE, 0)

    asyncio.run(run())


def test_more_large_answers_than_may_be_are_refused_and_small_ones_never() -> None:
    async def run() -> None:
        known, stuck = large(most=2), [Taking() for _ in range(2)]
        for one in stuck:
            one.going.clear()
        tasks = [asyncio.create_task(PacedAnswer(known, SCOPE, one.send).send(content(b"a" * LARGE))) for one in stuck]
        await asyncio.sleep(0)
        refused, small, after = Taking(), Taking(), Taking()
        await answer(refused, known, b"a" * LARGE)
        assert (refused.taken[0]["status"], refused.body()) == (503, b"busy")
        await answer(small, known, b"a" * (LARGE - 1))
        assert small.taken[0]["status"] == 200
        for one in stuck:
            one.going.set()
        await asyncio.gather(*tasks)
        await answer(after, known, b"a" * LARGE)
        assert after.taken[0]["status"] == 200

    asyncio.run(run())


def test_an_answer_that_is_not_taken_in_time_is_cut_and_nothing_follows() -> None:
    async def run() -> None:
        client, known = Taking(), large(seconds=0.0)
        client.going.clear()
        paced = PacedAnswer(known, SCOPE, client.send)
        await paced.send(content(b"a" * LARGE, more_body=True))
        client.going.set()
        await paced.send(content(b"more"))
        assert len(client.taken) == 1
        assert known.sending == 0

    asyncio.run(run())
