# Processes of a benchmark run: start pinned, find, weigh, stop. Sourced by spec/bench/run.
# shellcheck shell=bash

children=()
launched_pid=0
pipe_fd=-1

# launch CORE LOG COMMAND...: starts it in the background, pinned; its pid is in launched_pid. It
# gets SIGTERM when this script dies in whatever way.
launch() {
    local core=$1 log=$2
    shift 2
    setpriv --pdeathsig TERM taskset -c "$core" "$@" > "$log" 2>&1 < /dev/null 9>&- &
    launched_pid=$!
    children+=("$launched_pid")
}

# open_pipe CORE COMMAND...: the same, with its output to be read from pipe_fd.
open_pipe() {
    local core=$1
    shift
    exec {pipe_fd}< <(exec setpriv --pdeathsig TERM taskset -c "$core" "$@" < /dev/null 9>&-)
    launched_pid=$!
    children+=("$launched_pid")
}

# alive PID: it is a child of this script (not another program that got its number) and runs.
alive() {
    local line state parent
    { read -r line < "/proc/$1/stat"; } 2> /dev/null || return 1
    read -r state parent _ <<< "${line##*) }"
    [ "$parent" = "$$" ] && [ "$state" != Z ]
}

# with_children PID: it and its direct children, on one line.
with_children() {
    local stat line parent pids=$1
    for stat in /proc/[0-9]*/stat; do
        { read -r line < "$stat"; } 2> /dev/null || continue
        read -r _ parent _ <<< "${line##*) }" # what follows the name, which may hold anything
        [ "$parent" = "$1" ] && pids="$pids ${line%% *}"
    done
    echo "$pids"
}

# resident_kib PID: of it and its children together.
resident_kib() {
    local pid key value total=0
    for pid in $(with_children "$1"); do
        while read -r key value _; do
            [ "$key" = VmRSS: ] && total=$((total + value))
        done < "/proc/$pid/status"
    done
    echo "$total"
}

# await_exit PID SECONDS: false when it is still there afterwards.
await_exit() {
    local deadline=$((SECONDS + $2))
    while alive "$1"; do
        ((SECONDS <= deadline)) || return 1
        sleep 0.02
    done
}

# stop PID: SIGTERM, and SIGKILL to it and its children when that does not help.
stop() {
    local pids pid
    alive "$1" || return 0
    pids=$(with_children "$1")
    kill -TERM "$1" 2> /dev/null
    if ! await_exit "$1" 3; then
        for pid in $pids; do
            kill -KILL "$pid" 2> /dev/null
        done
    fi
    wait "$1" 2> /dev/null
}

stop_everything() {
    local pid
    trap '' INT TERM HUP
    for pid in "${children[@]}"; do
        alive "$pid" && kill -TERM "$pid"
    done
    for pid in "${children[@]}"; do
        stop "$pid"
    done
}

# port_answers PORT: something listens there.
port_answers() {
    (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

# free_port: one below the range that the system gives to outgoing connections, so that none of the
# many thousand connections of a run can take it.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        port_answers "$port" || break
    done
    echo "$port"
}

# await_port PORT PID: until PID listens there; false when it ends or takes longer than 10 s.
await_port() {
    local deadline=$((SECONDS + 10))
    until port_answers "$1"; do
        alive "$2" && ((SECONDS <= deadline)) || return 1
        sleep 0.05
    done
}
