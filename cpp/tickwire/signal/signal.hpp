#pragma once

/// The signal record: what leaves the data plane for one trigger.
///
/// A record is a SignalHeader, then the scores, then the feature row it was made from, at the
/// offsets of a RecordLayout. The same bytes are the slot of the ring to the router, a row of the
/// recorder's files, and a NumPy structured array in Python: nothing is converted on the way.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tickwire/core/types.hpp"
#include "tickwire/md/book_state.hpp"

namespace tickwire::signal {

/// The spans of time between the receive and the publication of a signal, in their order. Each is
/// measured by the TSC but Receive, which starts at ts_recv, another clock's stamp.
enum class Stage : std::uint8_t {
  Receive = 0,   // ts_recv to the start of decoding: the kernel, and other messages of the same read.
  Decode = 1,    // Bytes to records.
  Book = 2,      // Sequence check and book.
  Features = 3,  // Kernels and the row.
  Queue = 4,     // The ring to the inference agent; 0 in the inline layout.
  Model = 5,     // The model's run.
  Publish = 6,   // To the ring of the router.
};
inline constexpr std::size_t kStageCount = 7;
inline constexpr std::array<std::string_view, kStageCount> kStageNames = {
    "receive", "decode", "book", "features", "queue", "model", "publish"};

/// What a signal says of its score. Only Valid carries one that may be used.
enum class SignalState : std::uint8_t {
  Valid = 0,
  Suspect = 1,     // The book has left valid. Rows that were emitted before still come before this.
  Stale = 2,       // Older than max_age when the record left; or the book's data is.
  Halted = 3,      // The venue stopped trading.
  Empty = 4,       // The connection is down: no book.
  NonFinite = 5,   // A feature or a score is not a finite number.
  ModelError = 6,  // The model's run failed.
  Warming = 7,     // A sequence model's window is not full yet.
};
inline constexpr std::array<std::string_view, 8> kSignalStateNames = {
    "valid", "suspect", "stale", "halted", "empty", "nonfinite", "model_error", "warming"};

constexpr SignalState signal_state(md::BookState book) noexcept {
  switch (book) {
    case md::BookState::Valid: return SignalState::Valid;
    case md::BookState::Stale: return SignalState::Stale;
    case md::BookState::Halted: return SignalState::Halted;
    case md::BookState::Empty: return SignalState::Empty;
    case md::BookState::Buffering:
    case md::BookState::Suspect: break;
  }
  return SignalState::Suspect;
}

struct SignalHeader {
  InstrumentId instrument;
  std::uint32_t epoch;     // Life of the book; instrument, epoch and row name a row.
  std::uint64_t row;       // 1, 2, 3 … within the epoch; 0 in a record that announces leaving valid.
  std::uint64_t sequence;  // The venue's id of the last event applied to the book.
  TsNs ts_event;           // kNoTime where the venue gave none.
  TsNs ts_recv;
  TsNs ts_out;  // When the record was published: ts_recv plus the stages, live and in replay.
  SignalState state;
  md::InvalidReason reason;  // Why valid was left, in a record with row 0.
  RecvClock recv_clock;
  std::uint8_t scored;     // How many rows the run had that made the scores; 0: there was none.
  std::uint32_t model_id;  // First four bytes of the model file's SHA-256; 0 without a model.
  std::array<std::int64_t, kStageCount> stage_ns;  // They add up to ts_out - ts_recv.
  // Trades of the row's epoch that the venue numbered but that never came, where a row needs trades.
  std::uint32_t missing_trades;
  // Live: how much earlier than ts_recv the message may have arrived, because several came with one read
  // after nobody had looked.
  std::uint32_t unseen_us;
};
static_assert(sizeof(SignalHeader) == 120, "the NumPy dtype of bindings/bind_engine.cpp mirrors it");

/// How old a record is that has left, counted from the earliest that its message may have arrived.
constexpr std::int64_t age_ns(const SignalHeader& header) noexcept {
  return header.ts_out - header.ts_recv + std::int64_t{header.unseen_us} * 1000;
}

/// Where the scores and the features of a record lie, in bytes from its start.
struct RecordLayout {
  std::size_t score_count;
  std::size_t feature_count;

  [[nodiscard]] constexpr std::size_t scores_offset() const noexcept { return sizeof(SignalHeader); }
  [[nodiscard]] constexpr std::size_t features_offset() const noexcept {
    return scores_offset() + score_count * sizeof(float);
  }
  /// Whole, with the padding that keeps the next record's header aligned.
  [[nodiscard]] constexpr std::size_t record_bytes() const noexcept {
    const std::size_t bytes = features_offset() + feature_count * sizeof(float);
    return (bytes + 7) / 8 * 8;
  }
};

/// One record in place. Views memory that somebody else owns.
class RecordView {
 public:
  RecordView(std::byte* record, const RecordLayout& layout) noexcept : record_(record), layout_(layout) {}

  [[nodiscard]] SignalHeader& header() const noexcept { return *reinterpret_cast<SignalHeader*>(record_); }
  [[nodiscard]] std::span<float> scores() const noexcept {
    return {reinterpret_cast<float*>(record_ + layout_.scores_offset()), layout_.score_count};
  }
  [[nodiscard]] std::span<float> features() const noexcept {
    return {reinterpret_cast<float*>(record_ + layout_.features_offset()), layout_.feature_count};
  }

 private:
  std::byte* record_;
  const RecordLayout& layout_;
};

}  // namespace tickwire::signal
