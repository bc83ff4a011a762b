"""A stop is not lost, and does not come where it would leave something half done."""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref

import pytest

from pantok.commands.signals import StoppedError, stoppable, unbroken

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_a_stop_is_an_exception_that_names_its_signal(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match=number.name) as stop, stoppable():
        signal.raise_signal(number)
    assert stop.value.number == number and signal.getsignal(number) is before


@BOTH
def test_a_stop_that_python_forgets_is_raised_again(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: None)  # that of pytest keeps what was lost

    class Thing:
        pass

    things = [Thing()]
    watched = weakref.ref(things[0], lambda _: os.kill(os.getpid(), number))
    forgotten = []

    def went_on() -> None:
        things.clear()  # what is raised in a callback of the collector goes nowhere
        forgotten.append(watched)
        time.sleep(10)

    with pytest.raises(StoppedError), stoppable():
        went_on()
    assert [ref() for ref in forgotten] == [None]


def test_a_stop_is_not_raised_again_while_things_are_put_away() -> None:
    away = []

    def put_away() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            for _ in range(10):
                time.sleep(0.06)
                away.append(True)

    with pytest.raises(StoppedError), stoppable():
        put_away()
    assert len(away) == 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@BOTH
def test_what_must_not_be_done_by_half_is_done(number: signal.Signals) -> None:
    done = []

    def start() -> None:
        with unbroken():
            signal.raise_signal(number)
            done.append("started")
        done.append("went on")

    with pytest.raises(StoppedError), stoppable():
        start()
    assert done == ["started"]


def test_a_stop_that_was_lost_does_not_come_in_between_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: None)

    class Thing:
        pass

    things, done = [Thing()], []
    watched = weakref.ref(things[0], lambda _: os.kill(os.getpid(), signal.SIGTERM))

    def start() -> None:
        things.clear()
        with unbroken():
            time.sleep(0.5)
            done.append("started")
        time.sleep(10)
        done.append("went on")

    with pytest.raises(StoppedError), stoppable():
        start()
    assert done == ["started"] and watched() is None


def test_signals_that_the_caller_ignores_stay_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as nohup does with another one
    try:
        with stoppable(), unbroken():
            signal.raise_signal(signal.SIGTERM)
    finally:
        assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN
