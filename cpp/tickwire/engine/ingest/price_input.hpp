#pragma once

/// The capture of a feed by price, for a replay. Before the first entry it finds out what a foreign capture
/// does not say, which streams its messages are of; while it reads, what no counter tells, so that whoever
/// gets no rows is told why.
///
/// Used on the thread of the agent whose feed it is.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tickwire/engine/ingest/capture_facts.hpp"
#include "tickwire/engine/ingest/feed.hpp"
#include "tickwire/engine/ingest/price_feed.hpp"
#include "tickwire/md/capture.hpp"

namespace tickwire::engine {

class PriceInput final : public ReplayInput, private CaptureListener {
 public:
  /// Set-up. Throws SetupError where the capture cannot be read.
  PriceInput(PriceFeed& feed, bool windows_on_recv);

  void read() noexcept override { line_ = reader_->next(); }
  [[nodiscard]] bool at_end() const noexcept TICKWIRE_HOT override { return line_ == nullptr; }
  [[nodiscard]] TsNs ts() const noexcept TICKWIRE_HOT override { return line_->ts_recv; }
  void process() noexcept TICKWIRE_HOT override { feed_.play(*line_); }
  void end() noexcept override;
  void count() noexcept override;
  void tell(CaptureFacts& facts) const override;

 private:
  struct Lane {
    bool traded = false;    // A trade of it came.
    bool snapshot = false;  // One came that could be read.
    // Where it left valid last.
    md::InvalidReason reason = md::InvalidReason::None;
    const std::string* file = nullptr;  // The reader's own.
    std::uint64_t line = 0;
    TsNs ts = 0;
  };

  void on_message(std::span<const char> message, venue::binance::Outcome outcome, const md::Event& event,
                  std::string_view symbol) noexcept override;
  void on_snapshot(InstrumentId instrument) noexcept override { lanes_[instrument].snapshot = true; }
  void on_missing_trades(InstrumentId, std::uint64_t, std::uint64_t) noexcept override {}
  void on_other(std::string_view symbol) noexcept override { witness_.other(symbol); }
  void on_left_valid(InstrumentId instrument, md::InvalidReason reason, TsNs ts) noexcept override;
  std::size_t write_place(std::span<char> text) const noexcept override;

  PriceFeed& feed_;
  const bool windows_on_recv_;
  std::unique_ptr<md::CaptureReader> reader_;
  const md::CaptureLine* line_ = nullptr;
  CaptureWitness witness_;
  std::vector<Lane> lanes_;
};

}  // namespace tickwire::engine
