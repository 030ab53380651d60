#!/usr/bin/env bash
# The table of docs/performance.md: a fresh server on processor 0 for each scenario, the load on
# processor 1, fsync on. With TRACE=automerge-paper.json.gz also the large document.
#
# usage: load/bench.sh [SCENARIO...]
set -euo pipefail
cd "$(dirname "$0")/.."
ulimit -n "$(ulimit -Hn)"

bin=target/release
dir=$(mktemp -d)
address=127.0.0.1:28480
server=

stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    server=
}
trap 'stop; rm -rf "$dir"' EXIT

# Starts a server on the data directory $1 and waits until it says where it is.
start() {
    : > "$dir/out"
    taskset -c 0 "$bin/cowrite" serve --data "$1" --listen $address --admin 127.0.0.1:28481 \
        > "$dir/out" 2> "$dir/err" &
    server=$!
    until grep -q http "$dir/out"; do kill -0 "$server"; sleep 0.05; done
}

load() { taskset -c 1 "$bin/cowrite-load" "$@" --server "http://$address" 2>> "$dir/load.err"; }

scenarios=("$@")
[ ${#scenarios[@]} -gt 0 ] || scenarios=(hot_document crowd many_documents idle slow_readers
    reconnect_storm saturate saturate_many)
for scenario in "${scenarios[@]}"; do
    echo "== $scenario"
    start "$dir/$scenario"
    load run "load/scenarios/$scenario.toml" --server-pid "$server" || echo "FAILED"
    stop
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
