#include "shoal/ipc/function.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shoal/ipc/build_id.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/static_list.h"

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

// What was loaded at one time. Lists are replaced whole and kept: a fork, or a
// reader in another thread, always sees one.
struct Loaded {
  std::vector<Module> modules;
  std::uint64_t changes = 0;
  const Loaded* older = nullptr;
};
constinit std::atomic<const Loaded*> known{nullptr};

std::uint64_t changes_of(const dl_phdr_info& info) {
  return info.dlpi_adds + info.dlpi_subs;
}

int add_module(dl_phdr_info* info, std::size_t, void* argument) {
  Module module{0, info->dlpi_addr, UINTPTR_MAX, 0};
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const std::uintptr_t start = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0) {
      module.first = std::min(module.first, start);
      module.last = std::max(module.last, start + segment.p_memsz);
    }
  }
  const std::string_view id = build_id::of_module(*info);
  module.id = hash(id.empty() ? std::string_view(info->dlpi_name) : id);
  auto& loaded = *static_cast<Loaded*>(argument);
  loaded.changes = changes_of(*info);
  if (module.last != 0) loaded.modules.push_back(module);
  return 0;
}

// What is loaded now; the same list as long as nothing has changed.
const Loaded* look() {
  // SYNC(function.modules)
  const Loaded* const before = known.load(std::memory_order_acquire);
  std::uint64_t changes = 0;
  build_id::for_each_module(
      [](dl_phdr_info* info, std::size_t, void* argument) {
        *static_cast<std::uint64_t*>(argument) = changes_of(*info);
        return 1;
      },
      &changes);
  if (before != nullptr && before->changes == changes) return before;
  auto now = std::make_unique<Loaded>();
  build_id::for_each_module(add_module, now.get());
  now->older = before;
  // SYNC(function.modules)
  while (!known.compare_exchange_weak(now->older, now.get(),
                                      std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
  }
  return now.release();
}

// The first module that `match` accepts, after a fresh look if need be.
template <class Match>
bool find(Match match, Module& found) {
  // SYNC(function.modules)
  const Loaded* loaded = known.load(std::memory_order_acquire);
  for (int fresh = 0; fresh < 2; ++fresh) {
    if (fresh != 0 || loaded == nullptr) {
      const Loaded* const now = look();
      if (now == loaded) return false;
      loaded = now;
    }
    const auto it =
        std::find_if(loaded->modules.begin(), loaded->modules.end(), match);
    if (it == loaded->modules.end()) continue;
    found = *it;
    return true;
  }
  return false;
}

std::atomic<const std::vector<Place>*> known_places{nullptr};

std::string hex(std::uint64_t number) {
  char text[32];
  snprintf(text, sizeof text, "%016lx", static_cast<unsigned long>(number));
  return text;
}

// Loads the library with this id from where another process has it; false when
// that is not known. What is at that place is looked at before any of it runs.
bool load(std::uint64_t id) {
  // SYNC(function.places)
  const auto* places = known_places.load(std::memory_order_acquire);
  if (places == nullptr) return false;
  const auto place =
      std::find_if(places->begin(), places->end(),
                   [id](const Place& p) { return p.module == id; });
  if (place == places->end()) return false;
  const std::string found = build_id::of_file(place->path);
  if (found.empty() || hash(found) != id)
    throw TypeMismatch("shoal: a function is in " + place->path +
                       ", which is another build here (build-id hash " +
                       (found.empty() ? "none" : hex(hash(found))) +
                       ", wanted " + hex(id) + "); use one build");
  // Kept: functions in it may be called at any time from now on.
  if (dlopen(place->path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) ==
      nullptr)
    throw TypeMismatch("shoal: a function is in " + place->path +
                       ", which cannot be loaded here: " + dlerror());
  return true;
}

constinit StaticList<Named> named_functions;

}  // namespace

bool add_named(Named& entry) {
  entry.hash = hash(entry.name);
  const Named* const same = named_functions.add(
      entry, [&](const Named& n) { return n.hash == entry.hash; });
  if (same != nullptr && same->address != entry.address)
    throw std::logic_error(std::string("shoal: two functions are named \"") +
                           entry.name + "\" (and \"" + same->name +
                           "\"); give them different names");
  return true;
}

void note_modules() { look(); }

FunctionRef reference(const void* address) {
  if (const Named* named = named_functions.find(
          [&](const Named& n) { return n.address == address; }))
    return {kByName, named->hash};
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

std::vector<Place> places() {
  std::vector<Place> found;
  build_id::for_each_module(
      [](dl_phdr_info* info, std::size_t, void* argument) {
        // The program itself has no name here, and the kernel's page no file.
        const std::string_view id = build_id::of_module(*info);
        if (!id.empty() && info->dlpi_name[0] != '\0')
          static_cast<std::vector<Place>*>(argument)->push_back(
              {hash(id), info->dlpi_name});
        return 0;
      },
      &found);
  // Not under the loader's lock: a file system may take its time.
  std::erase_if(found, [](Place& place) {
    char* const path = realpath(place.path.c_str(), nullptr);
    if (path == nullptr) return true;
    place.path = path;
    free(path);
    return false;
  });
  return found;
}

void set_places(std::vector<Place> places) {
  // Never destroyed, nor what was there before.
  static constinit LazyStatic<std::list<std::vector<Place>>> kept;
  // SYNC(function.places)
  known_places.store(&kept.get().emplace_back(std::move(places)),
                     std::memory_order_release);
}

const void* resolve(const FunctionRef& reference) {
  if (reference.module == kByName) {
    const Named* const named = named_functions.find(
        [&](const Named& n) { return n.hash == reference.offset; });
    if (named != nullptr) return named->address;
    throw TypeMismatch(
        "shoal: a function is called by a name (hash " + hex(reference.offset) +
        ") that this program gives to none: declare it here, too, with "
        "SHOAL_REMOTE");
  }
  Module module;
  const auto match = [&](const Module& m) { return m.id == reference.module; };
  if (!find(match, module) &&
      !(load(reference.module) && find(match, module))) {
    throw TypeMismatch(
        "shoal: a task's function is in a module that this "
        "process has not loaded (build-id hash " +
        hex(reference.module) +
        "): load the library before the Pool is made, and use "
        "one build");
  }
  const std::uintptr_t address = module.base + reference.offset;
  if (address < module.first || address >= module.last)
    throw Corrupt("shoal: a task's function is outside of its module");
  return reinterpret_cast<const void*>(address);
}

}  // namespace shoal::function
