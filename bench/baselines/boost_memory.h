#pragma once
// Boost.Interprocess' managed_shared_memory, for a process and those it forks
// later.

#include <unistd.h>

#include <boost/interprocess/managed_shared_memory.hpp>
#include <cstddef>
#include <string>

namespace shoal::bench {

using BoostMemory = boost::interprocess::managed_shared_memory;

inline BoostMemory boost_memory(std::size_t bytes) {
  const std::string name = "shoal-bench-" + std::to_string(getpid());
  BoostMemory memory(boost::interprocess::create_only, name.c_str(), bytes);
  // Nobody opens it by name, and it stays mapped.
  boost::interprocess::shared_memory_object::remove(name.c_str());
  return memory;
}

// A T in a segment of its own, as Shared is in a mapping; it goes without its
// destructor.
template <class T>
class BoostShared {
 public:
  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

 private:
  BoostMemory memory_ = boost_memory(sizeof(T) + (std::size_t{64} << 10));
  T* value_ = memory_.construct<T>(boost::interprocess::unique_instance)();
};

}  // namespace shoal::bench
