#include "tickwire/metrics/stat_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace tickwire::metrics {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian and mapped as it is");

constexpr char kMagic[8] = {'T', 'I', 'C', 'K', 'W', 'I', 'R', 'E'};
constexpr std::size_t kLabelBytes = kMaxLabel + 1;
constexpr std::size_t kPayloadOffset = 2 * kLabelBytes;

struct Section {
  std::uint64_t offset;
  std::uint32_t stride;
  std::uint32_t count;
};

enum SectionIndex : std::size_t { kCounters, kHistograms, kErrorLogs, kSectionCount };
constexpr std::array<const char*, kSectionCount> kSectionNames = {"counters", "histograms", "error logs"};

struct Header {
  char magic[8];
  concurrent::Cell<std::uint32_t> version;
  std::uint32_t header_bytes;
  std::uint64_t file_bytes;
  std::int32_t pid;
  std::uint32_t reserved_0;
  std::uint64_t pid_start;
  TsNs start_ts;
  std::uint64_t reserved_1[2];
  Section sections[kSectionCount];
  std::uint32_t buckets;
  std::uint32_t sub_bits;
  std::uint32_t error_kinds;
  std::uint8_t reserved_2[132];
  concurrent::Cell<TsNs> heartbeat_ts;
  concurrent::Cell<TsNs> end_ts;
  std::uint8_t reserved_3[240];
};
static_assert(sizeof(Header) == 512 && offsetof(Header, sections) == 64 && offsetof(Header, buckets) == 112 &&
                  offsetof(Header, heartbeat_ts) == 256,
              "the layout in stat_file.hpp, mirrored in py/tickwire/stat_file.py");

constexpr std::array<std::uint32_t, kSectionCount> kStrides = {256, kPayloadOffset + sizeof(Histogram),
                                                               kPayloadOffset + sizeof(ErrorLog)};
static_assert(kStrides[kHistograms] == 16640 && kStrides[kErrorLogs] == 33024, "the layout in stat_file.hpp");
static_assert(sizeof(Counter) == 8);

/// Version 1, which stays readable: half as many kinds of errors, and of each the first text alone.
constexpr std::uint32_t kOldVersion = 1;
constexpr std::uint32_t kOldKinds = 32;
constexpr std::uint32_t kOldEntryBytes = 256;
constexpr std::uint32_t kOldErrorStride = 256 + kOldKinds * kOldEntryBytes;

/// Of what the error logs of version 1 hold, as a reader of ours sees it.
std::vector<ErrorEntry> old_entries(const std::byte* log) {
  std::vector<ErrorEntry> result;
  for (std::uint32_t kind = 0; kind < kOldKinds; ++kind) {
    const std::byte* const entry = log + 256 + std::size_t{kind} * kOldEntryBytes;
    std::uint64_t count = 0;
    TsNs times[2];
    std::uint32_t bytes = 0;
    std::memcpy(&count, entry, sizeof count);
    std::memcpy(times, entry + 8, sizeof times);
    std::memcpy(&bytes, entry + 24, sizeof bytes);
    if (count == 0) continue;
    const std::string text(reinterpret_cast<const char*>(entry + 32),
                           std::min<std::size_t>(bytes, kOldEntryBytes - 32));
    result.push_back({kind, text, text, times[0], times[1], count});
  }
  return result;
}

Header& header_of(std::byte* data) { return *std::launder(reinterpret_cast<Header*>(data)); }
const Header& header_of(const std::byte* data) {
  return *std::launder(reinterpret_cast<const Header*>(data));
}

std::string text_of(int error) { return std::generic_category().message(error); }

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// Field 22 of /proc/PID/stat; 0 where there is no such process. Counted from behind the last ')',
/// because the second field is a name that may hold anything.
std::uint64_t start_of_process(std::int32_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return 0;
  std::size_t at = line.rfind(')');
  if (at == std::string::npos) return 0;
  ++at;
  for (int field = 2; field < 21; ++field) {
    at = line.find(' ', at + 1);
    if (at == std::string::npos) return 0;
  }
  return std::strtoull(line.c_str() + at, nullptr, 10);
}

/// A descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

void require_private_directory(const std::string& path) {
  const std::string directory = directory_of(path);
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    throw SetupError("stat file " + path, "a directory that exists or can be created", text_of(errno));
  }
  struct stat link{};
  struct stat info{};
  if (::lstat(directory.c_str(), &link) != 0 || ::stat(directory.c_str(), &info) != 0) {
    throw SetupError("stat file " + path, "a directory that can be read", text_of(errno));
  }
  // A link of somebody else's leads wherever they want, also after we have looked.
  const bool led = S_ISLNK(link.st_mode) && link.st_uid != ::geteuid() && link.st_uid != 0;
  if (led || !S_ISDIR(info.st_mode) || info.st_uid != ::geteuid() || (info.st_mode & 022U) != 0) {
    char found[96];
    std::snprintf(found, sizeof found, "%s of owner %u, mode %03o", led ? "a link" : "one",
                  static_cast<unsigned>(led ? link.st_uid : info.st_uid),
                  static_cast<unsigned>(info.st_mode & 07777U));
    throw SetupError("stat file " + path,
                     "a directory that belongs to this user and that nobody else can write (chmod go-w " +
                         directory + ", or another place: engine.stat_path)",
                     found);
  }
}

/// Refuses to put our file where another engine runs, or over something that is not ours.
void require_replaceable(const std::string& path) {
  const Fd old(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!old) {
    if (errno == ENOENT) return;
    throw SetupError("stat file " + path, "a path that is free or a stat file", text_of(errno));
  }
  std::array<std::byte, sizeof(Header)> bytes{};
  const ssize_t got = ::pread(old.get(), bytes.data(), bytes.size(), 0);
  if (got != static_cast<ssize_t>(bytes.size()) || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    throw SetupError("stat file " + path, "a path that is free or a stat file", "another file");
  }
  if (::flock(old.get(), LOCK_EX | LOCK_NB) != 0) {
    std::int32_t pid = 0;
    std::memcpy(&pid, bytes.data() + offsetof(Header, pid), sizeof pid);
    throw SetupError("stat file " + path, "a path that no running engine uses",
                     "in use by pid " + std::to_string(pid));
  }
}

void copy_label(char* to, std::string_view label) {
  if (label.size() > kMaxLabel || label.find('\0') != std::string_view::npos) {
    throw SetupError("stat file label", "at most " + std::to_string(kMaxLabel) + " bytes, none of them zero",
                     '"' + std::string(label) + '"');
  }
  std::copy(label.begin(), label.end(), to);
}

std::string label_at(const std::byte* at) {
  const char* const text = reinterpret_cast<const char*>(at);
  return {text, ::strnlen(text, kMaxLabel)};
}

struct Mapped {
  std::byte* data;
  std::size_t bytes;
};

/// Maps a complete stat file of our version; throws SetupError where it is none.
/// `kept`: where its descriptor goes, which is the caller's to close.
Mapped map_published(const std::string& path, int open_flags, int protection, int* kept = nullptr) {
  const auto refuse = [&](const std::string& expected, const std::string& found) {
    throw SetupError("stat file " + path, expected, found);
  };
  const Fd fd(::open(path.c_str(), open_flags | O_CLOEXEC | O_NONBLOCK));
  if (!fd) refuse("a file that can be read", text_of(errno));
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) refuse("a regular file", "something else");
  const auto bytes = static_cast<std::size_t>(info.st_size);
  if (bytes < sizeof(Header)) refuse("a stat file", "a file of " + std::to_string(bytes) + " bytes");
  void* const mapping = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd.get(), 0);
  if (mapping == MAP_FAILED) refuse("a file that can be mapped", text_of(errno));
  auto* const data = static_cast<std::byte*>(mapping);

  const auto check = [&] {
    const Header& header = header_of(static_cast<const std::byte*>(data));
    if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) refuse("a stat file", "another file");
    const std::uint32_t version = header.version.observe();
    if (version == 0) refuse("a complete stat file", "one that is still being made, or whose maker died");
    const bool old = version == kOldVersion && protection == PROT_READ;
    if (version != kStatVersion && !old) {
      refuse("version " + std::to_string(kStatVersion), "version " + std::to_string(version));
    }
    bool sound = header.header_bytes == sizeof(Header) && header.file_bytes == bytes &&
                 header.buckets == Buckets::kCount && header.sub_bits == Buckets::kSubBits &&
                 header.error_kinds == (old ? kOldKinds : ErrorLog::kKinds);
    for (std::size_t i = 0; i < kSectionCount; ++i) {
      const Section& section = header.sections[i];
      const std::uint32_t stride = old && i == kErrorLogs ? kOldErrorStride : kStrides[i];
      sound = sound && section.stride == stride && section.offset <= bytes && section.offset % 64 == 0 &&
              std::uint64_t{section.count} * section.stride <= bytes - section.offset;
    }
    if (!sound) refuse("sections that lie within the file", "a damaged file");
  };
  try {
    check();
  } catch (...) {
    ::munmap(mapping, bytes);
    throw;
  }
  if (kept != nullptr) *kept = ::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0);
  return {data, bytes};
}

}  // namespace

namespace {

/// engine-PID-N.stat: what follows it, "", ".XXXXXX" of one that is being made, or ".control".
std::optional<std::string_view> after_automatic_name(std::string_view name) noexcept {
  const auto text = [&](std::string_view expected) {
    if (!name.starts_with(expected)) return false;
    name.remove_prefix(expected.size());
    return true;
  };
  const auto digits = [&] {
    const std::size_t count = std::min(name.find_first_not_of("0123456789"), name.size());
    name.remove_prefix(count);
    return count != 0;
  };
  if (!text("engine-") || !digits() || !text("-") || !digits() || !text(".stat")) return std::nullopt;
  if (name.empty() || name == ".control" || (name.size() == 7 && name[0] == '.')) return name;
  return std::nullopt;
}

/// Deletes the file at `path` where no engine holds it.
void remove_dead_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat ours{};
  struct stat there{};
  if (!fd || ::fstat(fd.get(), &ours) != 0 || !S_ISREG(ours.st_mode) || ours.st_uid != ::geteuid()) return;
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return;
  // Held while it is deleted: whoever makes one of this name looks whether its own was.
  if (::lstat(path.c_str(), &there) != 0 || there.st_dev != ours.st_dev || there.st_ino != ours.st_ino)
    return;
  ::unlink(path.c_str());
}

/// Deletes a control socket where nobody listens.
void remove_dead_socket(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode) || info.st_uid != ::geteuid()) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return;
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return;
  if (errno == ECONNREFUSED) ::unlink(path.c_str());
}

}  // namespace

void remove_dead_stat_files(const std::string& directory) noexcept try {
  DIR* const open = ::opendir(directory.c_str());
  if (open == nullptr) return;
  std::vector<std::string> names;
  while (const dirent* const entry = ::readdir(open)) names.emplace_back(entry->d_name);
  ::closedir(open);
  // Sockets last: a living engine's has its statistics file beside it.
  for (const bool sockets : {false, true}) {
    for (const std::string& name : names) {
      const std::optional<std::string_view> rest = after_automatic_name(name);
      if (!rest || (*rest == ".control") != sockets) continue;
      const std::string path = directory + "/" + name;
      if (!sockets) {
        remove_dead_file(path);
      } else if (::access(path.substr(0, path.rfind('.')).c_str(), F_OK) != 0) {
        remove_dead_socket(path);
      }
    }
  }
} catch (const std::exception&) {  // No memory: whoever comes next clears it.
}

std::string default_stat_directory() {
  // A folder of this user's that nobody else can write, no link to one; or no folder yet.
  const auto usable = [](const std::string& directory) {
    struct stat info{};
    if (::lstat(directory.c_str(), &info) != 0) return errno == ENOENT;
    return S_ISDIR(info.st_mode) && info.st_uid == ::geteuid() && (info.st_mode & 022U) == 0;
  };
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  struct stat info{};
  if (runtime != nullptr && *runtime == '/' && ::stat(runtime, &info) == 0 && info.st_uid == ::geteuid()) {
    if (const std::string place = std::string(runtime) + "/tickwire"; usable(place)) return place;
  }
  // Anybody may have made a folder of our name there; then it is another one, and no reason not to start.
  const std::string first = "/dev/shm/tickwire-" + std::to_string(::geteuid());
  for (int i = 0; i < kStatDirectories; ++i) {
    const std::string place = i == 0 ? first : first + '-' + std::to_string(i);
    if (usable(place)) return place;
  }
  return first;  // Refused, with what is wrong with it, by whoever makes a file there.
}

std::unique_ptr<StatFile> StatFile::create(const std::string& path, StatCapacity capacity) {
  std::unique_ptr<StatFile> file(new StatFile);
  file->capacity_ = capacity;
  const std::array<std::uint64_t, kSectionCount> counts = {capacity.counters, capacity.histograms,
                                                           capacity.error_logs};
  std::array<Section, kSectionCount> sections{};
  std::uint64_t end = sizeof(Header);
  for (std::size_t i = 0; i < kSectionCount; ++i) {
    sections[i] = Section{end, kStrides[i], 0};
    end += counts[i] * kStrides[i];
  }
  file->open(path, end);

  Header& header = *::new (static_cast<void*>(file->data_)) Header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.header_bytes = sizeof(Header);
  header.file_bytes = end;
  header.pid = ::getpid();
  header.pid_start = start_of_process(header.pid);
  header.start_ts = read_utc();
  std::copy(sections.begin(), sections.end(), header.sections);
  header.buckets = Buckets::kCount;
  header.sub_bits = Buckets::kSubBits;
  header.error_kinds = ErrorLog::kKinds;
  header.heartbeat_ts.store(header.start_ts);
  return file;
}

void StatFile::open(const std::string& path, std::size_t bytes) {
  int flags = MAP_SHARED;
  if (path.empty()) {
    in_memory_ = true;
    fd_ = ::memfd_create("tickwire-stat", MFD_CLOEXEC);
    if (fd_ >= 0 && ::ftruncate(fd_, static_cast<off_t>(bytes)) == 0) {
      path_ = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_);
    } else {
      flags |= MAP_ANONYMOUS;
    }
  } else {
    require_private_directory(path);
    require_replaceable(path);
    path_ = path;
    // Until it is locked nobody can tell it from what a dead engine left, and somebody may just clear that.
    for (bool ours = false; !ours;) {
      if (fd_ >= 0) ::close(fd_);
      temporary_ = path + ".XXXXXX";
      fd_ = ::mkostemp(temporary_.data(), O_CLOEXEC);  // Makes it 0600.
      if (fd_ < 0) {
        const int error = errno;
        temporary_.clear();
        throw SetupError("stat file " + path, "a file that can be created", text_of(error));
      }
      struct stat info{};
      const bool taken = ::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
      ours = ::fstat(fd_, &info) != 0 || (info.st_nlink != 0 && !taken);
    }
    // Reserves the space: a full tmpfs is an error here instead of a SIGBUS at some later write.
    const int error = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
    if (error != 0)
      throw SetupError("stat file " + path, std::to_string(bytes) + " bytes of space", text_of(error));
  }
  void* const mapping = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, path_.empty() ? -1 : fd_, 0);
  if (mapping == MAP_FAILED) {
    throw SetupError("stat file " + path, std::to_string(bytes) + " bytes to map", text_of(errno));
  }
  data_ = static_cast<std::byte*>(mapping);
  bytes_ = bytes;
  if (::madvise(data_, bytes_, MADV_POPULATE_WRITE) != 0) std::memset(data_, 0, bytes_);
  if (fd_ >= 0) guard_.emplace(data_, bytes_);
  locked_in_memory_ = ::mlock(data_, bytes_) == 0;
}

std::unique_ptr<StatFile> StatFile::attach(const std::string& path) {
  std::unique_ptr<StatFile> file(new StatFile);
  const Mapped mapped = map_published(path, O_RDWR, PROT_READ | PROT_WRITE);
  file->data_ = mapped.data;
  file->bytes_ = mapped.bytes;
  file->guard_.emplace(file->data_, file->bytes_);
  file->path_ = path;
  file->attached_ = true;
  file->published_ = true;
  // Into our page table before the data plane writes there; an older kernel does so at the first access.
  ::madvise(file->data_, file->bytes_, MADV_POPULATE_WRITE);
  return file;
}

bool StatFile::in_use(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  return fd && ::flock(fd.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

StatFile::~StatFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  guard_.reset();
  if (data_ != nullptr) ::munmap(data_, bytes_);
  if (fd_ >= 0) ::close(fd_);
}

std::byte* StatFile::add_record(std::size_t index, std::string_view scope, std::string_view name) {
  if (published_) throw std::logic_error("StatFile: a record is added after publish()");
  const std::array<std::uint32_t, kSectionCount> capacities = {capacity_.counters, capacity_.histograms,
                                                               capacity_.error_logs};
  std::array<char, 2 * kLabelBytes> label{};
  copy_label(label.data(), scope);
  copy_label(label.data() + kLabelBytes, name);
  Section& section = header_of(data_).sections[index];
  std::byte* const first = data_ + section.offset;
  const auto kind = static_cast<char>('0' + index);
  if (!labels_.insert(kind + std::string(label.data(), label.size())).second) {
    throw std::logic_error("StatFile: two " + std::string(kSectionNames[index]) + " named " +
                           std::string(scope) + '/' + std::string(name));
  }
  if (section.count == capacities[index]) {
    throw std::logic_error("StatFile: no room for more than " + std::to_string(section.count) + ' ' +
                           kSectionNames[index]);
  }
  std::byte* const record = first + std::size_t{section.count} * section.stride;
  std::memcpy(record, label.data(), label.size());
  ++section.count;
  return record + kPayloadOffset;
}

std::byte* StatFile::find_record(std::size_t index, std::string_view scope, std::string_view name) const {
  std::array<char, 2 * kLabelBytes> label{};
  copy_label(label.data(), scope);
  copy_label(label.data() + kLabelBytes, name);
  const Section& section = header_of(data_).sections[index];
  for (std::uint32_t i = 0; i < section.count; ++i) {
    std::byte* const found = data_ + section.offset + std::size_t{i} * section.stride;
    if (std::memcmp(found, label.data(), label.size()) == 0) return found + kPayloadOffset;
  }
  throw SetupError("stat file " + path_,
                   std::string(scope) + '/' + std::string(name) + " among the " + kSectionNames[index],
                   "none: this file is of another version's engine");
}

template <typename T>
T& StatFile::record(std::size_t index, std::string_view scope, std::string_view name) {
  if (attached_) return *std::launder(reinterpret_cast<T*>(find_record(index, scope, name)));
  return *::new (static_cast<void*>(add_record(index, scope, name))) T;
}

Counter& StatFile::counter(std::string_view scope, std::string_view name) {
  return record<Counter>(kCounters, scope, name);
}

Histogram& StatFile::histogram(std::string_view scope, std::string_view stage) {
  return record<Histogram>(kHistograms, scope, stage);
}

ErrorLog& StatFile::error_log(std::string_view scope) { return record<ErrorLog>(kErrorLogs, scope, {}); }

void StatFile::publish() {
  if (published_) throw std::logic_error("StatFile: publish() a second time");
  published_ = true;
  labels_ = {};
  header_of(data_).version.publish(kStatVersion);
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw SetupError("stat file " + path_, "a path that can be written", text_of(errno));
  }
  temporary_.clear();
}

void StatFile::heartbeat(TsNs ts) noexcept TICKWIRE_HOT {
  std::launder(reinterpret_cast<Header*>(data_))->heartbeat_ts.store(ts);
}

void StatFile::end(TsNs ts) noexcept { header_of(data_).end_ts.publish(ts); }

void StatFile::remove() noexcept {
  if (fd_ < 0 || in_memory_ || !temporary_.empty()) return;
  struct stat ours{};
  struct stat there{};
  if (::fstat(fd_, &ours) != 0 || ::stat(path_.c_str(), &there) != 0) return;
  if (ours.st_dev == there.st_dev && ours.st_ino == there.st_ino) ::unlink(path_.c_str());
}

std::uint64_t StatFile::bytes_missing() const noexcept {
  struct stat info{};
  const std::uint64_t replaced =
      guard_ ? guard_->replaced() * static_cast<std::uint64_t>(::getpagesize()) : 0;
  if (fd_ < 0 || ::fstat(fd_, &info) != 0) return replaced;
  const auto there = static_cast<std::uint64_t>(info.st_size);
  return std::max(replaced, there < bytes_ ? bytes_ - there : 0);
}

std::string StatFile::report_line() const {
  char size[32];
  std::snprintf(size, sizeof size, "%.1f MiB", static_cast<double>(bytes_) / 1048576.0);
  return "stat file: " + (in_memory_ ? std::string("in memory") : path_) + ", " + size +
         (locked_in_memory_ ? ", locked" : ", not locked (the limit for locked memory)");
}

StatReader::StatReader(const std::string& path) : path_(path) {
  const Mapped mapped = map_published(path, O_RDONLY, PROT_READ, &fd_);
  data_ = mapped.data;
  bytes_ = mapped.bytes;
  guard_.emplace(mapped.data, bytes_);
}

StatReader::~StatReader() {
  guard_.reset();
  ::munmap(const_cast<std::byte*>(data_), bytes_);
  if (fd_ >= 0) ::close(fd_);
}

void StatReader::refuse_cut() const {
  struct stat info{};
  const bool whole = ::fstat(fd_, &info) == 0 && static_cast<std::size_t>(info.st_size) >= bytes_;
  if (whole && guard_->replaced() == 0) return;
  throw SetupError("stat file " + path_, "the " + std::to_string(bytes_) + " bytes that it had",
                   std::to_string(info.st_size) + ": somebody has cut it short");
}

std::int32_t StatReader::pid() const noexcept { return header_of(data_).pid; }
TsNs StatReader::start_ts() const noexcept { return header_of(data_).start_ts; }
TsNs StatReader::heartbeat_ts() const noexcept { return header_of(data_).heartbeat_ts.load(); }
TsNs StatReader::end_ts() const noexcept { return header_of(data_).end_ts.observe(); }

bool StatReader::writer_alive() const {
  const Header& header = header_of(data_);
  const std::uint64_t start = start_of_process(header.pid);
  return start != 0 && start == header.pid_start;
}

std::vector<CounterReading> StatReader::counters() const {
  std::vector<CounterReading> result;
  const Section& section = header_of(data_).sections[kCounters];
  for (std::uint32_t i = 0; i < section.count; ++i) {
    const std::byte* const record = data_ + section.offset + std::size_t{i} * section.stride;
    const auto* const counter = std::launder(reinterpret_cast<const Counter*>(record + kPayloadOffset));
    result.push_back({label_at(record), label_at(record + kLabelBytes), counter->value()});
  }
  refuse_cut();
  return result;
}

std::vector<HistogramReading> StatReader::histograms() const {
  std::vector<HistogramReading> result;
  const Section& section = header_of(data_).sections[kHistograms];
  for (std::uint32_t i = 0; i < section.count; ++i) {
    const std::byte* const record = data_ + section.offset + std::size_t{i} * section.stride;
    const auto* const histogram = std::launder(reinterpret_cast<const Histogram*>(record + kPayloadOffset));
    result.push_back({label_at(record), label_at(record + kLabelBytes), histogram->snapshot()});
  }
  refuse_cut();
  return result;
}

std::vector<ErrorReading> StatReader::error_logs() const {
  std::vector<ErrorReading> result;
  const Section& section = header_of(data_).sections[kErrorLogs];
  for (std::uint32_t i = 0; i < section.count; ++i) {
    const std::byte* const record = data_ + section.offset + std::size_t{i} * section.stride;
    if (header_of(data_).version.load() == kOldVersion) {
      std::uint64_t lost = 0;
      std::memcpy(&lost, record + kPayloadOffset, sizeof lost);
      result.push_back({label_at(record), old_entries(record), lost});
      continue;
    }
    const auto* const log = std::launder(reinterpret_cast<const ErrorLog*>(record + kPayloadOffset));
    result.push_back({label_at(record), log->entries(), log->lost()});
  }
  refuse_cut();
  return result;
}

}  // namespace tickwire::metrics
