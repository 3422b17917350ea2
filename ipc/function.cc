#include "shoal/ipc/function.h"

#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "shoal/ipc/errors.h"

namespace shoal::function {
namespace {

struct Module {
  std::uint64_t id;
  std::uintptr_t base;
  std::uintptr_t first;  // of its executable segments
  std::uintptr_t last;
};

std::uint64_t hash(std::string_view bytes) {
  std::uint64_t value = 0xCBF29CE484222325;  // FNV-1a
  for (const unsigned char byte : bytes) value = (value ^ byte) * 0x100000001B3;
  return value;
}

// The NT_GNU_BUILD_ID note in [note, note + size), or nothing.
std::string_view build_id(std::uintptr_t note, std::size_t size) {
  const auto align = [](std::size_t n) { return (n + 3) & ~std::size_t{3}; };
  while (size >= sizeof(ElfW(Nhdr))) {
    const auto* header = reinterpret_cast<const ElfW(Nhdr)*>(note);
    const auto* name = reinterpret_cast<const char*>(header + 1);
    const std::size_t whole =
        sizeof *header + align(header->n_namesz) + align(header->n_descsz);
    if (whole > size) break;
    if (header->n_type == NT_GNU_BUILD_ID && header->n_namesz == 4 &&
        memcmp(name, "GNU", 4) == 0)
      return {name + align(header->n_namesz), header->n_descsz};
    note += whole;
    size -= whole;
  }
  return {};
}

int add_module(dl_phdr_info* info, std::size_t, void* argument) {
  Module module{0, info->dlpi_addr, UINTPTR_MAX, 0};
  std::string_view id;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const std::uintptr_t start = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0) {
      module.first = std::min(module.first, start);
      module.last = std::max(module.last, start + segment.p_memsz);
    } else if (segment.p_type == PT_NOTE && id.empty()) {
      id = build_id(start, segment.p_memsz);
    }
  }
  module.id = hash(id.empty() ? std::string_view(info->dlpi_name) : id);
  if (module.last != 0)
    static_cast<std::vector<Module>*>(argument)->push_back(module);
  return 0;
}

// The first module that `match` accepts, after a fresh look at what is loaded
// if need be. Lists are replaced whole and kept: a fork, or a reader in another
// thread, always sees one.
struct Loaded {
  std::vector<Module> modules;
  const Loaded* older;
};
template <class Match>
bool find(Match match, Module& found) {
  static std::atomic<const Loaded*> known{nullptr};
  for (int fresh = 0; fresh < 2; ++fresh) {
    // SYNC(function.modules)
    const Loaded* loaded = known.load(std::memory_order_acquire);
    if (fresh != 0 || loaded == nullptr) {
      auto now = std::make_unique<Loaded>();
      dl_iterate_phdr(add_module, &now->modules);
      const auto it =
          std::find_if(now->modules.begin(), now->modules.end(), match);
      if (it == now->modules.end()) return false;
      found = *it;
      now->older = loaded;
      // SYNC(function.modules)
      while (!known.compare_exchange_weak(now->older, now.get(),
                                          std::memory_order_acq_rel,
                                          std::memory_order_acquire)) {
      }
      static_cast<void>(now.release());
      return true;
    }
    const auto it =
        std::find_if(loaded->modules.begin(), loaded->modules.end(), match);
    if (it == loaded->modules.end()) continue;
    found = *it;
    return true;
  }
  return false;
}

}  // namespace

FunctionRef reference(const void* address) {
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  Module module;
  if (!find([value](
                const Module& m) { return value >= m.first && value < m.last; },
            module))
    throw std::invalid_argument(
        "shoal: this function lies in no loaded module and cannot be called "
        "in another process");
  return {module.id, value - module.base};
}

const void* resolve(const FunctionRef& reference) {
  Module module;
  if (!find([&](const Module& m) { return m.id == reference.module; },
            module)) {
    char id[32];
    snprintf(id, sizeof id, "%016lx",
             static_cast<unsigned long>(reference.module));
    throw TypeMismatch(
        std::string("shoal: a task's function is in a module that this "
                    "process has not loaded (build-id hash ") +
        id + "): load the library before the Pool is made, and use one build");
  }
  const std::uintptr_t address = module.base + reference.offset;
  if (address < module.first || address >= module.last)
    throw Corrupt("shoal: a task's function is outside of its module");
  return reinterpret_cast<const void*>(address);
}

}  // namespace shoal::function
