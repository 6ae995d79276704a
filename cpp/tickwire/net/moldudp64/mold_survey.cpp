#include "tickwire/net/moldudp64/mold_survey.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <string_view>
#include <utility>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/md/stream_note.hpp"
#include "tickwire/net/moldudp64/mold_packet.hpp"

namespace tickwire::net {
namespace {

constexpr std::size_t kMostDatagramBytes = 65'507;
constexpr std::size_t kMostGroups = 256;
constexpr std::size_t kMostChannels = 256;
constexpr std::size_t kMostDigests = 65'536;  // Of one channel.
constexpr std::size_t kMostNamed = 8;
/// Datagrams that may be overtaken where one session follows another on one group.
constexpr std::uint64_t kOvertaken = 2;
/// Turns from which on two sessions of one group are two streams, and not one that returns.
constexpr std::uint64_t kTurns = 3;
/// So many times fewer datagrams make a stray.
constexpr std::uint64_t kStray = 10;
/// So many datagrams of a session, for each of the one before that came among them and for its own first,
/// show that the one before is over. Fewer, as at a capture's end, may be anybody's.
constexpr std::uint64_t kShown = 5;

/// 3250 as 3,250.
std::string grouped(std::uint64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t at = 0; at < digits.size(); ++at) {
    if (at != 0 && (digits.size() - at) % 3 == 0) text += ',';
    text += digits[at];
  }
  return text;
}

std::uint64_t digest(MessageView message) {  // FNV-1a.
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char byte : message) hash = (hash ^ static_cast<std::uint8_t>(byte)) * 0x100000001B3U;
  return hash;
}

/// Is it what a venue may call a session? What else reads as a packet by chance hardly is.
bool is_session(const SessionId& session) {
  const bool is_text =
      std::all_of(session.begin(), session.end(), [](char c) { return c >= ' ' && c <= '~'; });
  return is_text || std::all_of(session.begin(), session.end(), [](char c) { return c == '\0'; });
}

static_assert(std::endian::native == std::endian::little, "read as they lie");
template <typename T>
T little_endian(std::span<const char> bytes, std::size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

/// What else the datagram may be; empty where nobody knows.
std::string_view looks_like(std::span<const char> payload) {
  // IEX-TP: version 1, a reserved byte, a protocol above 0x8000, and its own length behind 40 bytes of head.
  if (payload.size() >= 40 && payload[0] == 1 && payload[1] == 0 &&
      (little_endian<std::uint16_t>(payload, 2) & 0xFF00U) == 0x8000U &&
      little_endian<std::uint16_t>(payload, 12) == payload.size() - 40) {
    return "IEX-TP";
  }
  // CME MDP 3.0: a number, a time in nanoseconds from 2000 to 2100, then messages behind their lengths.
  constexpr std::uint64_t kYear2000 = 946'684'800'000'000'000;
  constexpr std::uint64_t kYear2100 = 4'102'444'800'000'000'000;
  if (payload.size() >= 22) {
    const auto sent = little_endian<std::uint64_t>(payload, 4);
    const auto bytes = little_endian<std::uint16_t>(payload, 12);
    if (sent > kYear2000 && sent < kYear2100 && bytes >= 10 && bytes <= payload.size() - 12) {
      return "CME MDP 3.0";
    }
  }
  const bool is_text = payload.size() > 1 && std::all_of(payload.begin(), payload.end(), [](char c) {
                         return (c >= ' ' && c <= '~') || c == '\n' || c == '\r' || c == '\t';
                       });
  return is_text ? "text" : "";
}

void add(md::PcapStats& all, const md::PcapStats& one) {
  all.packets += one.packets;
  all.datagrams += one.datagrams;
  all.other += one.other;
  all.tcp += one.tcp;
  all.fragments += one.fragments;
  all.cut += one.cut;
  all.malformed += one.malformed;
}

}  // namespace

std::string text_of(const SessionId& session) {
  std::size_t size = session.size();
  while (size != 0 && session[size - 1] == ' ') --size;
  std::size_t begin = 0;
  while (begin < size && session[begin] == ' ') ++begin;
  std::string out = "\"";
  for (; begin < size; ++begin) {
    const char c = session[begin];
    if (c >= ' ' && c <= '~' && c != '"' && c != '\\') {
      out += c;
    } else {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const auto byte = static_cast<std::uint8_t>(c);
      out += {'\\', 'x', kDigits[byte >> 4U], kDigits[byte & 15U]};
    }
  }
  return out + '"';
}

MoldSurvey::MoldSurvey(const std::vector<std::string>& files, std::vector<MoldLine> lines, std::uint64_t most)
    : lines_(std::move(lines)) {
  if (!files.empty()) name_ = files.front();
  if (files.size() > 1) name_ += " and " + std::to_string(files.size() - 1) + " more";
  read(files, most);
  if (!ours_) tell_apart();
  digests_.clear();
}

void MoldSurvey::read(const std::vector<std::string>& files, std::uint64_t most) {
  Arena arena;
  MoldParser parser(kMostDatagramBytes, arena);
  for (const std::string& file : files) {
    md::PcapReader reader(file);
    md::PcapDatagram datagram;
    while (reader.next(datagram)) {
      md::StreamNote note{};
      if (datagrams_ == 0 && datagram.source.port == 0 && datagram.destination.port == 0 &&
          md::parse_stream_note({datagram.payload.data(), datagram.payload.size()}, note)) {
        ours_ = true;
        return;
      }
      if (datagrams_++ == most) return;
      Group* const group = group_of(datagram.destination);
      if (group == nullptr) continue;
      ++group->datagrams;
      MoldPacket packet;
      // The first message of a session has number 1.
      const bool is_read = parser.parse(datagram.payload, packet) == MoldError::None &&
                           (packet.kind != MoldKind::Data || packet.sequence != 0);
      if (!is_read && group->looks_like.empty()) group->looks_like = looks_like(datagram.payload);
      if (!is_read || !is_session(packet.session)) continue;
      ++group->read;
      const bool ours =
          lines_.empty() || std::any_of(lines_.begin(), lines_.end(),
                                        [&](const MoldLine& line) { return line.takes(datagram); });
      if (!ours) continue;
      ++group->taken;
      take(datagram, *group, packet.session, packet.sequence, packet.messages);
    }
    add(packets_, reader.stats());
  }
  whole_ = true;
}

MoldSurvey::Group* MoldSurvey::group_of(const md::PcapEndpoint& endpoint) {
  const auto found = std::find_if(groups_.begin(), groups_.end(),
                                  [&](const Group& group) { return group.endpoint == endpoint; });
  if (found != groups_.end()) return &*found;
  if (groups_.size() == kMostGroups) {
    ++other_groups_;
    return nullptr;
  }
  groups_.push_back({.endpoint = endpoint, .looks_like = {}});
  return &groups_.back();
}

void MoldSurvey::take(const md::PcapDatagram& datagram, Group& group, const SessionId& session,
                      std::uint64_t sequence, std::span<const MessageView> messages) {
  const auto found = std::find_if(channels_.begin(), channels_.end(), [&](const MoldChannel& channel) {
    return channel.group == group.endpoint && channel.session == session;
  });
  const auto number = static_cast<std::size_t>(found - channels_.begin());
  if (found == channels_.end()) {
    if (channels_.size() == kMostChannels) return;
    std::vector<std::uint64_t> before;
    for (const MoldChannel& channel : channels_) before.push_back(channel.datagrams);
    before_.push_back(std::move(before));
    digests_.emplace_back();
    channels_.push_back({.group = group.endpoint,
                         .session = session,
                         .sender = datagram.source,
                         .first_ts = datagram.ts,
                         .last_ts = datagram.ts});
  }
  MoldChannel& channel = channels_[number];
  ++channel.datagrams;
  channel.messages += messages.size();
  channel.last_ts = std::max(channel.last_ts, datagram.ts);
  if (std::exchange(group.last, number + 1) != number + 1) ++channel.turns;
  Digests& digests = digests_[number];
  for (const MessageView& message : messages) {
    if (digests.size() < kMostDigests) digests.emplace(sequence, digest(message));
    ++sequence;
  }
}

/// Of two channels of one session: do they number the same messages, as far as both have them?
bool MoldSurvey::same_messages(std::size_t a, std::size_t b) const {
  std::size_t same = 0;
  std::size_t other = 0;
  for (const auto& [number, hash] : digests_[a]) {
    const auto found = digests_[b].find(number);
    if (found != digests_[b].end()) ++(found->second == hash ? same : other);
  }
  return other <= same;
}

/// Of two channels of one group, the one first heard later given first.
bool MoldSurvey::succeeds(std::size_t later, std::size_t earlier) const {
  return channels_[earlier].datagrams - before_[later][earlier] <= kOvertaken;
}

bool MoldSurvey::follows(const SessionId& later, const SessionId& earlier) const noexcept {
  for (std::size_t b = 0; b < channels_.size(); ++b) {
    if (channels_[b].session != later) continue;
    for (std::size_t a = 0; a < b; ++a) {
      if (channels_[a].session != earlier || channels_[a].group != channels_[b].group) continue;
      const std::uint64_t overtaken = channels_[a].datagrams - before_[b][a];
      const bool is_shown = channels_[b].datagrams >= kShown * (1 + overtaken) &&
                            channels_[b].datagrams * kStray >= channels_[a].datagrams;
      if (succeeds(b, a) && is_shown) return true;
    }
  }
  return false;
}

void MoldSurvey::tell_apart() {
  const std::size_t count = channels_.size();
  const auto each_pair = [&](auto visit) {
    for (std::size_t b = 0; b < count; ++b) {
      for (std::size_t a = 0; a < b; ++a) visit(a, b);
    }
  };
  const auto takes_turns = [&](std::size_t a, std::size_t b) {
    return channels_[a].group == channels_[b].group && !succeeds(b, a) && channels_[a].turns >= kTurns &&
           channels_[b].turns >= kTurns;
  };
  each_pair([&](std::size_t a, std::size_t b) {
    if (!takes_turns(a, b)) return;
    if (channels_[a].datagrams * kStray < channels_[b].datagrams) channels_[a].stray = true;
    if (channels_[b].datagrams * kStray < channels_[a].datagrams) channels_[b].stray = true;
  });

  std::vector<std::uint32_t> parent(count);
  std::iota(parent.begin(), parent.end(), 0U);
  const auto root = [&](std::size_t at) {
    while (parent[at] != at) at = parent[at];
    return static_cast<std::uint32_t>(at);
  };
  each_pair([&](std::size_t a, std::size_t b) {
    const MoldChannel& one = channels_[a];
    const MoldChannel& other = channels_[b];
    if (one.stray || other.stray) return;
    // Lines that the configuration names together may have heard one session each.
    const bool apart = one.last_ts < other.first_ts || other.last_ts < one.first_ts;
    const bool together = one.session == other.session ? same_messages(a, b)
                          : one.group == other.group   ? !takes_turns(a, b)
                                                       : !lines_.empty() && apart;
    if (together) parent[root(b)] = root(a);
  });
  for (std::size_t i = 0; i < count; ++i) channels_[i].stream = root(i);
}

std::optional<std::uint32_t> MoldSurvey::stream(const std::string& where) const {
  std::vector<std::uint32_t> all;
  std::vector<std::uint32_t> with_messages;
  const auto note = [](std::vector<std::uint32_t>& streams, std::uint32_t stream) {
    if (std::find(streams.begin(), streams.end(), stream) == streams.end()) streams.push_back(stream);
  };
  for (const MoldChannel& channel : channels_) {
    if (channel.stray) continue;
    note(all, channel.stream);
    if (channel.messages != 0) note(with_messages, channel.stream);
  }
  const std::vector<std::uint32_t>& streams = with_messages.empty() ? all : with_messages;
  if (streams.size() == 1) return streams.front();
  if (streams.empty()) {
    if (whole_) refuse_none();
    return std::nullopt;
  }

  std::string text = where + ".multicast.lines: expected " +
                     (lines_.empty() ? "the lines of one stream, because " : "lines of one stream, but ") +
                     name_ + " holds " + std::to_string(streams.size()) + " of MoldUDP64" +
                     (lines_.empty() ? "" : " on them") + ": ";
  for (std::size_t i = 0; i < streams.size() && i < kMostNamed; ++i) {
    text += (i == 0 ? "" : "; ") + text_of_stream(streams[i]);
  }
  if (streams.size() > kMostNamed) text += "; and " + std::to_string(streams.size() - kMostNamed) + " more";
  const MoldChannel& first =
      *std::find_if(channels_.begin(), channels_.end(),
                    [&](const MoldChannel& channel) { return channel.stream == streams.front(); });
  const MoldChannel* shared = nullptr;
  for (const MoldChannel& channel : channels_) {
    if (channel.stream != first.stream && !channel.stray && channel.group == first.group) shared = &channel;
  }
  if (shared == nullptr) {
    text += ". Name one stream's, as in lines = [\"" + md::text_of(first.group) + "\"]";
  } else if (shared->sender.address != first.sender.address) {
    std::string sender = md::text_of(first.sender);
    sender.resize(sender.rfind(':'));
    text += ". They share a group: name a line's sender too, as in lines = [{address = \"" +
            md::text_of(first.group) + "\", source_address = \"" + sender + "\"}]";
  } else {
    text += ". They share a group and a sender: only a capture that holds one of them can be replayed";
  }
  throw SetupError(text);
}

std::string MoldSurvey::text_of_stream(std::uint32_t stream) const {
  std::vector<std::string> sessions;
  std::vector<std::string> groups;
  std::uint64_t datagrams = 0;
  for (const MoldChannel& channel : channels_) {
    if (channel.stream != stream || channel.stray) continue;
    const auto note = [](std::vector<std::string>& texts, std::string text) {
      if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(std::move(text));
    };
    note(sessions, text_of(channel.session));
    note(groups, md::text_of(channel.group));
    datagrams += channel.datagrams;
  }
  const auto joined = [](const std::vector<std::string>& texts) {
    std::string out;
    for (std::size_t i = 0; i < texts.size() && i < kMostNamed; ++i) out += (i == 0 ? "" : ", ") + texts[i];
    return texts.size() > kMostNamed ? out + ", …" : out;
  };
  return "session " + joined(sessions) + " on " + joined(groups) + " (" + grouped(datagrams) + " datagrams)";
}

std::string MoldSurvey::text_of_groups() const {
  std::vector<const Group*> groups;
  for (const Group& group : groups_) groups.push_back(&group);
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group* a, const Group* b) { return a->datagrams > b->datagrams; });
  std::string text;
  for (std::size_t i = 0; i < groups.size() && i < kMostNamed; ++i) {
    const Group& group = *groups[i];
    text += (i == 0 ? "" : ", ") + grouped(group.datagrams) + " to " + md::text_of(group.endpoint);
    if (group.read == 0 && !group.looks_like.empty()) text += " (they look like " + group.looks_like + ')';
    if (group.read != 0) text += " (" + grouped(group.read) + " of them MoldUDP64)";
  }
  if (groups.size() > kMostNamed) {
    text += " and others to " + std::to_string(groups.size() - kMostNamed) + " more addresses";
  }
  return text;
}

void MoldSurvey::refuse_none() const {
  std::string expected =
      "datagrams of MoldUDP64 (a session of ten characters, a number and a count, then messages "
      "behind their lengths)";
  if (!lines_.empty()) {
    expected += " to ";
    for (std::size_t i = 0; i < lines_.size(); ++i)
      expected += (i == 0 ? "" : " or ") + md::text_of(lines_[i].group);
    expected += ", as multicast.lines says";
    if (std::any_of(lines_.begin(), lines_.end(),
                    [](const MoldLine& line) { return line.sender.has_value(); })) {
      expected += " and of the senders it names";
    }
  }
  std::string found =
      datagrams_ == 0 ? "no datagram" : "none in " + grouped(datagrams_) + ": " + text_of_groups();
  if (datagrams_ == 0 && packets_.packets == 0) found = "no packet";
  if (packets_.tcp != 0) {
    found += "; " + grouped(packets_.tcp) +
             " packets are of TCP, as of SoupBinTCP, whose messages are not read from packets";
  }
  if (const std::uint64_t cut = packets_.cut + packets_.fragments; cut != 0) {
    found += "; " + grouped(cut) + " packets hold less than their datagram";
  }
  if (packets_.malformed != 0)
    found += "; the lengths of " + grouped(packets_.malformed) + " packets do not hold";
  if (const std::uint64_t other = packets_.other - packets_.tcp; other != 0) {
    found += "; " + grouped(other) + " packets are no UDP over IP";
  }
  throw SetupError("input " + name_, expected, found);
}

}  // namespace tickwire::net
