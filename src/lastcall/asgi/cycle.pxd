cimport cython

from lastcall.asgi.awaitables cimport Awaitable
from lastcall.asgi.runtime cimport AppRuntime
from lastcall.notice.running cimport RunningTask


cdef extern from * nogil:
    """
    /* A number of this thread, without a call into another library. */
    #if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
    static inline unsigned long lastcall_thread(void) {
        unsigned long self;
        __asm__("mov %%fs:0, %0" : "=r"(self));
        return self;
    }
    #else
    #include <pthread.h>
    static inline unsigned long lastcall_thread(void) { return (unsigned long)pthread_self(); }
    #endif
    """
    unsigned long lastcall_thread() noexcept

cdef extern from "Python.h":
    object PyMethod_New(object function, object self)


cdef enum:
    HIGH_WATER = 65536      # bytes unsent: above it send() suspends, or reading is paused
    LOW_WATER = 16384       # bytes unsent: below it senders are woken
    YIELD_SENDS = 100       # without a suspension: the next one gives the loop a turn


cdef class AppCycle(RunningTask):
    cdef readonly AppRuntime runtime
    cdef readonly object task
    cdef dict scope                     # only until the application is called: no reference cycle while it runs
    cdef bytes raw_path
    cdef bytes query_string
    cdef readonly bint disconnected     # the client has left, or is treated so
    cdef readonly bint complete         # the application has sent all that it can
    cdef readonly bint ended            # the task has ended
    cdef readonly bint ran_after_response   # for at least a step
    cdef bint cancelled                 # by our own order
    cdef bint incomplete                # the task ended before it was complete
    cdef bint _awaited                  # it counts in RunningTasks.awaited
    cdef bint told                      # receive() has told of a FIN, behind which send() still delivers
    cdef bint stepping                  # the task's own coroutine runs (not a task that it has started)
    cdef object leave_timer             # runs out when the task goes on too long without its client
    cdef double leave_at                # when that is, on the loop's clock
    cdef object receive_waiter          # future, list of futures, or None
    cdef object senders                 # deque of Sending: who waits in send(), in order; None: nobody
    cdef const unsigned int* flush_count    # changes each time what was sent is handed to the kernel; set by its maker
    cdef unsigned int _flushes          # its value when sends were last counted
    cdef int _unsuspended               # sends since then
    cdef Py_ssize_t _unsuspended_bytes
    cdef Py_ssize_t _allowance          # bytes that can be sent before unsent() has to be asked; < 0: ask, or others wait

    # -- driven by the connection
    cdef int start(self) except -1
    cdef int disconnect(self) except -1
    cdef int wake_sender(self) except -1
    cdef int release_senders(self) except -1
    cdef int wake_receivers(self) except -1
    # -- what each protocol does its own way
    cdef object message(self)
    cdef int wants_input(self) except -1
    cdef Py_ssize_t unsent(self) noexcept
    cdef int flush(self) except -1
    cdef int deliver(self, object data) except -1
    cdef object bound_send(self)
    cdef bint half_closed(self) noexcept
    cdef bint client_takes(self) noexcept
    cdef int give_up(self) except -1
    cdef bint leave_is_limited(self) noexcept
    cdef int suspended(self) except -1
    cdef bint answers(self) noexcept
    cdef int unfinished(self, bint raised) except -1
    cdef int cancel_timers(self) except -1
    cdef int task_ended(self) except -1
    # -- for its subclasses
    cdef void count_anew(self) noexcept
    cdef bint may_send(self, Py_ssize_t n) noexcept
    cdef object send_later(self, object data, Py_ssize_t n)
    cdef int sent_late(self, object data, Py_ssize_t n) except -1
    cdef bint turn_is_due(self) noexcept
    cdef object nothing_sent(self)
    cdef object fail(self, object error)
    cdef object into_void(self)
    cdef void response_begun(self) noexcept
    cdef int start_leave_timer(self) except -1
    cdef int watch_half_closed(self) except -1
    # -- private
    cdef int _leave_within(self, double seconds, double look) except -1
    cdef int _ended(self, object exc) except -1
    cdef int _log_failure(self, object exc) except -1


@cython.final
cdef class AppCoroutine(Awaitable):
    cdef object _step(self, object value, object thrown)
    cdef object _call(self, AppCycle cycle, object thrown)
    cdef object _throw(self, AppCycle cycle, object thrown)
    cdef object _suspended(self, AppCycle cycle, object value)


@cython.final
cdef class Receive(Awaitable):
    pass


@cython.final
cdef class Sending(Awaitable):
    cdef object _data
    cdef Py_ssize_t _size
    cdef bint _turn                     # the loop gets one before anything is sent
    cdef bint _queued
    cdef int _leave(self) except -1


cdef object TURN
cdef object item(object message, object key)
cdef object marked(object function)
