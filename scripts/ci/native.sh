#!/usr/bin/env bash
# Builds the native core with warnings as errors and runs its tests: `plain`, on the objects that node-gyp compiled for the addon;
# with `sanitizers`; those with threads under ThreadSanitizer (`tsan`); or for `neon` under qemu, where networks must also give
# the same bits as here.
# `fuzz` runs libFuzzer on encoded programs, always with the same seed; `fuzz SECONDS` runs it that long with a new seed. It
# shares the build of `sanitizers`.
set -euo pipefail
kind=$1
folder=build-ci-${kind/fuzz/sanitizers}

# build TARGETS OPTIONS...
build() {
  cmake -S . -B "$folder" -DRSKIP_WERROR=ON "${@:2}"
  # shellcheck disable=SC2086
  cmake --build "$folder" -j 2 --target $1
}

build_for_sanitizers() {
  CXX=clang++-19 build "$1" -DRSKIP_FUZZ=ON -DRSKIP_SANITIZE=address,undefined
}

# hashes FOLDER [EMULATOR...]: for each program, its name and the hash of its outputs and traces.
hashes() {
  local run="${*:2} $1/program_hash"
  printf '%s\n' "$folder"/*.program | xargs -P 2 -I @ sh -c "hash=\$($run @) && echo \"@ \${hash%% *}\"" | sort
}

# The shipped networks, and one of each family of scripts/ci/fixtures.sh; test/crosscheck compares those on the instruction sets of
# this machine.
compare_with_host() {
  local fixtures=build-ci-fixtures
  [[ -d $fixtures ]] || scripts/ci/fixtures.sh
  rm -f "$folder"/*.program
  printf '%s\n' models/*/ test/models/*/ "$fixtures"/{resnet18,mobilenet_v2,efficientnet_b0,regnet_y_400mf,densenet,shufflenet}.onnx \
    "$fixtures"/{group_norm_resnet,vit,swin,swin_v2,convnext,tokens_mixer,gate_blend,gate_skipnet_lstm,gate_attention_module}.onnx \
    "$fixtures"/{bert,bert_exits,minilm,roberta,distilbert,gpt2,llama}_opset17.onnx "$fixtures"/{cait,beit,deit_distilled}.onnx |
    xargs -P 2 -I @ sh -c "node scripts/dump-program.mjs @ $folder/\$(basename @).program"
  hashes build-ci-plain >"$folder/host.txt"
  hashes "$folder" qemu-aarch64 -L /usr/aarch64-linux-gnu >"$folder/neon.txt"
  if diff "$folder/host.txt" "$folder/neon.txt"; then echo '1 passed, 0 failed'; else echo '0 passed, 1 failed'; fi
}

# fuzz OPTIONS...: runs the fuzzer. New and failing inputs stay in the folder. The timeout for one program is five minutes, so
# that a busy or paused machine doesn't count as a hang.
fuzz() {
  build_for_sanitizers 'fuzz_program fuzz_seeds'
  mkdir -p "$folder/found" "$folder/seeds" "$folder/failed"
  "$folder/fuzz_seeds" "$folder/seeds"
  if "$folder/fuzz_program" "$@" -max_len=16384 -timeout=300 -rss_limit_mb=4096 -malloc_limit_mb=256 -report_slow_units=5 \
    -artifact_prefix="$folder/failed/" "$folder/found" "$folder/seeds" test/native/corpus >"$folder/log.txt" 2>&1; then
    grep '^Done' "$folder/log.txt"
    echo '1 passed, 0 failed'
    return
  fi
  tail -n 200 "$folder/log.txt"
  local input
  for input in "$folder"/failed/*; do
    [[ -f $input && $input != */slow-unit-* ]] || continue
    printf '%s, to be read by: base64 -d | gunzip\n' "$input"
    gzip -9c "$input" | base64 -w 120
  done
  echo '0 passed, 1 failed'
  return 1
}

if [[ $kind == fuzz ]]; then
  # CI always uses the same seed, so that it finds the same things everywhere; the time limit is for slow machines.
  if [[ -n ${2:-} ]]; then fuzz -max_total_time="$2"; else fuzz -seed=1 -runs=30000 -max_total_time=60; fi
  exit
fi
case $kind in
  plain)
    # With the flags of the gate's `npm ci`, or everything is compiled again.
    CXXFLAGS=-Werror npm run build:native
    build all -DRSKIP_REUSE=ON
    ;;
  sanitizers) build_for_sanitizers native_tests ;;
  tsan) build native_tests -DRSKIP_SANITIZE=thread ;;
  neon) build 'native_tests program_hash' -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake ;;
esac
# Tests on a single thread have nothing to show to ThreadSanitizer.
threaded=$([[ $kind == tsan ]] && echo 'Threads|Team|WorkerPool|PoolPolicy|ParallelFor|Runs|Weights|Fusing' || echo .)
ctest --test-dir "$folder" -j 2 --output-on-failure -R "$threaded"
if [[ $kind == neon ]]; then
  compare_with_host
  rm -rf "$folder/ladder"
  node scripts/ci/ladder.mjs "$folder/ladder"
  for model in test/models/cifar10-resnet32-gates "$folder/ladder"; do
    node scripts/ci/replay-native.mjs "$model" examples/images qemu-aarch64 -L /usr/aarch64-linux-gnu "$folder/program_hash"
  done
fi
