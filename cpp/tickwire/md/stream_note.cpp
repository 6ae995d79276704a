#include "tickwire/md/stream_note.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace tickwire::md {
namespace {

struct Form {
  StreamNote::Kind kind;
  std::string_view name;
  bool first;
  bool count;
};

using Kind = StreamNote::Kind;
constexpr std::array<Form, 8> kForms{{{Kind::Stream, "stream", false, false},
                                      {Kind::Session, "session", false, false},
                                      {Kind::Lost, "lost", true, true},
                                      {Kind::Snapshot, "snapshot", false, false},
                                      {Kind::SnapshotEnd, "snapshot_end", true, false},
                                      {Kind::SnapshotFailed, "snapshot_failed", false, false},
                                      {Kind::Close, "close", false, false},
                                      {Kind::Open, "open", false, false}}};

constexpr std::string_view kBegin = R"({"tickwire":")";
constexpr std::string_view kFirst = R"(,"first":)";
constexpr std::string_view kCount = R"(,"count":)";

bool take(std::string_view& rest, std::string_view expected) noexcept {
  if (!rest.starts_with(expected)) return false;
  rest.remove_prefix(expected.size());
  return true;
}

bool take_number(std::string_view& rest, std::uint64_t& number) noexcept {
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (error != std::errc{}) return false;
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  return true;
}

}  // namespace

std::string_view format_stream_note(std::span<char, kMaxStreamNote> out, const StreamNote& note) noexcept {
  char* at = out.data();
  const auto put = [&](std::string_view text) {
    std::memcpy(at, text.data(), text.size());
    at += text.size();
  };
  const auto put_number = [&](std::uint64_t number) {
    at = std::to_chars(at, out.data() + out.size(), number).ptr;
  };
  const Form& form = kForms[static_cast<std::size_t>(note.kind)];
  put(kBegin);
  put(form.name);
  put("\"");
  if (form.first) put(kFirst), put_number(note.first);
  if (form.count) put(kCount), put_number(note.count);
  put("}");
  return {out.data(), static_cast<std::size_t>(at - out.data())};
}

bool parse_stream_note(std::string_view text, StreamNote& note) noexcept {
  if (!take(text, kBegin)) return false;
  const std::string_view name = text.substr(0, text.find('"'));
  const auto form =
      std::find_if(kForms.begin(), kForms.end(), [&](const Form& one) { return one.name == name; });
  if (form == kForms.end()) return false;
  text.remove_prefix(name.size());
  note = {form->kind};
  return take(text, "\"") && (!form->first || (take(text, kFirst) && take_number(text, note.first))) &&
         (!form->count || (take(text, kCount) && take_number(text, note.count))) && text == "}";
}

}  // namespace tickwire::md
