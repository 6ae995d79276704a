#pragma once

/// What the engine's agents write to their error logs: a kind, and the texts of its first and last time.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/metrics/error_log.hpp"

namespace tickwire::engine {

enum class ErrorKind : std::uint32_t {
  Connection,
  ConnectionClosed,
  ConnectionSilent,
  ConnectionLookup,
  ConnectionRefused,
  ConnectionTls,
  ConnectionHandshake,
  ConnectionProtocol,
  SubscribeRefused,
  MessageMalformed,
  MessageBadNumber,
  MessageTooManyLevels,
  SnapshotMalformed,
  SnapshotRefused,
  SnapshotTimeout,
  SnapshotFailed,
  SnapshotGivenUp,
  SnapshotWithoutInstrument,
  SnapshotContradicts,
  StreamRefused,
  IdsWentBack,
  DataStale,
  MessagesLost,
  TradesMissing,
  OrderMisfit,
  SessionRefused,
  NumberRefused,
  ReceiveFailed,
  CaptureTruncated,
  CaptureLineSkipped,
  ModelRun,
  RecorderDisk,
  WorkerDied,
  WorkerHung,
  WorkerMemory,
  WorkerStopped,
  ClockLeap,
};

inline constexpr auto kErrorKindNames = std::to_array<std::string_view>({"connection",
                                                                         "connection_closed",
                                                                         "connection_silent",
                                                                         "connection_lookup",
                                                                         "connection_refused",
                                                                         "connection_tls",
                                                                         "connection_handshake",
                                                                         "connection_protocol",
                                                                         "subscribe_refused",
                                                                         "message_malformed",
                                                                         "message_bad_number",
                                                                         "message_too_many_levels",
                                                                         "snapshot_malformed",
                                                                         "snapshot_refused",
                                                                         "snapshot_timeout",
                                                                         "snapshot_failed",
                                                                         "snapshot_given_up",
                                                                         "snapshot_without_instrument",
                                                                         "snapshot_contradicts",
                                                                         "stream_refused",
                                                                         "ids_went_back",
                                                                         "data_stale",
                                                                         "messages_lost",
                                                                         "trades_missing",
                                                                         "order_misfit",
                                                                         "session_refused",
                                                                         "number_refused",
                                                                         "receive_failed",
                                                                         "capture_truncated",
                                                                         "capture_line_skipped",
                                                                         "model_run",
                                                                         "recorder_disk",
                                                                         "worker_died",
                                                                         "worker_hung",
                                                                         "worker_memory",
                                                                         "worker_stopped",
                                                                         "clock_leap"});
static_assert(kErrorKindNames.size() == static_cast<std::size_t>(ErrorKind::ClockLeap) + 1);
static_assert(kErrorKindNames.size() <= metrics::ErrorLog::kKinds);

/// Counts the error under its kind, so many times, with the text "kind: details", the parts joined.
inline void report(metrics::ErrorLog& log, ErrorKind kind, std::initializer_list<std::string_view> details,
                   TsNs ts, std::uint64_t times = 1) noexcept TICKWIRE_HOT {
  std::array<char, metrics::ErrorLog::kMaxText> text;
  std::size_t size = 0;
  const auto append = [&](std::string_view part) {
    const std::size_t count = std::min(part.size(), text.size() - size);
    std::copy_n(part.begin(), count, text.begin() + size);
    size += count;
  };
  append(kErrorKindNames[static_cast<std::size_t>(kind)]);
  append(": ");
  for (const std::string_view part : details) append(part);
  log.report(static_cast<std::uint32_t>(kind), {text.data(), size}, ts, times);
}
inline void report(metrics::ErrorLog& log, ErrorKind kind, std::string_view detail, TsNs ts) noexcept
    TICKWIRE_HOT {
  report(log, kind, std::initializer_list<std::string_view>{detail}, ts);
}

}  // namespace tickwire::engine
