#!/usr/bin/env bash
# Fuzzes models, policies and audit logs, sessions of open lengths, and the crafted files: always the same cases, which take a
# minute on two cores; the time limits are for slow machines. First checks that the fuzzer finds faults that are made on purpose.
set -euo pipefail
node node_modules/typescript-7/bin/tsc -p test/fuzz --noCheck
export NODE_PATH=build-fuzz
for fault in crash exit hang wait memory error; do
  if node build-fuzz/test/fuzz/run.js --cases 1 --fault "$fault" >/dev/null; then
    echo "the fuzzer does not find: $fault"
    exit 1
  fi
done
unproven=$(node build-fuzz/test/fuzz/run.js --lengths --cases 60 --jobs 2 --fault unproven || true)
if ! grep -q 'difference: length' <<<"$unproven"; then
  echo 'the fuzzer does not find programs that are interpolated without proof'
  exit 1
fi
node build-fuzz/test/fuzz/run.js --cases 20000 --seconds 90 --jobs 2
node build-fuzz/test/fuzz/run.js --lengths --cases 600 --seconds 45 --jobs 2
# With more time than they may take: the machine may be slow, and both processes share its memory.
node build-fuzz/test/fuzz/run.js --crafted --jobs 2 --cpu 6
