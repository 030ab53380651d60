#!/usr/bin/env bash
# The tables of docs/performance.md: a fresh server on processor 0 for each scenario and door, the load
# on processor 1, fsync on, and no limit to what a session may send, which some scenarios are far beyond. With TRACE=automerge-paper.json.gz also the large document.
#
# usage: load/bench.sh [SCENARIO...]
#   DOORS="grpc y-websocket"   only these doors; otherwise all
#   PEER="node server.js" PEER_URL=ws://127.0.0.1:1234 DOORS=y-websocket
#                              another server of a door's protocol, started anew for each scenario with
#                              a new directory in $DATA, instead of Cowrite
set -euo pipefail
[ -n "${PEER:-}" ] || cd "$(dirname "$0")/.."
root=$(cd "$(dirname "$0")/.." && pwd)
ulimit -n "$(ulimit -Hn)"

bin=$root/target/release
dir=$(mktemp -d)
address=127.0.0.1:28480
url=${PEER_URL:-http://$address}
server=
no_limits=(
    COWRITE_LIMITS__SESSION_FRAMES_PER_SECOND=0 COWRITE_LIMITS__SESSION_BYTES_PER_SECOND=0
    COWRITE_LIMITS__PRINCIPAL_FRAMES_PER_SECOND=0 COWRITE_LIMITS__PRINCIPAL_BYTES_PER_SECOND=0
)

stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    server=
}
trap 'stop; rm -rf "$dir"' EXIT

# Whether somebody listens where $url says.
listens() {
    local place=${url#*://}
    place=${place%%/*}
    (exec 3<> "/dev/tcp/${place%:*}/${place##*:}") 2> /dev/null
}

# Starts a server on the data directory $1 and waits until it listens.
start() {
    if listens; then echo "something else listens at $url" >&2; exit 1; fi
    mkdir -p "$1"
    if [ -n "${PEER:-}" ]; then
        DATA=$1 taskset -c 0 bash -c "exec $PEER" > "$dir/out" 2> "$dir/err" &
    else
        env "${no_limits[@]}" taskset -c 0 "$bin/cowrite" serve --data "$1" --listen $address --admin 127.0.0.1:28481 \
            > "$dir/out" 2> "$dir/err" &
    fi
    server=$!
    until listens; do
        kill -0 "$server" || { tail "$dir/err" >&2; exit 1; }
        sleep 0.05
    done
}

load() { taskset -c 1 "$bin/cowrite-load" "$@" --server "$url" 2>> "$dir/load.err"; }

# What is compared between doors, and what is measured through the first alone.
compared=(hot_document crowd many_documents saturate idle connect_storm)
native=(slow_readers reconnect_storm saturate_many)
for door in ${DOORS:-grpc grpc-web y-websocket hocuspocus}; do
    scenarios=("$@")
    if [ ${#scenarios[@]} -eq 0 ]; then
        scenarios=("${compared[@]}")
        [ "$door" != grpc ] || scenarios+=("${native[@]}")
    fi
    for scenario in "${scenarios[@]}"; do
        echo "== $scenario, $door"
        start "$dir/$scenario-$door"
        load run "$root/load/scenarios/$scenario.toml" --door "$door" --server-pid "$server" ||
            { echo "FAILED"; tail -n 1 "$dir/load.err"; }
        stop
    done
done

if [ -n "${TRACE:-}" ]; then
    echo "== replay, then joins after a restart: $(basename "$TRACE")"
    start "$dir/trace"
    load replay --trace "$TRACE" --document paper
    stop
    start "$dir/trace"
    load join --document paper --joins 1 --at-once 100 --server-pid "$server"
    stop
fi
