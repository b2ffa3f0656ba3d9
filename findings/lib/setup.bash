# Sourced by every finding: a folder of its own, pinned packages in it, and one way to say what was expected.
#
# Ends with 0: the behaviour is as written. 1: it has changed. 77: it could not be looked at (a pinned version has left the
# index, say); that is neither.

set -euo pipefail
lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
started=()
trap 'for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"

not_checked() { echo "not checked: $*" >&2; exit 77; }

# pip NAME==VERSION ...: a virtual environment of this finding's own; $python is its interpreter.
pip() {
    python3 -m venv venv || not_checked "no virtual environment could be made"
    python=$folder/venv/bin/python
    "$python" -m pip install --quiet --disable-pip-version-check "$@" 2>pip.txt || { cat pip.txt >&2; not_checked "pip install $*"; }
}

# npm NAME@VERSION ...: into ./node_modules.
npm_install() { npm install --silent --no-fund --no-audit "$@" >npm.txt 2>&1 || { cat npm.txt >&2; not_checked "npm install $*"; }; }

# deb NAME=VERSION ...: unpacked into ./root, not installed; their libraries are found.
deb() {
    mkdir -p debs root
    (cd debs && apt-get download "$@") >apt.txt 2>&1 || { cat apt.txt >&2; not_checked "apt-get download $* (apt-get update?)"; }
    for package in debs/*.deb; do dpkg -x "$package" root; done
    root=$folder/root
    libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu:$root/usr/lib:$root/usr/lib/x86_64-linux-gnu/varnish
}

# start COMMAND ...: in the background, ended with the finding.
start() { "$@" >>"$folder/started.txt" 2>&1 & started+=($!); }

# listening PORT: waits until something does.
listening() {
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    cat "$folder/started.txt" >&2
    not_checked "nothing listens on port $1"
}

# ports N: prints N free ports.
ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))
PYTHON
}

# expect WHAT ACTUAL WRITTEN: prints what was seen, and ends with 1 if it is not what is written.
expect() {
    echo "$1: $2"
    if [ "$2" != "$3" ]; then
        echo "changed: expected $3" >&2
        exit 1
    fi
}
