#!/usr/bin/env bash
# The suites that `npm test` leaves out, with all that they need: onnxruntime, the tools of releases, and exported networks.
set -euo pipefail
npm ci --prefix bench --ignore-scripts --no-audit --no-fund
npm ci --prefix scripts/release --ignore-scripts --no-audit --no-fund
RESIDUAL_SKIP_FIXTURES=$PWD/build-ci-fixtures npm run test:long
