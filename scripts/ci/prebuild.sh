#!/usr/bin/env bash
# Makes the prebuilt addon and tests the package that ships it.
set -euo pipefail
npm run prebuild
npx jest test/package
