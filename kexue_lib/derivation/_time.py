"""A limit on the CPU seconds that one computation may take, with or without threads, in any thread, on any platform."""

import _thread
import ctypes
import functools
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from sympy.core.cache import clear_cache

# Browsers have no clock of a thread's own.
cpu_seconds: Callable[[], float] = getattr(time, "thread_time", time.process_time)
_EVERY = 64  # events between two looks at the clock


class OutOfTime(BaseException):
    """Raised inside the limited computation; no `except Exception` of SymPy can swallow it."""


def within(seconds: float, function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)`, or raise OutOfTime once this thread has spent `seconds` of CPU time on it.

    CPU time rather than time on the wall: what is proved must not depend on how busy the machine is.
    A watchdog thread raises the exception in the calling thread; where threads cannot start, the interpreter's
    own events (`sys.monitoring`, before Python 3.12 its profiling hook) look at the clock.
    After the call no exception is left pending.

    >>> within(1.0, sum, [1, 2])
    3
    """
    guard = _Watchdog(seconds) if _can_start_threads() else _Events(seconds)
    try:
        try:
            guard.start()
            return function(*args)
        finally:
            guard.dismiss()
    except OutOfTime:
        guard.dismiss()
        clear_cache()  # an interrupted query may have left "unknown" in SymPy's caches
        raise


@functools.lru_cache(maxsize=1)
def _can_start_threads() -> bool:
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:  # browsers, and processes at their limit
        return False
    thread.join()
    return True


class _Watchdog:
    """A thread that raises OutOfTime in the thread that it watches."""

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
            if self.clock() > self.deadline and not _in_a_destructor(sys._current_frames().get(self.thread_id)):
                self._raise(OutOfTime)
        self.stopped = True

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


class _Events:
    """Calls and jumps of the interpreter look at the clock and raise OutOfTime themselves."""

    def __init__(self, seconds: float) -> None:
        self.deadline = cpu_seconds() + seconds
        self.count = 0
        self.tool = None

    def start(self) -> None:
        if not hasattr(sys, "monitoring"):
            sys.setprofile(self._called)
            return
        monitoring = sys.monitoring
        self.tool = next(i for i in range(5, -1, -1) if monitoring.get_tool(i) is None)
        monitoring.use_tool_id(self.tool, "kexue_lib.derivation")
        for event in (monitoring.events.PY_START, monitoring.events.JUMP):
            monitoring.register_callback(self.tool, event, self._called)
        monitoring.set_events(self.tool, monitoring.events.PY_START | monitoring.events.JUMP)

    def _called(self, *event: Any) -> None:
        self.count += 1
        if self.count % _EVERY or cpu_seconds() <= self.deadline or _in_a_destructor(sys._getframe(1)):
            return
        raise OutOfTime

    def dismiss(self) -> None:
        if self.tool is not None:
            sys.monitoring.free_tool_id(self.tool)
            self.tool = None
        elif not hasattr(sys, "monitoring"):
            sys.setprofile(None)


def _in_a_destructor(frame: Any) -> bool:
    """An exception raised there would be reported and lost."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code.co_filename == weakref.__file__:
            return True
        frame = frame.f_back
    return False


def _cpu_clock(thread_id: int) -> Callable[[], float]:
    try:
        clock = time.pthread_getcpuclockid(thread_id)
    except (AttributeError, OSError):  # macOS, Windows, browsers: the process's CPU time
        return time.process_time
    return lambda: time.clock_gettime(clock)
