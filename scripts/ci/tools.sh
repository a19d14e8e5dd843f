#!/usr/bin/env bash
# What tests use beside `npm ci`: onnxruntime, and the tools of releases. Most of it is waiting for the registry.
set -euo pipefail
npm ci --prefix bench --ignore-scripts --no-audit --no-fund
npm ci --prefix scripts/release --ignore-scripts --no-audit --no-fund
