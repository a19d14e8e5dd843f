#!/usr/bin/env bash
# Debian packages that the checks need: ONNX's conformance cases, cross compiler and emulator for NEON, GoogleTest,
# clang for fuzzing, PyTorch to export networks, onnxruntime to quantise them and to compute expected results,
# Chromium to look at pages, curl for examples, Valkey for queues, nginx for deploy/, ccache so that what is compiled
# twice takes seconds
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends libonnx-testdata qemu-user g++-aarch64-linux-gnu libgtest-dev cmake \
  clang-19 libclang-rt-19-dev python3-torch python3-torchvision python3-onnx python3-onnxruntime \
  python3-tqdm chromium curl valkey-server nginx ccache
