#!/bin/bash
# setproctitle writes a long title over /proc/PID/environ.
#
# Guess:  the title takes the place of the command line alone, cut to its length, or is kept by prctl(PR_SET_MM); environ stays.
# Really: the environment's own memory is used for it: /proc/PID/environ then begins in the middle of the title and has no variable left.
#         os.environ and getenv() go on working, since the variables were copied.
# So:     whoever reads a worker's environment from outside (an on-call engineer, systemd tools, ps e) sees nothing of it once titles are set.
# Seen:   setproctitle 1.3.8, Linux.
. "$(dirname "$0")/lib/setup.bash"
pip setproctitle==1.3.8
cat >title.py <<'PYTHON'
import os, setproctitle
names = lambda: b"\nFINDING=here\n" in b"\n" + open("/proc/self/environ", "rb").read().replace(b"\0", b"\n")
before = names()
setproctitle.setproctitle("worker 1: draining, 12 requests left, 14 seconds until they are cancelled " * 4)
print(before, names(), os.environ["FINDING"])
PYTHON
expect "environ before, after, os.environ" "$(env -i FINDING=here PATH="$PATH" "$python" title.py)" "True False here"
