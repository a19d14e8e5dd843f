#!/usr/bin/env bash
# Cross-builds this platform's addon as a release does, and tests the packed package with it. A release makes all platforms'
# (scripts/prebuild.mjs without arguments) before its gate (npm run package).
set -euo pipefail
node scripts/prebuild.mjs linux-x64-glibc
npx jest test/package
