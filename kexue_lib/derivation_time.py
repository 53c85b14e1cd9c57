"""A limit on the CPU seconds that one computation may take, in any thread and on any platform.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

import _thread
import ctypes
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from sympy.core.cache import clear_cache


class OutOfTime(BaseException):
    """Raised inside the limited computation; no `except Exception` of SymPy can swallow it."""


def within(seconds: float, function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)`, or raise OutOfTime once this thread has spent `seconds` of CPU time on it.

    CPU time rather than time on the wall: what is proved must not depend on how busy the machine is.
    A watchdog raises the exception in the calling thread; after the call no exception is left pending.

    >>> within(1.0, sum, [1, 2])
    3
    """
    watch = _Watchdog(seconds)
    try:
        try:
            watch.start()
            return function(*args)
        finally:
            watch.dismiss()
    except OutOfTime:
        watch.dismiss()
        clear_cache()  # an interrupted query may have left "unknown" in SymPy's caches
        raise


class _Watchdog:
    def __init__(self, seconds: float) -> None:
        self.thread_id = threading.get_ident()
        self.clock = _cpu_clock(self.thread_id)
        self.deadline = self.clock() + seconds
        self.stopped = True
        self.gate = _thread.allocate_lock()
        self.gate.acquire()

    def start(self) -> None:
        self.stopped = False
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        # Fires again until dismissed: an exception raised inside a destructor or a callback is reported and lost.
        while not self.gate.acquire(timeout=0.05):
            if self.clock() > self.deadline and not self._in_a_destructor():
                self._raise(OutOfTime)
        self.stopped = True

    def _in_a_destructor(self) -> bool:
        frame = sys._current_frames().get(self.thread_id)
        while frame is not None:
            if frame.f_code.co_name == "__del__" or frame.f_code.co_filename == weakref.__file__:
                return True
            frame = frame.f_back
        return False

    def dismiss(self) -> None:
        # Interruptible at every line until the watchdog has stopped, hence the loop; no Python-level lock is held.
        while True:
            try:
                if self.gate.locked() and not self.stopped:
                    self.gate.release()
                while not self.stopped:
                    time.sleep(0.0002)
                self._raise(None)
                return
            except (OutOfTime, RuntimeError):
                continue

    def _raise(self, exception: type[BaseException] | None) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self.thread_id), None if exception is None else ctypes.py_object(exception)
        )


def _cpu_clock(thread_id: int) -> Callable[[], float]:
    try:
        clock = time.pthread_getcpuclockid(thread_id)
    except (AttributeError, OSError):  # macOS, Windows: the process's CPU time
        return time.process_time
    return lambda: time.clock_gettime(clock)
