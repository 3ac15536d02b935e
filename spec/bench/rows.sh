# The measurements, one function a row: row_NAME CONTENDER ROUND. Sourced by spec/bench/run.
# Each notes its numbers in result.tsv: round, row, contender, key, value.
# shellcheck shell=bash
# shellcheck disable=SC2154 # variables of run, processes.sh and contenders.sh

WARM_MS=600
SSE_EVENTS=50 # per stream, in the row sse: one second's worth
SSE_INTERVAL_MS=20

# takes_part ROW CONTENDER
takes_part() {
    case $1:$2 in
        memory:seen_10) return 0 ;;
        observed:perilune | observed:unseen | observed:seen_* | observed_sse:unseen | observed_sse:seen_10) return 0 ;;
        observed*:* | *:unseen | *:seen_*) return 1 ;;
        memory:direct | memory:portkey) return 1 ;;
        failover:nginx-lua | failover:perilune) return 0 ;;
        failover:*) return 1 ;;
        sse:portkey | burst:portkey | burst:direct) return 1 ;;
        reload:perilune | gate:perilune) return 0 ;;
        reload:* | gate:*) return 1 ;;
    esac
}

# note ROW CONTENDER ROUND "KEY=VALUE ..."
note() {
    local field
    for field in $4; do
        printf '%s\t%s\t%s\t%s\t%s\n' "$3" "$1" "$2" "${field%%=*}" "${field#*=}"
    done >> "$OUT/result.tsv"
}

# places GATEWAY_PID LOAD_PID: who is pinned where, as the window tool wants it. Gateway 0: none.
places() {
    local gateway=""
    [ "$1" != 0 ] && gateway=$(with_children "$1")
    echo "$GATEWAY_CORE:${gateway// /,} $LOAD_CORE:$upstream_pid,$2"
}

# sample CONTENDER LOAD_PID WARM_MS WINDOW_MS: what happened in the window.
sample() {
    # shellcheck disable=SC2046 # two words
    taskset -c "$LOAD_CORE" "$OUT/window" "$OUT/counters" "$3" "$4" \
        $(places "${contender_pid[$1]}" "$2")
}

# start_wrk CONTENDER CONNECTIONS SECONDS MODEL
start_wrk() {
    local header=""
    [ "$1" = portkey ] && header=$(portkey_header)
    launch "$LOAD_CORE" "$OUT/wrk.out" env "BENCH_MODEL=$4" ${header:+"BENCH_HEADER=$header"} \
        wrk -t1 -c"$2" -d"$3"s -s "$BENCH/post.lua" "http://127.0.0.1:${contender_port[$1]}/"
    wrk_pid=$launched_pid
}

# finish_wrk: waits for it; what it measured is in wrk_summary. Nothing at all counts as a failure.
finish_wrk() {
    wait "$wrk_pid"
    wrk_summary=$(sed -n 's/^bench //p' "$OUT/wrk.out")
    wrk_summary=${wrk_summary:-failed=1}
}

# chat ROW CONTENDER ROUND CONNECTIONS MODEL: wrk with a measuring window in its middle.
chat() {
    local window
    start_wrk "$2" "$4" "$((SECONDS_EACH + 1))" "$5"
    window=$(sample "$2" "$wrk_pid" "$WARM_MS" "$((SECONDS_EACH * 1000))")
    finish_wrk
    note "$1" "$2" "$3" "$window $wrk_summary"
}

row_chat64() {
    chat chat64 "$1" "$2" 64 bench-model
}

row_chat1() {
    chat chat1 "$1" "$2" 1 bench-model
}

# The same as chat64 and burst, by gateways that differ in what they tell of it.
row_observed() {
    chat observed "$1" "$2" 64 bench-model
}

row_observed_sse() {
    streams observed_sse "$1" "$2" 300 -m run -n 64 -t "$((SECONDS_EACH + 1))" -e 1000 -i 0
}

row_failover() {
    chat failover "$1" "$2" 64 bench-failover
}

# streams ROW CONTENDER ROUND WARM_MS SSE_LOAD_ARGUMENT...
streams() {
    local row=$1 name=$2 round=$3 warm_ms=$4 window summary load_pid
    shift 4
    launch "$LOAD_CORE" "$OUT/sse.out" "$OUT/sse_load" "$@" "${contender_port[$name]}"
    load_pid=$launched_pid
    window=$(sample "$name" "$load_pid" "$warm_ms" "$((SECONDS_EACH * 1000))")
    wait "$load_pid"
    # The events counted are the window's; those of sse_load include what came before and after.
    summary=$(sed -n 's/ events=[0-9]*//; /^streams=/p' "$OUT/sse.out")
    note "$row" "$name" "$round" "${summary:-failed=1} $window"
}

row_sse() {
    streams sse "$1" "$2" "$((WARM_MS + 200))" -m run -n "$STREAMS" -t "$((SECONDS_EACH + 1))" \
        -e "$SSE_EVENTS" -i "$SSE_INTERVAL_MS"
}

row_burst() {
    streams burst "$1" "$2" 300 -m run -n 64 -t "$((SECONDS_EACH + 1))" -e 1000 -i 0
}

# One stream after the other, short ones that the upstream writes at once: how long until the first
# event, when the gate looks for content, and when it is open from the head on.
row_gate() {
    local model
    for model in bench-model bench-head; do
        launch "$LOAD_CORE" "$OUT/sse.out" "$OUT/sse_load" -m run -n 1 -t "$SECONDS_EACH" -e 3 \
            -i 0 -b "$model" "${contender_port[$1]}"
        wait "$launched_pid"
        note "gate${model#bench}" "$1" "$2" "$(sed -n '/^streams=/p' "$OUT/sse.out")"
    done
}

# held CONTENDER SSE_LOAD_ARGUMENT...: starts a fresh gateway and holds connections to it. Leaves
# its size before and then, and what sse_load said, in held_numbers.
held() {
    local name=$1 summary
    shift
    start_contender "$name" || {
        say "memory: $name does not answer; see $OUT/$name/log"
        return 1
    }
    held_numbers="idle_kib=$(resident_kib "${contender_pid[$name]}")"
    open_pipe "$LOAD_CORE" "$OUT/sse_load" "$@" "${contender_port[$name]}"
    read -r -t 30 _ <&"$pipe_fd" || say "memory: $name did not open all connections in 30 s"
    sleep 1 # two intervals of the slow streams
    held_numbers="$held_numbers held_kib=$(resident_kib "${contender_pid[$name]}")"
    kill -TERM "$launched_pid"
    read -r -t 5 summary <&"$pipe_fd" || summary=failed=1
    held_numbers="$held_numbers $summary"
    exec {pipe_fd}<&-
    stop "$launched_pid"
    stop_contender "$name"
}

row_memory() {
    local count=$((STREAMS * 2))
    held "$1" -m once -n "$count" -t 60 -e 100000 -i 500 &&
        note memory "$1" "$2" "count=$count $held_numbers"
    held "$1" -m idle -n "$count" -t 60 &&
        note memory_idle "$1" "$2" "count=$count $held_numbers"
}

# use_only UPSTREAM OTHER: new policies, put in place at once, that send everything to UPSTREAM.
use_only() {
    local policies=$OUT/perilune/policies
    configuration "$PLAIN" false |
        sed "s|:${upstream_port[$2]}/|:${upstream_port[$1]}/|" > "$policies/gateway.lua.new"
    mv "$policies/gateway.lua.new" "$policies/gateway.lua"
}

# good_reloads LOG: what the gateway that wrote it says of itself.
good_reloads() {
    local admin
    admin=$(sed -n 's/.*admin on \([0-9.:]*\).*/\1/p' "$1")
    curl -s -m 5 "http://$admin/admin/generations" | sed -n 's/.*"good":\([0-9]*\).*/\1/p' | grep . ||
        echo 0
}

# Requests and streams while the policies are reloaded ten times a second. Memory is looked at once
# the load is steady, and at the end of it.
reload_under_load() {
    local pid=${contender_pid[$1]} port=${contender_port[$1]} window_pid sse_pid turn early_kib
    local reload_count=$((RELOAD_SECONDS * 10)) taken
    start_wrk "$1" 16 "$((RELOAD_SECONDS + 2))" bench-model
    launch "$LOAD_CORE" "$OUT/sse.out" "$OUT/sse_load" -n 50 -t "$((RELOAD_SECONDS + 2))" -e 20 \
        -i 10 "$port"
    sse_pid=$launched_pid
    # shellcheck disable=SC2046 # two words
    launch "$LOAD_CORE" "$OUT/window.out" "$OUT/window" "$OUT/counters" 0 \
        "$((RELOAD_SECONDS * 1000 + 500))" $(places "$pid" "$wrk_pid,$sse_pid")
    window_pid=$launched_pid
    for ((turn = 0; turn < reload_count; turn++)); do
        if ((turn % 2 == 0)); then use_only ok_a ok_b; else use_only ok_b ok_a; fi
        alive "$pid" && kill -HUP "$pid"
        ((turn == 10)) && early_kib=$(resident_kib "$pid")
        sleep 0.1
    done
    taken="early_kib=${early_kib:-0} late_kib=$(resident_kib "$pid")"
    wait "$window_pid" "$sse_pid"
    finish_wrk
    alive "$pid" || say "reload: $1 has died; see $OUT/$1/log"
    taken="$taken in_force=$(good_reloads "$OUT/$1/log")"
    note reload "$1" "$2" "$(cat "$OUT/window.out") $wrk_summary reloads=$reload_count $taken"
    note reload_streams "$1" "$2" "$(tail -n 1 "$OUT/sse.out")"
}

# SIGTERM with streams open: each must end whole, and then the gateway must.
drain_under_load() {
    local pid=${contender_pid[$1]} summary exited=0
    alive "$pid" || {
        note drain "$1" "$2" "failed=1 exited=0"
        return
    }
    open_pipe "$LOAD_CORE" "$OUT/sse_load" -m once -n 300 -t 5 -e "$SSE_EVENTS" \
        -i "$SSE_INTERVAL_MS" "${contender_port[$1]}"
    read -r -t 20 _ <&"$pipe_fd"
    alive "$pid" && kill -TERM "$pid"
    read -r -t 25 summary <&"$pipe_fd" || summary=failed=1
    exec {pipe_fd}<&-
    await_exit "$pid" 5 && exited=1
    note drain "$1" "$2" "$summary exited=$exited"
}

row_reload() {
    start_contender "$1" || {
        say "reload: $1 does not answer; see $OUT/$1/log"
        return
    }
    reload_under_load "$1" "$2"
    drain_under_load "$1" "$2"
    stop_contender "$1"
}
