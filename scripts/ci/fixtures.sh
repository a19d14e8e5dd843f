#!/usr/bin/env bash
# Exports networks of every kind of shortcut and gate, and compares what the package computes with onnxruntime.
set -euo pipefail
(cd bench && npm ci --ignore-scripts --no-audit --no-fund)
RESIDUAL_SKIP_FIXTURES=$(mktemp -d)
export RESIDUAL_SKIP_FIXTURES
trap 'rm -rf "$RESIDUAL_SKIP_FIXTURES"' EXIT
/usr/bin/python3 test/fixtures/export_models.py "$RESIDUAL_SKIP_FIXTURES"
npx jest test/crosscheck
