from __future__ import annotations

import os
import signal
import threading

import pytest

from netpolicy.errors import UserError
from sidecars.instance.signals import held
from sidecars.instance.undo import Undo
from sidecars.progress import Step, silent


class Cancelled(BaseException):
    pass


class Things:
    """Things that are made and removed, with what went on in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.stuck: set[str] = set()

    def make(self, undo: Undo, name: str) -> None:
        undo.add(name, f"rm {name}", lambda: self.remove(name))
        self.log.append(f"+{name}")

    def remove(self, name: str) -> None:
        self.log.append(f"-{name}")
        if name in self.stuck:
            raise UserError("stuck", f"{name} is stuck")


@pytest.mark.parametrize("error", [UserError("x", "x"), KeyboardInterrupt(), Cancelled(), ZeroDivisionError()])
def test_everything_is_taken_back_in_reverse_whatever_went_wrong(error: BaseException) -> None:
    things = Things()
    with pytest.raises(type(error)), Undo(silent) as undo:
        for name in "abc":
            things.make(undo, name)
        raise error
    assert things.log == ["+a", "+b", "+c", "-c", "-b", "-a"]


def test_what_is_kept_stays() -> None:
    things = Things()
    with Undo(silent) as undo:
        things.make(undo, "a")
        undo.keep()
    with pytest.raises(ZeroDivisionError), Undo(silent) as undo:
        things.make(undo, "b")
        undo.keep()
        raise ZeroDivisionError
    assert things.log == ["+a", "+b"]


def test_one_that_fails_does_not_stop_the_others_and_is_told_with_its_command() -> None:
    things = Things()
    things.stuck = {"b"}
    told: list[Step] = []
    with pytest.raises(UserError) as caught, Undo(told.append) as undo:
        for name in "abc":
            things.make(undo, name)
        raise UserError("broken", "it broke", hint="Mend it.")
    assert things.log[3:] == ["-c", "-b", "-a"]
    assert caught.value.details["left_over"] == [{"what": "b", "command": "rm b"}]
    assert caught.value.hint == "Mend it. Not everything could be removed; finish with: rm b"
    assert "could not remove b (b is stuck); by hand: rm b" in [step.message for step in told]


def test_a_defect_in_one_action_does_not_stop_the_others() -> None:
    things = Things()
    with pytest.raises(ZeroDivisionError), Undo(silent) as undo:
        things.make(undo, "a")
        undo.add("b", "rm b", lambda: 1 // 0)
        things.make(undo, "c")
        raise UserError("broken", "it broke")
    assert things.log == ["+a", "+c", "-c", "-a"]


def test_a_reporter_that_goes_on_cancelling_does_not_stop_the_undo() -> None:
    things = Things()

    def cancel(_step: Step) -> None:
        raise Cancelled

    with pytest.raises(Cancelled), Undo(cancel) as undo:
        for name in "abc":
            things.make(undo, name)
        cancel(Step("x", "x"))
    assert things.log[3:] == ["-c", "-b", "-a"]


def test_ctrl_c_while_undoing_is_held_back_once() -> None:
    things = Things()
    with pytest.raises(UserError), Undo(silent) as undo:
        things.make(undo, "a")
        undo.add("b", "rm b", lambda: os.kill(os.getpid(), signal.SIGINT))
        raise UserError("broken", "it broke")
    assert things.log == ["+a", "-a"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_ctrl_c_gets_through_and_the_rest_is_still_tried() -> None:
    things = Things()

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), Undo(silent) as undo:
        things.make(undo, "a")
        undo.add("b", "rm b", twice)
        raise UserError("broken", "it broke")
    assert things.log == ["+a", "-a"]


def test_a_signal_during_a_request_has_its_effect_after_it() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), held():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("the request was finished")
    assert done
    with held(deliver=False):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_end_that_another_signal_asks_for_is_held_too() -> None:
    class Ended(KeyboardInterrupt):
        pass

    def end(_number: int, _frame: object) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        done: list[str] = []
        with pytest.raises(Ended), held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the request was finished")
        assert done
        with pytest.raises(Ended), held():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the second one gets through")
    finally:
        signal.signal(signal.SIGTERM, before)


def test_it_works_in_any_thread() -> None:
    things = Things()
    errors: list[str] = []

    def work() -> None:
        try:
            with Undo(silent) as undo:
                things.make(undo, "a")
                raise UserError("broken", "it broke")
        except UserError as error:
            errors.append(error.code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert (things.log, errors) == (["+a", "-a"], ["broken"])
