#pragma once
// Code that travels: an address as {module, offset}.
//
//   FunctionRef ref = function::reference(address);   // what is sent
//   const void* here = function::resolve(ref);        // or a typed error
//
// A module is named by its build-id, so that a process with another binary
// refuses the reference instead of calling whatever lies there.
//
// Source: notes/pool.md, "Shipping functions"; UPC++ code segments do alike.
// Cost:   reference() is meant to be called once for each address.

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace shoal {

struct FunctionRef {
  // Hash of the build-id, or of the path without one; kByName.
  std::uint64_t module;
  std::uint64_t offset;  // from the module's load address; hash of the name

  bool operator==(const FunctionRef&) const = default;
};

namespace function {

inline constexpr std::uint64_t kByName = 0x656D616E206C6F68;

// By its name, if it has one. Throws std::invalid_argument when the address
// lies in no loaded module.
FunctionRef reference(const void* address);

// Before a fork: what is loaded now, resolve() finds in the child without the
// loader's lock, which another thread may hold at the fork (build_id.h).
void note_modules();

// That of one address, once it has been looked up. A static variable's
// initialiser would not do: who is forked in the middle of one by another
// thread waits for its end for ever.
class KnownReference {
 public:
  FunctionRef of(const void* address) {
    // SYNC(function.known)
    std::uint64_t offset = offset_.load(std::memory_order_acquire);
    // relaxed: it was stored before the offset.
    if (offset != 0) return {module_.load(std::memory_order_relaxed), offset};
    const FunctionRef found = function::reference(address);
    // relaxed: the same, whoever stores it.
    module_.store(found.module, std::memory_order_relaxed);
    // SYNC(function.known)
    offset_.store(found.offset, std::memory_order_release);
    return found;
  }

 private:
  std::atomic<std::uint64_t> module_{0};
  std::atomic<std::uint64_t> offset_{0};  // 0, where no code is: not known
};

// Throws TypeMismatch when nothing here has that name, when no module here has
// that build-id, nor a library at one of the places; Corrupt when the offset is
// outside of its code.
const void* resolve(const FunctionRef& reference);

// A function that goes by a name, which any program may give to one of its
// own, and not by its place. `entry` is static, and so is the name.
struct Named {
  const char* name;
  const void* address;
  std::uint64_t hash = 0;
  const Named* next = nullptr;
};
// Throws std::logic_error for a name that another function here has.
bool add_named(Named& entry);

// Where a module with a build-id was loaded from.
struct Place {
  std::uint64_t module;
  std::string path;
};
// The libraries that this process has loaded.
std::vector<Place> places();
// Those of the process that the references come from; resolve() loads what is
// missing. Before any thread resolves.
void set_places(std::vector<Place> places);

}  // namespace function
}  // namespace shoal
