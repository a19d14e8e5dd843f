#!/usr/bin/env bash
# Fuzzes models, policies and audit logs for a minute, always with the same cases. First checks that the fuzzer finds faults
# that are made on purpose.
set -euo pipefail
npx tsc -p test/fuzz
for fault in crash exit hang wait memory error; do
  if node build-fuzz/test/fuzz/run.js --cases 1 --fault "$fault" >/dev/null; then
    echo "the fuzzer does not find: $fault"
    exit 1
  fi
done
node build-fuzz/test/fuzz/run.js --seconds 60 --jobs 2
