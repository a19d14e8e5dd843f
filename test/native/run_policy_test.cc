// The decisions of the worker pool.
#include <gtest/gtest.h>

#include "run/pool_policy.h"

namespace rskip::test {
namespace {

TEST(PoolPolicy, LetsNoMoreThreadsBeginThanThePoolHas) {
  PoolPolicy policy(2, 2);
  EXPECT_EQ(policy.may_begin(), 2);
  policy.thread_begins();
  EXPECT_EQ(policy.may_begin(), 1);
  policy.thread_begins();
  policy.thread_begins();  // a caller of run_here() need not ask
  EXPECT_EQ(policy.may_begin(), 0);
  EXPECT_TRUE(policy.wants_helpers_back());
  policy.thread_ends();
  EXPECT_EQ(policy.may_begin(), 0);
  EXPECT_FALSE(policy.wants_helpers_back());
}

TEST(PoolPolicy, KeepsACoreForTheExpectedCallerOnce) {
  PoolPolicy policy(2, 2);
  policy.expect_caller(true);
  policy.expect_caller(true);
  EXPECT_EQ(policy.may_begin(), 1);
  policy.expect_caller(false);
  policy.expect_caller(false);
  EXPECT_EQ(policy.may_begin(), 2);
}

TEST(PoolPolicy, PrefersUnitsToHelp) {
  PoolPolicy policy(3, 3);
  policy.thread_begins();
  EXPECT_FALSE(policy.wants_helpers_back());
  policy.set_pending(5);
  EXPECT_TRUE(policy.wants_helpers_back());
  EXPECT_EQ(policy.workers_for_pending(), 2);
  policy.set_pending(1);
  EXPECT_EQ(policy.workers_for_pending(), 1);
}

TEST(PoolPolicy, SpinsOnlyWhereACoreIsLeft) {
  const PoolPolicy all_cores(2, 2), spare_core(2, 3), many_threads(64, 2);
  EXPECT_FALSE(all_cores.may_spin(0));
  EXPECT_TRUE(all_cores.may_spin(1));
  EXPECT_TRUE(spare_core.may_spin(0));
  EXPECT_FALSE(many_threads.may_spin(62));
  EXPECT_TRUE(many_threads.may_spin(63));
}

}  // namespace
}  // namespace rskip::test
