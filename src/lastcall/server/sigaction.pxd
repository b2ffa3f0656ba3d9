cdef extern from "signal.h" nogil:
    ctypedef unsigned long pthread_t    # the C compiler knows better what it is
    ctypedef struct sigset_t:
        pass
    ctypedef struct siginfo_t:
        pass
    ctypedef struct Disposition "struct sigaction":
        void (*sa_handler)(int signum) noexcept nogil
        void (*sa_sigaction)(int signum, siginfo_t* info, void* context) noexcept nogil
        sigset_t sa_mask
        int sa_flags
    const int SA_ONSTACK
    const int SA_SIGINFO
    const int SIG_BLOCK
    const int SIG_SETMASK
    const int SIG_UNBLOCK
    void SIG_DFL(int signum) noexcept
    void SIG_IGN(int signum) noexcept
    int c_sigaction "sigaction"(int signum, const Disposition* new, Disposition* before)
    int sigemptyset(sigset_t* signals)
    int sigfillset(sigset_t* signals)
    int sigaddset(sigset_t* signals, int signum)
    int pthread_kill(pthread_t thread, int signum)
    int pthread_sigmask(int how, const sigset_t* new, sigset_t* before)


cdef struct Caught:
    int signum
    double when     # seconds, time.monotonic()'s


cdef double monotonic() noexcept nogil
cdef bint next_caught(unsigned long* cursor, Caught* caught) noexcept nogil
cdef unsigned long caught_so_far() noexcept nogil
cdef void ring(int fd) noexcept nogil
cdef void set_doorbell(int fd) noexcept nogil
cdef bint unheard() noexcept nogil
cdef void call_python_again() noexcept nogil
