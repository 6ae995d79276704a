#pragma once

/// One instrument of a feed by order, from what a message did to its market to a feature row. The book and
/// its state are the market's; this one makes epochs of the times in which it is valid, and rows of its
/// events.
///
/// An event is one message of the venue with all it says: an execution is a trade and a change of the book,
/// and gives one row at most; the one that makes the book valid belongs to what the epoch begins with and
/// gives none. Owned by one ingest agent; its time is the messages' own, so an epoch that no message began,
/// but a snapshot or a line that is heard again, counts its windows from its first message on: the one before
/// it may be from long before the snapshot.

#include <array>
#include <cstddef>
#include <cstdint>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/prefetch.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/row_builder.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/venue/itch/market.hpp"

namespace tickwire::engine {

class OrderPipeline {
 public:
  /// `instrument` is the market's number; the market must outlive this.
  OrderPipeline(const venue::itch::Market& market, InstrumentId instrument, int qty_decimals,
                const FeaturesConfig& features, Arena& arena)
      : market_(market), instrument_(instrument), rows_(features, qty_decimals, arena) {}

  /// Brings close what an event will touch, in steps that each look at what the one before has asked for:
  /// this object, its kernels, their places in the windows. See OrderLookahead.
  static constexpr unsigned kPrepareSteps = 3;
  void prepare(unsigned step) noexcept TICKWIRE_HOT {
    switch (step) {
      case 0: return prefetch_lines(this, sizeof *this);
      case 1: return rows_.prepare_kernels();
      default: return rows_.prepare_entries();
    }
  }

  /// `sequence` is the message's number in its session.
  Step on_update(const venue::itch::Update& update, TsNs ts_event, TsNs ts_recv,
                 std::uint64_t sequence) noexcept TICKWIRE_HOT;
  /// The market's state may be another one, by no message of this instrument.
  Step on_state() noexcept TICKWIRE_HOT { return take_state(); }
  /// Nothing is heard any more: no row until unblock(), which begins an epoch where the book is valid.
  Step block(md::InvalidReason why) noexcept TICKWIRE_HOT {
    blocked_ = why;
    return take_state();
  }
  /// A session begins: what was is void, its times too.
  Step begin_anew() noexcept TICKWIRE_HOT {
    rows_.forget_clock();
    return unblock();
  }
  Step unblock() noexcept TICKWIRE_HOT { return block(md::InvalidReason::None); }

  /// What time it is cannot be believed, or was not: windows begin anew, and no row until trust_clock(),
  /// which begins an epoch where the book is valid.
  Step doubt_clock() noexcept TICKWIRE_HOT {
    clock_doubted_ = true;
    rows_.forget_clock();
    return take_state();
  }
  Step trust_clock() noexcept TICKWIRE_HOT {
    clock_doubted_ = false;
    rows_.forget_clock();
    return take_state();
  }

  [[nodiscard]] md::BookState state() const noexcept TICKWIRE_HOT { return state_; }
  [[nodiscard]] std::uint32_t epoch() const noexcept TICKWIRE_HOT { return epoch_; }
  [[nodiscard]] std::uint64_t sequence() const noexcept TICKWIRE_HOT { return sequence_; }
  [[nodiscard]] std::uint64_t row() const noexcept TICKWIRE_HOT { return rows_.row(); }
  [[nodiscard]] const RowHistory& history() const noexcept TICKWIRE_HOT { return rows_.history(); }
  [[nodiscard]] std::uint64_t window_overflows() const noexcept { return rows_.window_overflows(); }
  /// What time it is for the windows, and which feature is warm last, and when.
  [[nodiscard]] TsNs clock() const noexcept { return rows_.clock(); }
  [[nodiscard]] features::FeatureEngine::Last warm_last() const noexcept { return rows_.warm_last(); }

 private:
  Step take_state() noexcept TICKWIRE_HOT;
  [[nodiscard]] features::TopOfBook read_top() noexcept TICKWIRE_HOT;

  const venue::itch::Market& market_;
  const InstrumentId instrument_;
  RowBuilder rows_;
  features::TopOfBook begin_;  // Of an epoch that has not heard a message yet; in rows_.
  bool begins_ = false;
  md::BookState state_ = md::BookState::Empty;
  md::InvalidReason blocked_ = md::InvalidReason::None;
  bool clock_doubted_ = false;
  std::uint32_t epoch_ = 0;
  std::uint64_t sequence_ = 0;
};

/// Which instruments the next messages are of, for who has several at hand. A pipeline is prepared while the
/// messages before its own are applied, a step every few of them.
class OrderLookahead {
 public:
  OrderLookahead() { expected_.fill(kNoInstrument); }

  /// The message that Market::prepare() was told of is of this instrument, or of none of ours.
  template <typename PipelineOf>
  void expect(InstrumentId instrument, PipelineOf&& pipeline_of) noexcept TICKWIRE_HOT {
    expected_[at_] = instrument;
    for (unsigned step = 0; step < OrderPipeline::kPrepareSteps; ++step) {
      const InstrumentId due = expected_[(at_ + kAhead - step * kApart) % kAhead];
      if (due != kNoInstrument) pipeline_of(due).prepare(step);
    }
    at_ = (at_ + 1) % kAhead;
  }

 private:
  static constexpr std::size_t kAhead = venue::itch::Market::kAhead;
  /// Messages from step to step: the last one comes late, because it asks for most, and what is asked for
  /// early has left the nearest cache again.
  static constexpr std::size_t kApart = 5;

  std::array<InstrumentId, kAhead> expected_;
  std::size_t at_ = 0;
};

}  // namespace tickwire::engine
