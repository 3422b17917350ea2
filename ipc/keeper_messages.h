#pragma once
// What clients and the keeper say to each other; keeper.h.

#include <cstdint>
#include <string>
#include <type_traits>

namespace shoal::keeper {

// A message of the container is not to be received any more as soon as its word
// at `offset` says (word & mask) >= least. Zeros: there is none.
struct Passed {
  std::uint64_t offset = 0;
  std::uint64_t mask = 0;
  std::uint64_t least = 0;
};

enum class Wish : std::uint32_t { deposit = 1, collect = 2, forget = 3 };

struct Request {
  Wish wish;
  std::int32_t end = -1;
  std::uint64_t ticket = 0;
  std::uint64_t container = 0;   // its descriptor comes first
  std::uint64_t keeps_open = 0;  // 1: the very open files, not what is in them
  std::uint64_t receiver = 0;    // as in Container
  std::uint64_t collector = 0;
  std::uint64_t domain = 0;
  Passed passed = {};
  std::uint64_t again = 0;  // 1: as in Container
};
static_assert(sizeof(Request) == 88 && std::is_trivially_copyable_v<Request>);

enum class Answer : std::uint32_t { done = 1, unknown = 2, no_space = 3 };

struct Reply {
  Answer answer;
  std::uint32_t unused;
  std::uint64_t who;
};
static_assert(sizeof(Reply) == 16 && std::is_trivially_copyable_v<Reply>);

inline std::string address_of(std::uint64_t keeper) {
  return "shoal.keeper." + std::to_string(keeper);
}

}  // namespace shoal::keeper
