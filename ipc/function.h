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

#include <cstdint>
#include <string>
#include <vector>

namespace shoal {

struct FunctionRef {
  std::uint64_t module;  // hash of the build-id, or of the path without one
  std::uint64_t offset;  // from the module's load address

  bool operator==(const FunctionRef&) const = default;
};

namespace function {

// Throws std::invalid_argument when the address lies in no loaded module.
FunctionRef reference(const void* address);

// Throws TypeMismatch when no module here has that build-id, nor a library at
// one of the places; Corrupt when the offset is outside of its code.
const void* resolve(const FunctionRef& reference);

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
