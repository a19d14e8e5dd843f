#!/usr/bin/env bash
# The addon's bits: as built, and as the prebuild of this machine. A release builds the addons of all platforms (npm run prebuild --
# --all), then runs `npm run package`.
set -euo pipefail
node scripts/check-addon.mjs build
mv build build-ci-addon
npm run prebuild
rm -rf build
mv build-ci-addon build
node scripts/check-addon.mjs "$(node -p "require('fs').readdirSync('prebuilds')[0]")"
