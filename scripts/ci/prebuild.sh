#!/usr/bin/env bash
# Tests the packed package with this machine's addon, and the addon's bits. A release builds the addons of all platforms first
# (scripts/prebuild.mjs without arguments), then runs `npm run package`.
set -euo pipefail
npx jest test/package
node scripts/check-addon.mjs build
