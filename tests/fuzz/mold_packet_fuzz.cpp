// Fuzz target of the MoldUDP64 parser and of the sequencer behind it: whatever datagrams come, in whatever
// order, messages leave with rising numbers and the counts add up. CMakeLists.txt says how it is run.
//
// Input: steps, each a control byte, a length of two bytes and a datagram. The control byte's lower two bits
// are the line, 2 is the re-request server; 3 answers the wish for a snapshot; the upper four are time.
//
// Covers: net/moldudp64/mold_packet.cpp net/sequenced/sequencer.cpp

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <vector>

#include "tickwire/net/moldudp64/mold_packet.hpp"
#include "tickwire/net/sequenced/sequencer.hpp"

namespace mold_packet_fuzz {

using namespace tickwire;
using namespace tickwire::net;

inline void require(bool held) {
  if (!held) std::abort();
}

class Checker final : public SequencerHandler {
 public:
  void on_run(const Run& run) noexcept override {
    require(!run.messages.empty());
    require(run.sequence >= next);
    require(run.sequence == next || may_skip);
    may_skip = false;
    next = run.sequence + run.messages.size();
    for (const MessageView& message : run.messages) {
      for (const char byte : message) sum = static_cast<char>(sum + byte);
    }
    delivered += run.messages.size();
  }
  void on_session(const SessionId&) noexcept override {
    next = 0;
    may_skip = true;
  }
  void on_end_of_session() noexcept override {}
  void on_request(const SessionId&, std::uint64_t first, std::uint32_t count) noexcept override {
    require(first >= next && count > 0 && count <= 5);
  }
  void on_lost(std::uint64_t first, std::uint64_t count) noexcept override {
    require(first >= next && count > 0);
    may_skip = true;
  }
  void on_want_snapshot() noexcept override { may_skip = true; }

  std::uint64_t next = 0;
  std::uint64_t delivered = 0;
  bool may_skip = true;
  volatile char sum = 0;
};

inline void run(std::span<const std::uint8_t> input, bool snapshots) {
  // Taken from the kernel once for a hundred runs.
  static std::optional<Arena> memory;
  static int runs = 0;
  if (runs++ % 100 == 0) {
    memory.emplace(ArenaConfig{
        .chunk_bytes = std::size_t{2} << 20U, .huge_pages = HugePages::Off, .lock = LockMemory::Off});
  }
  Arena& arena = *memory;
  MoldParser parser(256, arena);
  SequencerConfig config;
  config.lines = 2;
  config.max_packet_bytes = 256;
  config.window_packets = 4;
  config.reorder_ns = 10;
  config.request_attempts = 2;
  config.request_timeout_ns = 20;
  config.request_messages = 5;
  config.snapshots = snapshots;
  Checker checker;
  Sequencer sequencer(checker, config, "fuzz", arena);
  std::int64_t now = 0;
  while (input.size() >= 3) {
    const std::uint8_t control = input[0];
    const std::size_t bytes = std::min<std::size_t>(input[1] * 256U + input[2], input.size() - 3);
    // A copy of its exact size: a sanitizer sees the first byte too far.
    const std::vector<char> datagram(input.begin() + 3,
                                     input.begin() + 3 + static_cast<std::ptrdiff_t>(bytes));
    input = input.subspan(3 + bytes);
    now += control >> 4U;
    (void)sequencer.poll(now);
    const std::uint32_t line = control & 3U;
    if (line == 3) {
      const bool suspect = sequencer.state() == Sequencer::State::Suspect;
      const bool used =
          sequencer.resume(sequencer.expected() + (control >> 2U & 3U) * 2U, now - (control >> 4U & 1U), now);
      require(!used || suspect);
      continue;
    }
    MoldPacket packet;
    if (parser.parse(datagram, packet) != MoldError::None) continue;
    switch (packet.kind) {
      case MoldKind::Data:
        sequencer.on_packet(line, packet.session, packet.sequence, packet.messages, {now, 0, RecvClock::Read},
                            now);
        break;
      case MoldKind::Heartbeat: sequencer.on_heartbeat(line, packet.session, packet.sequence, now); break;
      case MoldKind::EndOfSession: sequencer.on_end(line, packet.session, packet.sequence, now); break;
    }
  }
  std::uint64_t won = 0;
  for (std::uint32_t line = 0; line <= 2; ++line) {
    const LineStats& stats = sequencer.line_stats(line);
    require(stats.received >= stats.won + stats.duplicate + stats.late);
    won += stats.won;
  }
  require(won == checker.delivered && won == sequencer.stats().delivered);
}

}  // namespace mold_packet_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  mold_packet_fuzz::run({data, size}, false);
  mold_packet_fuzz::run({data, size}, true);
  return 0;
}
