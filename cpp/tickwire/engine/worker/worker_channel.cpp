#include "tickwire/engine/worker/worker_channel.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <span>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/engine/score/work.hpp"
#include "tickwire/infer/model.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::engine {

namespace {

constexpr std::array<char, 8> kMagic = {'T', 'W', 'W', 'O', 'R', 'K', 'E', 'R'};
constexpr std::uint32_t kVersion = 1;

constexpr std::size_t aligned(std::size_t offset) noexcept {
  return (offset + kFalseSharingBytes - 1) / kFalseSharingBytes * kFalseSharingBytes;
}

/// Where the rings lie behind the header.
struct Places {
  std::size_t out_slot;
  std::size_t work_slot;
  std::size_t out;                // Offset of the ring to the router.
  std::vector<std::size_t> work;  // Of each ring of rows.
  std::size_t end;
};

Places places_of(const WorkerShape& shape, std::size_t header_bytes) {
  const auto within = [](const char* what, std::uint64_t value, std::uint64_t least, std::uint64_t most) {
    if (value >= least && value <= most) return;
    throw SetupError(std::string("worker channel: ") + what,
                     "a number from " + std::to_string(least) + " to " + std::to_string(most),
                     std::to_string(value));
  };
  // What the configuration allows, and small enough that no sum below can overflow.
  within("scores", shape.score_count, 1, infer::kMaxScores);
  within("features", shape.feature_count, 1, 1U << 16U);
  within("rows of a window", shape.window_rows, 1, 1U << 16U);
  within("rows of a batch", shape.max_batch, 1, 255);
  within("instruments", shape.instrument_count, 1, 1U << 24U);
  within("rings", shape.work_rings, 1, 4096);
  within("slots of a ring of rows", shape.queue_slots, 1, 1U << 20U);
  within("slots of the router's ring", shape.output_slots, 1, 1U << 22U);
  const signal::RecordLayout layout{shape.score_count, shape.feature_count};
  Places places{.out_slot = layout.record_bytes(),
                .work_slot = work_slot_bytes(shape.window_rows * shape.feature_count),
                .out = aligned(header_bytes),
                .work = {},
                .end = 0};
  std::size_t end = places.out + concurrent::SpscQueue::block_bytes(places.out_slot, shape.output_slots);
  for (std::uint64_t i = 0; i < shape.work_rings; ++i) {
    places.work.push_back(aligned(end));
    end = places.work.back() + concurrent::SpscQueue::block_bytes(places.work_slot, shape.queue_slots);
  }
  places.end = end;
  return places;
}

}  // namespace

struct WorkerChannel::Header {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t header_bytes;
  std::uint64_t used_bytes;
  WorkerShape shape;
  concurrent::Waker::Flag waker;
  alignas(kFalseSharingBytes) concurrent::Cell<std::uint32_t> ring_in_hand;  // The worker's.
  alignas(kFalseSharingBytes) concurrent::Cell<std::int64_t> died_ns;        // The engine's.
  WorkerSeat seats[kSeats];
};

std::string WorkerSeat::why() const {
  const std::size_t bytes = std::min<std::size_t>(text_bytes, kMaxText);
  return {text, bytes};
}

void WorkerSeat::fail(std::string_view why) noexcept {
  const std::size_t bytes = std::min(why.size(), kMaxText);
  std::memcpy(text, why.data(), bytes);
  text_bytes = static_cast<std::uint32_t>(bytes);
  enter(WorkerPhase::Failed);
}

WorkerChannel::WorkerChannel(const std::string& name, const WorkerShape& shape, HugePages huge_pages,
                             LockMemory lock)
    : region_("tickwire-" + name, places_of(shape, sizeof(Header)).end, huge_pages, lock), shape_(shape) {
  Header& made = *::new (static_cast<void*>(region_.data())) Header{};
  made.magic = kMagic;
  made.version = kVersion;
  made.header_bytes = sizeof(Header);
  made.used_bytes = places_of(shape, sizeof(Header)).end;
  made.shape = shape;
  lay_out();
}

WorkerChannel::WorkerChannel(int fd) : region_(fd), shape_{} {
  const auto refuse = [](const char* found) {
    throw SetupError("worker channel", "one made by an engine of this version", found);
  };
  if (region_.bytes() < sizeof(Header)) refuse("one that is too short");
  const Header& there = header();
  if (there.magic != kMagic) refuse("other memory");
  if (there.version != kVersion || there.header_bytes != sizeof(Header)) refuse("one of another version");
  shape_ = there.shape;
  const std::size_t end = places_of(shape_, sizeof(Header)).end;
  if (end != there.used_bytes || end > region_.bytes()) refuse("one whose rings do not fit it");
  lay_out();
}

void WorkerChannel::lay_out() {
  const Places places = places_of(shape_, sizeof(Header));
  const std::span<std::byte> all{region_.data(), region_.bytes()};
  out_ =
      std::make_unique<concurrent::SpscQueue>(all.subspan(places.out), places.out_slot, shape_.output_slots);
  for (const std::size_t offset : places.work) {
    work_.push_back(
        std::make_unique<concurrent::SpscQueue>(all.subspan(offset), places.work_slot, shape_.queue_slots));
  }
}

WorkerChannel::Header& WorkerChannel::header() const noexcept {
  return *std::launder(reinterpret_cast<Header*>(region_.data()));
}

WorkerSeat& WorkerChannel::seat(std::size_t index) const noexcept { return header().seats[index]; }
concurrent::Waker::Flag& WorkerChannel::waker_flag() const noexcept { return header().waker; }
concurrent::Cell<std::uint32_t>& WorkerChannel::ring_in_hand() const noexcept {
  return header().ring_in_hand;
}
concurrent::Cell<std::int64_t>& WorkerChannel::died_ns() const noexcept { return header().died_ns; }

}  // namespace tickwire::engine
