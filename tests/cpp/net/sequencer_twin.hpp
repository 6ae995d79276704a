#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tickwire/net/sequenced/sequencer.hpp"

/// The sequencer again, slow and obvious: a map from number to the first copy, with no limit on what it
/// keeps, and the rules of the header written down message by message.
namespace tickwire::net::test {

/// What came out, one line each.
using Transcript = std::vector<std::string>;

inline std::string delivered_line(std::uint64_t sequence, std::uint32_t line, TsNs ts_recv,
                                  const std::string& text) {
  return std::to_string(sequence) + " line " + std::to_string(line) + " at " + std::to_string(ts_recv) + ' ' +
         text;
}

class SequencerTwin {
 public:
  explicit SequencerTwin(const SequencerConfig& config) : config_(config), lines_(config.lines + 1) {}

  void packet(std::uint32_t line, std::uint64_t sequence, const std::vector<std::string>& messages,
              std::int64_t now) {
    LineStats& stats = lines_[line];
    ++stats.packets;
    const std::uint64_t end = sequence + messages.size();
    if (line != config_.lines) note_line(line, sequence, end);
    if (end > end_) {
      end_ = end;
      end_at_ = now;
    }
    start(sequence);
    const std::uint64_t before = expected_;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const std::uint64_t number = sequence + i;
      ++stats.received;
      if (joined_ && number < expected_) {
        ++(number >= skipped_first_ && number < skipped_end_ ? stats.late : stats.duplicate);
      } else if (!kept_.emplace(number, Copy{line, now, messages[i]}).second) {
        ++stats.duplicate;
      }
      drain();
    }
    settle(now, line == config_.lines && expected_ != before);
  }

  void heartbeat(std::uint32_t line, std::uint64_t next, std::int64_t now) {
    ++lines_[line].heartbeats;
    note_line(line, next, next);
    start(next);
    if (next > end_) {
      end_ = next;
      end_at_ = now;
    }
    settle(now, false);
  }

  void poll(std::int64_t now) {
    if (now < deadline_) return;
    if (attempts_ >= config_.request_attempts) {
      give_up();
      settle(now, false);
    } else {
      ask(now);
    }
  }

  void resume(std::uint64_t next, std::int64_t asked, std::int64_t now) {
    if (!suspect_ || (joined_ && next < expected_)) return;
    suspect_ = false;
    skip_to(next);
    asked_at_ = asked;
    joined_ = true;
    if (next > end_) {
      end_ = next;
      end_at_ = now;
    }
    drain();
    settle(now, false);
  }

  std::int64_t deadline() const { return deadline_; }
  const Transcript& log() const { return log_; }
  const LineStats& line_stats(std::uint32_t line) const { return lines_[line]; }

 private:
  struct Copy {
    std::uint32_t line;
    std::int64_t at;
    std::string text;
  };

  void note_line(std::uint32_t line, std::uint64_t first, std::uint64_t end) {
    std::uint64_t& next = next_[line];
    LineStats& stats = lines_[line];
    if (next != 0 && first > next) stats.gap += first - next;
    for (std::uint64_t number = first; number < end; ++number) stats.overtaken += number < next;
    next = std::max(next, end);
  }
  void start(std::uint64_t sequence) {
    if (heard_) return;
    heard_ = true;
    log_.emplace_back("session");
    if (config_.start == SequencerConfig::Start::Snapshot && sequence != 1) {
      suspect_ = true;
      log_.emplace_back("want snapshot");
      return;
    }
    joined_ = true;
    expected_ = config_.start == SequencerConfig::Start::Beginning ? 1 : sequence;
    skipped_end_ = expected_;
  }
  void drain() {
    while (!suspect_ && !kept_.empty() && kept_.begin()->first == expected_) {
      const Copy& copy = kept_.begin()->second;
      ++lines_[copy.line].won;
      log_.push_back(delivered_line(expected_, copy.line, copy.at, copy.text));
      kept_.erase(kept_.begin());
      ++expected_;
    }
  }
  std::uint64_t gap_end() const { return kept_.empty() ? std::max(end_, expected_) : kept_.begin()->first; }
  void skip_to(std::uint64_t next) {
    skipped_first_ = joined_ ? expected_ : 0;
    skipped_end_ = expected_ = next;
    while (!kept_.empty() && kept_.begin()->first < next) {
      ++lines_[kept_.begin()->second.line].late;
      kept_.erase(kept_.begin());
    }
  }
  void settle(std::int64_t now, bool answered) {
    if (suspect_) return;
    if (gap_end() == expected_) {
      deadline_ = Sequencer::kNever;
      asked_end_ = 0;
      attempts_ = 0;
      held_ = false;
      return;
    }
    if (asked_end_ != 0) {
      if (answered && expected_ <= asked_end_) {
        attempts_ = 0;
        return ask(now);
      }
      if (expected_ < asked_end_ || (held_ && expected_ == asked_end_)) return;
      asked_end_ = 0;
      attempts_ = 0;
    }
    deadline_ = std::max(now, (kept_.empty() ? end_at_ : kept_.begin()->second.at) + config_.reorder_ns);
    if (config_.request_attempts > 0) deadline_ = std::max(deadline_, next_request_);
  }
  void ask(std::int64_t now) {
    held_ = now < next_request_;
    if (held_) {
      deadline_ = next_request_;
      return;
    }
    const auto count = std::min<std::uint64_t>(gap_end() - expected_, config_.request_messages);
    asked_end_ = expected_ + count;
    ++attempts_;
    next_request_ = now + config_.request_interval_ns;
    deadline_ = now + config_.request_timeout_ns;
    log_.push_back("request " + std::to_string(expected_) + " + " + std::to_string(count));
  }
  /// What was kept before the last snapshot was asked for, and that snapshot did not hold, never was.
  bool refuted() {
    if ((kept_.empty() ? end_at_ : kept_.begin()->second.at) >= asked_at_) return false;
    for (auto at = kept_.begin(); at != kept_.end();) {
      if (at->second.at >= asked_at_) {
        ++at;
        continue;
      }
      ++lines_[at->second.line].late;
      at = kept_.erase(at);
    }
    if (end_at_ < asked_at_) end_ = kept_.empty() ? expected_ : kept_.rbegin()->first + 1;
    asked_end_ = 0;
    attempts_ = 0;
    held_ = false;
    return true;
  }
  void give_up() {
    if (refuted()) return;
    const std::uint64_t end = gap_end();
    asked_end_ = 0;
    attempts_ = 0;
    log_.push_back("lost " + std::to_string(expected_) + " + " + std::to_string(end - expected_));
    if (config_.snapshots) {
      suspect_ = true;
      deadline_ = Sequencer::kNever;
      log_.emplace_back("want snapshot");
      return;
    }
    skip_to(end);
    drain();
  }

  const SequencerConfig config_;
  std::vector<LineStats> lines_;
  std::map<std::uint32_t, std::uint64_t> next_;
  std::map<std::uint64_t, Copy> kept_;
  Transcript log_;
  bool heard_ = false;
  bool joined_ = false;
  bool suspect_ = false;
  bool held_ = false;  // The next request may not go out yet.
  std::uint64_t expected_ = 0;
  std::uint64_t end_ = 0;
  std::int64_t end_at_ = 0;
  std::int64_t deadline_ = Sequencer::kNever;
  std::int64_t asked_at_ = std::numeric_limits<std::int64_t>::min();
  std::uint64_t asked_end_ = 0;
  std::uint32_t attempts_ = 0;
  std::int64_t next_request_ = std::numeric_limits<std::int64_t>::min();
  std::uint64_t skipped_first_ = 0;
  std::uint64_t skipped_end_ = 0;
};

}  // namespace tickwire::net::test
