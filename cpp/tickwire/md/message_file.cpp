#include "tickwire/md/message_file.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/md/byte_stream.hpp"

namespace tickwire::md {

namespace {

constexpr std::size_t kLengthBytes = 2;
constexpr std::size_t kMaxMessageBytes = 65'535;

}  // namespace

class MessageFile::Impl {
 public:
  Impl(std::vector<std::string> paths, std::size_t block_bytes)
      : paths_(readable_files("input", std::move(paths))),
        buffer_(block_bytes + kLengthBytes + kMaxMessageBytes) {
    if (block_bytes == 0) throw SetupError("block_bytes", "a positive number", "0");
    block_bytes_ = block_bytes;
    error_.reserve(512);
    open_next();
  }

  bool next(std::span<const std::byte>& message) {
    while (file_ < paths_.size()) {
      const std::size_t have = end_ - begin_;
      const std::size_t size = have >= kLengthBytes ? length_at(begin_) : 0;
      if (size != 0 && have >= kLengthBytes + size) [[likely]] {
        message = {reinterpret_cast<const std::byte*>(buffer_.data() + begin_ + kLengthBytes), size};
        begin_ += kLengthBytes + size;
        ++number_;
        return true;
      }
      if (have >= kLengthBytes && size == 0) {
        cut("a length of zero, expected 1 to 65535; what follows is not read");
        leave_file();
        continue;
      }
      if (!fill()) finish_file();
    }
    return false;
  }

  void give_up(const std::string& why) {
    if (!truncated_) error_ = paths_[file_] + ": " + why;
    truncated_ = true;
    leave_file();
  }

  [[nodiscard]] std::span<const std::byte> ahead() const noexcept {
    return {reinterpret_cast<const std::byte*>(buffer_.data() + begin_), end_ - begin_};
  }

  std::size_t file_ = 0;
  std::uint64_t number_ = 0;
  bool truncated_ = false;
  std::string error_;

 private:
  [[nodiscard]] std::size_t length_at(std::size_t at) const noexcept {
    return static_cast<std::size_t>(static_cast<unsigned char>(buffer_[at])) << 8U |
           static_cast<unsigned char>(buffer_[at + 1]);
  }

  /// False at the end of the file.
  bool fill() noexcept {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    moved_ += begin_;
    begin_ = 0;
    const std::size_t got =
        stream_.read(buffer_.data() + end_, std::min(block_bytes_, buffer_.size() - end_));
    end_ += got;
    return got != 0;
  }

  void finish_file() {
    const char* what = stream_.failure();
    if (what == nullptr && begin_ != end_) what = "the file ends in the middle of a message";
    if (what != nullptr) cut(what);
    leave_file();
  }

  void leave_file() {
    ++file_;
    open_next();
  }

  void cut(const char* what) {
    if (!truncated_) {
      error_ = paths_[file_] + ": message " + std::to_string(number_ + 1) + ", at byte " +
               std::to_string(moved_ + begin_) + ": " + what;
    }
    truncated_ = true;
  }

  void open_next() {
    for (; file_ < paths_.size(); ++file_) {
      begin_ = end_ = 0;
      moved_ = 0;
      number_ = 0;
      if (stream_.open(paths_[file_], false)) return;
      cut("cannot be opened any more");
    }
  }

  std::vector<std::string> paths_;
  std::size_t block_bytes_ = 0;
  ByteStream stream_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::uint64_t moved_ = 0;  // Bytes of the file before the buffer's.
};

MessageFile::MessageFile(std::vector<std::string> paths, std::size_t block_bytes)
    : impl_(std::make_unique<Impl>(std::move(paths), block_bytes)) {}
MessageFile::~MessageFile() = default;

bool MessageFile::next(std::span<const std::byte>& message) { return impl_->next(message); }
std::size_t MessageFile::file() const noexcept { return impl_->file_; }
std::uint64_t MessageFile::number() const noexcept { return impl_->number_; }
void MessageFile::give_up(const std::string& why) { impl_->give_up(why); }
std::span<const std::byte> MessageFile::ahead() const noexcept { return impl_->ahead(); }
bool MessageFile::truncated() const noexcept { return impl_->truncated_; }
const std::string& MessageFile::error() const noexcept { return impl_->error_; }

}  // namespace tickwire::md
