#!/usr/bin/env bash
# Exports networks with every kind of shortcut and gate, for the tests that compare results with onnxruntime's and those on NEON.
set -euo pipefail
folder=build-ci-fixtures
rm -rf "$folder"
/usr/bin/python3 test/fixtures/export_models.py "$folder"
/usr/bin/python3 test/fixtures/export_families.py "$folder"
/usr/bin/python3 test/fixtures/quantize_models.py "$folder/quantised"
/usr/bin/python3 test/fixtures/export_operators.py "$folder/operators"
/usr/bin/python3 test/fixtures/export_detectors.py "$folder/detectors"
