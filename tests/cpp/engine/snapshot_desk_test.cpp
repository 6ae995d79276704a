#include "tickwire/engine/ingest/snapshot_desk.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "engine/ingest_rig.hpp"
#include "net/mold_venue.hpp"
#include "tickwire/md/capture.hpp"

namespace tickwire::engine {
namespace {

using test::engine_config;
using test::IngestRig;
using test::price_feed;

constexpr std::int64_t kLong = 3'600'000'000'000;

/// A desk for two feeds, of the instruments 4 and 5, and 7; 6 is of a feed that asks for nothing.
class Desk : public ::testing::Test {
 protected:
  Desk() {
    FeedConfig first = price_feed("first", {"AAA", "BBB"}, {});
    FeedConfig second = price_feed("second", {"CCC"}, {});
    first.snapshot_retries = second.snapshot_retries = 2;
    first.snapshot_backoff_ns = second.snapshot_backoff_ns = kLong;
    first.snapshot_limit = 100;
    second.snapshot_limit = 5000;
    desk_.add(first, 1, 4, first_);
    desk_.add(second, 3, 7, second_);
  }
  ~Desk() override { stats_->remove(); }

  /// The requests since the last call: "feed/instrument/attempt".
  std::vector<std::string> requests() {
    std::vector<std::string> all;
    for (concurrent::SpscQueue& queue = desk_.requests(); queue.readable() != 0; queue.release(1)) {
      SnapshotRequest one;
      std::memcpy(&one, queue.slot(0), sizeof one);
      all.push_back(std::to_string(one.feed) + "/" + std::to_string(one.instrument) + "/" +
                    std::to_string(one.attempt));
    }
    return all;
  }
  bool answer(InstrumentId instrument, const std::string& body) {
    return desk_.deliver({Command::Kind::Snapshot, instrument}, body);
  }
  bool fail(InstrumentId instrument, const std::string& why, std::int64_t pause_ns = 0) {
    return desk_.deliver({Command::Kind::SnapshotFailed, instrument, pause_ns}, why);
  }
  /// What take() hands on: "instrument:body:limit".
  std::vector<std::string> taken(int answers) {
    std::vector<std::string> all;
    EXPECT_EQ(desk_.take([&](InstrumentId instrument, std::span<const char> body, std::uint32_t limit) {
      all.push_back(std::to_string(instrument) + ":" + std::string(body.data(), body.size()) + ":" +
                    std::to_string(limit));
    }),
              answers);
    return all;
  }

  using Texts = std::vector<std::string>;

  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::unique_ptr<metrics::StatFile> stats_ =
      metrics::StatFile::create("", {.counters = 200, .histograms = 1, .error_logs = 1});
  PriceCounters first_{{*stats_, "first"}};
  PriceCounters second_{{*stats_, "second"}};
  metrics::ErrorLog& errors_ = stats_->error_log("desk");
  UtcClock clock_;
  concurrent::Waker control_;
  concurrent::Waker agent_;
  SnapshotDesk desk_{control_, agent_, clock_, errors_, arena_};
};

TEST_F(Desk, HandsOnWhatWasAskedForWithTheLimitOfItsFeed) {
  desk_.need(5);
  desk_.need(7);
  EXPECT_EQ(requests(), (Texts{"1/5/1", "3/7/1"}));
  EXPECT_TRUE(answer(7, "seven"));
  EXPECT_TRUE(answer(5, ""));
  EXPECT_EQ(taken(2), (Texts{"7:seven:5000", "5::100"}));
  EXPECT_EQ(first_.snapshot_requests.value(), 1);
  EXPECT_EQ(second_.snapshot_requests.value(), 1);
}

TEST_F(Desk, LeavesRoomBehindABodyForItsParser) {
  desk_.need(4);
  const std::string body(1000, 'x');
  ASSERT_TRUE(answer(4, body));
  ASSERT_TRUE(answer(4, "another answer, right behind it"));
  int seen = 0;
  (void)desk_.take([&](InstrumentId, std::span<const char> bytes, std::uint32_t) {
    if (++seen != 1) return;
    EXPECT_EQ(std::string_view(bytes.data(), bytes.size()), body);
    const std::string_view behind(bytes.data() + bytes.size(), md::CaptureReader::kPaddingBytes);
    EXPECT_EQ(behind.find("another"), std::string_view::npos);
  });
  EXPECT_EQ(seen, 2) << "nobody said that the first one came";
}

TEST_F(Desk, TakesTheLargestBodyAndNoLargerOne) {
  desk_.need(4);
  EXPECT_FALSE(answer(4, std::string(desk_.max_body_bytes() + 1, 'x')));
  EXPECT_TRUE(answer(4, std::string(desk_.max_body_bytes(), 'x')));
  EXPECT_EQ(taken(1).at(0).size(), desk_.max_body_bytes() + std::string("4::100").size());
}

TEST_F(Desk, DropsWhatNobodyWaitsFor) {
  EXPECT_TRUE(answer(4, "unasked"));
  EXPECT_TRUE(fail(4, "unasked"));
  desk_.need(4);
  desk_.forget(4);  // The connection went.
  EXPECT_TRUE(answer(4, "late"));
  desk_.need(5);
  desk_.came(5);
  EXPECT_TRUE(answer(5, "twice"));
  EXPECT_EQ(taken(4), Texts{});
  EXPECT_EQ(first_.snapshots_failed.value(), 0);
}

TEST_F(Desk, RefusesAnswersForWhatIsNotItsOwn) {
  for (const InstrumentId other : {0U, 3U, 6U, 8U, kNoInstrument}) {
    EXPECT_FALSE(answer(other, "body")) << other;
    EXPECT_FALSE(fail(other, "why")) << other;
  }
  EXPECT_EQ(taken(0), Texts{});
}

TEST_F(Desk, AsksOnceWhileOneIsAwaitedAndAfterAPauseWhereItWasRefused) {
  desk_.need(4);
  desk_.need(4);
  desk_.need_depth(4);
  EXPECT_EQ(requests(), (Texts{"1/4/1"}));
  desk_.came(4);
  desk_.refused(4);
  desk_.need(4);
  desk_.check();
  EXPECT_EQ(requests(), Texts{}) << "the pause has just begun";
  desk_.ask(4);
  EXPECT_EQ(requests(), (Texts{"1/4/2"}));
  // Given up once, with the last attempt that is allowed; then once a minute.
  desk_.refused(4);
  EXPECT_EQ(first_.snapshots_given_up.value(), 1);
  desk_.ask(4);
  desk_.refused(4);
  EXPECT_EQ(first_.snapshots_given_up.value(), 1);
  EXPECT_EQ(requests(), (Texts{"1/4/3"}));
}

TEST_F(Desk, AFailureIsARefusalThatIsCounted) {
  desk_.need(4);
  ASSERT_TRUE(fail(4, "HTTP 500"));
  EXPECT_EQ(taken(1), Texts{});
  EXPECT_EQ(first_.snapshots_failed.value(), 1);
  desk_.need(4);
  EXPECT_EQ(requests(), (Texts{"1/4/1"})) << "the pause has just begun";
}

TEST_F(Desk, WhatTheVenueHoldsBackIsNoTry) {
  desk_.need(4);
  ASSERT_TRUE(fail(4, "HTTP 429", 1));
  EXPECT_EQ(taken(1), Texts{});
  EXPECT_EQ(first_.snapshots_failed.value(), 1);
  desk_.need(4);
  desk_.check();
  EXPECT_EQ(requests(), (Texts{"1/4/1"})) << "no sooner than after a first try";
  desk_.ask(4);
  EXPECT_EQ(requests(), (Texts{"1/4/1"}));
}

TEST_F(Desk, ABookThatBreaksAgainWaitsAndAnOpenedConnectionDoesNot) {
  desk_.need(4);
  desk_.came(4);
  desk_.valid(4);
  desk_.need(4);
  EXPECT_EQ(requests(), (Texts{"1/4/1"})) << "it was valid for less than ten seconds";
  desk_.forget(4);
  desk_.need(4);
  EXPECT_EQ(requests(), (Texts{"1/4/1"}));
}

TEST_F(Desk, AsksForDepthOnceInAPause) {
  desk_.valid(4);
  desk_.need_depth(4);
  EXPECT_EQ(requests(), (Texts{"1/4/1"}));
  desk_.came(4);
  desk_.joins(4);
  desk_.need_depth(4);
  EXPECT_EQ(requests(), Texts{});
}

TEST_F(Desk, AsksLaterWhereTheControlPlaneIsAThousandBehind) {
  for (int i = 0; i < 1024; ++i) desk_.ask(5);
  desk_.ask(4);
  EXPECT_EQ(requests().size(), 1024U);
  desk_.check();
  EXPECT_EQ(requests(), (Texts{"1/4/1"}));
}

std::size_t used_bytes(IngestRig& rig) { return rig.arena().report().used_bytes; }

TEST(DeskOf, OnlyALiveFeedByPriceHasOne) {
  const test::Folder folder;
  test::Capture().begin(0).write(folder / "a.log");
  IngestRig replay(engine_config({price_feed("usdm", {"AAA"}, {folder / "a.log"})}, true));
  EXPECT_EQ(replay.agent().desk(), nullptr);

  FeedConfig by_price = price_feed("usdm", {"AAA"}, {});
  by_price.url = "ws://127.0.0.1:1/ws";
  by_price.subscribe = {"aaa@depth@0ms"};
  IngestRig live(engine_config({by_price}, false));
  EXPECT_NE(live.agent().desk(), nullptr);
  EXPECT_GT(used_bytes(live), used_bytes(replay) + SnapshotDesk::kMaxAnswerBytes) << "where answers lie";

  FeedConfig by_order = price_feed("itch", {"AAPL"}, {});
  const net::test::MoldVenue venue;
  by_order.itch = ItchConfig{.max_orders = 100, .midnights = {}, .multicast = net::test::mold_config(venue)};
  IngestRig orders(engine_config({by_order}, false));
  EXPECT_EQ(orders.agent().desk(), nullptr);
}

}  // namespace
}  // namespace tickwire::engine
