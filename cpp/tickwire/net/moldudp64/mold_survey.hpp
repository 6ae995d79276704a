#pragma once

/// Which MoldUDP64 streams a capture of datagrams holds: before a replay follows one of them, because what a
/// port mirror or a tool beside us records is whatever came by.
///
/// A channel is one session on one group and port. Channels are of one stream where they carry the same
/// messages under the same session (A and B lines, unicast copies), or follow each other on one group (the
/// sessions of two days). They are of two where the same session numbers other messages, or where two
/// sessions take turns on one group. One that has less than a tenth of the datagrams of the one that it takes
/// turns with is a stray: no stream of its own, and not used.
///
/// The beginning of the files is read, so many datagrams; what comes first in the rest of them is judged by
/// who replays. Setup only: allocates, and throws SetupError where a file cannot be opened.

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tickwire/core/types.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/net/sequenced/message.hpp"

namespace tickwire::net {

/// A line as the configuration names it.
struct MoldLine {
  md::PcapEndpoint group;
  /// Only datagrams of this sender, whatever its port. Not set: of any.
  std::optional<md::PcapEndpoint> sender{};

  [[nodiscard]] bool takes(const md::PcapDatagram& datagram) const noexcept {
    return datagram.destination == group && (!sender || sender->address == datagram.source.address);
  }
};

struct MoldChannel {
  md::PcapEndpoint group;
  SessionId session;
  md::PcapEndpoint sender;  // Of its first datagram.
  std::uint64_t datagrams = 0;
  std::uint64_t messages = 0;
  std::uint64_t turns = 0;  // Times that it came after another one of its group, the first included.
  TsNs first_ts = 0;
  TsNs last_ts = 0;
  std::uint32_t stream = 0;
  bool stray = false;
};

class MoldSurvey {
 public:
  static constexpr std::uint64_t kDatagrams = 200'000;

  /// With no `lines`, every group counts. `most`: datagrams to look at.
  MoldSurvey(const std::vector<std::string>& files, std::vector<MoldLine> lines,
             std::uint64_t most = kDatagrams);

  /// A capture of our own recorder: nothing in it is to be told apart.
  [[nodiscard]] bool ours() const noexcept { return ours_; }
  /// All of it was read.
  [[nodiscard]] bool whole() const noexcept { return whole_; }
  /// In the order in which they were first heard.
  [[nodiscard]] const std::vector<MoldChannel>& channels() const noexcept { return channels_; }

  /// The stream to follow: of the only one that has messages, the only one at all, or none where nothing was
  /// found yet and there is more to come. Throws SetupError, which names what was found, where there are
  /// several or, in what was read to its end, none; `where` is the feed's key.
  [[nodiscard]] std::optional<std::uint32_t> stream(const std::string& where) const;

  /// Does `later` follow `earlier` on a group that both came by, and not take turns with it? No where too
  /// little of `later` came for that to be shown, as of a stranger's at the capture's end: then it is a
  /// claim, as live.
  [[nodiscard]] bool follows(const SessionId& later, const SessionId& earlier) const noexcept;

 private:
  struct Group {
    md::PcapEndpoint endpoint;
    std::uint64_t datagrams = 0;
    std::uint64_t read = 0;   // As MoldUDP64.
    std::uint64_t taken = 0;  // Of our lines.
    std::string looks_like;
    std::size_t last = 0;  // Its newest channel, plus one.
  };
  /// What is compared of two channels of one session, number by number.
  using Digests = std::unordered_map<std::uint64_t, std::uint64_t>;

  void read(const std::vector<std::string>& files, std::uint64_t most);
  void take(const md::PcapDatagram& datagram, Group& group, const SessionId& session, std::uint64_t sequence,
            std::span<const MessageView> messages);
  Group* group_of(const md::PcapEndpoint& endpoint);
  void tell_apart();
  [[nodiscard]] bool same_messages(std::size_t a, std::size_t b) const;
  [[nodiscard]] bool succeeds(std::size_t later, std::size_t earlier) const;
  [[nodiscard]] std::string text_of_stream(std::uint32_t stream) const;
  [[nodiscard]] std::string text_of_groups() const;
  [[noreturn]] void refuse_none() const;

  const std::vector<MoldLine> lines_;
  std::string name_;  // Of the files, in errors.
  bool ours_ = false;
  bool whole_ = false;
  std::uint64_t datagrams_ = 0;
  std::uint64_t other_groups_ = 0;  // Datagrams of more groups than are kept.
  md::PcapStats packets_;
  std::vector<Group> groups_;
  std::vector<MoldChannel> channels_;
  std::vector<Digests> digests_;
  /// By channel: how many datagrams each channel before it had had when it was first heard.
  std::vector<std::vector<std::uint64_t>> before_;
};

/// `"TICK000001"`, as an error or a report shows a session: without its padding, what is no text escaped.
[[nodiscard]] std::string text_of(const SessionId& session);

}  // namespace tickwire::net
