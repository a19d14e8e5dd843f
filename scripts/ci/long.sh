#!/usr/bin/env bash
# The suites that `npm test` leaves out, with what tools.sh and fixtures.sh made.
set -euo pipefail
RESIDUAL_SKIP_FIXTURES=$PWD/build-ci-fixtures npm run test:long
