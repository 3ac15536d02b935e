# What the examples' run scripts share. Starts simulated providers and the gateway, shows the
# gateway's log, and ends all of them together. To be sourced, with example=NAME set before:
#
#   provider NAME FLAG...    starts `perilune sim FLAG...`
#   gateway DIR              starts the gateway; then $address is where it listens
#   follow                   shows its log until it ends
#
# `run NAME` starts that provider alone, in the foreground: one that was killed comes back so.
#
# From the environment: PERILUNE_BIN (build/perilune); LISTEN and ADMIN (ADDRESS:PORT) instead of what
# gateway.lua says; RUN_DIR (build/run/EXAMPLE), which holds NAME.pid and NAME.log of each process.
# shellcheck shell=bash
set -u
cd "$(dirname "$0")/../.." || exit 1

BINARY=${PERILUNE_BIN:-build/perilune}
RUN_DIR=${RUN_DIR:-build/run/$example}
START_TIMEOUT_S=10

only=${1:-}
names=()
pids=()
shown=
address=

# Where the kernel can be told so, they end even when the script is killed.
with_us=
! command -v setpriv >/dev/null 2>&1 || with_us="setpriv --pdeathsig TERM"

fail() {
    echo "$example: $*" >&2
    exit 1
}

# Ends everything, whatever the reason: first politely, then, after five seconds, for sure.
finish() {
    trap '' INT TERM HUP
    [ -z "$shown" ] || kill "$shown" 2>/dev/null && wait "$shown" 2>/dev/null
    if [ "${#pids[@]}" -gt 0 ]; then
        kill -TERM "${pids[@]}" 2>/dev/null
        local turns=100
        while kill -0 "${pids[@]}" 2>/dev/null && [ "$turns" -gt 0 ]; do
            turns=$((turns - 1))
            sleep 0.05
        done
        kill -KILL "${pids[@]}" 2>/dev/null
        wait "${pids[@]}" 2>/dev/null
    fi
    local name
    for name in "${names[@]}"; do
        rm -f "$RUN_DIR/$name.log" "$RUN_DIR/$name.pid"
    done
    rmdir "$RUN_DIR" 2>/dev/null
}

# start NAME ARGUMENT...: starts the binary and waits until it listens.
start() {
    local name=$1 log=$RUN_DIR/$1.log
    shift
    names+=("$name")
    : >"$log"
    # shellcheck disable=SC2086 # a command and its arguments
    $with_us "$BINARY" "$@" >>"$log" 2>&1 &
    pids+=("$!")
    local pid=$! deadline=$((SECONDS + START_TIMEOUT_S))
    echo "$pid" >"$RUN_DIR/$name.pid"
    until grep -q 'listening on' "$log"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            cat "$log" >&2
            fail "the $name did not start ($BINARY $*)"
        fi
        [ "$SECONDS" -lt "$deadline" ] || fail "the $name did not start within $START_TIMEOUT_S s"
        sleep 0.05
    done
    echo "$example: $name: $(grep -m 1 'listening on' "$log")"
}

provider() {
    local name=$1
    shift
    if [ -z "$only" ]; then
        start "$name" sim "$@"
    elif [ "$only" = "$name" ]; then
        [ ! -d "$RUN_DIR" ] || echo "$$" >"$RUN_DIR/$name.pid"
        exec "$BINARY" sim "$@"
    fi
}

gateway() {
    [ -z "$only" ] || fail "there is no provider $only"
    start gateway run "$1" --log-format text ${LISTEN:+--listen "$LISTEN"} ${ADMIN:+--admin "$ADMIN"}
    address=$(sed -n 's/.*perilune: listening on \([^ ,]*\).*/\1/p' "$RUN_DIR/gateway.log" |
        head -n 1)
}

# A provider may be taken away, and the gateway goes on.
follow() {
    tail -n +2 -f --pid=$$ "$RUN_DIR/gateway.log" &
    shown=$!
    wait "${pids[-1]}"
    fail "the gateway has ended, see above"
}

[ -x "$BINARY" ] || fail "$BINARY is not there; run make"
if [ -z "$only" ]; then
    mkdir -p "$RUN_DIR" || exit 1
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
fi
