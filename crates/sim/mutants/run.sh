#!/usr/bin/env bash
# Breaks the code on purpose, one mutant after the other, and shows which check of the simulator catches
# each and after how many seeds. Works on a copy of the last commit; about a minute a mutant.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(git -C "$here" rev-parse --show-toplevel)
copy=$(mktemp -d)
# Never a directory that others build in: Cargo would take the mutants for their own crates.
export CARGO_TARGET_DIR=${MUTANTS_TARGET_DIR:-$copy/target}
trap 'git -C "$repo" worktree remove --force "$copy/tree"; rm -rf "$copy"' EXIT

git -C "$repo" worktree add --quiet --detach "$copy/tree" HEAD
cd "$copy/tree"
survivors=0
for patch in "${@:-$here/*.patch}"; do
  for file in $patch; do
    git apply "$file"
    cargo build --quiet -p anello-sim
    echo "== $(basename "$file" .patch)"
    if "$CARGO_TARGET_DIR/debug/anello-sim" --seeds 1..2001 --stop-at-first --threads 1; then
      echo "SURVIVED"
      survivors=$((survivors + 1))
    fi
    git checkout --quiet .
  done
done
exit $((survivors > 0))
