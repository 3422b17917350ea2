#include "tests/support/residue.h"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>

namespace shoal::support {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kObjects = "/dev/shm/shoal.";

// Descriptors that a process keeps for its life: from its first object on, and
// the lock of use_one_processor().
constexpr std::string_view kKept[] = {"/memfd:shoal.domain",
                                      "/sys/devices/system/cpu/"};

const std::string& run_token() {
  static const std::string token = [] {
    std::uint64_t number = 0;
    if (getrandom(&number, sizeof number, 0) != sizeof number) std::abort();
    std::ostringstream text;
    text << "test-" << std::hex << std::setfill('0') << std::setw(16) << number;
    return text.str();
  }();
  return token;
}

bool starts_with_any_kept(std::string_view target) {
  return std::ranges::any_of(
      kKept, [&](std::string_view kept) { return target.starts_with(kept); });
}

void add_objects(std::set<std::string>& found) {
  const std::string ours = std::string(kObjects) + run_token();
  for (const auto& entry : fs::directory_iterator("/dev/shm"))
    if (entry.path().native().starts_with(ours)) found.insert(entry.path());
}

void add_descriptors(std::set<std::string>& found) {
  // The listing holds its own descriptor, which is closed by the second look.
  std::set<fs::path> numbers;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd"))
    numbers.insert(entry.path());
  for (const auto& number : numbers) {
    std::error_code closed;
    const fs::path target = fs::read_symlink(number, closed);
    if (closed || starts_with_any_kept(target.native())) continue;
    found.insert("descriptor " + number.filename().string() + " of " +
                 target.string());
  }
}

// "pid (name) state parent ...", where the name may hold anything.
std::optional<pid_t> parent_of(const fs::path& process) {
  std::ifstream file(process / "stat");
  // Not by iterators, which throw when the process ends under the call.
  std::string stat;
  std::getline(file, stat, '\0');
  const auto end_of_name = stat.rfind(')');
  if (end_of_name == std::string::npos) return std::nullopt;
  std::istringstream rest(stat.substr(end_of_name + 1));
  char state = 0;
  pid_t parent = 0;
  if (!(rest >> state >> parent)) return std::nullopt;
  return parent;
}

void add_children(std::set<std::string>& found) {
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string pid = entry.path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (parent_of(entry.path()) == getpid()) found.insert("process " + pid);
  }
}

}  // namespace

std::string unique_name(std::string_view what) {
  // relaxed: only the number counts, nothing is published with it.
  static std::atomic<unsigned> next = 0;
  std::ostringstream name;
  name << run_token() << '-' << getpid() << '-'
       << next.fetch_add(1, std::memory_order_relaxed) << '-' << what;
  return name.str();
}

std::set<std::string> residue() {
  std::set<std::string> found;
  add_objects(found);
  add_descriptors(found);
  add_children(found);
  return found;
}

void ResidueCheck::SetUp() { before_ = residue(); }

void ResidueCheck::TearDown() {
  for (const std::string& item : residue()) {
    if (before_.contains(item)) continue;
    ADD_FAILURE() << "left behind: " << item;
    // So that programs which run later are not blamed for it.
    if (item.starts_with(kObjects)) fs::remove(item);
  }
}

std::multiset<std::string> belongings() {
  std::multiset<std::string> all;
  for (const std::string& item : residue()) all.insert(item);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find("shoal.") != std::string::npos)
      all.insert("mapping of" + line.substr(line.rfind(' ')));
  return all;
}

std::multiset<std::string> kinds_of_belongings() {
  std::multiset<std::string> kinds;
  for (std::string item : belongings()) {
    std::erase_if(item, [](unsigned char c) { return std::isdigit(c) != 0; });
    kinds.insert(std::move(item));
  }
  return kinds;
}

}  // namespace shoal::support
