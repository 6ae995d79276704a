/// tickwire-worker: runs a model in a process of its own. An engine starts it, where its configuration says
/// engine.layout = "processes"; there is nothing to start it for by hand.

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/engine/worker/worker.hpp"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool help = !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h");
  if (arguments.empty() || help) {
    constexpr const char* kUsage =
        "tickwire-worker runs a model in a process of its own. An engine starts it, where the configuration\n"
        "says engine.layout = \"processes\"; it is not for use by hand.\n";
    (void)std::fputs(kUsage, help ? stdout : stderr);
    return help ? 0 : 2;
  }
  try {
    return tickwire::engine::run_worker(arguments);
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "tickwire-worker: %s\n", error.what());
    return 1;
  }
}
