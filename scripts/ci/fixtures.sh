#!/usr/bin/env bash
# Exports networks with every kind of shortcut and gate, and compares the package's results with onnxruntime's.
set -euo pipefail
(cd bench && npm ci --ignore-scripts --no-audit --no-fund)
RESIDUAL_SKIP_FIXTURES=$(mktemp -d)
export RESIDUAL_SKIP_FIXTURES
trap 'rm -rf "$RESIDUAL_SKIP_FIXTURES"' EXIT
/usr/bin/python3 test/fixtures/export_models.py "$RESIDUAL_SKIP_FIXTURES"
/usr/bin/python3 test/fixtures/export_families.py "$RESIDUAL_SKIP_FIXTURES"
/usr/bin/python3 test/fixtures/quantize_models.py "$RESIDUAL_SKIP_FIXTURES/quantised"
npx jest test/crosscheck
