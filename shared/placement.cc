#include "shoal/shared/placement.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>

#include "shoal/ipc/file_text.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/lazy_static.h"

namespace shoal::placement {
namespace {

// <linux/mempolicy.h>
constexpr int kPreferred = 1;  // MPOL_PREFERRED: elsewhere when it is full
constexpr int kMostNodes = 1024;
constexpr int kBits = 8 * sizeof(unsigned long);

std::optional<std::string> huge_pages(void* start, std::size_t bytes) {
  constexpr char kSwitch[] =
      "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
  const std::string state = first_line_of_file(kSwitch);
  if (state.empty())
    return "huge pages: this kernel has none for shared memory";
  for (const char* off : {"[never]", "[deny]"})
    if (state.find(off) != std::string::npos)
      return std::string("huge pages: ") + kSwitch + " says " + off +
             "; write advise to it";
  if (madvise(start, bytes, MADV_HUGEPAGE) != 0)
    return std::string("huge pages: madvise: ") + strerrordesc_np(errno);
  return std::nullopt;
}

std::optional<std::string> on_node(void* start, std::size_t bytes, int node) {
  const std::string wish = "NUMA node " + std::to_string(node) + ": ";
  if (node < 0 || node >= kMostNodes) return wish + "there is no such number";
  std::array<unsigned long, kMostNodes / kBits> mask{};
  mask[static_cast<std::size_t>(node / kBits)] |= 1UL << (node % kBits);
  if (syscall(SYS_mbind, start, bytes, kPreferred, mask.data(), kMostNodes + 1,
              0) == 0)
    return std::nullopt;
  if (errno == EINVAL)
    return wish + "this machine has nodes " +
           first_line_of_file("/sys/devices/system/node/online");
  return wish + "mbind: " + strerrordesc_np(errno);
}

constinit LazyStatic<std::set<std::string>> told;
constinit ForkMutex told_mutex;
SHOAL_AT_FORK const HeldAtFork<told_mutex> held_at_fork;

// Once a process for each sentence.
void warn(const std::string& what) {
  const bool is_new = [&] {
    const std::lock_guard guard(told_mutex);
    return told.get().insert(what).second;
  }();
  if (is_new) fprintf(stderr, "shoal: an Array is without %s\n", what.c_str());
}

bool excludes_huge_pages(const Wish& wish) {
  return wish.alignment > segment::kPage;
}

}  // namespace

segment::Alignment alignment_for(const Wish& wish) {
  constexpr std::size_t kMost = std::size_t{1} << 30;
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  if (!std::has_single_bit(wish.alignment) || wish.alignment > kMost)
    throw std::invalid_argument("shoal: ArrayOptions::alignment is " +
                                std::to_string(wish.alignment) +
                                "; it is a power of two, up to 1 GiB");
  if (wish.numa_node && *wish.numa_node < 0)
    throw std::invalid_argument("shoal: ArrayOptions::numa_node is negative (" +
                                std::to_string(*wish.numa_node) + ")");
  if (excludes_huge_pages(wish)) return {wish.alignment, segment::kPage};
  if (wish.huge_pages) return {kHugePage, 0};
  return {};
}

std::vector<std::string> arrange(void* start, std::size_t bytes,
                                 const Wish& wish) {
  std::vector<std::string> missed;
  const auto note = [&](std::optional<std::string> what) {
    if (what) missed.push_back(std::move(*what));
  };
  if (wish.huge_pages && excludes_huge_pages(wish))
    missed.push_back(
        "huge pages: they begin at a header of 4096 bytes; an "
        "alignment of more excludes them");
  else if (wish.huge_pages)
    note(huge_pages(start, bytes));
  if (wish.numa_node) note(on_node(start, bytes, *wish.numa_node));
  for (const std::string& what : missed) warn(what);
  return missed;
}

}  // namespace shoal::placement
