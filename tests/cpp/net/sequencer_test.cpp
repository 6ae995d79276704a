#include "tickwire/net/sequenced/sequencer.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "net/sequencer_twin.hpp"
#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

using test::delivered_line;
using test::SequencerTwin;
using test::Transcript;

constexpr SessionId kSession{'M', 'O', 'N', 'D', 'A', 'Y', ' ', ' ', ' ', ' '};
constexpr SessionId kNextSession{'T', 'U', 'E', 'S', 'D', 'A', 'Y', ' ', ' ', ' '};

SequencerConfig config_of() {
  SequencerConfig config;
  config.lines = 2;
  config.max_packet_bytes = 1500;
  config.window_packets = 4096;
  config.reorder_ns = 1000;
  config.request_attempts = 3;
  config.request_timeout_ns = 5000;
  config.request_messages = 50;
  return config;
}

/// A sequencer that writes down what it says.
class Recorded final : public SequencerHandler {
 public:
  explicit Recorded(const SequencerConfig& config) : sequencer(*this, config, "feeds[0]", arena) {}

  void on_run(const Run& run) noexcept override {
    EXPECT_FALSE(run.messages.empty());
    std::uint64_t number = run.sequence;
    for (const MessageView& message : run.messages) {
      numbers.push_back(number);
      log.push_back(delivered_line(number++, run.line, run.arrival.ts_recv,
                                   std::string(message.begin(), message.end())));
    }
  }
  void on_session(const SessionId& session) noexcept override {
    log.emplace_back("session");
    sessions.push_back(session);
  }
  void on_end_of_session() noexcept override { log.emplace_back("end"); }
  void on_request(const SessionId& session, std::uint64_t first, std::uint32_t count) noexcept override {
    EXPECT_EQ(session, sessions.back());
    log.push_back("request " + std::to_string(first) + " + " + std::to_string(count));
    if (requested) requested(first, count);
  }
  void on_lost(std::uint64_t first, std::uint64_t count) noexcept override {
    log.push_back("lost " + std::to_string(first) + " + " + std::to_string(count));
    lost += count;
  }
  void on_want_snapshot() noexcept override {
    log.emplace_back("want snapshot");
    if (wanted) wanted();
  }
  void on_claim(const SessionId& session, std::uint64_t number) noexcept override {
    const std::string name(session.begin(), session.end());
    log.push_back("claim " + name.substr(0, name.find_last_not_of(' ') + 1) + ' ' + std::to_string(number));
  }

  /// Messages "first", "first + 1", … as one datagram.
  void packet(std::uint32_t line, std::uint64_t first, std::size_t count, std::int64_t now,
              const SessionId& session = kSession) {
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < count; ++i) texts.push_back(std::to_string(first + i));
    packet(line, first, texts, now, session);
  }
  void packet(std::uint32_t line, std::uint64_t first, const std::vector<std::string>& texts,
              std::int64_t now, const SessionId& session = kSession) {
    std::vector<MessageView> views;
    for (const std::string& text : texts) views.emplace_back(text.data(), text.size());
    sequencer.on_packet(line, session, first, views, {now, 0, RecvClock::Kernel}, now);
  }
  void answer(std::uint64_t first, std::size_t count, std::int64_t now) {
    packet(sequencer.recovery_line(), first, count, now);
  }
  Transcript take() { return std::exchange(log, {}); }

  Arena arena;
  Sequencer sequencer;
  Transcript log;
  std::vector<std::uint64_t> numbers;
  std::vector<SessionId> sessions;
  std::uint64_t lost = 0;
  std::function<void(std::uint64_t, std::uint32_t)> requested;
  std::function<void()> wanted;
};

/// As delivered_line() has it, for texts that are the number.
std::string message(std::uint64_t number, std::uint32_t line, TsNs ts_recv) {
  return delivered_line(number, line, ts_recv, std::to_string(number));
}

TEST(Sequencer, DeliversTheFirstCopyOfEachMessage) {
  Recorded r(config_of());
  r.packet(0, 10, 2, 100);
  r.packet(1, 10, 2, 110);
  r.packet(1, 12, 1, 120);
  r.packet(0, 12, 2, 130);  // Half of it has come.
  EXPECT_EQ(r.log, (Transcript{"session", message(10, 0, 100), message(11, 0, 100), message(12, 1, 120),
                               message(13, 0, 130)}));
  const LineStats& a = r.sequencer.line_stats(0);
  EXPECT_EQ(a.won, 3u);
  EXPECT_EQ(a.duplicate, 1u);
  const LineStats& b = r.sequencer.line_stats(1);
  EXPECT_EQ(b.won, 1u);
  EXPECT_EQ(b.duplicate, 2u);
  EXPECT_EQ(r.sequencer.expected(), 14u);
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Live);
}

TEST(Sequencer, WaitsForTheOtherLineBeforeItAsks) {
  Recorded r(config_of());
  r.packet(0, 1, 1, 0);
  r.packet(0, 3, 2, 100);  // 2 is missing on A …
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Waiting);
  EXPECT_EQ(r.sequencer.deadline(), 1100);
  EXPECT_FALSE(r.sequencer.poll(1099));
  r.packet(1, 1, 2, 1099);  // … and B has it.
  EXPECT_EQ(r.log, (Transcript{"session", message(1, 0, 0), message(2, 1, 1099), message(3, 0, 100),
                               message(4, 0, 100)}));
  EXPECT_EQ(r.sequencer.deadline(), Sequencer::kNever);
  EXPECT_EQ(r.sequencer.line_stats(0).gap, 1u);
  EXPECT_EQ(r.sequencer.stats().requests, 0u);
}

TEST(Sequencer, TakesFromADatagramOnlyWhatNoOtherCopyBroughtBefore) {
  Recorded r(config_of());
  r.packet(0, 1, 1, 0);
  r.packet(0, 5, 2, 10);   // 5 6
  r.packet(1, 9, 1, 20);   // 9
  r.packet(1, 4, 7, 30);   // 4 and 7 8 and 10 are new.
  r.packet(1, 2, 10, 40);  // 2 3 and 11 are new.
  EXPECT_EQ(r.log,
            (Transcript{"session", message(1, 0, 0), message(2, 1, 40), message(3, 1, 40), message(4, 1, 30),
                        message(5, 0, 10), message(6, 0, 10), message(7, 1, 30), message(8, 1, 30),
                        message(9, 1, 20), message(10, 1, 30), message(11, 1, 40)}));
  EXPECT_EQ(r.sequencer.line_stats(1).won, 8u);
  EXPECT_EQ(r.sequencer.line_stats(1).duplicate, 10u);
}

TEST(Sequencer, HearsOfALossInSilenceFromAHeartbeat) {
  Recorded r(config_of());
  r.packet(0, 1, 1, 0);
  r.sequencer.on_heartbeat(1, kSession, 4, 500);
  EXPECT_EQ(r.sequencer.deadline(), 1500);
  EXPECT_TRUE(r.sequencer.poll(1500));
  r.answer(2, 2, 1600);
  EXPECT_EQ(r.log, (Transcript{"session", message(1, 0, 0), "request 2 + 2", message(2, 2, 1600),
                               message(3, 2, 1600)}));
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Live);
}

TEST(Sequencer, AsksAgainForWhatAPartialAnswerLeft) {
  SequencerConfig config = config_of();
  config.request_messages = 4;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  r.packet(0, 9, 1, 10);
  r.sequencer.poll(1010);
  r.answer(2, 3, 1100);  // Three of the four; at once for the fourth and three more.
  r.answer(5, 4, 1200);
  EXPECT_EQ(r.take(),
            (Transcript{"session", message(1, 0, 0), "request 2 + 4", message(2, 2, 1100),
                        message(3, 2, 1100), message(4, 2, 1100), "request 5 + 4", message(5, 2, 1200),
                        message(6, 2, 1200), message(7, 2, 1200), message(8, 2, 1200), message(9, 0, 10)}));
  EXPECT_EQ(r.sequencer.stats().requested, 8u);
}

TEST(Sequencer, CountsItsTriesAnewAfterAnAnswerThatBroughtSomething) {
  SequencerConfig config = config_of();
  config.request_attempts = 2;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  r.packet(0, 9, 1, 10);
  r.sequencer.poll(1010);
  r.sequencer.poll(6010);   // Asked twice …
  r.answer(2, 1, 6100);     // … and answered in part: asks for the rest,
  r.sequencer.poll(11100);  // twice too.
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Requesting);
  EXPECT_EQ(r.sequencer.stats().requests, 4u);
  r.sequencer.poll(16100);
  EXPECT_EQ(r.sequencer.stats().lost, 6u);
}

TEST(Sequencer, KeepsTheTimeBetweenTwoRequests) {
  SequencerConfig config = config_of();
  config.request_interval_ns = 10000;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  r.packet(0, 9, 1, 10);
  r.sequencer.poll(1010);
  r.answer(2, 3, 1100);
  EXPECT_EQ(r.sequencer.deadline(), 11010);
  r.packet(1, 10, 1, 1200);  // Changes nothing about it.
  EXPECT_EQ(r.sequencer.deadline(), 11010);
  r.take();
  r.sequencer.poll(11010);
  EXPECT_EQ(r.take(), (Transcript{"request 5 + 4"}));
}

TEST(Sequencer, GivesUpAfterItsTriesAndGoesOnBehindASnapshot) {
  SequencerConfig config = config_of();
  config.snapshots = true;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  r.packet(0, 4, 2, 10);
  std::vector<std::int64_t> at;
  for (std::int64_t now = 10; now < 40000; ++now) {
    if (r.sequencer.poll(now)) at.push_back(now);
  }
  EXPECT_EQ(at, (std::vector<std::int64_t>{1010, 6010, 11010, 16010}));
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), "request 2 + 2", "request 2 + 2",
                                  "request 2 + 2", "lost 2 + 2", "want snapshot"}));
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Suspect);
  EXPECT_EQ(r.sequencer.stats().request_timeouts, 3u);
  r.packet(0, 6, 2, 40000);
  r.packet(1, 2, 1, 40010);  // Too late: it was given up, and 3 is still missing.
  EXPECT_TRUE(r.take().empty());
  EXPECT_FALSE(r.sequencer.resume(1, 40020, 40020));  // Of less than was delivered.
  EXPECT_TRUE(r.sequencer.resume(5, 40030, 40030));   // In the middle of what is kept.
  EXPECT_EQ(r.take(), (Transcript{message(5, 0, 10), message(6, 0, 40000), message(7, 0, 40000)}));
  EXPECT_EQ(r.sequencer.line_stats(0).late, 1u);
  EXPECT_EQ(r.sequencer.line_stats(1).late, 1u);
  r.packet(1, 3, 3, 40040);  // 3 and 4 were skipped, 5 is a duplicate.
  EXPECT_EQ(r.sequencer.line_stats(1).late, 3u);
  EXPECT_EQ(r.sequencer.line_stats(1).duplicate, 1u);
  EXPECT_EQ(r.sequencer.stats().snapshots_too_old, 1u);
  EXPECT_EQ(r.sequencer.stats().snapshots_used, 1u);
}

TEST(Sequencer, AsksForWhatLiesBetweenASnapshotAndWhatIsKept) {
  SequencerConfig config = config_of();
  config.snapshots = true;
  config.start = SequencerConfig::Start::Snapshot;
  Recorded r(config);
  r.packet(0, 100, 1, 0);
  EXPECT_EQ(r.take(), (Transcript{"session", "want snapshot"}));
  EXPECT_TRUE(r.sequencer.resume(98, 10, 10));
  r.sequencer.poll(1010);
  r.answer(98, 2, 1020);
  EXPECT_EQ(r.take(),
            (Transcript{"request 98 + 2", message(98, 2, 1020), message(99, 2, 1020), message(100, 0, 0)}));
}

TEST(Sequencer, NeedsNoSnapshotWhereItHearsTheFirstMessage) {
  SequencerConfig config = config_of();
  config.snapshots = true;
  config.start = SequencerConfig::Start::Snapshot;
  Recorded r(config);
  r.packet(0, 1, 2, 0);
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), message(2, 0, 0)}));
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Live);
  r.sequencer.believe(kNextSession, 5);
  r.packet(0, 5, 1, 10, kNextSession);
  r.packet(1, 5, 1, 15, kNextSession);
  EXPECT_EQ(r.take(), (Transcript{"session", "want snapshot"}));
  Recorded quiet(config);
  quiet.sequencer.on_heartbeat(0, kSession, 1, 0);
  quiet.packet(0, 1, 1, 10);
  EXPECT_EQ(quiet.take(), (Transcript{"session", message(1, 0, 10)}));
}

// ---- Claims ----

constexpr SessionId kStray{'S', 'T', 'R', 'A', 'Y', ' ', ' ', ' ', ' ', ' '};
constexpr std::int64_t kSilence = 100'000;
constexpr std::int64_t kEndSilence = 20'000;

SequencerConfig proving() {
  SequencerConfig config = config_of();
  config.silence_ns = kSilence;
  config.end_silence_ns = kEndSilence;
  return config;
}

TEST(Sequencer, BelievesANumberFarBeyondWhenAServerHasIt) {
  constexpr std::uint64_t kFar = 5 * Sequencer::kMostAhead;
  Recorded r(proving());
  r.packet(0, 1, 1, 0);
  for (int i = 0; i < 20; ++i) {  // However many agree, the stream goes on as if they had not come.
    r.packet(1, kFar + static_cast<std::uint64_t>(i), 1, 10);
    r.sequencer.on_heartbeat(0, kSession, 3 * kFar, 10);
  }
  r.sequencer.on_end(1, kSession, 9 * kFar, 15);
  r.packet(0, 2, 1, 20);
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), "claim MONDAY 50000", message(2, 0, 20)}));
  EXPECT_EQ(r.sequencer.stats().implausible, 41u);
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Live);
  EXPECT_EQ(r.sequencer.line_stats(1).received, 0u);
  EXPECT_EQ(r.sequencer.refused_number(), 9 * kFar);
  // One answer is of nothing that was heard; the other one is proof, and what was kept waits behind a gap.
  r.answer(7 * kFar, 1, 30);
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Live);
  r.answer(kFar, 1, 40);
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Waiting);
  EXPECT_EQ(r.sequencer.line_stats(1).received, 20u);
  r.sequencer.poll(2000);
  EXPECT_EQ(r.take(), (Transcript{"request 3 + 50"}));
}

TEST(Sequencer, BelievesANumberFarBeyondWhenOurStreamIsSilent) {
  constexpr std::uint64_t kFar = 5 * Sequencer::kMostAhead;
  SequencerConfig config = proving();
  config.request_attempts = 0;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  r.packet(1, kFar, 2, 50);
  r.sequencer.on_heartbeat(0, kSession, 2, 60);
  EXPECT_FALSE(r.sequencer.poll(kSilence + 61)) << "it has not been heard since then either";
  r.sequencer.on_heartbeat(1, kSession, kFar + 2, 70);
  EXPECT_FALSE(r.sequencer.poll(kSilence + 59)) << "a heartbeat is a sign of life";
  EXPECT_TRUE(r.sequencer.poll(kSilence + 60));
  EXPECT_TRUE(r.sequencer.poll(kSilence + 60 + 1000));
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), "claim MONDAY 50000", "lost 2 + 49998",
                                  message(kFar, 1, 50), message(kFar + 1, 1, 50)}));
  EXPECT_EQ(r.sequencer.stats().implausible, 0u) << "it was right";
}

TEST(Sequencer, ANumberWithinReachNeedsNoProof) {
  Recorded r(proving());
  r.packet(0, 1, 1, 0);
  r.packet(0, 2 + Sequencer::kMostAhead, 1, 10);
  EXPECT_EQ(r.sequencer.state(), Sequencer::State::Waiting);
  EXPECT_EQ(r.sequencer.stats().implausible, 0u);
}

/// A number that was made up, in a quiet stream: asked for, given up, and contradicted by the snapshot.
TEST(Sequencer, WhatASnapshotContradictsIsNotWaitedForAgain) {
  SequencerConfig config = proving();
  config.request_attempts = 1;
  config.snapshots = true;
  for (const bool by_heartbeat : {false, true}) {
    Recorded r(config);
    r.packet(0, 1, 1, 0);
    if (by_heartbeat) {
      r.sequencer.on_heartbeat(1, kSession, 700, 10);
    } else {
      r.packet(1, 699, 1, 10);
    }
    std::int64_t now = 10;
    int snapshots = 0;
    for (int i = 0; i < 100; ++i) {
      now += 1000;
      r.sequencer.on_heartbeat(0, kSession, 4, now);
      r.sequencer.poll(now);
      if (r.sequencer.state() == Sequencer::State::Suspect && r.sequencer.resume(4, now, now)) ++snapshots;
    }
    EXPECT_EQ(snapshots, 1);
    EXPECT_EQ(r.sequencer.state(), Sequencer::State::Live);
    EXPECT_EQ(r.sequencer.stats().implausible, 1u);
    r.packet(0, 4, 2, now);
    EXPECT_EQ(r.numbers, (std::vector<std::uint64_t>{1, 4, 5}));
  }
}

/// A snapshot takes its time, and what came meanwhile may be newer than it: what is missing before that is
/// asked for, and announced where nobody has it.
TEST(Sequencer, WhatCameWhileASnapshotWasTakenIsContradictedByNothing) {
  SequencerConfig config = proving();
  config.request_attempts = 1;
  config.snapshots = true;
  for (const bool by_heartbeat : {false, true}) {
    Recorded r(config);
    r.packet(0, 1, 1, 0);
    r.packet(1, 9, 1, 10);  // Made up.
    std::int64_t now = 10;
    const auto wait = [&](Sequencer::State state) {
      for (int i = 0; i < 100 && r.sequencer.state() != state; ++i) r.sequencer.poll(now += 1000);
      ASSERT_EQ(r.sequencer.state(), state);
    };
    wait(Sequencer::State::Suspect);
    const std::int64_t asked = now += 5;
    if (by_heartbeat) {
      r.sequencer.on_heartbeat(0, kSession, 12, now += 5);
    } else {
      r.packet(0, 11, 1, now += 5);
    }
    ASSERT_TRUE(r.sequencer.resume(4, asked, now += 5));
    r.take();
    wait(Sequencer::State::Suspect);
    // Number 9 was refuted without a word, and then 4 to 10, or 11, is a gap like any other.
    const std::string missing = by_heartbeat ? "4 + 8" : "4 + 7";
    EXPECT_EQ(r.take(),
              (Transcript{"request 4 + 5", "request " + missing, "lost " + missing, "want snapshot"}));
    ASSERT_TRUE(r.sequencer.resume(12, now, now));
    r.packet(0, 12, 1, now);
    EXPECT_EQ(r.numbers, (std::vector<std::uint64_t>{1, 12}));
    EXPECT_EQ(r.sequencer.stats().implausible, 1u);
  }
}

TEST(Sequencer, StraySessionsDoNotTouchOneThatLives) {
  Recorded r(proving());
  r.packet(0, 1, 1, 0);
  std::int64_t now = 0;
  std::uint64_t number = 2;
  for (int i = 0; i < 500; ++i) {
    now += kSilence / 2;
    SessionId made_up = kStray;
    if (i % 3 == 0) made_up[9] = static_cast<char>('0' + i % 10);
    r.packet(1, 7, 2, now, made_up);
    r.sequencer.on_heartbeat(1, kStray, 9, now);
    r.sequencer.on_end(1, kStray, 9, now);
    r.sequencer.poll(now);
    if (i % 2 == 0) r.packet(0, number++, 1, now);
    if (i % 2 != 0) r.sequencer.on_heartbeat(0, kSession, number, now);
  }
  EXPECT_EQ(r.sessions, (std::vector<SessionId>{kSession}));
  EXPECT_EQ(r.numbers.size(), number - 1);
  EXPECT_EQ(r.sequencer.stats().other_session, 1500u);
  EXPECT_EQ(r.sequencer.refused_session(), kStray);
}

TEST(Sequencer, BelievesAnotherSessionAfterTheEndAndSilenceOfTwoHeartbeats) {
  Recorded r(proving());
  r.packet(0, 1, 1, 0);
  r.packet(1, 1, 2, 5, kNextSession);
  r.sequencer.on_end(0, kSession, 2, 10);
  r.sequencer.on_heartbeat(1, kSession, 2, 100);  // Not yet over: the other line lags.
  r.packet(0, 3, 1, 110, kNextSession);
  r.packet(1, 3, 1, 120, kNextSession);
  for (std::int64_t now = 200; now < 100 + kEndSilence; now += 1000) {
    r.sequencer.on_end(0, kSession, 2, now);  // Repeated, and no sign that it goes on.
    EXPECT_FALSE(r.sequencer.poll(now));
  }
  EXPECT_TRUE(r.sequencer.poll(100 + kEndSilence));
  // Its message 1 was not lost.
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), "claim TUESDAY 1", "end", "session",
                                  message(1, 1, 5), message(2, 1, 5), message(3, 0, 110)}));
  EXPECT_EQ(r.sequencer.stats().other_session, 0u);
  EXPECT_EQ(r.sequencer.session(), kNextSession);
}

TEST(Sequencer, AnEndThatIsNotTheEndProvesNothing) {
  Recorded r(proving());
  r.packet(0, 1, 5, 0);
  r.sequencer.on_end(1, kSession, 3, 10);  // Before what was heard.
  r.packet(1, 1, 1, 20, kNextSession);
  EXPECT_FALSE(r.sequencer.poll(20 + kEndSilence));
  r.sequencer.on_end(1, kSession, 6, 30 + kEndSilence);
  r.packet(0, 6, 1, 40 + kEndSilence);  // It goes on.
  EXPECT_FALSE(r.sequencer.poll(45 + 2 * kEndSilence));
  EXPECT_EQ(r.sessions.size(), 1u);
}

TEST(Sequencer, BelievesAnotherSessionWhenOursIsSilentAndTheOldOneAgainWhenThatIs) {
  Recorded r(proving());
  r.packet(0, 1, 1, 0);
  r.packet(0, 3, 1, 5);
  r.packet(0, 1, 2, 10, kNextSession);
  EXPECT_TRUE(r.sequencer.poll(5 + kSilence));
  std::int64_t now = 5 + kSilence;
  r.packet(1, 2, 1, now + 1);  // A line that lags far behind.
  r.packet(0, 3, 1, now + 2, kNextSession);
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), "claim TUESDAY 1", "lost 2 + 2", "session",
                                  message(1, 0, 10), message(2, 0, 10), message(3, 0, now + 2)}));
  now += kSilence + 2;
  r.packet(1, 4, 1, now - 1);
  EXPECT_TRUE(r.sequencer.poll(now));
  EXPECT_EQ(r.sessions, (std::vector<SessionId>{kSession, kNextSession, kSession}));
}

TEST(Sequencer, WhatOnceCameByIsNotBelievedInALaterSilence) {
  Recorded r(proving());
  r.packet(0, 1, 1, 0);
  r.packet(1, 7, 2, 10, kStray);
  r.packet(0, 2, 1, 20);
  EXPECT_FALSE(r.sequencer.poll(20 + 50 * kSilence));
  EXPECT_EQ(r.sequencer.heard_at(1), std::numeric_limits<std::int64_t>::min()) << "no sign of life";
  r.packet(0, 3, 1, 30 + 50 * kSilence);
  EXPECT_EQ(r.sessions, (std::vector<SessionId>{kSession}));
  EXPECT_EQ(r.numbers, (std::vector<std::uint64_t>{1, 2, 3}));
}

/// A line that lags brings copies of the session before, and an answer in its name is still on its way.
TEST(Sequencer, LateCopiesOfTheSessionBeforeAreNoSignThatItReturns) {
  Recorded r(proving());
  r.packet(0, 1, 3, 0);
  r.packet(0, 1, 1, 10, kNextSession);
  r.packet(2, 1, 1, 20, kNextSession);
  ASSERT_EQ(r.sessions, (std::vector<SessionId>{kSession, kNextSession}));
  r.packet(1, 2, 2, 30);
  r.sequencer.on_heartbeat(1, kSession, 4, 35);
  r.sequencer.on_end(1, kSession, 4, 36);
  r.answer(2, 1, 40);
  EXPECT_EQ(r.sequencer.session(), kNextSession);
  EXPECT_EQ(r.sequencer.line_stats(1).late, 2u);
  EXPECT_EQ(r.sequencer.line_stats(1).received, 2u);
  // What is new of it is another matter, and so is what is still there when nothing lags any more.
  for (const bool is_new : {true, false}) {
    const std::int64_t now = is_new ? 20 + kEndSilence / 2 : 200 + 3 * kEndSilence;
    r.packet(0, is_new ? 4 : 3, 1, now);
    r.answer(is_new ? 4 : 3, 1, now + 10);
    EXPECT_EQ(r.sequencer.session(), kSession);
    r.packet(0, 2, 1, now + 20 + kEndSilence, kNextSession);
    r.packet(2, 2, 1, now + 30 + kEndSilence, kNextSession);
    EXPECT_EQ(r.sequencer.session(), kNextSession);
  }
}

TEST(Sequencer, WithoutALimitSilenceProvesNothing) {
  SequencerConfig config = proving();
  config.silence_ns = 0;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  r.packet(0, 1, 1, 10, kNextSession);
  EXPECT_FALSE(r.sequencer.poll(Sequencer::kNever - 1));
}

TEST(Sequencer, BelievesAnotherSessionWhenAServerAnswersInItsName) {
  Recorded r(proving());
  r.packet(0, 1, 1, 0);
  r.sequencer.on_heartbeat(0, kNextSession, 8, 10);
  r.packet(1, 8, 1, 30'000'000, kNextSession);
  r.packet(0, 2, 1, 30'000'001);
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), "claim TUESDAY 7", "claim TUESDAY 8",
                                  message(2, 0, 30'000'001)}));
  r.packet(2, 7, 1, 30'000'002, kStray);  // Of a session that nobody spoke of.
  EXPECT_EQ(r.sessions.size(), 1u);
  r.sequencer.on_heartbeat(2, kNextSession, 7, 30'000'003);  // Has it nothing, or not the session?
  EXPECT_EQ(r.sessions.size(), 1u);
  r.packet(2, 7, 1, 30'000'003, kNextSession);
  EXPECT_EQ(r.take(), (Transcript{"session", message(8, 1, 30'000'000)}));
}

TEST(Sequencer, TheFirstSessionIsAskedAboutWhereSomebodyCanBeAsked) {
  SequencerConfig config = proving();
  config.first_proof_ns = 50'000'000;
  const auto begin = [](Recorded& r) {
    for (int i = 0; i < 5; ++i) r.packet(0, 7 + static_cast<std::uint64_t>(i), 1, i, kStray);
    r.packet(1, 3, 1, 21'000'000);
    EXPECT_EQ(r.take(), (Transcript{"claim STRAY 7", "claim MONDAY 3"}));
    EXPECT_EQ(r.sequencer.state(), Sequencer::State::Empty);
  };
  Recorded answered(config);
  begin(answered);
  answered.answer(3, 1, 22'000'000);
  EXPECT_EQ(answered.take(), (Transcript{"session", message(3, 1, 21'000'000)}));
  // Nobody answers: the one that was heard of most.
  Recorded silent(config);
  begin(silent);
  EXPECT_FALSE(silent.sequencer.poll(49'999'999));
  EXPECT_TRUE(silent.sequencer.poll(50'000'000));
  EXPECT_EQ(silent.sessions, (std::vector<SessionId>{kStray}));
  // Somebody who knows need not have heard of it.
  Recorded told(config);
  told.sequencer.believe(kNextSession, 0);
  told.packet(0, 1, 1, 1, kNextSession);
  EXPECT_EQ(told.take(), (Transcript{"session", message(1, 0, 1)}));
}

TEST(Sequencer, KeepsTheFirstOfAClaimAndNoMoreThanItHasRoomFor) {
  SequencerConfig config = proving();
  config.window_packets = 4 * Sequencer::kClaims;
  config.request_attempts = 0;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  for (std::uint64_t number = 9; number >= 1; --number) r.packet(0, number, 1, 10, kNextSession);
  EXPECT_TRUE(r.sequencer.poll(kSilence));
  EXPECT_EQ(r.numbers, (std::vector<std::uint64_t>{1, 6, 7, 8, 9}));
}

TEST(Sequencer, GoesOnBehindTheGapWhereThereAreNoSnapshots) {
  SequencerConfig config = config_of();
  config.request_attempts = 0;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  r.packet(0, 3, 1, 10);
  r.packet(0, 6, 1, 500);
  r.sequencer.poll(1010);
  r.packet(1, 2, 1, 1020);
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), "lost 2 + 1", message(3, 0, 10)}));
  r.sequencer.poll(1500);
  EXPECT_EQ(r.take(), (Transcript{"lost 4 + 2", message(6, 0, 500)}));
  EXPECT_EQ(r.sequencer.line_stats(1).late, 1u);
}

TEST(Sequencer, GivesAGapUpEarlyWhenTheWindowIsFull) {
  SequencerConfig config = config_of();
  config.window_packets = 3;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  for (std::uint64_t number = 3; number <= 6; ++number) r.packet(0, number, 1, 10);
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), "lost 2 + 1", message(3, 0, 10),
                                  message(4, 0, 10), message(5, 0, 10), message(6, 0, 10)}));
  EXPECT_EQ(r.sequencer.stats().window_full, 1u);
}

TEST(Sequencer, KeepsTheNewestWhileItWaitsForASnapshot) {
  SequencerConfig config = config_of();
  config.window_packets = 3;
  config.snapshots = true;
  config.start = SequencerConfig::Start::Snapshot;
  Recorded r(config);
  for (std::uint64_t number = 3; number <= 7; ++number) r.packet(0, number, 1, 10);
  r.packet(1, 2, 1, 10);  // Older than all that is kept, and no room.
  r.take();
  EXPECT_TRUE(r.sequencer.resume(6, 20, 20));
  EXPECT_EQ(r.take(), (Transcript{message(6, 0, 10), message(7, 0, 10)}));
  EXPECT_EQ(r.sequencer.line_stats(0).late, 3u);
  EXPECT_EQ(r.sequencer.line_stats(1).late, 1u);
}

TEST(Sequencer, RefusesToKeepWhatDoesNotFit) {
  SequencerConfig config = config_of();
  config.max_packet_bytes = 20;
  Recorded r(config);
  r.packet(0, 1, 1, 0);
  r.packet(0, 3, std::vector<std::string>{std::string(19, 'x')}, 10);
  EXPECT_EQ(r.sequencer.stats().oversized, 1u);
  r.packet(1, 2, std::vector<std::string>{std::string(30, 'y')}, 20);  // In order nothing need be kept.
  r.packet(1, 3, std::vector<std::string>{"z"}, 30);
  EXPECT_EQ(r.numbers, (std::vector<std::uint64_t>{1, 2, 3}));
}

TEST(Sequencer, ANewSessionIsNotAGap) {
  Recorded r(config_of());
  r.packet(0, 500, 1, 0);
  r.packet(0, 502, 1, 5);
  r.packet(1, 501, 1, 20);
  r.sequencer.believe(kNextSession, 25);
  r.packet(0, 1, 1, 30, kNextSession);
  r.packet(1, 503, 1, 35);  // The other line is still in the old one.
  r.packet(1, 1, 2, 40, kNextSession);
  r.packet(2, 1, 1, 50, {'?'});  // Nobody asked for it.
  EXPECT_EQ(r.log, (Transcript{"session", message(500, 0, 0), message(501, 1, 20), message(502, 0, 5),
                               "session", message(1, 0, 30), "claim MONDAY 503", message(2, 1, 40)}));
  EXPECT_EQ(r.sessions, (std::vector<SessionId>{kSession, kNextSession}));
  EXPECT_EQ(r.sequencer.stats().other_session, 2u);
  EXPECT_EQ(r.sequencer.line_stats(1).gap, 0u);
}

TEST(Sequencer, ASnapshotThatNoGapAskedForTakesTheStreamWhereItStands) {
  SequencerConfig config = config_of();
  config.snapshots = true;
  Recorded r(config);
  r.packet(0, 1, 3, 0);
  r.sequencer.suspend();
  EXPECT_FALSE(r.sequencer.resume(3, 5, 5)) << "it lacks message 3";
  r.packet(0, 4, 2, 10);
  EXPECT_TRUE(r.sequencer.can_resume(4));
  EXPECT_TRUE(r.sequencer.resume(5, 20, 20));
  EXPECT_EQ(r.numbers, (std::vector<std::uint64_t>{1, 2, 3, 5}));
  EXPECT_EQ(r.sequencer.stats().lost, 0u);
  r.sequencer.suspend();
  EXPECT_TRUE(r.sequencer.resume(6, 30, 30)) << "nothing has come meanwhile";
  r.packet(0, 6, 1, 40);
  EXPECT_EQ(r.numbers.back(), 6u);
}

TEST(Sequencer, FillsTheGapBeforeItEndsASession) {
  Recorded r(config_of());
  r.packet(0, 1, 1, 0);
  r.sequencer.on_end(0, kSession, 4, 10);
  r.packet(1, 1, 2, 20);
  r.sequencer.poll(1010);
  EXPECT_EQ(r.take(), (Transcript{"session", message(1, 0, 0), message(2, 1, 20), "request 3 + 1"}));
  r.answer(3, 1, 1100);
  r.sequencer.on_end(1, kSession, 4, 1200);
  EXPECT_EQ(r.take(), (Transcript{message(3, 2, 1100), "end"}));
}

TEST(Sequencer, BeginsWithMessageOneWhereAskedTo) {
  SequencerConfig config = config_of();
  config.start = SequencerConfig::Start::Beginning;
  Recorded r(config);
  r.packet(0, 4, 1, 0);
  r.sequencer.poll(1000);
  r.answer(1, 3, 1100);
  EXPECT_EQ(r.numbers, (std::vector<std::uint64_t>{1, 2, 3, 4}));
}

TEST(Sequencer, NamesWhatIsWrongWithItsConfiguration) {
  const auto refused = [](auto change) {
    SequencerConfig config = config_of();
    change(config);
    try {
      const Recorded r(config);
    } catch (const SetupError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused([](SequencerConfig& c) { c.lines = 0; }), "feeds[0].lines: expected 1 or more, found 0");
  EXPECT_EQ(refused([](SequencerConfig& c) { c.reorder_ns = -1; }),
            "feeds[0].reorder_ns: expected nanoseconds from 0 to 2^56, found -1");
  EXPECT_EQ(refused([](SequencerConfig& c) {
              c.request_attempts = 1;
              c.request_timeout_ns = 0;
            }),
            "feeds[0].request_timeout_ns: expected a positive number, found 0");
  EXPECT_NE(refused([](SequencerConfig& c) { c.start = SequencerConfig::Start::Snapshot; }), "");
  EXPECT_EQ(refused([](SequencerConfig&) {}), "");
  // Without a server nobody asks how it would be asked.
  EXPECT_EQ(refused([](SequencerConfig& c) {
              c.request_attempts = c.request_messages = 0;
              c.request_timeout_ns = 0;
            }),
            "");
}

// ---- Against the twin, in a simulated network ----

struct Weather {
  double loss[2] = {0, 0};
  double both_loss = 0;  // Of a datagram on both lines at once.
  double duplicate = 0;
  std::int64_t skew_ns = 0;  // Line B behind A.
  std::int64_t jitter_ns = 0;
  bool server_up = true;
  double answer_loss = 0;
  std::size_t answer_messages = 20;  // That fit into one answer.
  bool snapshots = false;
};

/// What one run of the simulation has to look at.
struct Outcome {
  Transcript log;
  std::vector<std::uint64_t> numbers;
  SequencerStats stats;
  LineStats lines[3];
  std::uint64_t sent = 0;
  std::uint64_t expected = 0;
};

/// Plays a venue of `packets` datagrams to the sequencer and the twin at once, by the clock of a simulated
/// network, and holds them against each other. `config` may have any start.
Outcome simulate(const Weather& weather, const SequencerConfig& config, std::uint64_t seed, int packets) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto chance = [&random](double p) { return std::uniform_real_distribution<double>()(random) < p; };
  const auto upto = [&random](std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(0, most)(random);
  };

  std::vector<std::string> stream{""};  // By number, from 1.
  using Event = std::function<void(std::int64_t)>;
  std::multimap<std::int64_t, Event> events;
  Recorded real(config);
  SequencerTwin twin(config);

  const auto arrive = [&](std::uint32_t line, std::uint64_t first, std::size_t count, std::int64_t at) {
    events.emplace(at, [&, line, first, count](std::int64_t now) {
      const std::vector<std::string> texts(stream.begin() + static_cast<std::ptrdiff_t>(first),
                                           stream.begin() + static_cast<std::ptrdiff_t>(first + count));
      real.packet(line, first, texts, now);
      twin.packet(line, first, texts, now);
    });
  };
  std::int64_t now = 0;
  real.requested = [&](std::uint64_t first, std::uint32_t count) {
    if (!weather.server_up || chance(weather.answer_loss)) return;
    const auto fits = std::min<std::size_t>({count, weather.answer_messages, stream.size() - first});
    arrive(2, first, fits, now + 300 + upto(200));
  };
  real.wanted = [&] {
    // What the venue has sent when it answers, sometimes an answer that is old by then.
    events.emplace(now + 20000 + upto(5000), [&](std::int64_t asked) {
      const std::uint64_t next =
          stream.size() - (chance(0.3) ? std::min<std::size_t>(stream.size() - 1, 40) : 0);
      events.emplace(asked + upto(5000), [&, asked, next](std::int64_t at) {
        twin.resume(next, asked, at);
        if (!real.sequencer.resume(next, asked, at) && real.sequencer.state() == Sequencer::State::Suspect)
          real.wanted();
      });
    });
  };

  std::int64_t sent_at = 1000;
  for (int i = 0; i < packets; ++i) {
    sent_at += upto(400);
    events.emplace(sent_at, [&](std::int64_t at) {
      const std::uint64_t first = stream.size();
      const auto count = static_cast<std::size_t>(1 + upto(8));
      for (std::size_t k = 0; k < count; ++k) {
        stream.push_back(std::to_string(random()).substr(0, static_cast<std::size_t>(upto(18))));
      }
      const bool lost = chance(weather.both_loss);
      for (std::uint32_t line = 0; line < 2; ++line) {
        for (int copies = chance(weather.duplicate) ? 2 : 1; copies > 0; --copies) {
          if (lost || chance(weather.loss[line])) continue;
          arrive(line, first, count, at + 50 + line * weather.skew_ns + upto(weather.jitter_ns));
        }
      }
    });
  }
  // Heartbeats until all is known to all, at least one after the last datagram.
  for (std::int64_t at = 5000; at < sent_at + 200000; at += 20000) {
    events.emplace(at, [&](std::int64_t when) {
      for (std::uint32_t line = 0; line < 2; ++line) {
        real.sequencer.on_heartbeat(line, kSession, stream.size(), when);
        twin.heartbeat(line, stream.size(), when);
      }
    });
  }

  for (;;) {
    EXPECT_EQ(real.sequencer.deadline(), twin.deadline());
    const std::int64_t next = events.empty() ? Sequencer::kNever : events.begin()->first;
    if (std::min(next, real.sequencer.deadline()) == Sequencer::kNever) break;
    if (real.sequencer.deadline() <= next) {
      now = std::max(now, real.sequencer.deadline());
      twin.poll(now);
      real.sequencer.poll(now);
    } else {
      now = next;
      const Event event = std::move(events.begin()->second);
      events.erase(events.begin());
      event(now);
    }
    if (testing::Test::HasFailure()) break;
  }

  EXPECT_EQ(real.log, twin.log());
  Outcome out{real.log, real.numbers,      real.sequencer.stats(),
              {},       stream.size() - 1, real.sequencer.expected()};
  for (std::uint32_t line = 0; line < 3; ++line) {
    const LineStats& a = real.sequencer.line_stats(line);
    const LineStats& b = twin.line_stats(line);
    EXPECT_EQ(std::tie(a.packets, a.heartbeats, a.received, a.won, a.duplicate, a.late, a.gap, a.overtaken),
              std::tie(b.packets, b.heartbeats, b.received, b.won, b.duplicate, b.late, b.gap, b.overtaken))
        << "line " << line;
    EXPECT_EQ(a.received, a.won + a.duplicate + a.late) << "line " << line;
    out.lines[line] = a;
  }
  return out;
}

std::vector<std::uint64_t> all_from(std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> out;
  for (std::uint64_t number = first; number <= last; ++number) out.push_back(number);
  return out;
}

constexpr std::uint64_t kSeeds = 25;

TEST(SequencerSimulation, DeliversEachMessageOnceInOrderThroughLossReorderAndSkew) {
  std::uint64_t won_by_b = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Weather weather{.loss = {0.01, 0.01}, .duplicate = 0.005, .skew_ns = 300, .jitter_ns = 600};
    SequencerConfig config = config_of();
    config.start = SequencerConfig::Start::Beginning;
    const Outcome out = simulate(weather, config, seed, 2000);
    ASSERT_EQ(out.numbers, all_from(1, out.sent));
    EXPECT_EQ(out.stats.lost, 0u);
    EXPECT_GT(out.stats.gaps, 0u);
    won_by_b += out.lines[1].won;
    if (HasFailure()) return;
  }
  EXPECT_GT(won_by_b, 0u);
}

TEST(SequencerSimulation, LetsLaterMessagesWaitWhileTheRequestFillsALossOnBothLines) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Weather weather{
        .loss = {0.05, 0.05}, .both_loss = 0.05, .skew_ns = 200, .jitter_ns = 300, .answer_loss = 0.1};
    weather.answer_messages = 3;
    SequencerConfig config = config_of();
    config.start = SequencerConfig::Start::Beginning;
    config.request_attempts = 10;
    config.request_interval_ns = seed % 2 == 0 ? 400 : 0;
    config.request_messages = 5;
    const Outcome out = simulate(weather, config, seed, 1000);
    ASSERT_EQ(out.numbers, all_from(1, out.sent));
    EXPECT_EQ(out.stats.lost, 0u);
    EXPECT_GT(out.stats.requests, 20u);
    EXPECT_GT(out.stats.request_timeouts, 0u);
    EXPECT_GT(out.lines[2].won, 0u);
    if (HasFailure()) return;
  }
}

TEST(SequencerSimulation, ComesBackBySnapshotWhereTheServerIsDown) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Weather weather{
        .loss = {0.02, 0.02}, .both_loss = 0.005, .skew_ns = 200, .jitter_ns = 300, .server_up = false};
    SequencerConfig config = config_of();
    config.snapshots = true;
    config.start = SequencerConfig::Start::Snapshot;
    const Outcome out = simulate(weather, config, seed, 2000);
    EXPECT_GT(out.stats.lost, 0u);
    EXPECT_GT(out.stats.snapshots_used, 1u);
    // Strictly upwards, and each step over a number was announced and covered by a snapshot.
    bool may_skip = true;
    std::uint64_t last = 0;
    for (const std::string& line : out.log) {
      if (line == "session" || line.starts_with("request")) continue;
      if (line.starts_with("lost") || line == "want snapshot") {
        may_skip = true;
        continue;
      }
      const std::uint64_t number = std::stoull(line);
      ASSERT_TRUE(number == last + 1 || (may_skip && number > last)) << line;
      may_skip = false;
      last = number;
    }
    EXPECT_EQ(out.expected, out.sent + 1);
    if (HasFailure()) return;
  }
}

TEST(SequencerSimulation, AnnouncesEveryLossWhereNothingBringsItBack) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Weather weather{
        .loss = {0.05, 0.1}, .both_loss = 0.02, .duplicate = 0.02, .skew_ns = 500, .jitter_ns = 3000};
    SequencerConfig config = config_of();
    config.request_attempts = 0;
    config.start = SequencerConfig::Start::Beginning;
    const Outcome out = simulate(weather, config, seed, 1500);
    EXPECT_GT(out.stats.lost, 0u);
    EXPECT_EQ(out.numbers.size() + out.stats.lost, out.sent);
    if (HasFailure()) return;
  }
}

TEST(SequencerSimulation, GivesTheSameForTheSameInputs) {
  Weather weather{.loss = {0.1, 0.1}, .both_loss = 0.02, .jitter_ns = 1000, .answer_loss = 0.5};
  SequencerConfig config = config_of();
  config.snapshots = true;
  EXPECT_EQ(simulate(weather, config, 7, 500).log, simulate(weather, config, 7, 500).log);
}

TEST(SequencerSimulation, KeepsOrderInAWindowThatIsAlwaysTooSmall) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    std::mt19937_64 random(seed);
    SCOPED_TRACE("seed " + std::to_string(seed));
    SequencerConfig config = config_of();
    config.window_packets = 4;
    config.snapshots = seed % 2 == 0;
    Recorded r(config);
    std::int64_t now = 0;
    std::uint64_t highest = 1;
    for (int i = 0; i < 3000; ++i) {
      now += static_cast<std::int64_t>(random() % 500);
      const std::uint64_t first =
          std::max<std::int64_t>(1, static_cast<std::int64_t>(highest + random() % 20) - 12);
      const std::size_t count = 1 + random() % 6;
      highest = std::max(highest, first + count);
      r.packet(static_cast<std::uint32_t>(random() % 2), first, count, now);
      r.sequencer.poll(now);
      if (r.sequencer.state() == Sequencer::State::Suspect && random() % 10 == 0) {
        (void)r.sequencer.resume(highest - random() % 8, now - static_cast<std::int64_t>(random() % 3000),
                                 now);
      }
    }
    EXPECT_GT(r.numbers.size(), 500u);
    for (std::size_t i = 1; i < r.numbers.size(); ++i) ASSERT_GT(r.numbers[i], r.numbers[i - 1]);
    EXPECT_GT(r.sequencer.stats().window_full, 0u);
    EXPECT_LE(r.sequencer.stats().most_kept, 4u);
    for (const std::string& line : r.log) {  // The text of a message is its number.
      if (const auto space = line.find(" line "); space != std::string::npos) {
        EXPECT_EQ(line.substr(0, space), line.substr(line.rfind(' ') + 1));
      }
    }
  }
}

}  // namespace
}  // namespace tickwire::net
