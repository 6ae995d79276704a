#include "tickwire/engine/ingest/price_input.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <utility>

#include "tickwire/venue/binance/decoder.hpp"
#include "tickwire/venue/binance/stream_name.hpp"
#include "tickwire/venue/venues.hpp"

namespace tickwire::engine {

namespace {

using venue::binance::Outcome;

constexpr std::uint64_t kFirstLines = 2'000;  // Of a capture, that tell what its streams are.
constexpr std::uint32_t kPartialInARow = 3;   // Messages of that shape; changes look so by chance.
constexpr std::uint64_t kPartialShare = 10;   // And one to so many changes at least.

std::string_view title_of(venue::binance::Market market) noexcept {
  for (const venue::Venue& venue : venue::kVenues) {
    if (venue.binance == market) return venue.title;
  }
  return {};
}

/// Set-up: which of the instruments have a stream of changes, and what their messages are where no
/// name of a stream says it, by the first lines of the capture. A partial book beside changes is refused from
/// the first line on.
void learn_streams(PriceFeed& feed) {
  struct Found {
    std::uint64_t changes = 0;
    std::uint64_t unnamed_partial = 0;
    std::size_t shape = 0;                 // The most levels of these.
    std::array<std::uint64_t, 3> exact{};  // Those with 5, 10 or 20 levels on both sides.
    std::uint64_t bare = 0;
    std::size_t most_bare_levels = 0;
  };
  std::vector<Found> found(feed.size());
  if (feed.config().inputs.empty()) return;
  md::CaptureReader reader({feed.config().inputs.front()});
  bool ours = false;  // A recording of ours has what was subscribed to: no message is of another stream.
  for (std::uint64_t lines = 0; lines < kFirstLines; ++lines) {
    const md::CaptureLine* const line = reader.next();
    if (line == nullptr) break;
    md::Event event;
    ours = ours || line->limit != 0 ||
           (line->kind != md::CaptureKind::Message && line->kind != md::CaptureKind::BareSnapshot &&
            line->kind != md::CaptureKind::Snapshot);
    if (line->kind == md::CaptureKind::BareSnapshot && found.size() == 1) {
      if (feed.decoder().decode_snapshot(line->body, 0, RecvClock::Recorded, line->ts_recv, event) !=
          Outcome::Event)
        continue;
      feed.lane(0).unnamed.bare_books.saw(event);
      ++found[0].bare;
      found[0].most_bare_levels = std::max({found[0].most_bare_levels, event.bids.size(), event.asks.size()});
    }
    if (line->kind == md::CaptureKind::Snapshot && line->limit != 0) {
      // Our own recording: whoever asked for it had subscribed to changes.
      const InstrumentId local = feed.table().find(line->instrument);
      if (local != kNoInstrument) ++found[local].changes;
    }
    if (line->kind != md::CaptureKind::Message) continue;
    if (feed.decoder().decode(line->body, RecvClock::Recorded, line->ts_recv, event) != Outcome::Event ||
        event.kind != md::EventKind::BookDiff) {
      continue;
    }
    Found& of = found[event.instrument];
    const std::size_t shape = event.named ? 0 : venue::binance::partial_shape(event);
    of.shape = std::max(of.shape, shape);
    ++(shape == 0 ? of.changes : of.unnamed_partial);
    if (const std::size_t exact = event.named ? 0 : venue::binance::exact_partial_shape(event); exact != 0)
      ++of.exact[exact / 10];
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    PriceLane& lane = feed.lane(i);
    const Found& of = found[i];
    if (of.changes == 0 && of.unnamed_partial >= kPartialInARow && venue::binance::is_partial_size(of.shape))
      lane.unnamed.partial = static_cast<std::uint32_t>(of.shape);
    if (of.changes != 0 || (of.unnamed_partial != 0 && lane.unnamed.partial == 0))
      lane.pipeline.expect_diffs();
    // Beside changes, where too many look like books for chance. Spot's have no ids of changes.
    const auto most = std::max_element(of.exact.begin(), of.exact.end());
    if (!ours && of.changes != 0 && feed.config().market != venue::binance::Market::Spot &&
        *most >= kPartialInARow && kPartialShare * *most >= of.changes) {
      static constexpr std::array<std::uint32_t, 3> kSizes{5, 10, 20};
      lane.unnamed.refused = kSizes[static_cast<std::size_t>(most - of.exact.begin())];
    }
    lane.unnamed.bare_books.begin();
    // The venue's partial books have no more levels; longer ones are snapshots that somebody asked for.
    lane.unnamed.bare_partial = of.changes == 0 && of.unnamed_partial == 0 && of.bare >= kPartialInARow &&
                                of.most_bare_levels <= venue::binance::kMostPartialLevels;
  }
}

}  // namespace

PriceInput::PriceInput(PriceFeed& feed, bool windows_on_recv)
    : feed_(feed), windows_on_recv_(windows_on_recv), lanes_(feed.size()) {
  learn_streams(feed);
  reader_ = std::make_unique<md::CaptureReader>(feed.config().inputs);
  feed.listen(this);
}

void PriceInput::end() noexcept {
  feed_.report_capture(*reader_);
  feed_.tell_all_missing();
}

void PriceInput::count() noexcept {
  if (line_ != nullptr) feed_.counters().input_ts.set(line_->ts_recv);
}

void PriceInput::on_message(std::span<const char> message, Outcome outcome, const md::Event& event,
                            std::string_view symbol) noexcept {
  witness_.saw(message);
  if (outcome == Outcome::Event) {
    witness_.stamped(windows_on_recv_ ? event.ts_recv : event.ts_event);
    if (event.kind == md::EventKind::Trade) lanes_[event.instrument].traded = true;
  }
  if (outcome == Outcome::UnknownSymbol) witness_.other(symbol);
}

void PriceInput::on_left_valid(InstrumentId instrument, md::InvalidReason reason, TsNs ts) noexcept {
  Lane& lane = lanes_[instrument];
  lane.reason = reason;
  lane.file = &reader_->file();
  lane.line = reader_->line_number();
  lane.ts = ts;
}

/// Of a long path the end alone, since a report has little room.
std::size_t PriceInput::write_place(std::span<char> text) const noexcept {
  constexpr std::size_t kMostPath = 60;
  const std::string_view path = reader_->file();
  const bool whole = path.size() <= kMostPath;
  const std::string_view shown = whole ? path : path.substr(path.size() - kMostPath);
  const int size = std::snprintf(text.data(), text.size(), " (%s%.*s:%llu)", whole ? "" : "...",
                                 static_cast<int>(shown.size()), shown.data(),
                                 static_cast<unsigned long long>(reader_->line_number()));
  return std::min(static_cast<std::size_t>(std::max(size, 0)), text.size() - 1);
}

void PriceInput::tell(CaptureFacts& facts) const {
  const FeedConfig& config = feed_.config();
  facts.feed = config.name;
  facts.stamps = reader_->stamps();
  facts.looks_like = witness_.looks_like(title_of(*config.market));
  facts.resolution_ns = witness_.resolution_ns();
  witness_.tell(facts);
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    const Lane& found = lanes_[i];
    const PriceLane& lane = std::as_const(feed_).lane(i);
    const InstrumentPipeline& pipeline = lane.pipeline;
    const std::string& symbol = config.instruments[i].symbol;
    if (lane.diff_id == 0 && pipeline.epoch() == 0) facts.without_changes.push_back(symbol);
    if (!found.snapshot) facts.without_snapshot.push_back(symbol);
    if (pipeline.epoch() == 0) continue;
    if (!found.traded) facts.without_trades.push_back(symbol);
    if (pipeline.state() != md::BookState::Valid) {
      CaptureFacts::Lost& lost = facts.lost.emplace_back();
      lost.instrument = symbol;
      lost.state = md::name_of(pipeline.state());
      if (found.file != nullptr) {
        lost.reason = md::name_of(found.reason);
        lost.place = *found.file + ":" + std::to_string(found.line);
        lost.ts = found.ts;
      }
    } else if (lane.counters.rows.value() == 0) {
      const auto last = pipeline.warm_last();
      const TsNs now = pipeline.clock();
      if (last.warm_at <= now) continue;
      const bool known = last.warm_at != std::numeric_limits<TsNs>::max();
      facts.not_warm.push_back({symbol, last.feature, known ? last.warm_at - now : -1});
    }
  }
}

}  // namespace tickwire::engine
