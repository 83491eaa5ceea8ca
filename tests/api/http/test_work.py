"""Work that requests wait for."""

import asyncio
import threading

import pytest

from ric_diffusion.api.http.guard import Refused
from ric_diffusion.api.http.work import WorkThread
from ric_diffusion.api.work import Stopped


def until(event):
    """Work that ends when the event is set, or nobody waits for it any more."""

    def work(job):
        while not event.wait(0.01):
            job.check()
        return "done"

    return work


async def never():
    await asyncio.sleep(60)


def test_one_after_the_other_in_one_thread():
    thread, seen = WorkThread(), []
    futures = [thread.submit(lambda i=i: seen.append((i, threading.get_ident()))) for i in range(9)]
    for future in futures:
        future.result(10)
    assert [i for i, _ in seen] == list(range(9)) and len({t for _, t in seen}) == 1


def test_a_bounded_number_waits_and_whoever_left_does_not_count():
    thread, over = WorkThread(most=2), threading.Event()
    running = threading.Event()
    first = thread.submit(lambda: (running.set(), over.wait(10)))
    running.wait(10)
    waiting = [thread.submit(lambda: 1) for _ in range(2)]
    with pytest.raises(Refused, match="2 requests wait already") as refused:
        thread.submit(lambda: 1)
    assert refused.value.status == 503 and refused.value.headers == {"retry-after": "1"}
    waiting[0].cancel()
    third = thread.submit(lambda: 3)
    over.set()
    first.result(10)
    assert (waiting[1].result(10), third.result(10)) == (1, 3)


def test_an_error_is_raised_where_one_waits_and_the_thread_goes_on():
    thread = WorkThread()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(thread.answer(lambda job: 1 / 0, never))
    assert asyncio.run(thread.answer(lambda job: 5, never)) == 5


def test_work_is_stopped_when_its_client_has_gone():
    thread, over, begun = WorkThread(), threading.Event(), []

    async def gone():
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def both():
        running = thread.answer(until(over), gone)
        waiting = thread.answer(lambda job: begun.append(1), gone)
        return await asyncio.gather(running, waiting, return_exceptions=True)

    found = asyncio.run(both())
    assert [type(one) for one in found] == [Stopped, Stopped]
    assert thread.submit(lambda: "free").result(10) == "free" and begun == []


def test_the_end_of_the_server_is_told():
    thread, over = WorkThread(), threading.Event()

    async def ends():
        asked = asyncio.ensure_future(thread.answer(until(over), never))
        await asyncio.sleep(0.05)
        asked.cancel()
        return await asked

    with pytest.raises(Refused, match="the server ends"):
        asyncio.run(ends())
    assert thread.submit(lambda: "free").result(10) == "free"
