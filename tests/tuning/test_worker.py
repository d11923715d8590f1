"""What a worker sends, and how."""

import time
from concurrent.futures import ThreadPoolExecutor

from search.tuning.worker import SharedPipe


class Narrow:
    """A pipe that breaks when two send at once, as a connection does."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.taken = False

    def send(self, message):
        assert not self.taken
        self.taken = True
        time.sleep(0.001)
        self.sent.append(message)
        self.taken = False

    recv = poll = None


def test_threads_send_one_after_another():
    narrow = Narrow()
    pipe = SharedPipe(narrow)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(pipe.send, range(40)))
    assert sorted(narrow.sent) == list(range(40))
