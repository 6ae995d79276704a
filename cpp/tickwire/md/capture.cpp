#include "tickwire/md/capture.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <new>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/md/byte_stream.hpp"

namespace tickwire::md {

namespace {

// ---------------------------------------------------------------------------------------------------
// What a line says

/// Reads the fixed shapes that the format_ functions below write, white space after ':' and ','
/// allowed.
class OwnLineParser {
 public:
  explicit OwnLineParser(std::string_view text) : rest_(text) {}

  bool parse(CaptureLine& line) {
    std::string_view kind;
    if (!literal("{\"tickwire\":") || !string(kind) || !literal(",") || !literal("\"conn\":") ||
        !number(line.conn)) {
      return false;
    }
    static constexpr std::pair<std::string_view, CaptureKind> kKinds[] = {
        {"open", CaptureKind::Open},        {"close", CaptureKind::Close}, {"warm", CaptureKind::Warm},
        {"live", CaptureKind::Live},        {"stale", CaptureKind::Stale}, {"cold", CaptureKind::Cold},
        {"snapshot", CaptureKind::Snapshot}};
    const auto* const found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                           [&](const auto& entry) { return entry.first == kind; });
    if (found == std::end(kKinds)) return false;
    line.kind = found->second;
    const bool of_instrument = line.kind == CaptureKind::Stale || line.kind == CaptureKind::Cold ||
                               line.kind == CaptureKind::Snapshot;
    if (of_instrument && (!literal(",") || !literal("\"instrument\":") || !string(line.instrument))) {
      return false;
    }
    if (line.kind != CaptureKind::Snapshot) return rest_ == "}";
    if (!literal(",")) return false;
    if (rest_.starts_with("\"limit\"") && (!literal("\"limit\":") || !number(line.limit) || !literal(","))) {
      return false;
    }
    if (!literal("\"body\":")) return false;
    // What the body holds is for the decoder to judge.
    if (rest_.size() < 3 || rest_.front() != '{' || rest_.back() != '}') return false;
    line.body = {rest_.data(), rest_.size() - 1};
    return true;
  }

 private:
  bool literal(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    rest_.remove_prefix(expected.size());
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t')) rest_.remove_prefix(1);
    return true;
  }
  bool string(std::string_view& out) {
    if (rest_.empty() || rest_.front() != '"') return false;
    const std::size_t end = rest_.find('"', 1);
    if (end == std::string_view::npos) return false;
    out = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return !out.empty() && out.find('\\') == std::string_view::npos;
  }
  bool number(std::uint32_t& out) {
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), out);
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return error == std::errc{};
  }

  std::string_view rest_;
};

/// Walks JSON text far enough to know its strings and its depth. Calls `on_key` with each key of the
/// outermost object. True where all brackets are closed at the end and none before it.
template <typename OnKey>
bool walk_json(std::string_view text, OnKey on_key) {
  std::size_t depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return false;
      if (--depth == 0) return text.find_first_not_of(" \t\r", i + 1) == std::string_view::npos;
    } else if (c == '"') {
      const std::size_t begin = ++i;
      while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
      if (i >= text.size()) return false;
      const std::size_t after = text.find_first_not_of(" \t", i + 1);
      if (depth == 1 && after != std::string_view::npos && text[after] == ':') {
        on_key(text.substr(begin, i - begin));
      }
    }
  }
  return false;
}

constexpr std::string_view kOwnLine = "{\"tickwire\":";

bool is_whole_json(std::string_view text) {
  return walk_json(text, [](std::string_view) {});
}

bool is_bare_snapshot(std::string_view text) {
  static constexpr std::string_view kId = "\"lastUpdateId\"";
  // Nearly every line ends here: memmem looks at many bytes a step, the walk at each.
  if (text.empty() || text.starts_with("{\"stream\":")) return false;
  if (::memmem(text.data(), text.size(), kId.data(), kId.size()) == nullptr) return false;
  bool has_id = false;
  bool has_stream = false;
  const bool whole = walk_json(text, [&](std::string_view key) {
    has_id = has_id || key == "lastUpdateId";
    has_stream = has_stream || key == "stream";
  });
  return whole && text.front() == '{' && has_id && !has_stream;
}

/// False where the text is no capture line.
bool parse_line(std::string_view text, CaptureLine& line) {
  if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
  if (text.empty() || text.front() == '-') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), line.ts_recv);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  // An empty message is a message: what it does to a run it does to the replay.
  if (text.empty() || text.front() != ' ') return false;
  text.remove_prefix(1);

  line.conn = 0;
  line.instrument = {};
  line.limit = 0;
  line.body = {};
  if (text.starts_with(kOwnLine)) return OwnLineParser(text).parse(line);
  line.kind = is_bare_snapshot(text) ? CaptureKind::BareSnapshot : CaptureKind::Message;
  line.body = {text.data(), text.size()};
  return true;
}

}  // namespace

// ---------------------------------------------------------------------------------------------------
// The reader

class CaptureReader::Impl {
 public:
  Impl(std::vector<std::string> paths, CaptureReaderConfig config)
      : paths_(readable_files("capture", std::move(paths))),
        config_(check(config)),
        buffer_(std::min(config_.block_bytes, config_.max_line_bytes + 1) + kPaddingBytes) {
    error_.reserve(512);
    open_next();
  }

  void add(std::string path) {
    const bool at_end = file_ == paths_.size();
    paths_.push_back(std::move(path));
    if (at_end) open_next();
  }

  const CaptureLine* next() noexcept {
    if (finished_) {
      // The line given last was a file's last and lay in the buffer until now.
      finished_ = false;
      ++file_;
      open_next();
    }
    std::string_view text;
    while (read_line(text)) {
      if (parse_line(text, line_)) return &line_;
      skip("not a capture line: expected TIME, a space and a message");
    }
    return nullptr;
  }

  [[nodiscard]] const std::string& file() const noexcept {
    static const std::string kNone;
    return paths_.empty() ? kNone : paths_[std::min(file_, paths_.size() - 1)];
  }

  std::uint64_t line_number_ = 0;
  std::uint64_t skipped_lines_ = 0;
  bool truncated_ = false;
  std::string error_;

 private:
  static CaptureReaderConfig check(CaptureReaderConfig config) {
    if (config.block_bytes == 0) throw SetupError("block_bytes", "a positive number", "0");
    if (config.max_line_bytes == 0) throw SetupError("max_line_bytes", "a positive number", "0");
    return config;
  }

  [[nodiscard]] std::size_t room() const noexcept { return buffer_.size() - kPaddingBytes; }

  /// Opens file file_ or a later one. False when there is none left.
  bool open_next() noexcept {
    for (; file_ < paths_.size(); ++file_) {
      begin_ = end_ = searched_ = 0;
      line_number_ = 0;
      skipping_ = false;
      if (stream_.open(paths_[file_], config_.follow)) return true;
      cut("cannot be opened any more");
    }
    return false;
  }

  void describe(const char* what) noexcept {
    error_ = file() + ":" + std::to_string(line_number_) + ": " + what;
  }
  void skip(const char* what) noexcept {
    ++skipped_lines_;
    if (error_.empty()) describe(what);
  }
  void cut(const char* what) noexcept {
    if (!truncated_) describe(what);
    truncated_ = true;
  }

  /// The next line without its line break. False at the end of the last file.
  bool read_line(std::string_view& text) noexcept {
    while (file_ < paths_.size()) {
      const void* found = std::memchr(buffer_.data() + searched_, '\n', end_ - searched_);
      if (found != nullptr) {
        const std::size_t line_end =
            static_cast<std::size_t>(static_cast<const char*>(found) - buffer_.data());
        text = {buffer_.data() + begin_, line_end - begin_};
        begin_ = searched_ = line_end + 1;
        ++line_number_;
        if (skipping_) {
          skipping_ = false;
          continue;
        }
        if (text.size() <= config_.max_line_bytes) return true;
        skip("a line beyond the limit");
        continue;
      }
      searched_ = end_;
      if (skipping_) begin_ = end_;
      if (make_room()) {
        const std::size_t got =
            stream_.read(buffer_.data() + end_, std::min(config_.block_bytes, room() - end_));
        end_ += got;
        if (got != 0) continue;
        const bool grows = config_.follow && file_ + 1 == paths_.size() && stream_.failure() == nullptr;
        if (grows) return false;
        if (finish_file(text)) return true;
      }
    }
    return false;
  }

  /// Room for at least one more byte. False where the line is too long: the rest of it is skipped.
  bool make_room() noexcept {
    if (begin_ != 0 && (begin_ == end_ || room() - end_ < config_.block_bytes)) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      searched_ -= begin_;
      begin_ = 0;
    }
    if (end_ < room()) return true;
    if (end_ > config_.max_line_bytes) {
      begin_ = end_ = searched_ = 0;
      skipping_ = true;
      ++line_number_;
      skip("a line beyond the limit");
      --line_number_;  // Counted at its end.
      return true;
    }
    buffer_.resize(std::min(2 * room(), config_.max_line_bytes + 1) + kPaddingBytes);
    return true;
  }

  /// At the end of a file. True where its last line lacks nothing but the line break.
  bool finish_file(std::string_view& text) noexcept {
    const std::string_view rest{buffer_.data() + begin_, end_ - begin_};
    if (!rest.empty() || skipping_) ++line_number_;
    const char* const failure = stream_.failure();
    const std::size_t space = rest.find(' ');
    const bool whole = !skipping_ && rest.size() <= config_.max_line_bytes &&
                       space != std::string_view::npos && is_whole_json(rest.substr(space + 1));
    if (failure != nullptr) {
      cut(failure);
    } else if ((skipping_ || !rest.empty()) && !whole) {
      cut("the file ends in the middle of a line");
    }
    begin_ = searched_ = end_;
    finished_ = whole;
    if (whole) {
      text = rest;
      return true;
    }
    ++file_;
    open_next();
    return false;
  }

  std::vector<std::string> paths_;
  CaptureReaderConfig config_;
  ByteStream stream_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;     // Of the line that is being read.
  std::size_t end_ = 0;       // Of the bytes read.
  std::size_t searched_ = 0;  // No line break between begin_ and here.
  std::size_t file_ = 0;
  bool skipping_ = false;  // The rest of a line that is too long.
  bool finished_ = false;  // The last line of this file has been given.
  CaptureLine line_{};
};

CaptureReader::CaptureReader(std::vector<std::string> paths, CaptureReaderConfig config)
    : impl_(std::make_unique<Impl>(std::move(paths), config)) {}
CaptureReader::~CaptureReader() = default;

const CaptureLine* CaptureReader::next() noexcept { return impl_->next(); }
void CaptureReader::add(std::string path) { impl_->add(std::move(path)); }
const std::string& CaptureReader::file() const noexcept { return impl_->file(); }
std::uint64_t CaptureReader::line_number() const noexcept { return impl_->line_number_; }
std::uint64_t CaptureReader::skipped_lines() const noexcept { return impl_->skipped_lines_; }
bool CaptureReader::truncated() const noexcept { return impl_->truncated_; }
const std::string& CaptureReader::error() const noexcept { return impl_->error_; }

// ---------------------------------------------------------------------------------------------------
// The writer

namespace {

void append_number(std::string& out, std::int64_t value) {
  std::array<char, 20> digits;
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  out.append(digits.data(), end);
}

void append_text(std::string& out, std::span<const char> text) {
  const std::size_t begin = out.size();
  out.append(text.data(), text.size());
  for (std::size_t i = begin; i < out.size(); ++i) {
    if (out[i] == '\n' || out[i] == '\r') out[i] = '\t';
  }
}

void append_own(std::string& out, TsNs ts, std::string_view kind, std::uint32_t conn) {
  append_number(out, ts);
  out.append(" {\"tickwire\":\"").append(kind).append("\",\"conn\":");
  append_number(out, conn);
}

}  // namespace

void format_message(std::string& out, TsNs ts_recv, std::span<const char> message) {
  append_number(out, ts_recv);
  out.push_back(' ');
  // What a venue sends must not read as a line of ours: a replay would do what the run did not.
  const std::string_view text(message.data(), message.size());
  if (text.starts_with(kOwnLine) || is_bare_snapshot(text)) out.push_back('\t');
  append_text(out, message);
  out.push_back('\n');
}

void format_snapshot(std::string& out, TsNs ts_recv, std::uint32_t conn, std::string_view instrument,
                     std::uint32_t limit, std::span<const char> body) {
  append_own(out, ts_recv, "snapshot", conn);
  out.append(",\"instrument\":\"").append(instrument).append("\",");
  if (limit != 0) {
    out.append("\"limit\":");
    append_number(out, limit);
    out.push_back(',');
  }
  out.append("\"body\":");
  append_text(out, body);
  out.append("}\n");
}

void format_open(std::string& out, TsNs ts, std::uint32_t conn) {
  append_own(out, ts, "open", conn);
  out.append("}\n");
}

void format_close(std::string& out, TsNs ts, std::uint32_t conn) {
  append_own(out, ts, "close", conn);
  out.append("}\n");
}

void format_stale(std::string& out, TsNs ts, std::uint32_t conn, std::string_view instrument) {
  append_own(out, ts, "stale", conn);
  out.append(",\"instrument\":\"").append(instrument).append("\"}\n");
}

void format_warm(std::string& out, TsNs ts, std::uint32_t conn) {
  append_own(out, ts, "warm", conn);
  out.append("}\n");
}

void format_live(std::string& out, TsNs ts, std::uint32_t conn) {
  append_own(out, ts, "live", conn);
  out.append("}\n");
}

void format_cold(std::string& out, TsNs ts, std::uint32_t conn, std::string_view instrument) {
  append_own(out, ts, "cold", conn);
  out.append(",\"instrument\":\"").append(instrument).append("\"}\n");
}

}  // namespace tickwire::md
