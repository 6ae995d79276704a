#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tickwire::concurrent {

/// Stands for "any core the process may use".
inline constexpr int kAnyCore = -1;

/// Setup: the cores this thread may run on, ascending.
std::vector<int> allowed_cores();

/// Pins the calling thread and checks that it took effect. Throws SetupError, which names `what` (the
/// configuration key or the thread), the core and the cores that can be had: a run that floats in
/// silence gives numbers nobody can explain.
void pin_this_thread(int core, std::string_view what);

/// Names the calling thread for top, perf and the debugger. The kernel keeps 15 characters, so a
/// longer name is cut.
void name_this_thread(std::string_view name);

}  // namespace tickwire::concurrent
