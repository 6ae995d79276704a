#include "tickwire/md/capture.hpp"

#include <sys/stat.h>
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
#include "tickwire/md/file_kind.hpp"
#include "tickwire/md/json_text.hpp"

namespace tickwire::md {

namespace {

// ---------------------------------------------------------------------------------------------------
// What a line says

/// Reads the fixed shapes that the format_ functions below write, white space after ':' and ','
/// allowed.
class OwnLineParser {
 public:
  /// `unescaped`: where an instrument's name goes that is not written as it is.
  OwnLineParser(std::string_view text, std::string& unescaped) : rest_(text), unescaped_(unescaped) {}

  bool parse(CaptureLine& line) {
    std::string_view kind;
    if (!literal("{\"tickwire\":") || !string(kind) || !literal(",") || !literal("\"conn\":") ||
        !number(line.conn)) {
      return false;
    }
    static constexpr std::pair<std::string_view, CaptureKind> kKinds[] = {
        {"open", CaptureKind::Open},         {"close", CaptureKind::Close}, {"warm", CaptureKind::Warm},
        {"live", CaptureKind::Live},         {"stale", CaptureKind::Stale}, {"cold", CaptureKind::Cold},
        {"snapshot", CaptureKind::Snapshot}, {"quiet", CaptureKind::Quiet}};
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
    std::size_t end = 1;
    while (end < rest_.size() && rest_[end] != '"') end += rest_[end] == '\\' ? 2 : 1;
    if (end >= rest_.size()) return false;
    out = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    if (out.find('\\') != std::string_view::npos) {
      unescaped_.clear();
      if (!unescape_json(out, unescaped_)) return false;
      out = unescaped_;
    }
    return !out.empty();
  }
  bool number(std::uint32_t& out) {
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), out);
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return error == std::errc{};
  }

  std::string_view rest_;
  std::string& unescaped_;
};

constexpr std::string_view kOwnLine = "{\"tickwire\":";

bool is_whole_json(std::string_view text) {
  return walk_json(text, [](std::string_view, std::string_view) {});
}

/// A stream of the best five, ten or twenty levels, as its name says: each of its messages looks like a
/// snapshot and is none.
bool is_partial_book(std::string_view stream) {
  constexpr std::string_view kDepth = "@depth";
  const std::size_t at = stream.find(kDepth);
  return at != std::string_view::npos && at + kDepth.size() < stream.size() &&
         stream[at + kDepth.size()] >= '0' && stream[at + kDepth.size()] <= '9';
}

/// A REST reply that other people's recordings hold: as it came, in the wrapper of a stream, or as one member
/// of an object, as a reply of the WebSocket API has it in `result`.
struct ForeignSnapshot {
  std::string_view body;
  // Without quotes, not unescaped; empty where none is named.
  std::string_view stream;
  std::string_view symbol;
};

std::string_view without_quotes(std::string_view value) {
  return value.size() >= 2 && value.front() == '"' ? value.substr(1, value.size() - 2) : std::string_view();
}

/// As venues write a symbol; what else stands under its key is another thing.
bool is_symbol(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

/// The symbol, if any, is what the object says of itself.
bool is_snapshot_object(std::string_view text, std::string_view& symbol) {
  bool id = false, bids = false, asks = false, other = false;
  const bool whole = walk_json(text, [&](std::string_view key, std::string_view value) {
    if (key == "symbol" && is_symbol(without_quotes(value))) symbol = without_quotes(value);
    id = id || key == "lastUpdateId";
    bids = bids || key == "bids";
    asks = asks || key == "asks";
    other = other || key == "e" || key == "stream";
  });
  return whole && text.front() == '{' && id && bids && asks && !other;
}

bool find_snapshot(std::string_view text, ForeignSnapshot& out) {
  static constexpr std::string_view kId = "\"lastUpdateId\"";
  static constexpr std::string_view kStream = "{\"stream\":\"";
  // Some write more than one space. A tab is ours: behind it stands what looks like a snapshot and is none.
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  if (text.empty()) return false;
  // Nearly every line ends at one of these: the second looks at many bytes a step, the walk at each.
  if (text.starts_with(kStream)) {
    const std::size_t end = text.find('"', kStream.size());
    if (end == std::string_view::npos) return false;
    const std::string_view rest = text.substr(end);
    if (rest.starts_with("\",\"data\":{\"e\":") || rest.starts_with("\",\"data\":{\"u\":")) return false;
  }
  if (::memmem(text.data(), text.size(), kId.data(), kId.size()) == nullptr) return false;
  bool has_id = false;
  bool has_stream = false;
  bool has_event = false;
  ForeignSnapshot found;
  std::string_view inside;
  int snapshots = 0;
  const bool whole = walk_json(text, [&](std::string_view key, std::string_view value) {
    has_id = has_id || key == "lastUpdateId";
    has_event = has_event || key == "e";
    if (key == "stream") {
      has_stream = true;
      found.stream = without_quotes(value);
    }
    if ((key == "symbol" || key == "s") && is_symbol(without_quotes(value)))
      found.symbol = without_quotes(value);
    if (std::string_view own; value.starts_with('{') && is_snapshot_object(value, own)) {
      found.body = value;
      inside = own;
      ++snapshots;
    }
  });
  if (!whole || text.front() != '{') return false;
  if (found.symbol.empty()) found.symbol = inside;
  if (has_id && !has_stream) {
    out = {text, {}, found.symbol};
    return true;
  }
  // With two it would be a guess which one is meant.
  if (has_id || has_event || snapshots != 1 || is_partial_book(found.stream)) return false;
  out = found;
  return true;
}

/// What a line without a form of its own may be shown as: its begin, printable.
std::string excerpt(std::string_view text) {
  constexpr std::size_t kMost = 48;
  std::string shown(text.substr(0, kMost));
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  return text.size() > kMost ? shown + "..." : shown;
}

/// A recorder's file after this one: 000001.log, 000002.log … of one folder.
bool are_segments(const std::string& one, const std::string& other) {
  const auto split = [](const std::string& path) {
    const std::size_t slash = path.rfind('/') + 1;  // 0 where there is none.
    return std::pair(std::string_view(path).substr(0, slash), std::string_view(path).substr(slash));
  };
  const auto is_number = [](std::string_view name) {
    return name.size() > 6 && name[6] == '.' &&
           name.substr(0, 6).find_first_not_of("0123456789") == std::string_view::npos;
  };
  const auto [folder, name] = split(one);
  const auto [other_folder, other_name] = split(other);
  return folder == other_folder && is_number(name) && is_number(other_name);
}

/// What the stamps of one file are.
struct StampRule {
  StampForm form = StampForm::None;  // Not decided yet.
  /// It has lines of ours, so its stamps are nanoseconds whatever they look like.
  bool ours = false;
};

constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

/// Looks at a file's first lines. Throws SetupError where it is none that can be read.
class FirstLook {
 public:
  explicit FirstLook(const std::string& path) {
    struct stat status{};
    // What can be read but once, such as a pipe, is not looked at ahead.
    if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return;
    ByteStream stream;
    if (!stream.open(path, false)) return;
    std::string text(kBytes, '\0');
    std::size_t size = 0;
    for (std::size_t got = 1; got != 0 && size < text.size(); size += got) {
      got = stream.read(text.data() + size, text.size() - size);
    }
    if (stream.refused()) throw SetupError("capture " + path, "a file that can be read", stream.failure());
    text.resize(size);
    if (const std::string_view kind = file_kind(text); !kind.empty()) {
      throw SetupError("capture " + path, "lines of text: TIME, a space, a message", std::string(kind));
    }
    decide(path, text, size < kBytes);
  }

  [[nodiscard]] StampRule rule() const { return rule_; }

 private:
  static constexpr std::size_t kBytes = std::size_t{64} << 10U;
  static constexpr int kLines = 64;

  void decide(const std::string& path, std::string_view text, bool at_end) {
    if (text.starts_with(kUtf8Mark)) text.remove_prefix(kUtf8Mark.size());
    std::array<int, kStampForms> votes{};
    for (int i = 0; i < kLines && !text.empty(); ++i) {
      const std::size_t end = text.find('\n');
      if (end == std::string_view::npos && !at_end) break;
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      Stamp stamp;
      if (!parse_stamp(line, stamp) || stamp.size >= line.size()) continue;
      if (line.substr(stamp.size + 1).starts_with(kOwnLine)) {
        rule_ = {StampForm::Nanoseconds, true};
        return;
      }
      if (stamp.form != StampForm::None) ++votes[static_cast<std::size_t>(stamp.form)];
    }
    const auto most = std::max_element(votes.begin(), votes.end());
    if (*most == 0) return;
    rule_.form = static_cast<StampForm>(most - votes.begin());
    *most = 0;
    // One of another form is a line that was damaged; the reader refuses it by itself.
    const auto second = std::max_element(votes.begin(), votes.end());
    if (*second > 1) {
      throw SetupError("capture " + path, "receive stamps of one unit in a file",
                       "a mixture: " + std::string(name_of(rule_.form)) + " and " +
                           std::string(name_of(static_cast<StampForm>(second - votes.begin()))));
    }
  }

  StampRule rule_;
};

}  // namespace

// ---------------------------------------------------------------------------------------------------
// The reader

constexpr const char* kNoMemory = "out of memory";

class CaptureReader::Impl {
 public:
  Impl(std::vector<std::string> paths, CaptureReaderConfig config)
      : paths_(readable_files("capture", std::move(paths))),
        config_(check(config)),
        buffer_(std::min(config_.block_bytes, config_.max_line_bytes + 1) + kPaddingBytes) {
    error_.reserve(512);
    skipped_.reserve(512);
    unescaped_.reserve(64);
    for (const std::string& path : paths_) rules_.push_back(FirstLook(path).rule());
    open_next();
  }

  void add(std::string path) {
    if (failed_) return;
    const bool at_end = file_ == paths_.size();
    // A rule too many is none, a path too many would be.
    rules_.resize(paths_.size() + 1);
    paths_.push_back(std::move(path));
    if (at_end) open_next();
  }

  const CaptureLine* next() {
    if (finished_) {
      // The line given last was a file's last and lay in the buffer until now.
      finished_ = false;
      ++file_;
      open_next();
    }
    std::string_view text;
    while (read_line(text)) {
      if (parse_line(text)) return &line_;
    }
    return nullptr;
  }

  /// What could not be read for something that is no fault of the file; nothing behind it is. Short: there
  /// may be no memory.
  void fail(const char* what) noexcept {
    if (!truncated_ && error_.capacity() > std::strlen(what)) error_ = what;
    truncated_ = failed_ = true;
    file_ = paths_.size();
    begin_ = end_ = searched_ = 0;
    finished_ = false;
  }

  [[nodiscard]] const std::string& file() const noexcept {
    static const std::string kNone;
    return paths_.empty() ? kNone : paths_[std::min(file_, paths_.size() - 1)];
  }

  std::uint64_t line_number_ = 0;
  std::uint64_t skipped_lines_ = 0;
  bool truncated_ = false;
  bool failed_ = false;
  std::string error_;    // Of a file that is cut.
  std::string skipped_;  // Of the first line that was skipped.
  std::vector<CaptureStamps> stamps_;

 private:
  static CaptureReaderConfig check(CaptureReaderConfig config) {
    if (config.block_bytes == 0) throw SetupError("block_bytes", "a positive number", "0");
    if (config.max_line_bytes == 0) throw SetupError("max_line_bytes", "a positive number", "0");
    return config;
  }

  [[nodiscard]] std::size_t room() const noexcept { return buffer_.size() - kPaddingBytes; }

  /// Opens file file_ or a later one. False when there is none left.
  bool open_next() {
    for (; file_ < paths_.size(); ++file_) {
      begin_ = end_ = searched_ = 0;
      line_number_ = 0;
      skipping_ = false;
      if (file_ != 0 && rules_[file_].form == StampForm::None && rules_[file_ - 1].ours &&
          are_segments(paths_[file_ - 1], paths_[file_])) {
        rules_[file_] = rules_[file_ - 1];
      }
      if (stream_.open(paths_[file_], config_.follow)) return true;
      cut("cannot be opened any more");
    }
    return false;
  }

  void describe(std::string& out, std::string_view what) const {
    out = file() + ":" + std::to_string(line_number_) + ": ";
    out += what;
  }
  void skip(const char* what) {
    ++skipped_lines_;
    if (skipped_.empty()) describe(skipped_, what);
  }
  /// Always false.
  bool skip_line(std::string_view text, std::string_view what) {
    ++skipped_lines_;
    if (skipped_.empty()) describe(skipped_, std::string(what) + ", found \"" + excerpt(text) + "\"");
    return false;
  }

  /// False where the text is no capture line, which is counted and described then.
  bool parse_line(std::string_view text) {
    const std::string_view whole = text;
    if (line_number_ == 1 && text.starts_with(kUtf8Mark)) text.remove_prefix(kUtf8Mark.size());
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    Stamp stamp;
    if (!parse_stamp(text, stamp)) return no_line(text);
    // An empty message is a message: what it does to a run it does to the replay.
    if (stamp.size == text.size() || (text[stamp.size] != ' ' && text[stamp.size] != '\t')) {
      return no_line(text);
    }
    text.remove_prefix(stamp.size + 1);
    const bool own = text.starts_with(kOwnLine);
    if (!take_stamp(stamp, own, whole)) return false;

    line_.conn = 0;
    line_.instrument = {};
    line_.limit = 0;
    line_.body = {};
    if (own) {
      return OwnLineParser(text, unescaped_).parse(line_) ||
             skip_line(whole, "not a line of ours, though it begins like one");
    }
    line_.kind = CaptureKind::Message;
    line_.body = {text.data(), text.size()};
    if (ForeignSnapshot snapshot; find_snapshot(text, snapshot)) [[unlikely]]
      take(snapshot);
    return true;
  }

  bool no_line(std::string_view text) {
    if (text.starts_with('{') || text.starts_with('[')) {
      return skip_line(text, "a message without its receive time: expected TIME, a space and a message");
    }
    return skip_line(text, "not a capture line: expected TIME, a space and a message");
  }

  /// What a line's stamp means, by what is known of its file. False where it may not be believed.
  bool take_stamp(const Stamp& stamp, bool own, std::string_view line) {
    StampRule& rule = rules_[file_];
    if (stamp.form == rule.form && stamp.form != StampForm::None && !rule.ours && !own) [[likely]] {
      line_.ts_recv = stamp.ts;
      if (stamp.form != StampForm::Nanoseconds || !stamp.whole) [[unlikely]]
        note_stamps(stamp);
      return true;
    }
    if (own && !rule.ours) {
      if (rule.form != StampForm::None && rule.form != StampForm::Nanoseconds) {
        return skip_line(line, std::string("a line of ours, whose time is in nanoseconds, in a file of ") +
                                   std::string(name_of(rule.form)));
      }
      rule = {StampForm::Nanoseconds, true};
    }
    if (rule.ours) {
      if (!stamp.whole) return skip_line(line, "expected a time in whole nanoseconds, as the lines of ours");
      line_.ts_recv = stamp.as_ns;
      if (stamp.form != StampForm::None && stamp.form != StampForm::Nanoseconds) note_stamps(stamp);
      return true;
    }
    if (stamp.form == StampForm::None) {
      return skip_line(line,
                       "a receive stamp that is plausible in no unit: expected a time between 2000 and 2100");
    }
    if (rule.form == StampForm::None) {
      rule.form = stamp.form;
      line_.ts_recv = stamp.ts;
      if (stamp.form != StampForm::Nanoseconds || !stamp.whole) note_stamps(stamp);
      return true;
    }
    return skip_line(line, std::string("a mixture of units: a receive stamp in ") +
                               std::string(name_of(stamp.form)) + " in a file of " +
                               std::string(name_of(rule.form)));
  }

  /// Once a file: what is not as our own recorder writes it.
  void note_stamps(const Stamp& stamp) {
    if (noted_ == file_ + 1) return;
    noted_ = file_ + 1;
    stamps_.push_back({.file = file(),
                       .form = stamp.form,
                       .as_nanoseconds = rules_[file_].ours,
                       .fractions = !stamp.whole && stamp.form != StampForm::Iso,
                       .no_zone = stamp.no_zone});
  }

  /// Somebody else's snapshot, of the instrument that its stream names, or its wrapper or it itself.
  void take(const ForeignSnapshot& snapshot) {
    line_.body = {snapshot.body.data(), snapshot.body.size()};
    const std::size_t at = snapshot.stream.find('@');
    const bool streamed = at != std::string_view::npos && at != 0;
    const std::string_view name = streamed ? snapshot.stream.substr(0, at) : snapshot.symbol;
    unescaped_.clear();
    if (name.empty() || !unescape_json(name, unescaped_)) {
      line_.kind = CaptureKind::BareSnapshot;
      return;
    }
    // Streams are named in small letters, instruments in capitals.
    for (char& c : unescaped_) {
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    }
    line_.kind = CaptureKind::Snapshot;
    line_.instrument = unescaped_;
  }

  void cut(const char* what) {
    if (!truncated_) describe(error_, what);
    truncated_ = true;
  }

  /// The next line without its line break. False at the end of the last file.
  bool read_line(std::string_view& text) {
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
  bool make_room() {
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
  bool finish_file(std::string_view& text) {
    const std::string_view rest{buffer_.data() + begin_, end_ - begin_};
    if (!rest.empty() || skipping_) ++line_number_;
    const char* const failure = stream_.failure();
    const std::string_view marked =
        line_number_ == 1 && rest.starts_with(kUtf8Mark) ? rest.substr(kUtf8Mark.size()) : rest;
    Stamp stamp;
    const bool whole = !skipping_ && rest.size() <= config_.max_line_bytes && parse_stamp(marked, stamp) &&
                       stamp.size < marked.size() && is_whole_json(marked.substr(stamp.size + 1));
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
  std::vector<StampRule> rules_;  // By file.
  CaptureReaderConfig config_;
  ByteStream stream_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;     // Of the line that is being read.
  std::size_t end_ = 0;       // Of the bytes read.
  std::size_t searched_ = 0;  // No line break between begin_ and here.
  std::size_t file_ = 0;
  bool skipping_ = false;  // The rest of a line that is too long.
  bool finished_ = false;  // The last line of this file has been given.
  std::size_t noted_ = 0;  // The file, from 1, whose stamps were described last.
  std::string unescaped_;  // The instrument of the line at hand, where it is not written as it is.
  CaptureLine line_{};
};

CaptureReader::CaptureReader(std::vector<std::string> paths, CaptureReaderConfig config)
    : impl_(std::make_unique<Impl>(std::move(paths), config)) {}
CaptureReader::~CaptureReader() = default;

const CaptureLine* CaptureReader::next() noexcept {
  try {
    return impl_->next();
  } catch (const std::bad_alloc&) {
    impl_->fail(kNoMemory);
    return nullptr;
  }
}
void CaptureReader::add(std::string_view path) noexcept {
  try {
    impl_->add(std::string(path));
  } catch (const std::bad_alloc&) {
    impl_->fail(kNoMemory);
  }
}
const std::string& CaptureReader::file() const noexcept { return impl_->file(); }
std::uint64_t CaptureReader::line_number() const noexcept { return impl_->line_number_; }
std::uint64_t CaptureReader::skipped_lines() const noexcept { return impl_->skipped_lines_; }
bool CaptureReader::truncated() const noexcept { return impl_->truncated_; }
const std::string& CaptureReader::error() const noexcept {
  return impl_->truncated_ ? impl_->error_ : impl_->skipped_;
}
const std::string& CaptureReader::skipped() const noexcept { return impl_->skipped_; }
const std::vector<CaptureStamps>& CaptureReader::stamps() const noexcept { return impl_->stamps_; }

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
  ForeignSnapshot snapshot;
  if (text.starts_with(kOwnLine) || find_snapshot(text, snapshot)) out.push_back('\t');
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

void format_quiet(std::string& out, TsNs ts, std::uint32_t conn) {
  append_own(out, ts, "quiet", conn);
  out.append("}\n");
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
