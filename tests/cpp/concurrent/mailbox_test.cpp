#include "tickwire/concurrent/mailbox.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace tickwire::concurrent {
namespace {

/// Counts those alive, and holds numbers that must agree: an object seen before it was whole would not.
struct Parcel {
  static inline std::atomic<int> alive{0};

  explicit Parcel(int number_) : number(number_), copies(64, number_) { ++alive; }
  ~Parcel() { --alive; }
  Parcel(const Parcel&) = delete;
  Parcel& operator=(const Parcel&) = delete;

  int number;
  std::vector<int> copies;
};

TEST(MailboxTest, HandsOneObjectOverAndTheFormerOneBack) {
  Mailbox<Parcel> box;
  EXPECT_EQ(box.take(), nullptr);
  EXPECT_EQ(box.collect(), nullptr);
  auto former = std::make_unique<Parcel>(1);
  box.offer(std::make_unique<Parcel>(2));
  EXPECT_EQ(box.collect(), nullptr) << "not before it is taken";
  const std::unique_ptr<Parcel> newer(box.take());
  ASSERT_NE(newer, nullptr);
  EXPECT_EQ(newer->number, 2);
  EXPECT_EQ(box.take(), nullptr);
  box.give_back(former.release());
  const std::unique_ptr<Parcel> back = box.collect();
  ASSERT_NE(back, nullptr);
  EXPECT_EQ(back->number, 1);
}

TEST(MailboxTest, AnOfferIsTakenBackOnlyWhileNobodyHasTakenIt) {
  Mailbox<Parcel> box;
  box.offer(std::make_unique<Parcel>(1));
  EXPECT_EQ(box.withdraw()->number, 1);
  EXPECT_EQ(box.take(), nullptr);
  box.offer(std::make_unique<Parcel>(2));
  const std::unique_ptr<Parcel> taken(box.take());
  EXPECT_EQ(box.withdraw(), nullptr);
}

TEST(MailboxTest, WhatLiesInItIsFreedWithIt) {
  const int before = Parcel::alive;
  {
    Mailbox<Parcel> box;
    box.offer(std::make_unique<Parcel>(1));
    box.give_back(new Parcel(2));
  }
  EXPECT_EQ(Parcel::alive, before);
}

TEST(MailboxTest, TwoThreadsExchangeWholeObjectsInOrderAndLoseNone) {
  constexpr int kExchanges = 2000;
  const int before = Parcel::alive;
  {
    Mailbox<Parcel> box;
    std::atomic<bool> stop{false};
    std::vector<int> used;  // The reader's; ours again when it has ended.
    std::thread reader([&] {
      auto* current = new Parcel(0);
      while (!stop.load()) {
        if (Parcel* newer = box.take()) {
          box.give_back(std::exchange(current, newer));
          used.push_back(current->number);
        }
        for (const int copy : current->copies) ASSERT_EQ(copy, current->number);
      }
      delete current;
    });
    for (int i = 1; i <= kExchanges; ++i) {
      box.offer(std::make_unique<Parcel>(i));
      std::unique_ptr<Parcel> former;
      while ((former = box.collect()) == nullptr) std::this_thread::yield();
      ASSERT_EQ(former->number, i - 1);
    }
    stop = true;
    reader.join();
    ASSERT_EQ(used.size(), static_cast<std::size_t>(kExchanges));
    for (int i = 0; i < kExchanges; ++i) ASSERT_EQ(used[static_cast<std::size_t>(i)], i + 1);
  }
  EXPECT_EQ(Parcel::alive, before);
}

}  // namespace
}  // namespace tickwire::concurrent
