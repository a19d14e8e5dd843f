// The decisions of the worker pool, and how long programs take.
#include <gtest/gtest.h>

#include <limits>

#include "run/path_time.h"
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

TEST(PathTime, IsUnknownBeforeTheFirstRun) {
  PathTime time;
  EXPECT_EQ(time.longest(), std::numeric_limits<double>::infinity());
  time.see(1, 0);  // nothing ran
  EXPECT_EQ(time.longest(), std::numeric_limits<double>::infinity());
}

TEST(PathTime, IsThatOfTheWholePathAfterShortRuns) {
  PathTime time;
  for (int i = 0; i < 10; ++i) time.see(0.5, 0.01);
  EXPECT_DOUBLE_EQ(time.longest(), 50);
}

TEST(PathTime, KeepsWhatTheRunWithTheMostWorkTold) {
  PathTime time;
  time.see(0.5, 0.5);
  time.see(30, 1);
  for (int i = 0; i < 500; ++i) time.see(0.1, 0.5);
  EXPECT_EQ(time.longest(), 30);
}

TEST(PathTime, ForgetsARunThatWasHeldUp) {
  PathTime alike;
  alike.see(0.5, 1);
  alike.see(9, 1);
  EXPECT_LT(alike.longest(), 2);
  alike.see(0.5, 1);
  EXPECT_EQ(alike.longest(), 0.5);
  PathTime other;
  other.see(50, 1);
  for (int i = 0; i < 1000; ++i) other.see(0.25, 0.5);
  EXPECT_EQ(other.longest(), 0.5);
}

TEST(PathTime, FollowsRunsThatAreAllSlower) {
  PathTime time;
  time.see(1, 1);
  for (int i = 0; i < 60; ++i) time.see(4, 1);
  EXPECT_GT(time.longest(), 3.9);
}

}  // namespace
}  // namespace rskip::test
