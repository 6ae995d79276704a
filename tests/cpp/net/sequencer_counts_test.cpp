/// What a sequencer says of its lines and gaps, counted by hand.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tickwire/net/sequenced/sequencer.hpp"

namespace tickwire::net {
namespace {

constexpr SessionId kSession{'M', 'O', 'N', 'D', 'A', 'Y', ' ', ' ', ' ', ' '};

class SequencerCounts : public ::testing::Test, private SequencerHandler {
 protected:
  static SequencerConfig config() {
    SequencerConfig config;
    config.lines = 2;
    config.max_packet_bytes = 1500;
    config.window_packets = 64;
    config.reorder_ns = 1000;
    config.request_attempts = 2;
    config.request_timeout_ns = 5000;
    config.request_messages = 2;
    return config;
  }

  void packet(std::uint32_t line, std::uint64_t first, std::size_t count, std::int64_t now = 0) {
    const std::vector<std::string> texts(count, "x");
    std::vector<MessageView> views;
    for (const std::string& text : texts) views.emplace_back(text.data(), text.size());
    sequencer_.on_packet(line, kSession, first, views, {now, 0, RecvClock::Kernel}, now);
  }
  void heartbeat(std::uint32_t line, std::uint64_t next, std::int64_t now = 0) {
    sequencer_.on_heartbeat(line, kSession, next, now);
  }
  const LineStats& line(std::uint32_t number) { return sequencer_.line_stats(number); }
  std::uint64_t gaps() { return sequencer_.stats().gaps; }

  std::vector<std::uint64_t> delivered_;

 private:
  void on_run(const net::Run& run) noexcept override {
    for (std::uint64_t i = 0; i < run.messages.size(); ++i) delivered_.push_back(run.sequence + i);
  }
  void on_session(const SessionId&) noexcept override {}
  void on_end_of_session() noexcept override {}
  void on_request(const SessionId&, std::uint64_t, std::uint32_t) noexcept override {}
  void on_lost(std::uint64_t, std::uint64_t) noexcept override {}
  void on_want_snapshot() noexcept override {}
  void on_claim(const SessionId&, std::uint64_t) noexcept override {}

  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};

 protected:
  Sequencer sequencer_{*this, config(), "feeds[0]", arena_};
};

TEST_F(SequencerCounts, WhatALineSkipsAndWhatComesOnItBehindALaterOne) {
  packet(0, 5, 2);  // 5 6: its first lacks nothing of the line's own.
  EXPECT_EQ(line(0).gap, 0U);
  EXPECT_EQ(line(0).overtaken, 0U);
  packet(0, 7, 1);  // Follows.
  EXPECT_EQ(line(0).gap, 0U);
  packet(0, 11, 2);  // 8 9 10 are missing on it.
  EXPECT_EQ(line(0).gap, 3U);
  packet(0, 9, 1);  // One of them was overtaken.
  EXPECT_EQ(line(0).overtaken, 1U);
  packet(0, 10, 5);  // 10 11 12 are not new to the line, 13 14 are.
  EXPECT_EQ(line(0).overtaken, 4U);
  EXPECT_EQ(line(0).gap, 3U);
  packet(0, 15, 1);
  EXPECT_EQ(line(0).gap, 3U) << "its next is 15";
  EXPECT_EQ(line(0).overtaken, 4U);
  EXPECT_EQ(line(0).packets, 6U);
  EXPECT_EQ(line(0).received, 12U);
  EXPECT_EQ(line(1).packets, 0U);
}

TEST_F(SequencerCounts, AHeartbeatTellsWhatALineLacks) {
  heartbeat(1, 4);  // The first says where the line is.
  EXPECT_EQ(line(1).gap, 0U);
  EXPECT_EQ(line(1).heartbeats, 1U);
  heartbeat(1, 4);
  heartbeat(1, 7);  // 4 5 6.
  heartbeat(1, 5);  // Late itself.
  EXPECT_EQ(line(1).gap, 3U);
  EXPECT_EQ(line(1).heartbeats, 4U);
  packet(1, 7, 1);
  EXPECT_EQ(line(1).gap, 3U);
  EXPECT_EQ(line(1).overtaken, 0U);
}

TEST_F(SequencerCounts, AServersAnswersAreNoLinesOrder) {
  const std::uint32_t server = sequencer_.recovery_line();
  packet(0, 1, 1);
  packet(0, 6, 1);
  sequencer_.poll(1000);
  packet(server, 2, 1, 1100);
  packet(server, 4, 2, 1200);
  packet(server, 3, 1, 1300);
  EXPECT_EQ(line(server).gap, 0U);
  EXPECT_EQ(line(server).overtaken, 0U);
  EXPECT_EQ(line(server).packets, 3U);
  EXPECT_EQ(line(server).received, 4U);
  EXPECT_EQ(line(server).won, 4U);
  EXPECT_EQ(delivered_, (std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6}));
}

TEST_F(SequencerCounts, EachTimeThatTheStreamStopsIsOneGap) {
  packet(0, 1, 1, 0);
  EXPECT_EQ(gaps(), 0U);
  packet(0, 3, 1, 10);
  EXPECT_EQ(gaps(), 1U);
  packet(0, 4, 1, 20);  // Behind the same one.
  packet(0, 9, 1, 30);
  EXPECT_EQ(gaps(), 1U);
  packet(1, 2, 1, 40);  // It is filled, and the next stands in front.
  EXPECT_EQ(sequencer_.state(), Sequencer::State::Waiting);
  packet(1, 5, 4, 50);
  EXPECT_EQ(sequencer_.state(), Sequencer::State::Live);
  const std::uint64_t before = gaps();
  heartbeat(0, 11, 60);  // 10 is missing.
  EXPECT_EQ(gaps(), before + 1);
  packet(1, 10, 1, 70);
  packet(0, 11, 1, 80);
  EXPECT_EQ(gaps(), before + 1);
  EXPECT_EQ(delivered_.size(), 11U);
  EXPECT_EQ(sequencer_.stats().delivered, 11U);
}

TEST_F(SequencerCounts, AGapThatAnotherLineFilledWhileAServerWasAskedIsFollowedByAnotherOfItsOwn) {
  packet(0, 1, 1, 0);
  packet(0, 3, 1, 10);  // 2 …
  packet(0, 6, 1, 20);  // … and 4 5.
  EXPECT_TRUE(sequencer_.poll(1010));
  EXPECT_EQ(sequencer_.state(), Sequencer::State::Requesting);
  EXPECT_EQ(sequencer_.stats().requested, 1U);
  EXPECT_EQ(gaps(), 1U);
  packet(1, 2, 1, 1020);  // The line has it, not the server: the next gap waits for the lines first.
  EXPECT_EQ(sequencer_.state(), Sequencer::State::Waiting);
  EXPECT_EQ(gaps(), 2U);
  EXPECT_EQ(sequencer_.deadline(), 1020) << "it has waited long enough already";
  EXPECT_TRUE(sequencer_.poll(1020));
  EXPECT_EQ(sequencer_.stats().requests, 2U);
  EXPECT_EQ(sequencer_.stats().requested, 3U);
  packet(1, 4, 2, 1030);
  EXPECT_EQ(sequencer_.state(), Sequencer::State::Live);
  EXPECT_EQ(sequencer_.stats().request_timeouts, 0U);
  EXPECT_EQ(gaps(), 2U);
}

}  // namespace
}  // namespace tickwire::net
