# Sourced by .ci/run: runs steps, counts their tests and prints the totals.

passed=0
failed=0
failures=()
log=$(mktemp)
side_log=$(mktemp)

# Prints "PASSED FAILED" from the summary that Jest, ctest, GoogleTest or one of our scripts wrote to a log.
count_tests() {
  awk '
    /^Tests: / { for (i = 2; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i } }
    /tests failed out of/ { ctest = 1; p += $NF - $4; f += $4 }
    /^\[  PASSED  \] [0-9]+ test/ { gp += $4 }
    /^\[  FAILED  \] [0-9]+ tests?, listed below/ { gf += $4 }
    /^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3 }
    END { if (!ctest) { p += gp; f += gf } print p + 0, f + 0 }' "$1"
}

# Prints the names of failed tests, and how they failed, from the log of Jest, ctest, GoogleTest, unittest or one of our scripts.
failed_tests() {
  grep -E -A 14 '^  ● .* › |\((Failed|Timeout|SEGFAULT|Subprocess aborted)\)$|^(FAIL|ERROR): |^FAIL  |^\[  FAILED  \] [A-Za-z]' "$1" |
    head -n 60
}

# report NAME LOG STATUS BEGAN: counts the tests of a step that ended.
report() {
  local name=$1 log=$2 status=$3 began=$4 p f
  read -r p f < <(count_tests "$log")
  if ((status != 0 && f == 0)); then f=1; fi
  if ((status == 0 && p + f == 0)); then p=1; fi
  if ((f > 0)); then failures+=("$name" "$(failed_tests "$log")"); fi
  passed=$((passed + p))
  failed=$((failed + f))
  printf '== %s: %d passed, %d failed, exit code %d, %d s\n' "$name" "$p" "$f" "$status" $((SECONDS - began))
}

run() { timeout --kill-after=30 1500 "$@" </dev/null 2>&1; }

# step NAME COMMAND...: runs the command, labels its output, and counts its tests.
step() {
  local name=$1 began=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  run "$@" | tee "$log" | sed 's/^/| /'
  report "$name" "$log" "${PIPESTATUS[0]}" "$began"
}

# beside NAME COMMAND...: starts a step that uses one core, or waits much, while others run; `join` reports it.
beside() {
  side_name=$1 side_began=$SECONDS
  shift
  run "$@" >"$side_log" &
  side_pid=$!
}

join() {
  local status=0
  wait "$side_pid" || status=$?
  printf '\n== %s\n' "$side_name"
  sed 's/^/| /' "$side_log"
  report "$side_name" "$side_log" "$status" "$side_began"
}

finish() {
  rm -f "$log" "$side_log"
  printf '\n'
  if ((${#failures[@]} > 0)); then printf 'failed: %s\n%s\n' "${failures[@]}"; fi
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
  exit
}
