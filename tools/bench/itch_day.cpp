// Writes a made-up day of ITCH to a file, in the venue's own length-prefixed form, and says on one line of
// JSON what is in it.
//
//     tickwire-bench-itch-day --out FILE [--messages 50000000] [--instruments 8000] [--seed 1]

#include "itch_day.hpp"

#include <cstdio>
#include <cstring>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>

#include "options.hpp"

namespace {

using namespace tickwire::bench;

void run(int argc, char** argv) {
  const Options options(argc, argv, 1,
                        {{"out", ""}, {"messages", "50000000"}, {"instruments", "8000"}, {"seed", "1"}});
  const ItchDaySettings settings{.messages = options.number<std::size_t>("messages"),
                                 .instruments = options.number<std::size_t>("instruments"),
                                 .seed = options.number<std::uint64_t>("seed")};
  if (settings.instruments == 0 || settings.instruments > 60'000) {
    throw std::runtime_error("--instruments: expected 1 to 60,000");
  }
  std::FILE* const file = std::fopen(options.text("out").c_str(), "wb");
  const auto failed = [&] { throw std::runtime_error(options.text("out") + ": " + std::strerror(errno)); };
  if (file == nullptr) failed();
  ItchDay day(settings);
  day.write([&](std::span<const unsigned char> bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) failed();
  });
  if (std::fclose(file) != 0) failed();
  std::printf(R"({"messages": %zu, "bytes": %zu, "instruments": %zu, "seed": %lu, "busiest_100ms": %lu, )",
              day.messages(), day.bytes(), settings.instruments, settings.seed, day.busiest_100ms());
  std::printf(R"("most_live_orders": %zu, "types": {)", day.most_live());
  const char* separator = "";
  for (const char type : std::string("RHAFDUECXP")) {
    std::printf(R"(%s"%c": %lu)", separator, type, day.count(type));
    separator = ", ";
  }
  std::printf("}}\n");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tickwire-bench-itch-day: %s\n", error.what());
    return 1;
  }
  return 0;
}
