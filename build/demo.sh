#!/bin/sh
# A tour with nothing but dist/r2box: two nodes on this machine, linked over TCP, in a directory that goes afterwards.
set -eu

PATH=$(CDPATH='' cd "$(dirname "$0")/../dist" && pwd):$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/r2demo.XXXXXX")
running=

finish() {
    status=$?
    for pid in $running; do kill "$pid" 2>/dev/null || :; done
    for pid in $running; do wait "$pid" 2>/dev/null || :; done
    if [ "$status" -ne 0 ] && [ "$status" -lt 128 ]; then  # and not by ^C
        echo "demo: failed with status $status; what the programs in the background said:" >&2
        cat "$work"/*.log >&2 || :
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM

say() { printf '\n# %s\n' "$*"; }

# Show a command as one would type it, then run it.
show() {
    printf '$ %s\n' "$1"
    eval "$1"
}

# Show a command and leave it running; what it says goes to the file $2.
start() {
    printf '$ %s &\n' "$1"
    eval "exec $1" >"$2" 2>&1 &
    running="$running $!"
}

# Repeat a command until it succeeds, for some 20 seconds at most.
await() {
    tries=200
    until eval "$1" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "demo: waited in vain for: $1" >&2; exit 1; }
        sleep 0.1
    done
}

# node NAME GREETING NEIGHBOUR TRANSPORT: write NAME.toml
node() {
    printf '[self]\naddr = "%s"\nsocket = "%s"\ncmd = "%s"\n\n' "$1" "$work/$1.sock" "$2" >"$1.toml"
    printf '[[conn]]\naddr = "%s"\ncmd = "%s"\n' "$3" "$4" >>"$1.toml"
}

cd "$work"
exec </dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
node alice "echo hello from alice" bob "tcp-listen://127.0.0.1:$port"
node bob "echo Hello, I'm bob" alice "tcp://127.0.0.1:$port"

say "Two nodes, each from a file of a few lines; this is bob's:"
show "cat bob.toml"
start "r2dm -f alice.toml" alice.log
start "r2dm -f bob.toml" bob.log
await "r2 -s alice.sock -t bob ping -c 1"
say "What is bob connected to?"
show "r2 -s alice.sock -t bob ls"
say "A tunnel to a node itself runs its greeting."
show "r2 -s alice.sock -t bob tunnel -"
show "r2 -s bob.sock -t alice tunnel -"
say "Any program can be a service, with one run of it for every tunnel."
start 'r2 -s alice.sock serve -n upper "tr a-z A-Z"' upper.log
await "r2 -s alice.sock ls | grep upper"
show "echo hello | r2 -s bob.sock -t alice -t upper tunnel -"
say "How far is it?"
show "r2 -s alice.sock -t bob ping -c 3"
