"""A process's identity, pidfile and sockets from systemd, in the order in which they are to be had.

The one process and a parent of workers do the same: make an ``OwnProcess`` before anything else, ``take_pidfile()``
before the addresses are bound, ``become()`` behind that (not the parent, which stays root), ``end()`` at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lastcall.base.options import BindSpec
from lastcall.server.identity import become, find_identity, hand_over, set_title, set_umask
from lastcall.server.pidfile import PidFile

if TYPE_CHECKING:
    from lastcall.base.options import ServerOptions
    from lastcall.config import Config
    from lastcall.systemd.activation import Activation


class OwnProcess:
    """What ``--user``, ``--group``, ``--umask``, ``--pidfile`` and ``--proc-title`` ask for.

    Making it sets the mask and the title, and finds out whom to become: what is wrong with that is a ConfigError.
    ``role`` stands behind the title, where there are several processes.
    """

    def __init__(self, options: ServerOptions, role: str = "") -> None:
        process = options.process
        self.identity = find_identity(process)
        self._report = options.stop.report
        self._pidfile = None if process.pidfile is None else PidFile(process.pidfile)
        set_title(process, role)
        set_umask(process)

    def take_pidfile(self, *, instead_of: int = 0) -> None:
        """Write the pidfile; raises StartupError. ``instead_of``: the process that hands it over, or 0."""
        if self._pidfile is not None:
            self._pidfile.write(instead_of=instead_of)

    def become(self, sockets: Iterable[tuple[str, tuple[int, int]]]) -> None:
        """Change the identity, and give away before what is needed after. ``sockets``: as ``hand_over`` takes them.

        Raises StartupError.
        """
        if self.identity is not None:
            hand_over(self.identity, sockets, self._report)
            if self._pidfile is not None:
                self._pidfile.give(self.identity)
            become(self.identity)

    def end(self) -> None:
        """Remove the pidfile, if it is still ours."""
        if self._pidfile is not None:
            self._pidfile.remove()

    def hand_pidfile_over(self) -> None:
        """Another process has taken the pidfile: leave it alone."""
        if self._pidfile is not None:
            self._pidfile.forget()


def on_systemds_sockets(config: Config, activation: Activation) -> Config:
    """The configuration with the sockets that systemd has opened, where nobody has said where to listen.

    What they are, and whether they can be served, is found out when they are bound. Adds to the warnings where sockets
    are left that nobody answers: clients of theirs would wait in a queue for ever.
    """
    binds = config.options.net.binds
    if activation.descriptors and not config.says_where:
        return config.listening_on(tuple(BindSpec("fd", fd=fd) for fd in activation.descriptors))
    left = [fd for fd in activation.descriptors if all(bind.kind != "fd" or bind.fd != fd for bind in binds)]
    if left:
        which = ", ".join(f"fd://{fd}" for fd in left)
        config.warnings.append(
            f"systemd has opened sockets that are not served ({which}), since another address was given: leave that out"
        )
    if activation.meant_for:
        config.warnings.append(
            f"systemd has opened sockets for process {activation.meant_for}, which is not this one: what stands "
            "between has to start lastcall by exec"
        )
    return config
