"""Test that no more searches run at once than allowed, and that each gets its turn."""

import threading
import time

import pytest

from slipway.knowledge.search_slots import SearchSlots


def test_the_first_to_come_is_the_first_to_be_served() -> None:
    turns, order, most, inside = SearchSlots(2), list[int](), list[int](), set[int]()
    held = [threading.Event(), threading.Event()]

    def hold(number: int) -> None:
        with turns:
            order.append(number)
            held[number].wait(10)

    def ask(number: int) -> None:
        with turns:
            order.append(number)
            inside.add(number)
            most.append(len(inside))
            time.sleep(0.002)
            inside.discard(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for number in range(2, 12):
        threads.append(threading.Thread(target=ask, args=(number,)))
        threads[-1].start()
        time.sleep(0.02)  # in this order
    assert order == [0, 1]
    held[0].set()  # one at a time from here on
    for thread in threads[2:]:
        thread.join(10)
    assert order == list(range(12))
    assert max(most) == 1
    held[1].set()
    threads[1].join(10)


def test_a_turn_is_given_back_after_an_error() -> None:
    turns = SearchSlots(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"), turns:
            raise ValueError("no")


def test_many_threads_come_through() -> None:
    turns, done, inside, most = SearchSlots(3), list[int](), list[int](), list[int]()

    def ask() -> None:
        for number in range(200):
            with turns:
                inside.append(number)
                most.append(len(inside))
                inside.pop()
            done.append(number)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 12 * 200
    assert max(most) <= 3
