"""Work that is done in one thread."""

import threading

import pytest

from ric_diffusion.api.work import Job, Stopped, WorkQueue
from ric_diffusion.io.errors import InputError


def asking(queue, *works):
    """What each comes to, asked for from threads of their own while this one serves."""
    came = [None] * len(works)

    def ask(i):
        try:
            came[i] = queue.run(works[i])
        except BaseException as error:
            came[i] = error

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    return came, threads


def test_all_is_done_in_the_thread_that_serves():
    queue, wrong = WorkQueue(), InputError("no")

    def fail():
        raise wrong

    came, threads = asking(queue, threading.get_ident, fail, threading.get_ident)
    ended = threading.Timer(0.2, queue.close)
    ended.start()
    queue.serve()
    for thread in threads:
        thread.join()
    here = threading.get_ident()
    assert came == [here, wrong, here]
    with pytest.raises(Stopped):
        queue.run(threading.get_ident)


def test_ones_place_in_the_queue():
    queue, seen = WorkQueue(), []
    first = queue.submit(lambda: seen.append([queue.before(p) for p in pieces]))
    pieces = [first, *(queue.submit(lambda: None) for _ in range(3))]
    assert [queue.before(piece) for piece in pieces] == [0, 1, 2, 3]
    pieces[2].cancel()
    assert queue.waiting == 3
    queue.close()
    queue.serve()
    assert seen == [[0, 1, 0, 2]]
    assert pieces[3].result() is None and pieces[2].cancelled()


def test_an_interruption_leaves_nobody_waiting():
    queue, busy = WorkQueue(), threading.Event()

    def interrupt():
        busy.wait()
        raise KeyboardInterrupt

    came, threads = asking(queue, interrupt)
    while queue.waiting < 1:
        pass
    waiting, more = asking(queue, threading.get_ident)
    while queue.waiting < 2:
        pass
    busy.set()
    with pytest.raises(KeyboardInterrupt):
        queue.serve()
    for thread in threads + more:
        thread.join()
    assert isinstance(came[0], Stopped) and isinstance(waiting[0], Stopped)


def test_a_job_is_a_hook():
    job = Job()
    job.check("module", (1, 2))
    job.stop()
    with pytest.raises(Stopped):
        job.check("module", (1, 2))
