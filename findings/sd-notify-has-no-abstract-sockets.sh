#!/bin/bash
# The sd-notify package cannot reach a NOTIFY_SOCKET that begins with "@", and raises where others are silent.
#
# Guess:  a leading "@" stands for the NUL of an abstract socket, as sd_notify(3) says, in each of the small packages.
# Really: sd-notify looks for a file of that name and raises FileNotFoundError out of ready(); sdnotify and cysystemd deliver.
# So:     which of two packages, one hyphen apart, a service has decides whether it starts under a manager with abstract sockets.
# Seen:   sd-notify 0.1.0, sdnotify 0.3.2, cysystemd 2.0.5.
. "$(dirname "$0")/lib/setup.bash"
pip sd-notify==0.1.0 sdnotify==0.3.2 cysystemd==2.0.5
cat >notify.py <<'PYTHON'
import os, socket, sys
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = f"finding-{os.getpid()}"
manager.bind("\0" + name)
manager.settimeout(0.5)
os.environ["NOTIFY_SOCKET"] = "@" + name
try:
    if sys.argv[1] == "sd-notify":
        import sd_notify
        sd_notify.Notifier().ready()
    elif sys.argv[1] == "sdnotify":
        import sdnotify
        sdnotify.SystemdNotifier().notify("READY=1")
    else:
        from cysystemd.daemon import Notification, notify
        notify(Notification.READY)
    print(manager.recv(100).decode().strip())
except OSError as error:
    print(type(error).__name__)
PYTHON
expect "sdnotify" "$("$python" notify.py sdnotify)" "READY=1"
expect "cysystemd" "$("$python" notify.py cysystemd)" "READY=1"
expect "sd-notify" "$("$python" notify.py sd-notify)" "FileNotFoundError"
