#!/usr/bin/env bash
# Measures every scenario one after the other, on servers of their own, and keeps each result as JSON in bench/results.
# Ends with 1 if a goal was missed.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p bench/results
missed=0
measure() {
  local name=$1
  shift
  echo "== boxoffice-bench $*"
  target/release/boxoffice-bench "$@" --save "bench/results/$name.json" || missed=1
}
measure sagas sagas
measure booking booking
measure journey journey
measure hot-seat hot-seat
measure load load
measure undo undo
measure stuck stuck
measure takeover takeover
measure expiry expiry
measure overdue overdue
measure attack attack
measure timers-100k timers --pending 100000
measure timers-1m timers --pending 1000000
measure idle idle
measure queue queue
measure contention contention
measure reads reads
measure growth growth --plans bench/results/plans.md
exit $missed
