#!/usr/bin/env bash
# The speed table of docs/performance.md: three nodes on this machine, N = 3, quorum both ways, `sync`, TLS,
# 100,000 keys, values of 1 KiB. Prints Markdown. Needs the release binaries (`make build`), jq, and ports 7400 to
# 7402 and 7480 to 7482 free.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${CARGO_TARGET_DIR:-$HOME/.cache/anello/target}/release
seconds=${SECONDS_A_ROW:-8}
work=$(mktemp -d)
cd "$work"

"$bin/anello" fleet up "$root/deploy/fleets/three-nodes.toml" >fleet.log 2>&1 &
fleet=$!
trap 'kill -INT $fleet; wait $fleet || true; rm -rf "$work"' EXIT
for _ in $(seq 300); do
  grep -q 'nodes are ready' fleet.log && break
  kill -0 $fleet || { cat fleet.log >&2; exit 1; }
  sleep 0.1
done

"$bin/anello" bench --load --workload c --distribution uniform --duration 2s >/dev/null

sync=$("$bin/anello" bench --workload c --duration 1s --sync-dir "$work" --json |
  jq -r '"p50 \(.sync_us.p50) µs, p99 \(.sync_us.p99) µs"')
echo "A durable write of 4 KiB, one after the other, on this disk: $sync."
echo
echo "| way | reads | clients | ops/s | p50 ms | p95 ms | p99 ms | server CPU µs/op |"
echo "| --- | --: | --: | --: | --: | --: | --: | --: |"
for way in client http; do
  [ "$way" = http ] && over=(--http) || over=()
  for clients in 32 128; do
    for reads in 1 0.95 0.5 0; do
      "$bin/anello" bench "${over[@]}" --read-ratio $reads --distribution uniform --clients $clients \
        --duration "${seconds}s" --json |
        jq -r --arg way $way --arg reads "$(awk "BEGIN { print 100 * $reads }") %" --arg clients $clients '
          def ms: . / 1000 | . * 100 | round / 100;
          .phases[] | select(.phase == "run")
          | "| \($way) | \($reads) | \($clients) | \(.per_second | round) | \(.all.p50_us | ms) | \(.all.p95_us | ms) | \(.all.p99_us | ms) | \(.server_cpu_us_per_operation | . * 10 | round / 10) |"'
    done
  done
done
