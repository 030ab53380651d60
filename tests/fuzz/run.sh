#!/usr/bin/env bash
# Builds the fuzz targets and runs each for SECONDS_EACH (10), JOBS (2) at once, from the seeds and the
# kept corpus. A finding is written to findings/ and fails the run. KEEP=1 adds to the corpus what has
# found new ways.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${SECONDS_EACH:-10}
jobs=${JOBS:-2}
triple=$(rustc --print host-tuple)
# What cargo-fuzz sets. The sanitizer's runtime comes with the stable toolchain; only its flag is
# called unstable.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/target}
cargo build --locked --release --target "$triple"

"$CARGO_TARGET_DIR/$triple/release/seeds"
targets=${TARGETS:-$(ls targets | sed 's/\.rs$//')}
mkdir -p findings new
# Deep recursion that one thread of the server does not bear must not pass here either.
ulimit -s 2048
run() {
    local target=$1
    mkdir -p "new/$target" "corpus/$target" "seeds/$target"
    local into=("new/$target" "corpus/$target" "seeds/$target")
    # 1 GiB in all, with the sanitizer's own, 64 MiB at once; what takes more than 100 ms of processor time the targets find
    # themselves, ten seconds of real time are a hang.
    if "$CARGO_TARGET_DIR/$triple/release/$target" "${into[@]}" -max_total_time="$seconds" \
        -max_len=16384 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64 -detect_leaks=0 \
        -artifact_prefix="findings/$target-" -print_final_stats=1 >"new/$target.log" 2>&1
    then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "new/$target.log") inputs"
    else
        tail -60 "new/$target.log"
        echo "$target: FAILED, see findings/"
        return 1
    fi
}
export -f run
export seconds triple
# shellcheck disable=SC2086
printf '%s\n' $targets | xargs -P "$jobs" -I{} bash -c 'run {}'

# What is worth keeping of what was found: as few inputs as find as much, and only those that may be.
if [ -n "${KEEP:-}" ]; then
    for target in $targets; do
        mkdir -p "new/$target-merged"
        "$CARGO_TARGET_DIR/$triple/release/$target" -merge=1 "new/$target-merged" "corpus/$target" \
            "new/$target" >"new/$target.log" 2>&1
        rm -rf "corpus/$target"
        mkdir -p "corpus/$target"
        "$CARGO_TARGET_DIR/$triple/release/seeds" "$target" "new/$target-merged"/* |
            xargs -r cp -t "corpus/$target"
    done
fi
