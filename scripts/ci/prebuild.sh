#!/usr/bin/env bash
# Tests the packed package with this machine's addon. A release makes all platforms' (scripts/prebuild.mjs without arguments)
# before its gate (npm run package).
set -euo pipefail
npx jest test/package
